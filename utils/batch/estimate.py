"""How long runs will take, as those like them took that are complete."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapreplace
from typing import NamedTuple

from utils.runs import Run
from utils.settings import PICTURES, RECIPE, names_of
from utils.training.recipes import UNSAID

#: Settings by which runs are alike, but for the number of epochs: time is in proportion to that.
ALIKE = tuple(
    name
    for name in (*names_of(RECIPE), *names_of(PICTURES))
    if name not in ("epochs", "batch_size", "max_lr", "data_dir", "dataset_title")
)

#: The notebook of which training is a part.
TRAINS = "03_training"


class Pace(NamedTuple):
    """What a complete run took, in seconds: each epoch that its notebooks train, and the rest."""

    epoch: float
    rest: float


def paces(runs: Iterable[Run], notebooks: Sequence[str]) -> dict[tuple, list[Pace]]:
    """Return what complete runs took for these notebooks, by what they are alike in."""
    found: dict[tuple, list[Pace]] = {}
    needed = {*notebooks, "training"} if TRAINS in notebooks else {*notebooks}
    for run in runs:
        record = run.record
        settings, seconds = UNSAID | record.get("settings", {}), record.get("seconds", {})
        is_whole = needed <= seconds.keys() and "epochs" in settings
        if record.get("status") == "complete" and is_whole:
            pace = _pace(seconds, notebooks, settings["epochs"])
            found.setdefault(_alike(settings), []).append(pace)
    return found


def _pace(seconds: Mapping[str, float], notebooks: Sequence[str], epochs: int) -> Pace:
    rest = sum(seconds[name] for name in notebooks if name != TRAINS)
    if TRAINS not in notebooks:
        return Pace(0.0, rest)
    # gone over again, the notebook reuses what is trained, and took less than the training did
    around = max(0.0, seconds[TRAINS] - seconds["training"])
    return Pace(seconds["training"] / epochs, rest + around)


def expected_seconds(settings: Mapping, known: Mapping[tuple, list[Pace]]) -> float | None:
    """Return how long a run will take if it takes what those like it did on average.

    Args:
        settings: all of the run's, resolved.
        known: from `paces`.

    Returns:
        seconds; None where no run like it is complete.
    """
    like = known.get(_alike(settings), [])
    if not like:
        return None
    return statistics.mean(settings["epochs"] * pace.epoch + pace.rest for pace in like)


def _alike(settings: Mapping) -> tuple:
    return tuple(settings.get(name) for name in ALIKE)


def seconds_until_done(each: Iterable[float], workers: int) -> float:
    """Return in how many seconds runs are done, each in turn by the worker that is free first.

    Args:
        each: the seconds that every run takes, in order.
        workers: how many are done at once; at least one.

    >>> seconds_until_done([60.0, 60.0], 16), seconds_until_done([60.0, 60.0, 60.0], 2)
    (60.0, 120.0)
    """
    free_at = [0.0] * workers
    for seconds in each:
        heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


class Clock:
    """Says how long runs take, first as was expected, then as those took that are done.

    Args:
        kinds: what each run that is to be done is but for its seed, by name.
        expected: seconds that each will take, by name, as far as that is known before any is done.
    """

    def __init__(self, kinds: Mapping[str, str], expected: Mapping[str, float | None]):
        self._kinds, self._open = kinds, dict(kinds)
        self._expected = {kind: expected.get(name) for name, kind in kinds.items()}
        self._spent, self._done = defaultdict[str, float](float), Counter[str]()

    def ended(self, name: str, seconds: float | None) -> None:
        """Take note of a run that ended; None tells that it failed, and says nothing of others."""
        del self._open[name]
        if seconds is not None:
            self._spent[self._kinds[name]] += seconds
            self._done[self._kinds[name]] += 1

    def seconds_of(self, kind: str) -> float | None:
        """Return how long a run takes: as its kind did, as expected, or as any; None before any."""
        if self._done[kind]:
            return self._spent[kind] / self._done[kind]
        if self._expected[kind] is not None or not self._done.total():
            return self._expected[kind]
        return sum(self._spent.values()) / self._done.total()

    def left(self, under_way: Mapping[str, float], workers: int) -> float | None:
        """Return in how many seconds all will be done; None where that is not known.

        Args:
            under_way: for how many seconds each run has been that is neither waiting nor ended.
            workers: how many are done at once.

        >>> clock = Clock({"a": "slow", "b": "slow", "c": "fast"}, {"c": 10.0})
        >>> clock.ended("a", 60.0)
        >>> clock.left({"b": 20.0}, 2)
        40.0
        """
        seconds = {kind: self.seconds_of(kind) for kind in self._open.values()}
        known = {kind: each for kind, each in seconds.items() if each is not None}
        if len(known) < len(seconds) or not workers:
            return None
        begun_first = sorted(self._open, key=lambda name: name not in under_way)
        remainders = (
            max(0.0, known[self._kinds[name]] - under_way.get(name, 0.0)) for name in begun_first
        )
        return seconds_until_done(remainders, workers)
