"""Picture sources → uint8 tensors → a LightningDataModule.

Whatever the source, a data set is two uint8 tensors in memory and a batch is one indexed copy.
What was decoded or drawn once is kept in a cache file, and read from there the next time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from utils import (
    InputError,
    check_flag,
    check_number,
    check_text,
    copies,
    first_line,
    folders,
    metadata,
    pictures,
    shapes,
    shown,
)
from utils.archives import ARCHIVES, is_archive, left_packed, unpack, unpacked_size
from utils.augment import Augmentation, augment, normalise, resize
from utils.devices import available_memory
from utils.locks import one_at_a_time
from utils.runs import ROOT, Run, remove_leftovers, replacing, resolve_path

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
CIFAR10_SIZE = 60_000
#: Data sets that are not named by their path.
SOURCES = ("shapes", "cifar10", "folder")
TEST_SHARE = 0.2
#: Splits are drawn from this, not from the run's seed, so that runs can be compared.
SPLIT_SEED = 0
EVAL_BATCH_SIZE = 256
#: A picture none of whose channels spans more levels than this, of 256, shows next to nothing.
FLAT = 8
#: As many copies of the pictures as are in memory at most, while they are decoded, split and kept
#: in the cache, or read from there; measured, masks included. Decoders take some bytes beside.
COPIES, COPIES_READ, DECODERS = 3, 1.5, 80_000_000


@dataclass(frozen=True)
class Split:
    """Pictures and their classes.

    Attributes:
        images: uint8, N×3×S×S.
        targets: int64, N.
        masks: bool, N×S×S, true on the object; None where the source has none.
    """

    images: Tensor
    targets: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, positions: Tensor) -> "Split":
        """Return the pictures at these positions (int64, M)."""
        masks = None if self.masks is None else self.masks[positions]
        return Split(self.images[positions], self.targets[positions], masks)


@dataclass(frozen=True)
class PictureSet:
    """A data set, decoded.

    Attributes:
        name: short name of the source.
        title: how figures name it.
        classes: class names; a target is a position in it.
        train, test: the two splits.
        mean, std: per channel, for pixel values in [0, 1]; what training normalises with.
        fingerprint: of the decoded pictures, before any limit.
        notes: what a person should know about how the source was read.
        options: the arguments of `load_pictures` that give this set again.
        bits: how many bits its deep greyscale pictures use; 16 where it has none.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str
    notes: tuple[str, ...]
    options: dict
    bits: int = 16

    @property
    def image_size(self) -> int:
        """Side of the square pictures in pixels."""
        return self.train.images.shape[-1]


@dataclass(frozen=True)
class _Decoded:
    """What decoding makes of a source; the fields are those of `PictureSet`."""

    classes: Sequence[str]
    train: Split
    test: Split
    notes: Sequence[str] = ()
    bits: int = 16


@dataclass(frozen=True)
class _Source:
    """Where pictures come from: what identifies them, and how to decode them when needed."""

    name: str
    title: str
    identity: str  # of the place; one cache file for each
    key: str  # of the contents; a cache with another key is stale
    size: int  # number of pictures
    decode: Callable[[int], "_Decoded"]
    mean_and_std: tuple | None = None
    notes: tuple[str, ...] = ()


