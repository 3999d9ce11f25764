"""Class activation maps against a direct calculation, and their promises about side effects."""

import gc
import inspect
import itertools

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils import svd_on_activations

from utils import InputError
from utils.explain.gradcam import (
    CHANNEL_METHODS,
    METHODS,
    OTHER_METHODS,
    agreement,
    agreement_by_block_in_words,
    agreement_in_words,
    as_drawn,
    blank,
    blanks_in_words,
    class_activation_maps,
    compare_methods,
    compare_pairs,
    completeness,
    completeness_in_words,
    difference_in_words,
    extents,
    first_and_mean,
    first_choice,
    first_component,
    grad_cam,
    in_short,
    maps_by_method,
    maps_in_words,
    moved_back,
    pairs_in_words,
    similarity,
)
from utils.models.davidnet import DavidNet
from utils.models.network import Network
from utils.models.speednet import SpeedNet

CLASSES, SIZE, PICTURES = 5, 16, 6
BLOCKS = DavidNet.blocks
BY_GRADIENT = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam")


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(PICTURES, 3, SIZE, SIZE, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    return (3 * smooth).to(memory_format=torch.channels_last)


@pytest.fixture
def network():
    """A small network whose batch normalisation has statistics of its own, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = DavidNet(CLASSES, width=4, image_size=SIZE)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.3, 1.2)
                torch.nn.init.normal_(module.bias, std=0.2)
    return network.to(memory_format=torch.channels_last).eval()


def direct_map(network, image, target, block, method):
    """The published formula of each method, for one picture, from activations and gradients."""
    captured = []
    handle = network.get_submodule(block).register_forward_hook(
        lambda module, inputs, output: captured.append(output)
    )
    logits = network(image[None])[0]
    handle.remove()
    index = int(logits.argmax()) if target is None else int(target)
    (gradient,) = torch.autograd.grad(logits[index], captured[0])
    a, g = captured[0][0].detach().double().numpy(), gradient[0].double().numpy()
    total = a.sum(axis=(1, 2), keepdims=True)
    if method == "gradcam":
        weighted = g.mean(axis=(1, 2), keepdims=True) * a
    elif method == "hirescam":
        weighted = g * a
    elif method == "layercam":
        weighted = np.maximum(g, 0) * a
    elif method == "xgradcam":
        weighted = (g * a / (total + 1e-7)).sum(axis=(1, 2), keepdims=True) * a
    else:
        alpha = np.where(g != 0, g**2 / (2 * g**2 + total * g**3 + 1e-6), 0)
        weighted = (np.maximum(g, 0) * alpha).sum(axis=(1, 2), keepdims=True) * a
    return scaled(np.maximum(weighted.sum(axis=0), 0))


def scaled(cam):
    cam = cam - cam.min()
    cam = cam / (1e-7 + cam.max())
    return cv2.resize(cam.astype(np.float32), (SIZE, SIZE))


def direct_maps(network, images, targets, block, method):
    targets = [None] * len(images) if targets is None else targets
    pairs = zip(images, targets, strict=True)
    return np.stack([direct_map(network, i, t, block, method) for i, t in pairs])


def true_classes():
    return torch.arange(PICTURES) % CLASSES


def another_class():
    return [2, 3, 4, 0, 1, 2]


# What the maps are


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("method", BY_GRADIENT)
@pytest.mark.parametrize("explained", ["predicted", "true", "another"])
def test_map_is_the_formula_of_its_method(network, images, method, block, explained):
    targets = {"predicted": None, "true": true_classes(), "another": another_class()}[explained]
    maps = class_activation_maps(network, images, targets, method, block)
    expected = direct_maps(network, images, targets, block, method)
    assert maps.shape == (PICTURES, SIZE, SIZE) and maps.dtype == np.float32
    assert np.ptp(expected, axis=(1, 2)).max() > 0.5  # something to compare
    np.testing.assert_allclose(maps, expected, atol=2e-3)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_ten_lines_of_grad_cam_give_the_maps_of_the_package(network, images, block):
    before = state_of(network)
    targets = true_classes()
    maps = grad_cam(network, images, targets, block)
    assert maps.ndim == 3 and not maps.requires_grad and maps.min() >= 0
    by_package = class_activation_maps(network, images, targets, "gradcam", block)
    drawn = as_drawn(maps, SIZE)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, by_package, atol=1e-3)
    assert np.ptp(drawn, axis=(1, 2)).max() > 0.5
    assert_same_state(state_of(network), before)


@pytest.mark.parametrize("model", [DavidNet, SpeedNet])
def test_at_the_last_block_hirescam_adds_up_to_the_score_and_grad_cam_does_not(model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network, images = model(CLASSES, width=8).eval(), torch.randn(PICTURES, 3, 32, 32)
    targets = [0, 1, 2, 3, 4, 0]
    sums = completeness(network, images, targets)
    with torch.no_grad():
        logits = network(images)[range(PICTURES), targets]
    bias = network.head.linear.bias
    without = logits if bias is None else logits - bias.detach()[targets]
    np.testing.assert_allclose(sums["score"], without.numpy(), rtol=1e-5)
    np.testing.assert_allclose(sums["hirescam"], sums["score"], rtol=1e-4, atol=1e-7)
    off = np.abs(sums["gradcam"] - sums["score"]).mean() / np.abs(sums["score"]).mean()
    assert off > 0.1


def test_what_maps_add_up_to_is_said():
    sums = {"score": np.array([2.0, -4.0]), "gradcam": np.array([1.0, -2.0])}
    assert completeness_in_words(sums | {"hirescam": np.array([2.0, -4.000_003])}) == (
        "HiResCAM's points and the bias add up to the score, to within 5.0e-07 of its size; "
        "Grad-CAM's miss it by 50% of its size (mean of 2 pictures)."
    )


def test_the_ten_lines_of_grad_cam_are_ten():
    lines = inspect.getsource(grad_cam).split('"""')[2].strip().splitlines()
    assert len(lines) <= 10


def test_a_blank_map_is_drawn_blank():
    assert not as_drawn(torch.zeros(2, 4, 4), 16).any()


def test_predicted_class_is_explained_where_none_is_given(network, images):
    with torch.no_grad():
        predicted = network(images).argmax(1)
    maps = class_activation_maps(network, images)
    np.testing.assert_array_equal(maps, class_activation_maps(network, images, predicted))
    other = class_activation_maps(network, images, (predicted + 1) % CLASSES)
    assert np.abs(maps - other).max() > 0.1


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "eigencam"])
@pytest.mark.parametrize("block", BLOCKS)
def test_methods_without_gradients_give_maps(network, images, method, block):
    maps = class_activation_maps(network, images[:3], [0, 1, 2], method, block)
    assert maps.shape == (3, SIZE, SIZE) and maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() >= 0 and maps.max() <= 1 + 1e-6
    assert np.ptp(maps, axis=(1, 2)).max() > 0.5


