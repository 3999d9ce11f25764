"""How far a batch is, in plain text: lines that a terminal and a log show alike."""

import time
from collections.abc import Mapping

from utils import counted
from utils.batch.dispatch import Dispatcher
from utils.batch.estimate import Clock
from utils.batch.one_run import Outcome

#: Seconds between two lines while nothing ends.
BREATH = 60.0
#: Runs under way that a line names.
FEW = 3
HEAD = f"{'time':>9} {'waiting':>8} {'running':>8} {'done':>6} {'failed':>7} {'left':>9}"


def in_words(seconds: float | None) -> str:
    """Return a span of time as hours, minutes and seconds; a dash for one that is not known.

    >>> [in_words(seconds) for seconds in (4.4, 3725, 360_000, None)]
    ['0:00:04', '1:02:05', '100:00:00', '–']
    """
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Table:
    """Prints a line whenever a run ends, and now and then in between.

    Args:
        labels: what each run is called in it, by name.
        clock: how long runs take.

    Attributes:
        done: how many runs were completed.
        failed: why each of those failed that did, by name.
    """

    def __init__(self, labels: Mapping[str, str], clock: Clock):
        self.done, self.failed = 0, dict[str, str]()
        self._labels, self._clock = labels, clock
        self._begun, self._last = time.monotonic(), -BREATH

    def head(self) -> None:
        """Print what stands in the columns."""
        print(f"{HEAD}  what happened", flush=True)

    def ended(self, outcome: Outcome, at: Dispatcher) -> None:
        """Count what became of a run, and print a line about it."""
        called = self._labels[outcome.name]
        is_whole = not (outcome.reason or outcome.taken_over)
        self._clock.ended(outcome.name, outcome.seconds if is_whole else None)
        if outcome.reason:
            self.failed[outcome.name] = outcome.reason
            told = f"failed: {called}: {outcome.reason}"
        else:
            self.done += 1
            told = f"done: {called}, in {in_words(outcome.seconds)}"
            told += " since it was taken over from a worker that died" if outcome.taken_over else ""
        self._print(told, at)

    def breathe(self, at: Dispatcher) -> None:
        """Print a line if there was none for a while."""
        if time.monotonic() - self._last < BREATH:
            return
        names = [self._labels[name] for name in list(at.under_way)[:FEW]]
        more = f" and {len(at.under_way) - FEW} more" if len(at.under_way) > FEW else ""
        told = f"at work: {', '.join(names)}{more}" if names else "waiting for a worker"
        self._print(told, at)

    def _print(self, told: str, at: Dispatcher) -> None:
        self._last = now = time.monotonic()
        under_way = {name: now - since for name, since in at.under_way.items()}
        left = self._clock.left(under_way, at.workers)
        counts = f"{len(at.waiting):8} {len(under_way):8} {self.done:6} {len(self.failed):7}"
        print(f"{in_words(now - self._begun):>9} {counts} {in_words(left):>9}  {told}", flush=True)


def summary(complete: int, failed: Mapping[str, str], missing: int, logs: Mapping[str, str]) -> str:
    """Return what came of a batch: how many runs are complete, and which failed, why, and where.

    Args:
        complete: how many runs are.
        failed: the reason of each that failed, by what it is called.
        missing: how many are neither.
        logs: where each that failed says more.
    """
    lines = [f"{counted(complete, 'run')} complete, {len(failed)} failed, {missing} not finished."]
    lines += [f"failed: {name}: {reason} ({logs[name]})" for name, reason in failed.items()]
    return "\n".join(lines)
