"""A convolution with fewer multiplications gives what a plain one gives."""

import pytest
import torch
from torch.nn.functional import conv2d

from utils.models import convolution, winograd
from utils.models.convolution import Conv3x3
from utils.models.registry import OWN, create_model
from utils.models.winograd import GIVEN, Tiling, convolve, transforms

SIZES = [  # of the map, and of what is wanted of the result
    ((4, 4), (4, 4)),
    ((1, 1), (1, 1)),
    ((2, 2), (2, 2)),
    ((3, 3), (2, 2)),
    ((3, 3), (3, 3)),
    ((5, 5), (4, 4)),
    ((6, 6), (6, 6)),
    ((7, 7), (6, 6)),
    ((7, 5), (6, 5)),
    ((8, 12), (8, 12)),
    ((9, 9), (9, 9)),
    ((31, 31), (30, 30)),
]


def both_ways(function, images, weight, rows, columns):
    """Return a convolution's result, and its gradients for a loss that weighs every pixel."""
    images, weight = (each.clone().requires_grad_() for each in (images, weight))
    output = function(images, weight)[..., :rows, :columns]
    weighed = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    (output * weighed).sum().backward()
    return output.detach(), images.grad, weight.grad


def plain(images, weight):
    return conv2d(images, weight, padding=1)


@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_it_is_the_plain_convolution_with_its_gradients(size, wanted):
    torch.manual_seed(0)
    images = torch.randn(3, 5, *size, dtype=torch.float64)
    weight = torch.randn(7, 5, 3, 3, dtype=torch.float64)
    found = both_ways(lambda x, w: convolve(x, w, *wanted), images, weight, *wanted)
    expected = both_ways(plain, images, weight, *wanted)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", [8, 6, 2])
def test_in_float32_it_is_off_by_rounding(side):
    torch.manual_seed(side)
    images, weight = torch.randn(16, 128, side, side), torch.randn(128, 128, 3, 3)
    found = both_ways(lambda x, w: convolve(x, w, side, side), images, weight, side, side)
    exact = both_ways(plain, images.double(), weight.double(), side, side)
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 3e-6 * other.norm()


def test_it_has_the_gradients_of_finite_differences():
    images = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: convolve(x, w, 5, 4), (images, weight))


@pytest.fixture
def fresh_transforms():
    transforms.cache_clear()
    yield
    transforms.cache_clear()


def test_the_points_round_off_less_than_the_usual_ones(monkeypatch, fresh_transforms):
    torch.manual_seed(0)
    images, weight = torch.randn(16, 64, 8, 8), torch.randn(64, 64, 3, 3)
    exact, errors = plain(images.double(), weight.double()), []
    for points in (winograd.POINTS, (0, 1, -1, 2, -2)):
        monkeypatch.setattr(winograd, "POINTS", points)
        transforms.cache_clear()
        errors.append((convolve(images, weight, 8, 8) - exact).norm())
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("learned", ["images", "weight"])
def test_it_computes_no_gradient_that_nobody_asks_for(learned, monkeypatch):
    given = {"images": torch.randn(2, 3, 4, 4), "weight": torch.randn(5, 3, 3, 3)}
    given[learned].requires_grad_()
    output, gathered = convolve(given["images"], given["weight"], 4, 4), []
    for name in ("tiles", "overlapped"):  # what the weight's gradient needs, and the picture's
        monkeypatch.setattr(Tiling, name, _noting(getattr(Tiling, name), gathered))
    output.sum().backward()
    assert gathered == [{"images": "overlapped", "weight": "tiles"}[learned]]


def _noting(function, names: list[str]):
    def noted(*arguments):
        names.append(function.__name__)
        return function(*arguments)

    return noted


@pytest.mark.parametrize("bytes_at_a_time", [1, 20_000, 10**9])
def test_how_many_pictures_are_turned_at_a_time_changes_nothing(bytes_at_a_time, monkeypatch):
    torch.manual_seed(0)
    images = torch.randn(5, 4, 8, 8, dtype=torch.float64)
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    monkeypatch.setattr(winograd, "AT_A_TIME", bytes_at_a_time)
    found = both_ways(lambda x, w: convolve(x, w, 8, 8), images, weight, 8, 8)
    expected = both_ways(plain, images, weight, 8, 8)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("given", GIVEN)
def test_a_tile_takes_one_product_for_each_place_that_it_sees(given):
    tile, kernel, result = transforms(given, torch.float64)
    seen = (given + 2) ** 2
    assert [tuple(each.shape) for each in (tile, kernel, result)] == [
        (seen, seen),
        (seen, 9),
        (given**2, seen),
    ]


@pytest.mark.parametrize(
    ("side", "tiling"),
    [
        (32, Tiling(4, 8, 8)),
        (24, Tiling(4, 6, 6)),
        (16, Tiling(4, 4, 4)),
        (12, Tiling(4, 3, 3)),
        (8, Tiling(4, 2, 2)),
        (6, Tiling(3, 2, 2)),
        (4, Tiling(4, 1, 1)),
        (3, Tiling(3, 1, 1)),
        (2, Tiling(2, 1, 1)),
    ],
)
def test_a_map_is_cut_so_that_the_fewest_products_are_taken(side, tiling):
    assert Tiling.of(side, side) == tiling


# In the place of plain ones


@pytest.fixture
def taken(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the weights that went this way, where it pays."""
    shapes = []

    def noted(x, weight, rows, columns):
        shapes.append(tuple(weight.shape[:2]))
        return convolve(x, weight, rows, columns)

    monkeypatch.setattr(convolution, "WINOGRAD_PAYS", True)
    monkeypatch.setattr(convolution, "convolve", noted)
    return shapes


def test_training_in_float32_goes_this_way_where_there_are_many_channels(taken):
    create_model("davidnet", seed=0)(torch.randn(64, 3, 32, 32))
    assert taken == [
        (128, 64),
        (128, 128),
        (128, 128),
        (256, 128),
        (512, 256),
        (512, 512),
        (512, 512),
    ]


def test_weights_that_stay_go_this_way_from_more_channels_on(taken):
    network = create_model("davidnet", seed=0).requires_grad_(False)
    network(torch.randn(64, 3, 32, 32))
    assert taken == [(512, 256), (512, 512), (512, 512)]


@pytest.mark.parametrize(
    ("count", "dtype"), [(4, torch.float32), (64, torch.float64), (64, torch.bfloat16)], ids=str
)
def test_few_tiles_and_other_number_formats_do_not(count, dtype, taken):
    images = torch.randn(count, 128, 4, 4, dtype=dtype)
    Conv3x3(128, 128).to(dtype)(images)
    assert not taken


def test_nothing_does_where_it_does_not_pay_or_in_16_bits(taken, monkeypatch):
    layer, images = Conv3x3(128, 128), torch.randn(64, 128, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        layer(images)
    monkeypatch.setattr(convolution, "WINOGRAD_PAYS", False)
    layer(images)
    assert not taken


@pytest.mark.parametrize("model", OWN)
def test_a_network_in_training_gives_what_the_plain_one_gives(model, taken, monkeypatch):
    torch.manual_seed(0)
    images, logits = torch.randn(64, 3, 16, 16), []
    for pays in (True, False):
        monkeypatch.setattr(convolution, "WINOGRAD_PAYS", pays)
        logits.append(create_model(model, seed=0)(images))
    assert taken
    assert (logits[0] - logits[1]).norm() < 1e-5 * logits[1].norm()
