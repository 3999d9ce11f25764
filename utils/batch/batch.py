"""A batch from beginning to end: what is asked for, what of it is there, and the rest done.

The folders of the runs are the record. So the same command goes on after anything: what is complete
is kept, what was interrupted goes on, and what failed is tried again when that is asked for.
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from utils import InputError, Interrupted, counted
from utils.batch.dispatch import Dispatcher
from utils.batch.estimate import Clock, expected_seconds, paces, seconds_until_done
from utils.batch.grid import Asked, cells, label, run_name
from utils.batch.one_run import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    LOG,
    NEW,
    Runner,
    Task,
    begin_anew,
    forget_begun,
    run_in_process,
    state_of,
)
from utils.batch.table import Table, in_words, summary
from utils.files import brief_path, resolve_path, unwritable
from utils.locks import HeldError, held_alone
from utils.runs import check_folder_name, list_runs
from utils.settings import PICTURES, names_of, split_count
from utils.training.preflight import (
    check_asked,
    check_begun,
    check_room_for_all,
    resolved_settings,
)


@dataclass(frozen=True)
class Batch:
    """Runs that are one piece of work.

    Attributes:
        folder: in which each has its own.
        tasks: the runs, in order.
        labels: what sets each apart from the others, by its name.
        kinds: the same but for the seed.
        notebooks: which each takes to be complete.
        elsewhere: whether workers of other machines do them, whose hardware is not known here.
    """

    folder: Path
    tasks: tuple[Task, ...]
    labels: Mapping[str, str]
    kinds: Mapping[str, str]
    notebooks: tuple[str, ...]
    elsewhere: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether its runs can only be done by workers that have a GPU."""
        return any(task.parameters.get("devices") == "gpu" for task in self.tasks)

    def states(self) -> dict[str, str]:
        """Return what there is of each run, by its name (`utils.batch.one_run.state_of`).

        Raises:
            InputError: what is there of one cannot be read.
        """
        return {task.name: state_of(task.run, self.notebooks) for task in self.tasks}

    def expected(self) -> dict[str, float | None]:
        """Return how many seconds each run will take by its name, as far as others show."""
        runs = [*list_runs(self.folder), *list_runs(self.folder.parent)]
        known = paces(runs, self.notebooks)
        return {
            task.name: expected_seconds(resolved_settings(task.parameters), known)
            for task in self.tasks
        }


def plan_batch(
    asked: Asked, notebooks: Sequence[str], threads: int | None = None, elsewhere: bool = False
) -> Batch:
    """Return the runs of a batch, every one of them checked, without starting anything.

    Args:
        asked: what a person wants.
        notebooks: which each run takes, in order.
        threads: how many each run computes with; None leaves that to its worker.
        elsewhere: whether workers of other machines will do them; each checks its own hardware.

    Raises:
        InputError: a name, parameter or value that cannot be used, or two runs that are the same.
    """
    if asked.name is None:
        raise InputError("The batch has no name. Give it one, with --name or in its file.")
    check_folder_name("The batch's name", asked.name)
    folder = resolve_path("outputs" if asked.output_dir is None else asked.output_dir) / asked.name
    if (folder / "run.json").exists():
        raise InputError(f"{folder} is a run, and no folder for others. Choose another --name.")
    tasks, labels, kinds = [], {}, {}
    for parameters in cells(asked):
        check_asked(parameters, notebooks, elsewhere)
        _check_shares_nothing(parameters.get("devices"))
        name, called = run_name(parameters), label(parameters, asked.varying)
        if name in labels:
            raise InputError(
                f"{called} and {labels[name]} are the same run. Leave one of them out."
            )
        tasks.append(Task(name, str(folder), parameters, tuple(notebooks), threads))
        labels[name] = called
        kinds[name] = label(parameters, [name for name in asked.varying if name != "seed"])
    return Batch(folder, tuple(tasks), labels, kinds, tuple(notebooks), elsewhere)


def _check_shares_nothing(devices: str | None) -> None:
    kind, count = split_count(devices)
    if count is not None:
        raise InputError(
            f"devices is {devices!r}, but a batch gives each run one device. Give {kind!r}; how "
            "many runs are done at once is --workers."
        )


def print_plan(batch: Batch, workers: int | None, retry_failed: bool) -> None:
    """Print every run of a batch, what there is of it, and how long the rest will take.

    Args:
        batch: from `plan_batch`.
        workers: how many runs will be done at once; None where a scheduler elsewhere knows.
        retry_failed: whether those that failed are tried again.
    """
    states, expected = batch.states(), batch.expected()
    width = max(map(len, batch.labels.values()))
    for task in batch.tasks:
        about = in_words(expected[task.name]) if states[task.name] != COMPLETE else ""
        print(f"{states[task.name]:12} {batch.labels[task.name]:{width}} {about:>9}  {task.name}")
    to_do = _to_do(batch, states, retry_failed)
    print(f"\n{_counts(batch, states)}\n{_estimate(to_do, expected, workers)}")


def _counts(batch: Batch, states: Mapping[str, str]) -> str:
    count = Counter(states.values())
    known = [f"{count[state]} {state}" for state in (COMPLETE, INTERRUPTED, FAILED) if count[state]]
    told = f", of which {', '.join(known)}" if known else ""
    return f"{counted(len(states), 'run')} in {brief_path(batch.folder)}{told}."


