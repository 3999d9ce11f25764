"""The benchmark of step, loader and Trainer."""

import json
import statistics
from functools import partial

import pytest
import torch

from utils import InputError, bench
from utils.models import create_model


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(bench, "create_model", partial(create_model, width=2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_benchmark_measures_every_part_in_every_round():
    report = bench.benchmark(batch_size=8, rounds=3)
    assert list(report["seconds"]) == [
        "bare training step",
        "loading and augmenting a batch",
        "training step in the Trainer",
    ]
    for seconds in report["seconds"].values():
        assert len(seconds) == 3
        assert all(0 < s < 30 for s in seconds)
    bare, loader, trainer = (statistics.median(s) for s in report["seconds"].values())
    assert report["loader_share"] == pytest.approx(loader / bare)
    assert report["trainer_rate"] == pytest.approx(bare / trainer)
    assert report["batch_size"] == 8
    assert report["precision"] in ("32-true", "bf16-mixed")


def test_a_slow_loader_shows_in_the_trainers_rate(monkeypatch):
    from time import sleep

    fast = bench.benchmark(batch_size=8, rounds=1)
    indexed = bench.PictureDataModule.on_after_batch_transfer

    def slow(self, *arguments):
        sleep(0.2)
        return indexed(self, *arguments)

    monkeypatch.setattr(bench.PictureDataModule, "on_after_batch_transfer", slow)
    slowed = bench.benchmark(batch_size=8, rounds=1)
    step = "training step in the Trainer"
    assert slowed["seconds"][step][0] > 0.2
    assert slowed["trainer_rate"] < fast["trainer_rate"]


def test_printed_table_and_json_agree(tmp_path, capsys):
    path = tmp_path / "bench.json"
    bench.print_benchmark(batch_size=8, rounds=1, json_path=str(path))
    report = json.loads(path.read_text())
    printed = capsys.readouterr().out
    for name, seconds in report["seconds"].items():
        line = next(line for line in printed.splitlines() if line.strip().startswith(name))
        assert f"{1e3 * seconds[0]:.1f} ± 0.0 ms" in line
        assert line.endswith(f"{8 / seconds[0]:,.0f} pictures/s")
    assert f"{report['trainer_rate']:.1%}" in printed


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"batch_size": 1}, ["--batch-size", "1", "from 2"]),
        ({"rounds": 0}, ["--rounds", "0", "from 1"]),
    ],
)
def test_numbers_out_of_range_are_refused(numbers, words):
    with pytest.raises(InputError) as refusal:
        bench.print_benchmark(**numbers)
    for word in words:
        assert word in str(refusal.value)