class Unmeasured(Network):
    blocks, size_step = ("early", "late"), 1

    def __init__(self):
        super().__init__()


def test_the_map_shown_first_is_the_network_s_unless_it_is_chosen():
    for network in (DavidNet(width=4), SpeedNet(width=4), Unmeasured()):
        method, block = first_choice(network)
        assert method in METHODS and block in network.blocks
        assert first_choice(network, "layercam") == ("layercam", block)
        assert first_choice(network, block=network.blocks[0]) == (method, network.blocks[0])
        assert first_choice(network, "gradcam", network.blocks[-1]) == (
            "gradcam", network.blocks[-1],
        )  # fmt: skip
    assert first_choice(Unmeasured()) == ("hirescam", "late")
    assert first_choice(SpeedNet(width=4)) != first_choice(SpeedNet(width=4), drawn=True)


@pytest.mark.parametrize(("method", "block"), [("gradcam", "block3"), ("gradcan", None)])
def test_a_choice_that_there_is_none_of_is_refused_before_it_is_announced(method, block):
    """By hand, chapter 6 says what is shown first before it asks for a map."""
    with pytest.raises(InputError, match=r"(block 'block3'|method 'gradcan') is unknown"):
        first_choice(DavidNet(width=4), method, block)


@pytest.mark.parametrize("shape", [(3, 8, 6, 6), (3, 40, 4, 4), (3, 5, 16, 16)])
def test_the_first_component_is_the_package_s_own(shape):
    channels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    channels[0, 0, 0, 0] = np.nan
    expected = svd_on_activations.get_2d_projection(channels)
    np.testing.assert_allclose(first_component(channels), expected, atol=1e-4)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_methods_that_take_long_show_no_bar_of_their_own(network, images, method, capsys):
    class_activation_maps(network, images[:2], None, method)
    assert capsys.readouterr() == ("", "")


