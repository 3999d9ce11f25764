"""An exported network: what it says without torch, and what is refused."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from utils import InputError
from utils.cli import main
from utils.data.sources import pictures_of
from utils.explain.exported import LABELS, MODEL, Description, ExportedModel
from utils.explain.predict import predict_pictures
from utils.explain.trained_model import TrainedModel
from utils.files import ROOT

DESCRIPTION = Description(("ant", "größe", "日本"), 12, "hirescam", "layer1", (0.1, 0.25, -2.0))
#: As the command line is called, where neither can be imported.
WITHOUT_TORCH = """
import sys
sys.modules.update(torch=None, pytorch_lightning=None)
from utils.cli import main
main(sys.argv[1:])
"""


def test_a_description_comes_back_as_it_was_written():
    assert Description.from_metadata(DESCRIPTION.as_metadata()) == DESCRIPTION
    without_sets = replace(DESCRIPTION, thresholds=())
    assert Description.from_metadata(without_sets.as_metadata()) == without_sets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", '["ant"]'),
        ("classes", '["ant", "ant"]'),
        ("bits", "7"),
        ("method", '"gradcam3"'),
        ("block", '"../up"'),
        ("thresholds", '["a"]'),
        ("thresholds", "{"),
    ],
)
def test_a_description_that_cannot_be_right_is_refused(name, value):
    with pytest.raises(ValueError):
        Description.from_metadata(DESCRIPTION.as_metadata() | {name: value})


@pytest.mark.parametrize("name", DESCRIPTION.as_metadata())
def test_a_description_that_is_not_whole_is_refused(name):
    metadata = DESCRIPTION.as_metadata()
    del metadata[name]
    with pytest.raises(ValueError, match=name):
        Description.from_metadata(metadata)


def test_a_file_that_is_no_exported_network_is_refused_by_its_path(tmp_path):
    with pytest.raises(InputError, match=r"model\.onnx does not exist.*utils export --run"):
        ExportedModel(tmp_path)
    with pytest.raises(InputError, match=r"gone does not exist"):
        ExportedModel(tmp_path / "gone")
    (tmp_path / MODEL).write_bytes(b"no network")
    with pytest.raises(InputError, match=r"model\.onnx is not a network that was exported here"):
        ExportedModel(tmp_path)


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"^onnxruntime must be installed .*'\.\[export\]'"):
        ExportedModel(tmp_path)


def test_the_network_says_what_the_run_says(exported, tiny_run, tmp_path):
    _, folder = exported
    files = []
    for number, image in enumerate(pictures_of(tiny_run).test.images[:9]):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(files[-1])
    found, expected = ExportedModel(folder), TrainedModel(tiny_run)
    for name in ("classes", "image_size", "bits", "method", "block"):
        assert getattr(found, name) == getattr(expected, name)
    assert json.loads((folder / LABELS).read_text("utf-8")) == list(found.classes)
    np.testing.assert_array_equal(found.thresholds(), expected.thresholds())
    (_, mine, _), (_, theirs, _) = (predict_pictures(m, files, 4) for m in (found, expected))
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert np.ptp(theirs, axis=0).max() > 0.01  # another order would show


def test_predict_needs_no_torch(exported, tiny_run, tmp_path, capsys):
    """Neither for classes and sets nor for maps: they are those of the run."""
    _, folder = exported
    for number, image in enumerate(pictures_of(tiny_run).test.images[:3]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    asked = ["--sets", str(tmp_path / "0.png"), str(tmp_path / "2.png")]
    place = ["--run", tiny_run.name, "--output-dir", str(tiny_run.folder.parent)]
    main(["predict", *place, "--maps", str(tmp_path / "run"), *asked])
    command = [sys.executable, "-c", WITHOUT_TORCH, "predict", "--model", str(folder)]
    command += ["--maps", str(tmp_path / "exported"), *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == capsys.readouterr().out
    for name in ("0001_0.png", "0002_2.png"):
        mine, theirs = (
            np.asarray(Image.open(tmp_path / place / name)).astype(int)
            for place in ("exported", "run")
        )
        assert np.abs(mine - theirs).max() <= 1


def altered(folder, place, **metadata):
    """A copy of an exported network whose metadata say something else."""
    import onnx

    model = onnx.load(folder / MODEL)
    known = {entry.key: entry.value for entry in model.metadata_props} | metadata
    onnx.helper.set_model_props(model, known)
    onnx.save(model, place / MODEL)
    return place


def test_a_network_whose_description_does_not_fit_it_is_refused(exported, tmp_path):
    _, folder = exported
    with pytest.raises(InputError, match="2 classes, and logits or thresholds for others"):
        ExportedModel(altered(folder, tmp_path, classes='["a", "b"]'))
    with pytest.raises(InputError, match="10 classes, and logits or thresholds for others"):
        ExportedModel(altered(folder, tmp_path, thresholds="[0.5]"))
    without = ExportedModel(altered(folder, tmp_path, thresholds="[]"))
    with pytest.raises(InputError, match=r"no prediction sets.*export it again"):
        without.thresholds()


def test_a_network_that_was_cut_short_is_refused(exported, tmp_path):
    _, folder = exported
    content = (folder / MODEL).read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 1):
        (tmp_path / MODEL).write_bytes(content[:size])
        with pytest.raises(InputError, match="damaged"):
            ExportedModel(tmp_path)


def test_the_code_on_the_card_says_the_class(exported, tiny_run, tmp_path, monkeypatch):
    _, folder = exported
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    image = pictures_of(tiny_run).test.images[3].permute(1, 2, 0).numpy()
    Image.fromarray(image).save(tmp_path / "picture.png")
    code = (folder / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", said)
    exec(code, {})
    model = ExportedModel(folder)
    (probabilities,) = model.probabilities(image.transpose(2, 0, 1)[None])
    assert said.getvalue().strip() == model.classes[probabilities.argmax()]
