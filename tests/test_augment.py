"""Augmentation: draws that are fair and repeatable, and pictures changed exactly as promised."""

from dataclasses import replace
from functools import partial
from itertools import combinations, product

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional

from utils.data.augment import (
    augment,
    cut_out,
    holes,
    normalise,
    resize,
    several_views,
    shift_and_flip,
    shrink,
    transform,
    uniform,
)
from utils.data.augmentation import Affine, Augmentation, Holes, Shrink
from utils.training.recipes import CANDIDATES

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NOTHING = Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # leaves 0…255 as they are


def random_pictures(count, size=32, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8))


def padded_and_cropped(picture, shift_y, shift_x, flip, padding):
    """The long way: reflect-pad one picture, crop the window, flip."""
    height, width = picture.shape[-2:]
    padded = functional.pad(picture[None].float(), (padding,) * 4, mode="reflect")[0]
    top, left = padding + shift_y, padding + shift_x
    window = padded[:, top : top + height, left : left + width]
    return window.flip(-1) if flip else window


def is_channels_last(images):
    return images.is_contiguous(memory_format=torch.channels_last)


def chi_square(counts):
    """p-value of the counts, had each been equally likely."""
    return stats.chisquare(counts).pvalue


# draws


@pytest.mark.parametrize("seed", [0, 1, -5, 2**40 + 3])
@pytest.mark.parametrize(("epoch", "purpose"), [(0, 0), (1, 0), (0, 3), (99, 4)])
def test_draws_are_uniform(seed, epoch, purpose):
    draws = uniform(seed, epoch, torch.arange(50_000), purpose)
    assert draws.dtype == torch.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws.double().numpy(), "uniform").pvalue > 1e-4
    # the last bits too, which a coarse test would not see
    counts = torch.bincount((draws.double() * 2**24).long() % 64, minlength=64)
    assert chi_square(counts.numpy()) > 1e-4


def test_draws_of_neighbouring_pictures_are_unrelated():
    draws = uniform(3, 2, torch.arange(50_000), 1).double()
    for lag in (1, 2, 3, 8, 64, 512):
        pairs = torch.stack([(draws[:-lag] * 10).long(), (draws[lag:] * 10).long()])
        counts = torch.bincount(pairs[0] * 10 + pairs[1], minlength=100)
        assert chi_square(counts.numpy()) > 1e-4


def test_draws_of_other_seeds_epochs_and_purposes_are_unrelated():
    keys = [(s, e, p) for s, e, p in product((0, 1, 2**32), (0, 1, 19), (0, 1, 4))]
    draws = {(s, e, p): uniform(s, e, torch.arange(5_000), p).double() for s, e, p in keys}
    for first, second in combinations(keys, 2):
        cells = (draws[first] * 5).long() * 5 + (draws[second] * 5).long()
        p_value = chi_square(torch.bincount(cells, minlength=25).numpy())
        assert p_value > 1e-6, (first, second)


def test_exchanging_seed_epoch_and_purpose_changes_the_draws():
    indices = torch.arange(100)
    draws = [uniform(s, e, indices, p) for s, e, p in ((1, 2, 3), (2, 1, 3), (3, 2, 1), (1, 3, 2))]
    for first, second in combinations(draws, 2):
        assert (first == second).float().mean() < 0.05


def test_a_draw_depends_on_nothing_but_its_own_picture():
    everything = uniform(7, 3, torch.arange(1_000), 2)
    torch.manual_seed(99)
    order = torch.randperm(1_000)
    assert torch.equal(uniform(7, 3, order, 2), everything[order])
    assert torch.equal(uniform(7, 3, torch.tensor([41]), 2), everything[41:42])


def test_draws_for_several_purposes_at_once_are_those_for_each():
    indices = torch.tensor([0, 5, 2**33, 49_999])
    together = uniform(7 + 2**40, 3, indices, torch.arange(20)[:, None])
    alone = torch.stack([uniform(7 + 2**40, 3, indices, purpose) for purpose in range(20)])
    assert torch.equal(together, alone)


