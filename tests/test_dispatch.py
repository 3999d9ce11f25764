"""Runs given to workers: whatever dies, none is lost, none is done twice, none pays for another."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from distributed import CancelledError, KilledWorker
from distributed.comm import CommClosedError

from helpers.batches import Stub, begun, do, ledger_of, make_batch, train_and_die_once
from utils import InputError
from utils.batch import dispatch
from utils.batch.batch import run_batch
from utils.batch.dispatch import Dispatcher, SchedulerGoneError
from utils.batch.one_run import ATTEMPTS, COMPLETE, FAILED, Task
from utils.batch.workers import workers_of
from utils.files import ROOT
from utils.runs import HISTORY_COLUMNS

TESTS = Path(__file__).parent


class GivenBack:
    """Stands for a future that came to an end."""

    key = "key"

    def __init__(self, error):
        self._error = error

    def result(self):
        raise self._error


@pytest.fixture
def back(tmp_path):
    """A dispatcher, and what it makes of a future that comes back."""
    task = Task("run", str(tmp_path), {}, ())
    dispatcher = Dispatcher(None, [], None)

    def come(future, times=1):
        dispatcher._given_out["key"] = task, future
        dispatcher._times["run"], dispatcher.under_way["run"] = times, time.monotonic()
        return dispatcher._outcome(future)

    return dispatcher, come


def test_a_run_whose_worker_died_goes_back_to_the_front(back):
    dispatcher, come = back
    dispatcher.waiting.append("another")
    assert come(GivenBack(KilledWorker("key", None, 3))) is None
    assert [getattr(task, "name", task) for task in dispatcher.waiting] == ["run", "another"]
    assert dispatcher.under_way == {}


def test_workers_that_die_before_they_begin_a_run_are_not_fed_for_ever(back):
    _, come = back
    outcome = come(GivenBack(KilledWorker("key", None, 3)), ATTEMPTS)
    assert "workers died again and again" in outcome.reason


def test_workers_of_another_project_stop_the_batch_and_are_no_fault_of_the_run(back, tmp_path):
    _, come = back
    with pytest.raises(InputError, match=r"cannot do runs .No module named 'utils'.*versions"):
        come(GivenBack(ModuleNotFoundError("No module named 'utils'")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [CancelledError("key"), CommClosedError("in <TCP>"), OSError()])
def test_what_the_scheduler_forgot_is_not_waited_for(back, error):
    _, come = back
    with pytest.raises(SchedulerGoneError, match=r"scheduler is gone.*same command goes on"):
        come(GivenBack(error))


class NoWorkers:
    """Stands for a scheduler that has none."""

    def scheduler_info(self):
        return {"workers": {}}


def test_workers_that_do_not_come_are_waited_for_as_long_as_was_said(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "PULSE", 0.02)
    task = Task("run", str(tmp_path))
    dispatcher = Dispatcher(NoWorkers(), [task], None, patience=0.01)
    outcomes = dispatcher.outcomes()
    assert next(outcomes) is None
    with pytest.raises(InputError, match=r"no worker for 0 seconds.*same command goes on"):
        next(outcomes)


# Workers that die


@pytest.mark.slow
def test_each_fault_is_the_fault_of_one_run(tmp_path, capsys):
    batch = make_batch(tmp_path / "b", 12)
    faults = Stub(reasons={1: "no memory"}, full=[2], killed=[3], deadly=[4])
    assert do(batch, 2, runner=faults) == 3
    states = [batch.states()[task.name] for task in batch.tasks]
    assert [seed for seed, state in enumerate(states) if state == FAILED] == [1, 2, 4]
    assert states.count(COMPLETE) == 9
    expected = {3: 2, 4: ATTEMPTS}
    assert begun(batch.folder) == {seed: expected.get(seed, 1) for seed in range(12)}
    said = capsys.readouterr().out
    assert "9 runs complete, 3 failed, 0 not finished." in said
    for failure in ("seed=1: no memory", "seed=2: .*cannot be written", "seed=4: its worker died"):
        assert len(re.findall(f"failed: {failure}", said)) == 2


@pytest.mark.slow
def test_twenty_killed_workers_among_a_thousand_runs_lose_none_and_double_none(tmp_path):
    batch, killed = make_batch(tmp_path / "b", 1_000), range(7, 1_000, 50)
    assert len(killed) == 20
    assert do(batch, 2, runner=Stub(killed=killed)) == 0
    assert set(batch.states().values()) == {COMPLETE}
    assert begun(batch.folder) == {seed: 1 + (seed in killed) for seed in range(1_000)}


@pytest.mark.slow
def test_a_training_whose_worker_was_killed_goes_on_from_its_last_epoch(tmp_path):
    batch = make_batch(tmp_path / "b", 1)
    assert do(batch, 1, runner=train_and_die_once) == 0
    first, second = ledger_of(batch.folder)
    assert first["process"] != second["process"]
    assert (first["kept"], second["kept"]) == (0, 1)
    epochs = batch.tasks[0].run.read_csv("metrics.csv", HISTORY_COLUMNS)
    assert [row["epoch"] for row in epochs] == [1, 2, 3]


# Whoever planned the batch, or the scheduler, dies


CLIENT = """
import sys
from pathlib import Path
from helpers.batches import Stub, make_batch
from utils.batch.batch import run_batch
from utils.batch.workers import local_workers
if __name__ == "__main__":
    batch, stub = make_batch(Path(sys.argv[1]), 12), Stub(seconds=0.4)
    run_batch(batch, lambda: local_workers([{}]), runner=stub, prepare=lambda _: None)
