"""Whatever is read from outside, damaged or hostile, is used or refused in words: never a crash.

Every case is a function of its kind and number alone: `Case("pictures", 17)` makes the same
mutation again, whatever ran before it. The mutations are listed in the message of a failure.
"""

import gzip
import hashlib
import io
import json
import lzma
import os
import random
import shutil
import signal
import stat
import struct
import tarfile
import traceback
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from inspect import signature

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import SmallDavidNet, make_plan

import utils.data
import utils.engine
import utils.pipeline
from utils import InputError, Interrupted, errors, history, lr_finder, runs
from utils.archives import unpack
from utils.callbacks import RunCheckpointIO, TrainingLog
from utils.cli import check_parameters, main, parse_value
from utils.data import check_data_options, load_pictures, pictures_of
from utils.engine import parameters_of
from utils.models import MODELS
from utils.pictures import EXTENSIONS, read_picture
from utils.recipes import Recipe, choose_recipe
from utils.runs import Run, find_run, list_runs
from utils.training import as_begun, fit, load_network, plan_training

CASES = {
    "pictures": 400, "archives": 250, "hostile archives": 150, "run.json": 250, "tables": 150,
    "figures": 150, "predictions": 200, "checkpoints": 120, "resumed": 24, "weights": 120,
    "cache": 120, "parameters": 400,
}  # fmt: skip
SECONDS = 5  # a case that takes longer hangs

#: What may stand where a number, a name or a list is expected. The two in angle brackets become
#: what Python's own writer of JSON would refuse to write.
VALUES = (
    None, True, False, 0, -1, 1, 3, 16.0, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"),
    2**31, -(2**63), 2**64, 10**400, "", "x", "found", "0", "nan", "\ud800", "\x00\x1b[2J",
    "<b>{0}%s\n", "é" * 300, "..", [], {}, [[]], [1, "a"], ["x", "x"], [None] * 3, {"a": 1},
    [1e300] * 3, [10**400] * 3, "<deep>", "<digits>",
)  # fmt: skip


class TooLong(BaseException):
    """A case hangs. No Exception, so that nothing under test takes it for damage."""


class Case(random.Random):
    """The randomness of one case; it remembers what was done with it."""

    def __init__(self, kind: str, number: int):
        super().__init__(f"{kind} {number}")
        self.kind, self.number, self.done = kind, number, []

    def __str__(self) -> str:
        return f"{self.kind} case {self.number} ({'; '.join(self.done)})"

    def note(self, what: str, *details) -> None:
        self.done.append(" ".join([what, *(f"{detail!r:.60}" for detail in details)]))


def fuzz(kind: str, attempt) -> None:
    """Run every case of a kind; fail with those that end in anything but success or a refusal."""
    failures = []
    for number in range(CASES[kind]):
        case = Case(kind, number)
        try:
            with time_limit():
                attempt(case)
        except (InputError, SystemExit):  # a refusal in words, or argparse's
            pass
        except (KeyboardInterrupt, pytest.fail.Exception):
            raise
        except BaseException as error:  # also what a library written in Rust raises
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if f"{os.sep}utils{os.sep}" in f.filename] or frames
            where = f"{ours[-1].filename}:{ours[-1].lineno}"
            failures.append(f"{case}: {type(error).__name__}: {error!s:.300} at {where}")
    assert not failures, "\n".join([f"{len(failures)} of {CASES[kind]}:", *failures])


