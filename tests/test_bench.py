"""The benchmark: every part measured in every round, and shares that mean what they say."""

import json
import statistics
from functools import partial

import pytest
import torch

from utils import InputError
from utils.explain.gradcam import SHOWN_FIRST
from utils.measure import bench
from utils.models.davidnet import DavidNet
from utils.models.registry import create_model
from utils.models.speednet import SpeedNet
from utils.training.classifier import build_optimizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def small():
    """A network and convolutions that cost next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "create_model", partial(create_model, width=2))
        patch.setattr(bench, "_ceilings", partial(bench._ceilings, times=1))
        patch.setattr(bench, "_convolution", partial(bench._convolution, batch_size=1))
        patch.setattr(bench, "_matrix_product", partial(bench._matrix_product, size=64))
        patch.setattr(bench, "EVALUATED", 64)
        patch.setattr(bench, "SMALL_BATCH", 4)
        patch.setattr(bench, "EVAL_BATCH_SIZE", 32)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


PARTS = [
    "3×3 convolution, forward", "3×3 convolution, both ways", "3×3 convolution, both ways, float32",
    "3×3 convolution, Winograd, float32", "copy of memory",
    "batches from memory", "batches from a mapped file",
    *(
        f"{model}: {part}"
        for model, augmentations, (method, block) in (
            (
                "davidnet", ["augmentation a", "augmentation b", "augmentation c"],
                SHOWN_FIRST[DavidNet]["photographs"],
            ),
            ("speednet", ["augmenting"], SHOWN_FIRST[SpeedNet]["photographs"]),
        )
        for part in (
            "training step", "training step, batch 4",
            *(f"loading, {augmentation}" for augmentation in augmentations),
            "training step in Trainer", "evaluation", "evaluation in Trainer",
            "forward pass, float32", "Grad-CAM, last block",
            f"forward and gradient to {block}, float32", f"{method} at {block}",
            "removal, nine shares in both orders, float32",
        )
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def report(small):
    return bench.benchmark(batch_size=8, rounds=3, precision="bf16-mixed")


def test_every_part_is_measured_in_every_round(report):
    parts = report["parts"]
    assert [name for name in parts if not name.startswith("matrix product")] == PARTS
    assert "matrix product, float32" in parts
    for row in parts.values():
        assert len(row["seconds"]) == report["rounds"] == 3
        assert all(0 < s < 30 for s in row["seconds"])
    assert report["precision"] == "bf16-mixed"


def test_a_share_is_the_ratio_of_two_median_rates(report):
    parts = report["parts"]
    median = {name: statistics.median(row["seconds"]) for name, row in parts.items()}
    step, (steps, _) = "davidnet: training step", bench.FEW_STEPS
    assert parts[f"{step} in Trainer"]["share"] == pytest.approx(
        median[step] / median[f"{step} in Trainer"]
    )
    small = f"{step}, batch 4"
    assert parts[small]["share"] == pytest.approx(median[step] / median[small])
    loading = "davidnet: loading, augmentation b"
    assert parts[loading]["share"] == pytest.approx(steps * median[loading] / median[step])
    _, both = bench.picture_flops("davidnet")
    ceiling = parts[bench.CONVOLUTION]["amount"] / median[bench.CONVOLUTION]  # GFLOP/s
    assert parts[step]["share"] == pytest.approx(steps * 8 * both / 1e9 / median[step] / ceiling)


def test_steps_in_small_batches_are_those_of_the_recipe_that_trains_so(monkeypatch):
    asked = []

    def kept(network, recipe, precision):
        asked.append((recipe.name, precision))
        return build_optimizer(network, recipe, precision)

    monkeypatch.setattr(bench, "build_optimizer", kept)
    for model in ("davidnet", "speednet"):
        list(bench._network_parts(model, 8, "cpu", "bf16-mixed"))
    assert asked == [(name, "bf16-mixed") for name in ("original", "quick", "speed", "speed")]


def test_the_operations_of_davidnet_are_those_of_its_layers(monkeypatch):
    monkeypatch.setattr(bench, "create_model", create_model)
    forward, both = bench.picture_flops("davidnet")
    sizes = {"prep": 32, "layer1": 16, "layer2": 8, "layer3": 4}
    counted = 2 * 512 * 10  # the linear layer
    for name, module in DavidNet().named_modules():
        if isinstance(module, torch.nn.Conv2d):
            side = sizes[name.split(".")[0]]
            pooled = name.startswith("layer") and "residual" not in name and "block" not in name
            counted += 2 * module.weight.numel() * (side * (2 if pooled else 1)) ** 2
    assert forward == counted
    assert 2.9 < both / forward <= 3  # the pictures themselves need no gradient


def test_a_slow_loader_shows_in_the_trainers_rate(report, monkeypatch):
    from time import sleep

    part = "davidnet: training step in Trainer"
    indexed = bench.PictureDataModule.on_after_batch_transfer

    def slow(self, *arguments):
        sleep(0.2)
        return indexed(self, *arguments)

    monkeypatch.setattr(bench.PictureDataModule, "on_after_batch_transfer", slow)
    slowed = bench.benchmark(batch_size=8, rounds=1, precision="bf16-mixed")["parts"][part]
    assert slowed["seconds"][0] > 0.2
    assert slowed["share"] < report["parts"][part]["share"]


def test_printed_table_and_json_agree(tmp_path, capsys):
    path = tmp_path / "bench.json"
    bench.print_benchmark(batch_size=8, rounds=1, json_path=str(path))
    report = json.loads(path.read_text())
    printed = capsys.readouterr().out
    for name, row in report["parts"].items():
        line = next(line for line in printed.splitlines() if line.startswith(f"  {name}  "))
        assert f"{row['amount'] / row['seconds'][0]:,.0f} ± 0" in line
        if row["of"]:
            assert line.endswith(row["of"])
            assert f"{row['share']:.1%}" in line


@pytest.mark.parametrize(("low", "is_warned"), [(0.5, False), (4.0, True)])
def test_slow_convolutions_in_16_bits_are_told(report, low, is_warned):
    seconds = {bench.CONVOLUTION: [low], bench.IN_FLOAT32: [1.0]}
    rows = {name: report["parts"][name] | {"seconds": s} for name, s in seconds.items()}
    lines = list(bench.table(report | {"rounds": 1, "parts": report["parts"] | rows}))
    told = [line for line in lines if "4.0 times as long in bf16-mixed" in line]
    assert len(told) == is_warned
    without = {name: row for name, row in report["parts"].items() if name != bench.IN_FLOAT32}
    assert "times as long" not in "\n".join(bench.table(report | {"parts": without}))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"batch_size": 1}, ["--batch-size", "1", "from 2"]),
        ({"rounds": 0}, ["--rounds", "0", "from 1"]),
        ({"precision": "8-bit"}, ["precision", "'8-bit'"]),
        ({"batch_size": 100_000}, ["--batch-size 100000 needs about 500.0 GB", "Lower it"]),
        (
            {"json_path": "/nowhere/x.json"},
            ["--json /nowhere/x.json", "the folder /nowhere does not exist"],
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(numbers, words):
    with pytest.raises(InputError) as refusal:
        bench.print_benchmark(**numbers)
    for word in words:
        assert word in str(refusal.value)
