"""Convolutions written as products give what plain ones give."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from utils.models.convolution import (
    Conv3x3,
    _Product,
    faster_convolutions,
    plain_convolutions,
)
from utils.models.registry import OWN, create_model


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_convolution_is_the_same_on_maps_of_any_size(side, dtype):
    torch.manual_seed(side)
    convolution = Conv3x3(5, 7).to(dtype, memory_format=torch.channels_last)
    images = torch.randn(6, 5, side, side).to(dtype, memory_format=torch.channels_last)
    gradient = torch.randn(6, 7, side, side).to(dtype)
    found, expected = [], []
    for results, network in ((found, convolution), (expected, functional.conv2d)):
        x = images.clone().requires_grad_()
        weight = convolution.weight
        weight.grad = None
        output = network(x) if network is convolution else network(x, weight, padding=1)
        output.backward(gradient)
        results += [output.detach(), x.grad, weight.grad.clone()]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=5 * tolerance)


@pytest.mark.parametrize("side", [2, 3, 5, 7, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_even_convolution_leaves_out_what_a_pool_does_not_look_at(side, dtype):
    torch.manual_seed(side)
    convolution = Conv3x3(5, 7, even=True).to(dtype, memory_format=torch.channels_last)
    images = torch.randn(6, 5, side, side).to(dtype, memory_format=torch.channels_last)
    results = []
    for function in (convolution, lambda x: functional.conv2d(x, convolution.weight, padding=1)):
        convolution.weight.grad = None
        x = images.clone().requires_grad_()
        pooled = functional.max_pool2d(function(x), 2)
        pooled.backward(torch.linspace(-1, 1, pooled.numel()).view_as(pooled).to(dtype))
        results.append((pooled.detach(), x.grad, convolution.weight.grad))
    assert convolution(images).shape[-2:] == (side - side % 2,) * 2
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=5 * tolerance)


def test_a_small_maps_convolution_has_the_gradients_of_finite_differences():
    convolution = Conv3x3(2, 3).double()
    images = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolution, (images,))
    weight = convolution.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: _Product.apply(images, w), (weight,))


def test_a_small_maps_convolution_computes_in_the_number_format_of_autocast():
    convolution, images = Conv3x3(4, 4), torch.randn(2, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        output = convolution(images)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert convolution.weight.grad.dtype == torch.float32
    assert convolution(images).dtype == torch.float32


# In the place of plain ones


@pytest.mark.parametrize("model", OWN)
def test_a_faster_network_has_the_weights_of_the_plain_one_under_the_same_names(model):
    torch.manual_seed(7)
    plain = OWN[model](width=8)
    drawn = torch.get_rng_state()
    torch.manual_seed(7)
    faster = create_model(model, width=8)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(isinstance(layer, Conv3x3) for layer in plain.modules())
    for name in ("named_parameters", "named_buffers", "named_modules"):
        ones, others = (list(getattr(network, name)()) for network in (plain, faster))
        assert [name for name, _ in ones] == [name for name, _ in others]
    for one, other in zip(plain.parameters(), faster.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad == other.requires_grad
    assert str(faster.state_dict().keys()) == str(plain.state_dict().keys())


@pytest.mark.parametrize("model", OWN)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_faster_network_gives_the_results_and_gradients_of_the_plain_one(model, training):
    plain, faster = OWN[model](width=4).double(), OWN[model](width=4).double()
    faster.load_state_dict(plain.state_dict())
    faster_convolutions(faster)
    images = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    for network in (plain, faster):
        network.train(training)(images).square().sum().backward()
    torch.testing.assert_close(plain(images), faster(images), rtol=1e-9, atol=1e-9)
    for one, other in zip(plain.parameters(), faster.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-7)


def test_every_3x3_convolution_of_the_networks_is_exchanged_and_even_before_a_pool_alone():
    even = {
        model: [m.even for m in create_model(model, width=4).modules() if isinstance(m, Conv3x3)]
        for model in OWN
    }
    assert even == {"davidnet": [False] * 8, "speednet": [True, False] * 3}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 1, bias=False),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, stride=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", bias=False),
        nn.ConvTranspose2d(4, 4, 3, padding=1, bias=False),
        nn.Linear(4, 4),
    ],
    ids=str,
)
def test_other_layers_stay_as_they_are(layer):
    network = nn.Sequential(layer)
    faster_convolutions(network)
    assert network[0] is layer


@pytest.mark.parametrize(
    ("pool", "even"),
    [
        (nn.MaxPool2d(2), True),
        (nn.MaxPool2d(2, ceil_mode=True), False),
        (nn.MaxPool2d(2, padding=1), False),
        (nn.MaxPool2d(3, 2), False),
        (nn.AvgPool2d(2), False),
        (nn.ReLU(), False),
    ],
    ids=str,
)
def test_a_row_is_left_out_only_where_the_pool_does_not_look_at_it(pool, even):
    plain = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False), pool)
    images = torch.randn(2, 2, 5, 5)
    expected = plain(images)
    faster_convolutions(plain)
    assert plain[0].even is even
    torch.testing.assert_close(plain(images), expected)


@pytest.mark.parametrize("name", OWN)
def test_plain_convolutions_come_back_over_the_same_weights(name):
    network = create_model(name, image_size=24, seed=3, width=4).eval()
    images = torch.randn(2, 3, 24, 24)
    expected, weights = network(images), dict(network.named_parameters())
    plain_convolutions(network)
    assert not any(isinstance(layer, Conv3x3) for layer in network.modules())
    assert all(
        weights[n] is weight for n, weight in network.named_parameters(remove_duplicate=False)
    )
    torch.testing.assert_close(network(images), expected)
