"""One training by several processes: how many there are, who starts them, and what each is told.

Lightning shares the training (DistributedDataParallel; Li et al. 2020, "PyTorch Distributed"): each
process computes the gradients of its part of every batch, and steps by the average of all.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from torch import nn
from torch.multiprocessing import ProcessRaisedException, get_all_start_methods

from utils import InputError, counted
from utils.settings import split_count

ALONE, TORCHRUN, FORKED = "auto", "ddp", "ddp_notebook"


def smallest_batch(batch_size: int, per_epoch: int) -> int:
    """Return how many pictures the smallest batch of an epoch has, which is its last.

    >>> smallest_batch(8, 44), smallest_batch(8, 40), smallest_batch(8, 5)
    (4, 8, 5)
    """
    return min(batch_size, per_epoch % batch_size or batch_size)


def by_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return TorchElasticEnvironment.detect()


@dataclass(frozen=True)
class Processes:
    """Which processes share a training, one for each device.

    Attributes:
        count: on each machine.
        num_nodes: how many machines.
        strategy: Lightning's name for how they share; ``"auto"`` for one process alone.
    """

    count: int = 1
    num_nodes: int = 1
    strategy: str = ALONE

    @property
    def total(self) -> int:
        """How many there are."""
        return self.count * self.num_nodes

    @property
    def are_started_here(self) -> bool:
        """Whether this process starts them, and goes on when they have ended."""
        return self.strategy == FORKED

    def lightning_strategy(self, some_wait: bool) -> str:
        """Return Lightning's name for how they share a training.

        Args:
            some_wait: whether some weights do not learn in every step; processes then have to look
                each time for which of them there are gradients to exchange.
        """
        looks = some_wait and self.strategy != ALONE
        return f"{self.strategy}_find_unused_parameters_true" if looks else self.strategy

    def remark(self, device: str, network: nn.Module, batch_size: int) -> str | None:
        """Return in what the training differs from that of one process, if it does."""
        normalises = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
        if self.total == 1 or device != "cpu" or not normalises:
            return None
        return (
            "Each process normalises its own part of a batch, about "
            f"{counted(batch_size // self.total, 'picture')}: GPUs share the statistics of batch "
            "normalisation (sync_batchnorm), CPUs cannot."
        )

    def check(self, batch_size: int, per_epoch: int) -> None:
        """Refuse to begin what cannot be shared so.

        Args:
            batch_size: pictures a step.
            per_epoch: pictures an epoch; its last batch may be smaller.

        Raises:
            InputError: some process would get no picture of a batch; or this process, which is to
                be forked, has used a GPU.
        """
        if self.strategy == FORKED and torch.cuda.is_initialized():
            raise InputError(
                "This process has used a GPU, and so cannot be forked into several that do. In a "
                f"notebook, restart its kernel. {_with_torchrun(self.count)}"
            )
        smallest = smallest_batch(batch_size, per_epoch)
        if smallest < self.total:
            place = "" if smallest == batch_size else ", the last of each epoch"
            raise InputError(
                f"{self.total} processes cannot share a batch of {counted(smallest, 'picture')}"
                f"{place}: each needs one. Give another batch_size, or fewer devices."
            )


def choose_processes(
    devices: str = "auto", num_nodes: int = 1, strategy: str | None = None
) -> Processes:
    """Return which processes share a training, from what was asked and how this one was started.

    Args:
        devices, num_nodes, strategy: the parameters of these names.

    Raises:
        InputError: they do not fit each other, or what torchrun started.
    """
    if by_torchrun():
        return _started_by_torchrun(devices, num_nodes, strategy)
    count = split_count(devices)[1] or 1
    if num_nodes > 1 or strategy == TORCHRUN:
        asked = f"num_nodes is {num_nodes}" if num_nodes > 1 else f"strategy is {strategy!r}"
        raise InputError(f"{asked}, but torchrun did not start this. {_with_torchrun(count)}")
    if count == 1:
        if strategy is not None:
            raise InputError(
                f"strategy is {strategy!r}, but one process has nothing to share. Leave it at "
                "None, or say in devices how many, such as cpu:2."
            )
        return Processes()
    if "fork" not in get_all_start_methods():
        raise InputError(
            f"devices is {devices!r}, but on this system a process cannot be forked. "
            f"{_with_torchrun(count)}"
        )
    return Processes(count, 1, FORKED)


def _with_torchrun(count: int) -> str:
    return f"Outside a notebook, everywhere: torchrun --nproc-per-node {count} -m utils train …"


def _started_by_torchrun(devices: str, num_nodes: int, strategy: str | None) -> Processes:
    _, count = split_count(devices)
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = int(os.environ["WORLD_SIZE"]) // here
    if count not in (None, here):
        raise InputError(
            f"devices is {devices!r}, but torchrun started {counted(here, 'process', 'processes')} "
            "on this machine. Leave the number out, or give torchrun the same."
        )
    if num_nodes != nodes:
        raise InputError(
            f"num_nodes is {num_nodes}, but torchrun started processes on "
            f"{counted(nodes, 'machine')}. Give both the same."
        )
    if strategy not in (None, TORCHRUN):
        raise InputError(
            f"strategy is {strategy!r}, which starts processes of its own, but torchrun has "
            "started them. Leave it at None."
        )
    return Processes(here, nodes, TORCHRUN if here * nodes > 1 else ALONE)


def is_first() -> bool:
    """Tell whether this process is the one that writes and speaks for all that torchrun started."""
    return not by_torchrun() or os.environ["RANK"] == "0"


def part() -> None:
    """Let each of several processes of torchrun go on by itself, and wait for no other again."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def end_processes(trainer: Trainer) -> None:
    """End those that a Trainer started; they may not have heard that it was stopped."""
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        process.kill()


def told_by_process(error: Exception) -> str | None:
    """Return what a process that was started here told a person before it ended, if it did."""
    name = f"{InputError.__module__}.{InputError.__name__}: "
    is_told = isinstance(error, ProcessRaisedException) and name in str(error)
    return str(error).rpartition(name)[2].strip() if is_told else None


@contextmanager
def only_first_speaks() -> Generator[None]:
    """Let what other processes of torchrun print go nowhere; their errors are still heard."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


class OneThread(Callback):
    """Lets each forked process compute with one thread.

    Threads of OpenMP do not live on in a fork, and whoever counts on them waits for ever.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do so; Lightning calls this in the new process before it computes anything."""
        torch.set_num_threads(1)
