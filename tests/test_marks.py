"""A mark of one class is found, and what pictures share by nature is none."""

import numpy as np
import pytest
import torch

from helpers.pictures import scene
from utils.data.marks import LOOKED_AT, find_marks


@pytest.fixture(scope="module")
def scenes():
    """uint8, 120×3×64×64: none like another."""
    pixels = np.stack([np.asarray(scene(seed, 64)) for seed in range(120)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def marked(images, which, rows=slice(2, 8), columns=slice(54, 60), colour=(230, 40, 60)):
    images = images.clone()
    pixels = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    for position in which:
        images[position, :, rows, columns] = pixels
    return images


def found(images, targets, groups=None):
    targets = torch.tensor(targets)
    groups = torch.arange(len(targets)) if groups is None else groups
    return find_marks(images, targets, groups)


TARGETS = [0] * 24 + [1] * 96


def test_a_mark_in_a_corner_is_found_with_its_pictures(scenes):
    (mark,) = found(marked(scenes, range(20)), TARGETS)
    assert mark.target == 0 and mark.where() == "top right"
    assert 20 <= mark.marked <= 21 and mark.of_class == 24
    assert mark.elsewhere <= 2 and mark.of_others == 96
    assert set(range(20)) <= set(mark.positions) < set(range(24))


def test_a_border_and_a_background_of_one_class_are_found(scenes):
    (mark,) = found(marked(scenes, range(24), slice(60, 64), slice(None)), TARGETS)
    assert mark.where().startswith("bottom")
    white = marked(scenes, range(24), slice(20, 64), slice(0, 30), (255, 255, 255))
    assert found(white, TARGETS)[0].target == 0


@pytest.mark.parametrize(
    "which", [range(0), range(120), range(0, 24, 3), range(3), range(0, 120, 2)]
)
def test_what_is_on_none_on_few_or_on_all_classes_is_no_mark(which, scenes):
    assert found(marked(scenes, which), TARGETS) == []


def test_of_a_handful_of_pictures_nothing_is_claimed(scenes):
    assert found(marked(scenes, range(4)), [0] * 4 + [1] * 116) == []


def test_copies_count_as_one_picture(scenes):
    """One picture twenty times says no more than once."""
    images = scenes.clone()
    images[:24] = images[0]
    groups = torch.arange(120)
    assert found(images, TARGETS)
    groups[:24] = 0
    assert found(images, TARGETS, groups) == []


def test_a_group_counts_in_each_of_its_classes(scenes):
    """A mark on the last class is found, whose pictures all belong to one of the first."""
    targets, groups = [1] * 60 + [0] * 60, torch.arange(60).repeat(2)
    (mark,) = found(marked(scenes, range(60, 120)), targets, groups)
    assert mark.target == 0 and mark.of_class == mark.of_others == 60


def test_the_background_of_drawings_is_no_mark():
    """A stroke each, at a place that tells the class: where it is not says nothing of a mark."""
    drawings = torch.zeros(60, 3, 32, 32, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    for position in range(60):
        left = 4 if position < 30 else 18
        top = int(rng.integers(4, 20))
        drawings[position, :, top : top + 6, left : left + 8] = int(rng.integers(120, 255))
    assert found(drawings, [0] * 30 + [1] * 30) == []


def test_many_pictures_are_looked_at_in_part(scenes):
    images = marked(scenes.repeat(4, 1, 1, 1), range(240))
    (mark,) = found(images, [0] * 240 + [1] * 240)
    assert mark.of_class == mark.marked == LOOKED_AT and mark.of_others == LOOKED_AT


@pytest.mark.filterwarnings("error")
def test_where_all_others_are_copies_there_is_nothing_to_tell_apart(scenes):
    groups = torch.zeros(120, dtype=torch.int64)
    assert found(marked(scenes, range(24)), TARGETS, groups) == []
