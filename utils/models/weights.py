"""Trained weights: written and read in a file that cannot run code."""

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from utils import InputError, first_line
from utils.models.network import Network
from utils.models.registry import create_model


def as_bytes(network: nn.Module) -> tuple[bytes, str]:
    """Return a network's weights in the safetensors format, and their SHA-256."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    content = safetensors.torch.save(tensors)
    return content, hashlib.sha256(content).hexdigest()


def read_network(
    path: Path, model: str, num_classes: int, image_size: int, sha256: str | None, remedy: str
) -> Network:
    """Return a trained network: float32, channels-last, in evaluation mode.

    Args:
        path: of its weights, a safetensors file.
        model, num_classes, image_size: as `utils.models.create_model` takes them.
        sha256: the checksum that the file must have.
        remedy: what to do about a file that cannot be used, as a sentence.

    Raises:
        InputError: the weights are damaged, of another network, or not those of the checksum.
    """
    network = create_model(model, num_classes=num_classes, image_size=image_size)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise ValueError("it is not a file")
        content = path.read_bytes()
        weights = safetensors.torch.load(content)
    except Exception as error:  # damage can make the reader raise nearly anything
        raise InputError(f"{path} is damaged ({first_line(error)}). {remedy}") from error
    if differences := _differences(weights, network.state_dict()):
        raise InputError(
            f"{path} holds the weights of another network than this run's {model} with "
            f"{num_classes} classes ({differences}). {remedy}"
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path} has changed since this run was trained. {remedy}")
    network.load_state_dict(weights)
    return network.to(memory_format=torch.channels_last).eval()


def _differences(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """Return the first tensor that is missing, unknown or of another shape, in words."""
    for name in (*expected, *weights):
        there, wanted = (tensors.get(name) for tensors in (weights, expected))
        if there is None or wanted is None:
            return f"{name} is {'missing' if there is None else 'unknown'}"
        if there.shape != wanted.shape:
            return f"{name} is {'×'.join(map(str, there.shape))}, not " + "×".join(
                map(str, wanted.shape)
            )
    return ""
