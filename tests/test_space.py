"""A run made into a Space: the folder, the network in it, the page's settings, the upload."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import storage
import yaml
from markdown_it import MarkdownIt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from settings import default_settings, settings_from_link
from storage import Storage
from view import METHOD_NAMES, Seen, about, answer, maps

from helpers.uploads import READABLE, UNREADABLE
from utils import InputError
from utils.cli import main
from utils.explain.gradcam import CHANNEL_METHODS, METHOD_NOTES, METHODS
from utils.explain.mistakes import misclassified
from utils.explain.portable import Bundle, NoLongerWantedError
from utils.files import ROOT
from utils.measure.load_test import running_space
from utils.publish import space
from utils.publish.space import MODULES, build_space, describe_space
from utils.runs import Run
from utils.training.predictions import load_predictions


@pytest.fixture(scope="session")
def built(tiny_run):
    return build_space(tiny_run)


@pytest.fixture(scope="session")
def bundle(built):
    return Bundle(built)


# The folder


def test_the_folder_is_complete(built, tiny_run):
    names = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    pages = {path.name for path in (ROOT / "space").iterdir() if path.is_file()}
    assert names >= pages | {"model.json", "model.safetensors"} | {f"utils/{m}" for m in MODULES}
    about = json.loads((built / "model.json").read_text())
    pictures = {picture["file"] for kind in ("examples", "mistakes") for picture in about[kind]}
    assert {name for name in names if name.endswith(".png")} == pictures
    assert len(about["examples"]) == 10
    assert [example["target"] for example in about["examples"]] == list(range(10))
    wrong = misclassified(load_predictions(tiny_run))
    assert len(about["mistakes"]) == len(wrong) == sum(about["wrong"])  # few on each class
    assert "in all" in describe_space(built)


def test_the_most_confident_mistakes_on_each_class_come_with_it(tiny_run, monkeypatch):
    monkeypatch.setattr(space, "MOST_MISTAKES_OF_A_CLASS", 2)
    monkeypatch.setattr(space, "MOST_MISTAKES", 9)
    predictions = load_predictions(tiny_run)
    wrong = misclassified(predictions)
    expected = [p for n, p in enumerate(wrong)
                if sum(predictions.target[wrong[:n]] == predictions.target[p]) < 2]  # fmt: skip
    chosen = space._chosen_mistakes(wrong, predictions.target)
    assert len(expected) > 9
    assert chosen.tolist() == expected[:9]


def test_the_readme_begins_with_what_hugging_face_reads(built):
    _, header, text = (built / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["sdk"] == "gradio"
    assert fields["app_file"] == "app.py"
    assert f"gradio=={fields['sdk_version']}" in (built / "requirements.txt").read_text()
    assert len(fields["short_description"]) <= 60
    assert fields["colorFrom"] in ("red", "yellow", "green", "blue", "indigo", "purple", "pink")
    assert "$" not in text


def test_the_requirements_are_pinned_and_allowed_by_the_project():
    lines = (ROOT / "space" / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z-]+==[0-9][0-9.]*", line) for line in wanted)
    pinned = dict(line.split("==") for line in wanted)
    tested = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    assert {name: tested.get(name) for name in pinned} == pinned


USE_PAGE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import app
import numpy as np

print(json.dumps({name: getattr(module, "__file__", None) for name, module in sys.modules.items()}))
bundle = app.Bundle(app.HERE)
pixels = bundle.read(bundle.examples[0])
np.savez(sys.argv[2], **{m: bundle.maps(pixels, [3], m, ["layer3"]) for m in app.METHODS})
"""


@pytest.fixture(scope="session")
def used_page(built, tmp_path_factory):
    """The files of the modules that the page imports, by name, and the maps that it draws."""
    pytest.importorskip("gradio")
    drawn = tmp_path_factory.mktemp("page") / "maps.npz"
    done = subprocess.run(
        [sys.executable, "-c", USE_PAGE, str(built), str(drawn)],
        cwd=built, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), drawn


def test_the_page_uses_the_copied_modules_and_no_others(built, used_page):
    files = {name: file for name, file in used_page[0].items() if name.split(".")[0] == "utils"}
    assert {str(built / "utils" / name) for name in MODULES} == set(files.values())


def test_the_page_imports_none_of_the_libraries_that_it_leaves_out(used_page):
    assert not {"scipy", "sklearn", "torchvision", "pytorch_lightning"} & set(used_page[0])


