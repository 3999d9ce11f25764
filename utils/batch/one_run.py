"""One run of a batch, where a worker has it: in a process of its own, with a log beside it.

The run's folder is the record. It says what there is to do, and afterwards what came of it; what
goes back to whoever planned the batch only says so sooner. Needs no torch.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from utils import InputError, first_line, printable
from utils.files import ROOT, writing
from utils.locks import TIED, is_held
from utils.runs import HELD_RUN, Run, now

#: What there is of a run: nothing; a part, to go on with; a failure; all that was asked for.
NEW, INTERRUPTED, FAILED, COMPLETE = "new", "interrupted", "failed", "complete"
#: So often in a row a run is begun without getting any further before the worker dies that has it;
#: then it is held to be the reason.
ATTEMPTS = 4
#: Of one run, what was said while it ran, and how often it was begun in the batch at work.
LOG, BEGUN = "log.txt", ".begun.json"
#: Seconds between two looks whether another process has let go of a run.
POLL = 1.0
#: Bytes at the end of a log in which the reason of a failure is looked for.
LAST_WORDS = 65_536
#: What libraries read how many threads they may start from.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class RunFailedError(RuntimeError):
    """A run did not complete. The message says why, in one sentence."""


@dataclass(frozen=True)
class Task:
    """A run of a batch, as it is sent to a worker.

    Attributes:
        name: of the run.
        output_dir: in which its folder lies, absolute, the same for every worker.
        parameters: by name, as for `utils.pipeline.sequence.run_notebooks`.
        notebooks: which, in order.
        threads: how many its process computes with; None leaves that to the worker's environment.
    """

    name: str
    output_dir: str
    parameters: Mapping = field(default_factory=dict)
    notebooks: Sequence[str] = ()
    threads: int | None = None

    @property
    def run(self) -> Run:
        """The run itself, on this machine."""
        return Run(self.name, self.output_dir)


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        name: of the run.
        reason: why it failed; empty if it is complete.
        seconds: that a worker spent on it, from the last time it was begun.
        taken_over: whether another worker had begun it in this batch, and was lost.
    """

    name: str
    reason: str = ""
    seconds: float = 0.0
    taken_over: bool = False


#: Does the work of a run, and raises where it cannot be done.
Runner = Callable[[Task], None]


def state_of(run: Run, notebooks: Sequence[str]) -> str:
    """Return what there is of a run, as its folder says: one of the four words above.

    Args:
        run: may have no folder yet.
        notebooks: what it takes to be complete.

    Raises:
        InputError: what is there cannot be read.
    """
    record = run.record
    status, noted = record.get("status"), record.get("failure")
    if noted is not None:
        was_stopped = isinstance(noted, Mapping) and noted.get("error") == "interrupted"
        return INTERRUPTED if was_stopped else FAILED
    if status in (None, "failed"):
        return NEW if status is None else FAILED
    is_whole = status == "complete" and set(notebooks) <= record.get("seconds", {}).keys()
    return COMPLETE if is_whole else INTERRUPTED


def run_task(task: Task, runner: Runner) -> Outcome:
    """Do a run on a worker, unless its folder says what became of it, and note there if it fails.

    A run that another process holds is waited for. One whose worker died goes on, unless it got no
    further the last times that it was begun.

    Returns:
        what became of it: whatever goes wrong is this run's alone, and raises nothing.
    """
    begun, taken_over = time.monotonic(), task.run.has(BEGUN)
    try:
        reason = _attempt(task, runner)
    except Exception as error:  # of any kind: the worker has other runs to do
        reason = printable(first_line(error))
    return Outcome(task.name, reason, time.monotonic() - begun, taken_over)


def _attempt(task: Task, runner: Runner) -> str:
    run = task.run
    while is_held(run.folder):
        time.sleep(POLL)
    state = state_of(run, task.notebooks)
    if state in (COMPLETE, FAILED):  # whoever had it died before that was told
        return run.failure if state == FAILED else ""
    if _note_begun(run) > ATTEMPTS:
        reason = f"its worker died {ATTEMPTS} times before it got any further"
    else:
        reason = _reason_to_fail(task, runner)
    if reason:
        note_failure(run, reason)
    forget_begun(run)
    return reason


def _reason_to_fail(task: Task, runner: Runner) -> str:
    try:
        runner(task)
    except Exception as error:
        return printable(first_line(error))
    return ""


def note_failure(run: Run, reason: str) -> None:
    """Note in a run's folder why it failed, unless that stands there or another process has it.

    On a full disk nothing can be noted. The run is then one to go on with.
    """
    with suppress(InputError, OSError):
        if not run.failure and not is_held(run.folder):
            status = "complete" if run.is_trained else "failed"
            run.update_record(status=status, failure={"error": reason})


def begin_anew(run: Run) -> None:
    """Make a run that failed one to go on with, whatever comes between.

    Raises:
        InputError: its folder cannot be written to.
    """
    run.update_record(failure={"error": "interrupted"})


def _note_begun(run: Run) -> int:
    """Note that a run is begun, and return how often it now was since it last got further."""
    noted = run.read_json(BEGUN) if run.has(BEGUN) else {}
    steps = _steps_done(run)
    times = noted.get("times", 0) + 1 if steps == noted.get("steps") else 1
    run.write_json(BEGUN, {"times": times, "steps": steps})
    return times


def _steps_done(run: Run) -> int:
    """Return how many epochs and notebooks a run has behind it."""
    epochs = 0
    if run.has("metrics.csv"):
        epochs = len(run.path("metrics.csv").read_bytes().splitlines())
    return epochs + len(run.record.get("seconds", {}))


def forget_begun(run: Run) -> None:
    """Count anew how often a run is begun."""
    run.path(BEGUN).unlink(missing_ok=True)


# In a process of its own


def run_in_process(task: Task) -> None:
    """Do a run as ``python -m utils run`` does, in a process that ends with this one.

    What it prints is added to the run's log.

    Raises:
        RunFailedError: it failed; with its own last words.
        InputError: its log cannot be written.
    """
    log = task.run.path(LOG)
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as said:
            said.write(f"\n--- {now()}, {socket.gethostname()}: {task.name}\n".encode())
    with log.open("ab") as said:
        begin = said.tell()
        status = _wait_for(task, said)
    if status:
        raise RunFailedError(_last_words(log, begin, status))


def _wait_for(task: Task, said) -> int:
    with subprocess.Popen(
        command(task),
        cwd=ROOT,
        env=_environment(task),
        stdin=subprocess.PIPE,  # closed with this process: see `utils.locks.end_with_starter`
        stdout=said,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl+C reaches whoever planned the batch, and nobody else
    ) as process:
        return process.wait()


def command(task: Task) -> list[str]:
    """Return the command that does a run: the pipeline's own, with every value as it is."""
    numbers = ",".join(name[:2] for name in task.notebooks)
    begin = [sys.executable, "-m", "utils", "run", "--run-name", task.name, "--only", numbers]
    given = [("-p", name, repr(value)) for name, value in task.parameters.items()]
    return [*begin, "--output-dir", task.output_dir, *(part for each in given for part in each)]


def _environment(task: Task) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if name != HELD_RUN}
    threads = {} if task.threads is None else dict.fromkeys(THREADS, str(task.threads))
    return {**others, **threads, TIED: "1"}


def _last_words(log: Path, begin: int, status: int) -> str:
    """Return why a run failed: the error that it ended with, or else how its process ended."""
    if status < 0:
        return f"its process was killed by signal {-status}"
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - LAST_WORDS))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"its process ended with status {status} and said nothing"])[-1]
