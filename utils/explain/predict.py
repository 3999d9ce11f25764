"""Classify picture files with a trained run, or with a network that was exported from one.

Needs no torch: whoever asks an exported network need not have it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from utils import InputError, counted
from utils.data.folders import files_below
from utils.data.pictures import EXTENSIONS, read_pictures
from utils.files import replacing
from utils.plots.gradcam import overlay
from utils.plots.style import channels_last

#: By how much a picture is enlarged beside its map.
ENLARGED = 6


class Model(Protocol):
    """What can be asked about pictures: `TrainedModel` and `ExportedModel` can.

    Attributes:
        classes: names, in the order of the probabilities.
        image_size: side in pixels of what the network sees.
        bits: how many a deep greyscale picture uses, as `utils.data.pictures.to_rgb` takes them.
        method, block: of the maps.
    """

    classes: tuple[str, ...]
    image_size: int
    bits: int
    method: str
    block: str

    def thresholds(self) -> np.ndarray:
        """Return the thresholds of prediction sets: float64, C; refused where there are none."""
        ...

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class, float32, N×C, of one batch: uint8, N×3×S×S."""
        ...

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Return maps for the predicted classes, float32 in [0, 1], N×S×S: uint8, N×3×S×S."""
        ...


def find_pictures(given: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Return the picture files meant by files and folders, and what else the folders hold.

    Raises:
        InputError: something that does not exist, or a folder without pictures.
    """
    found, others = [], []
    for path in given:
        if path == "":
            raise InputError("A picture's name is empty. Give a file or a folder.")
        path = Path(path)
        if path.is_dir():
            inside, unread = (list(map(Path, paths)) for paths in files_below(path))
            if not inside:
                raise InputError(f"{path} holds no pictures ({', '.join(EXTENSIONS)}).")
            found += inside
            others += unread
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist.")
    return found, others


def predict_pictures(
    model: Model, paths: Sequence[Path], batch_size: int = 256
) -> tuple[tuple[str, ...], np.ndarray, dict[int, str]]:
    """Return a network's predictions for picture files, read as its training pictures were.

    Returns:
        class names; float32 probabilities N×C of the readable files, in order; and for each
        unreadable file its position and what was wrong.
    """
    images, failures = _read(model, paths)
    probabilities = np.zeros((len(images), len(model.classes)), np.float32)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        probabilities[part] = model.probabilities(images[part])
    return model.classes, probabilities, failures


def write_maps(model: Model, paths: Sequence[Path], folder: Path) -> str:
    """Write each picture as the network saw it, beside the map for the class that it predicts.

    The files are PNGs, named after the pictures and numbered in their order; what stands in the
    folder under another name stays.

    Args:
        model: a trained network.
        paths: pictures; those that cannot be read are passed over.
        folder: where to write; it is made where it is missing.

    Returns:
        how many maps were written, and which, as a sentence.
    """
    images, failures = _read(model, paths)
    readable = [path for place, path in enumerate(paths) if place not in failures]
    maps = model.maps(images)
    folder.mkdir(parents=True, exist_ok=True)
    for number, (path, image, found) in enumerate(zip(readable, images, maps, strict=True), 1):
        pair = np.concatenate([channels_last(image), overlay(image, found)], axis=1)
        larger = pair.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
        with replacing(folder / f"{number:04}_{path.stem}.png") as beside:
            Image.fromarray(larger).save(beside, format="PNG")
    return f"{counted(len(readable), 'map')} by {model.method} at {model.block}: {folder}"


def _read(model: Model, paths: Sequence[Path]) -> tuple[np.ndarray, dict[int, str]]:
    """Return the readable pictures, uint8 N×3×S×S, and what is wrong with the others, by place."""
    decoded = read_pictures([str(p) for p in paths], model.image_size, "Reading", model.bits)
    readable = [place for place in range(len(paths)) if place not in decoded.failures]
    return decoded.images[readable], decoded.failures
