"""What was decoded or drawn once, kept in a file and read from there the next time."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import getfile
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from utils import InputError, first_line, printable
from utils.data import copies
from utils.data.mapped import TensorFile, map_tensors, read_metadata
from utils.data.picture_set import Audit, PictureSet, Split, channel_statistics
from utils.data.pictures import NewArray
from utils.data.views import parts
from utils.devices import available_memory
from utils.files import check_space, remove_leftovers, replacing, resolve_path, writing
from utils.locks import one_at_a_time

#: As many copies of the pictures as are in memory at most where they cannot be kept in a file,
#: while they are decoded and split; measured, masks included. Decoders take some bytes beside.
COPIES, DECODERS = 1.5, 80_000_000
#: What stays in the file, and is read where it is needed.
MAPPED = ("images", "masks")
#: What an audit keeps beside the pictures.
AUDITED = ("train.groups", "test.groups", "audit.images", "audit.targets")
#: What there is as well where groups of pictures are kept together.
GROUPED = ("train.together", "test.together")


@dataclass(frozen=True)
class Contents:
    """What decoding makes of a source; the fields are those of `PictureSet`."""

    classes: Sequence[str]
    train: Split
    test: Split
    notes: Sequence[str] = ()
    bits: int = 16
    audit: Audit | None = None


@dataclass(frozen=True)
class Source:
    """Where pictures come from: what identifies them, and how to decode them when needed."""

    name: str
    title: str
    identity: str  # of the place; one cache file for each
    key: str  # of the contents; a cache with another key is stale
    size: int  # number of pictures
    decode: Callable[[int, NewArray], Contents]  # of this size, into such arrays
    mean_and_std: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    notes: tuple[str, ...] = ()


def code_key(*modules: ModuleType) -> str:
    """Return a key of the code that makes the pictures: when it changes, they may."""
    return hashlib.sha256(b"".join(Path(getfile(m)).read_bytes() for m in modules)).hexdigest()


def known_place(known_dir: str | Path | None, *parts: str) -> Path | None:
    """Return a path in a folder that is only read, where one is given."""
    return None if known_dir is None else resolve_path(known_dir).joinpath(*parts)


def kept_elsewhere(
    source: Source, image_size: int, known_dir: str | Path | None
) -> PictureSet | None:
    """Return what the cache of a folder that is only read holds, if there is any."""
    path = known_place(known_dir, "cache", cache_name(source, image_size))
    if path is None or not path.is_file():
        return None
    return _read_cache(source, path)


def cache_name(source: Source, image_size: int) -> str:
    """Return what the file is called that keeps a source's pictures at this size."""
    return f"{source.identity}-{image_size}.safetensors"


def cached_pictures(source: Source, image_size: int, cache_dir: Path) -> PictureSet:
    """Read the decoded pictures from the cache, or decode them into it.

    Raises:
        InputError: pictures that cannot be read; or neither the disk nor the memory has room.
    """
    path = cache_dir / cache_name(source, image_size)
    if (picture_set := _read_cache(source, path)) is not None:
        return picture_set
    remove_leftovers(path.parent, older_than=3600)
    with one_at_a_time(path, f"Decoding the pictures of {source.title}") as waited:
        picture_set = _read_cache(source, path) if waited else None
        return picture_set or _decode_into(source, image_size, path)


def _decode_into(source: Source, image_size: int, path: Path) -> PictureSet:
    """Decode the pictures into the cache; into memory where that cannot be written."""
    size, has_room = source.size * 3 * image_size**2, False
    try:
        check_space(path.parent, size, f"The decoded copy of {source.title}")
        with replacing(path) as beside:
            with writing(path):
                file = TensorFile(beside, size)
            has_room = True
            _finish(file, source, _decode(source, image_size, file.new))
    except InputError as error:
        if has_room:
            raise
        _check_memory(source, image_size, error)
        print(f"The decoded pictures are not kept and will be decoded again next time: {error}")
        return _decode(source, image_size, np.zeros)
    if (picture_set := _read_cache(source, path)) is None:
        raise InputError(
            f"{path} does not hold what was just written to it; its disk may be failing. Choose "
            "another folder as data_dir."
        )
    return picture_set


def _check_memory(source: Source, image_size: int, reason: InputError) -> None:
    """Refuse more pictures than memory can hold, where they cannot be kept in a file."""
    needed, free = COPIES * source.size * 3 * image_size**2 + DECODERS, available_memory()
    if needed > free:
        raise InputError(
            f"{source.size:,} pictures of {image_size} × {image_size} pixels can be kept neither "
            f"on the disk ({reason}) nor in memory, where they need {needed / 1e9:,.2f} GB of "
            f"{free / 1e9:,.2f} GB that are free."
        )