def load_pictures(
    dataset: str = "shapes",
    data_dir: str | Path = "data",
    image_size: int = 32,
    limit_train: int | None = None,
    limit_test: int | None = None,
    skip_unreadable: bool = False,
    dataset_title: str | None = None,
    known_dir: str | Path | None = None,
) -> PictureSet:
    """Load a data set, decoding it only the first time.

    Args:
        dataset: ``"shapes"`` (drawn on the spot), ``"cifar10"`` (the official archive, downloaded
            into `data_dir` if it is not there), the path of a folder of pictures or of an archive
            of such a folder, or ``"folder"`` for the folder `data_dir`.
        data_dir: where downloads and decoded copies are kept; relative to the repository's root.
        image_size: side in pixels of what the network sees.
        limit_train, limit_test: use only the first so many pictures, stratified by class.
        skip_unreadable: go on without the files that cannot be read, and name them.
        dataset_title: how figures name the data; None for a title made from the source.
        known_dir: another such folder as `data_dir`, of which what is there is read too, but
            nothing is ever written to it.

    Raises:
        InputError: an unknown data set, a value out of range, pictures that cannot be read, or
            more of them than the memory can hold.
    """
    check_text("data_dir", str(data_dir))
    if dataset_title is not None:
        check_text("dataset_title", dataset_title)
    check_flag("skip_unreadable", skip_unreadable)
    check_data_options(dataset, image_size, limit_train, limit_test)
    source = _find_source(dataset, data_dir, skip_unreadable, known_dir)
    picture_set = _kept_elsewhere(source, image_size, known_dir) or _cached(
        source, image_size, _cache_folder(dataset, data_dir)
    )
    return replace(
        picture_set,
        title=dataset_title or picture_set.title,
        notes=(*source.notes, *picture_set.notes),
        train=_limited(picture_set.train, limit_train, "limit_train"),
        test=_limited(picture_set.test, limit_test, "limit_test"),
        options={
            "dataset": dataset,
            "data_dir": str(data_dir),
            "dataset_title": dataset_title or picture_set.title,
            "image_size": image_size,
            "limit_train": limit_train,
            "limit_test": limit_test,
            "skip_unreadable": skip_unreadable,
        },
    )


def check_data_options(
    dataset: str,
    image_size: int = 32,
    limit_train: int | None = None,
    limit_test: int | None = None,
    val_fraction: float = 0.0,
) -> None:
    """Refuse values that cannot be, before anything is read.

    Raises:
        InputError: naming the parameter, its value and what is allowed.
    """
    check_text("dataset", dataset)
    if dataset not in SOURCES:
        place = resolve_path(dataset)
        if not (os.path.isdir(place) or is_archive(place)):
            raise InputError(
                f"dataset {shown(dataset)} is unknown. Choose shapes, cifar10, or the path of a "
                f"folder of pictures or of an archive of it ({', '.join(ARCHIVES)}); {place} is "
                "neither."
            )
    check_number("image_size", image_size, 16, 256, whole=True)
    check_number("val_fraction", val_fraction, 0.0, 0.9)
    for name, limit in (("limit_train", limit_train), ("limit_test", limit_test)):
        if limit is not None:
            check_number(name, limit, 2, 100_000_000, whole=True)


def pictures_of(
    run: Run, data_dir: str | Path | None = None, dataset: str | None = None
) -> PictureSet:
    """Load the data set that a run was trained on, from any place where it is the same.

    What a run says of places is read, never written to: a run may come from elsewhere. What is
    decoded, unpacked or downloaded goes to `data_dir`, or else to the repository's own ``data/``.

    Args:
        run: a run whose training has started.
        data_dir: where its data are kept now; None means where they were.
        dataset: what it was trained on, where that lies now; None means where it lay.

    Raises:
        InputError: the pictures are gone, or are not those the run was trained on.
    """
    settings = run.settings
    names = ("image_size", "limit_train", "limit_test", "skip_unreadable", "dataset_title")
    options = {name: settings[name] for name in names}
    options["dataset"] = settings["dataset"] if dataset is None else dataset
    if options["dataset"] == "folder":  # that is what data_dir names
        options["data_dir"] = settings["data_dir"] if data_dir is None else data_dir
    else:
        options["data_dir"] = "data" if data_dir is None else data_dir
        options["known_dir"] = settings["data_dir"] if data_dir is None else None
    _check_there(run, options)
    picture_set = load_pictures(**options)
    if picture_set.fingerprint != settings["data_fingerprint"]:
        raise InputError(_other_pictures(run, options, data_dir is None and dataset is None))
    return picture_set


def _check_there(run: Run, options: dict) -> None:
    """Refuse a place that is gone: unmounted, moved, or of another machine."""
    if options["dataset"] in ("shapes", "cifar10"):
        return
    name = "data_dir" if options["dataset"] == "folder" else "dataset"
    place = options[name]
    if place == run.settings[name] and not os.path.exists(resolve_path(place)):
        raise InputError(
            f"The pictures of run {run.name!r} were in {shown(str(place))}, and nothing is there "
            'now. Say where they lie: dataset="…" takes any place that holds the same pictures.'
        )


