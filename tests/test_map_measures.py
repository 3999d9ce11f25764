"""Each measure against a case worked out by hand, and against maps whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score

from utils import devices
from utils.explain import map_measures as measures
from utils.explain.imputation import mean_colour

SIDE = 16


@pytest.fixture
def masks():
    """Objects of a sixteenth, and of a quarter of the picture: bool, 2×S×S."""
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, 4:8, 4:8] = True
    masks[1, :8, 8:] = True
    return masks


def random_maps(count=2, seed=0):
    return np.random.default_rng(seed).random((count, SIDE, SIDE), np.float32)


@pytest.mark.parametrize("measure", measures.LOCALISATION.values(), ids=measures.LOCALISATION)
def test_the_mask_scores_one_and_its_complement_nothing(measure, masks):
    assert measure(masks.astype(np.float32), masks) == pytest.approx([1, 1])
    assert measure(1 - masks.astype(np.float32), masks) == pytest.approx([0, 0])


def test_noise_scores_what_chance_predicts(masks):
    masks = np.repeat(masks[1:], 4000, axis=0)
    noise = random_maps(len(masks))
    for measure in (measures.pointing_game, measures.energy_on_object, measures.best_iou):
        assert measure(noise, masks).mean() == pytest.approx(0.25, abs=0.02)


def test_a_blank_map_scores_as_one_that_is_the_same_everywhere(masks):
    blank, even = np.zeros((2, SIDE, SIDE), np.float32), np.full((2, SIDE, SIDE), 0.7, np.float32)
    for maps in (blank, even):
        assert measures.pointing_game(maps, masks) == pytest.approx([1 / 16, 1 / 4])
        assert measures.energy_on_object(maps, masks) == pytest.approx([1 / 16, 1 / 4])


def test_of_several_highest_pixels_the_share_on_the_object_counts(masks):
    maps = np.zeros((2, SIDE, SIDE), np.float32)
    maps[:, 4, 4:12] = 1.0
    assert measures.pointing_game(maps, masks) == pytest.approx([0.5, 0.5])


def test_overlap_is_that_of_scikit_learn_at_the_threshold_best_for_all(masks):
    maps = (random_maps() + masks) / 2
    found = measures.best_iou(maps, masks)
    by_threshold = [
        [jaccard_score(mask.ravel(), (m >= t).ravel()) for m, mask in zip(maps, masks, strict=True)]
        for t in np.linspace(0.05, 0.95, 19)
    ]
    assert found == pytest.approx(max(by_threshold, key=np.mean))


# Removal


def test_every_rank_is_given_once_and_equal_pixels_are_drawn():
    maps = random_maps()
    maps[maps < 0.8] = 0.0  # four fifths are equal
    ranked = measures.ranks(maps, seed=1)
    flat = np.sort(ranked.reshape(2, -1), axis=1)
    assert np.array_equal(flat, np.broadcast_to(np.arange(SIDE * SIDE), flat.shape))
    in_order = np.take_along_axis(maps.reshape(2, -1), ranked.reshape(2, -1).argsort(1), 1)
    assert (np.diff(in_order, axis=1) <= 0).all()
    assert np.array_equal(ranked, measures.ranks(maps, seed=1))
    other = measures.ranks(maps, seed=2)
    assert np.array_equal(other[maps > 0], ranked[maps > 0])
    assert not np.array_equal(other[maps == 0], ranked[maps == 0])
    first_ties = ranked[0][maps[0] == 0]
    assert abs(np.corrcoef(first_ties, np.arange(len(first_ties)))[0, 1]) < 0.3


class Brightness(torch.nn.Module):
    """Says class 0 the surer, the brighter a picture's upper left quarter is."""

    depthwise = False

    def forward(self, images):
        seen = images[:, :, : SIDE // 2, : SIDE // 2].mean(dim=(1, 2, 3))
        return torch.stack([8 * seen - 4, torch.zeros_like(seen)], dim=1)


@pytest.fixture
def asked():
    return Brightness(), torch.ones(3, 3, SIDE, SIDE), np.zeros(3, np.int64)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.9])
def test_as_many_pixels_are_removed_as_asked_also_where_most_are_zero(asked, share):
    counts = []

    def count(images, removed):
        counts.extend(removed.sum(dim=(1, 2)).tolist())
        return mean_colour(images, removed)

    maps = np.zeros((3, SIDE, SIDE), np.float32)
    maps[:, :3, :16] = random_maps(3)[:, :3]  # four fifths are zero
    measures.removal_curves(*asked, maps, count, shares=(share,))
    assert counts == [round(share * SIDE * SIDE)] * 6  # three pictures, in both orders


