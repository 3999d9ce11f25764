"""The networks that can be trained, by name."""

import torch

from utils import check_choice, check_number
from utils.models.backbones import BACKBONES
from utils.models.convolution import faster_convolutions
from utils.models.davidnet import DavidNet
from utils.models.network import Network, check_image_size
from utils.models.speednet import SpeedNet

#: This project's own, which begin from random weights.
OWN: dict[str, type[Network]] = {"davidnet": DavidNet, "speednet": SpeedNet}
MODELS: dict[str, type[Network]] = {**OWN, **BACKBONES}


def create_model(
    name: str = "davidnet",
    num_classes: int = 10,
    image_size: int = 32,
    seed: int | None = None,
    **options,
) -> Network:
    """Build a network with fresh weights, channels-last, its small maps computed faster.

    Args:
        name: one of ``MODELS``.
        num_classes: length of the logits.
        image_size: side of the input in pixels.
        seed: draws the weights from this seed and leaves torch's global generator alone; None
            draws from the global generator.
        options: further arguments of that network, e.g. ``width``.

    Raises:
        InputError: an unknown name or a size the network cannot take.
    """
    check_model(name, image_size)
    check_number("num_classes", num_classes, 2, 1_000_000, whole=True)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:  # of the CPU alone, where weights are drawn
            torch.default_generator.manual_seed(seed)
        network = MODELS[name](num_classes=num_classes, image_size=image_size, **options)
    faster_convolutions(network)
    return network.to(memory_format=torch.channels_last)


def check_model(name: str, image_size: int = 32) -> None:
    """Refuse a name that is not in the registry, or pictures the network cannot take.

    Raises:
        InputError: with what is allowed.
    """
    check_choice("model", name, tuple(MODELS))
    check_image_size(MODELS[name], image_size)


def check_block(network: Network, block: str) -> None:
    """Refuse a name that is not one of the network's blocks.

    Raises:
        InputError: with the names that are.
    """
    check_choice("block", block, network.blocks)
