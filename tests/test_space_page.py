"""The Space as a visitor uses it: a built folder in its own process, in headless Chromium.

Environment: ``SPACE_PYTHON`` is the interpreter that serves it (default: this one);
``SPACE_BROWSER=required`` makes a missing browser a failure instead of a skipped test.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from gate import UPLOADS_AT_ONCE
from PIL import Image
from settings import FIRST_CHOICE, MOST_REMEMBERED, RIVAL
from storage import MOST_FILES

from helpers.strangers import Stranger
from helpers.uploads import READABLE, UNREADABLE, saved
from utils.data.sources import load_pictures
from utils.files import ROOT
from utils.measure.load_test import _beside_long, running_space
from utils.publish.space import build_space
from utils.runs import Run
from utils.training.fit import fit
from utils.training.plan import plan_training

pytestmark = pytest.mark.slow

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
REQUIRED = os.environ.get("SPACE_BROWSER") == "required"
SERVER = os.environ.get("SPACE_PYTHON", sys.executable)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
         "--no-first-run", "--disable-component-update"]  # fmt: skip


@contextmanager
def served_alone(run: Run, folder: Path):
    """A run's Space, served from a copy of its folder alone."""
    shutil.copytree(build_space(run), folder)
    with running_space(folder, SERVER) as space:
        yield space


@pytest.fixture(scope="module")
def running(tiny_run, tmp_path_factory):
    pytest.importorskip("gradio")
    with served_alone(tiny_run, tmp_path_factory.mktemp("alone") / "space") as space:
        with closing(Stranger(space.address)) as stranger:
            uploads = Path(stranger.upload(b"a")["path"]).parent
        yield space
    assert not uploads.exists()  # it takes them along when it is told to stop


@pytest.fixture(scope="module")
def stranger(running):
    with closing(Stranger(running.address)) as stranger:
        yield stranger


@pytest.fixture(scope="module")
def visitor(running):
    with running.visitor() as visitor:
        yield visitor


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and not REQUIRED:
        pytest.skip("there is no Chromium here, so the Space is not tried in a browser")
    assert CHROMIUM, "SPACE_BROWSER is 'required', and there is no Chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visits(browser):
    """A browser that keeps the page's scripts from one visit to the next."""
    with browser.new_context(viewport={"width": 1280, "height": 1000}) as visits:
        yield visits


@pytest.fixture
def page(visits, running):
    page = visits.new_page()
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(running.address)
    page.wait_for_selector(".maps .tiles")
    yield page
    assert page.errors == []
    page.close()


def says(page) -> str:
    return page.inner_text(".answer .says p")


def tiles(page) -> int:
    return page.locator(".maps figure").count()


def upload(page, name, content):
    page.set_input_files("input[type=file]", {"name": name, "mimeType": "", "buffer": content})


def picture(tmp_path: Path, colour="red") -> bytes:
    Image.new("RGB", (300, 200), colour).save(tmp_path / "picture.png")
    return (tmp_path / "picture.png").read_bytes()


def link(page) -> dict:
    page.wait_for_timeout(300)  # it follows the view
    address = page.locator("#link textarea").input_value()
    return {k: v[0] for k, v in parse_qs(urlparse(address).query, keep_blank_values=True).items()}


def test_a_first_visit_shows_an_example_and_asks_nothing_of_other_hosts(page, running):
    assert "Example " in says(page)
    assert tiles(page) == 4  # two classes, two layers
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-name^=example]')].filter("
        "button => getComputedStyle(button).outlineStyle === 'solid').length === 1"
    )
    others = {u for u in page.asked if not u.startswith((running.address, "data:", "blob:"))}
    assert others == set()


def test_an_upload_is_answered_and_its_link_tells_the_settings_alone(page, tmp_path):
    upload(page, "picture.png", picture(tmp_path))
    page.wait_for_selector("text=Your picture:")
    assert page.locator(".answer figure").count() == 2
    assert "seen at 16×16" in page.inner_text(".answer .pictures")
    assert link(page)["source"] == ""


