"""Who does the runs of a batch: workers on this machine, or those of a Dask scheduler elsewhere."""

import logging
import os
import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress

import dask
import psutil
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, WorkerPlugin

from utils import InputError, check_number, first_line

#: A worker that may use one GPU says so by this label; a run that asks for a GPU asks for it.
GPU = "GPU"
#: Bytes that a run takes at least: torch, the pictures of CIFAR-10, a network and its batches.
BYTES_A_RUN = 2_000_000_000
#: Seconds to wait for a scheduler elsewhere.
PATIENCE = 20
#: Settings of Dask for workers on this machine. So long after a worker died, Dask looks whether it
#: is there again, and gives it up for good if it is just being started for another time. Of so many
#: events it keeps the story in memory.
SETTINGS = {
    "distributed.deploy.lost-worker-timeout": "10000 days",
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.log-length": 100,
}
#: A worker's death is counted in the folder of the run that it had (`utils.batch.one_run`), which
#: only a run that was begun enters; Dask also blames those that were waiting there.
NEVER = 2**31


def size_of_machine(cores: int, memory: int, asked: int | None = None) -> tuple[int, int]:
    """Return how many runs to do at once without GPUs, and with how many threads each.

    One thread a run gets most done: two that share the work of one wait for each other.

    Args:
        cores: of this machine, that this process may use.
        memory: bytes that are free.
        asked: how many runs at once a person wants; None leaves that to the machine.

    >>> size_of_machine(8, 64 * 10**9), size_of_machine(8, 5 * 10**9), size_of_machine(8, 10**9, 3)
    ((8, 1), (2, 4), (3, 2))
    """
    count = max(1, min(cores, memory // BYTES_A_RUN)) if asked is None else asked
    return count, max(1, cores // count)


def visible_gpus(devices: str | None) -> list[str]:
    """Return how CUDA calls each GPU that runs may use here; empty where they use none.

    Args:
        devices: as the parameter of that name; None means ``"auto"``.
    """
    if devices == "cpu":
        return []
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named and count else list(map(str, range(count)))


def plan_workers(asked: int | None, gpus: Sequence[str]) -> tuple[list[dict[str, str]], int | None]:
    """Return each worker's own environment, and how many threads a run computes with.

    Args:
        asked: how many workers a person wants; None sizes them to the machine.
        gpus: from `visible_gpus`; each has one worker.

    Raises:
        InputError: a number of workers that is none, or more than there are GPUs.
    """
    if asked is not None:
        check_number("--workers", asked, 1, 1_000, whole=True)
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    cores = cores or os.cpu_count() or 1
    if not gpus:
        from utils.devices import available_memory

        count, threads = size_of_machine(cores, available_memory(), asked)
        return [{} for _ in range(count)], threads
    if asked is not None and asked > len(gpus):
        raise InputError(
            f"--workers is {asked}, but there are {len(gpus)} GPUs here, one for each worker. Give "
            "fewer, or -p devices cpu."
        )
    used = gpus[:asked]
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in used], max(1, cores // len(used))


class _DeafToCtrlC(WorkerPlugin):
    """Leaves Ctrl+C, which a terminal sends to all, to the one process that knows what to say."""

    def setup(self, worker) -> None:
        """Replace what a worker would do; a process that it starts does as usual."""
        signal.signal(signal.SIGINT, lambda *_: None)


@contextmanager
def local_workers(environments: Sequence[Mapping[str, str]]) -> Generator[Client]:
    """Start workers on this machine, one for each environment, and yield who speaks with them.

    Each does one run at a time, and is started anew if it dies. They speak over TLS with a key that
    only they have: whoever can speak with a Dask scheduler can run anything as its user.
    """
    security = Security.temporary()
    shared = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    scheduler = {**shared, "port": 0, "dashboard_address": ":0", "allowed_failures": NEVER}
    workers = {
        number: {
            "cls": Nanny,
            "options": {
                **shared,
                "nthreads": 1,
                "memory_limit": 0,  # of the worker itself; a run has a process of its own
                "dashboard": False,
                "env": dict(environment),
                "resources": {GPU: 1} if "CUDA_VISIBLE_DEVICES" in environment else None,
                "silence_logs": logging.CRITICAL,
            },
        }
        for number, environment in enumerate(environments)
    }
    with (
        dask.config.set(SETTINGS),
        SpecCluster(
            workers=workers,
            scheduler={"cls": Scheduler, "options": scheduler},
            security=security,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, security=security) as client,
    ):
        client.register_plugin(_DeafToCtrlC())
        yield client


@contextmanager
def workers_of(scheduler: str) -> Generator[Client]:
    """Yield who speaks with the workers of a scheduler that is there.

    Args:
        scheduler: its address, such as ``tcp://host:8786``.

    Raises:
        InputError: nothing answers there.
    """
    quiet = logging.getLogger("distributed")
    before = quiet.level
    quiet.setLevel(logging.CRITICAL)  # what goes wrong is told of in one sentence
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--scheduler {scheduler} does not answer ({first_line(error)}). Start one with: dask "
            "scheduler; and workers with: dask worker ADDRESS --nthreads 1"
        ) from error
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):  # it may be gone
            client.close(timeout=1)
        quiet.setLevel(before)