def _other_pictures(run: Run, options: dict, unasked: bool) -> str:
    """Return what to say of pictures that are not those of a run."""
    was = run.settings["dataset"]
    if unasked:
        return (
            f"The pictures of {was!r} have changed since run {run.name!r} was trained. Say where "
            'those lie that it was trained on (dataset="…"), or train again under another '
            "run_name."
        )
    place = options["data_dir"] if options["dataset"] == "folder" else options["dataset"]
    return (
        f"{shown(str(place))} holds other pictures than run {run.name!r} was trained on, which "
        f"were {shown(was)}. Give the place of those, or leave it at None."
    )


def _cache_folder(dataset: str, data_dir: str | Path) -> Path:
    """Return where decoded pictures are kept: in `data_dir`, but never among a user's own."""
    place, own = resolve_path(data_dir), resolve_path(dataset)
    if dataset == "folder" or (own.is_dir() and place.is_relative_to(own) and own != ROOT):
        place = resolve_path("data")
    return place / "cache"


# Sources


def _find_source(
    dataset: str, data_dir: str | Path, skip_unreadable: bool, known_dir: str | Path | None = None
) -> _Source:
    if dataset == "shapes":
        key = _code_key(shapes, copies)
        size = shapes.TRAIN_SIZE + shapes.TEST_SIZE
        return _Source("shapes", "drawn shapes", "shapes", key, size, _draw_shapes)
    if dataset == "cifar10":
        decode = partial(_read_cifar10, resolve_path(data_dir), _known(known_dir))
        key = f"cifar-10-python {_code_key(pictures, copies)}"
        statistics = (CIFAR10_MEAN, CIFAR10_STD)
        return _Source("cifar10", "CIFAR-10", "cifar10", key, CIFAR10_SIZE, decode, statistics)
    place = resolve_path(data_dir if dataset == "folder" else dataset)
    if place.is_dir():
        return _folder_source(place, place.name, skip_unreadable)
    unpacked = unpack(
        place, resolve_path(data_dir) / "unpacked", pictures.EXTENSIONS,
        _known(known_dir, "unpacked"),
    )  # fmt: skip
    name = place.name.partition(".")[0]
    try:
        source = _folder_source(unpacked, name, skip_unreadable, left_packed(unpacked))
    except InputError as error:  # a person knows the archive, not where it was unpacked
        raise InputError(str(error).replace(str(unpacked), str(place))) from error
    return replace(source, notes=[n.replace(str(unpacked), str(place)) for n in source.notes])


def _code_key(*modules: ModuleType) -> str:
    """Return a key of the code that makes the pictures: when it changes, they may."""
    return hashlib.sha256(b"".join(Path(m.__file__).read_bytes() for m in modules)).hexdigest()


def _draw_shapes(image_size: int) -> _Decoded:
    splits = []
    for name in ("train", "test"):
        drawn = shapes.draw_split(name, image_size=image_size)
        splits.append(Split(*map(torch.from_numpy, (drawn.images, drawn.targets, drawn.masks))))
    return _Decoded(shapes.CLASSES, *splits)


def _read_cifar10(data_dir: Path, known_dir: Path | None, image_size: int) -> _Decoded:
    from utils.cifar10 import is_there, read_cifar10  # torchvision takes a second to import

    is_known = known_dir is not None and is_there(known_dir)
    classes, *arrays = read_cifar10(known_dir if is_known else data_dir)
    splits = [
        Split(torch.from_numpy(_fit_arrays(images, image_size)), torch.from_numpy(targets))
        for images, targets in arrays
    ]
    return _Decoded(classes, *splits)


def _fit_arrays(images: np.ndarray, image_size: int) -> np.ndarray:
    """Bring uint8 N×H×W×3 to uint8 N×3×S×S, as `pictures.fit_picture` does it."""
    fitted = np.empty((len(images), 3, image_size, image_size), np.uint8)
    for image, place in zip(images, fitted, strict=True):
        if images.shape[1] != image_size:
            image = pictures.fit_picture(pictures.Image.fromarray(image), image_size)
        place[:] = image.transpose(2, 0, 1)
    return fitted


