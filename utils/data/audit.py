"""The audit of a person's own pictures: what to look at before any training.

Copies, pictures that show little, and properties of the files that give the class away. Nothing is
removed or relabelled: all of it is counted and named, and the worst is kept to be shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils import as_percent, counted
from utils.data import copies
from utils.data.folders import few
from utils.data.groups import series_in_words
from utils.data.marks import Mark, find_marks
from utils.data.picture_set import Audit
from utils.data.tells import LEAST_GAIN, Tell, find_tells
from utils.data.traits import Traits
from utils.data.views import Images, of_each

#: A picture none of whose channels spans more levels than this, of 256, shows next to nothing.
FLAT = 8
#: A picture is very dark where 99 of 100 pixels are darker than this, and very bright where 95 of
#: 100 are brighter than that; as CleanVision has it by default.
DARK, BRIGHT = 0.32, 0.95
#: A picture is blurred whose `utils.data.traits.Trait.sharpness` is less. Of 2,000 pictures of
#: CIFAR-10 (JPEG copy) the least sharp had 0.28, and nine photographs of 250 to 900 pixels, all
#: sharp, 0.40 to 2.2; blurred by two pixels of 128, 0.04 to 0.17.
BLURRED = 0.15
#: How many pictures, or half as many pairs, of each kind are kept to be shown.
SHOWN = 6
#: Ends the line of a property that names the class.
SHORTCUT = "; a shortcut"


@dataclass(frozen=True)
class Audited:
    """The pictures that are audited.

    Attributes:
        images: uint8, N×3×S×S.
        targets: int64, N.
        groups: int64, N: from `utils.data.near_copies.near_groups`, as the pairs are.
        together: int64, N: pictures of which those of a class count as one, such as bursts, have
            the same number.
        pairs: int64, P×2: positions of those that are nearly the same, the most alike first.
        in_test: bool, N: which of them are in the test split.
        is_drawn: whether that split was drawn here.
        names: of their files.
        traits: of their files.
        classes: names of the classes.
    """

    images: Images
    targets: Tensor
    groups: Tensor
    together: Tensor
    pairs: Tensor
    in_test: Tensor
    is_drawn: bool
    names: Sequence[str]
    traits: Traits
    classes: Sequence[str]


def audit(audited: Audited) -> tuple[list[str], Audit]:
    """Return what a person should know, a sentence each, and what chapter 1 shows."""
    first = copies.first_copies(audited.images)
    later = (first != torch.arange(len(first))).nonzero()[:, 0]
    same = torch.stack((first[later], later), dim=1)
    faults = list(_faults(audited))
    targets, together = audited.targets.numpy(), audited.together.numpy()
    tells = find_tells(audited.traits, targets, together, audited.classes)
    marks = find_marks(audited.images, audited.targets, audited.together)
    notes = [
        *_copy_notes(audited, same),
        *(series_in_words(audited.names, audited.in_test.numpy()) if audited.is_drawn else ()),
        *(fault.note(audited.names) for fault in faults),
        *(_tell_note(tell) for tell in tells if tell.is_claimed),
        *(_mark_note(mark, audited.classes) for mark in marks),
    ]
    rows = [
        *_pair_rows(audited, same),
        *(("a mark?", mark.positions[:SHOWN]) for mark in marks),
        *((fault.name, fault.positions[:SHOWN]) for fault in faults),
    ]
    return notes, _shown(audited, rows, tells)


# Copies


def _copy_notes(audited: Audited, same: Tensor) -> Iterator[str]:
    """Yield what there is to say of copies by name, and of near-copies.

    Args:
        audited: the pictures.
        same: int64, Q×2: pairs with the same pixels.
    """
    if len(same):
        yield f"The very same pixels, by name: {_named_pairs(audited, same, '=')}."
    if not len(audited.pairs):
        return
    groups, pairs = audited.groups, audited.pairs
    many = int(torch.isin(groups, groups[pairs.unique()]).sum())
    yield (
        f"Near-copies: {many:,} of {len(groups):,} pictures are nearly the same as another, "
        f"re-encoded, resized or mirrored: {_named_pairs(audited, pairs, '≈')}."
    )
    yield from _leak_note(audited)
    torn = audited.targets[pairs].diff(dim=1).flatten() != 0
    if torn.any():
        many = int(torn.sum())
        untested = ", and not tested on" if audited.is_drawn else ""
        yield (
            f"Near-copies: {counted(many, 'pair')} {'lies' if many == 1 else 'lie'} under two "
            f"labels, of which at most one is right{untested}: "
            f"{_named_pairs(audited, pairs[torn], '≈')}."
        )


def _leak_note(audited: Audited) -> Iterator[str]:
    """Yield how many test pictures are copies or near-copies of training pictures, if any."""
    groups, in_test = audited.groups, audited.in_test
    leaked = int(torch.isin(groups[in_test], groups[~in_test]).sum())
    if leaked:
        yield (
            f"Near-copies: {leaked:,} of {int(in_test.sum()):,} test pictures are nearly the same "
            "as training pictures, or the very same, so accuracy on them says little about new "
            "ones. Chapters 3 and 5 also give the accuracy without them."
        )
    elif audited.is_drawn:
        yield "Near-copies: none lies on both sides of the split, which was drawn here."


def _named_pairs(audited: Audited, pairs: Tensor, sign: str) -> str:
    names = audited.names
    return few(f"{names[one]} {sign} {names[other]}" for one, other in pairs.tolist())


def _pair_rows(audited: Audited, same: Tensor) -> Iterator[tuple[str, list[int]]]:
    """Yield the pairs to be shown, each in the first row that it belongs to, and what is wrong."""
    pairs = torch.cat((same, audited.pairs))
    torn = audited.targets[pairs].diff(dim=1).flatten() != 0
    parted = audited.in_test[pairs].int().diff(dim=1).flatten() != 0
    near = torch.arange(len(pairs)) >= len(same)
    for what, chosen in (
        ("two labels", torn),
        ("both splits", parted & ~torn),
        ("near-copies", near & ~torn & ~parted),
    ):
        if chosen.any():
            yield what, pairs[chosen][: SHOWN // 2].flatten().tolist()


# Pictures that show little


@dataclass(frozen=True)
class _Fault:
    """What is wrong with some pictures: its name, it in words, and their positions, worst first."""

    name: str
    about: str
    positions: list[int]

    def note(self, names: Sequence[str]) -> str:
        """Return a sentence that counts and names them."""
        is_or_are = "is" if len(self.positions) == 1 else "are"
        named = few(names[position] for position in self.positions)
        return f"{counted(len(self.positions), 'file')} {is_or_are} {self.about}: {named}."


def _span(images: Tensor) -> Tensor:
    """Return by how much the values of each picture differ in one of its colours: int32, N."""
    return (images.amax((2, 3)).int() - images.amin((2, 3)).int()).amax(1)


def _faults(audited: Audited) -> Iterator[_Fault]:
    """Yield each fault that pictures have.

    What is nearly of one colour is said to be that and nothing else.
    """
    images, traits, size = audited.images, audited.traits, audited.images.shape[-1]
    span = of_each(images, _span).numpy()
    shorter = np.minimum(traits.width, traits.height)
    dark, bright = as_percent(DARK, 0), as_percent(BRIGHT, 0)
    shows = span > FLAT
    measured = (
        ("one colour", "all of nearly one colour", span, ~shows),
        ("very dark", f"very dark: 99% of the pixels are below {dark} of white",
         traits.lightest, shows & (traits.lightest < DARK)),
        ("very bright", f"very bright: 95% of the pixels are above {bright} of white",
         -traits.darkest, shows & (traits.darkest > BRIGHT)),
        ("blurred", "blurred, or enlarged from less",
         traits.sharpness, shows & (traits.sharpness < BLURRED)),
        ("tiny", f"tiny, with less than the {size} pixels a side that the network is given",
         shorter, shows & (shorter < size)),
    )  # fmt: skip
    for name, about, measure, is_at_fault in measured:
        if is_at_fault.any():
            positions = is_at_fault.nonzero()[0]
            worst = positions[np.argsort(measure[positions], kind="stable")]
            yield _Fault(name, about, worst.tolist())


# Properties that give the class away


def _tell_note(tell: Tell) -> str:
    return (
        f"A shortcut: {tell.name} alone names the class of held-out pictures rightly in "
        f"{tell.in_words()}. What gives most away: {tell.clue}. A network may learn that in place "
        "of what the pictures show."
    )


def _mark_note(mark: Mark, classes: Sequence[str]) -> str:
    return (
        f"A mark? At the {mark.where()}, {mark.marked:,} of {mark.of_class:,} pictures of "
        f"{classes[mark.target]} that were looked at have the same colour, and {mark.elsewhere:,} "
        f"of {mark.of_others:,} others. If it is not the thing itself, a network may learn that in "
        "place of it: crop it away, or cover it."
    )


def _shown(audited: Audited, rows: Sequence[tuple[str, list[int]]], tells: Sequence[Tell]) -> Audit:
    """Return what is kept of an audit: the pictures of these rows, and how each property did."""
    named = tuple((what, tuple(audited.names[i] for i in row)) for what, row in rows)
    positions = torch.tensor([i for _, row in rows for i in row], dtype=torch.int64)
    lines = (
        f"{tell.name}: {tell.in_words()}{SHORTCUT if tell.is_claimed else ''}" for tell in tells
    )
    return Audit(named, audited.images[positions], audited.targets[positions], tuple(lines))


# In words


def audit_in_words(found: Audit | None) -> str:
    """Return what an audit tells beside its notes and its figure.

    Args:
        found: what a data set keeps of it; None where it was not audited.
    """
    if found is None:
        return "Only a person's own pictures are audited: these are a known data set."
    lines = []
    if not found.rows:
        lines.append(
            "No near-copies, no mark of one class, and no picture that is dark, bright, blurred or "
            "tiny."
        )
    if found.tells:
        head = "How often one property of the files alone names the class of held-out pictures:"
        lines += [head, *found.tells]
        if not any(told.endswith(SHORTCUT) for told in found.tells):
            lines.append(
                f"None is {100 * LEAST_GAIN:.0f} points better than guessing, beyond chance, so "
                "none is a warning."
            )
        return "\n".join(lines)
    return "\n".join([*lines, "The files are alike in size, format, camera and date."])