@pytest.mark.parametrize("depthwise", [False, True])
def test_networks_that_bfloat16_slows_down_are_asked_in_float32(asked, monkeypatch, depthwise):
    monkeypatch.setattr(devices, "_cpu_bfloat16", lambda: "units")
    seen, (network, *others) = [], asked
    network.depthwise = depthwise
    network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    measures.removal_curves(network, *others, random_maps(3), mean_colour, shares=(0.5,))
    assert seen == [not depthwise]


def test_removal_finds_the_map_that_says_what_is_used(asked):
    used = np.zeros((3, SIDE, SIDE), np.float32)
    used[:, : SIDE // 2, : SIDE // 2] = 1.0
    scores = {
        name: measures.removal_score(
            measures.removal_curves(*asked, maps, mean_colour, (0.1, 0.3, 0.5, 0.7, 0.9))
        )
        for name, maps in (("used", used), ("not", 1 - used), ("noise", random_maps(3)))
    }
    assert scores["used"].min() > 0.5
    assert scores["not"] == pytest.approx(-scores["used"], abs=0.05)
    assert scores["noise"] == pytest.approx(np.zeros(3), abs=0.1)


def test_the_curves_are_the_probabilities_of_what_is_left(asked):
    used = np.zeros((3, SIDE, SIDE), np.float32)
    used[:, : SIDE // 2, : SIDE // 2] = 1.0
    highest, lowest = measures.removal_curves(*asked, used, mean_colour, shares=(0.125, 0.75))
    sure = [1 / (1 + np.exp(4 - 8 * left)) for left in (0.5, 0.0, 1.0, 1.0)]
    assert highest[0] == pytest.approx(sure[:2], abs=0.01)  # of the quarter, a half, then nothing
    assert lowest[0] == pytest.approx(sure[2:], abs=0.01)  # all else goes first
    assert measures.removal_score((highest, lowest))[0] == pytest.approx(
        (sure[2] + sure[3] - sure[0] - sure[1]) / 2, abs=0.01
    )


def test_patches_are_ordered_as_their_removal_orders_them():
    drops = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    maps = np.kron(drops, np.ones((4, 4), np.float32))
    assert measures.patch_agreement(maps, drops, 4, 4) == pytest.approx([1])
    assert measures.patch_agreement(-maps, drops, 4, 4) == pytest.approx([-1])
    assert measures.patch_agreement(np.zeros_like(maps), drops, 4, 4) == pytest.approx([0])


def test_what_a_map_points_at_is_worth_what_its_parts_are():
    regions = np.zeros((4, 2, SIDE, SIDE), bool)
    regions[:, 0, :4], regions[:, 1, 4:] = True, True
    drops = np.array([[8.0, 2.0], [8.0, -4.0], [1.0, -40.0], [-1.0, -2.0]])
    first, second = np.zeros((2, SIDE, SIDE), np.float32)
    first[0, 0], second[4:] = 1.0, 0.5
    on_first, on_second = np.stack([first] * 4), np.stack([second] * 4)
    assert measures.worth(on_first, regions, drops)[:3] == pytest.approx([1, 1, 1])
    assert measures.worth(on_second, regions, drops)[:3] == pytest.approx([0.25, -0.5, -1])
    blank = measures.worth(np.zeros_like(on_first), regions, drops)
    assert blank[:2] == pytest.approx([0.25 + 0.75 / 4, 0.25 - 0.75 / 2])
    assert np.isnan(blank[3])  # nothing spoke for the class


# Likeness


def test_rank_correlation_is_that_of_scipy():
    first, second = random_maps(3).round(1), random_maps(3, seed=1).round(1)  # with ties
    expected = [
        spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)
    ]
    assert measures.rank_correlation(first, second) == pytest.approx(expected)
    assert measures.rank_correlation(first, np.exp(first)) == pytest.approx(np.ones(3))


def test_structural_similarity_is_one_for_the_same_map_alone():
    maps = random_maps(3)
    assert measures.structural_similarity(maps, maps) == pytest.approx(np.ones(3))
    assert measures.structural_similarity(maps, random_maps(3, seed=1)).max() < 0.3
    assert measures.structural_similarity(maps[:1], maps[:1]).shape == (1,)


def test_logits_are_of_the_targets():
    network, images = Brightness(), torch.rand(3, 3, SIDE, SIDE)
    logits = network(images).numpy()
    found = measures.logits_of(network, images, np.array([1, 0, 0]))
    assert found == pytest.approx([logits[0, 1], logits[1, 0], logits[2, 0]])
