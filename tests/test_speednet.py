"""SpeedNet: what it computes, which sizes it takes, and its whitened first layer."""

import pytest
import torch
from torch.nn import functional

from helpers.networks import with_lived_in_statistics
from utils import InputError
from utils.models.registry import create_model


def test_speednets_convolutions_before_a_pool_give_it_even_maps():
    network, sides = create_model("speednet"), []
    for name, module in network.named_modules():
        if name.endswith("conv1"):
            module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    network(torch.randn(1, 3, 32, 32))
    assert sides == [30, 14, 6]


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
    network.init_from_pictures([images])
    with torch.no_grad():
        responses = network.whitening(images).permute(1, 0, 2, 3).flatten(1)
    first, negative = responses[:12], responses[12:]
    assert torch.equal(first, -negative)
    covariance = first @ first.T / first.shape[1]
    sizes = covariance.diag()
    assert (covariance - torch.diag(sizes)).abs().max() < 1e-3
    assert sizes.min() > 0.9 and sizes.max() < 1.001


def test_whitening_is_that_of_all_pictures_at_once_however_they_are_cut():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(300, 3, 17, 17, generator=generator)
    images = 2 * functional.avg_pool2d(images, 2, 1) + torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)
    images[:, 1] *= 0.5
    images[:, 2] += 0.3 * images[:, 0]
    patches = functional.unfold(images.double(), 2).transpose(1, 2).reshape(-1, 12)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    expected = (directions / (variances + 5e-4).sqrt()).T.reshape(12, 3, 2, 2).float()
    for size in (300, 128, 7):
        network = create_model("speednet", seed=0)
        network.init_from_pictures(images.split(size))
        found = network.whitening.weight.detach()
        torch.testing.assert_close(found, torch.cat([expected, -expected]), rtol=0, atol=1e-5)


def test_whitening_is_set_from_pictures_and_not_learned():
    network = create_model("speednet", seed=0)
    network.init_from_pictures([torch.randn(10, 3, 16, 16)])
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None}
    assert "whitening.weight" not in learned
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert learned | frozen == {name for name, _ in network.named_parameters()}


def test_whitening_from_flat_pictures_gives_finite_weights():
    network = create_model("speednet", seed=0)
    network.init_from_pictures([torch.zeros(4, 3, 16, 16)])
    assert network.whitening.weight.isfinite().all()


def test_each_convolution_of_speednet_begins_by_handing_its_input_on():
    network = create_model("speednet", width=32, seed=0)
    images = torch.randn(2, 24, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.block1.conv1(images)[:, :24], images)
