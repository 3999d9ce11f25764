"""A training run, resumed or reused, and the record that it keeps."""

import platform
import subprocess
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from shutil import rmtree

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from utils import InputError, Interrupted, first_line
from utils.data.batches import PictureDataModule
from utils.devices import choose_device
from utils.files import ROOT, check_space
from utils.models.network import Network
from utils.pipeline.sequence import select_notebooks
from utils.runs import (
    EXPORTED,
    HISTORY_COLUMNS,
    MEASURED,
    Run,
    as_stated,
    library_versions,
    now,
)
from utils.settings import SETTINGS
from utils.training.callbacks import (
    LastCheckpoint,
    NoteLosses,
    RunCheckpointIO,
    TrainingLog,
    epoch_in_words,
    read_checkpoint,
)
from utils.training.classifier import ImageClassifier
from utils.training.plan import (
    CHECKPOINT,
    TrainingPlan,
    as_begun,
    check_smallest_batch,
    hardware_change,
)
from utils.training.predictions import right_on_new, write_predictions
from utils.training.processes import end_processes, is_first, part, told_by_process
from utils.training.trained import save_network
from utils.training.trainer import build_trainer, evaluate, evaluate_averaged, interruptible, join

#: In the order in which they may be removed at any moment; what says "trained" goes first.
TRAINED_FILES = ("model.safetensors", "metrics.json", "predictions.npz", "metrics.csv", "steps.csv")


def fit(plan: TrainingPlan, overwrite: bool = False) -> Run:
    """Train, or take up what is there: resume an unfinished run, reuse a complete one.

    Writes ``run.json``, ``metrics.csv``, ``steps.csv``, ``checkpoints/last.ckpt``, TensorBoard
    events, ``model.safetensors``, ``predictions.npz`` and ``metrics.json`` into its folder. Of
    processes that torchrun started each calls this, and the first alone writes.

    Raises:
        InputError: the run exists with other settings, another process is writing it, the disk
            has no room, its checkpoint is damaged, the network cannot learn from so small a
            batch as the last of an epoch, or the loss stopped being a number.
        Interrupted: a person stopped it; the same call, without `overwrite`, goes on.
    """
    SETTINGS["overwrite"].check(overwrite)
    run = plan.run
    with run.locked() if is_first() else nullcontext():
        wait = join(plan.device, plan.processes)
        if overwrite and is_first():
            _remove_training(run)
        wait()
        plan, is_trained, resumed = as_begun(plan), run.is_trained, run.has(*CHECKPOINT)
        wait()  # nobody writes before all have read
        if is_trained and is_first():
            place = {name: plan.settings[name] for name in ("dataset", "data_dir")}
            run.update_record(status="complete", failure=None, settings={**run.settings, **place})
            print(
                f"Run {run.name!r} is complete with these settings and is reused "
                "(overwrite=True trains again). Its epochs:"
            )
            for row in run.read_csv("metrics.csv", HISTORY_COLUMNS):
                print(epoch_in_words(row, plan.recipe.epochs, run.record["data"]["watched"]))
        if not is_trained:
            _train(plan, resumed)
    return run


def _train(plan: TrainingPlan, resumed: bool) -> None:
    """Check what can be checked before, train, and write what was learned, or that it failed."""
    run, checkpoint, processes = plan.run, plan.run.path(*CHECKPOINT), plan.processes
    classifier, data_module = plan.classifier(), plan.data_module()
    processes.check(plan.recipe.batch_size, data_module.per_epoch)
    check_smallest_batch(plan, classifier.network, data_module, processes)
    check_space(run.folder, bytes_to_train(classifier.network), "Training this network")
    if is_first():
        _start_record(plan, classifier.network, data_module)
    watched = "validation" if plan.settings["val_fraction"] else "test"
    log = TrainingLog(run, watched, data_module.per_epoch, plan.recipe.epochs)
    trainer = _training_trainer(plan, log, checkpoint)
    if resumed:
        print(f"Run {run.name!r} was interrupted and is resumed from its last finished epoch.")
    if remark := processes.remark(plan.device, classifier.network, plan.recipe.batch_size):
        print(remark)
    with _noting_failure(run):
        _run_trainer(plan, classifier, data_module, trainer, log, resumed)
        _take_back(log, plan)
        part()
        if not is_first():
            return
        run.add_seconds("training", sum(row["seconds"] for row in log.epochs))
        run.add_seconds("watching", log.watching)
        _finish(plan, classifier, data_module)


