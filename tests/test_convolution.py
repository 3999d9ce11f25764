"""Convolutions written as products give what plain ones give."""

import pytest
import torch
from torch.nn import functional

from utils.models.convolution import Conv3x3, _Product


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