def _folder_source(
    root: Path, name: str, skip_unreadable: bool, absent: Sequence[str] = ()
) -> _Source:
    folder = folders.scan_folder(root, absent)
    size = len(folder.train) + len(folder.test or [])
    key = f"{folder.key} {_code_key(pictures, metadata, copies)} {skip_unreadable}"
    identity = f"folder-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"
    decode = partial(_read_folder, folder, skip_unreadable)
    return _Source(name, name, identity, key, size, decode, notes=folder.notes)


def _read_folder(folder: folders.PictureFolder, skip_unreadable: bool, image_size: int) -> _Decoded:
    listed = folder.train + (folder.test or [])
    decoded = pictures.read_pictures([path for path, _ in listed], image_size)
    notes = _unreadable_notes(decoded.failures, len(listed), skip_unreadable)
    targets = torch.tensor([target for _, target in listed])
    readable = torch.ones(len(listed), dtype=torch.bool)
    readable[list(decoded.failures)] = False
    _check_trainable(targets[: len(folder.train)][readable[: len(folder.train)]], folder)
    notes += _remarks(folder, decoded, [path for path, _ in listed], readable)
    everything = Split(torch.from_numpy(decoded.images), targets)
    if folder.test is None:
        in_test = _drawn_test(everything, readable, folder)
        notes.append(
            f"No test folder: {in_test.sum()} pictures ({TEST_SHARE:.0%} of each class) "
            "are held out to test."
        )
    else:
        in_test = torch.arange(len(listed)) >= len(folder.train)
    train, test = (
        everything.subset(torch.nonzero(part & readable).flatten()) for part in (~in_test, in_test)
    )
    return _Decoded(folder.classes, train, test, notes, decoded.bits)


def _remarks(
    folder: folders.PictureFolder,
    decoded: pictures.Decoded,
    paths: Sequence[str],
    readable: Tensor,
) -> list[str]:
    """Return what a person should know about how single pictures were read, or what they show."""
    notes = []
    if decoded.deep:
        notes.append(
            f"{len(decoded.deep):,} greyscale pictures of more than 8 bits use {decoded.bits}: "
            f"{2**decoded.bits - 1:,} is shown white."
        )
    spans = decoded.images.max((2, 3)) - decoded.images.min((2, 3))
    flat = np.flatnonzero((spans.max(1) <= FLAT) & readable.numpy()).tolist()
    for positions, about in (
        (sorted(decoded.several), "hold several pictures, of which the first is read"),
        (flat, "are all of nearly one colour"),
    ):
        if positions:
            named = [os.path.relpath(paths[i], folder.root) for i in positions[: folders.FEW]]
            more = ", …" if len(positions) > folders.FEW else ""
            notes.append(f"{len(positions):,} files {about}: {', '.join(named)}{more}.")
    return notes


def _drawn_test(everything: Split, readable: Tensor, folder: folders.PictureFolder) -> Tensor:
    """Return which pictures to hold out to test: bool, N. Copies stay on one side."""
    _check_splittable(everything.targets[readable], folder)
    first = copies.first_copies(everything.images)
    in_test = stratified_part(everything.targets, TEST_SHARE, SPLIT_SEED, readable, first)
    if untested := _classes_with_fewer_than(1, everything.targets[in_test], folder.classes):
        raise InputError(
            f"No picture can be held out to test of: {', '.join(untested)}. All that are there are "
            "copies of one picture, or lie under another class as well. Add others, or give "
            "separate train and test folders."
        )
    return in_test


def _unreadable_notes(failures: dict[int, str], total: int, skip_unreadable: bool) -> list[str]:
    if not failures:
        return []
    few = [*list(failures.values())[:5], *(["…"] if len(failures) > 5 else [])]
    message = f"{len(failures)} of {total} files cannot be read: {' '.join(few)}"
    if not skip_unreadable:
        remedy = "Repair or remove them, or go on without them by skip_unreadable=True."
        raise InputError(f"{message} {remedy}")
    return [f"Left out, since skip_unreadable is set: {message}"]


