"""What happens beside the training: its log, its progress, and its checkpoint."""

import time
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torchmetrics.utilities.distributed import gather_all_tensors

from utils import InputError, first_line
from utils.files import check_growth, replacing, unwritable
from utils.progress import progress_bar
from utils.runs import HISTORY_COLUMNS, STEP_COLUMNS, Run
from utils.training.recipes import UNSAID

#: How Lightning calls the file in which a process that it started hands weights back.
HANDED_BACK = ".temp.ckpt"
#: About how many rows ``steps.csv`` has at the end.
STEP_ROWS = 1_000
NEEDED_TO_RESUME = {
    "callbacks",
    "epoch",
    "global_step",
    "loops",
    "lr_schedulers",
    "optimizer_states",
    "state_dict",
}


class RunCheckpointIO(TorchCheckpointIO):
    """Checkpoints of one training: written atomically, read with care.

    Args:
        identity: the settings that make this training what it is; written into each checkpoint,
            and compared when one is read, but for the precision: a training may go on in another.
            Plain values only.
    """

    def __init__(self, identity: Mapping):
        super().__init__()
        self.identity = dict(identity)

    def save_checkpoint(self, checkpoint: dict, path, storage_options=None) -> None:
        """Write `checkpoint` to `path`, atomically.

        Raises:
            InputError: the disk is full, or the folder is read-only.
        """
        if Path(path).name == HANDED_BACK:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing(Path(path)) as beside:
            try:
                with beside.open("wb") as opened:
                    torch.save({**checkpoint, "identity": self.identity}, opened)
            except RuntimeError as error:  # what torch makes of a full disk
                raise unwritable(Path(path), error.__context__ or error) from error

    def load_checkpoint(self, path, *_, **__) -> dict:
        """Read a checkpoint of this training, without running any code in it.

        Raises:
            InputError: it is damaged, or of a training with other settings.
        """
        if Path(path).name == HANDED_BACK:
            return super().load_checkpoint(path, weights_only=True)
        checkpoint = read_checkpoint(Path(path))
        if as_compared(checkpoint["identity"]) != as_compared(self.identity):
            raise InputError(
                f"{path} belongs to a training with other settings. Give another run_name, or "
                "overwrite=True to train from the beginning."
            )
        return checkpoint


def as_compared(identity: Mapping) -> dict:
    """Return it without the precision, and with what an earlier version had no name for."""
    return {name: v for name, v in {**UNSAID, **identity}.items() if name != "precision"}


def read_checkpoint(path: Path) -> dict:
    """Read a checkpoint of any training of this program, without running any code in it.

    Raises:
        InputError: it is damaged.
    """
    try:
        with ZipFile(path) as archive:  # torch itself does not compare the checksums
            check_growth(archive, path.stat().st_size)  # it reads what is packed, and packs nothing
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} is wrong")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint["identity"], dict):
            raise ValueError("it was not written by this program")
        if missing := NEEDED_TO_RESUME - set(checkpoint):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return checkpoint
    except Exception as error:  # damage can make the readers raise nearly anything
        reason = first_line(error)
        if isinstance(error, UnpicklingError):  # torch would advise to load it unsafely
            reason = "it holds more than tensors and plain values, so it was not loaded"
        raise InputError(
            f"{path} is damaged or not a checkpoint ({reason}). Delete it to train from the "
            "beginning."
        ) from error


def finished_epochs(path: Path) -> int:
    """Return how many epochs a checkpoint holds, 0 for one that says nothing of them.

    Raises:
        InputError: it is damaged.
    """
    epoch = read_checkpoint(path)["epoch"]
    return epoch + 1 if isinstance(epoch, int) else 0


class LastCheckpoint(Checkpoint):
    """Keeps what is needed to resume from the end of the last epoch."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; the Trainer calls checkpoints after all other callbacks."""
        trainer.save_checkpoint(self.path)


class KeepLogits(Callback):
    """Keeps what `test_step` returns: float32 logits on the CPU, one tensor a batch."""

    def __init__(self):
        self.logits: list[torch.Tensor] = []

    def on_test_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a batch."""
        self.logits.append(outputs.cpu())


def epoch_in_words(row: Mapping, epochs: int, watched: str) -> str:
    """Return a line on one epoch: a row of ``metrics.csv``, of so many epochs."""
    return (
        f"epoch {row['epoch']:>3.0f}/{epochs}"
        f"   train loss {row['train_loss']:.3f}, accuracy {row['train_acc']:6.2%}"
        f"   {watched} loss {row['val_loss']:.3f}, accuracy {row['val_acc']:6.2%}"
        f"   {row['seconds']:.1f} s"
    )


class NoteLosses(Callback):
    """Tells the data module the loss of every picture, by which it chooses what to show next.

    Several processes tell each other what they noted, once an epoch, and so choose alike.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch's."""
        self.noted: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Note a batch's losses, without reading them from the device."""
        _, _, indices = batch
        trainer.datamodule.note_losses(indices, outputs["losses"])
        if trainer.world_size > 1 and trainer.datamodule.leaves_out:
            self.noted.append((indices, outputs["losses"]))

    def on_train_epoch_end(self, trainer, pl_module: LightningModule) -> None:
        """Note what the other processes did."""
        if self.noted:
            mine = [torch.cat(parts) for parts in zip(*self.noted, strict=True)]
            for indices, losses in zip(*map(gather_all_tensors, mine), strict=True):
                trainer.datamodule.note_losses(indices, losses)


