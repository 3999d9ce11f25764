"""Groups of pictures that a split must not part: one burst, one patient, one camera.

What was learnt of one picture of a group answers for the others, so that a test on them is none.
Copies belong together, too: a group that holds a copy of another group's picture is one with it.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from utils import InputError, as_percent, brief, counted, first_line, printable
from utils.data import copies
from utils.data.folders import few
from utils.data.near_copies import connected
from utils.data.picture_set import SPLIT_SEED, Split, stratified_part

#: What `keep_together` is called where it is no pattern.
COPIES, FOLDER = "copies", "folder"
#: The names that are a series: up to their last number, if another comes before it.
SERIES = r"(.*/[^/]*\d[^/]*?[^/\d])\d+[^/\d]*"
#: The same as a person would say it of the names below a class.
SERIES_BELOW = r"^(.*\d.*\D)\d+\D*$"
#: A class's share of a part that is drawn should be at most so far from the share asked for.
NEAR_ENOUGH = 0.05
#: How often a part is drawn anew at most, for one that has every class's share; it is enough when
#: all are at most so far from it.
TRIES, CLOSE = 100, 0.02
#: Groups that all of these draws look at together at most, and once at least.
VISITS = 100_000


# What belongs together


def check_rule(rule: str, name: str = "keep_together") -> re.Pattern | None:
    """Return the pattern that a rule is; None for the words ``"copies"`` and ``"folder"``.

    Args:
        rule: the value of a parameter.
        name: of that parameter.

    Raises:
        InputError: it is no pattern, or one with several groups, of which none is meant.
    """
    if rule in (COPIES, FOLDER):
        return None
    try:
        pattern = re.compile(rule)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"{name} {brief(rule)} is no regular expression ({first_line(error)}). Put a backslash "
            "before what is meant as it stands, such as \\( or \\[."
        ) from error
    if pattern.groups > 1:
        raise InputError(
            f"{name} {brief(rule)} has {pattern.groups} groups in brackets, and one alone can tell "
            "what counts. Write (?:…) for the others."
        )
    return pattern


def told_by(pattern: re.Pattern, name: str) -> str:
    """Return what a pattern finds in a name: its one group, or else all that it matches.

    >>> told_by(re.compile("^(cat|dog)"), "cat.17.jpg"), told_by(re.compile("[0-9]+"), "a.jpg")
    ('cat', '')
    """
    match = pattern.search(name)
    return (match[pattern.groups] or "") if match else ""


def goes_by_folder(rule: str, name: str) -> bool:
    """Tell whether a rule takes the first folder of a picture's name for a group, whatever follows.

    A pattern does that which matches the whole of that folder's name, and has its group in folders.

    Args:
        rule: as for `named_groups`.
        name: of a picture below its class.

    >>> goes_by_folder("folder", "day 1/a_2.jpg"), goes_by_folder("^day [0-9]", "day 1/a_2.jpg")
    (True, True)
    >>> goes_by_folder("^(.*)_[0-9]", "day 1/a_2.jpg"), goes_by_folder("(a)_", "day 1/a_2.jpg")
    (False, False)
    """
    first, slash, _ = name.partition("/")
    pattern = check_rule(rule)
    if pattern is None or not slash:
        return rule == FOLDER and bool(slash)
    match = pattern.search(name)
    if not match or not match[pattern.groups]:
        return False
    is_covered = match.start() == 0 and match.end() >= len(first)
    return is_covered and match.end(pattern.groups) <= name.rindex("/") + 1


def named_groups(names: Sequence[str], rule: str) -> tuple[Tensor | None, list[str]]:
    """Return which pictures a rule keeps together, and what there is to say of it.

    Args:
        names: of each picture, from `utils.data.folders.PictureFolder.below`.
        rule: ``"copies"``, ``"folder"`` for the first folder of the name, or a regular expression,
            of which the group in brackets counts, if it has one. What a rule tells nothing of is a
            group of its own.

    Returns:
        int64, N: the same number for those of a group; None for ``"copies"``, which no name tells.

    Raises:
        InputError: the rule tells nothing of any picture, or the same of all.
    """
    if rule == COPIES:
        return None, []
    pattern = check_rule(rule)
    told = [
        told_by(pattern, name) if pattern else name.partition("/")[0] if "/" in name else ""
        for name in names
    ]
    alone = [printable(name) for name, what in zip(names, told, strict=True) if not what]
    if len(alone) == len(names):
        what = "Their names match nowhere" if pattern else "They lie in no folder"
        raise InputError(
            f"keep_together {brief(rule)} puts no pictures together. {what} below their class: "
            f"{few(alone)}."
        )
    first: dict[str, int] = {}
    groups = [first.setdefault(what, i) if what else i for i, what in enumerate(told)]
    if len(set(groups)) == 1:
        raise InputError(
            f"keep_together {brief(rule)} puts all pictures into one group "
            f"({brief(next(iter(first)))}), so that none can be held out. Give a rule that tells "
            "more of them apart."
        )
    notes = []
    if alone:
        notes.append(
            f"keep_together {brief(rule)} tells nothing of {len(alone):,} of {len(names):,} "
            f"pictures, and each of them counts for itself: {few(alone)}."
        )
    return torch.tensor(groups), notes


def united(first: Tensor, second: Tensor) -> Tensor:
    """Return groups that keep together what either of two groupings does: int64, N.

    >>> united(torch.tensor([0, 0, 2, 3, 4]), torch.tensor([0, 1, 1, 3, 4])).tolist()
    [0, 0, 0, 3, 4]
    """
    places, pairs = torch.arange(len(first)), []
    for groups in (first, second):
        numbers = groups.unique(return_inverse=True)[1]
        representative = torch.full_like(numbers, len(numbers))
        representative.scatter_reduce_(0, numbers, places, "amin")
        pairs.append(torch.stack((representative[numbers], places), dim=1))
    return connected(len(first), torch.cat(pairs))


def one_of_each(groups: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the first picture of each group in each of its classes: positions, int64.

    What belongs together counts as one, though not as one class: a patient may have pictures of
    several.

    Args:
        groups: int64, N: the same number for pictures of a group.
        targets: int64, N.

    >>> one_of_each(np.array([7, 7, 7, 3]), np.array([0, 0, 1, 1])).tolist()
    [0, 2, 3]
    """
    _, first = np.unique(np.stack((groups, targets)), axis=1, return_index=True)
    return np.sort(first)


