"""Decodes and trains on four times the memory that the system lets this process take.

Run as ``python -m helpers.under_a_limit FOLDER``, where the folder holds two folders of pictures:
`few`, which brings in for good what a training needs, and `many`.
"""

import resource
import sys
from pathlib import Path

import torch

from utils.data import views
from utils.data.augmentation import Augmentation
from utils.data.batches import PictureDataModule
from utils.data.explore import mean_pictures
from utils.data.picture_set import PictureSet
from utils.data.sources import load_pictures
from utils.devices import keep_freed_memory
from utils.models.davidnet import DavidNet
from utils.training.classifier import ImageClassifier
from utils.training.recipes import RECIPES
from utils.training.trainer import build_trainer

SIDE, TIMES = 384, 4


def load(place: Path, name: str) -> PictureSet:
    return load_pictures(dataset=str(place / name), data_dir=place / "data", image_size=SIDE)


def train(pictures: PictureSet) -> int:
    """Train a few steps and evaluate a few batches, as any training would; return the steps."""
    data = PictureDataModule(pictures, 2, Augmentation(4, 0.5, 8), val_fraction=0.2)
    network = DavidNet(num_classes=2, image_size=SIDE, width=1)
    recipe = RECIPES["original"].changed(epochs=1, batch_size=2)
    trainer = build_trainer("cpu", "32-true", max_epochs=1, max_steps=6, limit_val_batches=2)
    trainer.fit(ImageClassifier(network, 2, recipe), datamodule=data)
    mean_pictures(data.train, 2)
    return trainer.global_step


def data_size() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData"))


def main(place: Path) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # so that the limit is above what the warm-up took at its peak
    views.MOST_COPIED = 2**20  # of these few, parts would be copied else
    for _ in range(2):  # the first leaves gaps that the second fills
        train(load(place, "few"))
    size = len(list((place / "many").rglob("*.png"))) * 3 * SIDE**2
    limit = data_size() + size // TIMES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        torch.zeros(size, dtype=torch.uint8)
    except RuntimeError:
        print("The system refuses as much memory as the pictures take.")
    pictures = load(place, "many")
    print(pictures.train.images.nbytes + pictures.test.images.nbytes, size, train(pictures))
    print(pictures.fingerprint == load(place, "many").fingerprint)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