def test_the_page_draws_the_same_maps_without_them(bundle, used_page):
    pixels = bundle.read(bundle.examples[0])
    with np.load(used_page[1]) as maps:
        for method in METHODS:
            expected = bundle.maps(pixels, [3], method, ["layer3"])
            np.testing.assert_allclose(maps[method], expected, atol=1e-5)


def test_what_the_page_leaves_out_refuses_to_be_used():
    code = (
        "import lean, sys; from pytorch_grad_cam.utils.svd_on_activations import KernelPCA;"
        "assert 'sklearn' not in sys.modules; KernelPCA()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "space", capture_output=True, text=True
    )
    assert "ImportError: sklearn.decomposition.KernelPCA is left out of this page" in done.stderr


def test_weights_that_are_not_the_runs_own_are_no_space(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "changed")
    weights = tmp_path / "changed" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    shutil.rmtree(tmp_path / "changed" / "space", ignore_errors=True)
    with pytest.raises(InputError, match="has changed since this run was trained"):
        build_space(Run("changed", tmp_path))
    assert not (tmp_path / "changed" / "space").exists()


def test_a_space_is_replaced_as_a_whole(tiny_run, built):
    (built / "left.txt").write_text("from before")
    assert build_space(tiny_run) == built
    assert not (built / "left.txt").exists()
    assert not list(built.parent.glob(".space-*"))


@pytest.mark.parametrize(("name", "reason"), [("never", "does not exist"), ("begun", "complete")])
def test_an_incomplete_run_is_no_space(tmp_path, name, reason):
    if name == "begun":
        Run("begun", tmp_path).update_record(status="running")
    with pytest.raises(InputError, match=reason):
        build_space(Run(name, tmp_path))
    assert not (tmp_path / name / "space").exists()


# The network in it


def test_the_network_says_what_the_run_said(bundle, tiny_run):
    predictions = load_predictions(tiny_run)
    wrong = misclassified(predictions)
    for number, mistake in enumerate(bundle.mistakes[:5]):
        position = wrong[number]
        found = bundle.probabilities(bundle.read(mistake))
        np.testing.assert_allclose(found, predictions.probabilities[position], atol=1e-4)
        assert (mistake.target, mistake.predicted) == (
            predictions.target[position], predictions.predicted[position],
        )  # fmt: skip


def test_maps_come_for_each_class_and_block(bundle):
    pixels = bundle.read(bundle.examples[0])
    found = bundle.maps(pixels, [3, 0], "gradcam", ["layer3", "prep"])
    assert found.shape == (2, 2, 16, 16)
    alone = bundle.maps(pixels, [0], "gradcam", ["prep"])
    np.testing.assert_allclose(found[1, 1], alone[0, 0], atol=1e-5)
    assert bundle.maps(pixels, [1]).shape == (1, len(bundle.blocks), 16, 16)


def test_short_work_goes_between_the_steps_of_long_work(bundle):
    pixels, steps = bundle.read(bundle.examples[0]), []
    with ThreadPoolExecutor(1) as another:
        long = another.submit(
            bundle.maps, pixels, [3], "scorecam", ["layer3"],
            lambda: steps.append(len(steps)) or True,
        )  # fmt: skip
        while not steps:
            time.sleep(0.001)
        between = bundle.probabilities(pixels), bundle.maps(pixels, [3], "gradcam", ["layer3"])
        assert not long.done()
        found = long.result()
    assert len(steps) > 10
    np.testing.assert_allclose(between[0], bundle.probabilities(pixels), atol=1e-6)
    np.testing.assert_allclose(between[1], bundle.maps(pixels, [3], "gradcam", ["layer3"]))
    np.testing.assert_allclose(found, bundle.maps(pixels, [3], "scorecam", ["layer3"]))


def test_long_work_ends_when_nobody_wants_it(bundle):
    pixels, steps = bundle.read(bundle.examples[0]), []
    for method in CHANNEL_METHODS:
        steps.clear()
        with pytest.raises(NoLongerWantedError):
            bundle.maps(pixels, [3], method, ["layer3"], lambda: steps.append(1) or len(steps) < 3)
        assert len(steps) == 3
        assert bundle.maps(pixels, [3], method, ["layer3"]).any()


def test_what_fails_is_told_to_who_asked_and_the_next_is_answered(bundle):
    pixels = bundle.read(bundle.examples[0])
    with pytest.raises(InputError):
        bundle.maps(pixels, [3], "gradcam", ["layer9"])
    assert bundle.maps(pixels, [3], "gradcam", ["layer3"]).any()


def test_the_time_of_long_work_grows_with_channels_and_classes(bundle):
    one = bundle.seconds(["layer1"], 1)
    assert one > 0
    assert bundle.seconds(["layer3"], 2) == pytest.approx(8 * one)  # 512 channels to 128
    assert about(0.2) == "about 1 s"
    assert about(17.4) == "about 15 s"