# Drawing


def held_out_part(split: Split, share: float) -> Tensor:
    """Choose the same share of every class of a split, and keep whole what belongs together.

    Args:
        split: copies are looked for where it has no groups.
        share: between 0 and 1.

    Returns:
        bool, N: the same pictures each time.
    """
    groups = copies.first_copies(split.images) if split.groups is None else split.groups
    if split.together is None:
        return stratified_part(split.targets, share, SPLIT_SEED, first=groups)
    return grouped_part(split.targets, share, SPLIT_SEED, split.together, groups)


def grouped_part(
    targets: Tensor, share: float, seed: int, together: Tensor, groups: Tensor | None = None
) -> Tensor:
    """Choose whole groups at random, so that of every class about the same share is chosen.

    Groups are looked at in a random order, again and again, and each is taken or left as that
    brings the shares of the classes nearer: coordinate descent on the sum of their squared
    distances, to which a class adds 1 that has nothing chosen, or nothing left. Of several draws
    the best counts.
    StratifiedGroupKFold of scikit-learn places every group once, the most uneven first, so that one
    burst of most of a class is tested on, and the class hardly trained on.

    Args:
        targets: int64, N.
        share: between 0 and 1.
        seed: the choice is a function of it.
        together: int64, N: the same number for pictures that are not to be parted.
        groups: int64, N: the same number for copies; a group with copies under several labels is
            not chosen. None where no two are copies.

    Returns:
        bool, N. A class of which nothing can be chosen, or nothing left, without parting a group
        is all on one side.
    """
    numbers, classes = (part.unique(return_inverse=True)[1] for part in (together, targets))
    counts = np.zeros((int(numbers.max()) + 1, int(classes.max()) + 1))
    np.add.at(counts, (numbers.numpy(), classes.numpy()), 1)
    allowed = torch.ones(len(counts), dtype=torch.bool)
    if groups is not None:
        torn = copies.conflicting(groups.unique(return_inverse=True)[1], targets)
        allowed[numbers[torn]] = False
    candidates = allowed.nonzero()[:, 0]
    weights = counts / counts.sum(0)
    generator = torch.Generator().manual_seed(seed)
    best, chosen = (np.inf, np.inf), np.zeros(len(counts), bool)
    for _ in range(max(1, min(TRIES, VISITS // max(1, len(candidates))))):
        order = candidates[torch.randperm(len(candidates), generator=generator)]
        drawn = _drawn(weights, share, order.tolist())
        shares = weights[drawn].sum(0)
        found = (int(_one_sided(shares).sum()), float(np.abs(shares - share).max()))
        if found < best:
            best, chosen = found, drawn
        if best <= (0, CLOSE):
            break
    return torch.from_numpy(chosen)[numbers]


def _drawn(weights: np.ndarray, share: float, order: Sequence[int]) -> np.ndarray:
    """Return which groups are taken, bool, G, looked at in an order until no change helps.

    Args:
        weights: float64, G×C: how much of each class a group holds, in 0…1.
        share: that is wanted of each class.
        order: of the groups that may be taken.
    """
    taken, shares, changed = np.zeros(len(weights), bool), np.zeros(weights.shape[1]), True
    cost = _cost(shares, share)
    while changed:
        changed = False
        for group in order:
            moved = shares - weights[group] if taken[group] else shares + weights[group]
            if (costs := _cost(moved, share)) < cost - 1e-9:
                taken[group] ^= True
                shares, cost, changed = moved, costs, True
    return taken


def _cost(shares: np.ndarray, share: float) -> float:
    return float(((shares - share) ** 2 + _one_sided(shares)).sum())


def _one_sided(shares: np.ndarray) -> np.ndarray:
    """Return of which classes nothing is chosen, or all, up to rounding: bool, C."""
    return (shares < 1e-9) | (shares > 1 - 1e-9)


# In words


def shares_of_classes(targets: Tensor, part: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Return the share of each class that a part holds, in [0, 1].

    Args:
        targets: int64, N.
        part: bool, N.
        classes: names of the classes, all of which have pictures.
    """
    return {name: part[targets == i].float().mean().item() for i, name in enumerate(classes)}


def shares_in_words(shares: Mapping[str, float], share: float, whole: str = "groups") -> str:
    """Return what a part holds of each class, and which classes are far from the share wanted.

    Args:
        shares: from `shares_of_classes`.
        share: that was wanted.
        whole: what could not be parted to come nearer.
    """
    low, high = (as_percent(bound(shares.values()), 0) for bound in (min, max))
    told = f"{low} of each class" if low == high else f"{low} to {high} of each class"
    far = [f"{name} {as_percent(held, 0)}" for name, held in shares.items() if is_far(held, share)]
    if not far:
        return told
    return f"{told}; whole {whole} came no nearer to {as_percent(share, 0)} of: {few(far)}"


def is_far(held: float, share: float) -> bool:
    """Tell whether the share that is held of a class is not what was wanted, nor near it."""
    return abs(held - share) > NEAR_ENOUGH


def series_in_words(names: Sequence[str], in_test: np.ndarray) -> list[str]:
    """Return a note on names that look like series, such as bursts, which a drawn split parts.

    A series is what names share that differ in their last number alone, if a number comes before
    it, as in burst_01_1.jpg and not in IMG_0412.jpg, unless half of a folder is called so.

    Args:
        names: of each picture, from the folder of the pictures.
        in_test: bool, N.
    """
    found = [re.fullmatch(SERIES, name) for name in names]
    stems = np.array([match[1] if match else "" for match in found])
    folders = Counter(os.path.dirname(name) for name in names)
    sizes = Counter(stems)
    parted = {
        stem
        for stem in {*stems[in_test]} & {*stems[~in_test]} - {""}
        if 2 * sizes[stem] < folders[os.path.dirname(stem)]
    }
    if not parted:
        return []
    tested = int(np.isin(stems[in_test], list(parted)).sum())
    return [
        f"Series? The names {few(f'{printable(stem)}…' for stem in parted)} lie on both sides of "
        f"the split, with {tested:,} of {int(in_test.sum()):,} test pictures. If those of a series "
        "show the same, accuracy on them says little about others: "
        f'keep_together="{SERIES_BELOW}" keeps each on one side.'
    ]


def parted_in_words(together: Tensor, in_test: Tensor, rule: str) -> list[str]:
    """Return a note on groups that a split parts which a person gave, if any.

    Args:
        together: int64, N: the same number for pictures of a group.
        in_test: bool, N.
        rule: that made the groups.
    """
    parted = torch.isin(together, together[~in_test]) & in_test
    if not parted.any():
        return []
    number = len(together[parted].unique())
    return [
        f"keep_together {brief(rule)}: {counted(number, 'group')} "
        f"{'lies' if number == 1 else 'lie'} on both sides of the split that was given, with "
        f"{int(parted.sum()):,} of {int(in_test.sum()):,} test pictures. Accuracy on them says "
        "little about new groups. The split is left as it is."
    ]
