"""A decoded data set: uint8 tensors, what normalises them, and how a split is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from utils import InputError
from utils.data import copies
from utils.data.mapped import rearrange
from utils.data.views import Images, chosen, parts

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
TEST_SHARE = 0.2
#: Splits are drawn from this, not from the run's seed, so that runs can be compared.
SPLIT_SEED = 0


@dataclass(frozen=True)
class Split:
    """Pictures and their classes.

    Attributes:
        images: uint8, N×3×S×S; as a rule mapped from a file that cannot be written to.
        targets: int64, N.
        masks: bool, N×S×S, true on the object; None where the source has none.
        groups: int64, N: copies and near-copies have the same number, in both splits of a data set,
            and no other picture has it; None where no audit looked for them.
        together: int64, N: pictures that no split may part have the same number, copies among them;
            None where copies alone are such.
        names: of their files, from the folder of the pictures; None where they have none.
    """

    images: Images
    targets: Tensor
    masks: Tensor | None = None
    groups: Tensor | None = None
    together: Tensor | None = None
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, positions: Tensor) -> "Split":
        """Return the pictures at these positions (int64, M), without a copy where they are many."""
        others = (self.masks, self.groups, self.together)
        kept = (None if other is None else other[positions] for other in others)
        names = named(self.names, positions)
        return Split(chosen(self.images, positions), self.targets[positions], *kept, names)

    def to(self, device: torch.device) -> "Split":
        """Return its pictures and classes alone, on a device."""
        return Split(self.images.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Audit:
    """What a person should look at in their own pictures, before any training.

    Attributes:
        rows: of the figure: what is wrong, and the names of the worst pictures of that kind; those
            of copies stand in pairs.
        images, targets: uint8, K×3×S×S, and int64, K: the pictures of all rows, in their order, and
            their classes.
        tells: a line for each property of the files that might give the class away, and how well
            it does.
    """

    rows: tuple[tuple[str, tuple[str, ...]], ...]
    images: Tensor
    targets: Tensor
    tells: tuple[str, ...]


@dataclass(frozen=True)
class PictureSet:
    """A data set, decoded.

    Attributes:
        name: short name of the source.
        title: how figures name it.
        classes: class names; a target is a position in it.
        train, test: the two splits.
        mean, std: per channel, for pixel values in [0, 1]; what training normalises with.
        fingerprint: of the decoded pictures, before any limit.
        notes: what a person should know about how the source was read.
        options: the arguments of `load_pictures` that give this set again.
        bits: how many bits its deep greyscale pictures use; 16 where it has none.
        audit: of all pictures, before any limit; None where they are not a person's own.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str
    notes: tuple[str, ...]
    options: dict
    bits: int = 16
    audit: Audit | None = field(default=None, compare=False)

    @property
    def image_size(self) -> int:
        """Side of the square pictures in pixels."""
        return self.train.images.shape[-1]


def named(names: tuple[str, ...] | None, positions: Tensor) -> tuple[str, ...] | None:
    """Return the names at these positions (int64, M); None where there are none."""
    return None if names is None else tuple(names[position] for position in positions.tolist())


def channel_histograms(images: Images) -> np.ndarray:
    """Count the pixel values of each channel.

    Args:
        images: uint8, N×3×H×W.

    Returns:
        int64, 3×256.
    """
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for part in parts(images):
        for count, values in zip(counts, part.transpose(0, 1), strict=True):
            count += torch.bincount(values.reshape(-1), minlength=256)
    return counts.numpy()


