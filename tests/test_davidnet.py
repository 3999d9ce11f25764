"""DavidNet: the layers of the source, and what they compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.networks import with_lived_in_statistics
from utils import InputError
from utils.models.convolution import Conv3x3
from utils.models.registry import create_model

# Conv, batch norm and linear layers in forward order: parameters, channels, side of the output.
LAYERS = [
    ("conv", 1_728, 64, 32),
    ("norm", 128, 64, 32),
    ("conv", 73_728, 128, 32),
    ("norm", 256, 128, 32),
    ("conv", 147_456, 128, 16),
    ("norm", 256, 128, 16),
    ("conv", 147_456, 128, 16),
    ("norm", 256, 128, 16),
    ("conv", 294_912, 256, 16),
    ("norm", 512, 256, 16),
    ("conv", 1_179_648, 512, 8),
    ("norm", 1_024, 512, 8),
    ("conv", 2_359_296, 512, 4),
    ("norm", 1_024, 512, 4),
    ("conv", 2_359_296, 512, 4),
    ("norm", 1_024, 512, 4),
    ("linear", 5_130, 10, None),
]
KINDS = {Conv3x3: "conv", nn.BatchNorm2d: "norm", nn.Linear: "linear"}


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def functional_davidnet(x, state, training):
    """DavidNet written out by hand; updates the running statistics in `state` when training."""

    def block(x, name, pool=False):
        x = functional.conv2d(x, state[f"{name}.conv.weight"], padding=1)
        x = functional.batch_norm(
            x,
            state[f"{name}.norm.running_mean"],
            state[f"{name}.norm.running_var"],
            state[f"{name}.norm.weight"],
            state[f"{name}.norm.bias"],
            training=training,
            momentum=0.1,
            eps=1e-5,
        )
        x = functional.relu(x)
        return functional.max_pool2d(x, 2) if pool else x

    def residual(x, name):
        return x + block(block(x, f"{name}.block1"), f"{name}.block2")

    x = block(x, "prep")
    x = residual(block(x, "layer1.down", pool=True), "layer1.residual")
    x = block(x, "layer2", pool=True)
    x = residual(block(x, "layer3.down", pool=True), "layer3.residual")
    x = functional.max_pool2d(x, x.shape[-1]).flatten(1)
    return functional.linear(x, state["head.linear.weight"], state["head.linear.bias"])


@pytest.fixture(scope="module")
def davidnet():
    return create_model("davidnet", seed=0).eval()


def test_davidnet_has_6573130_parameters_all_trainable(davidnet):
    assert size_of(davidnet) == 6_573_130
    assert all(p.requires_grad for p in davidnet.parameters())


def test_davidnet_builds_no_layer_that_its_forward_pass_skips(davidnet):
    davidnet.zero_grad()
    davidnet(torch.randn(1, 3, 32, 32)).sum().backward()
    unused = [name for name, p in davidnet.named_parameters() if p.grad is None]
    davidnet.zero_grad()
    assert unused == []


def test_layers_in_forward_order_have_the_parameters_and_shapes_of_the_source(davidnet):
    seen = []

    def note(module, _, output):
        side = output.shape[-1] if output.dim() == 4 else None
        seen.append((KINDS[type(module)], size_of(module), output.shape[1], side))

    hooks = [m.register_forward_hook(note) for m in davidnet.modules() if type(m) in KINDS]
    with torch.no_grad():
        davidnet(torch.randn(2, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert seen == LAYERS
    assert sum(parameters for _, parameters, _, _ in LAYERS) == 6_573_130


def test_stages_have_the_output_shapes_of_the_source(davidnet):
    shapes = {}
    hooks = [
        getattr(davidnet, name).register_forward_hook(
            lambda _, __, output, name=name: shapes.update({name: tuple(output.shape)})
        )
        for name in davidnet.blocks
    ]
    with torch.no_grad():
        logits = davidnet(torch.randn(2, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert shapes == {
        "prep": (2, 64, 32, 32),
        "layer1": (2, 128, 16, 16),
        "layer2": (2, 256, 8, 8),
        "layer3": (2, 512, 4, 4),
    }
    assert logits.shape == (2, 10)


@pytest.mark.parametrize("image_size", [32, 48])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_davidnet_computes_what_is_written_out_by_hand(training, image_size):
    network = create_model("davidnet", width=6, num_classes=7, image_size=image_size, seed=1)
    network = with_lived_in_statistics(network).double().train(training)
    images = torch.randn(5, 3, image_size, image_size, dtype=torch.float64)
    images = images.requires_grad_()
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    expected = functional_davidnet(images, state, training)
    logits = network(images)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn(logits.shape, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((logits * weights).sum(), images)[0],
        torch.autograd.grad((expected * weights).sum(), images)[0],
        rtol=1e-7,
        atol=1e-7,
    )
    for name, tensor in network.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-9)


def test_full_davidnet_computes_what_is_written_out_by_hand(davidnet):
    network = create_model("davidnet", seed=3)
    network = with_lived_in_statistics(network).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = functional_davidnet(images, network.state_dict(), training=False)
        assert expected.std() > 0.01
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("image_size", [16, 32, 48, 64])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize("width", [4, 12])
def test_other_sizes_classes_and_widths_give_logits_of_that_length(image_size, num_classes, width):
    network = create_model(
        "davidnet", num_classes=num_classes, image_size=image_size, width=width, seed=0
    )
    logits = network(torch.randn(3, 3, image_size, image_size))
    assert logits.shape == (3, num_classes)
    assert logits.isfinite().all()
    assert network.head.linear.in_features == 8 * width


@pytest.mark.parametrize("image_size", [30, 33, 8, 0, -8, 31])
def test_image_sizes_the_network_cannot_take_are_refused_with_those_it_can(image_size):
    with pytest.raises(InputError, match=rf"image_size is {image_size}\b.*multiple of 8"):
        create_model("davidnet", image_size=image_size)


def test_convolution_weights_are_channels_last(davidnet):
    weights = [m.weight for m in davidnet.modules() if isinstance(m, nn.Conv2d)]
    assert len(weights) == 8
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert any(not w.is_contiguous() for w in weights)
