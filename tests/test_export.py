"""Exporting a run: an ONNX file that agrees with PyTorch, and a card that says what it is."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from helpers.networks import with_lived_in_statistics
from helpers.training import copy_of
from utils import InputError
from utils.cli import main
from utils.data.augment import normalise
from utils.data.pictures import open_picture, resize_and_crop
from utils.explain.exported import (
    CARD,
    LABELS,
    LOGITS,
    MAP,
    MODEL,
    PIXELS,
    Description,
    ExportedModel,
)
from utils.explain.gradcam import class_activation_maps
from utils.explain.map_in_graph import PRODUCTS, NetworkWithMap
from utils.files import ROOT
from utils.intervals import share_in_words
from utils.models.convolution import Conv3x3
from utils.models.registry import create_model
from utils.publish import export
from utils.publish.export import (
    FACTORS,
    OPSET,
    Agreement,
    _check_agreement,
    as_onnx,
    compare,
    export_run,
    model_card,
)
from utils.training.trained import load_network

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.mark.slow
def test_onnx_runtime_says_what_pytorch_says_of_any_number_of_pictures(tmp_path):
    block, side = "block1", 24
    network = with_lived_in_statistics(create_model("speednet", 3, side, seed=1, width=8)).eval()
    with_map = NetworkWithMap(network, MEAN, STD, "layercam", block)
    description = Description(("a", "b", "c"), 16, "layercam", block, ())
    (tmp_path / MODEL).write_bytes(as_onnx(with_map, side, description))
    exported = ExportedModel(tmp_path)
    assert (exported.description, exported.image_size) == (description, side)
    generator = torch.Generator().manual_seed(3)
    for number in (1, 2, 7):
        images = torch.randint(0, 256, (number, 3, side, side), generator=generator)
        images = images.to(torch.uint8)
        logits, maps = exported.logits_and_maps(images.numpy())
        pixels = normalise(images, MEAN, STD)
        assert (logits.dtype, maps.dtype) == (np.float32, np.float32)
        np.testing.assert_allclose(logits, network(pixels).detach().numpy(), atol=1e-4)
        expected = class_activation_maps(network, pixels, None, "layercam", block)
        np.testing.assert_allclose(maps, expected, atol=1e-3)


def test_what_was_exported_agrees_with_pytorch(exported):
    told, _ = exported
    found = re.search(
        r"On (\d+) test .* within (\S+) of PyTorch's, and the maps within (\S+) ", told
    )
    pictures, logits, maps = found.groups()
    assert int(pictures) == 80
    assert float(logits) <= 1e-4
    assert float(maps) <= 1e-3


def test_the_file_is_its_weights_and_says_nothing_of_this_machine(exported, tiny_run):
    told, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, LABELS, MODEL])
    content = (folder / MODEL).read_bytes()
    weights = tiny_run.path("model.safetensors").stat().st_size
    assert len(content) < weights + 40_000
    for words in (str(ROOT).encode(), b"site-packages", b"utils."):
        assert words not in content
    model = onnx.load_from_string(content)
    assert [(i.domain, i.version) for i in model.opset_import] == [("", OPSET)]
    assert f"opset {OPSET}" in told


def test_the_card_says_what_was_measured(exported, tiny_run):
    _, folder = exported
    card = (folder / CARD).read_text("utf-8")
    metrics = tiny_run.read_json("metrics.json")
    right = round(metrics["test_acc"] * metrics["test_size"])
    assert f"{share_in_words(right, metrics['test_size'], 2)} of 80 test pictures" in card
    assert f"opset {OPSET}" in card and "On 80 test pictures the logits" in card
    assert "`hirescam` at the network's block `layer1`" in card
    assert "has not been measured for this network" in card
    assert "160 training pictures of 16 × 16 pixels" in card
    assert "0 disc, 1 ring" in card
    assert "$" not in card


DESCRIPTION = Description(("a", "b"), 16, "hirescam", "layer1", ())


def test_the_card_shows_what_trust_measured_of_this_map(trained, small_network, tmp_path):
    run = copy_of(trained, tmp_path).run
    table = run.path("trust", f"{run.name}.csv")
    table.parent.mkdir()
    head, row = "method,block,measure,mean,low,high,n\n", "layer1,energy,0.51,0.42,0.63,1060\n"
    table.write_text(f"{head}gradcam,layer1,energy,0.1,0,0.2,60\nhirescam,{row}")
    card = model_card(run, DESCRIPTION, None)
    assert "| energy | 0.51 | 0.42 to 0.63 | 1,060 |" in card
    assert "0.10" not in card and "PyTorch's" not in card
    table.write_text(f"{head}gradcam,{row}")
    assert "of other maps of this run, it has" in model_card(run, DESCRIPTION, None)
    table.write_text(f"{head}hirescam,{row.replace('0.42', 'much')}")
    with pytest.raises(InputError, match=r"run\.csv is damaged"):
        model_card(run, DESCRIPTION, None)


@pytest.fixture
def card_reads(trained, small_network, tmp_path, monkeypatch):
    """What the lines in a model card make of ``picture.png``: uint8, S×S×3."""
    (source,) = re.findall(
        r"```python\n(.*?)```", model_card(trained.run, DESCRIPTION, None), re.DOTALL
    )
    given = []

    class Session:
        def __init__(self, file):
            assert file == MODEL

        def run(self, outputs, inputs):
            assert outputs == [LOGITS, MAP]
            given.append(inputs[PIXELS])
            return np.array([[1.0, 2.0]]), None

    def read():
        exec(source, {})
        (pixels,) = given
        assert pixels.dtype == np.uint8 and pixels.shape == (1, 3, 16, 16)
        return pixels[0].transpose(1, 2, 0)

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    monkeypatch.chdir(tmp_path)
    Path(LABELS).write_text('["a", "b"]')
    return read


def noise(mode, width=50, height=37):
    """A picture of which every pixel and every opacity is another."""
    generator = np.random.default_rng(3)
    values = generator.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def turned(orientation):
    """EXIF that says so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (noise("RGB"), {}),
        (noise("RGBA"), {}),
        (noise("LA"), {}),
        (noise("RGB").quantize(8), {"transparency": 3}),
        (noise("L"), {"transparency": 100}),
        (noise("RGB", 700, 500), {"format": "JPEG"}),
        (noise("CMYK"), {"format": "JPEG"}),
        (noise("RGB"), {"exif": turned(6)}),
    ],
)
def test_the_lines_in_the_card_read_a_picture_as_the_project_does(picture, options, card_reads):
    picture.save("picture.png", **options)
    expected = resize_and_crop(open_picture("picture.png"), 16)
    np.testing.assert_array_equal(card_reads(), expected)
    assert expected.std() > 1