def test_an_example_and_a_mistake_open_in_the_explorer(page, running):
    page.locator("[data-name=example-3]").click()
    page.wait_for_selector("text=Example 3:")
    page.locator("[data-name=mistake-2]").click()
    page.wait_for_selector("text=Mistake 2:")
    assert "In truth it is" in says(page)
    assert link(page)["source"] == "mistake-2"
    true = running.about["classes"][running.about["mistakes"][1]["target"]]
    assert f"“{true}”" in page.inner_text(".maps")  # beside what the network said
    page.wait_for_function(
        "() => document.querySelector('.answer').getBoundingClientRect().top >= 0"
    )
    page.get_by_label("Method", exact=True).focus()  # the mark stays
    outline = "getComputedStyle(document.querySelector('[data-name=mistake-2]')).outlineStyle"
    page.wait_for_function(f"() => {outline} === 'solid'")


def test_moving_the_weight_changes_the_picture_and_asks_nothing(page):
    before = len(page.asked)
    slider = page.get_by_label("Weight of the picture against the map").last
    slider.focus()
    for _ in range(4):
        slider.press("ArrowRight")
    opacity = "getComputedStyle(document.querySelector('.stack .map')).opacity"
    page.wait_for_function(f"() => Math.abs({opacity} - 0.2) < 1e-6")
    page.wait_for_timeout(300)
    assert page.asked[before:] == []
    assert link(page)["weight"] == "0.8"


def test_the_number_of_classes_follows_its_slider(page):
    slider = page.get_by_label("Classes to list").last
    slider.focus()
    slider.press("ArrowLeft")
    page.wait_for_function("() => document.querySelectorAll('.classes tbody tr').length === 4")


def test_layers_are_chosen_and_none_is_said(page):
    for name in ("prep", "layer2"):
        page.get_by_label(name, exact=True).check()
    page.wait_for_function("() => document.querySelectorAll('.maps figure').length === 8")
    for name in ("prep", "layer1", "layer2", "layer3"):
        page.get_by_label(name, exact=True).uncheck()
    page.wait_for_selector("text=Choose a layer")


def choose(page, label, option):
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_method_tells_what_it_is_and_draws_other_maps(page):
    map_of = "() => document.querySelector('.stack .map').src"
    before = page.evaluate(map_of)
    choose(page, "Method", "EigenCAM")
    page.wait_for_selector("text=does not look at the class")
    page.wait_for_function(f"(before) => ({map_of})() !== before", arg=before)
    assert page.locator(".maps h2").all_inner_texts() == [
        "What stands out to it, whatever the class"
    ]
    assert link(page)["method"] == "eigencam"


def test_maps_that_take_long_say_so_and_any_other_choice_stops_them(page):
    page.get_by_label("Method", exact=True).click()
    page.get_by_role("option", name=re.compile(r"ScoreCAM \(about \d+ s\)")).click()
    page.wait_for_selector(".maps >> text=/the maps come in about \\d+ s/")
    page.wait_for_selector(".maps .tiles", timeout=60_000)
    choose_long = re.compile("AblationCAM")
    page.get_by_label("Method", exact=True).click()
    page.get_by_role("option", name=choose_long).click()
    page.wait_for_selector("text=the maps come in about")
    choose(page, "Method", "EigenCAM")
    page.wait_for_selector("text=What stands out to it")
    page.wait_for_timeout(1_500)
    assert page.locator(".maps h2").count() == 1  # the others did not come after it


def test_maps_that_take_long_end_with_their_visitors_stay(running, tmp_path, stranger, visitor):
    import httpx

    session = {"session_hash": "leaves"}
    asked = [5, "scorecam", visitor.blocks, FIRST_CHOICE, RIVAL]
    stranger.send("show_upload", [stranger.upload(picture(tmp_path)), *asked], **session)
    body = {"data": [None, None], "fn_index": stranger.events["show_long_maps"], **session}
    with httpx.Client(base_url=f"{running.address}/gradio_api") as client:
        client.post("/queue/join", json=body)
        with client.stream("GET", "/queue/data", params=session) as lines:
            next(line for line in lines.iter_lines() if "process_starts" in line)
    time.sleep(0.4)
    before = sum(running.process.cpu_times()[:2])
    time.sleep(0.5)
    assert sum(running.process.cpu_times()[:2]) - before < 0.15


