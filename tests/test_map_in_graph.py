"""The map in the graph: gradients written out as forward operations are those of autograd."""

import pytest
import torch
from torch import nn

from helpers.networks import with_lived_in_statistics
from utils import InputError
from utils.data.augment import normalise
from utils.explain.gradcam import METHODS, class_activation_maps, first_choice
from utils.explain.map_in_graph import PRODUCTS, NetworkWithMap, _rule
from utils.models.network import Network
from utils.models.registry import create_model

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LAYERS = {
    "convolution": nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "convolution with steps": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "convolution with wide steps": nn.Conv2d(4, 6, 2, stride=3),
    "convolution in groups": nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "convolution with gaps": nn.Conv2d(4, 6, 3, padding=1, dilation=2),
    "norm": with_lived_in_statistics(nn.BatchNorm2d(4)),
    "relu": nn.ReLU(),
    "clipped": nn.ReLU6(),
    "nothing": nn.Identity(),
    "silu": nn.SiLU(),
    "pool": nn.MaxPool2d(2),
    "maximum": nn.AdaptiveMaxPool2d(1),
    "mean": nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten(),
    "linear": nn.Linear(7, 5),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("height", [6, 7])
@pytest.mark.parametrize("kinds", [3, 1_000, 1])
def test_the_gradient_of_a_layer_is_that_of_autograd(name, height, kinds):
    """Also where values are equal: of few kinds many are, of one all."""
    layer = LAYERS[name].double().eval()
    generator = torch.Generator().manual_seed(height)
    x = torch.randint(-(kinds // 2), kinds - kinds // 2, (5, 4, height, 7), generator=generator)
    x = x.double().requires_grad_()
    output = layer(x)
    gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(output, x, gradient)
    torch.testing.assert_close(_rule(layer)(layer, x.detach(), gradient), expected)


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(2)
    noise = torch.randint(0, 256, (6, 3, 24, 24), generator=generator)
    return noise.to(torch.uint8)


def small(model, side=24):
    network = create_model(model, 5, side, seed=4, width=4)
    return with_lived_in_statistics(network).eval()


@pytest.mark.parametrize("model", ["davidnet", "speednet"])
@pytest.mark.parametrize("method", PRODUCTS)
def test_the_map_is_the_one_that_is_drawn(model, method, pictures):
    network = small(model)
    pixels = normalise(pictures, MEAN, STD)
    for block in network.blocks:
        logits, maps = NetworkWithMap(network, MEAN, STD, method, block)(pictures)
        torch.testing.assert_close(logits, network(pixels), rtol=0, atol=1e-5)
        expected = class_activation_maps(network, pixels, None, method, block)
        torch.testing.assert_close(maps, torch.from_numpy(expected), rtol=0, atol=1e-4)
        assert maps.amax((1, 2)).min() > 0.5


@pytest.mark.parametrize("model", ["efficientnet_lite0", "resnet18", "resnet50"])
def test_the_map_of_a_network_of_timm_is_the_one_that_is_drawn(model, pictures):
    network = with_lived_in_statistics(create_model(model, 5, 64, seed=4)).eval()
    large = pictures[:2].repeat_interleave(3, 2).repeat_interleave(3, 3)[..., :64, :64]
    pixels = normalise(large, MEAN, STD)
    for block in network.blocks[2:]:
        logits, maps = NetworkWithMap(network, MEAN, STD, "hirescam", block)(large)
        torch.testing.assert_close(logits, network(pixels), rtol=1e-4, atol=1e-5)
        expected = class_activation_maps(network, pixels, None, "hirescam", block)
        torch.testing.assert_close(maps, torch.from_numpy(expected), rtol=0, atol=1e-3)
        assert maps.amax((1, 2)).min() > 0.5


def test_what_is_exported_by_default_is_what_is_shown_first():
    for model in ("davidnet", "speednet"):
        network = small(model)
        found = NetworkWithMap(network, MEAN, STD)
        assert (found.method, found.block) == first_choice(network)


def test_the_network_itself_stays_as_it_was(pictures):
    network = small("davidnet").train()
    layers = [type(layer) for layer in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    NetworkWithMap(network, MEAN, STD)(pictures)
    assert network.training
    assert [type(layer) for layer in network.modules()] == layers
    assert all(torch.equal(before[n], tensor) for n, tensor in network.state_dict().items())


def test_a_method_without_a_product_is_refused_with_those_that_have_one():
    network = small("speednet")
    for method in METHODS.keys() - PRODUCTS.keys():
        with pytest.raises(
            InputError, match="only maps by gradcam, hirescam, layercam can be exported"
        ):
            NetworkWithMap(network, MEAN, STD, method)
    with pytest.raises(InputError, match="block 'layer1' is unknown"):
        NetworkWithMap(network, MEAN, STD, block="layer1")


class Strange(Network):
    blocks, size_step = ("first", "second"), 1

    def __init__(self, layer, num_classes=3):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.layer = layer
        self.second = nn.Conv2d(4, 4, 1)
        self.pool, self.flatten = nn.AdaptiveMaxPool2d(1), nn.Flatten()
        self.linear = nn.Linear(4, num_classes)

    def forward(self, x):
        x = self.second(self.layer(self.first(x)))
        return self.linear(self.flatten(self.pool(x)))


@pytest.mark.parametrize(
    "layer", [nn.GELU(), nn.MaxPool2d(3, 1), nn.Conv2d(4, 4, 3, padding="same")], ids=str
)
def test_a_layer_whose_gradient_is_not_written_out_is_named(layer, pictures):
    network = Strange(layer).eval()
    with pytest.raises(InputError, match=rf"\(layer: {type(layer).__name__}.*later block"):
        NetworkWithMap(network, MEAN, STD, block="first")
    _, maps = NetworkWithMap(network, MEAN, STD, block="second")(pictures)  # it lies before this
    assert maps.shape == (6, 24, 24)