"""


def wait_until(true, seconds=60):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_after_the_client_was_killed_the_same_command_goes_on(tmp_path):
    folder, path = tmp_path / "b", os.pathsep.join(map(str, (ROOT, TESTS)))
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    command = [sys.executable, str(script), str(folder)]
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as client:
        wait_until(lambda: len(ledger_of(folder)) >= 4)
        client.kill()
    workers = {line["process"] for line in ledger_of(folder)}
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers))
    batch = make_batch(folder, 12)
    states = batch.states()
    finished = {t.parameters["seed"] for t in batch.tasks if states[t.name] == COMPLETE}
    assert 2 <= len(finished) < 12
    assert do(batch, 1) == 0
    counts = begun(folder)
    assert set(counts) == set(range(12))
    assert all(counts[seed] == 1 for seed in finished)
    assert counts.total() <= 12 + 1  # the one that was under way


SCHEDULER = """
from distributed import LocalCluster
options = dict(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
with LocalCluster(host="127.0.0.1", protocol="tcp://", **options) as cluster:
    print(cluster.scheduler_address, flush=True)
    input()
"""


@pytest.mark.slow
def test_without_its_scheduler_a_batch_stops_and_the_same_command_goes_on(tmp_path):
    batch = make_batch(tmp_path / "b", 8)
    path = os.pathsep.join(map(str, (ROOT, TESTS)))
    command, pipe = [sys.executable, "-c", SCHEDULER], subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as there:
        address = there.stdout.readline().strip()

        def kill():
            wait_until(lambda: len(ledger_of(batch.folder)) >= 4)
            there.send_signal(signal.SIGKILL)

        threading.Thread(target=kill).start()
        with pytest.raises(SchedulerGoneError, match=r"scheduler is gone.*same command goes on"):
            run_batch(
                batch,
                lambda: workers_of(address),
                runner=Stub(seconds=0.1),
                prepare=lambda _: None,
            )
    finished = [name for name, state in batch.states().items() if state == COMPLETE]
    assert len(finished) >= 3
    assert do(batch) == 0
    assert begun(batch.folder).total() <= 9


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("utils.batch.workers.PATIENCE", 0.2)
    with (
        pytest.raises(InputError, match=r"tcp://127.0.0.1:9 does not answer.*dask worker"),
        workers_of("tcp://127.0.0.1:9"),
    ):
        pytest.fail("somebody answered")