def test_of_more_bits_the_lines_in_the_card_make_white_as_it_says(card_reads, trained):
    deep = np.linspace(256, 65_535, 40 * 40).astype(np.uint16).reshape(40, 40)
    Image.fromarray(deep).save("picture.png")
    assert (card_reads() == 255).all()
    assert resize_and_crop(open_picture("picture.png"), 16).std() > 1
    assert "Greyscale of more would come out white" in model_card(trained.run, DESCRIPTION, None)


def test_every_method_that_can_be_exported_is_described():
    assert FACTORS.keys() == PRODUCTS.keys()


def test_a_network_that_does_not_agree_is_refused():
    near, few, many = (np.full(1_000, 1e-6) for _ in range(3))
    few[:10], many[:11] = 0.1, 0.1
    told = Agreement(near, few, 3).in_words()
    assert "the maps within 1.0e-01 (median 1e-06, 10 beyond 0.001). For 3 of them PyTorch" in told
    _check_agreement(Agreement(near, few, 0))
    for agreement in (Agreement(near, many, 0), Agreement(np.full(1_000, 2e-4), near, 0)):
        with pytest.raises(InputError, match="Nothing was exported"):
            _check_agreement(agreement)


def test_the_nearer_of_two_maps_of_pytorch_counts(trained, small_network, monkeypatch):
    """As where convolutions computed in another way hand a gradient to another pixel."""
    network, pictures = load_network(trained.run), trained.picture_set

    class Exported:
        method, block = "hirescam", "layer1"

        def logits_and_maps(self, images):
            pixels = normalise(torch.from_numpy(images), pictures.mean, pictures.std)
            maps = class_activation_maps(network, pixels, None, self.method, self.block)
            return network(pixels).detach().numpy(), maps

    def doubtful(of, pixels, *given):
        is_plain = not any(isinstance(layer, Conv3x3) for layer in of.modules())
        maps = class_activation_maps(of, pixels, *given)
        return maps if is_plain else maps + (pixels.mean((1, 2, 3)) > 0)[:, None, None].numpy()

    monkeypatch.setattr(export, "ExportedModel", lambda file: Exported())
    whole = compare(None, network, pictures, 20)
    assert (len(whole.logits), len(whole.maps), whole.doubtful) == (20, 20, 0)
    monkeypatch.setattr(export, "class_activation_maps", doubtful)
    found = compare(None, network, pictures, 20)
    assert 0 < found.doubtful < 20
    assert found.maps.max() < 1e-3


