"""Picture files: turning any of them into a square RGB array.

`read_picture` is the one way a file becomes what the network sees. Needs no torch, so that
decoding workers start quickly.
"""

import multiprocessing
import os
import stat
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from utils import InputError, first_line
from utils.data.metadata import without_metadata
from utils.progress import progress_bar

try:
    import pi_heif
except ImportError:
    pi_heif = None
else:
    pi_heif.register_heif_opener()

#: Returns an array of zeros to decode into: of this shape and type, in a file or in memory.
NewArray = Callable[[tuple[int, ...], type], np.ndarray]
#: By Pillow's names of the formats that are always read, how the names of such files end, in lower
#: case. Left to itself Pillow would try all it knows, and hand a PostScript file to Ghostscript,
#: whatever the file is called.
ALWAYS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
}
#: The same of formats that are read where something is installed, and what that is.
OPTIONAL = {
    "AVIF": (
        (".avif",),
        "AVIF is read with Pillow 11.3 or later: .venv/bin/python -m pip install --upgrade pillow",
    ),
    "HEIF": (
        (".heic", ".heif"),
        "HEIC is read with pi-heif: .venv/bin/python -m pip install pi-heif",
    ),
}


def _is_readable(optional: str) -> bool:
    return features.check("avif") is True if optional == "AVIF" else pi_heif is not None


#: How files of these formats begin, after four bytes (ISO/IEC 14496-12, section 4.3).
_BRANDS = {b"ftypavif": ".avif", b"ftypheic": ".heic", b"ftypheix": ".heic", b"ftypmif1": ".heic"}
READ = ALWAYS | {name: endings for name, (endings, _) in OPTIONAL.items() if _is_readable(name)}
#: Pillow's names of the formats that are read, and how their files' names end.
FORMATS = tuple(READ)
EXTENSIONS = tuple(ending for endings in READ.values() for ending in endings)
#: No single picture file is larger, in bytes.
MAX_FILE_SIZE = 256 * 2**20
#: More pixels than any camera makes are a trap, since a file of a few bytes can fill the memory.
MAX_PIXELS = 120_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit would warn from 89 million on,
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # where we refuse
warnings.filterwarnings("ignore", "Corrupt EXIF data")  # of which nothing but what is whole is read
#: As many pictures a worker decodes at a time, or as many as come to so many bytes.
CHUNK, CHUNK_BYTES = 500, 2_000_000
#: Below this many files, threads finish before worker processes have started.
PROCESSES_FROM = 3_000


#: How many bits greyscale of more than 8 bits may use. Scanners and microscopes keep 8, 10, 12 or
#: 14 in files of 16.
DEPTHS = (8, 10, 12, 14, 16)
#: The transposition that shows a picture upright, by EXIF's orientation (EXIF 2.32, tag 0x0112).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass
class Decoded:
    """Many picture files, decoded.

    Attributes:
        images: uint8, N×3×S×S; black where a file could not be read.
        failures: for each of those its position, and what was wrong.
        bits: how many bits the deep greyscale pictures were taken to use.
        deep: for each picture of more than 8 bits its position, and how many bits it uses itself.
        several: positions of files that hold several pictures, of which the first was read.
    """

    images: np.ndarray
    bits: int
    failures: dict[int, str] = field(default_factory=dict)
    deep: dict[int, int] = field(default_factory=dict)
    several: set[int] = field(default_factory=set)


def is_deep(image: Image.Image) -> bool:
    """Tell whether a picture is greyscale of more than 8 bits."""
    return image.mode.startswith("I")


def to_rgb(image: Image.Image, bits: int = 16) -> Image.Image:
    """Return any picture as 8-bit RGB: deep greyscale scaled, transparency laid on white.

    Args:
        image: in any mode of Pillow's but floating point.
        bits: of deep greyscale, those that are used; more become white.

    Raises:
        ValueError: its values are floating-point numbers, or take more than 16 bits.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if is_deep(image):  # convert("RGB") would clip it to white
        values = np.asarray(image)
        if values.max() >= 2**16:
            raise ValueError(f"its values go up to {values.max():,}; save it with 8 or 16 bits")
        values = values.clip(0, 2**bits - 1) >> (bits - 8)
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Return a picture as its EXIF orientation says, which is looked up and never written again."""
    image.load()  # some formats are turned by this already, and then say so
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged metadata can raise nearly anything, and make no picture unreadable
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def prepare_draft(image: Image.Image, side: int) -> None:
    """Have a JPEG file decoded at a fraction of its size, where that leaves twice `side` pixels."""
    if image.format == "JPEG":
        image.draft("RGB", (2 * side, 2 * side))


