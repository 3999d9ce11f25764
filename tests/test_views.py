"""Pictures chosen without a copy are those that a copy would hold, wherever they are used."""

import numpy as np
import pytest
import torch

from helpers.pictures import made_set, made_split
from utils.data import copies, explore, near_copies, views
from utils.data.batches import PictureDataModule, hold_out
from utils.data.picture_set import Split, channel_statistics, limited, parted
from utils.data.views import PictureView, chosen, of_each, parts, reduced

POSITIONS = torch.tensor([7, 2, 2, 30, 11])


@pytest.fixture
def never_copied(monkeypatch):
    monkeypatch.setattr(views, "MOST_COPIED", -1)
    monkeypatch.setattr(views, "PART", 3 * 16**2 * 7)  # seven pictures of these


def test_a_view_is_indexed_like_a_copy(never_copied):
    whole = made_split([0] * 40).images
    view, copy = chosen(whole, POSITIONS), whole[POSITIONS]
    assert isinstance(view, PictureView)
    some = copy[:, 0, 0, 0] > 9
    for index in (2, slice(1, 4), torch.tensor([4, 0]), np.array([4, 0]), [3], some):
        assert torch.equal(view[index], copy[index])
    assert (view.shape, view.nbytes, view.dtype) == (copy.shape, copy.nbytes, copy.dtype)
    assert torch.equal(view.to(torch.device("cpu")), copy)
    again = chosen(view, torch.tensor([3, 0]))
    assert isinstance(again, PictureView) and again.whole is whole
    assert torch.equal(again[:], copy[[3, 0]])
    np.testing.assert_array_equal(view.numpy(), copy.numpy())
    assert [len(part) for part in parts(whole)] == [7, 7, 7, 7, 7, 5]
    assert torch.equal(torch.cat(list(parts(view))), copy)


def test_what_is_seen_of_each_is_that_of_all_together(never_copied):
    whole = made_split([0] * 40).images
    for images in (whole, chosen(whole, POSITIONS), whole[:0]):
        expected = images[:].amax((2, 3))
        assert torch.equal(of_each(images, lambda part: part.amax((2, 3))), expected)
    small = reduced(whole, 8)
    assert small.shape == (40, 3, 8, 8) and small.dtype == torch.uint8
    blocks = whole.view(40, 3, 8, 2, 8, 2).float().mean((3, 5))
    assert (small - blocks).abs().max() <= 0.5
    assert reduced(whole, 16) is whole


def test_few_are_copied():
    assert isinstance(chosen(made_split([0] * 40).images, POSITIONS), torch.Tensor)


def test_whatever_looks_at_pictures_finds_the_same_in_a_view(monkeypatch):
    split = made_split([0, 1, 2] * 14)
    split.images[9] = split.images[4]
    order = torch.arange(41, -1, -1)
    copy = split.subset(order)
    monkeypatch.setattr(views, "MOST_COPIED", -1)
    monkeypatch.setattr(views, "PART", 3 * 16**2 * 5)
    view = split.subset(order)
    assert isinstance(view.images, PictureView)
    assert channel_statistics(view.images) == channel_statistics(copy.images)
    assert torch.equal(copies.first_copies(view.images), copies.first_copies(copy.images))
    for found, expected in zip(
        near_copies.near_groups(view.images), near_copies.near_groups(copy.images), strict=True
    ):
        assert torch.equal(found, expected)
    means = explore.mean_pictures(view, 3)
    np.testing.assert_array_equal(means, explore.mean_pictures(copy, 3))
    found, expected = (explore.nearest_mean_accuracy(means, each) for each in (view, copy))
    assert found == expected
    few, expected = limited(view, 9, "limit"), limited(copy, 9, "limit")
    assert torch.equal(few.images[:], expected.images[:])


def test_batches_of_a_view_are_those_of_a_copy(monkeypatch):
    pictures = made_set([0, 1, 2] * 20)
    copied = PictureDataModule(pictures, 8, seed=3, val_fraction=0.2)
    monkeypatch.setattr(views, "MOST_COPIED", -1)
    viewed = PictureDataModule(pictures, 8, seed=3, val_fraction=0.2)
    assert isinstance(viewed.train.images, PictureView)
    assert isinstance(hold_out(pictures, 0.2)[1].images, PictureView)
    for name in ("train_dataloader", "val_dataloader"):
        for found, expected in zip(getattr(viewed, name)(), getattr(copied, name)(), strict=True):
            assert all(map(torch.equal, found, expected))


def test_pictures_are_parted_without_a_copy():
    split, in_test = made_split(list(range(20))), torch.arange(20) % 3 == 1
    whole = split.images.clone()
    split = Split(split.images, split.targets, groups=torch.arange(20) + 100)
    train, test = parted(split, in_test)
    for part, is_in in ((train, ~in_test), (test, in_test)):
        assert torch.equal(part.images, whole[is_in])
        assert torch.equal(part.targets, is_in.nonzero()[:, 0])
        assert torch.equal(part.groups, is_in.nonzero()[:, 0] + 100)
    assert train.images.data_ptr() == split.images.data_ptr()
