"""Networks of timm, taken apart: they compute the same, and their blocks are the house's."""

import pytest
import timm
import torch
from torch import nn

from helpers.imagenet import imagenet_weights, photographs
from utils import InputError
from utils.explain.gradcam import scaled_to
from utils.models.backbones import BACKBONES
from utils.models.pretrained import normalisation
from utils.models.registry import MODELS, check_model, create_model
from utils.settings import SETTINGS


@pytest.fixture(scope="module")
def trained():
    """EfficientNet-Lite0 with ImageNet's classes, and the weights that it has."""
    weights = imagenet_weights()
    network = create_model("efficientnet_lite0", num_classes=1000, image_size=128)
    network.load_state_dict({network.library_names[name]: t for name, t in weights.items()})
    return network.eval(), weights


@pytest.fixture(scope="module")
def network():
    """The same with three classes, for tests that give it weights."""
    return create_model("efficientnet_lite0", num_classes=3, image_size=128, seed=0)


@pytest.mark.parametrize("model", BACKBONES)
def test_taken_apart_a_network_computes_what_it_computed_whole(model):
    network = create_model(model, num_classes=5, image_size=64, seed=0).eval()
    whole = timm.create_model(model, num_classes=5).eval()
    state = network.state_dict()
    whole.load_state_dict({there: state[here] for there, here in network.library_names.items()})
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, expected = network(images), whole(images)
    scale = expected.abs().max()
    torch.testing.assert_close(logits / scale, expected / scale, rtol=0, atol=1e-5)
    assert set(network.library_names.values()) == set(state)


@pytest.mark.parametrize("model", BACKBONES)
def test_each_block_hands_on_maps_of_half_the_side_and_the_last_a_mean_follows(model):
    network, sides = create_model(model, num_classes=5, image_size=64).eval(), []
    for block in network.blocks:
        network.get_submodule(block).register_forward_hook(
            lambda module, inputs, output: sides.append(output.shape[-1])
        )
    with torch.inference_mode():
        network(torch.zeros(1, 3, 64, 64))
    assert sides == [16, 8, 4, 2]
    kinds = [type(layer) for layer in network.head]
    assert kinds == [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    known = {kind for kind in vars(nn).values() if isinstance(kind, type)}
    layers = [m for m in network.modules() if not any(m.children())]
    assert all(any(kind in known for kind in type(layer).mro()[:2]) for layer in layers)


def test_the_settings_offer_every_network():
    assert SETTINGS["model"].choices == tuple(MODELS)


def test_sizes_it_cannot_take_are_refused_with_some_that_it_can():
    for size in (32, 100, 48):
        with pytest.raises(InputError, match=r"five times.*multiple of 32, at least 64.*128"):
            check_model("resnet18", size)
    check_model("resnet18", 224)


def test_trained_on_imagenet_it_names_what_real_photographs_show(trained):
    network, _ = trained
    images = photographs(128, *normalisation("efficientnet_lite0"))
    with torch.inference_mode():
        found = network(torch.stack(list(images.values()))).argmax(1).tolist()
    cheetah, lion = 293, 291  # ImageNet's classes
    assert dict(zip(images, found, strict=True)) == {
        "cheetah": cheetah, "cheetah1": cheetah, "lion": lion
    }  # fmt: skip


def test_it_begins_from_trained_weights_but_for_the_head(trained, network):
    whole, weights = trained
    network.begin_from(weights, "a file")
    expected = whole.state_dict()
    for name, tensor in network.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(tensor, expected[name]), name
    with torch.inference_mode():
        assert not network(torch.rand(2, 3, 128, 128)).any()  # without an opinion yet


def test_it_begins_from_weights_under_the_names_that_a_run_gives_them(trained, network):
    whole, _ = trained
    nn.init.zeros_(network.layer4[2].weight)
    network.begin_from(whole.state_dict(), "a run's file")
    assert torch.equal(network.layer4[2].weight, whole.layer4[2].weight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.pop("bn1.weight"), r"stem\.1\.0\.weight is missing"),
        (lambda w: w.update(extra=torch.zeros(2)), "extra is unknown"),
        (lambda w: w.update({"bn1.bias": torch.zeros(7)}), r"stem\.1\.0\.bias is 7, not 32"),
        (lambda w: w.clear(), r"is missing; .*; and \d+ more"),
    ],
)
def test_weights_of_another_network_are_refused_with_what_differs(trained, network, change, told):
    weights = dict(trained[1])
    change(weights)
    before = network.stem[0].weight.clone()
    said = f"a file holds no weights for efficientnet_lite0: .*{told}"
    with pytest.raises(InputError, match=said):
        network.begin_from(weights, "a file")
    assert torch.equal(network.stem[0].weight, before)


def test_older_files_that_do_not_count_batches_will_do(trained, network):
    weights = {n: t for n, t in trained[1].items() if not n.endswith("num_batches_tracked")}
    network.begin_from(weights, "an older file")


@pytest.mark.parametrize(("model", "side"), [*((m, 128) for m in BACKBONES), ("davidnet", 64)])
def test_a_map_lies_where_its_cells_look(model, side):
    """The middle of what a cell depends on is the middle of where it alone is drawn."""
    network = create_model(model, num_classes=5, image_size=side, seed=0).eval()
    images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    images.requires_grad_()
    block, kept = network.blocks[-1], []
    network.get_submodule(block).register_forward_hook(lambda *passed: kept.append(passed[2]))
    network(images)
    cells = kept[0].shape[-1]
    (gradient,) = torch.autograd.grad(kept[0][..., cells // 2, cells // 2].square().sum(), images)
    cell = torch.zeros(1, cells, cells)
    cell[:, cells // 2, cells // 2] = 1
    looked_at, drawn = gradient.abs().sum((0, 1)), scaled_to(cell, side, network.lag(block))[0]
    for axis in (0, 1):
        middles = [
            float((weights.sum(axis) * torch.arange(side)).sum() / weights.sum())
            for weights in (looked_at, drawn)
        ]
        assert abs(middles[0] - middles[1]) < side / cells / 4