def test_draws_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    augment(random_pictures(4), torch.arange(4), Augmentation(), MEAN, STD, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_pictures_beyond_the_32_bit_range_have_draws_of_their_own():
    far = uniform(0, 0, torch.arange(1_000) + 2**33, 0)
    assert (far == uniform(0, 0, torch.arange(1_000), 0)).float().mean() < 0.01


# normalise


@pytest.mark.parametrize("size", [16, 32, 48])
def test_normalise_is_the_formula_in_float32_channels_last(size):
    images = random_pictures(5, size)
    before = images.clone()
    result = normalise(images, MEAN, STD)
    pixels = images.double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    torch.testing.assert_close(result.double(), (pixels - mean) / std, rtol=0, atol=1e-5)
    assert result.dtype == torch.float32
    assert is_channels_last(result)
    assert torch.equal(images, before)


def test_normalise_takes_channels_last_pictures_too():
    images = random_pictures(5)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalise(last, MEAN, STD), normalise(images, MEAN, STD))


# crop and flip


@pytest.mark.parametrize("size", [16, 32, 48])
def test_shift_and_flip_is_padding_by_reflection_cropping_and_then_flipping(size):
    count, padding = 200, 4
    images = random_pictures(count, size)
    rng = np.random.default_rng(1)
    shifts = torch.from_numpy(rng.integers(-padding, padding + 1, (2, count)))
    shifts[:, 0], shifts[:, 1] = -padding, padding  # the corners for certain
    flip = torch.from_numpy(rng.random(count) < 0.5)
    result = shift_and_flip(images, shifts[0], shifts[1], flip)
    expected = torch.stack(
        [
            padded_and_cropped(images[i], int(shifts[0, i]), int(shifts[1, i]), flip[i], padding)
            for i in range(count)
        ]
    )
    assert torch.equal(result, expected.to(torch.uint8))
    assert result.dtype == torch.uint8
    assert is_channels_last(result)


def test_shift_and_flip_reaches_as_far_as_reflection_goes():
    images = random_pictures(4, 16)
    shift = torch.tensor([-15, 15, 15, -15])
    flip = torch.tensor([False, True, False, True])
    result = shift_and_flip(images, shift, -shift, flip)
    for i in range(4):
        expected = padded_and_cropped(images[i], int(shift[i]), -int(shift[i]), flip[i], 15)
        assert torch.equal(result[i].float(), expected)


@pytest.mark.parametrize(
    ("probability", "low", "high"),
    [(0, 0, 0), (0.25, 0.23, 0.27), (0.5, 0.48, 0.52), (1, 1, 1)],
)
def test_the_share_of_flipped_pictures_is_the_probability(probability, low, high):
    ramp = torch.arange(16, dtype=torch.uint8).expand(8_000, 3, 16, 16)
    seen = augment(
        ramp, torch.arange(8_000), Augmentation(0, probability, 0), **PLAIN, seed=4, epoch=1
    )
    flipped = seen[:, 0, 0, 0] > seen[:, 0, 0, -1]
    assert low <= flipped.float().mean() <= high


def test_all_81_crops_are_equally_likely_and_each_picture_has_its_own():
    count, side = 81 * 100, 17
    rows = torch.arange(side, dtype=torch.uint8)[:, None].expand(side, side)
    picture = torch.stack([rows, rows.T, rows])  # a pixel's value is where it came from
    seen = augment(
        picture.expand(count, -1, -1, -1), torch.arange(count), Augmentation(4, 0.0, 0),
        **PLAIN, seed=0, epoch=0,
    )  # fmt: skip
    shifts = seen[:, :2, 8, 8].round().long() - 8  # the middle pixel is never a reflection
    assert shifts.min() == -4
    assert shifts.max() == 4
    counts = torch.bincount((shifts[:, 0] + 4) * 9 + shifts[:, 1] + 4, minlength=81)
    assert chi_square(counts.numpy()) > 1e-4


# cutout


