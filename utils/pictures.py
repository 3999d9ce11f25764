"""Picture files: finding them in a folder, and turning any of them into a square RGB array.

`read_picture` is the one way a file becomes what the network sees. Nothing here needs torch, so
that the decoding workers start quickly.
"""

import hashlib
import multiprocessing
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils import InputError, first_line
from utils.progress import progress_bar

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
#: Pillow's names of the formats that are read. Left to itself it would try all it knows, and hand
#: a PostScript file to Ghostscript, whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
#: More pixels than any camera makes are a trap, since a file of a few bytes can fill the memory.
MAX_PIXELS = 120_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit would warn from 89 million on,
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # where we refuse
TEST_FOLDERS = ("test", "val", "valid", "validation")
CHUNK = 500
#: Below this many files, threads finish before worker processes have started.
PROCESSES_FROM = 3_000


@dataclass(frozen=True)
class PictureFolder:
    """What was found below a folder of labelled pictures.

    Attributes:
        root: the folder.
        classes: sorted class names.
        train, test: (path, class index) of every picture; `test` is None where there is no
            separate test folder and a part of `train` is to be held out.
        key: changes when a file's name, size or time changes.
        notes: what a person should know about how the folder was read.
    """

    root: Path
    classes: tuple[str, ...]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]] | None
    key: str
    notes: tuple[str, ...]


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any picture as 8-bit RGB: 16-bit greyscale scaled, transparency laid on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit greyscale; convert("RGB") would clip it to white
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert(
            "RGB"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def fit_picture(image: Image.Image, image_size: int) -> np.ndarray:
    """Turn an open picture into what the network sees.

    EXIF orientation is applied, the shorter side is resized to `image_size` and the centre cropped.

    Returns:
        uint8 array, image_size × image_size × 3.
    """
    if image.format == "JPEG":  # decode at a fraction of the size where that is enough
        image.draft("RGB", (2 * image_size, 2 * image_size))
    ImageOps.exif_transpose(image, in_place=True)
    image = to_rgb(image)
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return np.asarray(image)


def open_picture(file, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture without decoding it: known formats only, and not too large to decode.

    Args:
        file: a path, or an open binary file.
        max_pixels: at most ``MAX_PIXELS``.

    Raises:
        ValueError: it is of no such format, or has more than `max_pixels` pixels. (Where the
            file is damaged, Pillow raises others.)
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"it is no picture of a known format ({', '.join(FORMATS)}), or damaged"
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {2 * MAX_PIXELS:,} pixels; make it smaller") from error
    if image.width * image.height > max_pixels:
        image.close()
        raise ValueError(
            f"it has {image.width} × {image.height} pixels, more than {max_pixels:,}; make it "
            "smaller"
        )
    return image


def read_picture(path: str | Path, image_size: int) -> np.ndarray:
    """Read a picture file as `fit_picture` does.

    Returns:
        uint8 array, image_size × image_size × 3.

    Raises:
        InputError: the file is missing, or no picture that can be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for without end
            raise ValueError("it is no file")
        with open_picture(path) as image:
            return fit_picture(image, image_size)
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise InputError(f"{path} cannot be read as a picture ({first_line(error)}).") from error


def read_pictures(
    paths: Sequence[str], image_size: int, description: str = "Decoding pictures"
) -> tuple[np.ndarray, dict[int, str]]:
    """Read many picture files in parallel, with a progress bar.

    Returns:
        uint8 array N×3×S×S, black where a file was unreadable, and for each of those its
        position and what was wrong.
    """
    images = np.zeros((len(paths), 3, image_size, image_size), np.uint8)
    failures: dict[int, str] = {}
    starts = range(0, len(paths), CHUNK)
    chunks = [paths[start : start + CHUNK] for start in starts]
    with (
        _executor(len(paths)) as executor,
        progress_bar(description=description, total=len(paths), unit="pictures") as bar,
    ):
        decoded = executor.map(_read_chunk, chunks, [image_size] * len(chunks))
        for start, (part, failed) in zip(starts, decoded, strict=True):
            images[start : start + len(part)] = part.transpose(0, 3, 1, 2)
            failures.update({start + position: reason for position, reason in failed.items()})
            bar.update(len(part))
    return images, failures


def _executor(count: int) -> Executor:
    workers = os.cpu_count() or 1
    if count < PROCESSES_FROM:
        return ThreadPoolExecutor(workers)
    # A forked worker starts at once; a spawned one imports the caller's main module again, torch
    # and all. Workers touch only Pillow and NumPy, as torch's own forked data workers would.
    method = "fork" if sys.platform == "linux" else "spawn"
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method))


def _read_chunk(paths: Sequence[str], image_size: int) -> tuple[np.ndarray, dict[int, str]]:
    images = np.zeros((len(paths), image_size, image_size, 3), np.uint8)
    failures = {}
    for position, path in enumerate(paths):
        try:
            images[position] = read_picture(path, image_size)
        except InputError as error:
            failures[position] = str(error)
    return images, failures


def scan_folder(root: Path) -> PictureFolder:
    """Find the labelled pictures below `root`, without opening any.

    Layouts: ``root/train/<class>/*`` with ``root/test/<class>/*``, or just ``root/<class>/*``.
    A folder called val, valid or validation stands in for a missing test folder.

    Raises:
        InputError: the folder is missing, or holds fewer than two classes with pictures.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}. Give the folder that holds your pictures.")
    try:
        return _scan(root)
    except OSError as error:
        raise InputError(
            f"{error.filename or root} cannot be read: {error.strerror}. Change its permissions, "
            "or leave it out."
        ) from error


def _scan(root: Path) -> PictureFolder:
    notes: list[str] = []
    train_root = root / "train" if _has_subfolders(root / "train") else root
    test_root = _test_folder(root, notes) if train_root != root else None
    found = {"train": _class_files(train_root, notes)}
    if test_root is not None:
        found["test"] = _class_files(test_root, notes)
        if not any(found["test"].values()):
            raise InputError(
                f"{test_root} holds no pictures in class folders. Add some, or remove it to hold "
                f"out a part of {train_root}."
            )
    classes = _agreed_classes(root, found)
    if untested := [c for c in classes if test_root is not None and not found["test"].get(c)]:
        notes.append(f"Without test pictures: {', '.join(untested)}.")
    index = {name: position for position, name in enumerate(classes)}
    listed = {
        split: [(path, index[name]) for name, files in by_class.items() for path, _ in files]
        for split, by_class in found.items()
    }
    return PictureFolder(
        root, classes, listed["train"], listed.get("test"), _listing_key(root, found), tuple(notes)
    )


def _has_subfolders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())


def _test_folder(root: Path, notes: list[str]) -> Path | None:
    present = [name for name in TEST_FOLDERS if (root / name).is_dir()]
    if present and present[0] != "test":
        notes.append(f"{root / present[0]} is used as the test split.")
    if len(present) > 1:
        notes.append(f"Not read: {', '.join(str(root / name) for name in present[1:])}.")
    return root / present[0] if present else None


def _class_files(folder: Path, notes: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Map each class folder to the sorted (path, size and time) of the pictures below it."""
    by_class, ignored = {}, 0
    for entry in _visible(folder):
        if not entry.is_dir():
            ignored += 1
            continue
        items = list(_walk(entry.path))
        files = [item for item in items if item.name.lower().endswith(EXTENSIONS)]
        by_class[entry.name] = sorted((item.path, _size_and_time(item)) for item in files)
        ignored += len(items) - len(files)
    if ignored:
        notes.append(
            f"Left out below {folder}: {ignored} that are no {'/'.join(EXTENSIONS)} "
            "in a class folder."
        )
    return by_class


def _visible(folder: str | Path) -> list[os.DirEntry]:
    """Return what is in a folder, sorted, without what is hidden or made by an archiver."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith((".", "__"))]
    return sorted(shown, key=lambda entry: entry.name)


def _walk(folder: str | Path) -> Iterator[os.DirEntry]:
    """Yield every file below `folder`, however deep; links to folders are not followed."""
    folders = [folder]
    while folders:
        for entry in _visible(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                yield entry


def files_below(folder: Path) -> list[str]:
    """Return the paths of all picture files below a folder."""
    return [e.path for e in _walk(folder) if e.name.lower().endswith(EXTENSIONS)]


def _size_and_time(item: os.DirEntry) -> str:
    try:
        stat = item.stat()
    except OSError:  # a link to nowhere; reading it will fail, and say so
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _agreed_classes(root: Path, found: dict[str, dict[str, list]]) -> tuple[str, ...]:
    """Return the class names all splits share, or say what is wrong."""
    filled = {
        split: {c for c, files in by_class.items() if files} for split, by_class in found.items()
    }
    classes = filled["train"]
    if odd := [name for name in sorted(classes) if not name.isprintable()]:
        raise InputError(
            f"The class folder {odd[0]!r} in {root} has a name that cannot be printed. Rename it."
        )
    if len(classes) < 2:
        names = ", ".join(sorted(classes)) or "none"
        raise InputError(
            f"{root} needs at least two class folders with pictures in them; found: {names}. "
            f"Expected {root}/<class>/*.jpg or {root}/train/<class>/*.jpg "
            f"(also {', '.join(EXTENSIONS[1:])})."
        )
    if unseen := filled.get("test", set()) - classes:
        raise InputError(
            f"These classes have test pictures but none to train on: {', '.join(sorted(unseen))}. "
            f"Add pictures to {root}/train or remove the folders."
        )
    return tuple(sorted(classes))


def _listing_key(root: Path, found: dict[str, dict[str, list[tuple[str, str]]]]) -> str:
    digest = hashlib.sha256()
    for by_class in found.values():
        for files in by_class.values():
            for path, size_and_time in files:
                digest.update(os.fsencode(f"{os.path.relpath(path, root)}\0{size_and_time}\n"))
        digest.update(b"end of split\n")
    return digest.hexdigest()
