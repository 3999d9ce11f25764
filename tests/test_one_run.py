"""One run of a batch: what its folder says of it, and what becomes of it on a worker."""

import errno
import os
import sys
import threading
import time

import pytest

from utils.batch import one_run
from utils.batch.one_run import (
    ATTEMPTS,
    COMPLETE,
    FAILED,
    INTERRUPTED,
    LOG,
    NEW,
    RunFailedError,
    Task,
    begin_anew,
    command,
    forget_begun,
    note_failure,
    run_in_process,
    run_task,
    state_of,
)
from utils.locks import TIED, held_alone
from utils.runs import HELD_RUN

NOTEBOOKS = ("03_training", "04_curves")
SECONDS = dict.fromkeys(NOTEBOOKS, 1.0)


@pytest.fixture
def task(tmp_path):
    return Task("run", str(tmp_path), {"seed": 1}, NOTEBOOKS)


def complete(task):
    task.run.update_record(status="complete", seconds=SECONDS)


def refuse(task):
    raise AssertionError("it was begun")


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({}, NEW),
        ({"seconds": {"01_data_exploration": 1.0}}, NEW),
        ({"status": "running"}, INTERRUPTED),
        ({"status": "complete", "seconds": {"03_training": 1.0}}, INTERRUPTED),
        ({"status": "complete", "seconds": SECONDS}, COMPLETE),
        ({"status": "failed"}, FAILED),
        ({"status": "failed", "failure": {"error": "interrupted"}}, INTERRUPTED),
        ({"status": "failed", "failure": {"error": "no memory"}}, FAILED),
        ({"status": "complete", "seconds": SECONDS, "failure": {"error": "no memory"}}, FAILED),
        ({"status": "complete", "seconds": SECONDS, "failure": "no memory"}, FAILED),
    ],
)
def test_a_folder_says_what_there_is_of_a_run(task, record, state):
    task.run.update_record(**record)
    assert state_of(task.run, NOTEBOOKS) == state


def test_a_run_without_a_folder_is_new(task):
    assert state_of(task.run, NOTEBOOKS) == NEW


def test_a_run_that_is_complete_is_not_begun_again(task):
    complete(task)
    assert run_task(task, refuse).reason == ""


def test_a_failure_is_noted_and_told_and_a_run_that_failed_can_be_begun_anew(task):
    def fail(_):
        raise MemoryError("no room for a tensor\nand a page of traceback")

    outcome = run_task(task, fail)
    assert (outcome.name, outcome.reason) == ("run", "no room for a tensor")
    assert state_of(task.run, NOTEBOOKS) == FAILED
    assert run_task(task, refuse).reason == task.run.failure == "no room for a tensor"
    begin_anew(task.run)
    assert state_of(task.run, NOTEBOOKS) == INTERRUPTED
    assert run_task(task, complete).reason == ""
    assert sorted(os.listdir(task.run.folder)) == ["run.json"]


def test_what_the_pipeline_noted_of_a_failure_stands(task):
    def fail(task):
        noted = {"notebook": "03_training", "cell": 5, "error": "no memory"}
        task.run.update_record(status="failed", failure=noted)
        raise RunFailedError("03_training failed in cell [5]: no memory")

    assert run_task(task, fail).reason == "03_training failed in cell [5]: no memory"
    assert task.run.record["failure"]["cell"] == 5