def test_altered_weights_are_refused(built, tmp_path):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((built / name).read_bytes())
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="has changed"):
        Bundle(tmp_path)


@pytest.mark.parametrize("kind", READABLE)
def test_a_strangers_picture_is_read(bundle, kind):
    pixels, preview, moves = bundle.read_upload(READABLE[kind]())
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert preview.mode == "RGB"
    assert max(preview.size) <= 320
    assert moves == (kind == "animation")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_strangers_file_that_is_none_is_refused_in_words(bundle, kind):
    make, message = UNREADABLE[kind]
    with pytest.raises(InputError, match=message) as refused:
        bundle.read_upload(make())
    assert "/" not in str(refused.value)  # no path of the server


# What visitors send, on the disk


@pytest.fixture
def stored(tmp_path):
    with Storage(tmp_path) as stored:
        yield stored


def aged(path, seconds):
    status = path.lstat()
    os.utime(path, (status.st_atime, status.st_mtime - seconds), follow_symlinks=False)


def test_what_is_kept_is_read_and_gone_at_the_end(tmp_path):
    with Storage(tmp_path) as stored:
        path = stored.keep(BytesIO(b"a picture"))
        assert stored.read(path) == b"a picture"
        assert stored.folder.stat().st_mode & 0o077 == 0  # nobody else's
    assert list(tmp_path.iterdir()) == []


def planted(folder: Path) -> dict[str, str]:
    """Paths that a stranger may name; those in the folder are worse than any that can be sent."""
    secret = folder.parent / "secret.png"
    secret.write_bytes(b"secret")
    (folder / "link").symlink_to(secret)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "beside").symlink_to(folder.parent)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with (folder / "large").open("wb") as file:
        file.truncate(50_000_000_000)
    inside = (
        "link",
        "loop",
        "beside/secret.png",
        "folder",
        "pipe",
        "large",
        "none",
        "../secret.png",
    )
    return {name: str(folder / name) for name in inside} | {
        "elsewhere": str(secret), "device": "/dev/zero", "terminal": "/dev/ptmx",
        "process": "/proc/self/environ", "descriptor": "/proc/self/fd/0", "the folder": str(folder),
        "relative": "secret.png", "nothing": "", "zero": f"{folder}/\0",
        "address": "http://127.0.0.1:9/a.png", "file address": f"file://{secret}",
        "its long way": f"{folder}/../{folder.name}/large",
    }  # fmt: skip


def test_nothing_but_uploads_is_read(stored):
    for kind, path in planted(stored.folder).items():
        message = "larger than 10 MB" if kind == "large" else "is not here"
        with pytest.raises(InputError, match=message):
            stored.read(path)


def test_uploads_go_by_age_and_with_them_what_else_lies_there(stored):
    paths = [Path(stored.keep(BytesIO(b"a"))) for _ in range(3)]
    planted(stored.folder)
    for path in set(stored.folder.iterdir()) - {paths[2]}:
        aged(path, storage.UPLOAD_AGE + 1)
    stored.sweep()
    assert list(stored.folder.iterdir()) == [paths[2]]
    assert (stored.folder.parent / "secret.png").exists()  # links are not followed


def test_the_oldest_uploads_go_where_there_are_too_many(stored, monkeypatch):
    monkeypatch.setattr(storage, "MOST_FILES", 3)
    monkeypatch.setattr(storage, "MOST_BYTES_IN_ALL", 1_000)
    paths = []
    for number in range(4):
        paths.append(Path(stored.keep(BytesIO(b"a"))))
        aged(paths[-1], 10 - number)
    assert sorted(stored.folder.iterdir()) == sorted(paths[1:])
    large = Path(stored.keep(BytesIO(bytes(999))))
    assert sorted(stored.folder.iterdir()) == sorted([paths[3], large])
    with pytest.raises(InputError, match="upload it again"):
        stored.read(str(paths[0]))


def test_what_a_killed_process_left_is_removed_and_what_others_use_is_not(tmp_path):
    left, used = Storage(tmp_path), Storage(tmp_path)
    left.keep(BytesIO(b"a"))
    other = tmp_path / "other"
    other.mkdir()
    for path in (left.folder, used.folder, other):
        aged(path, storage.LEFT_BEHIND + 1)
    used.sweep()
    with Storage(tmp_path):
        assert not left.folder.exists()
        assert used.folder.exists()
        assert other.exists()


# What the page says