def _decode(source: Source, image_size: int, new: NewArray) -> PictureSet:
    decoded = source.decode(image_size, new)
    train, test = decoded.train, decoded.test
    mean, std = source.mean_and_std or channel_statistics(train.images)
    notes = copies.describe_copies((train.images, train.targets), (test.images, test.targets))
    return PictureSet(
        name=source.name,
        title=source.title,
        classes=tuple(decoded.classes),
        train=train,
        test=test,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(decoded.classes, train, test),
        notes=(*decoded.notes, *notes),
        options={},
        bits=decoded.bits,
        audit=decoded.audit,
    )


def _fingerprint(classes: Sequence[str], train: Split, test: Split) -> str:
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in (train, test):
        for part in parts(split.images):
            digest.update(part.numpy())
        for tensor in (split.targets, split.masks):
            if tensor is not None:
                digest.update(tensor.numpy())
    return digest.hexdigest()


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return a checksum of what an audit keeps, which is no part of the fingerprint."""
    digest = hashlib.sha256()
    for name in filter(tensors.__contains__, (*AUDITED, *GROUPED)):
        digest.update(tensors[name].numpy())
    return digest.hexdigest()


def _finish(file: TensorFile, source: Source, picture_set: PictureSet) -> None:
    """Write to the cache what stands beside the pictures."""
    tensors = {}
    for name, split in (("train", picture_set.train), ("test", picture_set.test)):
        others = ("images", "targets", "masks", "groups", "together")
        kept = {part: getattr(split, part) for part in others}
        tensors |= {f"{name}.{part}": t for part, t in kept.items() if t is not None}
    described = {
        name: getattr(picture_set, name)
        for name in ("classes", "mean", "std", "fingerprint", "notes", "bits")
    }
    described["names"] = picture_set.train.names, picture_set.test.names
    if (audit := picture_set.audit) is not None:
        tensors |= {"audit.images": audit.images, "audit.targets": audit.targets}
        described["audit"] = {"rows": audit.rows, "tells": audit.tells}
        described["audited"] = _digest(tensors)
    text = json.dumps(described).encode()
    tensors["described"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    file.finish(tensors, {"key": source.key, "checksum": _checksum(text)})


def _read_cache(source: Source, path: Path) -> PictureSet | None:
    """Return what the cache holds, or None where it is missing, stale or damaged."""
    if not path.is_file():
        return None
    try:
        metadata = read_metadata(path)
        if metadata["key"] != source.key:
            return None
        tensors = map_tensors(path)
        text = tensors.pop("described").numpy().tobytes()
        if _checksum(text) != metadata["checksum"]:
            raise ValueError("the checksum of its description is wrong")
        loaded = {n: t if n.endswith(MAPPED) else t.clone() for n, t in tensors.items()}
        return _described(source, loaded, json.loads(text))
    except Exception as error:  # damage can raise nearly anything
        told = f"The decoded copy {path} is damaged ({first_line(error)}): decoding again."
        print(printable(told))
        return None


def _checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _described(source: Source, tensors: dict[str, Tensor], described: dict) -> PictureSet:
    train, test = (
        Split(
            tensors[f"{s}.images"],
            tensors[f"{s}.targets"],
            *(tensors.get(f"{s}.{part}") for part in ("masks", "groups", "together")),
            names=None if names is None else tuple(names),
        )
        for s, names in zip(("train", "test"), described["names"], strict=True)
    )
    fingerprint = _fingerprint(described["classes"], train, test)
    if fingerprint != described["fingerprint"]:
        raise ValueError("its checksum is wrong")
    return PictureSet(
        name=source.name,
        title=source.title,
        classes=tuple(described["classes"]),
        train=train,
        test=test,
        mean=tuple(described["mean"]),
        std=tuple(described["std"]),
        fingerprint=fingerprint,
        notes=tuple(described["notes"]),
        options={},
        bits=described["bits"],
        audit=_audit(described.get("audit"), described.get("audited"), tensors),
    )


def _audit(
    described: dict | None, checksum: str | None, tensors: dict[str, Tensor]
) -> Audit | None:
    if described is None:
        return None
    if _digest(tensors) != checksum:
        raise ValueError("the checksum of its audit is wrong")
    rows = tuple((what, tuple(names)) for what, names in described["rows"])
    shown = (tensors[f"audit.{name}"] for name in ("images", "targets"))
    return Audit(rows, *shown, tuple(described["tells"]))