def test_score_cam_weighs_channels_by_the_score_of_the_masked_picture(network, images):
    image, target = images[0], 2
    with torch.no_grad():
        activations = network.layer2(network.layer1(network.prep(image[None])))
        masks = torch.nn.functional.interpolate(
            activations, size=(SIZE, SIZE), mode="bilinear", align_corners=True
        )[0]
        low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
        masks = (masks - low) / (high - low + 1e-8)
        weights = network(image * masks[:, None])[:, target].softmax(0)
        cam = (weights[:, None, None] * activations[0]).sum(0).relu()
    maps = class_activation_maps(network, images[:1], [target], "scorecam", "layer2")
    np.testing.assert_allclose(maps[0], scaled(cam.numpy()), atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("blocks", [["layer1", "layer3"], ["layer3", "prep", "layer2"]])
def test_several_blocks_at_once_equal_single_calls_in_the_order_asked(
    network, images, method, blocks
):
    images, targets = images[:2], [1, 2]
    together = class_activation_maps(network, images, targets, method, blocks)
    assert together.shape == (2, len(blocks), SIZE, SIZE)
    for position, block in enumerate(blocks):
        single = class_activation_maps(network, images, targets, method, block)
        np.testing.assert_allclose(together[:, position], single, atol=1e-5, err_msg=block)


def test_every_order_of_the_blocks_is_honoured(network, images):
    single = {block: class_activation_maps(network, images[:1], blocks=block) for block in BLOCKS}
    for order in itertools.permutations(BLOCKS):
        together = class_activation_maps(network, images[:1], blocks=order)
        for position, block in enumerate(order):
            np.testing.assert_allclose(together[:, position], single[block], atol=1e-5)


def test_no_block_means_the_last_and_a_list_of_one_keeps_its_dimension(network, images):
    last = class_activation_maps(network, images)
    np.testing.assert_array_equal(last, class_activation_maps(network, images, blocks="layer3"))
    listed = class_activation_maps(network, images, blocks=["layer3"])
    np.testing.assert_array_equal(listed, last[:, None])


@pytest.mark.parametrize("method", METHODS)
def test_batching_does_not_change_the_maps(network, images, method):
    images, targets = images[:4], [0, 1, 2, 3]
    whole = class_activation_maps(network, images, targets, method, "layer2", batch_size=100)
    for batch_size in (1, 3):
        parts = class_activation_maps(
            network, images, targets, method, "layer2", batch_size=batch_size
        )
        np.testing.assert_allclose(parts, whole, atol=1e-4, err_msg=str(batch_size))


def test_no_pictures_give_no_maps(network, images):
    assert class_activation_maps(network, images[:0]).shape == (0, SIZE, SIZE)
    several = class_activation_maps(network, images[:0], [], blocks=["prep", "layer1"])
    assert several.shape == (0, 2, SIZE, SIZE)


# What the maps leave alone


def state_of(network):
    return {
        "modes": [module.training for module in network.modules()],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        "values": [tensor.clone() for tensor in network.state_dict().values()],
        "places": [tensor.data_ptr() for tensor in network.state_dict().values()],
        "hooks": sum(
            len(hooks)
            for module in network.modules()
            for hooks in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
        ),
        "modules": [name for name, _ in network.named_modules()],
    }


def assert_same_state(state, before):
    for name in ("modes", "requires_grad", "places", "hooks", "modules"):
        assert state[name] == before[name], name
    for name in ("grads", "values"):
        for now, then in zip(state[name], before[name], strict=True):
            assert (now is None) == (then is None), name
            assert now is None or torch.equal(now, then), name


@pytest.mark.parametrize("method", METHODS)
def test_network_is_left_as_it_was(network, images, method):
    network.train()
    network.layer2.eval()
    network.prep.conv.weight.requires_grad_(False)
    network.head.linear.weight.grad = torch.full_like(network.head.linear.weight, 7)
    before = state_of(network)
    class_activation_maps(network, images[:2], [0, 1], method, BLOCKS)
    assert_same_state(state_of(network), before)
    assert images.grad is None and not images.requires_grad


def test_network_in_training_mode_gives_the_maps_of_evaluation(network, images):
    expected = class_activation_maps(network, images)
    np.testing.assert_array_equal(class_activation_maps(network.train(), images), expected)


def test_network_is_left_as_it_was_after_an_error(network, images):
    before = state_of(network)
    with pytest.raises(IndexError):
        class_activation_maps(network, images, [99] * PICTURES, blocks=["prep", "layer3"])
    assert_same_state(state_of(network), before)


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam", "eigencam"])
def test_maps_are_computed_in_float32_under_autocast(network, images, method):
    expected = class_activation_maps(network, images[:2], [0, 1], method, "layer2")
    with torch.autocast("cpu", torch.bfloat16):
        maps = class_activation_maps(network, images[:2], [0, 1], method, "layer2")
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_half_precision_network_and_pictures_give_float32_maps(network, images):
    halves = network.bfloat16()
    maps = class_activation_maps(halves, images.bfloat16())
    assert maps.dtype == np.float32
    assert next(halves.parameters()).dtype == torch.bfloat16
    expected = direct_maps(network.float(), images.bfloat16().float(), None, "layer3", "gradcam")
    np.testing.assert_allclose(maps, expected, atol=2e-3)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
def test_maps_do_not_depend_on_the_callers_gradient_mode(network, images, method, context):
    expected = class_activation_maps(network, images[:2], [0, 1], method)
    with context():
        maps = class_activation_maps(network, images[:2], [0, 1], method)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_printed(network, images, method, capfd):
    class_activation_maps(network, images[:2], [0, 1], method, ["layer2", "layer3"])
    assert capfd.readouterr() == ("", "")


def most_tensor_bytes(network, count, method, monkeypatch):
    """The most bytes that tensors held at the end of any batch of eight pictures."""
    images = torch.randn(count, 3, SIZE, SIZE)
    held = []
    plain = METHODS[method].forward

    def watched(self, *arguments):
        maps = plain(self, *arguments)
        storages = {}
        for thing in gc.get_objects():
            if type(thing) is torch.Tensor:
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        storages.pop(images.untyped_storage().data_ptr(), None)
        held.append(sum(storages.values()))
        return maps

    with monkeypatch.context() as patch:
        patch.setattr(METHODS[method], "forward", watched)
        class_activation_maps(network, images, None, method, BLOCKS, batch_size=8)
    assert len(held) == count // 8
    return max(held)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam", "eigencam"])
def test_memory_does_not_grow_with_the_number_of_pictures(network, method, monkeypatch):
    few = most_tensor_bytes(network, 16, method, monkeypatch)
    many = most_tensor_bytes(network, 32, method, monkeypatch)
    activation = 8 * network.prep.conv.out_channels * SIZE * SIZE * 4  # of one batch, one block
    assert few > activation  # the count sees what the package keeps
    assert many < few + activation / 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam"])
def test_no_tensor_outlives_the_call(network, images, method):
    class_activation_maps(network, images[:2], [0, 1], method, BLOCKS)  # imports, caches
    gc.collect()
    before = sum(type(thing) is torch.Tensor for thing in gc.get_objects())
    class_activation_maps(network, images[:2], [0, 1], method, BLOCKS)
    gc.collect()
    assert sum(type(thing) is torch.Tensor for thing in gc.get_objects()) <= before


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "smoothgrad"}, ["'smoothgrad'", *METHODS]),
        ({"blocks": "layer9"}, ["'layer9'", *BLOCKS]),
        ({"blocks": ["layer1", "head"]}, ["'head'", *BLOCKS]),
        ({"targets": [1, 2]}, [f"{PICTURES} pictures", "2 targets"]),
        ({"targets": torch.zeros(PICTURES + 1, dtype=int)}, [f"{PICTURES + 1} targets"]),
    ],
)
def test_what_cannot_be_explained_is_refused(network, images, options, words):
    with pytest.raises(InputError) as refusal:
        class_activation_maps(network, images, **options)
    for word in words:
        assert word in str(refusal.value)


