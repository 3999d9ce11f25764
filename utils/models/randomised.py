"""A network whose layers are made random one after the other, from the head down."""

import copy
from collections.abc import Iterator

import torch

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
    for _, part in reversed(list(changed.named_children())):
        weights = [p for p in part.parameters() if p.dim() > 1]
        for weight in weights:
            places = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.data = weight.data.flatten()[places].view_as(weight)
        if weights:
            yield copy.deepcopy(changed)