@contextmanager
def time_limit():
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def stop(*_):
        raise TooLong(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(call, *arguments, **options):
    """Return what a call gives, or None where it refuses in words."""
    try:
        return call(*arguments, **options)
    except (InputError, SystemExit):
        return None


# Mutations


def mutate(case: Case, data: bytes) -> bytes:
    """Damage some bytes in one to four ways."""
    data = bytearray(data)
    for _ in range(case.randint(1, 4)):
        start = case.randrange(len(data) + 1)
        span = slice(start, start + case.choice((1, 2, 4, 16, 200)))
        noise = case.randbytes(case.choice((1, 2, 4, 16, 200)))
        ways = ("flip", "overwrite", "zero", "fill", "delete", "double", "insert", "cut", "append")
        way = case.choice(ways)
        case.note(way, span.start, span.stop - span.start)
        if way == "flip" and start < len(data):
            data[start] ^= 1 << case.randrange(8)
        elif way == "overwrite":
            data[start : start + len(noise)] = noise
        elif way in ("zero", "fill"):
            data[span] = (b"\0" if way == "zero" else b"\xff") * len(data[span])
        elif way == "delete":
            del data[span]
        elif way == "double":
            data[start:start] = data[span]
        elif way == "insert":
            data[start:start] = noise
        elif way == "cut":
            del data[start:]
        elif way == "append":
            data += noise
    return bytes(data)


def mutate_json(case: Case, content) -> str:
    """Return JSON with some values replaced, and entries taken out, renamed or added."""
    content = json.loads(json.dumps(content))
    for _ in range(case.randint(1, 3)):
        places = list(_places(content))
        if not places:
            break
        parent, key = case.choice(places)
        value, way = case.choice(VALUES), case.choice(("replace", "replace", "delete", "rename"))
        case.note(way, key, *([value] if way == "replace" and value != 10**400 else []))
        if way == "replace":
            parent[key] = value
        elif way == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[case.choice(("", "x", "{0}", "\ud800"))] = parent.pop(key)
        else:
            parent.append(value)
    depth = case.choice((50, 900, 970, 990, 5_000))
    text = json.dumps(content).replace('"<deep>"', "[" * depth + "]" * depth)
    text = text.replace("Infinity", case.choice(("Infinity", "1e999")))
    return text.replace('"<digits>"', "9" * 5_000)


def _places(content):
    """Yield every (object or list, key or position) there is."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def mutated_json(case: Case, text: str) -> bytes:
    """Return a JSON text with damaged bytes or changed content."""
    if case.random() < 0.3:
        return mutate(case, text.encode())
    return mutate_json(case, json.loads(text)).encode()


def with_png_checksums(data: bytes) -> bytes:
    """Make the checksums of a damaged PNG right, so that the decoder reads on."""
    position, data = 8, bytearray(data)
    while position + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        end = position + 8 + size
        if end + 4 <= len(data):
            struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return bytes(data)


def with_tar_checksums(data: bytes) -> bytes:
    """Make the checksums of a damaged tar right, so that its headers are believed."""
    data = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


def safetensors_mutated(case: Case, data: bytes) -> bytes:
    """Return a safetensors file with damaged bytes, or another header."""
    if case.random() < 0.5:
        return mutate(case, data)
    (size,) = struct.unpack_from("<Q", data)
    header = mutate_json(case, json.loads(data[8 : 8 + size])).encode()
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def mutated_values(case: Case, content):
    """Return nested dicts and lists with one of their values replaced or taken out."""
    parent, key = case.choice(list(_places(content)))
    value = case.choice((*VALUES, torch.zeros(2), torch.zeros(0), torch.full((3, 2), torch.nan)))
    way = case.choice(("replace", "replace", "delete"))
    case.note(way, key, *([] if isinstance(value, int) else [value]))
    if way == "delete":
        del parent[key]
    else:
        parent[key] = value
    return content


# Pictures


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def interlaced_png(pixels: np.ndarray) -> bytes:
    """Return a PNG in Adam7's seven passes, which Pillow reads but does not write."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))  # fmt: skip
    parts = (pixels[top::down, left::right] for left, top, right, down in passes)
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = (struct.pack(">I", len(part)) + name + part + b"\0" * 4 for name, part in chunks)
    return with_png_checksums(b"\x89PNG\r\n\x1a\n" + b"".join(body))


@pytest.fixture(scope="module")
def pictures():
    """Small pictures of every format that is read, by name."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    image = Image.fromarray(pixels)
    palette, exif = image.quantize(16), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return {
        "jpg": encoded(image, "JPEG", exif=exif),
        "progressive jpg": encoded(image, "JPEG", progressive=True),
        "cmyk jpg": encoded(image.convert("CMYK"), "JPEG"),
        "png": encoded(image.convert("RGBA"), "PNG", pnginfo=None, exif=exif),
        "16-bit png": encoded(wide, "PNG"),
        "palette png": encoded(palette, "PNG", transparency=3),
        "interlaced png": interlaced_png(pixels),
        "webp": encoded(image, "WEBP", exif=exif),
        "lossless webp": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "animated webp": encoded(image, "WEBP", save_all=True, append_images=[palette]),
        "bmp": encoded(image, "BMP"),
        "palette bmp": encoded(palette, "BMP"),
        "gif": encoded(palette, "GIF", save_all=True, append_images=[image], transparency=2),
    }


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_pictures(tmp_path, pictures):
    for name, data in pictures.items():  # undamaged, each of them is read
        (tmp_path / name).write_bytes(data)
        assert read_picture(tmp_path / name, 16).shape == (16, 16, 3)

    def attempt(case):
        name, size = case.choice(list(pictures)), case.choice((16, 32))
        case.note(name)
        data = mutate(case, pictures[name])
        if "png" in name and case.random() < 0.7:
            data = with_png_checksums(data)
        (tmp_path / "picture").write_bytes(data)
        array = read_picture(tmp_path / "picture", size)
        assert (array.shape, array.dtype) == ((size, size, 3), np.uint8)

    fuzz("pictures", attempt)


# Archives


def zipped(files: dict[str, bytes], compression: int, links=()) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            if name in links:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, content)
    return file.getvalue()


def tarred(files: dict[str, bytes], kinds=None, form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, errors="surrogateescape") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type = (kinds or {}).get(name, tarfile.REGTYPE)
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
    before, inner = everything_in(folder), None
    try:
        inner = unpack(archive, place, EXTENSIONS)
    finally:
        new = everything_in(folder) - before - {str(place)}
        assert all(path.startswith(f"{place}{os.sep}") for path in new), "written outside"
        tops = os.listdir(place) if place.exists() else []
        assert len(tops) == (inner is not None), f"left in its place: {tops}"
        assert not any(top.startswith(".") for top in tops), "a half-made folder"
        assert all(path.endswith(EXTENSIONS) or os.path.isdir(path) for path in new)
        assert not any(os.path.islink(path) for path in new)


@pytest.fixture(scope="module")
def archives(pictures):
    """The same pictures as archives of several kinds, by ending."""
    files = {f"set/{c}/{i}.png": pictures["png"][i:] for c in ("ant", "bee") for i in range(3)}
    files["set/notes.txt"] = b"no picture"
    tar = tarred(files)
    return {
        ".zip": zipped(files, zipfile.ZIP_STORED), ".ZIP": zipped(files, zipfile.ZIP_DEFLATED),
        ".tar": tar, ".tar.gz": gzip.compress(tar), ".tar.xz": lzma.compress(tar),
    }  # fmt: skip


def test_damaged_archives(tmp_path, archives):
    for ending, data in archives.items():
        unpack_safely(tmp_path / "case", f"whole{ending}", data)

    def attempt(case):
        ending = case.choice(list(archives))
        case.note(ending)
        data = mutate(case, archives[ending])
        if ending == ".tar" and case.random() < 0.7:
            data = with_tar_checksums(data)
        elif ending.startswith(".tar.") and case.random() < 0.5:  # whole outside, damaged within
            data = with_tar_checksums(mutate(case, archives[".tar"]))
            data = {".tar.gz": gzip, ".tar.xz": lzma}[ending].compress(data)
        unpack_safely(tmp_path / "case", f"damaged{ending}", data)

    fuzz("archives", attempt)


NAME_PARTS = (
    "..", ".", "", "a", "ant", "1.png", "2.jpg", "C:", "\\..", "\\\\host", "/etc", "~", "con.png",
    "x" * 300 + ".png", "\x1b[2J.png", "\n.png", "\u202e.png", "é.png", "__x", ".x.png",
)  # fmt: skip
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
#: Where a tar's header holds its numbers: place and length.
TAR_FIELDS = {"mode": (100, 8), "size": (124, 12), "kind": (156, 1), "link": (157, 4)}


def hostile_tar(case: Case, files: dict[str, bytes]) -> bytes:
    """Return a tar of these files, some of them links or devices, with nonsense in a header."""
    odd = {name: case.choice(LINKS) for name in files if case.random() < 0.2}
    case.note("kinds", odd)
    form = case.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    files = files if form != tarfile.USTAR_FORMAT else {n[:90]: c for n, c in files.items()}
    data = bytearray(tarred(files, odd, form))
    if case.random() < 0.6:
        heads = [i for i in range(0, len(data), 512) if data[i + 257 : i + 262] == b"ustar"]
        name = case.choice(list(TAR_FIELDS))
        head, (place, length) = case.choice(heads), TAR_FIELDS[name]
        number = case.choice((-512, -1024, -1, -(2**40), 1, 511, 2**33, 2**62)).to_bytes(
            12, "big", signed=True
        )
        value = case.choice((bytes((number[0] | 0x80, *number[1:])), b"7" * 12, b"LKSxg\0"))
        case.note("header", head, name, value)
        data[head + place : head + place + length] = value[:length].ljust(length, b"\0")
    return with_tar_checksums(data)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_hostile_archives(tmp_path):
    def attempt(case):
        names = [
            case.choice(("", "", "", "/", f"{tmp_path}/"))
            + case.choice("//\\").join(case.choices(NAME_PARTS, k=case.randint(1, 3)))
            for _ in range(case.randint(1, 4))
        ]
        files = {name: case.randbytes(case.choice((0, 9, 700))) for name in names}
        case.note("names", *names)
        if case.random() < 0.4:
            links = [name for name in names if case.random() < 0.2]
            data, ending = zipped(files, case.choice((zipfile.ZIP_STORED, 8)), links), ".zip"
        else:
            data, ending = hostile_tar(case, files), ".tar"
        unpack_safely(tmp_path / "case", f"hostile{ending}", data)

    fuzz("hostile archives", attempt)


# A run's folder


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Where relative paths begin in here, so that a mutated one leads nowhere else."""
    place = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "davidnet", lambda *a, **k: SmallDavidNet(*a, **k, width=2))
        patch.setattr(runs, "ROOT", place)
        patch.setattr(utils.data, "ROOT", place)
        yield place


