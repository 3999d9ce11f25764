"""Runs of a batch that cost nothing, and workers that start at once."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import dask

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
        reasons: why some fail, by what sets them apart.
    """

    seconds: float = 0.0
    reasons: Mapping = field(default_factory=dict)

    def __call__(self, task):
        line = {"seed": task.parameters["seed"], "process": os.getpid(), "at": time.time()}
        with open(f"{task.output_dir}/{LEDGER}", "a") as ledger:
            ledger.write(json.dumps(line) + "\n")
        time.sleep(self.seconds)
        if line["seed"] in self.reasons:
            raise RuntimeError(self.reasons[line["seed"]])
        complete(task)


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
    return [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]


@contextmanager
def quick_workers(count):
    """Workers on this machine that start, and start anew, in no time."""
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        local_workers([{}] * count) as client,
    ):
        yield client