@contextmanager
def _noting_failure(run: Run) -> Generator[None]:
    """Note in a run's record that its training failed, and of what."""
    try:
        yield
    except Exception as error:
        if is_first():
            status = "complete" if run.is_trained else "failed"
            with suppress(InputError):  # a full disk is told by the error that it led to
                run.update_record(status=status, failure={"error": first_line(error)})
        raise


def _run_trainer(
    plan: TrainingPlan,
    classifier: ImageClassifier,
    data_module: PictureDataModule,
    trainer: Trainer,
    log: TrainingLog,
    resumed: bool,
) -> None:
    """Have the Trainer train, and tell a person what it ended of, if it did."""
    run, checkpoint, processes = plan.run, plan.run.path(*CHECKPOINT), plan.processes
    try:
        with interruptible():
            trainer.fit(
                classifier,
                datamodule=data_module,
                ckpt_path=checkpoint if resumed else None,
                weights_only=True,
            )
    except InputError:
        raise
    except Exception as error:
        if (told := told_by_process(error)) is not None:
            raise InputError(told) from error
        if not resumed or log.has_begun or processes.are_started_here:
            raise
        raise InputError(
            f"Training cannot be resumed from {checkpoint} ({first_line(error)}). Delete it to "
            "train from the beginning."
        ) from error
    except KeyboardInterrupt:
        end_processes(trainer)
        _take_back(log, plan)
        if is_first():
            run.update_record(status="failed", failure={"error": "interrupted"})
        raise Interrupted(
            f"Training of run {run.name!r} was stopped. {len(log.epochs)} of "
            f"{plan.recipe.epochs} epochs are finished and kept. Run the same again, without "
            "overwrite, to continue from there."
        ) from None


def _take_back(log: TrainingLog, plan: TrainingPlan) -> None:
    """Take up what other processes logged: those that this one started, and that have ended."""
    if plan.processes.are_started_here and plan.run.has(*CHECKPOINT):
        checkpoint = read_checkpoint(plan.run.path(*CHECKPOINT))
        log.load_state_dict(checkpoint["callbacks"][log.state_key])


def bytes_to_train(network: nn.Module) -> int:
    """Return what training a network writes to its run's folder, in bytes.

    Weights and Adam's two moments in float32, twice while one checkpoint replaces the other, and
    the weights once more at the end.
    """
    return 7 * sum(4 * p.numel() for p in network.parameters()) + 10_000_000


def bytes_kept(network: nn.Module) -> int:
    """Return what a complete training keeps in its run's folder, in bytes.

    Weights and Adam's two moments in the last checkpoint, and the weights once more.
    """
    return 4 * sum(4 * p.numel() for p in network.parameters()) + 10_000_000


def _remove_training(run: Run) -> None:
    """Remove a network and all that was made of it. ``space/`` stays: it may be a git clone."""
    chapters, seconds = select_notebooks(start="03"), run.record.get("seconds", {})
    gone = {*chapters, "training", "watching"}
    # first, so that a run which this leaves halfway passes for complete nowhere
    run.update_record(seconds={name: s for name, s in seconds.items() if name not in gone})
    places = ("checkpoints", *TRAINED_FILES, "tensorboard", MEASURED, EXPORTED)
    for path in (*map(run.path, places), *_left_by(run, chapters)):
        rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    run.update_record(settings=None, status=None, failure=None, changes=None, finished=None)


