"""A run made into a Space: the folder, what the page uses of it, the upload."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from utils import InputError
from utils.cli import main
from utils.explain.gradcam import METHODS
from utils.explain.mistakes import misclassified
from utils.explain.portable import Bundle
from utils.files import ROOT
from utils.publish import space
from utils.publish.space import MODULES, build_space, describe_space
from utils.runs import Run
from utils.training.predictions import load_predictions

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


@pytest.mark.slow
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
    assert not list(built.parent.glob(".davidnet~*"))


@pytest.mark.parametrize(("name", "reason"), [("never", "does not exist"), ("begun", "complete")])
def test_an_incomplete_run_is_no_space(tmp_path, name, reason):
    if name == "begun":
        Run("begun", tmp_path).update_record(status="running")
    with pytest.raises(InputError, match=reason):
        build_space(Run(name, tmp_path))
    assert not (tmp_path / name / "space").exists()


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
    assert "left out, as not part of it" in said and ".env, __pycache__" in said
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