def _check_trainable(targets: Tensor, folder: folders.PictureFolder) -> None:
    if empty := _classes_with_fewer_than(1, targets, folder.classes):
        raise InputError(
            f"No training picture can be read of: {', '.join(empty)}. Repair some, or remove the "
            "class folders."
        )


def _check_splittable(targets: Tensor, folder: folders.PictureFolder) -> None:
    if short := _classes_with_fewer_than(2, targets, folder.classes):
        raise InputError(
            f"Each class needs at least two readable pictures, one to train and one to test on; "
            f"too few in: {', '.join(short)}. Add some, or give separate train and test folders."
        )


def _classes_with_fewer_than(least: int, targets: Tensor, classes: tuple[str, ...]) -> list[str]:
    counts = torch.bincount(targets, minlength=len(classes))
    return [name for name, count in zip(classes, counts, strict=True) if count < least]


# Cache


def _known(known_dir: str | Path | None, *parts: str) -> Path | None:
    """Return a path in a folder that is only read, where one is given."""
    return None if known_dir is None else resolve_path(known_dir).joinpath(*parts)


def _kept_elsewhere(
    source: _Source, image_size: int, known_dir: str | Path | None
) -> PictureSet | None:
    """Return what the cache of a folder that is only read holds, if there is any."""
    path = _known(known_dir, "cache", _cache_name(source, image_size))
    if path is None or not path.is_file():
        return None
    _check_memory(source, image_size, COPIES_READ)
    return _read_cache(source, path)


def _cache_name(source: _Source, image_size: int) -> str:
    return f"{source.identity}-{image_size}.safetensors"


def _cached(source: _Source, image_size: int, cache_dir: Path) -> PictureSet:
    """Read the decoded pictures from the cache, or decode them and write it."""
    path = cache_dir / _cache_name(source, image_size)
    if path.is_file():
        _check_memory(source, image_size, COPIES_READ)
    if (picture_set := _read_cache(source, path)) is not None:
        return picture_set
    _check_memory(source, image_size, COPIES)
    with one_at_a_time(path, f"Decoding the pictures of {source.title}") as waited:
        picture_set = _read_cache(source, path) if waited else None
        if picture_set is None:
            picture_set = _decode(source, image_size)
            _write_cache(source, picture_set, path)
    return picture_set


def _check_memory(source: _Source, image_size: int, copies: float) -> None:
    """Refuse more pictures than the memory can hold so often, before the first is decoded."""
    needed = copies * source.size * 3 * image_size**2 + DECODERS
    free = available_memory()
    if needed > free:
        raise InputError(
            f"{source.size:,} pictures of {image_size} × {image_size} pixels need about "
            f"{needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free. Lower "
            "image_size, use fewer pictures, or close other programs."
        )


def bytes_to_keep(dataset: str, data_dir: str | Path, image_size: int) -> tuple[Path, int]:
    """Return where a data set's decoded copy would be kept, and what it takes there, in bytes.

    With what is downloaded and unpacked before, as far as that can be known without doing it:
    nothing for what is there, and of a tar its own size.
    """
    place = resolve_path(data_dir if dataset == "folder" else dataset)
    folder = _cache_folder(dataset, data_dir)
    packed = dataset not in SOURCES and is_archive(place)
    if packed and (size := unpacked_size(place, resolve_path(data_dir) / "unpacked")):
        return folder, size
    source = _find_source(dataset, data_dir, False)
    if (folder / _cache_name(source, image_size)).is_file():
        return folder, 0
    fetched = 0
    if dataset == "cifar10":
        from utils.cifar10 import ARCHIVE_SIZE, is_there

        fetched = 0 if is_there(resolve_path(data_dir)) else ARCHIVE_SIZE
    return folder, fetched + source.size * 3 * image_size**2


