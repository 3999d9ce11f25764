"""Hard pictures: which test pictures are wrong in all runs, in some of them, and in none."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from utils import InputError, as_percent, counted
from utils.explain.many_runs import Gathered

#: How often a picture may be wrong over all runs.
NEVER, SOMETIMES, ALWAYS = "never wrong", "sometimes wrong", "always wrong"


def times_wrong(gathered: Gathered) -> np.ndarray:
    """Return of each test picture how many runs are wrong on it: int64, N."""
    return (~gathered.right).sum(axis=0)


def kinds(gathered: Gathered) -> np.ndarray:
    """Return of each test picture whether it is `ALWAYS`, `SOMETIMES` or `NEVER` wrong: text, N."""
    wrong = times_wrong(gathered)
    inner = np.where(wrong == 0, NEVER, SOMETIMES)
    return np.where(wrong == len(gathered.outcomes), ALWAYS, inner)


def by_chance(gathered: Gathered) -> np.ndarray:
    """Return how many pictures would be wrong so many times, fell mistakes on any picture alike.

    Every run keeps its own accuracy, and errs on pictures drawn by lot.

    Returns:
        float, runs + 1: the expected number of pictures that are wrong 0, 1, 2 … times.
    """
    expected = np.ones(1)
    for share in gathered.right.mean(axis=1):
        expected = np.convolve(expected, [share, 1 - share])
    return expected * gathered.target.size


def picture_table(gathered: Gathered) -> pd.DataFrame:
    """Return a row a test picture: what it is, how often it is wrong, and what it is taken for.

    Returns:
        ``index``, ``actual`` (a class's name), ``wrong`` (in how many runs), ``kind``,
        ``taken_for`` (of the wrong answers the most frequent; empty without any), ``agreeing`` (how
        many runs give that one), and the share of each group's runs that are right, as
        ``right: group``.
    """
    classes = np.asarray([*gathered.classes, ""], dtype=object)
    taken_for, agreeing = _most_frequent_mistake(gathered)
    shares = {
        f"right: {name}": gathered.right[(gathered.labels == name).to_numpy()].mean(axis=0)
        for name in gathered.names
    }
    return pd.DataFrame(
        {
            "index": np.arange(gathered.target.size),
            "actual": classes[gathered.target],
            "wrong": times_wrong(gathered),
            "kind": kinds(gathered),
            "taken_for": classes[np.where(agreeing, taken_for, -1)],
            "agreeing": agreeing,
            **shares,
        }
    )


def _most_frequent_mistake(gathered: Gathered) -> tuple[np.ndarray, np.ndarray]:
    """Return of each picture the most frequent wrong answer, and how many runs give it."""
    votes = np.zeros((len(gathered.classes), gathered.target.size), np.int64)
    for predicted, right in zip(gathered.predicted, gathered.right, strict=True):
        mistaken = np.flatnonzero(~right)
        votes[predicted[mistaken], mistaken] += 1
    return votes.argmax(axis=0), votes.max(axis=0)


def examples(table: pd.DataFrame, runs: int, count: int, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Return some rows of `picture_table` of each kind, to be shown.

    Of those always wrong, the ones on whose wrong class most runs agree; of those sometimes wrong,
    the ones nearest to half of the runs; of those never wrong, any.

    Args:
        table: of `picture_table`.
        runs: how many runs it is of.
        count: rows of a kind at most.
        seed: draws which of equal ones are shown: the first would all be of one class, where
            pictures are kept by class.
    """
    drawn = table.sample(frac=1, random_state=seed)
    ranked = {
        ALWAYS: -table["agreeing"],
        SOMETIMES: (table["wrong"] - runs / 2).abs(),
        NEVER: table["index"] * 0,
    }
    chosen = {}
    for kind, rank in ranked.items():
        some = drawn[drawn["kind"] == kind]
        chosen[kind] = some.loc[rank[some.index].sort_values(kind="stable").index[:count]]
    return chosen


def pictures_to_show(
    gathered: Gathered,
    kinds: Mapping[str, pd.DataFrame],
    data_dir: str | None = None,
    dataset: str | None = None,
) -> tuple[dict[str, np.ndarray], str]:
    """Return the pictures of `examples`, from the first run's data, where these can still be read.

    Args:
        gathered: whose.
        kinds: as `examples` gives them.
        data_dir, dataset: as `utils.data.sources.pictures_of` takes them.

    Returns:
        by kind, uint8, N×3×H×W, and an empty text; or nothing, and the reason.

    Raises:
        InputError: `dataset` was given, and does not hold them.
    """
    from utils.data.sources import pictures_of

    try:
        pictures = pictures_of(gathered.outcomes[0].run, data_dir, dataset)
    except InputError as error:
        if dataset is not None:
            raise
        return {}, str(error)
    images = pictures.test.images
    return {kind: images[some["index"].to_list()].numpy() for kind, some in kinds.items()}, ""


# In words


def kinds_in_words(gathered: Gathered) -> str:
    """Return how many test pictures are always, sometimes and never wrong, and by chance."""
    counts = {kind: int((kinds(gathered) == kind).sum()) for kind in (ALWAYS, SOMETIMES, NEVER)}
    size, runs, chance = gathered.target.size, len(gathered.outcomes), by_chance(gathered)
    told = "; ".join(
        f"{count:,} {kind} ({as_percent(count / size)})" for kind, count in counts.items()
    )
    return (
        f"Of {counted(size, 'test picture')}, over {counted(runs, 'run')}: {told}.\n"
        f"Fell mistakes on any picture alike, {chance[-1]:,.1f} would be {ALWAYS} and "
        f"{chance[0]:,.0f} {NEVER}."
    )


def agreement_in_words(table: pd.DataFrame, classes: int) -> str:
    """Return how often all runs take a picture that is always wrong for the same class.

    Args:
        table: of `picture_table`.
        classes: how many there are; of two, any two mistakes on a picture are the same.
    """
    always = table[table["kind"] == ALWAYS]
    if always.empty:
        return "No picture is wrong in all runs."
    if classes == 2:
        return f"{counted(len(always), 'picture')} wrong in all runs: look at their labels first."
    same = int((always["agreeing"] == always["wrong"]).sum())
    told = f"Of {counted(len(always), 'picture')} that all runs get wrong, all take"
    if not same:
        return f"{told} none for the same class."
    return f"{told} {same:,} for the same class: look at the labels of these first."
