"""Marks: a place that looks the same in nearly all pictures of one class, and in hardly any other.

A logo, a date in the corner, the border of a scan: whatever it is, a network may name the class by
it, and look at nothing else.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.data.groups import one_of_each
from utils.data.picture_set import SPLIT_SEED
from utils.data.views import Images, chosen, reduced
from utils.intervals import wilson_interval

#: Side to which larger pictures are reduced: a place is one pixel of these.
COMPARED = 32
#: Two places look the same whose channels differ by no more than this, in 0…255.
SAME = 12
#: A mark is on at least this share of the pictures of its class (what is on fewer than half would
#: not show in their median), and on at most that share of the others.
MOST_OF_CLASS, FEW_OF_OTHERS = 0.55, 0.05
#: And no more of the other classes' pixels, at any place, have its colour: a drawing's background
#: shows wherever the drawing leaves it free.
COMMON = 0.1
#: So many pictures of a class are looked at, drawn at random where there are more.
LOOKED_AT = 100
#: How often a mark may be claimed by chance, over all places of all classes.
BY_CHANCE = 0.01


@dataclass(frozen=True)
class Mark:
    """A place that tells a class.

    Attributes:
        target: number of the class.
        row, column: of the place, as shares of the side, in [0, 1].
        marked, of_class: on how many pictures of the class it is, of how many looked at.
        elsewhere, of_others: and on how many of the other classes' pictures.
        positions: of the pictures of the class that have it.
    """

    target: int
    row: float
    column: float
    marked: int
    of_class: int
    elsewhere: int
    of_others: int
    positions: list[int]

    def where(self) -> str:
        """Return where in the picture it lies, in words, by thirds of the side."""
        down = ("top", "middle", "bottom")[min(2, int(3 * self.row))]
        across = ("left", "centre", "right")[min(2, int(3 * self.column))]
        return f"{down} {across}"


def find_marks(images: Images, targets: Tensor, groups: Tensor) -> list[Mark]:
    """Return for each class the place that tells it best, where there is one beyond chance.

    Args:
        images: uint8, N×3×S×S.
        targets: int64, N.
        groups: int64, N: copies have the same number, and those of a class count as one picture.
    """
    looked_at = _looked_at(targets.numpy(), groups.numpy())
    small, targets = reduced(chosen(images, looked_at), COMPARED)[:], targets[looked_at]
    found = []
    classes = targets.unique().tolist()
    for target in classes:
        if mark := _best_mark(small, targets == target, looked_at, target, len(classes)):
            found.append(mark)
    return found


def _looked_at(targets: np.ndarray, groups: np.ndarray) -> Tensor:
    """Return positions of pictures, no two of a class copies: int64, ascending."""
    members = np.random.default_rng(SPLIT_SEED).permutation(one_of_each(groups, targets))
    own = (members[targets[members] == target][:LOOKED_AT] for target in np.unique(targets))
    return torch.from_numpy(np.sort(np.concatenate(list(own))))


def _best_mark(
    small: Tensor, is_own: Tensor, looked_at: Tensor, target: int, classes: int
) -> Mark | None:
    """Return the place that tells a class best; arguments as `find_marks` has them."""
    side = small.shape[-1]
    coverage = 1 - BY_CHANCE / (classes * side * side)
    own, others = small[is_own], small[~is_own]
    usual = own.median(0).values.int()
    best = None
    marked = _alike(own, usual)
    for row, column in (marked.float().mean(0) >= MOST_OF_CLASS).nonzero().tolist():
        place = slice(row, row + 1), slice(column, column + 1)
        elsewhere = int(_alike(others[:, :, *place], usual[:, *place]).sum())
        on_own = marked[:, row, column]
        counts = int(on_own.sum()), len(own), elsewhere, len(others)
        if best is not None and _gain(*counts) <= best[0]:
            continue
        if _is_beyond_chance(*counts, coverage) and not _is_common(usual[:, *place], others):
            positions = looked_at[is_own][on_own].tolist()
            middle = (row + 0.5) / side, (column + 0.5) / side
            best = _gain(*counts), Mark(target, *middle, *counts, positions)
    return None if best is None else best[1]


def _alike(images: Tensor, usual: Tensor) -> Tensor:
    """Return where pictures look like the usual one of a class: bool, N×H×W."""
    return ((images.int() - usual).abs() <= SAME).all(1)


def _is_common(colour: Tensor, others: Tensor) -> bool:
    """Tell whether pictures have a colour (int32, 3×1×1) at many of their places."""
    return _alike(others[:: 1 + len(others) // LOOKED_AT], colour).float().mean().item() > COMMON


def _gain(marked: int, of_class: int, elsewhere: int, of_others: int) -> float:
    return marked / of_class - elsewhere / of_others


def _is_beyond_chance(
    marked: int, of_class: int, elsewhere: int, of_others: int, coverage: float
) -> bool:
    """Tell whether it is on more pictures of a class than of others, and on few of those."""
    low, _ = wilson_interval(marked, of_class, coverage)
    _, high = wilson_interval(elsewhere, of_others, coverage)
    return bool(elsewhere <= FEW_OF_OTHERS * of_others and low > high)