def channel_statistics(
    images: Images,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the exact mean and standard deviation of each channel, for values in [0, 1].

    Args:
        images: uint8, N×3×H×W.
    """
    values = np.arange(256) / 255
    share = channel_histograms(images)
    share = share / share.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt(share @ values**2 - mean**2)
    std = np.maximum(std, 1 / 255)  # a channel of one single value must not divide by zero
    return _as_tuple(mean), _as_tuple(std)


def _as_tuple(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = values.round(4).tolist()
    return red, green, blue


def stratified_part(
    targets: Tensor,
    share: float,
    seed: int,
    among: Tensor | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Choose the same share of every class at random: at least one picture, and never all.

    Copies are chosen together or not at all, and not if they lie under several labels; a class
    whose pictures are all of that kind has none chosen.

    Args:
        targets: int64, N.
        share: between 0 and 1.
        seed: the choice is a function of it.
        among: bool, N: only these may be chosen.
        first: int64, N: the same number for pictures that are copies, from
            `utils.data.copies.first_copies` or a split's groups; None where no two are.

    Returns:
        bool, N.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    allowed = torch.ones_like(chosen) if among is None else among.clone()
    first = torch.arange(len(targets)) if first is None else first.unique(return_inverse=True)[1]
    allowed &= ~copies.conflicting(first, targets)
    for target in targets.unique():
        members = torch.nonzero((targets == target) & allowed).flatten()
        kinds, sizes = first[members].unique(return_counts=True)
        wanted = min(max(1, round(len(members) * share)), len(members) - 1)
        order = torch.randperm(len(kinds), generator=generator)
        taken = _filled(sizes[order].tolist(), wanted)
        chosen[members[torch.isin(first[members], kinds[order[taken]])]] = True
    return chosen


def _filled(sizes: Sequence[int], wanted: int) -> list[int]:
    """Return the places of sizes that add up to at most `wanted`, taken in order as they fit.

    If none fits, the place of the smallest, provided that another remains.
    """
    taken, total = [], 0
    for place, size in enumerate(sizes):
        if total + size <= wanted:
            taken.append(place)
            total += size
    return taken if taken or len(sizes) < 2 else [int(np.argmin(sizes))]


def parted(split: Split, in_second: Tensor) -> tuple[Split, Split]:
    """Part pictures in place: those of the first part are moved to the front, and none is copied.

    Args:
        split: pictures in memory, or mapped for writing; without masks.
        in_second: bool, N.
    """
    order, size = in_second.int().argsort(stable=True), int((~in_second).sum())
    assert isinstance(split.images, Tensor) and split.masks is None
    rearrange(split.images.numpy(), order.numpy())
    targets = split.targets[order]
    groups, together = (
        None if kept is None else kept[order] for kept in (split.groups, split.together)
    )
    names = named(split.names, order)
    first, second = (
        Split(
            split.images[part],
            targets[part],
            groups=None if groups is None else groups[part],
            together=None if together is None else together[part],
            names=None if names is None else names[part],
        )
        for part in (slice(size), slice(size, None))
    )
    return first, second


def limited(split: Split, limit: int | None, name: str) -> Split:
    """Keep the first `limit` pictures, every class in proportion."""
    if limit is None or limit >= len(split):
        return split
    classes, counts = split.targets.unique(return_counts=True)
    if limit < len(classes):
        raise InputError(f"{name} is {limit}, fewer than the {len(classes)} classes; raise it.")
    ideal = counts * limit / len(split)
    quota = ideal.floor().long().clamp(min=1)
    while (missing := limit - int(quota.sum())) != 0:
        owed = ideal - quota
        if missing > 0:
            quota[owed.argmax()] += 1
        else:  # small classes got more than their share; the large ones pay
            quota[torch.where(quota > 1, owed, torch.inf).argmin()] -= 1
    kept = [
        torch.nonzero(split.targets == target).flatten()[:count]
        for target, count in zip(classes, quota, strict=True)
    ]
    return split.subset(torch.cat(kept).sort().values)


def spread(split: Split, count: int) -> Split:
    """Return so many pictures, or all if they are fewer, evenly spread over the split.

    Its first would often be of one class: those in folders come class by class.
    """
    if count >= len(split):
        return split
    return split.subset(torch.linspace(0, len(split) - 1, count).round().long())
