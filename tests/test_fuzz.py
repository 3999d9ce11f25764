"""Whatever is read from outside, damaged or hostile, is used or refused in words: never a crash.

Hypothesis chooses what is done to a file, the same each time, and reduces what fails to the least
that does; the message of a failure lists it.
"""

import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import signal
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import replace
from functools import cache
from random import Random

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase
from hypothesis.errors import StopTest
from hypothesis.strategies import randoms
from PIL import Image

from helpers.training import SmallDavidNet, make_plan
from utils import InputError, Interrupted, files, printable
from utils.cli import main
from utils.data import sources
from utils.data.archives import OTHERS, unpack
from utils.data.pictures import EXTENSIONS, read_picture
from utils.data.sources import load_pictures, pictures_of
from utils.explain import calibration, mistakes
from utils.models.registry import MODELS
from utils.pipeline import kernel, sequence
from utils.pipeline.kernel import parameters_of
from utils.runs import Run, find_run, list_runs
from utils.settings import PICTURES, TRAINING, parse_value, with_defaults
from utils.training import history, lr_finder, predictions
from utils.training.callbacks import RunCheckpointIO, TrainingLog
from utils.training.fit import fit
from utils.training.plan import as_begun, plan_training
from utils.training.preflight import check_asked
from utils.training.recipes import UNSAID, Recipe, choose_recipe
from utils.training.trained import load_network

pytestmark = pytest.mark.slow

CASES = {
    "pictures": 800, "archives": 400, "hostile archives": 500, "run.json": 500,
    "tables": 400, "figures": 300, "predictions": 400, "checkpoints": 150, "resumed": 30,
    "weights": 200, "cache": 200, "parameters": 900, "command line": 300,
}  # fmt: skip
SECONDS = 5  # a case that takes longer hangs

#: What may stand where a number, a name or a list is expected. A text in angle brackets becomes
#: JSON that Python's own writer would not write.
VALUES = (
    None, True, False, 0, -1, 1, 3, 16.0, 800_000, 0.5, -0.0, 1e308, 1e-320, float("nan"),
    float("inf"), 2**31, -(2**63), 2**64, 10**400, "", "x", "found", "0", "nan", "\ud800",
    "\x00\x1b[2J", "<b>{0}%s\n", "é" * 300, "..", [], {}, [[]], [1, "a"], ["x", "x"], [None] * 3,
    {"a": 1}, [1e300] * 3, [10**400] * 3, "<deep>", "<digits>",
)  # fmt: skip
#: What only Python code can give.
ODD_VALUES = (
    1 << 20_000, 1j, b"x", (1,), {1}, "x" * 5_000, "a/" * 3_000, "~nobody/x", "con", "run", "gpu",
    "original", "gradcam", "layer3", "bf16-mixed", "pictures",
)  # fmt: skip


class TooLongError(BaseException):
    """A case hangs. No Exception, so that nothing under test takes it for damage."""


def note(*what) -> None:
    """Have a failure tell what was done; of long values the beginning."""
    shown = (v if isinstance(v, str) and v.isalpha() else shortened(v) for v in what)
    hypothesis.note(" ".join(shown))


def shortened(value) -> str:
    huge = isinstance(value, int) and value.bit_length() > 999
    return f"an int of {value.bit_length()} bits" if huge else f"{value!r:.70}"


def fuzz(kind: str, attempt) -> None:
    """Try cases of a kind: each ends in success or in a refusal, and soon."""

    @hypothesis.settings(
        max_examples=CASES[kind], derandomize=True, database=None, deadline=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=HealthCheck,
    )  # fmt: skip
    @hypothesis.given(randoms(use_true_random=False))
    def ends_well(case: Random) -> None:
        with time_limit():
            tried(attempt, case)

    ends_well()


