"""A network whose layers are made random one after the other, from the head down."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from utils.models.network import Network


def randomised_from_the_head(network: Network, seed: int = 0) -> Iterator[Network]:
    """Yield copies: the head's weights shuffled, then those of the last block too, and so on.

    The values of every weight tensor change places, so their scale is that of a trained network;
    what batch normalisation keeps stays as it is (after Adebayo et al. 2018, "Sanity Checks for
    Saliency Maps", section 3, which draws new weights).

    Args:
        network: a network of the registry; it stays as it is.
        seed: draws the places.
    """
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(network)
    for part in reversed(parts_with_weights(changed)):
        for weight in _weights(part):
            places = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.data = weight.data.flatten()[places].view_as(weight)
        yield copy.deepcopy(changed)


def parts_with_weights(network: Network) -> list[nn.Module]:
    """Return those of a network's parts, in forward order, that are more than norms and biases."""
    return [part for part in network.children() if _weights(part)]


def _weights(part: nn.Module) -> list[nn.Parameter]:
    return [p for p in part.parameters() if p.dim() > 1]