@pytest.fixture(scope="module")
def plan(place):
    """The plan of a complete run; in the folder ``half``, the same run after one of two epochs."""
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        for number in range(10):
            path = place / "pictures" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    plan = make_plan("outputs", load_pictures("pictures", "data", 16), epochs=2)

    def stop_in_second_epoch(log, trainer, _):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
        return start(log, trainer, _)

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


def put(path, data: bytes) -> None:
    """Write a file anew: what has the old one mapped into its memory keeps it."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def test_damaged_records(run, plan, place, capsys):
    text, outputs = run.path("run.json").read_text(), run.folder.parent
    predict = ["predict", "--run", "run", "--output-dir", str(outputs)]
    predict.append(str(place / "pictures" / "ant" / "0.png"))

    def attempt(case):
        put(run.path("run.json"), mutated_json(case, text))
        for use in (lambda: run.record, lambda: run.status, lambda: run.settings):
            tried(use)
        for other in list_runs(outputs):
            assert other.record
        tried(find_run, None, outputs)
        if tried(find_run, "run", outputs):
            tried(lambda: Recipe.from_settings(run.settings))
            tried(pictures_of, run, "data")
            tried(load_network, run)
        tried(main, predict)
        tried(as_begun, replace(plan, run=run))
        tried(run.add_seconds, "fuzz", 1.0)

    fuzz("run.json", attempt)


CELLS = (
    "",
    "x",
    "nan",
    "-inf",
    "1e400",
    "-1",
    "0.5",
    "1_0",
    "٣",
    "9" * 400,
    "0" * 5_000,
    '"',
    "\0",
)


def test_damaged_tables(run):
    texts = {name: run.path(name).read_text() for name in ("metrics.csv", "steps.csv")}

    def attempt(case):
        name = case.choice(list(texts))
        case.note(name)
        data = mutate(case, texts[name].encode())
        if case.random() < 0.5:
            rows = [line.split(",") for line in texts[name].splitlines()]
            row, cell = case.choice(rows), case.choice(CELLS)
            row[case.randrange(len(row))] = cell
            case.note("instead one cell", cell)
            data = "\n".join(map(",".join, rows)).encode()
        put(run.path(name), data)
        if name == "steps.csv":
            assert np.isfinite(history.read_steps(run).to_numpy(float)).all()
        else:
            assert np.isfinite(list(history.summarise(history.read_history(run)).values())).all()

    fuzz("tables", attempt)


def test_damaged_figures(run, plan):
    texts = {name: run.path(name).read_text() for name in ("metrics.json", "lr_finder.json")}

    def attempt(case):
        name = case.choice(list(texts))
        case.note(name)
        put(run.path(name), mutated_json(case, texts[name]))
        if name == "metrics.json":
            figures = run.read_json(name)
            assert f"{figures['test_acc']:.2%} {figures['test_loss']:.3f} {figures['test_size']:,}"
            run.update_metrics(wrong=1)
        else:
            place = {"run_name": "run", "output_dir": run.folder.parent}
            found = plan_training(plan.picture_set, max_lr="found", devices="cpu", **place)
            assert str(found).encode(), "what a notebook prints"

    fuzz("figures", attempt)


DTYPES = ("f2", "f8", "c8", "i1", "u8", ">i8", ">f4", "?", "U4", "S3", "O", "M8[D]", "i4,f4")
NUMBERS = (-1, 2, 99, 2**62, -(2**62), float("nan"), float("inf"), 1e38)


def mutate_arrays(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take an array out, rename it, or change its type, its shape or a number in it."""
    name = case.choice(list(arrays))
    array = arrays.pop(name)
    way = case.choice(("delete", "rename", "type", "type", "shape", "shape", "number", "number"))
    case.note(way, name)
    if way == "rename":
        arrays["other"] = array
    elif way == "type":
        arrays[name] = np.zeros(array.shape, case.choice(DTYPES))
        case.note(str(arrays[name].dtype))
    elif way == "shape":
        last = array[-1:].repeat(5, axis=0)
        shapes = (array[:0], array[:-1], array[None], array[..., :1], array[0], array[..., None])
        arrays[name] = case.choice((*shapes, array.ravel(), np.concatenate([array, last])))
        case.note(str(arrays[name].shape))
    elif way == "number":
        number = case.choice(NUMBERS)
        fits = array.dtype.kind == "f" or number in range(-(2**63), 2**63)
        arrays[name] = array.copy()
        arrays[name].flat[case.choice((0, slice(None)))] = number if fits else -1
        case.note(str(number))
    return arrays