# Comparing maps


def test_similarity_is_pearsons_correlation():
    random = np.random.default_rng(3)
    maps = random.random((5, 8, 8), dtype=np.float32)
    others = (0.5 * maps + random.random((5, 8, 8), dtype=np.float32)).astype(np.float32)
    pairs = zip(maps, others, strict=True)
    expected = [np.corrcoef(m.ravel(), o.ravel())[0, 1] for m, o in pairs]
    np.testing.assert_allclose(similarity(maps, others), expected, atol=1e-6)
    np.testing.assert_allclose(similarity(maps, 1 - maps), -1, atol=1e-6)


def test_similarity_to_a_constant_map_is_zero():
    maps = np.random.default_rng(3).random((3, 8, 8), dtype=np.float32)
    constant = np.stack([np.full((8, 8), value, np.float32) for value in (0, 1, 0.1)])
    assert similarity(maps, constant).tolist() == [0, 0, 0]
    assert similarity(constant, constant).tolist() == [0, 0, 0]


def test_agreement_is_of_every_pair_of_methods_the_least_alike_first():
    maps = np.random.default_rng(0).random((len(METHODS), 6, 6))
    maps[3] = 1 - maps[0]
    maps[5] = 2 * maps[1]
    table = agreement(maps)
    assert len(table) == len(METHODS) * (len(METHODS) - 1) // 2
    names = list(METHODS)
    assert list(table.iloc[0][["first", "second"]]) == [names[0], names[3]]
    assert list(table.iloc[-1][["first", "second"]]) == [names[1], names[5]]
    assert table["correlation"].iloc[[0, -1]].tolist() == pytest.approx([-1, 1])
    pair = table[(table["first"] == names[2]) & (table["second"] == names[4])]["correlation"].item()
    assert pair == pytest.approx(np.corrcoef(maps[2].ravel(), maps[4].ravel())[0, 1])


