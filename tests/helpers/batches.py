"""Runs of a batch that cost nothing, and workers that start at once."""

import json
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import dask
import pytest
from distributed.utils import get_mp_context

from utils.batch.batch import plan_batch, run_batch
from utils.batch.grid import Asked
from utils.batch.workers import local_workers

#: These runs never meet it.
NOTEBOOKS = ("03_training",)
#: In a batch's folder: a line for each time that a run was begun, and the workers that run it.
LEDGER = "ledger.txt"


def complete(task):
    """Leave what a complete run leaves."""
    seconds = dict.fromkeys(task.notebooks, 0.1)
    task.run.update_record(status="complete", seconds=seconds, failure=None)


@dataclass(frozen=True)
class Stub:
    """Does a run in hardly any time, and says so in the ledger.

    Attributes:
        seconds: that each takes.
        reasons: why some fail, by their seeds.
        full: seeds of those that find no room on the disk.
        killed: seeds of those whose worker is killed when they have begun, the first time.
        deadly: seeds of those that no worker survives.
    """

    seconds: float = 0.0
    reasons: Mapping = field(default_factory=dict)
    full: Collection = ()
    killed: Collection = ()
    deadly: Collection = ()

    def __call__(self, task):
        seed, folder = task.parameters["seed"], Path(task.output_dir)
        is_first = seed not in self.killed or seed not in begun(folder)
        with open(folder / LEDGER, "a") as ledger:
            ledger.write(json.dumps({"seed": seed, "process": os.getpid()}) + "\n")
        if (seed in self.killed and is_first) or seed in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        if seed in self.reasons:
            raise RuntimeError(self.reasons[seed])
        with no_room() if seed in self.full else nullcontext():
            complete(task)


@contextmanager
def no_room():
    """Let whatever this process writes be refused, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def train_and_die_once(task):
    """Train a small network, and be killed with its worker in the middle of the second epoch.

    The ledger gets the number of checkpoints that were there when it was begun: none, or one.
    """
    from helpers.training import STEPS_PER_EPOCH, interrupt, make_plan, small_networks
    from utils.training.fit import fit

    kept = len(list(task.run.folder.glob("checkpoints/last.ckpt")))
    with open(f"{task.output_dir}/{LEDGER}", "a") as ledger:
        line = {"seed": task.parameters["seed"], "process": os.getpid(), "kept": kept}
        ledger.write(json.dumps(line) + "\n")

    def die(trainer):
        if not kept and trainer.global_step == STEPS_PER_EPOCH + 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch, small_networks():
        interrupt(patch, "on_train_batch_end", None, die)
        fit(make_plan(Path(task.output_dir), run_name=task.name))
    task.run.update_record(seconds={**task.run.record["seconds"], "03_training": 0.1})


def make_batch(folder, count=3, **parameters):
    """A batch of runs that differ in their seeds."""
    seeds = {"seed": list(range(count))}
    return plan_batch(Asked(folder.name, str(folder.parent), seeds, parameters), NOTEBOOKS)


def do(batch, workers=1, **options):
    """Do the runs of a batch as stubs, and return how many are not complete then."""
    options = {"runner": Stub(), "prepare": lambda _: None, **options}
    return run_batch(batch, lambda: quick_workers(workers), **options)


def ledger_of(folder):
    """Every time that a run of a batch was begun, in order."""
    path = folder / LEDGER
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def begun(folder):
    """How often each run of a batch was begun, by its seed."""
    return Counter(line["seed"] for line in ledger_of(folder))


@contextmanager
def quick_workers(count):
    """Workers on this machine that start, and start anew, in no time.

    They fork from a process that has imported what training needs, for all tests that use one.
    """
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "utils.training.fit"])
        with local_workers([{}] * count) as client:
            yield client