def _estimate(
    to_do: Collection[Task], expected: Mapping[str, float | None], workers: int | None
) -> str:
    known = [s for task in to_do if (s := expected[task.name]) is not None]
    told = f"To do: {counted(len(to_do), 'run')}"
    if not to_do or not known:
        unknown = " How long they take is known when the first is done." if to_do else ""
        return f"{told}.{unknown}"
    average = sum(known) / len(known)
    each = [s if (s := expected[task.name]) is not None else average for task in to_do]
    told += f", {in_words(sum(each))} of work as runs like them took"
    if len(known) < len(to_do):
        told += f" ({len(to_do) - len(known)} of them are like none, and taken for average)"
    if workers is None:
        return f"{told}."
    return f"{told}: {in_words(seconds_until_done(each, workers))} with {workers} at once."


def _to_do(batch: Batch, states: Mapping[str, str], retry_failed: bool) -> list[Task]:
    wanted = (NEW, INTERRUPTED, FAILED) if retry_failed else (NEW, INTERRUPTED)
    return [task for task in batch.tasks if states[task.name] in wanted]


def prepare(batch: Batch) -> None:
    """Fetch and decode every run's pictures once, and hold what was begun against what is asked.

    Raises:
        InputError: pictures that cannot be read, a run that was begun with other settings or on
            other pictures, or disks without room for the rest.
    """
    from utils.data.sources import load_pictures
    from utils.training.plan import OtherRunError

    groups: dict[str, list[Task]] = {}
    for task in batch.tasks:
        settings = resolved_settings(task.parameters)  # a recipe may bring its own size
        options = {name: settings[name] for name in names_of(PICTURES)}
        groups.setdefault(repr(options), []).append(task)
    for tasks in groups.values():
        pictures = load_pictures(**tasks[0].parameters)
        for task in tasks:
            try:
                check_begun(task.run, task.parameters, pictures, batch.elsewhere)
            except OtherRunError as error:
                raise InputError(
                    f"{error} In a batch: delete {task.run.folder}, or give another --name."
                ) from error
    if "03_training" in batch.notebooks:
        untrained = [task.parameters for task in batch.tasks if not task.run.is_trained]
        check_room_for_all(batch.folder, untrained)


def run_batch(
    batch: Batch,
    workers: Callable[[], AbstractContextManager[Client]],
    retry_failed: bool = False,
    runner: Runner = run_in_process,
    prepare: Callable[[Batch], None] = prepare,
    patience: float | None = None,
) -> int:
    """Do what is left of a batch, and print how far it is.

    Args:
        batch: from `plan_batch`.
        workers: yields who speaks with those who do the runs.
        retry_failed: whether runs that failed are tried again.
        runner: does the work of one run, on a worker.
        prepare: is called before any run starts.
        patience: seconds to wait for a worker when there is none; None waits for ever.

    Returns:
        how many runs are not complete now.

    Raises:
        InputError: another process is at the same batch, or `prepare` refuses it.
        SchedulerGoneError: the scheduler does not answer any more.
        Interrupted: a person stopped it.
    """
    with _held(batch.folder):
        states = batch.states()
        to_do = _to_do(batch, states, retry_failed)
        prepare(batch)
        for task in to_do:
            forget_begun(task.run)
            if states[task.name] == FAILED:
                begin_anew(task.run)
        print(_counts(batch, states))
        kinds = {task.name: batch.kinds[task.name] for task in to_do}
        table = Table(batch.labels, Clock(kinds, batch.expected()))
        if to_do:
            with _stopping_said(), workers() as client:
                _work(Dispatcher(client, to_do, runner, batch.on_gpu, patience), table)
        return _sum_up(batch, table.failed)


def _work(dispatcher: Dispatcher, table: Table) -> None:
    table.head()
    for outcome in dispatcher.outcomes():
        if outcome is None:
            table.breathe(dispatcher)
        else:
            table.ended(outcome, dispatcher)


def _sum_up(batch: Batch, reasons: Mapping[str, str]) -> int:
    """Print what came of all runs, as their folders say, and return how many are not complete."""
    count, failed, logs = Counter(), {}, {}
    for task in batch.tasks:
        state, called = state_of(task.run, batch.notebooks), batch.labels[task.name]
        if state != COMPLETE and (state == FAILED or task.name in reasons):
            failed[called] = reasons.get(task.name) or task.run.failure
            logs[called] = brief_path(task.run.path(LOG))
        else:
            count[state] += 1
    missing = len(batch.tasks) - count[COMPLETE] - len(failed)
    print(f"\n{summary(count[COMPLETE], failed, missing, logs)}")
    return len(failed) + missing


@contextmanager
def _held(folder: Path) -> Generator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(held_alone(folder))
        except HeldError as held:
            raise InputError(
                f"Batch {folder.name!r} in {folder.parent} is at work already, in {held}. Wait for "
                "it, stop it, or choose another --name."
            ) from None
        except OSError as error:
            raise unwritable(folder, error) from error
        yield


@contextmanager
def _stopping_said() -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "The batch was stopped. Complete runs are kept, the others keep their finished epochs, "
            "and the same command goes on."
        ) from None
