"""Runs given to workers, no more at a time than they can do, and what comes back.

Dask holds a worker's death against all that the worker was given, begun or not. So it is given
nothing that would wait, and how often a run was begun is counted in its own folder.
"""

import queue
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from distributed import CancelledError, Client, Future, KilledWorker

from utils import InputError, first_line
from utils.batch.one_run import ATTEMPTS, Outcome, Runner, Task, note_failure, run_task
from utils.batch.workers import GPU

#: Seconds between two looks at how many workers there are, and without news until the next word.
PULSE = 1.0


class SchedulerGoneError(InputError):
    """Nobody answers at the scheduler's any more."""


class Dispatcher:
    """Gives runs to workers, in order.

    Args:
        client: speaks with the scheduler.
        tasks: the runs.
        runner: does the work of one, on a worker.
        on_gpu: only on workers that are labelled as having one.
        patience: seconds to wait for a worker when there is none; None waits for ever.

    Attributes:
        waiting: runs that no worker was given yet.
        under_way: when each run was given to a worker, by name, in seconds of `time.monotonic`.
        workers: how many runs the workers there are can do at once.
    """

    def __init__(
        self,
        client: Client,
        tasks: Iterable[Task],
        runner: Runner,
        on_gpu: bool = False,
        patience: float | None = None,
    ):
        self.waiting, self.under_way, self.workers = deque(tasks), dict[str, float](), 0
        self._client, self._runner, self._patience = client, runner, patience
        self._counted, self._last_seen = -PULSE, time.monotonic()
        self._label = {GPU: 1} if on_gpu else None
        self._given_out: dict[object, tuple[Task, Future]] = {}
        self._times: Counter[str] = Counter()
        self._news: queue.SimpleQueue[Future] = queue.SimpleQueue()

    def outcomes(self) -> Iterator[Outcome | None]:
        """Yield what became of each run as soon as it is known, and None where there is no news.

        Raises:
            SchedulerGoneError: the scheduler does not answer any more.
            InputError: the workers are not of this project, or there is none.
        """
        while self.waiting or self.under_way:
            self._give_out()
            try:
                future = self._news.get(timeout=PULSE)
            except queue.Empty:
                yield None
                continue
            outcome = self._outcome(future)
            if outcome is not None:
                yield outcome

    def _give_out(self) -> None:
        if time.monotonic() - self._counted >= PULSE:
            self.workers, self._counted = self._count_workers(), time.monotonic()
            self._check_patience()
        while self.waiting and len(self.under_way) < self.workers:
            self._give(self.waiting.popleft())

    def _count_workers(self) -> int:
        try:
            workers = self._client.scheduler_info()["workers"].values()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise self._gone(error) from error
        if self._label:
            return sum(int(worker["resources"].get(GPU, 0)) for worker in workers)
        return sum(worker["nthreads"] for worker in workers)

    def _check_patience(self) -> None:
        if self.workers:
            self._last_seen = self._counted
        elif self._patience is not None and self._counted - self._last_seen > self._patience:
            raise InputError(
                f"There has been no worker for {self._patience:.0f} seconds. What is finished is "
                "kept, and the same command goes on with new ones."
            )

    def _give(self, task: Task) -> None:
        self._times[task.name] += 1
        key = f"{task.name}-{self._times[task.name]}-{time.time_ns()}"  # of no other batch
        future = self._client.submit(
            run_task, task, self._runner, key=key, pure=False, resources=self._label
        )
        self._given_out[key] = task, future
        self.under_way[task.name] = time.monotonic()
        future.add_done_callback(self._news.put)

    def _outcome(self, future: Future) -> Outcome | None:
        """Return what became of a run; None where it goes back among those that wait."""
        task, _ = self._given_out.pop(future.key)
        since = self.under_way.pop(task.name)
        try:
            return future.result()
        except KilledWorker:
            return self._after_deaths(task, time.monotonic() - since)
        except (CancelledError, OSError, TimeoutError) as error:
            raise self._gone(error) from error
        except Exception as error:  # nothing that a run does comes to this
            raise InputError(
                f"The workers cannot do runs ({first_line(error)}). Start them where this project "
                "and its dependencies are installed, in the same versions as here."
            ) from error

    def _after_deaths(self, task: Task, seconds: float) -> Outcome | None:
        if self._times[task.name] < ATTEMPTS:
            self.waiting.appendleft(task)
            return None
        reason = "workers died again and again when they were given it"
        note_failure(task.run, reason)
        return Outcome(task.name, reason, seconds)

    def _gone(self, error: BaseException) -> SchedulerGoneError:
        return SchedulerGoneError(
            f"The scheduler is gone ({first_line(error)}). What is finished is kept in the runs' "
            "folders, and runs that were under way keep their finished epochs: start a scheduler, "
            "and the same command goes on."
        )