def test_a_full_disk_is_that_run_s_own_trouble(task, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    reason = run_task(task, refuse).reason
    assert "cannot be written: No space left on device. Free some space there" in reason
    note_failure(task.run, reason)  # which is as full
    monkeypatch.undo()
    assert state_of(task.run, NOTEBOOKS) == NEW


def test_a_run_that_another_process_holds_is_waited_for(task, monkeypatch):
    monkeypatch.setattr(one_run, "POLL", 0.01)
    outcomes = []
    with held_alone(task.run.folder):
        waiting = threading.Thread(target=lambda: outcomes.append(run_task(task, refuse)))
        waiting.start()
        time.sleep(0.1)
        assert not outcomes
        complete(task)
    waiting.join()
    assert [outcome.reason for outcome in outcomes] == [""]


def test_a_failure_of_a_run_that_another_process_took_up_is_not_noted(task):
    with held_alone(task.run.folder):
        note_failure(task.run, "it is being written by another process")
    assert task.run.record == {}


class WorkerDiedError(BaseException):
    """Stands for the end of the process: nothing that catches errors catches it."""


def die(task):
    raise WorkerDiedError


def test_a_run_whose_workers_die_is_given_up_unless_it_gets_further(task):
    for epoch in range(2 * ATTEMPTS):
        with pytest.raises(WorkerDiedError):
            run_task(task, die)
        task.run.path("metrics.csv").write_text("epoch\n" + "1\n" * epoch)
    for _ in range(ATTEMPTS - 1):  # no further than before
        with pytest.raises(WorkerDiedError):
            run_task(task, die)
    with pytest.raises(WorkerDiedError):
        run_task(task, die)
    assert (
        run_task(task, refuse).reason
        == f"its worker died {ATTEMPTS} times before it got any further"
    )
    assert state_of(task.run, NOTEBOOKS) == FAILED


def test_another_batch_counts_anew(task):
    for _ in range(ATTEMPTS):
        with pytest.raises(WorkerDiedError):
            run_task(task, die)
    forget_begun(task.run)
    done = run_task(task, complete)
    assert done.reason == "" and not done.taken_over


def test_a_run_that_goes_on_with_another_worker_says_so(task):
    with pytest.raises(WorkerDiedError):
        run_task(task, die)
    assert run_task(task, complete).taken_over


# In a process of its own


def test_values_arrive_as_they_were(tmp_path):
    from utils import cli

    parameters = {
        "dataset": str(tmp_path), "recipe": None, "max_lr": "found", "epochs": 5,
        "val_fraction": 0.1, "skip_unreadable": True, "dataset_title": "it's \"so\" 007",
        "limit_train": None,
    }  # fmt: skip
    task = Task("run", str(tmp_path / "outputs"), parameters, NOTEBOOKS)
    python, _, module, *given = command(task)
    assert (python, module) == (sys.executable, "utils")
    options = cli._parser().parse_args(given)
    assert cli._run_parameters(options) == parameters
    assert (options.run_name, options.output_dir) == ("run", str(tmp_path / "outputs"))
    assert options.only == "03,04"


@pytest.fixture
def instead(monkeypatch):
    """Let the process of a run be one that does what it is told."""

    def does(code):
        monkeypatch.setattr(one_run, "command", lambda _: [sys.executable, "-c", code])

    return does


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "print('error: no\\nerror: 03 failed in cell [2]\\nSee'); exit(1)",
            "03 failed in cell [2]",
        ),
        ("print('much\\rthe last words  '); exit(3)", "the last words"),
        ("exit(3)", "its process ended with status 3 and said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "its process was killed by signal 9"),
    ],
)
def test_the_last_words_of_a_process_are_the_reason(task, instead, code, said):
    instead(code)
    with pytest.raises(RunFailedError) as failed:
        run_in_process(task)
    assert str(failed.value).startswith(said)


def test_every_attempt_is_in_the_log(task, instead):
    for number in range(2):
        instead(f"print('attempt', {number}, end='')")  # as progress that was cut off
        run_in_process(task)
    log = task.run.path(LOG).read_text()
    assert log.count(": run\n") == 2 and "attempt 0\n--- " in log


def test_the_process_knows_its_threads_and_holds_no_other_run(tmp_path, instead, monkeypatch):
    monkeypatch.setenv(HELD_RUN, str(tmp_path / "another"))
    names = ("OMP_NUM_THREADS", TIED, HELD_RUN)
    instead(f"import os; print([os.environ.get(name) for name in {names}])")
    run_in_process(task := Task("run", str(tmp_path), threads=3))
    assert "['3', '1', None]" in task.run.path(LOG).read_text()


def test_a_log_that_cannot_be_written_is_named(tmp_path, instead):
    (tmp_path / "run" / LOG).mkdir(parents=True)
    outcome = run_task(Task("run", str(tmp_path), notebooks=NOTEBOOKS), run_in_process)
    assert "log.txt cannot be written: Is a directory" in outcome.reason
