"""What picture files tell beside what they show: size, light, sharpness, format, camera and date.

Needs no torch, so that the workers start quickly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import numpy as np
from PIL import Image

from utils import printable
from utils.data.pictures import CHUNK, opened, prepare_draft, to_rgb, upright, workers
from utils.progress import progress_bar

#: The shorter side in pixels at which light and sharpness are measured; smaller pictures are
#: measured as they are. A camera's full size would say little: even sharp photographs are soft
#: from one of its pixels to the next.
MEASURED = 128
#: Characters of a camera's name that are kept.
MOST_OF_A_NAME = 40
#: Seconds in a day.
DAY = 86_400
#: EXIF 2.32: maker and model of the camera; when the file was changed; where the rest is, and in it
#: when the picture was taken.
MAKER, MODEL, CHANGED, MORE, TAKEN = 0x010F, 0x0110, 0x0132, 0x8769, 0x9003


@dataclass(frozen=True)
class Trait:
    """What one file tells.

    Attributes:
        width, height: in pixels, upright.
        brightness: the mean of its luma, in [0, 1].
        darkest, lightest: the luma that 5, and 99, of 100 pixels are below, in [0, 1].
        sharpness: the spread of the Laplacian of its luma, in units of the spread of the luma: 4.5
            for noise, 0.3 to 2 for sharp photographs, less than 0.2 for blurred ones; 0 where all
            of its pixels are the same.
        kind: Pillow's name of its format.
        camera: maker and model; "" where the file does not say.
        date: when it was taken, or else changed, in days since the year 1; NaN where the file does
            not say.
    """

    width: int
    height: int
    brightness: float
    darkest: float
    lightest: float
    sharpness: float
    kind: str
    camera: str
    date: float


TRAITS = tuple(field.name for field in fields(Trait))


@dataclass(frozen=True)
class Traits:
    """The fields of `Trait` for N files, an array of length N each."""

    width: np.ndarray
    height: np.ndarray
    brightness: np.ndarray
    darkest: np.ndarray
    lightest: np.ndarray
    sharpness: np.ndarray
    kind: np.ndarray
    camera: np.ndarray
    date: np.ndarray

    def subset(self, positions: np.ndarray) -> "Traits":
        """Return those of the files at these positions (int64, M)."""
        return Traits(*(getattr(self, name)[positions] for name in TRAITS))


def read_traits(paths: Sequence[str], bits: int = 16) -> Traits:
    """Read what many picture files tell, in parallel, with a progress bar.

    Args:
        paths: of files that can be read as pictures.
        bits: as `utils.data.pictures.to_rgb` takes it.

    Raises:
        InputError: a file can no longer be read.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    found = []
    with (
        workers(len(paths)) as executor,
        progress_bar(description="Auditing files", total=len(paths), unit="files") as bar,
    ):
        for part in executor.map(_read_chunk, chunks, [bits] * len(chunks)):
            found += part
            bar.update(len(part))
    return Traits(*(np.array([getattr(trait, name) for trait in found]) for name in TRAITS))


def _read_chunk(paths: Sequence[str], bits: int) -> list[Trait]:
    return [read_trait(path, bits) for path in paths]


def read_trait(path: str, bits: int = 16) -> Trait:
    """Read what one picture file tells; arguments and errors as of `read_traits`."""
    with opened(path) as image:
        size, kind, (camera, date) = image.size, image.format or "", _camera_and_date(image)
        prepare_draft(image, MEASURED // 2)
        lying = image.size
        shown = upright(image)
        if shown.size != lying:
            size = size[::-1]
        return Trait(*size, *_light_and_sharpness(to_rgb(shown, bits)), kind, camera, date)


def _light_and_sharpness(image: Image.Image) -> tuple[float, float, float, float]:
    """Return ``brightness``, ``darkest``, ``lightest`` and ``sharpness`` of an RGB picture."""
    if (larger := min(image.size) / MEASURED) > 1:
        size = round(image.width / larger), round(image.height / larger)
        image = image.resize(size, Image.Resampling.BOX)
    luma = np.asarray(image.convert("L"), np.float32) / 255
    darkest, lightest = np.percentile(luma, (5, 99))
    spread = float(luma.std())
    padded = np.pad(luma, 1, "reflect" if min(luma.shape) > 1 else "edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    sharpness = float((4 * luma - around).std()) / spread if spread else 0.0
    return float(luma.mean()), float(darkest), float(lightest), sharpness


def _camera_and_date(image: Image.Image) -> tuple[str, float]:
    """Return ``camera`` and ``date`` of an open picture, from its EXIF data."""
    try:
        exif = image.getexif()
        names = [str(exif.get(tag, "")).strip("\0 ") for tag in (MAKER, MODEL)]
        taken = exif.get_ifd(MORE).get(TAKEN) or exif.get(CHANGED)
    except Exception:  # damaged metadata can raise nearly anything, and tell nothing
        return "", math.nan
    maker, model = names
    camera = model if model.startswith(maker) else f"{maker} {model}"
    return printable(" ".join(camera.split()))[:MOST_OF_A_NAME], _in_days(taken)


def _in_days(written: object) -> float:
    """Return a date of EXIF ("2024:05:31 12:00:00") in days since the year 1, or else NaN."""
    try:
        when = datetime.strptime(str(written).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return math.nan
    return when.toordinal() + (when - datetime(when.year, when.month, when.day)).seconds / DAY