def test_others_do_not_wait_for_maps_that_take_long(running):
    long, beside = _beside_long(running)
    assert long.succeeded
    assert all(answer.succeeded for answer in beside)
    assert max(answer.waited for answer in beside) < long.waited


def test_any_class_is_explained_beside_another_or_alone(page, running):
    classes = running.about["classes"]
    choose(page, "Class to explain", classes[4])
    page.wait_for_selector(f"text=Where it found “{classes[4]}")
    choose(page, "Compare with", "nothing")
    page.wait_for_function("() => document.querySelectorAll('.maps h2').length === 1")


@pytest.mark.parametrize(
    ("label", "listed", "most"),
    [
        ("Classes to list", ".classes tbody tr", 10),
        ("Mistakes to show", "[data-name^=mistake]", 25),
    ],
)
def test_a_box_and_the_view_agree_whatever_is_typed(page, label, listed, most):
    box = page.get_by_label(f"number input for {label}")
    agree = f"""([box, count]) => box.value === String(count)
                && document.querySelectorAll("{listed}").length === count"""
    for typed, count in (("99", most), ("3.5", 4), ("-4", 1), ("3.7", 4)):
        box.fill(typed)
        page.wait_for_function(agree, arg=[box.element_handle(), count])
    box.fill("")
    page.wait_for_timeout(200)
    assert page.locator(listed).count() == 4  # nothing changes while it is empty
    box.blur()
    page.wait_for_function(agree, arg=[box.element_handle(), 1])
    weight = page.get_by_label("number input for Weight of the picture against the map")
    weight.fill("99")
    page.wait_for_function("() => getComputedStyle(document.querySelector('.map')).opacity === '0'")
    assert weight.input_value() == "1"
    assert page.locator(".notice, [data-testid=toast-body]").count() == 0


def test_one_goes_on_from_mistake_to_mistake_at_the_answer(page):
    page.locator("[data-name=mistake-1]").click()
    before, after = (page.locator(f"[data-step='{step}']") for step in (-1, 1))
    page.wait_for_selector("text=Mistake 1:")
    page.wait_for_selector("[data-step='-1']:disabled")
    after.click()
    page.wait_for_selector("text=Mistake 2:")
    page.wait_for_selector("[data-step='1']:focus")  # the keyboard stays there
    pressed = page.locator("[aria-pressed=true]")
    assert pressed.get_attribute("data-name") == "mistake-2"
    page.wait_for_selector("[aria-live=polite]:has-text('Mistake 2:')", state="attached")
    before.click()
    page.wait_for_selector("text=Mistake 1:")
    page.locator("[data-name=example-2]").click()
    page.wait_for_selector("text=Example 2:")
    assert page.locator("[data-step]").count() == 0


@contextmanager
def answering_late(page, stranger):
    """Have others ask meanwhile for what takes the server some seconds."""
    large = saved(Image.new("RGB", (5_000, 4_900)))
    asked = [5, "gradcam", ["prep"], FIRST_CHOICE, RIVAL]
    with ThreadPoolExecutor(3) as others:
        for _ in range(3):
            others.submit(stranger.send, "show_upload", [stranger.upload(large), *asked])
        page.wait_for_timeout(100)  # theirs are first
        yield


def test_the_last_choice_counts_while_an_answer_is_awaited(page, stranger):
    with answering_late(page, stranger):
        for name in ("example-1", "example-2", "mistake-1"):
            page.locator(f"[data-name={name}]").click()
            page.wait_for_timeout(100)
    page.wait_for_selector("text=Mistake 1:")
    page.wait_for_timeout(500)
    assert "Mistake 1:" in says(page)
    with answering_late(page, stranger):
        for _ in range(3):
            page.locator("[data-step='1']").press("Enter")
    page.wait_for_selector("text=Mistake 4:")
    page.wait_for_timeout(500)
    assert "Mistake 4:" in says(page)
    assert page.evaluate("document.activeElement.dataset.step") == "1"  # the keyboard stays there
    assert link(page)["source"] == "mistake-4"