def test_a_map_is_blank_only_if_it_is_zero_everywhere():
    maps = np.zeros((3, 2, 2))
    maps[1, 1, 0] = 1e-6
    assert blank(maps).tolist() == [True, False, True]
    assert blank(np.zeros((0, 2, 2))).tolist() == []


def test_extents_count_bright_cells_and_blank_maps_of_each_block():
    maps = np.zeros((2, 2, 2, 2))
    maps[0, 0] = [[0.6, 0.2], [1.0, 0.5]]
    maps[1, 1] = 0.9
    table = extents(maps, ["early", "late"])
    assert table["block"].tolist() == ["early", "late"]
    assert table["bright"].tolist() == [0.25, 0.5]
    assert table["blank"].tolist() == [1, 1]
    assert len(extents(np.zeros((0, 2, 2, 2)), ["early", "late"])) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_methods_that_share_a_pass_give_the_very_maps_of_each_alone(network, images, order):
    methods = [*METHODS, *OTHER_METHODS][::order]
    blocks = ["layer3", "prep"]
    together = maps_by_method(network, images[:3], [0, 1, 2], methods, blocks, batch_size=2)
    assert list(together) == methods
    for method in methods:
        alone = class_activation_maps(network, images[:3], [0, 1, 2], method, blocks, batch_size=2)
        np.testing.assert_array_equal(together[method], alone, err_msg=method)


def test_methods_that_share_a_pass_explain_the_predicted_class_unless_told(network, images):
    with torch.no_grad():
        predicted = network(images).argmax(1)
    for methods in (["fem", "gradcam"], ["gradcam", "hirescam"]):
        own, given = (
            maps_by_method(network, images, targets, methods, BLOCKS)
            for targets in (None, predicted)
        )
        for method in methods:
            np.testing.assert_array_equal(own[method], given[method])


def test_passes_are_shared(network, images):
    passes = []
    network.head.register_forward_hook(lambda *_: passes.append(1))
    methods = [m for m in (*METHODS, *OTHER_METHODS) if m not in CHANNEL_METHODS]
    maps_by_method(network, images, None, methods, BLOCKS)
    assert len(passes) == 1
    maps_by_method(network, images, None, [], BLOCKS)
    assert len(passes) == 1