@pytest.mark.parametrize(("size", "cutout"), [(32, 8), (48, 8), (16, 5), (16, 1), (16, 16)])
def test_cutout_is_one_square_of_zeros_and_changes_nothing_else(size, cutout):
    images = normalise(random_pictures(300, size), MEAN, STD)
    images[images == 0] = 1.0
    before = images.clone()
    rng = np.random.default_rng(2)
    centres = torch.from_numpy(rng.integers(0, size, (2, 300)))
    centres[:, 0], centres[:, 1] = 0, size - 1
    cut_out(images, centres[0], centres[1], cutout)
    for picture, old, (y, x) in zip(images, before, centres.T.tolist(), strict=True):
        inside = torch.zeros(size, size, dtype=torch.bool)
        top, left = y - cutout // 2, x - cutout // 2
        inside[max(0, top) : top + cutout, max(0, left) : left + cutout] = True
        assert torch.equal(picture == 0, inside.expand(3, -1, -1))
        assert torch.equal(picture[:, ~inside], old[:, ~inside])


def test_cutout_centres_are_uniform_over_the_whole_picture():
    count, size = 8_192, 16
    white = torch.full((count, 3, size, size), 255, dtype=torch.uint8)
    seen = augment(
        white, torch.arange(count), Augmentation(0, 0.0, 8), MEAN, STD, seed=0, epoch=0
    )  # fmt: skip
    zero = (seen == 0).all(dim=1)
    assert torch.equal(zero, (seen == 0).any(dim=1))
    centres = []
    for lines in (zero.any(dim=2), zero.any(dim=1)):  # rows, columns
        first = lines.float().argmax(dim=1)
        last = size - 1 - lines.flip(1).float().argmax(dim=1)
        assert torch.equal(last - first + 1, lines.sum(dim=1))
        centres.append(torch.where(first > 0, first + 4, last - 3))
        # 8 wide in the middle, clipped at the border
        assert torch.equal(lines.sum(dim=1).clamp(max=7) < 7, (first == 0) & (last < 6)
                           | (last == size - 1) & (first > 9))  # fmt: skip
    counts = torch.bincount(centres[0] * size + centres[1], minlength=size * size)
    assert len(counts) == size * size
    assert chi_square(counts.numpy()) > 1e-4


def test_cutout_shows_the_mean_colour():
    seen = augment(
        random_pictures(50), torch.arange(50), Augmentation(0, 0.0, 8), MEAN, STD, seed=0, epoch=0
    )
    colour = seen * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    cut = (seen == 0).all(dim=1)
    assert (cut.sum(dim=(1, 2)) >= 16).all()
    for channel in range(3):
        torch.testing.assert_close(
            colour[:, channel][cut], torch.full((int(cut.sum()),), MEAN[channel])
        )


# all together


def test_augment_is_crop_flip_normalise_cutout_with_one_draw_for_each():
    images, indices = random_pictures(64), torch.arange(64) + 10
    seen = augment(images, indices, Augmentation(), MEAN, STD, seed=5, epoch=6)
    moved = augment(images, indices, Augmentation(4, 0.5, 0), MEAN, STD, seed=5, epoch=6)
    cut = (seen == 0).all(dim=1, keepdim=True).expand_as(seen)
    assert torch.equal(seen[~cut], moved[~cut])  # switching one off does not move the others
    normalised = [
        {
            (y, x, flip): normalise(
                padded_and_cropped(images[i], y, x, flip, 4)[None].to(torch.uint8), MEAN, STD
            )[0]
            for y, x, flip in product(range(-4, 5), range(-4, 5), (False, True))
        }
        for i in range(8)
    ]
    for i, views in enumerate(normalised):
        assert sum(torch.equal(moved[i], view) for view in views.values()) == 1


@pytest.mark.parametrize("size", [32, 48])
def test_augmentation_switched_off_is_normalisation_alone(size):
    images = random_pictures(6, size)
    seen = augment(images, torch.arange(6), NOTHING, MEAN, STD, seed=0, epoch=0)
    assert torch.equal(seen, normalise(images, MEAN, STD))


