"""Networks are made by name, and their weights drawn by seed."""

import pytest
import torch

from utils import InputError
from utils.models.registry import MODELS, check_block, create_model


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'resnet9'") as refused:
        create_model("resnet9")
    assert all(name in str(refused.value) for name in MODELS)
    network = create_model("davidnet", width=4)
    for block in network.blocks:
        check_block(network, block)
    with pytest.raises(InputError, match=r"'layer9'.*prep, layer1, layer2, layer3"):
        check_block(network, "layer9")


def test_the_seed_alone_decides_the_weights():
    first, again, other = (create_model(width=4, seed=seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["prep.conv.weight"], other["prep.conv.weight"])
    assert not torch.equal(first["head.linear.weight"], other["head.linear.weight"])


def test_a_seed_leaves_the_global_generator_alone_and_none_draws_from_it():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    create_model(width=4, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    first = create_model(width=4).state_dict()["prep.conv.weight"]
    assert not torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(create_model(width=4).state_dict()["prep.conv.weight"], first)