def test_damaged_predictions(run, plan):
    path, arrays = run.path("predictions.npz"), run.read_arrays("predictions.npz")
    whole, pictures = path.read_bytes(), plan.picture_set

    def attempt(case):
        data = io.BytesIO(mutate(case, whole))
        if case.random() < 0.6:
            case.note("instead")
            np.savez(data := io.BytesIO(), **mutate_arrays(case, dict(arrays)))
        put(path, data.getvalue())
        found = errors.predict_test(run, pictures)
        wrong, matrix = errors.misclassified(found), errors.confusion(found)
        assert matrix.sum() == len(pictures.test)
        assert len(pictures.test.images[wrong]) == len(found.confidence[wrong])
        assert len(pictures.test.images[found.index]) == len(pictures.test)
        assert errors.most_confused(matrix, pictures.classes)["count"].sum() == len(wrong)
        assert errors.per_class_table(found, pictures.classes)["support"].sum() == len(found.target)
        assert errors.calibration_table(found)["count"].sum() == len(found.target)
        assert 0 <= errors.calibration_error(found) <= 1
        assert 0 <= found.accuracy <= 1

    fuzz("predictions", attempt)


def mutated_checkpoint(case: Case, whole: bytes) -> bytes:
    """Return a checkpoint with damaged bytes, or a whole one with other contents."""
    if case.random() < 0.5:
        return mutate(case, whole)
    content = torch.load(io.BytesIO(whole), weights_only=True)
    torch.save(mutated_values(case, content), data := io.BytesIO())
    return data.getvalue()


