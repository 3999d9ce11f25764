"""Parts of a split and what is measured of its pictures."""

import numpy as np
import pytest
import torch

from helpers.pictures import counts_of, made_split
from utils.data import picture_set
from utils.data.picture_set import Split, channel_histograms, channel_statistics, stratified_part

# Parts


@pytest.mark.parametrize(
    "counts", [[5, 5, 5], [40, 3, 2], [7, 1, 1], [100, 1, 1, 1, 1], [9] * 10, [1, 2, 300]]
)
def test_a_limit_is_exact_and_keeps_every_class(counts):
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    split = Split(torch.zeros(len(targets), 3, 1, 1, dtype=torch.uint8), targets)
    for limit in range(len(counts), len(targets) + 1):
        kept = picture_set.limited(split, limit, "limit_train")
        assert len(kept) == limit
        assert min(counts_of(kept, len(counts))) >= 1


def test_a_part_is_stratified_chosen_by_seed_and_among_those_allowed():
    targets = torch.tensor([0] * 100 + [1] * 40 + [2] * 3)
    part = stratified_part(targets, 0.25, seed=0)
    assert targets[part].bincount().tolist() == [25, 10, 1]
    assert torch.equal(part, stratified_part(targets, 0.25, seed=0))
    assert not torch.equal(part, stratified_part(targets, 0.25, seed=1))
    among = torch.arange(143) % 2 == 0
    chosen = stratified_part(targets, 0.5, seed=0, among=among)
    assert not (chosen & ~among).any()
    assert targets[chosen].bincount().tolist() == [25, 10, 1]
    chances = sum(stratified_part(targets, 0.25, seed).float() for seed in range(400)) / 400
    assert (chances[:140] > 0.15).all()
    assert (chances[:140] < 0.36).all()


# Statistics


def test_channel_statistics_are_those_of_numpy():
    images = made_split([0] * 50, seed=3).images
    images[:, 1] //= 2
    pixels = images.numpy() / 255
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), atol=5.1e-5)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), atol=5.1e-5)
    histograms = channel_histograms(images)
    for channel in range(3):
        expected = np.bincount(images[:, channel].numpy().ravel(), minlength=256)
        np.testing.assert_array_equal(histograms[channel], expected)


def test_a_channel_of_one_value_does_not_divide_by_zero():
    mean, std = channel_statistics(torch.full((4, 3, 8, 8), 51, dtype=torch.uint8))
    assert mean == (0.2, 0.2, 0.2)
    assert min(std) > 0


def test_without_copies_the_choice_is_as_it_is_with_none_looked_for():
    targets = torch.arange(90) % 3
    first = torch.arange(90)
    chosen = stratified_part(targets, 0.2, 0)
    assert torch.equal(chosen, stratified_part(targets, 0.2, 0, first=first))
    assert chosen.sum() == 18


def test_groups_may_be_numbered_in_any_way():
    targets = torch.arange(90) % 3
    first = torch.arange(90) // 6 * 6  # in each group two of each class: none may be chosen
    assert not stratified_part(targets, 0.2, 0, first=first).any()
    first = torch.arange(90) % 45  # pairs of one class
    chosen = stratified_part(targets, 0.2, 0, first=first)
    assert torch.equal(chosen, stratified_part(targets, 0.2, 0, first=1_000 - 7 * (44 - first)))
    assert torch.equal(chosen[:45], chosen[45:]) and chosen.sum() == 18


def test_a_part_keeps_its_groups():
    split = Split(torch.zeros(3, 3, 1, 1), torch.tensor([0, 1, 1]), groups=torch.tensor([4, 9, 4]))
    assert split.subset(torch.tensor([2, 1])).groups.tolist() == [4, 9]
    assert Split(split.images, split.targets).subset(torch.tensor([0])).groups is None


@pytest.mark.parametrize(("count", "kept"), [(2, "09"), (4, "0369"), (10, "0123456789")])
def test_pictures_are_spread_from_the_first_to_the_last(count, kept):
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    found = picture_set.spread(Split(images, torch.arange(10)), count)
    assert found.targets.tolist() == found.images[:, 0, 0, 0].tolist() == list(map(int, kept))
    assert len(picture_set.spread(found, 99)) == count