def test_every_method_has_its_line():
    assert list(METHOD_NOTES) == list(METHOD_NAMES) == list(METHODS)


def test_names_are_shown_as_they_are(bundle):
    classes = ["<b>ant</b>", *bundle.classes[1:]]
    pixels = bundle.read(bundle.examples[0])
    seen = Seen("<i>", pixels, None, np.eye(10, dtype=np.float32)[0], truth=0)
    text = answer(seen, classes, 2)
    assert "<b>ant" not in text
    assert "<i>" not in text
    assert text.count("<tr>") == 3
    found = np.zeros((1, 1, 16, 16), np.float32)
    text = maps(seen, found, [0], ["prep"], classes)
    assert "<b>ant" not in text
    assert "blank" in text


def test_nothing_is_drawn_where_nothing_is_said(bundle):
    probabilities = np.array([0.9996, 0.0003, 0.0001], np.float32)
    text = answer(Seen("a", bundle.read(bundle.examples[0]), None, probabilities), "abc", 3)
    assert text.count("<span>0.0 %</span>") == 2
    assert text.count("class='bar'") == 1


def test_a_link_brings_its_settings(bundle):
    query = {
        "source": "mistake-2", "top_n": "3", "method": "layercam", "blocks": "layer3,prep",
        "explained": "circle" if "circle" in bundle.classes else bundle.classes[1],
        "beside": "(nothing)", "weight": "0.25", "count": "4", "actual": bundle.classes[0],
        "utm_source": "elsewhere",
    }  # fmt: skip
    settings, refused = settings_from_link(query, bundle)
    assert refused == []
    assert settings.source == "mistake-2"
    assert (settings.top_n, settings.weight, settings.count) == (3, 0.25, 4)
    assert settings.blocks == ("prep", "layer3")
    assert settings.explained == query["explained"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "mistake-9999"), ("source", "../etc"), ("top_n", "11"), ("top_n", "x"),
        ("method", "gradcam2"), ("blocks", ""), ("blocks", "layer9"), ("explained", "dragon"),
        ("beside", "<script>"), ("weight", "nan"), ("weight", "2"), ("count", "26"),
        ("actual", "dragon"),
    ],
)  # fmt: skip
def test_a_link_that_cannot_be_followed_is_named_and_left(bundle, name, value):
    settings, refused = settings_from_link({name: value}, bundle)
    assert settings == default_settings(bundle)
    assert refused == [name]


# The upload


class FakeHub:
    """Notes what would go to Hugging Face."""

    def __init__(self):
        self.calls = []

    def create_repo(self, *arguments, **options):
        self.calls.append(("create", arguments, options))

    def upload_folder(self, **options):
        self.calls.append(("upload", (), options))


def test_a_built_folder_is_pushed(built, tiny_run, monkeypatch, capsys):
    hub = FakeHub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    folder = str(tiny_run.folder.parent)
    main(["space", "push", "--repo", "ann/bees", "--run", "tiny", "--output-dir", folder])
    (_, (name,), created), (_, _, uploaded) = hub.calls
    assert name == uploaded["repo_id"] == "ann/bees"
    assert created["repo_type"] == uploaded["repo_type"] == "space"
    assert created["space_sdk"] == "gradio"
    assert uploaded["folder_path"] == built
    assert "huggingface.co/spaces/ann/bees" in capsys.readouterr().out


@pytest.fixture(scope="module")
def handed_over(tiny_run, built, tmp_path_factory):
    """A run with its Space, as a stranger may have packed it."""
    folder = tmp_path_factory.mktemp("handed_over") / "tiny"
    left = shutil.ignore_patterns("tensorboard", "checkpoints", "figures", "notebooks")
    shutil.copytree(tiny_run.folder, folder, ignore=left)
    return folder


def test_only_what_belongs_to_a_space_is_pushed_or_started(handed_over, monkeypatch, capsys):
    hub, run = FakeHub(), Run("tiny", handed_over.parent)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    folder = handed_over / "space"
    wanted = set(space.files_of_space(folder))
    added = ("torch.py", "utils/evil.py", "examples/private.png", "__pycache__/app.pyc", ".env")
    for name in added:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise SystemExit('it went off')")
    main(
        ["space", "push", "--repo", "a/b", "--run", "tiny", "--output-dir", str(run.folder.parent)]
    )
    assert set(hub.calls[-1][2]["allow_patterns"]) == wanted
    said = capsys.readouterr().out
    assert "left out, as no part of it" in said and ".env, __pycache__" in said
    with space.clean_copy(space.built_space(run)) as copy:
        found = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
        assert found == wanted
        assert Bundle(copy).classes == Bundle(folder).classes


