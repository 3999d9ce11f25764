"""The table of a network's layers, its blocks for a drawing, and its source."""

import pytest
import torch

from helpers.training import SmallDavidNet
from utils import as_code, counted
from utils.models.davidnet import DavidNet
from utils.models.registry import create_model
from utils.models.speednet import SpeedNet
from utils.models.summary import Stage, classes_of, layer_table, size_in_words, stages


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


CONV_BLOCK = ("conv 3×3", "batch norm", "ReLU")
DOWN = ("conv 3×3", "batch norm", "max-pool 2×2", "ReLU")
HEAD = ("max of each map", "flatten", "linear")
SPEED_BLOCK = (
    "conv 3×3", "max-pool 2×2", "batch norm", "SiLU", "conv 3×3", "batch norm", "SiLU",
)  # fmt: skip


def test_what_timm_makes_of_several_layers_is_drawn_as_one():
    resnet, efficientnet = (
        {stage.name: stage for stage in stages(create_model(model, 3, 64), 64)}
        for model in ("resnet18", "efficientnet_lite0")
    )
    assert list(resnet) == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert resnet["stem"].layers == ("conv 7×7", "batch norm", "ReLU", "max-pool 3×3")
    assert resnet["layer4"].layers == ("residual block", "residual block")
    assert resnet["head"].layers == ("mean of each map", "flatten", "linear")
    assert sum(stage.parameters for stage in resnet.values()) == 11_178_051
    assert efficientnet["stem"].layers[-1] == "separable conv"
    assert efficientnet["layer4"].layers == (
        *5 * ("residual block",), "conv 1×1", "batch norm", "ReLU6"
    )  # fmt: skip
    assert efficientnet["layer4"].side == 2


def test_the_source_of_a_network_of_timm_shows_how_it_is_taken_apart():
    names = [kind.__name__ for kind in classes_of(create_model("resnet18", 3, 64))]
    assert names[-2:] == ["Backbone", "ResNet18"]


@pytest.mark.parametrize("size", [32, 64])
def test_the_blocks_of_davidnet_with_what_they_hand_on(size):
    assert stages(DavidNet(image_size=size), size) == [
        Stage("prep", CONV_BLOCK, (), 64, size, 1_856),
        Stage("layer1", DOWN + 2 * CONV_BLOCK, ((4, 9),), 128, size // 2, 369_408),
        Stage("layer2", DOWN, (), 256, size // 4, 295_424),
        Stage("layer3", DOWN + 2 * CONV_BLOCK, ((4, 9),), 512, size // 8, 5_901_312),
        Stage("head", HEAD, (), 10, None, 5_130),
    ]


def test_the_blocks_of_speednet_whose_first_activation_is_no_block():
    made = stages(SpeedNet(num_classes=7), 32)
    assert made[0] == Stage("whitening", ("conv 2×2", "SiLU"), (), 24, 31, 288)
    assert [(s.name, s.layers, s.skips, s.channels, s.side) for s in made[1:]] == [
        ("block1", SPEED_BLOCK, (), 64, 15),
        ("block2", SPEED_BLOCK, (), 256, 7),
        ("block3", SPEED_BLOCK, (), 256, 3),
        ("head", HEAD, (), 7, None),
    ]


@pytest.mark.parametrize("name", ["davidnet", "speednet"])
def test_blocks_have_all_parameters_and_leave_the_network_as_it_was(name):
    network = create_model(name, image_size=16).train()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    total = sum(p.numel() for p in network.parameters())
    assert sum(stage.parameters for stage in stages(network, 16)) == total
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_the_size_of_a_network_is_said():
    assert size_in_words(DavidNet()) == (
        "6,573,130 parameters, all of them learned: 25.07 MiB in float32"
    )
    frozen = torch.nn.Linear(3, 4).requires_grad_(False)
    assert size_in_words(frozen).startswith("16 parameters, 0 of them learned: 0.00 MiB")


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("davidnet", ["Head", "ConvBlock", "Residual", "ResidualLayer", "DavidNet"]),
        ("speednet", ["Head", "Norm", "Block", "Whitening", "SpeedNet"]),
    ],
)
def test_the_source_of_a_network_is_that_of_its_parts_and_its_own(name, classes):
    found = classes_of(create_model(name))
    assert [one.__name__ for one in found] == classes
    text = as_code(*found)
    assert text.startswith(f"```python\nclass {classes[0]}(") and text.endswith("\n```")
    assert f"\n\n\nclass {classes[-1]}(Network):" in text
    assert "def forward(self, x: Tensor) -> Tensor:" in text


def test_the_source_of_a_method_is_shown_without_its_indentation():
    text = as_code(DavidNet.forward)
    assert text.startswith('```python\ndef forward(self, x: Tensor) -> Tensor:\n    "')


def test_what_is_counted_is_said_in_one_and_in_many():
    said = [counted(number, "map") for number in (0, 1, 2, 1_200)]
    assert said == ["0 maps", "1 map", "2 maps", "1,200 maps"]
