"""The table of a network's layers."""

import torch

from helpers.training import SmallDavidNet
from utils.models.davidnet import DavidNet
from utils.models.summary import layer_table


def test_layer_table_of_the_full_network_has_the_published_counts():
    table = layer_table(DavidNet(), image_size=32, batch_size=1)
    counted = table[table["parameters"] > 0]
    assert counted["parameters"].tolist() == [
        1_728, 128, 73_728, 256, 147_456, 256, 147_456, 256, 294_912, 512,
        1_179_648, 1_024, 2_359_296, 1_024, 2_359_296, 1_024, 5_130,
    ]  # fmt: skip
    assert table["parameters"].sum() == 6_573_130
    outputs = dict(zip(table["layer"], table["output"], strict=True))
    assert outputs["prep.relu"] == "1×64×32×32"
    assert outputs["layer1.down.pool"] == "1×128×16×16"
    assert outputs["layer1.residual.block2.relu"] == "1×128×16×16"
    assert outputs["layer2.pool"] == "1×256×8×8"
    assert outputs["layer3.down.pool"] == "1×512×4×4"
    assert outputs["layer3.residual.block2.relu"] == "1×512×4×4"
    assert outputs["head.linear"] == "1×10"
    assert table["input"].iloc[0] == "1×3×32×32"


def test_layer_table_leaves_the_network_as_it_was():
    network = SmallDavidNet(3, 16).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    table = layer_table(network, image_size=16, batch_size=7)
    assert table["output"].iloc[-1] == "7×3"
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