def _decode(source: _Source, image_size: int) -> PictureSet:
    decoded = source.decode(image_size)
    train, test = decoded.train, decoded.test
    mean, std = source.mean_and_std or channel_statistics(train.images)
    notes = copies.describe_copies((train.images, train.targets), (test.images, test.targets))
    return PictureSet(
        source.name, source.title, tuple(decoded.classes), train, test, mean, std,
        _fingerprint(decoded.classes, train, test), (*decoded.notes, *notes), {}, decoded.bits,
    )  # fmt: skip


def _fingerprint(classes: Sequence[str], train: Split, test: Split) -> str:
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in (train, test):
        for tensor in (split.images, split.targets, split.masks):
            if tensor is not None:
                digest.update(tensor.numpy())
    return digest.hexdigest()


def _write_cache(source: _Source, picture_set: PictureSet, path: Path) -> None:
    tensors = {}
    for name, split in (("train", picture_set.train), ("test", picture_set.test)):
        tensors |= {f"{name}.images": split.images, f"{name}.targets": split.targets}
        if split.masks is not None:
            tensors[f"{name}.masks"] = split.masks
    described = {
        name: getattr(picture_set, name)
        for name in ("classes", "mean", "std", "fingerprint", "notes", "bits")
    }
    text = json.dumps(described)
    metadata = {"key": source.key, "described": text, "checksum": _checksum(text)}
    remove_leftovers(path.parent, older_than=3600)
    try:
        with replacing(path) as beside:
            save_file(tensors, beside, metadata)
    except (InputError, SafetensorError) as error:
        print(f"The decoded pictures are not kept, and will be decoded again: {error}")