def _left_by(run: Run, chapters: Sequence[str]) -> Iterator[Path]:
    """Yield the notebooks and figures that chapters left of the training to be removed.

    Chapter 3 draws before it trains, and may be running: a figure from after that training began is
    the new one's. Its notebook lies under another name until it has ended.
    """
    begun = str(run.record.get("started", ""))
    for name in chapters:
        yield run.path("notebooks", f"{name}.ipynb")
        for figure in run.path("figures").glob(f"{name[:2]}_*.png"):
            if name != chapters[0] or as_stated(figure.stat().st_mtime) <= begun:
                yield figure


def _start_record(plan: TrainingPlan, network: Network, data: PictureDataModule) -> None:
    picture_set, change = plan.picture_set, hardware_change(plan.run, plan.settings)
    changes = plan.run.record.get("changes", []) if plan.run.has(*CHECKPOINT) else []
    device, hardware = choose_device("cpu" if plan.device == "cpu" else "auto")
    if plan.processes.total > 1:
        hardware += f", {plan.processes.total} processes"
    plan.run.update_record(
        status="running",
        failure=None,
        started=now(),
        settings=plan.settings,
        data={
            "name": picture_set.name,
            "title": picture_set.title,
            "classes": list(picture_set.classes),
            "train_size": len(data.train),
            "watched": "validation" if plan.settings["val_fraction"] else "test",
            "watched_size": len(data.watched),
            "test_size": len(picture_set.test),
            "mean": list(picture_set.mean),
            "std": list(picture_set.std),
            "fingerprint": picture_set.fingerprint,
            "notes": list(picture_set.notes),
            "bits": picture_set.bits,
        },
        model={
            "name": plan.settings["model"],
            "parameters": sum(p.numel() for p in network.parameters()),
            "blocks": list(network.blocks),
        },
        device={"type": device, "name": hardware},
        precision=plan.settings["precision"],
        changes=[*changes, *([change] if change else [])] or None,
        versions={"python": platform.python_version(), **library_versions()},
        git_commit=_git_commit(),
    )


def _git_commit() -> str | None:
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _training_trainer(plan: TrainingPlan, log: TrainingLog, checkpoint: Path) -> Trainer:
    settings, folder = plan.settings, plan.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    return build_trainer(
        plan.device,
        settings["precision"],
        plan.processes,
        strategy=plan.processes.lightning_strategy(some_wait=plan.recipe.head_share > 0),
        max_epochs=plan.recipe.epochs,
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        log_every_n_steps=10,
        callbacks=[
            log,
            NoteLosses(),
            LastCheckpoint(checkpoint),
        ],
        enable_checkpointing=True,
        plugins=[RunCheckpointIO(plan.identity)],
        default_root_dir=folder,
    )


def _finish(plan: TrainingPlan, classifier: ImageClassifier, data: PictureDataModule) -> None:
    """Test the final weights and write what was learned."""
    run, targets = plan.run, plan.picture_set.test.targets
    averaged = _test_averaged(plan, classifier, data) if plan.recipe.views > 1 else None
    figures, logits = evaluate(classifier, data, plan.device)
    write_predictions(run, logits, targets)
    save_network(run, classifier.network)
    new = right_on_new(plan.picture_set, logits)
    run.update_metrics(
        test_acc=figures["test_acc"],
        test_loss=figures["test_loss"],
        test_size=len(targets),
        test_precision="32-true",
        views="one, no test-time averaging",
        **({"averaged": averaged} if averaged else {}),
        **({"new": new} if new else {}),
    )
    run.update_record(status="complete", finished=now())


def _test_averaged(
    plan: TrainingPlan, classifier: ImageClassifier, data: PictureDataModule
) -> dict:
    """Return the figures of logits averaged over views, in the precision of training."""
    started, precision = time.perf_counter(), plan.settings["precision"]
    figures = evaluate_averaged(classifier, data, plan.device, precision, plan.recipe.views)
    return {
        "views": plan.recipe.views,
        **figures,
        "precision": precision,
        "seconds": round(time.perf_counter() - started, 2),
    }
