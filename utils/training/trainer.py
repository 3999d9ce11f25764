"""Lightning's Trainer, quiet, and on one device unless it is told otherwise."""

import math
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from logging import WARNING, getLogger
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.nn.functional import cross_entropy

from utils.data.batches import PictureDataModule
from utils.devices import keep_freed_memory
from utils.training.callbacks import KeepLogits
from utils.training.classifier import ImageClassifier
from utils.training.processes import ALONE, FORKED, TORCHRUN, OneThread, Processes, by_torchrun

#: Share of the test pictures that are shown in several views where a recipe asks for them.
UNSURE = 0.2


def build_trainer(
    device: str, precision: str, processes: Processes | None = None, **options
) -> Trainer:
    """Return a quiet Trainer.

    Args:
        device: torch's name of it.
        precision: Lightning's name of it.
        processes: that share what it does; None: this one alone.
        options: further arguments of Lightning's.
    """
    quiet_libraries()
    keep_freed_memory()
    processes = processes or Processes()
    if processes.strategy == FORKED:
        options["callbacks"] = [OneThread(), *options.get("callbacks", ())]
    if processes.strategy == ALONE and by_torchrun():
        options["plugins"] = [LightningEnvironment(), *options.get("plugins", ())]
    defaults: dict[str, Any] = {
        "accelerator": device,
        "devices": processes.count,
        "num_nodes": processes.num_nodes,
        "strategy": processes.strategy,
        "use_distributed_sampler": False,  # the data module gives each process its part
        "sync_batchnorm": processes.total > 1 and device != "cpu",  # torch has it for GPUs alone
        "precision": precision,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
    }
    return Trainer(**{**defaults, **options})


def join(device: str, processes: Processes) -> Callable[[], None]:
    """Let the processes that torchrun started find each other; return what waits for all of them.

    Where there are none, nobody is waited for.
    """
    if processes.strategy != TORCHRUN:
        return lambda: None
    strategy = build_trainer(device, "32-true", processes).strategy
    strategy.setup_environment()
    return strategy.barrier


def quiet_libraries() -> None:
    """Silence tips and advice of the libraries; real warnings still come through."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        getLogger(name).setLevel(WARNING)
    for advice in (
        "does not have many workers",
        "GPU available but not used",
        "isinstance.treespec, LeafSpec",
        "smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message=f".*{advice}.*")


@contextmanager
def interruptible() -> Generator[None]:
    """Turn what Lightning makes of Ctrl+C back into KeyboardInterrupt.

    Lightning 2.6 exits the process instead, and has it ignore every later Ctrl+C: in a notebook,
    that would be the rest of the day.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def evaluate(
    classifier: ImageClassifier,
    data: PictureDataModule,
    device: str,
    precision: str = "32-true",
    views: int = 1,
) -> tuple[Mapping[str, float], Tensor]:
    """Pass the test split through the network, once for each view.

    Args:
        classifier: with the network.
        data: with the test split.
        device: torch's name of it.
        precision: Lightning's name of it; float32 is what the maps compute in, too.
        views: how many views of each picture its logits are averaged over: 1, 2 or 6.

    Returns:
        ``test_loss`` and ``test_acc``, and the logits: float32, N×C, on the CPU.
    """
    kept = KeepLogits()
    trainer = build_trainer(device, precision, callbacks=[kept])
    classifier.views = views
    with interruptible():
        figures = trainer.test(classifier, datamodule=data, verbose=False)[0]
    classifier.views = 1
    return figures, torch.cat(kept.logits)


def evaluate_averaged(
    classifier: ImageClassifier,
    data: PictureDataModule,
    device: str,
    precision: str,
    views: int,
    unsure: float = UNSURE,
) -> dict[str, float]:
    """Return the figures of logits averaged over views where the network is least sure.

    One view of each picture says where that is: where the best class is the least ahead of the
    second. The other pictures' answers would hardly ever change.

    Args:
        classifier, data, device, precision: as `evaluate` takes them.
        views: how many, 2 or 6.
        unsure: share of the test pictures that are seen in several views.

    Returns:
        ``test_loss`` and ``test_acc``.
    """
    _, logits = evaluate(classifier, data, device, precision)
    test = data.picture_set.test
    lead = -logits.topk(2).values.diff()[:, 0]
    chosen = lead.topk(math.ceil(unsure * len(test)), largest=False).indices.sort().values
    part = PictureDataModule(replace(data.picture_set, test=test.subset(chosen)), data.batch_size)
    _, averaged = evaluate(classifier, part, device, precision, views)
    logits = logits.index_copy(0, chosen, averaged)
    return {
        "test_loss": float(cross_entropy(logits, test.targets)),
        "test_acc": float((logits.argmax(1) == test.targets).float().mean()),
    }
