"""Networks made random: which weights, in which order, and that the trained one stays."""

import pytest
import torch

from utils.models.davidnet import DavidNet
from utils.models.randomised import randomised_from_the_head
from utils.models.speednet import SpeedNet


@pytest.mark.parametrize("kind", [DavidNet, SpeedNet])
def test_networks_are_made_random_from_the_head_down(kind):
    network = kind(width=4).eval()
    before = {name: p.clone() for name, p in network.named_parameters()}
    steps = list(randomised_from_the_head(network))
    parts = [
        n for n, part in network.named_children() if any(p.dim() > 1 for p in part.parameters())
    ]
    assert len(steps) == len(parts)
    for step, changed in enumerate(steps, start=1):
        for name, parameter in changed.named_parameters():
            is_random = name.split(".")[0] in parts[-step:] and parameter.dim() > 1
            assert torch.equal(parameter, before[name]) != is_random
            assert torch.equal(parameter.flatten().sort()[0], before[name].flatten().sort()[0])
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
    assert all(not step.training for step in steps)