@pytest.mark.parametrize("size", [32, 48])
def test_augmented_pictures_do_not_depend_on_the_batch_they_are_in(size):
    images, indices = random_pictures(40, size), torch.arange(40) * 7
    settings = (Augmentation(), MEAN, STD)
    together = augment(images, indices, *settings, seed=1, epoch=2)
    order = torch.from_numpy(np.random.default_rng(0).permutation(40))
    mixed = augment(images[order], indices[order], *settings, seed=1, epoch=2)
    alone = augment(images[5:6], indices[5:6], *settings, seed=1, epoch=2)
    assert torch.equal(mixed, together[order])
    assert torch.equal(alone, together[5:6])
    assert together.shape == images.shape
    assert together.dtype == torch.float32
    assert is_channels_last(together)


def test_views_differ_between_epochs_seeds_and_pictures():
    picture = random_pictures(1).expand(50, -1, -1, -1)
    settings = (Augmentation(), MEAN, STD)
    views = [
        augment(picture, torch.arange(50), *settings, seed=seed, epoch=epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for first, second in combinations(views, 2):
        assert sum(torch.equal(a, b) for a, b in zip(first, second, strict=True)) <= 2
    assert len({view.numpy().tobytes() for view in views[0]}) >= 48


def test_the_pictures_given_are_left_as_they_were():
    images = random_pictures(10).contiguous(memory_format=torch.channels_last)
    before, indices = images.clone(), torch.arange(10)
    augment(images, indices, Augmentation(), MEAN, STD, seed=0, epoch=0)
    assert torch.equal(images, before)
    assert torch.equal(indices, torch.arange(10))


# flips in turn, smaller pictures, several views


def flipped(epoch, alternate, probability=0.5, count=400, seed=3):
    """Which pictures are flipped: each is bright on its left."""
    images = torch.zeros(count, 3, 16, 16, dtype=torch.uint8)
    images[..., 0] = 255
    augmentation = Augmentation(0, probability, 0, alternate)
    shown = augment(images, torch.arange(count), augmentation, (0.0,) * 3, (1.0,) * 3, seed, epoch)
    return shown[:, 0, 0, -1] > 0.5


def test_alternate_flips_turn_every_picture_round_every_epoch():
    first = flipped(0, alternate=True)
    assert torch.equal(first, flipped(0, alternate=False))
    assert 0.4 < first.float().mean() < 0.6
    for epoch in range(1, 5):
        assert torch.equal(flipped(epoch, alternate=True), first ^ (epoch % 2 == 1))
    assert not torch.equal(flipped(2, alternate=False), first)


def test_jitter_scales_and_moves_each_picture_by_draws_of_its_own():
    images, indices = random_pictures(2_000, 16), torch.arange(2_000)
    jittered = Augmentation(0, 0.0, 0, jitter=0.3)
    plain = normalise(images, MEAN, STD).flatten(1)
    found = augment(images, indices, jittered, MEAN, STD, seed=1, epoch=0).flatten(1)
    contrast = found.std(1) / plain.std(1)
    brightness = found.mean(1) - contrast * plain.mean(1)
    restored = (found - brightness[:, None]) / contrast[:, None]
    torch.testing.assert_close(restored, plain, rtol=0, atol=1e-4)
    for values, centre in ((contrast, 1.0), (brightness, 0.0)):
        drawn = ((values - centre + 0.3) / 0.6).double().numpy()
        assert stats.kstest(drawn, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(contrast, brightness)[0, 1]) < 0.1
    again = augment(images[:7], indices[:7], jittered, MEAN, STD, seed=1, epoch=0).flatten(1)
    torch.testing.assert_close(again, found[:7])
    other = augment(images, indices, jittered, MEAN, STD, seed=1, epoch=1).flatten(1)
    assert not torch.allclose(other, found)


def test_the_square_that_is_cut_out_keeps_the_mean_colour_under_jitter():
    augmentation = Augmentation(0, 0.0, 8, jitter=0.3)
    shown = augment(random_pictures(50), torch.arange(50), augmentation, MEAN, STD, 0, 0)
    assert (shown == 0).flatten(1).any(1).all()


@pytest.mark.parametrize("side", [16, 24, 8])
def test_smaller_pictures_keep_their_mean_and_are_channels_last(side):
    images = normalise(random_pictures(6), (0.5,) * 3, (0.25,) * 3)
    smaller = resize(images, side)
    assert smaller.shape == (6, 3, side, side) and smaller.dtype == torch.float32
    assert is_channels_last(smaller)
    torch.testing.assert_close(smaller.mean((2, 3)), images.mean((2, 3)), rtol=0, atol=0.05)


def test_half_the_size_is_pillows_resampling():
    images = random_pictures(3).float()
    for mine, picture in zip(resize(images, 16), images, strict=True):
        for channel in range(3):
            plane = Image.fromarray(picture[channel].numpy())
            theirs = np.asarray(plane.resize((16, 16), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(mine[channel].numpy(), theirs, atol=1e-2)


def test_pictures_of_the_right_size_are_handed_on_as_they_are():
    images = random_pictures(2).float()
    assert resize(images, 32) is images


def test_views_are_mirrored_and_moved_along_one_diagonal():
    images = torch.randn(3, 3, 16, 16)
    assert [weight for _, weight in several_views(images, 1)] == [1.0]
    two, six = several_views(images, 2), several_views(images, 6)
    assert [weight for _, weight in two] == [0.5] * 2
    assert [weight for _, weight in six] == [0.25] * 2 + [0.125] * 4
    for shown in (two, six):
        assert torch.equal(shown[0][0], images)
        for (view, _), (mirrored, _) in zip(shown[::2], shown[1::2], strict=True):
            assert torch.equal(mirrored, view.flip(-1))
    assert torch.equal(six[2][0][..., 1:, 1:], images[..., :-1, :-1])
    assert torch.equal(six[4][0][..., :-1, :-1], images[..., 1:, 1:])


# what the original may have done


def reflected(picture, y, x):
    """A pixel of a picture that goes on as its own mirror image, the edge not repeated."""
    height, width = picture.shape
    y, x = (abs((p + s - 1) % (2 * s - 2) - s + 1) for p, s in ((y, height), (x, width)))
    return picture[y, x]


def sampled(picture, y, x):
    """The long way: one point of a picture, bilinearly."""
    top, left = int(np.floor(y)), int(np.floor(x))
    return sum(
        reflected(picture, top + dy, left + dx) * abs(1 - dy - (y - top)) * abs(1 - dx - (x - left))
        for dy, dx in product((0, 1), repeat=2)
    )


def test_a_picture_is_moved_scaled_and_turned_about_its_centre():
    images, how = random_pictures(4, 16).float(), Affine(1.0, 0.2, 0.3, 40.0)
    names = ("affine", "shift_y", "shift_x", "scale", "turn")
    draws = {n: torch.rand(4, generator=torch.Generator().manual_seed(i)) for i, n in
             enumerate(names)}  # fmt: skip
    in_order = dict(zip(range(7, 12), names, strict=True))
    moved = transform(images, how, lambda purpose: draws[in_order[purpose]])
    for i, picture in enumerate(images):
        shift_y, shift_x, scale, turn = (2 * float(draws[n][i]) - 1 for n in names[1:])
        angle, factor = np.deg2rad(40 * turn), 1 + 0.3 * scale
        for new_y, new_x in product(range(16), repeat=2):
            y, x = new_y - 7.5 - 0.2 * 16 * shift_y, new_x - 7.5 - 0.2 * 16 * shift_x
            from_x = (np.cos(angle) * x + np.sin(angle) * y) / factor + 7.5
            from_y = (-np.sin(angle) * x + np.cos(angle) * y) / factor + 7.5
            for channel in range(3):
                expected = sampled(picture[channel].numpy(), from_y, from_x)
                assert abs(float(moved[i, channel, new_y, new_x]) - expected) < 0.02


def test_a_picture_made_smaller_is_the_padded_one_resized():
    images = random_pictures(3).float()
    smaller = shrink(images, Shrink(1.0, 4), lambda purpose: torch.zeros(3))
    for picture, small in zip(images, smaller, strict=True):
        padded = np.pad(picture.numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect")
        for channel in range(3):
            for y, x in ((0, 0), (7, 20), (31, 31), (16, 5)):
                where = ((y + 0.5) * 1.25 - 0.5, (x + 0.5) * 1.25 - 0.5)
                assert float(small[channel, y, x]) == pytest.approx(
                    sampled(padded[channel], *where), abs=0.01
                )


@pytest.mark.parametrize(
    "holes_",
    [Holes(1.0, 1, 3, 4, 20), Holes(1.0, 8, 8, 8, 8), Holes(1.0, 1, 1, 30, 60)],
    ids=["a", "b", "longer than the picture"],
)
def test_holes_lie_inside_and_have_the_sides_they_may_have(holes_):
    draws = partial(uniform, 0, 0, torch.arange(3_000))
    mask = holes(torch.zeros(3_000, 3, 32, 32), holes_, draws)[:, 0]
    rows, columns = mask.any(2).sum(1), mask.any(1).sum(1)
    longest = min(holes_.longest, 32)
    assert rows.min() >= min(holes_.shortest, 32) and columns.min() >= min(holes_.shortest, 32)
    assert mask.flatten(1).sum(1).max() <= holes_.most * longest**2
    one = replace(holes_, least=1, most=1)
    alone = holes(torch.zeros(3_000, 3, 32, 32), one, draws)[:, 0]
    sides = alone.any(2).sum(1)
    assert torch.equal(alone.sum((1, 2)), sides * alone.any(1).sum(1))  # a rectangle
    assert (int(sides.min()), int(sides.max())) == (min(holes_.shortest, 32), longest)
    starts = alone.any(2).long().argmax(1)[sides == sides.min()]
    assert len(starts.unique()) == 32 - int(sides.min()) + 1  # anywhere inside


def test_holes_are_black_and_not_of_the_mean_colour():
    white = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    augmentation = Augmentation(0, 0.0, 0, holes=Holes(1.0, 1, 1, 8, 8))
    seen = augment(white, torch.arange(200), augmentation, MEAN, STD, seed=0, epoch=0)
    colour = seen * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    dark = colour[:, 0] < 0.5
    assert dark.sum() == 200 * 64
    for channel in range(3):
        expected = torch.full((200 * 64,), MEAN[channel] / 255)
        torch.testing.assert_close(colour[:, channel][dark], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("letter", CANDIDATES)
def test_candidates_change_as_many_pictures_as_they_say_and_leave_the_others_alone(letter):
    candidate = replace(CANDIDATES[letter], flip_probability=0.0, crop_padding=0, cutout_size=0)
    images, count = random_pictures(1).expand(2_000, -1, -1, -1), 2_000
    seen = augment(images, torch.arange(count), candidate, MEAN, STD, seed=1, epoch=1)
    plain = normalise(images[:1], MEAN, STD)[0]
    same = sum(torch.equal(view, plain) for view in seen) / count
    expected = 1.0 if letter == "c" else 0.25  # neither of two changes of probability a half
    assert same == pytest.approx(expected, abs=0.04)
    assert is_channels_last(seen)


@pytest.mark.parametrize("letter", CANDIDATES)
def test_candidates_do_not_depend_on_the_batch_a_picture_is_in(letter):
    images, indices = random_pictures(40), torch.arange(40) * 7
    settings = (CANDIDATES[letter], MEAN, STD)
    together = augment(images, indices, *settings, seed=1, epoch=2)
    alone = augment(images[5:6], indices[5:6], *settings, seed=1, epoch=2)
    assert torch.allclose(alone, together[5:6], atol=1e-5)