class TrainingLog(Callback):
    """Writes ``metrics.csv`` and ``steps.csv``, and shows progress as plain text.

    Losses of single steps stay on the device until the epoch ends, so that nothing waits. The
    rows go into each checkpoint as well: a resumed run has just those of the epochs that it holds.
    Of several processes the first writes and shows, for all of them.

    Args:
        run: whose files to write.
        watched: name of the split watched during training, "test" or "validation".
        pictures: how many training pictures an epoch shows.
        max_epochs: of the whole training.

    Attributes:
        watching: seconds that watching took, of those that the epochs took.
        has_begun: whether a step has been made since training was started or resumed.
    """

    def __init__(self, run: Run, watched: str, pictures: int, max_epochs: int):
        self.run, self.watched = run, watched
        self.pictures, self.max_epochs = pictures, max_epochs
        self.epochs: list[Mapping] = []
        self.steps: list[dict] = []
        self.pending: list[dict] = []
        self.lr = 0.0
        self.watching = 0.0
        self.has_begun = False

    def state_dict(self) -> dict:
        """Return what a checkpoint keeps: the rows of both tables, and the time of watching."""
        return {"epochs": self.epochs, "steps": self.steps, "watching": self.watching}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up the rows of a checkpoint."""
        self.epochs, self.steps = state_dict["epochs"], state_dict["steps"]
        self.watching = state_dict.get("watching", 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the progress bar; on resuming, bring the tables back to the checkpoint's epoch."""
        done, self.is_first = trainer.current_epoch, trainer.is_global_zero
        if done:
            self._write()
        self.every = max(1, int(trainer.estimated_stepping_batches) // STEP_ROWS)
        total = self.pictures * self.max_epochs
        self.bar = progress_bar(
            description="Training", total=total, unit="pictures", is_visible=self.is_first
        )
        self.bar.update(self.pictures * done)
        self.bar.initial = self.bar.n  # the rate counts only what this process did

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self.epoch_started = time.perf_counter()
        self.bar.set_description(f"Epoch {trainer.current_epoch + 1}/{self.max_epochs}")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        """Note the learning rate of this step, before the schedule moves on."""
        self.lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Note this step's loss, without reading it from the device, and its learning rate.

        Lightning's own monitor of the rate sends it to the device, and waits for that.
        """
        self.has_begun = True
        step, pictures = trainer.global_step - 1, trainer.datamodule.size_of_batch(batch_idx)
        if step % self.every == 0:
            self.pending.append(
                {
                    "step": step,
                    "epoch": trainer.current_epoch + 1,
                    "lr": self.lr,
                    "train_loss": outputs["losses"].sum() / pictures,
                }
            )
            if trainer.logger is not None:
                trainer.logger.log_metrics({"learning_rate": self.lr}, step)
        self.bar.update(pictures)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of watching."""
        self.watching_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it."""
        self.watching += time.perf_counter() - self.watching_started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write both tables; raise if the loss is no longer a number."""
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row |= {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "lr": self.lr}
        row["seconds"] = round(time.perf_counter() - self.epoch_started, 3)
        self._check_finite(row)
        self.epochs.append({name: row[name] for name in HISTORY_COLUMNS})
        self.steps += self._noted_steps(trainer)
        self._write()
        self.bar.refresh()
        if self.is_first:
            self.bar.write(epoch_in_words(row, self.max_epochs, self.watched))

    def _noted_steps(self, trainer: Trainer) -> list[dict]:
        """Return this epoch's rows of steps; the parts of a loss, of each process one, add up."""
        rows, self.pending = self.pending, []
        if not rows:
            return []
        losses = torch.stack([row["train_loss"] for row in rows])
        losses = trainer.strategy.reduce(losses, reduce_op="sum").tolist()
        return [{**row, "train_loss": loss} for row, loss in zip(rows, losses, strict=True)]

    def _write(self) -> None:
        if not self.is_first:
            return
        self.run.write_csv("steps.csv", STEP_COLUMNS, self.steps)
        self.run.write_csv("metrics.csv", HISTORY_COLUMNS, self.epochs)

    def _check_finite(self, row: Mapping) -> None:
        if not row["train_loss"] < float("inf"):
            self.bar.close()
            raise InputError(
                f"The training loss is {row['train_loss']} in epoch {row['epoch']}: training has "
                f"diverged. Lower max_lr, or let notebook 02 find one (max_lr='found')."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the progress bar."""
        self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception) -> None:
        """Leave the bar where it was stopped."""
        if hasattr(self, "bar"):
            self.bar.close()