@contextmanager
def time_limit():
    """Fail what does not end, or ends in what is no Exception, as a library written in Rust may."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    except (Exception, KeyboardInterrupt, StopTest):  # the last is hypothesis's own
        raise
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)


def too_long(*_):
    raise TooLongError(f"not done after {SECONDS} s")


def tried(call, *arguments, **options):
    """Return what a call gives, or None where it refuses in words."""
    try:
        return call(*arguments, **options)
    except (InputError, SystemExit):  # the second is the command line's
        return None


# Mutations


def mutate(case: Random, data: bytes) -> bytes:
    """Damage some bytes in one to four ways."""
    data, ways = bytearray(data), "flip overwrite zero fill delete double insert cut append"
    for _ in range(case.randint(1, 4)):
        start, size = case.randrange(len(data) + 1), case.choice((1, 2, 4, 16, 200))
        way, span, noise = (
            case.choice(ways.split()),
            slice(start, start + size),
            case.randbytes(size),
        )
        note(way, start, size)
        if way == "flip":
            data[start : start + 1] = bytes(b ^ 1 << case.randrange(8) for b in data[start:][:1])
        elif way in ("zero", "fill"):
            data[span] = (b"\0" if way == "zero" else b"\xff") * len(data[span])
        elif way == "double":
            data[start:start] = data[span]
        elif way == "append":
            data += noise
        else:
            span = {"cut": slice(start, None), "insert": slice(start, start)}.get(way, span)
            data[span] = noise if way in ("overwrite", "insert") else b""
    return bytes(data)


def mutate_values(case: Random, content, values=VALUES, times: int = 3):
    """Replace, take out or rename something in nested dicts and lists, in place."""
    for _ in range(case.randint(1, times)):
        if not (places := list(every_place(content))):
            break
        parent, key = case.choice(places)
        value, way = case.choice(values), case.choice(("replace", "replace", "delete", "rename"))
        note(way, key, *([value] if way == "replace" else []))
        if way == "replace":
            parent[key] = deepcopy(value)  # a later mutation may change it
        elif way == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[case.choice(("", "x", "{0}", "\ud800"))] = parent.pop(key)
    return content


def every_place(content):
    """Yield every (dict or list, key or position) there is."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from every_place(content[key])


def mutate_json(case: Random, data: bytes) -> bytes:
    """Damage the bytes of a JSON text, or what it says."""
    if case.random() < 0.2:
        return mutate(case, data)
    depth = case.choice((50, 900, 970, 990, 5_000))
    content = json.loads(data)
    parts = [content, *(part for part in content.values() if isinstance(part, dict))]
    mutate_values(case, case.choice(parts))
    text = json.dumps(content)
    text = text.replace('"<deep>"', "[" * depth + "]" * depth).replace('"<digits>"', "9" * 5_000)
    return text.replace("Infinity", case.choice(("Infinity", "1e999", "1e999"))).encode()


def mutate_safetensors(case: Random, data: bytes) -> bytes:
    """Damage the bytes of a safetensors file, or what its header says."""
    if case.random() < 0.4:
        return mutate(case, data)
    (size,) = struct.unpack_from("<Q", data)
    header = data[8 : 8 + size]
    if b"described" in header and case.random() < 0.5:  # JSON within JSON: what a cache says
        content = json.loads(header)
        described = mutate_json(case, content["__metadata__"]["described"].encode())
        content["__metadata__"]["described"] = described.decode(errors="replace")
        header = json.dumps(content).encode()
    else:
        header = mutate_json(case, header)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def with_png_checksums(data: bytes) -> bytes:
    """Make the checksums of a damaged PNG right, so that the decoder reads on."""
    position, data = 8, bytearray(data)
    while position + 12 <= len(data):
        end = position + 8 + struct.unpack_from(">I", data, position)[0]
        if end + 4 <= len(data):
            struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(data)


def tar_heads(data: bytes) -> list[int]:
    return [i for i in range(0, len(data) - 511, 512) if data[i + 257 : i + 262] == b"ustar"]