# What is refused, with nothing written


def test_a_folder_with_other_files_is_refused_and_stays(trained, small_network, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files than an export \(mine\.txt\)"):
        export_run(trained.run, tmp_path, check=0)
    with pytest.raises(InputError, match="is no folder"):
        export_run(trained.run, tmp_path / "mine.txt", check=0)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        export_run(trained.run, tmp_path / "link", check=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine.txt"]


def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    trained, small_network, tmp_path, monkeypatch
):
    target = tmp_path / "export"
    with pytest.raises(InputError, match="method is 'scorecam', and only maps by"):
        export_run(trained.run, target, method="scorecam", check=0)
    with pytest.raises(InputError, match="block 'layer9' is unknown"):
        export_run(trained.run, target, block="layer9", check=0)

    def gone(*given):
        raise InputError("The pictures are gone.")

    monkeypatch.setattr(export, "pictures_of", gone)
    with pytest.raises(InputError, match=r"gone\. Or export without a comparison: --check 0\."):
        export_run(trained.run, target)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"^onnxscript must be installed"):
        export_run(trained.run, target, check=0)
    assert not target.exists()


def test_an_export_that_does_not_agree_is_not_written(
    trained, small_network, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "as_onnx", lambda *given: b"some bytes")
    monkeypatch.setattr(export, "_pictures", lambda *given: "pictures")
    far = Agreement(np.ones(3), np.ones(3), 0)
    monkeypatch.setattr(export, "compare", lambda *given: far)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / MODEL).write_text("earlier")
    with pytest.raises(InputError, match="Nothing was exported"):
        export_run(trained.run, tmp_path / "export")
    assert (tmp_path / "export" / MODEL).read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_the_command_exports_where_it_is_told(
    trained, small_network, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(export, "as_onnx", lambda *given: b"some bytes")
    monkeypatch.chdir(tmp_path)
    run = trained.run
    main(
        ["export", "--run", run.name, "--output-dir", str(run.folder.parent), "--to", "taken",
         "--block", "layer2", "--method", "gradcam", "--check", "0"]
    )  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "taken").iterdir()) == sorted([CARD, LABELS, MODEL])
    said = capsys.readouterr().out
    assert "(gradcam at layer2)" in said and str(tmp_path / "taken") in said
    with pytest.raises(SystemExit, match="--check is -1"):
        main(["export", "--run", run.name, "--check", "-1"])
