"""Trained weights for a network to begin from: fetched, or read from a file; none can run code."""

import hashlib
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from utils import InputError, brief, first_line
from utils.files import resolve_path
from utils.models.backbones import BACKBONES, Backbone
from utils.settings import RANDOM

#: How files of weights end that torch writes.
TORCH_FILES = (".pth", ".pt", ".bin")


def normalisation(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel that a backbone's weights expect.

    For pixel values in [0, 1].
    """
    config = _config(model)
    return tuple(config.mean), tuple(config.std)


def start_of(model: str, weights: str | None) -> str:
    """Return what a network begins from: ``"random"``, a file, or the library's name for its own.

    Args:
        model: its name.
        weights: as a person gave it; None is the library's own for a backbone.

    Raises:
        InputError: weights for a network that is no backbone.
    """
    if model in BACKBONES:
        return _config(model).hf_hub_id if weights is None else weights
    if weights in (None, RANDOM):
        return RANDOM
    raise InputError(
        f"weights is {brief(weights)}, but {model} begins from random ones. Choose a model that "
        f"can begin from others: {', '.join(BACKBONES)}."
    )


def begin(network: Backbone, weights: str | None) -> None:
    """Have a backbone begin from trained weights, but for its head, whose classes are others.

    Args:
        network: as it was made.
        weights: a file, safetensors or what torch saves; ``"random"`` leaves it as it is; None
            takes the library's own, which are fetched once.

    Raises:
        InputError: there is no such file, it is damaged, may run code or is of another network, or
            nothing can be fetched.
    """
    if weights == RANDOM:
        return
    path = weights_file(network.library_name, weights)
    try:
        tensors = _tensors(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is damaged, or holds more than weights, which may run code; it was not opened "
            "further. Give a safetensors file, or weights alone as torch saves them."
        ) from error
    except Exception as error:  # damage can make the readers raise nearly anything
        raise InputError(
            f"{path} is damaged or holds no weights ({first_line(error)}). Give another file."
        ) from error
    network.begin_from(tensors, str(path))


def weights_file(model: str, weights: str | None) -> Path:
    """Return the file that a backbone begins from; None: the library's own.

    Raises:
        InputError: there is no such file, or it cannot be fetched.
    """
    path = fetched(model) if weights is None else resolve_path(weights)
    endings = (".safetensors", *TORCH_FILES)
    if not path.is_file():
        raise InputError(f"weights is {brief(weights)}, and there is no file {path}.")
    if path.suffix not in endings:
        raise InputError(f"{path} is no file of weights by its name: {', '.join(endings)}.")
    return path


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content; it is read once, unless it changes."""
    status = path.stat()
    return _checksum(path, status.st_size, status.st_mtime_ns)


@cache
def _checksum(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load(path.read_bytes())
    found = torch.load(path, map_location="cpu", weights_only=True)
    found = found.get("state_dict", found)
    if odd := [name for name, t in found.items() if not isinstance(t, Tensor)]:
        raise ValueError(f"{odd[0]} is no tensor")
    return dict(found)


def fetched(model: str) -> Path:
    """Return the file of a backbone's own weights, from the hub unless it was fetched before.

    Raises:
        InputError: it cannot be fetched; with what to do.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, file = _config(model).hf_hub_id, "model.safetensors"
    try:
        try:
            return Path(hf_hub_download(name, file, local_files_only=True))
        except LocalEntryNotFoundError:
            print(f"Fetching the weights of {model}, {name}, from huggingface.co …")
            return Path(hf_hub_download(name, file))
    except Exception as error:  # no network, no room, no right: the library has one for each
        raise InputError(
            f"The weights of {model} could not be fetched ({first_line(error)}). Where there is a "
            f"network, fetch https://huggingface.co/{name}/resolve/main/{file}, bring it here, and "
            'give its place: weights="path/to/model.safetensors". Or begin without: '
            'weights="random".'
        ) from error


def _config(model: str) -> Any:
    import timm

    return timm.get_pretrained_cfg(BACKBONES[model].library_name)