def test_compare_methods_has_a_map_for_every_method_and_block(network, images):
    maps = compare_methods(network, images[:1], [2])
    assert maps.shape == (len(METHODS), len(BLOCKS), SIZE, SIZE)
    for row, method in enumerate(METHODS):
        expected = class_activation_maps(network, images[:1], [2], method, BLOCKS)[0]
        np.testing.assert_allclose(maps[row], expected, atol=1e-5, err_msg=method)


def test_the_similarity_of_no_maps_is_none():
    assert similarity(np.zeros((0, 16, 16)), np.zeros((0, 16, 16))).shape == (0,)


# In words

RAMP = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(1, SIZE, SIZE)
EMPTY = np.zeros_like(RAMP)
NONE = RAMP[:0]


def test_pairs_of_maps_are_compared_where_neither_is_blank():
    blame = np.concatenate([RAMP, 1 - RAMP, RAMP, EMPTY])
    missed = np.concatenate([RAMP, RAMP, EMPTY, RAMP])
    third = np.concatenate([RAMP, 1 - RAMP, EMPTY, EMPTY])
    figures = compare_pairs(blame, missed, third)
    assert figures == {
        "pictures": 4, "blank": 2, "mean_correlation": pytest.approx(0, abs=1e-6),
        "third_class": pytest.approx(1), "of_other_pictures": pytest.approx(-1),
    }  # fmt: skip
    assert compare_pairs(RAMP, RAMP, RAMP) == {"pictures": 1, "blank": 0}
    assert compare_pairs(NONE, NONE, NONE) == {"pictures": 0, "blank": 0}


def test_the_largest_difference_is_said_with_its_n():
    others = RAMP.copy()
    others[0, 3, 3] += 0.002
    assert difference_in_words(RAMP, others) == (
        "Largest difference at any pixel: 2.0e-03 of the full range, n = 1 map of 256 pixels each."
    )
    two = np.concatenate([RAMP, RAMP])
    assert difference_in_words(two, two).startswith("Largest difference at any pixel: 0.0e+00")
    assert "n = 2 maps of" in difference_in_words(two, two)


def test_maps_are_said_picture_by_picture():
    blame = np.concatenate([RAMP, RAMP, RAMP, RAMP])
    missed = np.concatenate([RAMP, EMPTY, 1 - RAMP, RAMP])
    assert maps_in_words(blame, missed, ["ant", "bee", "cat", "dog"]).splitlines() == [
        "Of the 4 maps for the true class, 1 is blank. The first of the pictures above:",
        "ant: its two maps correlate at +1.00",
        "bee: the true class's map is blank",
        "cat: its two maps correlate at -1.00",
    ]
    assert maps_in_words(RAMP, RAMP, ["ant"]).startswith(
        "Of the 1 map for the true class, 0 are blank."
    )
    assert maps_in_words(NONE, NONE, []) == "There are no mistakes to explain."


def test_blank_maps_are_counted_in_words():
    blame = np.concatenate([RAMP, EMPTY, RAMP])
    missed = np.concatenate([RAMP, EMPTY, EMPTY])
    assert blanks_in_words(blame, missed) == (
        "Blank: 1 map for the predicted class and 2 for the true one. Left out for that: 2 of 3 "
        "pairs."
    )
    assert (
        "0 maps for the predicted class and 0 for the true one. Left out for that: 0 of 0 pairs."
        in (blanks_in_words(NONE, NONE))
    )


def test_the_agreement_of_methods_is_said_with_its_extremes():
    maps = np.concatenate([RAMP, 1 - RAMP, *[RAMP] * (len(METHODS) - 2)])
    said = agreement_in_words(agreement(maps), "layer3")
    assert said.startswith("At layer3 the 28 pairs of methods correlate at 0.50 on average, best ")
    assert "(+1.00), worst " in said
    assert said.endswith("(-1.00): they agree only in part (n = 1 picture).")
    assert "gradcam++" in said.partition("worst")[2]