def test_damaged_checkpoints(run, plan):
    path = run.path("checkpoints", "last.ckpt")
    whole = path.read_bytes()

    def attempt(case):
        put(path, mutated_checkpoint(case, whole))
        assert RunCheckpointIO(plan.identity).load_checkpoint(path)["identity"] == plan.identity

    fuzz("checkpoints", attempt)


def test_resuming_from_damaged_checkpoints(tmp_path, plan, place):
    run = Run("run", tmp_path)
    whole = (place / "half" / "checkpoints" / "last.ckpt").read_bytes()

    def attempt(case):
        shutil.rmtree(run.folder, ignore_errors=True)
        shutil.copytree(place / "half", run.folder)
        put(run.path("checkpoints", "last.ckpt"), mutated_checkpoint(case, whole))
        assert fit(replace(plan, run=run)).is_trained

    fuzz("resumed", attempt)


def test_damaged_weights(run):
    path, record = run.path("model.safetensors"), run.record
    whole = path.read_bytes()

    def attempt(case):
        data = safetensors_mutated(case, whole)
        put(path, data)
        if case.random() < 0.7:  # as if the run had been trained to just these weights
            model = {**record["model"], "sha256": hashlib.sha256(data).hexdigest()}
            run.update_record(model=model)
        assert load_network(run)(torch.zeros(1, 3, 16, 16)).shape == (1, 2)

    fuzz("weights", attempt)