def _read_cache(source: _Source, path: Path) -> PictureSet | None:
    """Return what the cache holds, or None where it is missing, stale or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            if metadata["key"] != source.key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(metadata["described"]) != metadata["checksum"]:
            raise ValueError("the checksum of its description is wrong")
        return _described(source, tensors, json.loads(metadata["described"]))
    except Exception as error:  # damage can raise nearly anything
        print(f"The decoded copy {path} is damaged ({first_line(error)}); decoding again.")
        return None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _described(source: _Source, tensors: dict[str, Tensor], described: dict) -> PictureSet:
    train, test = (
        Split(tensors[f"{s}.images"], tensors[f"{s}.targets"], tensors.get(f"{s}.masks"))
        for s in ("train", "test")
    )
    fingerprint = _fingerprint(described["classes"], train, test)
    if fingerprint != described["fingerprint"]:
        raise ValueError("its checksum is wrong")
    return PictureSet(
        source.name, source.title, tuple(described["classes"]), train, test,
        tuple(described["mean"]), tuple(described["std"]), fingerprint,
        tuple(described["notes"]), {}, described["bits"],
    )  # fmt: skip


# Splits and statistics


def channel_histograms(images: Tensor) -> np.ndarray:
    """Count the pixel values of each channel.

    Args:
        images: uint8, N×3×H×W.

    Returns:
        int64, 3×256.
    """
    channels = (images[:, channel].reshape(-1) for channel in range(3))
    return np.stack([torch.bincount(values, minlength=256).numpy() for values in channels])


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and standard deviation of each channel, for values in [0, 1].

    Args:
        images: uint8, N×3×H×W.
    """
    values = np.arange(256) / 255
    share = channel_histograms(images)
    share = share / share.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt(share @ values**2 - mean**2)
    std = np.maximum(std, 1 / 255)  # a channel of one single value must not divide by zero
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def stratified_part(
    targets: Tensor,
    share: float,
    seed: int,
    among: Tensor | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Choose the same share of every class at random: at least one picture, and never all.

    Copies are chosen together or not at all, and not if they lie under several labels; a class
    whose pictures are all of that kind has none chosen.

    Args:
        targets: int64, N.
        share: between 0 and 1.
        seed: the choice is a function of it.
        among: bool, N: only these may be chosen.
        first: int64, N, from `utils.copies.first_copies`; None where no two are the same.

    Returns:
        bool, N.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    allowed = torch.ones_like(chosen) if among is None else among.clone()
    first = torch.arange(len(targets)) if first is None else first
    allowed &= ~copies.conflicting(first, targets)
    for target in targets.unique():
        members = torch.nonzero((targets == target) & allowed).flatten()
        kinds, sizes = first[members].unique(return_counts=True)
        wanted = min(max(1, round(len(members) * share)), len(members) - 1)
        order = torch.randperm(len(kinds), generator=generator)
        taken = _filled(sizes[order].tolist(), wanted)
        chosen[members[torch.isin(first[members], kinds[order[taken]])]] = True
    return chosen


def _filled(sizes: Sequence[int], wanted: int) -> list[int]:
    """Return the places of sizes that add up to at most `wanted`, taken in order as they fit.

    If none fits, the place of the smallest, provided that another remains.
    """
    taken, total = [], 0
    for place, size in enumerate(sizes):
        if total + size <= wanted:
            taken.append(place)
            total += size
    return taken if taken or len(sizes) < 2 else [int(np.argmin(sizes))]


def _limited(split: Split, limit: int | None, name: str) -> Split:
    """Keep the first `limit` pictures, every class in proportion."""
    if limit is None or limit >= len(split):
        return split
    classes, counts = split.targets.unique(return_counts=True)
    if limit < len(classes):
        raise InputError(f"{name} is {limit}, fewer than the {len(classes)} classes; raise it.")
    ideal = counts * limit / len(split)
    quota = ideal.floor().long().clamp(min=1)
    while (missing := limit - int(quota.sum())) != 0:
        owed = ideal - quota
        if missing > 0:
            quota[owed.argmax()] += 1
        else:  # small classes got more than their share; the large ones pay
            quota[torch.where(quota > 1, owed, torch.inf).argmin()] -= 1
    kept = [
        torch.nonzero(split.targets == target).flatten()[:count]
        for target, count in zip(classes, quota, strict=True)
    ]
    return split.subset(torch.cat(kept).sort().values)


# Batches


class PictureDataModule(LightningDataModule):
    """Batches of a `PictureSet`, augmented and normalised on the device.

    Args:
        picture_set: the data.
        batch_size: of training; evaluation uses ``EVAL_BATCH_SIZE``.
        augmentation: of training pictures; needed only to train.
        seed: of the order and of the augmentation.
        val_fraction: share of the training split to hold out, stratified, and watch during
            training; 0 watches the test split, as the system this reproduces did.
        sides: of the pictures in pixels, one for each epoch of training; what is watched after an
            epoch has that epoch's size, which the network is used to. Empty: always the full one.
        skipped: share of the training pictures that an epoch leaves out; see `EpochShuffle`.

    Attributes:
        shown: how many training pictures an epoch shows.
        losses: float32, one for each training picture, the last that training measured of it.
    """

    def __init__(
        self,
        picture_set: PictureSet,
        batch_size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        val_fraction: float = 0.0,
        sides: Sequence[int] = (),
        skipped: float = 0.0,
    ):
        super().__init__()
        self.picture_set = picture_set
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.sides = sides
        self.train, self.watched = _hold_out(picture_set, val_fraction)
        self.shown = shown_pictures(len(self.train), skipped)
        self.losses = torch.full((len(self.train),), torch.inf)

    def state_dict(self) -> dict:
        """Return what a checkpoint keeps: the losses, where the next epoch depends on them."""
        return {"losses": self.losses.cpu()} if self.shown < len(self.train) else {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up the losses of a checkpoint."""
        self.losses = state_dict["losses"]

    def note_losses(self, indices: Tensor, losses: Tensor) -> None:
        """Remember the losses (N) that training measured of the pictures at `indices` (N)."""
        if self.shown < len(self.train):
            self.losses = self.losses.to(losses.device)
            self.losses[indices] = losses.float()

    def train_dataloader(self) -> DataLoader:
        """Return batches of the training split in an order of their own every epoch."""
        order = EpochShuffle(
            len(self.train), self.batch_size, self.seed, self.shown, lambda: self.losses.cpu()
        )
        return batch_loader(self.train, order)

    def val_dataloader(self) -> DataLoader:
        """Return batches of the split that is watched during training."""
        return batch_loader(self.watched, InOrder(len(self.watched), EVAL_BATCH_SIZE))

    def test_dataloader(self) -> DataLoader:
        """Return batches of the test split."""
        return batch_loader(
            self.picture_set.test, InOrder(len(self.picture_set.test), EVAL_BATCH_SIZE)
        )

    def on_after_batch_transfer(self, batch, dataloader_idx: int):
        """Turn the uint8 images of (images, targets, indices) into normalised ones."""
        images, targets, indices = batch
        mean, std, epoch = self.picture_set.mean, self.picture_set.std, self.trainer.current_epoch
        if self.trainer.training:
            images = augment(images, indices, self.augmentation, mean, std, self.seed, epoch)
        else:
            images = normalise(images, mean, std)
        if self.sides and self.trainer.state.fn == "fit":
            images = resize(images, self.sides[min(epoch, len(self.sides) - 1)])
        return images, targets, indices


def _hold_out(picture_set: PictureSet, val_fraction: float) -> tuple[Split, Split]:
    if val_fraction == 0:
        return picture_set.train, picture_set.test
    whole = picture_set.train
    first = copies.first_copies(whole.images)
    held_out = stratified_part(whole.targets, val_fraction, SPLIT_SEED, first=first)
    train, watched = (torch.nonzero(part).flatten() for part in (~held_out, held_out))
    if not len(watched):
        raise InputError(
            f"val_fraction {val_fraction} holds nothing out: no class has two training pictures."
        )
    return whole.subset(train), whole.subset(watched)


def shown_pictures(train_size: int, skipped: float) -> int:
    """Return how many of so many training pictures an epoch shows that leaves out this share."""
    return train_size - int(skipped * train_size)


class InOrder(Sampler[Tensor]):
    """Yields the positions 0 … size − 1 in batches (int64 tensors)."""

    def __init__(self, size: int, batch_size: int):
        self.size, self.batch_size = size, batch_size

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # a generator: the Trainer makes the iterator before it says which epoch this is
        yield from self.order().split(self.batch_size)

    def order(self) -> Tensor:
        """Return all positions, int64, in the order they are to be seen."""
        return torch.arange(self.size)


class EpochShuffle(InOrder):
    """Yields positions in a random order that depends on seed, epoch and losses alone.

    The Trainer calls `set_epoch` before every epoch, so a resumed run sees the same order.

    Where an epoch shows only a part of the pictures, those left out are a random half of the ones
    with the lowest losses: they teach least, and come back by chance. That is the pruning of
    InfoBatch (Qin et al. 2024, "Lossless Training Speed Up by Unbiased Dynamic Data Pruning")
    with the same number of steps in each epoch, and without its larger weight for those that stay
    of the easy ones.

    Args:
        size: number of pictures.
        batch_size: positions a batch.
        seed: of the order.
        shown: how many an epoch shows, at least half of them; None shows all.
        losses: returns one for each picture (float32, on the CPU), infinite where it is not known.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        shown: int | None = None,
        losses: Callable[[], Tensor] | None = None,
    ):
        super().__init__(size if shown is None else shown, batch_size)
        self.pictures, self.losses = size, losses
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return all positions, int64, in this epoch's order."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.pictures, generator=generator)
        skipped = self.pictures - self.size
        if not skipped:
            return order
        by_loss = self.losses()[order].argsort(stable=True)  # equal losses: as they come
        easy = by_loss[: 2 * skipped]
        left_out = easy[torch.randperm(len(easy), generator=generator)[:skipped]]
        stays = torch.ones(self.pictures, dtype=torch.bool)
        stays[left_out] = False
        return order[stays]


class _IndexedSplit(Dataset):
    """A split whose item is a whole batch: one indexed copy."""

    def __init__(self, split: Split):
        self.split = split

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.split.images[indices], self.split.targets[indices], indices


def batch_loader(split: Split, sampler: InOrder) -> DataLoader:
    """Return batches of (uint8 N×3×S×S, int64 N, int64 N: positions in the split)."""
    pin = torch.cuda.is_available()
    return DataLoader(_IndexedSplit(split), sampler=sampler, batch_size=None, pin_memory=pin)