def longer(path):
    path.write_bytes(path.read_bytes() + b" ")


def linked(path):
    path.unlink()
    path.symlink_to(ROOT / "README.md")


def piped(path):
    path.unlink()
    os.mkfifo(path)


def other_side(path):
    Image.new("RGB", (17, 16)).save(path)


def with_more(path):
    about = PngInfo()
    about.add_text("Comment", "evil")
    with Image.open(path) as picture:
        picture.save(path, pnginfo=about)


def says(**changes):
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


CHANGES = {
    "page": ("app.py", longer), "module": ("utils/explain/gradcam.py", longer),
    "list": ("requirements.txt", longer), "readme": ("README.md", longer),
    "weights": ("model.safetensors", longer), "picture": ("examples/001.png", longer),
    "text in a picture": ("examples/001.png", with_more), "size": ("examples/001.png", other_side),
    "missing": ("examples/001.png", os.unlink), "no page": ("app.py", os.unlink),
    "link": ("examples/001.png", linked), "link to a page": ("app.py", linked),
    "link to a module": ("utils/plots/style.py", linked), "pipe": ("utils/data/pictures.py", piped),
    "title": ("model.json", says(title="other")), "more": ("model.json", says(evil="x")),
    "weights of another": ("model.json", says(sha256="0" * 64)),
    "path": ("model.json", says(examples=[
        {"file": "../../secret.png", "target": 0, "predicted": 0, "probability": 0.5}
    ])),
    "no JSON": ("model.json", lambda path: path.write_text("{")),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_a_space_in_which_something_was_exchanged_is_neither_pushed_nor_started(
    kind, handed_over, monkeypatch
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("utils.measure.load_test.running_space", None)
    name, change = CHANGES[kind]
    path = handed_over / "space" / name
    before = path.read_bytes()
    change(path)
    try:
        for action in (["push", "--repo", "a/b"], ["measure"]):
            refused = rf"{re.escape(name)} is (not what|damaged)|holds a link"
            with pytest.raises(SystemExit, match=refused):
                main(["space", *action, "--run", "tiny", "--output-dir", str(handed_over.parent)])
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(before)


def test_what_a_run_is_called_stays_text_in_the_readme(built):
    evil = "a\"'--- `b` $network <script>x</script> ![x](//evil) [y](javascript:x) | # *c*"
    text = space._readme(json.loads((built / "model.json").read_text()) | {"title": evil})
    _, header, shown = text.split("---\n", 2)
    assert yaml.safe_load(header)["title"] == "What DavidNet sees"
    page = MarkdownIt("commonmark").render(shown)
    assert evil in html.unescape(page)
    assert not re.findall("<(?:script|img|a) ", page)


def test_a_dry_run_uploads_nothing_and_lists_all(built, tiny_run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    folder = str(tiny_run.folder.parent)
    main(["space", "push", "--repo", "a/b", "--run", "tiny", "--output-dir", folder, "--dry-run"])
    out = capsys.readouterr().out
    assert "would go to a/b" in out
    assert "model.safetensors" in out


def test_a_failed_upload_says_what_to_do(built, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route to host")

    hub = FakeHub()
    hub.upload_folder = refuse
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    with pytest.raises(InputError, match=r"no route to host.*hf auth login"):
        space.push_space(built, "ann/bees")


@pytest.mark.parametrize("repository", ["", "bees", "a/b/c", "a/ b", "https://x/a/b", "../b"])
def test_a_wrong_name_is_refused_before_anything(repository, tmp_path):
    with pytest.raises(SystemExit, match="OWNER/NAME"):
        main(["space", "push", "--repo", repository, "--run", "x", "--output-dir", str(tmp_path)])


def test_pushing_what_was_not_built_says_how_to_build(tmp_path):
    with pytest.raises(SystemExit, match="space build --run x"):
        main(["space", "push", "--repo", "a/b", "--run", "x", "--output-dir", str(tmp_path)])


@pytest.mark.parametrize("option", ["--people", "--requests"])
def test_nobody_and_nothing_cannot_be_measured(built, tiny_run, option):
    folder = str(tiny_run.folder.parent)
    with pytest.raises(SystemExit, match=f"{option} is 0"):
        main(["space", "measure", "--run", "tiny", "--output-dir", folder, option, "0"])


def test_a_page_that_does_not_start_is_said(tmp_path):
    (tmp_path / "app.py").write_text("raise SystemExit('nothing works')")
    with pytest.raises(InputError, match="nothing works"), running_space(tmp_path):
        pass