@pytest.mark.parametrize(
    ("label", "listed"),
    [("Classes to list", ".classes tbody tr"), ("Mistakes to show", "[data-name^=mistake]")],
)
def test_a_slider_stays_where_it_was_moved_while_an_answer_is_awaited(
    page, stranger, label, listed
):
    slider = page.get_by_label(label).last
    slider.focus()
    with answering_late(page, stranger):
        page.locator("[data-name=example-2]").click()
        for _ in range(4):
            slider.press("ArrowLeft")
            page.wait_for_timeout(50)
    page.wait_for_selector("text=Example 2:")
    left = int(slider.input_value())
    assert left == (1 if label == "Classes to list" else 3)
    page.wait_for_function(f"() => document.querySelectorAll('{listed}').length === {left}")
    page.wait_for_timeout(500)
    assert page.locator(listed).count() == left == int(slider.input_value())


def test_a_file_that_is_no_picture_is_refused_by_its_name_in_plain_words(page):
    page.set_input_files(
        "input[type=file]", {"name": "a.heic", "mimeType": "text/plain", "buffer": b"a"}
    )
    page.wait_for_selector("text=a.heic is no picture that this page reads: .jpg, ")
    page.wait_for_timeout(300)
    assert page.locator(".notice").count() == 1


def test_a_list_of_choices_closes_when_it_is_left(page):
    page.get_by_label("Method", exact=True).focus()
    page.wait_for_selector("[role=listbox]")
    page.keyboard.press("Tab")
    page.wait_for_timeout(300)
    assert page.locator("[role=listbox]").count() == 0


def test_words_are_drawn_in_one_font_that_holds_their_letters(page):
    faces = page.evaluate("() => [...document.fonts].map(f => `${f.family} ${f.weight}`)")
    assert "Source Sans Pro 700" in faces
    assert "Source Sans Pro 600" not in faces
    weight = "getComputedStyle(document.querySelector('h1')).fontWeight"
    assert page.evaluate(weight) == "700"


