"""A network small enough to be trained many times, and what its runs leave behind."""

import csv
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from utils.data import batches
from utils.data.picture_set import PictureSet, Split
from utils.models.davidnet import DavidNet
from utils.models.registry import MODELS
from utils.models.speednet import SpeedNet
from utils.settings import PICTURES, with_defaults
from utils.training.callbacks import TrainingLog
from utils.training.plan import plan_training
from utils.training.recipes import RECIPES

EPOCHS, BATCH_SIZE, TRAIN_SIZE, TEST_SIZE = 3, 8, 44, 33
STEPS_PER_EPOCH = 6  # the last batch of each epoch holds only 4 pictures
EVAL_BATCH_SIZE = 8  # the last batch of each evaluation holds only 1


class SmallDavidNet(DavidNet):
    """Fast enough to be trained many times."""

    def __init__(self, num_classes=10, image_size=32, width=4):
        super().__init__(num_classes, width, image_size)


@contextmanager
def small_networks():
    """Let every run be of the small network, and be tested in several batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "davidnet", SmallDavidNet)
        patch.setattr(batches, "EVAL_BATCH_SIZE", EVAL_BATCH_SIZE)
        yield


def make_pictures(train_size=TRAIN_SIZE, test_size=TEST_SIZE, **options):
    """Noisy pictures whose brightness tells the class."""
    generator = torch.Generator().manual_seed(5)

    def split(size):
        targets = torch.randint(0, 3, (size,), generator=generator)
        images = torch.randint(0, 120, (size, 3, 16, 16), generator=generator)
        images += 40 * targets[:, None, None, None]
        return Split(images.to(torch.uint8), targets)

    options = with_defaults(PICTURES, **{"dataset_title": "drawn", "image_size": 16, **options})
    mean, std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)
    return PictureSet(
        "shapes", "drawn", ("dark", "grey", "light"), split(train_size), split(test_size),
        mean, std, "fingerprint", ("a note of the source",), options,
    )  # fmt: skip


def make_plan(folder, pictures=None, **changes):
    settings = {
        "run_name": "run", "output_dir": folder, "recipe": "original", "epochs": EPOCHS,
        "batch_size": BATCH_SIZE, "max_lr": 0.01, "precision": "32-true", "devices": "cpu",
        **changes,
    }  # fmt: skip
    return plan_training(pictures or make_pictures(), **settings)


def read_table(run, name):
    with open(run.path(name), newline="") as file:
        return list(csv.DictReader(file))


def weights(run):
    return load_file(run.path("model.safetensors"))


def same_weights(run, other):
    first, second = weights(run), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def all_but_seconds(run):
    return [{**row, "seconds": None} for row in read_table(run, "metrics.csv")]


def all_files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def direct_logits(run, split, pictures):
    """What the saved weights say, computed without anything of the training code."""
    network = SmallDavidNet(len(pictures.classes), pictures.image_size)
    network.load_state_dict(weights(run))
    network.eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pictures.mean, pictures.std))
    with torch.no_grad():
        return network((split.images.float() / 255 - mean) / std)


def never_fit(*_, **__):
    raise AssertionError("the Trainer was started")


# Reuse, identity, overwrite


def copy_of(trained, folder, pictures=None, **changes):
    """A plan in a folder of its own that holds a copy of the complete run."""
    for name, content in all_files(trained.run.folder).items():
        path = folder / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return make_plan(folder, pictures, **changes)


# Interruption


class GoneError(BaseException):
    """Stands for a machine that went away, of which nobody notes anything."""


def interrupt(monkeypatch, method, error, when):
    """Let a method of TrainingLog raise once the condition on the Trainer holds."""
    original = getattr(TrainingLog, method)

    def breaks(self, trainer, *arguments):
        if when(trainer):
            raise error
        return original(self, trainer, *arguments)

    monkeypatch.setattr(TrainingLog, method, breaks)


# The parts of the recipe speed


class SmallSpeedNet(SpeedNet):
    """Fast enough to be trained many times."""

    def __init__(self, num_classes=10, image_size=32):
        super().__init__(num_classes, 4, image_size)


def make_speed_plan(folder, monkeypatch, **changes):
    """All parts of speed, on pictures that grow from 16 to 24 pixels."""
    monkeypatch.setitem(MODELS, "speednet", SmallSpeedNet)
    pictures = make_pictures(image_size=24)
    splits = {
        name: Split(functional.pad(s.images.float(), (4,) * 4, "reflect").byte(), s.targets)
        for name, s in (("train", pictures.train), ("test", pictures.test))
    }
    pictures = replace(pictures, **splits)
    recipe = replace(RECIPES["speed"], growth=((0.67, 0.4),))
    return make_plan(folder, pictures, recipe=recipe, max_lr=None, **changes)