def resize_and_crop(image: Image.Image, image_size: int, bits: int = 16) -> np.ndarray:
    """Turn an open picture into what the network sees.

    EXIF orientation is applied, the shorter side is resized to `image_size` and the centre cropped.

    Args:
        image: a picture that `open_picture` returned, or any other of Pillow's.
        image_size: side in pixels of the result.
        bits: as `to_rgb` takes it.

    Returns:
        uint8 array, image_size × image_size × 3.
    """
    prepare_draft(image, image_size)
    image = to_rgb(upright(image), bits)
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return np.asarray(image)


def open_picture(file: str | Path | IO[bytes], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture without decoding it: known formats only, and not too large to decode.

    Args:
        file: a path, or an open binary file.
        max_pixels: at most ``MAX_PIXELS``.

    Raises:
        ValueError: it is of no such format, or too large. (Where the file is damaged, Pillow raises
            others.)
    """
    content = without_metadata(_content(file))
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        known = f"it is not a picture of a known format ({', '.join(FORMATS)}), or it is damaged"
        remedy = how_to_read([_BRANDS.get(content[4:12], "")]).removesuffix(".")
        raise ValueError(f"{known}.{remedy}" if remedy else known) from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {2 * MAX_PIXELS:,} pixels; make it smaller") from error
    if image.width * image.height > max_pixels:
        image.close()
        raise ValueError(
            f"it has {image.width} × {image.height} pixels, more than {max_pixels:,}; make it "
            "smaller"
        )
    return image


def _content(file: str | Path | IO[bytes]) -> bytes:
    """Return what a file holds, if no more than a picture can."""
    if isinstance(file, str | Path):
        if not stat.S_ISREG(os.stat(file).st_mode):  # a pipe would be waited for without end
            raise ValueError("it is not a file")
        with open(file, "rb") as opened:
            return _content(opened)
    content = BytesIO()
    while part := file.read(2**20):  # room for all that it may be would be taken at once
        content.write(part)
        if content.tell() > MAX_FILE_SIZE:
            raise ValueError(f"it is larger than {MAX_FILE_SIZE / 1e6:,.0f} MB")
    return content.getvalue()


def how_to_read(names: Iterable[str]) -> str:
    """Return what to install for files of these names to be read, as a text to append.

    Empty where nothing would help.
    """
    missing = [about for name, about in OPTIONAL.items() if name not in FORMATS]
    names = [name.lower() for name in names]
    return "".join(
        f" {remedy}." for endings, remedy in missing if any(n.endswith(endings) for n in names)
    )


def holds_several(image: Image.Image) -> bool:
    """Tell whether a file holds more pictures than the one that is read: an animation, or pages."""
    return getattr(image, "is_animated", False)


@contextmanager
def opened(path: str | Path) -> Generator[Image.Image]:
    """Yield an open picture; whatever is wrong with it is an `InputError` that names it."""
    try:
        with open_picture(path) as image:
            yield image
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise InputError(f"{path} cannot be read as a picture ({first_line(error)}).") from error


def read_picture(path: str | Path, image_size: int, bits: int = 16) -> np.ndarray:
    """Read a picture file as `resize_and_crop` does.

    Returns:
        uint8 array, image_size × image_size × 3.

    Raises:
        InputError: the file is missing, or is not a picture that can be read.
    """
    with opened(path) as image:
        return resize_and_crop(image, image_size, bits)


def resized(images: np.ndarray, image_size: int, new: NewArray = np.zeros) -> np.ndarray:
    """Turn uint8 N×H×W×3 into uint8 N×3×S×S, as `resize_and_crop` does it.

    Args:
        images: RGB.
        image_size: S, in pixels.
        new: makes the array to write into.
    """
    made = new((len(images), 3, image_size, image_size), np.uint8)
    for image, place in zip(images, made, strict=True):
        if images.shape[1] != image_size:
            image = resize_and_crop(Image.fromarray(image), image_size)
        place[:] = image.transpose(2, 0, 1)
    return made


def read_pictures(
    paths: Sequence[str],
    image_size: int,
    description: str = "Decoding pictures",
    bits: int | None = None,
    images: np.ndarray | None = None,
) -> Decoded:
    """Read many picture files in parallel, with a progress bar.

    Args:
        paths: of the files.
        image_size: as `resize_and_crop` takes it.
        description: of the progress bar.
        bits: of deep greyscale pictures, those that are used; None looks at all of them, and takes
            the fewest of ``DEPTHS`` that hold every value.
        images: zeros to decode into, uint8 N×3×S×S, such as of a file; None makes them in memory.
    """
    if images is None:
        images = np.zeros((len(paths), 3, image_size, image_size), np.uint8)
    decoded = Decoded(images, bits or 16)
    _read_into(decoded, paths, range(len(paths)), image_size, description)
    if bits is None and decoded.deep:
        decoded.bits = next(depth for depth in DEPTHS if depth >= max(decoded.deep.values()))
        if decoded.bits < 16:  # at 16 bits, their lowest were lost
            _read_into(decoded, paths, list(decoded.deep), image_size, "Scaling deep pictures")
    return decoded


def _read_into(
    decoded: Decoded,
    paths: Sequence[str],
    positions: Sequence[int],
    image_size: int,
    description: str,
) -> None:
    """Decode the files at these positions of `paths` to the same positions of the result."""
    size = max(1, min(CHUNK, CHUNK_BYTES // (3 * image_size**2)))
    chunks = [positions[start : start + size] for start in range(0, len(positions), size)]
    with (
        workers(len(positions)) as executor,
        progress_bar(description=description, total=len(positions), unit="pictures") as bar,
    ):
        read = partial(_read_chunk, image_size=image_size, bits=decoded.bits)
        parts = _in_order(executor, read, ([paths[i] for i in chunk] for chunk in chunks))
        for chunk, part in zip(chunks, parts, strict=True):
            decoded.images[chunk] = part.images
            decoded.failures |= {chunk[i]: reason for i, reason in part.failures.items()}
            decoded.deep |= {chunk[i]: used for i, used in part.deep.items()}
            decoded.several |= {chunk[i] for i in part.several}
            bar.update(len(chunk))


def _in_order(executor: Executor, read: Callable, chunks: Iterable) -> Generator[Decoded]:
    """Yield what each chunk gives; few are decoded ahead, since all of them may not fit memory."""
    ahead: deque[Future[Decoded]] = deque()
    for chunk in chunks:
        ahead.append(executor.submit(read, chunk))
        if len(ahead) > 2 * (os.cpu_count() or 1):
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def workers(count: int) -> Executor:
    """Return threads, or for many files processes, that read `count` picture files."""
    cores = os.cpu_count() or 1
    if count < PROCESSES_FROM:
        return ThreadPoolExecutor(cores)
    # A forked worker starts at once; a spawned one imports the caller's main module again, torch
    # and all. Workers touch only Pillow and NumPy, as torch's own forked data workers would.
    method = "fork" if sys.platform == "linux" else "spawn"
    return ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context(method))


def _read_chunk(paths: Sequence[str], image_size: int, bits: int) -> Decoded:
    part = Decoded(np.zeros((len(paths), 3, image_size, image_size), np.uint8), bits)
    for position, path in enumerate(paths):
        try:
            with opened(path) as image:
                if holds_several(image):
                    part.several.add(position)
                part.images[position] = resize_and_crop(image, image_size, bits).transpose(2, 0, 1)
                if is_deep(image):
                    part.deep[position] = int(np.asarray(image).max()).bit_length()
        except InputError as error:
            part.failures[position] = str(error)
    return part
