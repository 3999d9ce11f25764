"""The networks: the layers of the source, what they compute, and how weights are drawn."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from utils import InputError
from utils.models.convolution import Conv3x3, _Product
from utils.models.registry import MODELS, check_block, create_model

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


def with_lived_in_statistics(network):
    """The network with batch-norm statistics, scales and offsets far from their start."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.4, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return network


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


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'resnet18'") as refused:
        create_model("resnet18")
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


def test_convolution_weights_are_channels_last(davidnet):
    weights = [m.weight for m in davidnet.modules() if isinstance(m, nn.Conv2d)]
    assert len(weights) == 8
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert any(not w.is_contiguous() for w in weights)


# Convolution


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


def test_speednets_convolutions_before_a_pool_give_it_even_maps():
    network, sides = create_model("speednet"), []
    for name, module in network.named_modules():
        if name.endswith("conv1"):
            module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    network(torch.randn(1, 3, 32, 32))
    assert sides == [30, 14, 6]


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


# SpeedNet


def functional_speednet(x, state, training):
    """The network written out once more, in float64, without its classes."""

    def norm(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.batch_norm(x, mean, var, weight, bias, training, 0.0, 1e-5)

    x = functional.silu(functional.conv2d(x, state["whitening.weight"]))
    for block in ("block1", "block2", "block3"):
        x = functional.conv2d(x, state[f"{block}.conv1.weight"], padding=1)
        x = functional.silu(norm(functional.max_pool2d(x, 2), f"{block}.norm1"))
        x = functional.conv2d(x, state[f"{block}.conv2.weight"], padding=1)
        x = functional.silu(norm(x, f"{block}.norm2"))
    return x.amax((2, 3)) @ state["head.linear.weight"].T


@pytest.mark.parametrize("image_size", [16, 24, 32, 50])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_speednet_computes_what_is_written_out_by_hand(training, image_size):
    network = create_model("speednet", width=6, num_classes=7, image_size=image_size, seed=1)
    network = with_lived_in_statistics(network.double()).train(training)
    images = torch.randn(5, 3, image_size, image_size, dtype=torch.float64)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        logits = network(images)
    torch.testing.assert_close(logits, functional_speednet(images, state, training))


def test_speednet_takes_pictures_smaller_than_it_was_built_for():
    network = create_model("speednet", image_size=32, seed=0).eval()
    with torch.no_grad():
        assert [network(torch.randn(2, 3, side, side)).shape for side in (16, 24)] == [(2, 10)] * 2


@pytest.mark.parametrize("image_size", [15, 0, -32, 32.0])
def test_sizes_speednet_cannot_take_are_refused(image_size):
    with pytest.raises(InputError, match=f"image_size is {image_size}; SpeedNet"):
        create_model("speednet", image_size=image_size)


def test_whitened_patches_are_uncorrelated_and_as_large_as_each_other():
    generator = torch.Generator().manual_seed(0)
    images = functional.avg_pool2d(torch.randn(300, 3, 34, 34, generator=generator), 3, 1)
    images[:, 1] += images[:, 0]  # neighbours and channels are correlated, as in pictures
    network = create_model("speednet", seed=0)
    network.init_from_pictures(images)
    with torch.no_grad():
        responses = network.whitening(images).permute(1, 0, 2, 3).flatten(1)
    first, negative = responses[:12], responses[12:]
    assert torch.equal(first, -negative)
    covariance = first @ first.T / first.shape[1]
    sizes = covariance.diag()
    assert (covariance - torch.diag(sizes)).abs().max() < 1e-3
    assert sizes.min() > 0.9 and sizes.max() < 1.001


def test_whitening_is_set_from_pictures_and_not_learned():
    network = create_model("speednet", seed=0)
    network.init_from_pictures(torch.randn(10, 3, 16, 16))
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None}
    assert "whitening.weight" not in learned
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert learned | frozen == {name for name, _ in network.named_parameters()}


def test_whitening_from_flat_pictures_gives_finite_weights():
    network = create_model("speednet", seed=0)
    network.init_from_pictures(torch.zeros(4, 3, 16, 16))
    assert network.whitening.weight.isfinite().all()


def test_each_convolution_of_speednet_begins_by_handing_its_input_on():
    network = create_model("speednet", width=32, seed=0)
    images = torch.randn(2, 24, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.block1.conv1(images)[:, :24], images)