def test_the_picker_offers_what_is_read_and_the_slider_stands_under_the_maps(page):
    accepted = page.locator("input[type=file]").first.get_attribute("accept")
    ask = "from utils.data.pictures import EXTENSIONS; print(*EXTENSIONS, sep=',')"
    told = subprocess.run([SERVER, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert accepted == told.stdout.strip()  # what can be read there, which may be less than here
    assert page.get_by_label("Link to this view").count() == 1
    maps, slider = (page.locator(s).first.bounding_box() for s in (".maps", "[aria-label*=Weight]"))
    assert 0 < slider["y"] - (maps["y"] + maps["height"]) < 100


def test_mistakes_are_counted_and_chosen_by_class(page, running):
    assert page.locator("[data-name^=mistake]").count() == min(7, len(running.about["mistakes"]))
    target = running.about["mistakes"][0]["target"]
    name = running.about["classes"][target]
    choose(page, "True class", name)
    fitting = sum(m["target"] == target for m in running.about["mistakes"])
    page.wait_for_function(
        "(n) => document.querySelectorAll('[data-name^=mistake]').length === n",
        arg=min(7, fitting),
    )
    assert link(page)["actual"] == name
    words = f"{min(7, fitting)} of {running.about['wrong'][target]} mistakes on “{name}”"
    assert words in page.inner_text("body")


def test_a_link_brings_back_the_view(visits, running):
    page = visits.new_page()
    query = "source=mistake-1&top_n=2&method=layercam&blocks=prep&beside=(nothing)&weight=0.3"
    page.goto(f"{running.address}/?{query}")
    page.wait_for_selector("text=Mistake 1:")
    page.wait_for_function("() => document.querySelectorAll('.classes tbody tr').length === 2")
    assert tiles(page) == 1
    assert page.get_by_label("Method", exact=True).input_value() == "LayerCAM"
    opacity = "getComputedStyle(document.querySelector('.stack .map')).opacity"
    page.wait_for_function(f"() => Math.abs({opacity} - 0.7) < 1e-6")
    told = link(page)
    assert (told["source"], told["blocks"], told["weight"]) == ("mistake-1", "prep", "0.3")
    page.close()


def test_a_link_over_a_strangers_picture_says_that_it_carries_none(visits, running):
    page = visits.new_page()
    page.goto(f"{running.address}/?source=&method=layercam")
    page.wait_for_selector("text=A link never carries a visitor's own")
    assert page.get_by_label("Method", exact=True).input_value() == "LayerCAM"
    assert tiles(page) == 0
    page.close()


def test_a_visitor_whom_many_others_followed_is_asked_to_choose_again(page, tmp_path, stranger):
    content = picture(tmp_path)
    asked = [5, "gradcam", ["prep"], FIRST_CHOICE, RIVAL]
    for _ in range(MOST_REMEMBERED + 1):
        assert "<img" in told(stranger.send("show_upload", [stranger.upload(content), *asked]))
    choose(page, "Method", "LayerCAM")
    page.wait_for_selector("text=or the page has forgotten it")
    assert tiles(page) == 0
    page.locator(".examples button").first.click()
    page.wait_for_selector(".maps .tiles")


def test_a_link_that_cannot_be_followed_says_so(visits, running):
    page = visits.new_page()
    page.goto(f"{running.address}/?method=magic")
    page.wait_for_selector("text=the usual settings are used for: method")
    page.wait_for_selector(".maps .tiles")
    page.close()


def test_every_picture_of_a_stranger_is_answered(page):
    preview = "document.querySelector('.answer img')?.src"
    for kind, make in READABLE.items():
        before = page.evaluate(preview)
        upload(page, "picture.png", make())
        page.wait_for_function(f"(before) => {preview} !== before", arg=before)
        expected = "Your animation's first picture:" if kind == "animation" else "Your picture:"
        assert expected in says(page), kind
        assert page.locator(".toast-body").count() == 0, kind


def test_every_other_file_gets_a_sentence_and_the_next_works(page, tmp_path):
    for kind, (make, message) in UNREADABLE.items():
        upload(page, "picture.png", picture(tmp_path))
        page.wait_for_selector("text=Your picture:")
        upload(page, "picture.png", make())
        page.wait_for_selector(f".answer [role=alert]:has-text('{message}')")
        assert tiles(page) == 0, kind
        assert "Traceback" not in page.content(), kind
    upload(page, "picture.png", picture(tmp_path))
    page.wait_for_selector("text=Your picture:")


def test_fifty_megabytes_are_refused_by_the_page_and_by_the_server(page, running, tmp_path):
    import httpx

    (tmp_path / "large.png").write_bytes(np.random.default_rng(0).bytes(50_000_000))
    page.set_input_files("input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("#answer [role=alert] >> text=/maximum allowed size|larger than 10 MB/")
    assert not page.locator("[data-testid=toast-body]").first.is_visible()
    with open(tmp_path / "large.png", "rb") as file:
        sent = httpx.post(f"{running.address}/gradio_api/upload", files={"files": file})
    assert sent.status_code == 413
    upload(page, "picture.png", picture(tmp_path))
    page.wait_for_selector("text=Your picture:")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits(browser, running, width, scheme, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme=scheme, is_mobile=width < 500
    )
    page.goto(running.address)
    page.wait_for_selector(".maps .tiles")
    page.wait_for_timeout(500)
    assert page.get_by_text("Use via API").is_visible()
    assert page.inner_text("footer").strip() == "Use via API"
    page.locator("[data-name=example-3]").click()
    page.wait_for_selector("text=Example 3:")
    top = "document.querySelector('.answer').getBoundingClientRect().top"
    page.wait_for_function(f"() => {top} >= 0 && {top} < 300")
    for name in ("prep", "layer2"):
        page.get_by_label(name, exact=True).check()
    page.wait_for_selector(".tiles > :nth-child(4)")
    columns = "getComputedStyle(document.querySelector('.tiles')).gridTemplateColumns"
    assert len(page.evaluate(columns).split()) in (2, 4)
    wide = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    folder = Path(os.environ.get("SPACE_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"space-{width}-{scheme}.png", full_page=True)
    found = Axe().run(page).response["violations"]
    serious = [
        (v["id"], v["help"], [n["html"][:200] for n in v["nodes"]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    page.close()
    assert serious == []
    assert wide <= 0


def test_everything_is_reached_by_the_keyboard(page):
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "() => { const e = document.activeElement;"
                " return e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.tagName; }"
            )
        )
    text = " ".join(reached)
    for control in ("Method", "Class to explain", "Compare with", "Weight", "Classes to list"):
        assert control in text, (control, sorted(reached))


def test_other_files_are_not_served(running):
    import httpx

    example = running.about["examples"][0]["file"]
    for name in ("app.py", "model.safetensors", "utils/models/weights.py", example, "/etc/passwd"):
        path = name if name.startswith("/") else running.folder / name
        assert httpx.get(f"{running.address}/gradio_api/file={path}").status_code in (403, 404)


# Strangers


FILE_DATA = {"_type": "gradio.FileData"}
SECRET = b"nobody shall see this"


def told(answer: dict) -> str:
    """What a visitor reads of an answer that is none."""
    output = answer["output"]
    return output["error"] if not answer["success"] else " ".join(filter(None, output["data"]))


def refused_quickly(stranger, event, values, message, **more):
    began = time.perf_counter()
    answer = stranger.send(event, values, **more)
    assert message in told(answer), (event, values)
    assert SECRET.decode() not in str(answer)
    assert time.perf_counter() - began < 3, (event, values)


@pytest.mark.parametrize("meta", [{}, {"meta": FILE_DATA}, {"meta": None}], ids=str)
def test_no_path_of_the_machine_is_read(running, meta, tmp_path, stranger, visitor):
    (tmp_path / "secret.png").write_bytes(SECRET)
    upload = Path(stranger.upload(b"a")["path"])
    (upload.parent / f"link-{len(str(meta))}").symlink_to(tmp_path / "secret.png")
    paths = ["/dev/zero", "/dev/ptmx", "/proc/self/environ", str(tmp_path / "secret.png"), "",
             f"{upload.parent}/link-{len(str(meta))}", f"{upload.parent}/../../etc/passwd",
             str(upload.parent), "http://127.0.0.1:9/a.png"]  # fmt: skip
    for path in paths:
        refused_quickly(stranger, "classify", [{"path": path, **meta}, 3], "is not here")
    page_asks = [{"path": "/dev/ptmx", **meta}, 5, "gradcam", ["prep"], FIRST_CHOICE, RIVAL]
    refused_quickly(stranger, "show_upload", page_asks, "is not here")
    picture = [{"path": "/dev/zero", **meta}, "", "gradcam", ["prep"], 0.5]
    refused_quickly(stranger, "explain", picture, "is not here")
    assert visitor.explain(READABLE["1×1"]()).succeeded
    assert running.memory < 2_000_000_000


@pytest.mark.parametrize(
    "value",
    [[{"path": "/dev/zero"}], {"path": ["/dev/zero"]}, {"path": {"path": "/dev/zero"}}, "/dev/zero",
     5, True, []],
    ids=str,
)  # fmt: skip
def test_what_is_no_file_is_refused_as_a_picture(value, stranger):
    refused_quickly(stranger, "classify", [value, 3], "not the kind of value")


def test_every_other_value_has_its_kind_and_range(stranger):
    file = {"path": "/dev/zero", "meta": FILE_DATA}
    address = {"path": "http://127.0.0.1:9/", "meta": FILE_DATA}
    asked = {"top_n": 5, "method": "gradcam", "blocks": ["prep"], "explained": FIRST_CHOICE,
             "beside": RIVAL}  # fmt: skip
    wrong = {
        "top_n": ["5", True, 10**30, [5], file, address], "method": [5, None, ["gradcam"], file],
        "blocks": [None, "prep", [["prep"]], [file], [address]], "explained": [["bee"], address],
    }  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            sent = [None, *(asked | {name: value}).values()]
            refused_quickly(stranger, "show_upload", sent, "not the kind of value")
    for name, value in (("method", "magic"), ("blocks", ["layer9"])):
        refused_quickly(stranger, "show_upload", [None, *(asked | {name: value}).values()], "alue")
    refused_quickly(stranger, "classify", [None, -1], "less than minimum")
    refused_quickly(stranger, "explain", [None, "", "gradcam", ["prep"], 2], "greater than maximum")
    refused_quickly(stranger, "explain", [None, file, "gradcam", ["prep"], 1], "not the kind")
    refused_quickly(stranger, "classify", [], "2 values, and 0 were sent")
    for event in (None, 5, [], ["name"], {"name": 5}, {"name": "../examples/001.png"}):
        values = list(asked.values())
        refused_quickly(
            stranger, "show_chosen", values, "This picture does not exist", event_data=event
        )


def test_a_picture_is_answered_while_the_box_of_classes_is_empty(stranger):
    asked = [None, "gradcam", ["prep"], FIRST_CHOICE, RIVAL]
    answer = stranger.send("show_upload", [stranger.upload(READABLE["CMYK"]()), *asked])
    assert told(answer).count("<th scope='row'>") == 1


def test_numbers_that_json_does_not_know_are_refused(running, stranger):
    import httpx

    join, session = f"{running.address}/gradio_api/queue/join", {"session_hash": "nan"}
    for value in ("NaN", "Infinity", "1e999"):
        event = stranger.events["classify"]
        body = f'{{"data": [null, {value}], "fn_index": {event}, "session_hash": "nan"}}'
        sent = httpx.post(join, content=body, headers={"content-type": "application/json"})
        if sent.status_code == 200:
            answer = httpx.get(f"{running.address}/gradio_api/queue/data", params=session).text
            assert "not the kind of value" in answer, value


def test_the_ways_into_gradio_that_the_page_does_not_use_are_closed(running, stranger):
    import httpx

    upload = stranger.upload(b"an upload")["path"]
    with httpx.Client(base_url=f"{running.address}/gradio_api") as client:
        for way in ("file=http://127.0.0.1:9/", "file=/etc/passwd", "file=/dev/zero", "file/etc",
                    f"file={Path(upload).parent}", f"file={upload}/../../../etc/passwd",
                    "proxy=http://127.0.0.1:9/", "deep_link?session_hash=a", "monitoring/summary",
                    "run-history/buckets"):  # fmt: skip
            assert client.get(f"/{way}").status_code == 404, way
        for way in ("process_recording", "component_server", "run/classify", "api/classify",
                    "vibe-edit", "stream/a"):  # fmt: skip
            assert client.post(f"/{way}", json={"data": []}).status_code == 404, way
        shown = client.get(f"/file={upload}")
        assert shown.content == b"an upload"
        assert shown.headers["content-disposition"] == "attachment"
        large = b'{"data": ["%s"]}' % (b"a" * 200_000)
        assert client.post("/queue/join", content=large).status_code == 413


def test_an_upload_is_one_file_whose_name_says_nothing(running):
    import httpx

    address = f"{running.address}/gradio_api/upload"
    for files in ([("files", ("a", b"1"))] * 2, {"file": ("a", b"1")}, {"a\0": b"1"}):
        assert httpx.post(address, files=files).status_code == 400
    assert httpx.post(address, content=b"no form").status_code == 400
    assert httpx.post(address, files={"files": ("x" * 100_000, b"1")}).status_code == 400
    for name in ("../../x", "/etc/x", "<b>", "..", "nul\0"):
        (path,) = httpx.post(address, files={"files": (name, b"1")}).json()
        assert re.fullmatch("[0-9a-f]{32}", Path(path).name)
        assert Path(path).is_file()


def test_many_uploads_are_kept_in_bounds_and_the_page_goes_on(stranger, visitor):
    with ThreadPoolExecutor(8) as senders:
        paths = list(senders.map(lambda n: stranger.upload(bytes([n]))["path"], range(130)))
    uploads = Path(paths[0]).parent
    assert len(list(uploads.iterdir())) == MOST_FILES
    refused_quickly(stranger, "classify", [{"path": paths[0]}, 3], "upload it again")
    assert visitor.explain(READABLE["1×1"]()).succeeded


def test_uploads_that_never_end_keep_nobody_else_from_asking(running, stranger, visitor):
    host, port = running.address.removeprefix("http://").split(":")
    head = (f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n").encode()  # fmt: skip
    with ExitStack() as stack:
        for _ in range(UPLOADS_AT_ONCE):
            hanging = stack.enter_context(socket.create_connection((host, int(port))))
            hanging.sendall(head)
        time.sleep(0.2)
        one_more = stack.enter_context(socket.create_connection((host, int(port))))
        one_more.sendall(head)
        assert b"503" in one_more.recv(100)
        refused_quickly(stranger, "classify", [None, 3], "There is no picture")
    time.sleep(0.2)
    assert visitor.explain(READABLE["1×1"]()).succeeded


def test_nothing_of_the_server_is_told(running):
    import httpx

    for page in ("", "config", "gradio_api/info", "gradio_api/nothing", "gradio_api/file=/etc"):
        told = httpx.get(f"{running.address}/{page}").text
        for secret in (str(running.folder), str(Path.home()), "Traceback", sys.prefix):
            assert secret not in told, page


def test_a_visitors_wait_is_measured(running, tmp_path, visitor):
    assert running.started > 0
    assert running.memory > 50_000_000
    assert list(visitor.blocks) == ["prep", "layer1", "layer2", "layer3"]
    for answer in (visitor.explain(picture(tmp_path)), visitor.classify(picture(tmp_path))):
        assert answer.succeeded
        assert 0 < answer.computed <= answer.waited
    for answer in (visitor.explain(b"no picture"), visitor.classify(b"no picture")):
        assert not answer.succeeded


def test_programs_classify_and_explain(running, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "a.png").write_bytes(picture(tmp_path))
    client = Client(running.address, verbose=False)
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {
        "/classify", "/explain",
    }  # fmt: skip
    file = handle_file(str(tmp_path / "a.png"))
    found = client.predict(picture=file, top_n=3, api_name="/classify")
    assert len(found) == 3
    assert list(found.values()) == sorted(found.values(), reverse=True)
    told = client.predict(picture=file, blocks=["layer2", "layer3"], api_name="/explain")
    assert list(told["overlays"]) == ["layer2", "layer3"]
    assert all(v.startswith("data:image/png;base64,") for v in told["overlays"].values())
    with pytest.raises(AppError, match="There is no picture"):
        client.predict(picture=None, api_name="/classify")
    with pytest.raises(AppError, match="This class is unknown"):
        client.predict(picture=file, class_name="dragon", api_name="/explain")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(AppError, match="it is not a picture") as refused:
        client.predict(picture=handle_file(str(tmp_path / "b.png")), api_name="/classify")
    assert str(running.folder) not in str(refused.value)


@pytest.mark.parametrize(
    ("count", "image_size", "model"), [(3, 64, "speednet"), (100, 16, "davidnet")]
)
def test_other_classes_sizes_and_networks(browser, tmp_path, count, image_size, model):
    classes = ["<b>é & 'ü'", *(f"class {number}" for number in range(1, count))]
    run = trained_on_folders(tmp_path, classes, image_size, model)
    with served_alone(run, tmp_path / "space") as space:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(space.address)
        page.wait_for_selector(".maps .tiles")
        assert f"seen at {image_size}×{image_size}" in page.inner_text(".answer .pictures")
        assert page.locator("[data-name^=example]").count() == min(count, 10)
        assert page.locator(".classes tbody tr").count() == min(count, 5)
        assert page.get_by_label("Classes to list").last.get_attribute("max") == str(min(count, 10))
        assert classes[0] in page.inner_text("[data-name=example-1]")
        choose(page, "Class to explain", classes[0])
        page.locator(".maps h2", has_text=f"Where it found “{classes[0]}”").wait_for()
        page.close()


def trained_on_folders(folder: Path, classes: list[str], image_size: int, model: str) -> Run:
    """Train one epoch on a picture of noise or two of each class."""
    generator = np.random.default_rng(0)
    for split, each in (("train", 2), ("test", 1)):
        for name in classes:
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for picture_number in range(each):
                noise = generator.integers(0, 256, (20, 20, 3), np.uint8)
                Image.fromarray(noise).save(place / f"{picture_number}.png")
    pictures = load_pictures(
        dataset=str(folder / "pictures"), data_dir=folder / "data", image_size=image_size
    )
    plan = plan_training(pictures, run_name="run", output_dir=folder / "outputs", model=model,
                         recipe="quick", epochs=1, devices="cpu", precision="32-true")  # fmt: skip
    return fit(plan)