def with_tar_checksums(data: bytes) -> bytes:
    """Make the checksums of a damaged tar right, so that its headers are believed."""
    data = bytearray(data)
    for head in tar_heads(data):
        data[head + 148 : head + 156] = b" " * 8
        data[head + 148 : head + 156] = b"%06o\0 " % sum(data[head : head + 512])
    return bytes(data)


# Pictures


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def interlaced_png(pixels: np.ndarray) -> bytes:
    """Return a PNG in Adam7's seven passes, which Pillow reads but does not write."""
    passes = ("0088", "4088", "0448", "2044", "0224", "1022", "0112")  # left, top, steps
    parts = (pixels[int(t) :: int(down), int(x) :: int(right)] for x, t, right, down in passes)
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (struct.pack(">I", len(part)) + name + part + b"\0" * 4 for name, part in chunks)
    return with_png_checksums(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Small pictures of every format that is read, by name."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    palette, clear, exif[0x0112] = image.quantize(16), image.convert("RGBA"), 6  # a quarter turn
    return {
        "jpg": encoded(image, "JPEG", exif=exif),
        "progressive": encoded(image.convert("CMYK"), "JPEG", progressive=True),
        "png": encoded(clear, "PNG", exif=exif),
        "16-bit png": encoded(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        "palette png": encoded(palette, "PNG", transparency=3),
        "interlaced png": interlaced_png(pixels),
        "webp": encoded(image, "WEBP", exif=exif),
        "lossless": encoded(clear, "WEBP", lossless=True, save_all=True, append_images=[image]),
        "bmp": encoded(image, "BMP"),
        "palette bmp": encoded(palette, "BMP"),
        "gif": encoded(palette, "GIF", save_all=True, append_images=[image], transparency=2),
    }


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_pictures(tmp_path, pictures):
    def check(data, size):
        (tmp_path / "picture").write_bytes(data)
        array = read_picture(tmp_path / "picture", size)
        assert (array.shape, array.dtype) == ((size, size, 3), np.uint8)

    def attempt(case):
        name, size = case.choice(list(pictures)), case.choice((16, 32))
        note(name)
        data = mutate(case, pictures[name])
        repaired = "png" in name and case.random() < 0.7
        check(with_png_checksums(data) if repaired else data, size)

    for data in pictures.values():  # undamaged, each of them is read
        check(data, 16)
    fuzz("pictures", attempt)


# Archives

COMPRESS = {".tar.gz": gzip.compress, ".tar.xz": lzma.compress, ".tar": bytes}
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
PARTS = (
    "..", ".", "", "a", "C:", "\\..", "\\\\host", "/etc", "~", "x" * 300, "\x1b[2J", "\n", "\u202e",
    "é", "__x", ".x",
)  # fmt: skip
#: Where a tar's header holds its name, mode, size, kind and link: place and length.
TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (124, 12), (124, 12), (156, 1), (157, 100))
SIZES = (-512, -1024, -1536, -1, -(2**40), 1, 511, 2**33, 2**62)


def zipped(files: dict[str, bytes], compression: int, links=()) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", compression) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            info.external_attr = (stat.S_IFLNK if name in links else 0) << 16
            archive.writestr(info, content)
    return file.getvalue()


def tarred(files: dict[str, bytes], kinds=(), form: int = tarfile.PAX_FORMAT) -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type = dict(kinds).get(name, tarfile.REGTYPE)
            info.linkname = "../../outside" if info.issym() or info.islnk() else ""
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def everything_in(folder) -> set[str]:
    return {os.path.join(at, n) for at, ds, fs in os.walk(folder) for n in (*ds, *fs)}


def unpack_safely(folder, name: str, data: bytes) -> None:
    """Unpack an archive; whatever comes of it, nothing lies elsewhere and nothing half-made."""
    archive, place = folder / "a" / "b" / name, folder / "a" / "b" / "place"
    shutil.rmtree(folder, ignore_errors=True)
    archive.parent.mkdir(parents=True)
    archive.write_bytes(data)
    before, inner = everything_in(folder.parent), None
    try:
        inner = unpack(archive, place, EXTENSIONS)
    finally:
        new = everything_in(folder.parent) - before - {str(place)}
        assert all(path.startswith(f"{place}{os.sep}") for path in new), "written outside"
        tops = os.listdir(place) if place.exists() else []
        assert len(tops) == (inner is not None), f"left in its place: {tops}"
        assert not any(top.startswith(".") for top in tops), "a half-made folder"
        assert not any(os.path.islink(path) for path in new), "a link"
        ours = {os.path.join(place, top, OTHERS) for top in tops}  # the names of what stayed packed
        assert ours <= new
        new -= ours
        assert all(path.lower().endswith(EXTENSIONS) or os.path.isdir(path) for path in new)


def test_damaged_archives(tmp_path, pictures):
    files = {f"set/{c}/{i}.png": pictures["png"][i:] for c in ("ant", "bee") for i in range(3)}
    tar = tarred({**files, "set/notes.txt": b"no picture"})
    archives = {ending: compress(tar) for ending, compress in COMPRESS.items()}
    archives |= {".zip": zipped(files, zipfile.ZIP_STORED), ".ZIP": zipped(files, 8)}

    def attempt(case):
        ending = case.choice(list(archives))
        note(ending)
        if ending in COMPRESS and case.random() < 0.6:  # whole outside, damaged within
            data = COMPRESS[ending](with_tar_checksums(mutate(case, tar)))
        else:
            data = mutate(case, archives[ending])
        unpack_safely(tmp_path / "case", f"damaged{ending}", data)

    for ending, data in archives.items():
        unpack_safely(tmp_path / "case", f"whole{ending}", data)
    fuzz("archives", attempt)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_hostile_archives(tmp_path):
    def name(case):
        if case.random() < 0.6:
            return f"{case.choice('ab')}/{case.choice('12')}.png"
        first = case.choice(("", "", "/", f"{tmp_path}/"))
        return first + case.choice("//\\").join((*case.choices(PARTS, k=2), "1.png"))

    def attempt(case):
        names = [name(case) for _ in range(case.randint(1, 3))]
        files = {name: case.randbytes(case.choice((0, 9, 700))) for name in names}
        odd = {name: case.choice(LINKS) for name in names if case.random() < 0.1}
        note("names", names, odd)
        if case.random() < 0.3:
            data = zipped(files, case.choice((zipfile.ZIP_STORED, 8)), odd)
            return unpack_safely(tmp_path / "case", "hostile.zip", data)
        form = case.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
        data = bytearray(tarred(files, odd, form))
        if case.random() < 0.6:
            head, (at, length) = case.choice(tar_heads(data)), case.choice(TAR_FIELDS)
            number = case.choice(SIZES).to_bytes(12, "big", signed=True)
            number = bytes((number[0] | 0x80, *number[1:]))
            value = case.choice((number, number, b"7" * 12, b"LKSxg".ljust(12, b"\0")))[:length]
            note("header", head + at, value)
            data[head + at : head + at + len(value)] = value
        return unpack_safely(tmp_path / "case", "hostile.tar", with_tar_checksums(data))

    fuzz("hostile archives", attempt)


# A run's folder


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Where relative paths begin in here, so that a mutated one leads nowhere else."""
    place = tmp_path_factory.mktemp("fuzz")
    handler = signal.signal(signal.SIGALRM, too_long) if hasattr(signal, "SIGALRM") else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "davidnet", SmallDavidNet)
        patch.setattr(files, "ROOT", place)
        patch.setattr(sources, "ROOT", place)
        patch.setattr(kernel, "parameters_of", cache(parameters_of))  # of notebooks that stay
        yield place
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, handler)


@pytest.fixture(scope="module")
def plan(place):
    """The plan of a complete run; in the folder ``half``, the same run after one of two epochs."""
    generator = np.random.default_rng(0)
    for path in (place / "pictures" / c / f"{i}.png" for c in ("ant", "bee") for i in range(10)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    plan = make_plan(
        "outputs", load_pictures(dataset="pictures", data_dir="data", image_size=16), epochs=2
    )

    def stop_in_second_epoch(log, trainer, module):
        start(log, trainer, module)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    start = TrainingLog.on_train_epoch_start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLog, "on_train_epoch_start", stop_in_second_epoch)
        with pytest.raises(Interrupted):
            fit(plan)
    shutil.copytree(plan.run.folder, place / "half")
    fit(plan)
    rates = np.geomspace(1e-5, 1, 10)
    lr_finder.save(plan.run, lr_finder.RangeTest(rates, rates, rates, 0.01, ""))
    return plan


@pytest.fixture
def run(plan, tmp_path):
    """A copy of the run, to be damaged."""
    shutil.copytree(plan.run.folder, tmp_path / "outputs" / "run")
    return Run("run", tmp_path / "outputs")


@contextmanager
def shell():
    """Standard output and error as a shell's; what goes to the first must be fit to be seen."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with redirect_stdout(out), redirect_stderr(err):
        yield
    out.flush()
    text = out.buffer.getvalue().decode()
    assert printable(text) == text, "it would send control characters to the terminal"


def put(path, data: bytes) -> None:
    """Write a file anew: what has the old one mapped into its memory keeps it."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def test_damaged_records(run, plan, place):
    whole, outputs = run.path("run.json").read_bytes(), run.folder.parent
    predict = ["predict", "--run", "run", "--output-dir", str(outputs)]
    predict.append(str(place / "pictures" / "ant" / "0.png"))

    def attempt(case):
        put(run.path("run.json"), mutate_json(case, whole))
        for name in ("record", "status", "settings"):
            tried(getattr, run, name)
        for other in list_runs(outputs):
            assert other.record
        tried(find_run, None, outputs)
        if tried(find_run, "run", outputs):
            tried(lambda: Recipe.from_settings(run.settings))
            tried(pictures_of, run, "data")
            tried(load_network, run)
            with shell():
                tried(main, predict)
        tried(as_begun, replace(plan, run=run))
        tried(run.add_seconds, "fuzz", 1.0)

    fuzz("run.json", attempt)


def test_damaged_tables(run):
    cells = ("", "x", "nan", "-inf", "1e400", "-1", "1_0", "٣", "9" * 400, "0" * 5_000, '"', "\0")
    whole = {name: run.path(name).read_bytes() for name in ("metrics.csv", "steps.csv")}

    def attempt(case):
        name = case.choice(list(whole))
        note(name)
        if case.random() < 0.5:
            data = mutate(case, whole[name])
        else:
            rows = [line.split(",") for line in whole[name].decode().splitlines()]
            row, cell = case.choice(rows), case.choice(cells)
            row[case.randrange(len(row))] = cell
            note("cell", rows.index(row), cell)
            data = "\n".join(map(",".join, rows)).encode()
        put(run.path(name), data)
        if name == "steps.csv":
            assert np.isfinite(history.read_steps(run).to_numpy(float)).all()
        else:
            assert np.isfinite(list(history.summarise(history.read_history(run)).values())).all()

    fuzz("tables", attempt)


def test_damaged_figures(run, plan):
    whole = {name: run.path(name).read_bytes() for name in ("metrics.json", "lr_finder.json")}
    place = {"run_name": "run", "output_dir": run.folder.parent}

    def attempt(case):
        name = case.choice(list(whole))
        note(name)
        put(run.path(name), mutate_json(case, whole[name]))
        if name == "metrics.json":
            figures = run.read_json(name)
            assert f"{figures['test_acc']:.2%} {figures['test_loss']:.3f} {figures['test_size']:,}"
            run.update_metrics(wrong=1)
        else:
            found = plan_training(plan.picture_set, max_lr="found", devices="cpu", **place)
            assert str(found).encode(), "a notebook prints it"

    fuzz("figures", attempt)


def mutate_array(case: Random, array: np.ndarray) -> np.ndarray:
    """Change an array's type, its shape or a number in it."""
    way = case.choice(("type", "shape", "number"))
    if way == "type":
        types = ("f2", "f8", "c8", "i1", "u8", ">i8", ">f4", "?", "U4", "S3", "O", "M8[D]", "i4,f4")
        array = np.zeros(array.shape, case.choice(types))
        note(way, array.dtype)
    elif way == "shape":
        more, flat = np.concatenate([array, array[-1:].repeat(5, axis=0)]), array.ravel()
        shapes = (array[:0], array[:-1], array[None], array[..., :1], array[0], array[..., None])
        array = np.array(case.choice((*shapes, flat, more)))
        note(way, array.shape)
    else:
        numbers = [-1, 2, 99, 2**62, -(2**62), 1e38, float("nan"), float("inf")]
        number, array = case.choice(numbers[: 8 if array.dtype.kind == "f" else 5]), array.copy()
        array.flat[case.choice((0, slice(None)))] = number
        note(way, number)
    return array


def test_damaged_predictions(run, plan):
    path, known, pictures = run.path("predictions.npz"), plan.run, plan.picture_set
    whole, arrays = path.read_bytes(), known.read_arrays("predictions.npz")

    def attempt(case):
        if case.random() < 0.4:
            data = mutate(case, whole)
        else:
            changed = dict(arrays)
            name = case.choice(list(changed))
            array, new = changed.pop(name), case.choice((name, name, name, "other", None))
            note("array", name, "as", str(new))
            changed |= {} if new is None else {new: mutate_array(case, array)}
            np.savez(file := io.BytesIO(), **changed)
            data = file.getvalue()
        put(path, data)
        found = predictions.predict_test(run, pictures)
        wrong, matrix = mistakes.misclassified(found), mistakes.confusion(found)
        assert matrix.sum() == len(pictures.test)
        assert len(pictures.test.images[wrong]) == len(found.confidence[wrong])
        assert len(pictures.test.images[found.index]) == len(pictures.test)
        assert mistakes.most_confused(matrix, pictures.classes)["count"].sum() == len(wrong)
        assert mistakes.per_class_table(found, pictures.classes)["support"].sum() == len(
            found.target
        )
        assert calibration.calibration_table(found)["count"].sum() == len(found.target)
        assert 0 <= calibration.calibration_error(found) <= 1
        assert 0 <= found.accuracy <= 1

    fuzz("predictions", attempt)


def mutate_checkpoint(case: Random, whole: bytes) -> bytes:
    """Damage the bytes of a checkpoint, or what it holds."""
    if case.random() < 0.4:
        return mutate(case, whole)
    tensors = (torch.zeros(2), torch.zeros(0), torch.full((3, 2), torch.nan))
    content = torch.load(io.BytesIO(whole), weights_only=True)
    torch.save(mutate_values(case, content, (*VALUES, *tensors), 1), file := io.BytesIO())
    return file.getvalue()


def test_damaged_checkpoints(run, plan):
    path = run.path("checkpoints", "last.ckpt")
    whole = path.read_bytes()

    def attempt(case):
        put(path, mutate_checkpoint(case, whole))
        identity = RunCheckpointIO(plan.identity).load_checkpoint(path)["identity"]
        # those of earlier versions may say less, and a training may go on in another precision
        said = {**UNSAID, **identity, "precision": plan.identity["precision"]}
        assert said == {**UNSAID, **plan.identity}

    fuzz("checkpoints", attempt)


def test_resuming_from_damaged_checkpoints(tmp_path, plan, place):
    run = Run("run", tmp_path)
    whole = (place / "half" / "checkpoints" / "last.ckpt").read_bytes()

    def attempt(case):
        shutil.rmtree(run.folder, ignore_errors=True)
        shutil.copytree(place / "half", run.folder)
        put(run.path("checkpoints", "last.ckpt"), mutate_checkpoint(case, whole))
        assert fit(replace(plan, run=run)).is_trained

    fuzz("resumed", attempt)


def test_damaged_weights(run):
    path, model = run.path("model.safetensors"), run.record["model"]
    whole = path.read_bytes()

    def attempt(case):
        data = mutate_safetensors(case, whole)
        put(path, data)
        if case.random() < 0.7:  # as if the run had been trained to just these weights
            run.update_record(model={**model, "sha256": hashlib.sha256(data).hexdigest()})
        assert load_network(run)(torch.zeros(1, 3, 16, 16)).shape == (1, 2)

    fuzz("weights", attempt)


def test_damaged_cache(tmp_path, plan):
    known = load_pictures(dataset="pictures", data_dir=tmp_path, image_size=16)
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()

    def attempt(case):
        put(path, mutate_safetensors(case, whole))
        found = load_pictures(dataset="pictures", data_dir=tmp_path, image_size=16)
        for split, other in ((found.train, known.train), (found.test, known.test)):
            assert torch.equal(split.images, other.images)
            assert torch.equal(split.targets, other.targets)
        for name in ("classes", "mean", "std", "fingerprint", "notes"):
            assert getattr(found, name) == getattr(known, name), name

    fuzz("cache", attempt)


# Parameters


@pytest.fixture(scope="module")
def parameters() -> list[str]:
    """Every parameter of every notebook, but for those that name a run."""
    names = {name for book in sequence.NOTEBOOKS.values() for name in parameters_of(book)}
    return sorted(names - {"run_name", "output_dir"})


def test_impossible_parameters(plan, tmp_path, parameters):
    recipe = ("epochs", "batch_size", "max_lr")
    data = ("dataset", "image_size", "limit_train", "limit_test", "val_fraction")
    plans = ("model", "recipe", *recipe, "val_fraction", "precision", "devices", "seed")

    def attempt(case):
        def values(names):
            chosen = {name: case.choice(VALUES + ODD_VALUES) for name in names}
            note(*chosen, "are", *map(shortened, chosen.values()))
            return chosen

        some = case.sample(parameters, case.randint(1, 2))
        way = case.choice(("check", "check", "check", "recipe", "data", "plan", "run", "found"))
        note(way)
        if way == "check":
            check_asked(values(some), list(sequence.NOTEBOOKS))
        elif way == "recipe":
            choose_recipe(**{"recipe": "quick", "dataset": "x"} | values([case.choice(recipe)]))
            choose_recipe(**values(("recipe", "dataset")))
        elif way == "data":
            with_defaults(PICTURES, TRAINING, **values([case.choice(data)]))
        elif way == "plan":
            place = {"run_name": "run", "output_dir": tmp_path}
            plan_training(plan.picture_set, **place | values([case.choice(plans + tuple(place))]))
        else:
            make, name = {"run": (Run, "name"), "found": (find_run, "run_name")}[way]
            make(**{name: "run"} | values([case.choice((name, "output_dir"))]))

    fuzz("parameters", attempt)


def test_impossible_command_lines(monkeypatch, plan, parameters):
    monkeypatch.setattr(sequence, "run_notebooks", lambda *_: [])
    options = ("--run-name", "--dataset", "--recipe", "--data-dir", "--output-dir", "--only")

    def attempt(case):
        value = case.choice(VALUES + ODD_VALUES[1:])
        text = value if isinstance(value, str) else shortened(value)
        text = case.choice((text, f"0x{'f' * 5_000}", "-" * 9_000 + "1", "[" * 9_000))
        if case.random() < 0.5:
            text = mutate(case, text.encode(errors="replace")).decode(errors="surrogateescape")
        text = text.replace("\0", "")  # no system passes that on
        option = ["-p", case.choice(parameters)] if case.random() < 0.7 else [case.choice(options)]
        note(*option, text)
        parse_value(text)
        with shell():
            tried(main, ["run", *option, text])

    fuzz("command line", attempt)


def test_there_are_at_least_a_thousand_cases():
    assert sum(CASES.values()) >= 1_000