def test_the_verdict_on_the_methods_follows_their_agreement():
    noise = np.random.default_rng(0).random((len(METHODS), 16, 16))
    for maps, verdict in (
        (RAMP + 0.05 * noise, "all of them point to the same place"),
        (np.concatenate([(RAMP + 0.05 * noise)[1:], 1 - RAMP]) ** 2, "they agree only in part"),
        (np.concatenate([(RAMP + 0.05 * noise)[1:], RAMP**9]), "most of them point to the same"),
        (noise, "they scatter, and none of them is the explanation"),
    ):
        assert verdict in agreement_in_words(agreement(maps), "layer3")


def test_the_agreement_at_each_block_is_said():
    flat = np.concatenate([RAMP] * len(METHODS))
    both = np.stack([flat, np.concatenate([flat[1:], 1 - RAMP])], axis=1)
    assert agreement_by_block_in_words(both, ("prep", "layer3")) == (
        "Mean correlation of two methods: +1.00 at prep, +0.50 at layer3."
    )
    both[1:3, 0] = 0
    both[:-1, 1] = 0
    assert agreement_by_block_in_words(both, ("prep", "layer3")) == (
        "Mean correlation of two methods: +1.00 at prep (2 maps blank), none at layer3 "
        "(7 maps blank)."
    )
    assert agreement_in_words(agreement(both[:, 1]), "layer3") == (
        "At layer3 there are no two maps to compare: the others are blank."
    )


def test_blank_maps_are_no_disagreement():
    maps = np.concatenate([RAMP] * len(METHODS))
    maps[[0, 2]] = 0
    table = agreement(maps)
    assert len(table) == 15
    assert not {"gradcam", "hirescam"} & {*table["first"], *table["second"]}
    assert table["correlation"].min() == pytest.approx(1)


def test_how_alike_maps_of_one_and_of_two_pictures_are_is_said():
    figures = {
        "pictures": 9, "blank": 0, "mean_correlation": 0.371, "third_class": 0.118,
        "of_other_pictures": -0.03,
    }  # fmt: skip
    assert pairs_in_words(figures) == (
        "Same picture, map for the predicted and for the true class: correlation +0.37 on average. "
        "Same picture, map for the predicted and for the least likely class: +0.12. "
        "Two different mistakes, each the map for its predicted class: -0.03."
    )
    assert pairs_in_words({"pictures": 1, "blank": 0}).startswith("There are too few")


def test_the_maps_in_short_hold_the_figures_or_say_that_there_are_too_few():
    figures = {
        "pictures": 12, "blank": 2, "mean_correlation": 0.456, "third_class": 0.2,
        "of_other_pictures": -0.1,
    }  # fmt: skip
    told = (
        "maps for the predicted and for the true class correlate at **0.46** on average, those for "
        "the predicted and the least likely class at 0.20, and the maps for the predicted class of "
        "two different mistakes at -0.10."
    )
    assert in_short(figures, "gradcam", "layer3", "r") == (
        f"gradcam at layer3, 12 mistakes of run **r**: a map is blank in 2. In the 10 pairs left, "
        f"the {told}"
    )
    assert in_short(figures | {"blank": 0, "pictures": 10}, "gradcam", "layer3", "r") == (
        f"gradcam at layer3, 10 mistakes of run **r**: no map is blank. The {told}"
    )
    assert in_short(compare_pairs(RAMP, RAMP, RAMP), "gradcam", "layer3", "r") == (
        "gradcam at layer3, 1 mistake of run **r**: there were too few pairs of maps to compare."
    )


def test_the_first_map_stands_beside_the_mean_of_all():
    maps = np.zeros((4, 8, 8), np.float32)
    maps[:, 0, 7], maps[0, 4, 4] = 0.5, 1
    first, mean = first_and_mean(maps)
    np.testing.assert_array_equal(first, maps[0])
    assert mean[0, 7] == 1 and mean[4, 4] == pytest.approx(0.5) and mean.sum() == 1.5
    assert not first_and_mean(np.zeros((2, 4, 4), np.float32)).any()


def test_a_map_is_moved_up_and_left_and_its_last_edges_repeated():
    maps = torch.arange(16.0).reshape(1, 4, 4)
    moved = moved_back(maps, 1)
    assert moved[0, 0].tolist() == [5, 6, 7, 7] and moved[0, 3].tolist() == [13, 14, 15, 15]
    assert moved_back(maps, 0) is maps
