"""What training costs on this machine: the bare step, the loader, and the step in the Trainer.

Machines are shared and noisy, so all are measured in turn, round by round, and compared as ratios.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from pytorch_lightning import Callback
from torch.nn.functional import cross_entropy

from utils import InputError, check_number
from utils.augment import Augmentation, augment
from utils.classifier import ImageClassifier
from utils.data import PictureDataModule, PictureSet, Split
from utils.devices import available_memory, choose_device, choose_precision
from utils.models import create_model
from utils.progress import progress_bar
from utils.recipes import RECIPES
from utils.training import build_trainer

#: What a training step takes of memory for each picture of its batch.
BYTES_A_PICTURE = 5_000_000
MEAN_STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def print_benchmark(batch_size: int = 512, rounds: int = 5, json_path: str | None = None) -> None:
    """Measure, print a table, and write the figures as JSON if asked.

    Raises:
        InputError: a number out of range.
    """
    check_number("--batch-size", batch_size, 2, 100_000, whole=True)
    check_number("--rounds", rounds, 1, 1_000, whole=True)
    if (needed := batch_size * BYTES_A_PICTURE) > (free := available_memory()):
        raise InputError(
            f"--batch-size {batch_size} needs about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free. Lower it."
        )
    if json_path and not Path(json_path).resolve().parent.is_dir():
        raise InputError(f"--json {json_path}: there is no folder {Path(json_path).parent}.")
    report = benchmark(batch_size, rounds)
    print(
        f"DavidNet, batch {batch_size}, {report['precision']}, channels-last, "
        f"{report['hardware']}, torch {torch.__version__}, n = {rounds} rounds in turn"
    )
    for name, seconds in report["seconds"].items():
        mean, spread = statistics.mean(seconds), statistics.pstdev(seconds)
        print(
            f"  {name:34}{1e3 * mean:9.1f} ± {1e3 * spread:.1f} ms"
            f"{batch_size / mean:12,.0f} pictures/s"
        )
    print(f"loading and augmenting cost {report['loader_share']:.1%} of a bare training step")
    print(f"training in the Trainer runs at {report['trainer_rate']:.1%} of the bare step's rate")
    if json_path:
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n")


def benchmark(batch_size: int, rounds: int) -> dict:
    """Return the seconds of each part in each round, and their ratios (of medians)."""
    device, hardware = choose_device()
    precision, _ = choose_precision("auto", device)
    data = _random_data(batch_size)
    parts = {
        "bare training step": _bare_step(batch_size, device, precision),
        "loading and augmenting a batch": _loader(data, device),
        "training step in the Trainer": _trainer_step(data, device, precision),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for measure in parts.values():
        measure()  # warm up
    for _ in progress_bar(range(rounds), description="Benchmark", unit="rounds"):
        for name, measure in parts.items():
            seconds[name].append(measure())
    bare, loader, trainer = (statistics.median(values) for values in seconds.values())
    return {
        "hardware": hardware,
        "precision": precision,
        "batch_size": batch_size,
        "torch": torch.__version__,
        "seconds": seconds,
        "loader_share": loader / bare,
        "trainer_rate": bare / trainer,
    }


def _random_data(batch_size: int, batches: int = 4) -> PictureDataModule:
    generator = torch.Generator().manual_seed(0)
    size = batch_size * batches
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.randint(0, 10, (size,), generator=generator))
    classes = tuple("0123456789")
    picture_set = PictureSet("random", "random", classes, split, split, *MEAN_STD, "", (), {})
    return PictureDataModule(picture_set, batch_size, Augmentation())


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _bare_step(batch_size: int, device: str, precision: str) -> Callable[[], float]:
    """Return a measurement of one step without Lightning, loader, augmentation or metrics."""
    network = create_model(seed=0).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    images = torch.randn(batch_size, 3, 32, 32, device=device)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (batch_size,), device=device)
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16

    def measure() -> float:
        started = _clock(device)
        with torch.autocast(device, dtype, enabled=precision != "32-true"):
            logits = network(images)
        cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        return _clock(device) - started

    return measure


def _loader(data: PictureDataModule, device: str) -> Callable[[], float]:
    """Return a measurement of one batch from memory to augmented tensors on the device."""

    def measure() -> float:
        batches = iter(data.train_dataloader())
        next(batches)
        started = _clock(device)
        images, _, indices = (tensor.to(device) for tensor in next(batches))
        augment(images, indices, data.augmentation, *MEAN_STD, seed=0, epoch=0)
        return _clock(device) - started

    return measure


def _trainer_step(data: PictureDataModule, device: str, precision: str) -> Callable[[], float]:
    """Return a measurement of one step through Lightning, with everything that training does."""
    recipe = replace(RECIPES["original"], epochs=1)

    def measure() -> float:
        clock = _StepClock(device)
        trainer = build_trainer(
            device,
            precision,
            max_epochs=1,
            limit_train_batches=3,
            limit_val_batches=0,
            callbacks=[clock],
        )
        trainer.fit(ImageClassifier(create_model(seed=0), 10, recipe), datamodule=data)
        return (clock.times[-1] - clock.times[0]) / (len(clock.times) - 1)

    return measure


class _StepClock(Callback):
    """Notes when each step ends; the time between two holds loading, transfer and step."""

    def __init__(self, device: str):
        self.device = device
        self.times: list[float] = []

    def on_train_batch_end(self, *_) -> None:
        self.times.append(_clock(self.device))
