"""A folder of pictures made to be difficult: most of what is wrong with collected ones, planted.

What was planted, and where, is known. So one can walk with it through the audit and the chapters as
with a folder of one's own, and count what they warned of.
"""

from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps, features

from utils import InputError
from utils.data.folders import scan_folder
from utils.data.pictures import resize_and_crop, to_rgb

#: Side of the pictures in pixels, and the quality that a JPEG has unless another is planted.
SIDE, QUALITY = 256, 90
#: How many sound pictures classes have, and how many the last one has.
PER_CLASS, FEW = 24, 5
#: How many classes there are, and how many pictures are drawn from each at most.
CLASSES, DRAWN = 5, 40
#: Side of the mark in pixels, how far from the corner it lies, and its colour.
MARK, MARGIN, COLOUR = 24, 8, (230, 40, 60)
#: How many pictures a burst has, and by how many pixels it moves from one to the next.
BURST, MOVED = 4, 14


def make_difficult(place: Path, dataset: Path, seed: int = 0) -> dict[str, list[str]]:
    """Write a folder with faults, about 120 pictures in five classes, and say what was planted.

    Every picture of the first class has a mark in a corner, and the last class has five pictures.
    HEIC needs the package pillow-heif, and AVIF a Pillow that writes it; without them their files
    are JPEG.

    Args:
        place: of the new folder.
        dataset: a folder of at least five classes, of whose training pictures some are drawn and
            enlarged.
        seed: of the draw.

    Returns:
        For each fault, the files from `place` that have it; those of a pair one after the other.

    Raises:
        InputError: `place` is there already, or there are too few pictures to draw from.
    """
    if place.exists():
        raise InputError(f"{place} exists already. Give the place of a folder that is to be made.")
    made = _Folder(place, dataset, np.random.default_rng(seed))
    marked, *others, few = made.classes
    for name, count in ((marked, PER_CLASS), *((name, PER_CLASS) for name in others), (few, FEW)):
        for _ in range(count):
            made.write(made.draw(name), name)
    _plant_copies(made, *others)
    _plant_labels(made, *others)
    _plant_formats(made, *others)
    _plant_poor(made, *others)
    made.planted[f"a mark on every picture of {marked}"] = []
    made.planted[f"a class of {FEW}: {few}"] = []
    return dict(made.planted)


class _Folder:
    """What is being made: where from, where to, and what was planted so far."""

    def __init__(self, place: Path, dataset: Path, rng: np.random.Generator) -> None:
        found = scan_folder(dataset)
        paths = [[p for p, target in found.train if target == t] for t in range(CLASSES)]
        if min(map(len, paths)) < DRAWN:
            raise InputError(
                f"{dataset} has too few pictures: {CLASSES} classes of {DRAWN} are needed."
            )
        self.classes = found.classes[:CLASSES]
        self._left = {
            name: [of_it[i] for i in rng.permutation(len(of_it))[:DRAWN]]
            for name, of_it in zip(self.classes, paths, strict=True)
        }
        self._numbers = list(rng.permutation(np.arange(1, CLASSES * DRAWN + 1)))
        self.place = place
        self.planted: defaultdict[str, list[str]] = defaultdict(list)

    def draw(self, name: str) -> Image.Image:
        """Return a picture of a class that was not drawn before, enlarged."""
        with Image.open(self._left[name].pop()) as image:
            return Image.fromarray(resize_and_crop(to_rgb(image), SIDE))

    def write(
        self, image: Image.Image, name: str, fault: str = "", file: str = "", **options: Any
    ) -> Path:
        """Write a picture under a class, with that class's mark, as one that has a fault.

        Args:
            image: RGB.
            name: of the class.
            fault: what is planted with it; "" for nothing.
            file: its name; "" for a number as a camera gives it. The ending says the format.
            options: further ones of `PIL.Image.Image.save`.
        """
        if name == self.classes[0]:
            image = image.copy()
            corner = SIDE - MARGIN - MARK
            ImageDraw.Draw(image).rectangle([corner, MARGIN, corner + MARK, MARGIN + MARK], COLOUR)
        path = self.place / name / (file or self.number(".jpg"))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, None, **{"quality": QUALITY, **options})
        if fault:
            self.planted[fault].append(f"{name}/{path.name}")
        return path

    def number(self, ending: str) -> str:
        """Return a name as a camera gives it, that no other file has."""
        return f"IMG_{self._numbers.pop():04}{ending}"


def _plant_copies(made: _Folder, one: str, two: str, three: str) -> None:
    """Plant copies, near-copies and bursts within classes."""
    for name in (one, two):
        image = made.draw(name)
        for _ in range(2):
            made.write(image, name, "exact copies")
    image = made.draw(three)
    made.write(image, three, "re-encoded")
    made.write(image, three, "re-encoded", quality=50)
    image = made.draw(three)
    made.write(image, three, "resized")
    made.write(image.resize((160, 160), Image.Resampling.BICUBIC), three, "resized")
    image = made.draw(three)
    made.write(image, three, "mirrored")
    made.write(ImageOps.mirror(image), three, "mirrored")
    for burst in (1, 2):
        image = made.draw(two)
        for shot in range(BURST):
            left, top = MOVED * shot, MOVED * (shot % 2)
            box = left, top, left + SIDE - MOVED * BURST, top + SIDE - MOVED * BURST
            moved = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)
            made.write(moved, two, "bursts", f"burst_{burst:02}_{shot + 1}.jpg")


def _plant_labels(made: _Folder, one: str, two: str, three: str) -> None:
    """Plant pictures under two classes, and pictures under the wrong one."""
    image = made.draw(one)
    for name in (one, three):
        made.write(image, name, "two labels, same pixels")
    image = made.draw(two)
    made.write(image, two, "two labels, re-encoded")
    made.write(image, three, "two labels, re-encoded", quality=50)
    made.write(made.draw(one), two, "wrong labels")
    made.write(made.draw(three), one, "wrong labels")


def _plant_formats(made: _Folder, one: str, two: str, three: str) -> None:
    """Plant files that are not JPEG."""
    for kind, is_written in (("HEIC", _writes_heic()), ("AVIF", features.check("avif"))):
        ending = f".{kind.lower()}" if is_written else ".jpg"
        told = kind if is_written else f"JPEG, since nothing here writes {kind}"
        for name in (one, two, three):
            made.write(made.draw(name), name, told, made.number(ending))
    file = made.number(".tif")
    deep = np.asarray(made.draw(two).convert("L"), np.uint16) * 16
    Image.fromarray(deep).save(made.place / two / file)
    made.planted["TIFF, 12 bits in 16"].append(f"{two}/{file}")
    frames = [made.draw(three) for _ in range(2)]
    file = made.number(".gif")
    made.write(frames[0], three, "animated GIF", file, save_all=True, append_images=frames[1:])


def _writes_heic() -> bool:
    """Return whether HEIC can be written, and have Pillow write it if so.

    By a package that is none of the project's, since it brings a GPL encoder.
    """
    if find_spec("pillow_heif") is None:
        return False
    import_module("pillow_heif").register_heif_opener()
    return True


def _plant_poor(made: _Folder, one: str, two: str, three: str) -> None:
    """Plant pictures that show little, and a file that is broken."""
    made.write(made.draw(two).point(lambda value: value // 8), two, "very dark")
    made.write(Image.new("RGB", (SIDE, SIDE), (90, 90, 90)), three, "of one colour")
    broken = made.write(made.draw(one), one, "broken")
    broken.write_bytes(broken.read_bytes()[:2_000])