def test_damaged_cache(tmp_path, place, plan):
    def load():
        return load_pictures(str(place / "pictures"), tmp_path, 16)

    known = load()
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()

    def attempt(case):
        put(path, safetensors_mutated(case, whole))
        found = load()
        for split, other in ((found.train, known.train), (found.test, known.test)):
            assert torch.equal(split.images, other.images)
            assert torch.equal(split.targets, other.targets)
        same = ("classes", "mean", "std", "fingerprint", "notes")
        assert all(getattr(found, name) == getattr(known, name) for name in same)

    fuzz("cache", attempt)


# Parameters


def test_impossible_parameters(monkeypatch, plan, tmp_path, capsys):
    monkeypatch.setattr(utils.pipeline, "run_notebooks", lambda *_: [])
    monkeypatch.setattr(utils.engine, "parameters_of", cache(utils.engine.parameters_of))
    notebooks = list(utils.pipeline.NOTEBOOKS)
    names = {n for book in utils.pipeline.NOTEBOOKS.values() for n in parameters_of(book)}
    names = sorted(names - {"run_name", "output_dir"})
    more = (1 << 20_000, 1j, b"x", (1,), {1}, "x" * 5_000, "a/" * 3_000, "~nobody/x", "con", "gpu")
    more += ("original", "gradcam", "layer3", "bf16-mixed", "pictures", "0x" + "f" * 5_000)

    def attempt(case):
        def value():
            chosen = case.choice((*VALUES, *more))
            case.note("value", "huge" if isinstance(chosen, int) and chosen > 1e99 else chosen)
            return chosen

        given = {name: value() for name in case.sample(names, case.randint(1, 3))}
        case.note("for", *given)
        tried(check_parameters, given, notebooks)
        tried(choose_recipe, value(), value(), epochs=value(), batch_size=value(), max_lr=value())
        tried(Run, value(), value())
        tried(Run, "run", value())
        tried(find_run, value(), value())
        tried(check_data_options, value(), value(), value(), value(), value())
        tried(check_data_options, "shapes", **{case.choice(("image_size", "limit_test")): value()})
        options = {n: v for n, v in given.items() if n in signature(plan_training).parameters}
        tried(plan_training, plan.picture_set, **{"output_dir": tmp_path, **options})
        chosen = value()
        text = chosen if isinstance(chosen, str) else "" if chosen == 1 << 20_000 else repr(chosen)
        text = mutate(case, text.encode(errors="replace")).decode(errors="surrogateescape")
        parse_value(text)
        arguments = case.choice((["-p", case.choice(names)], ["--run-name"], ["--dataset"],
                                 ["--only"], ["--from"], ["--output-dir"], []))  # fmt: skip
        tried(main, ["run", *arguments, case.choice((text, str(chosen)[:4000]))])

    fuzz("parameters", attempt)


def test_there_are_at_least_a_thousand_cases():
    assert sum(CASES.values()) >= 1_000
