"""The LightningModule: any network of the registry, trained by a recipe."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from utils import counted
from utils.data.augment import several_views
from utils.data.epochs import pictures_per_epoch
from utils.models.network import Network
from utils.training.optimizers import Muon
from utils.training.recipes import Recipe
from utils.training.recorded_pass import RecordedPass


class ImageClassifier(LightningModule):
    """Trains a network with cross-entropy, as a recipe says.

    Each split has metrics of its own, exact over the epoch (every picture counts once), and nothing
    is read back from the device during an epoch.

    Args:
        network: maps N×3×S×S pictures to N×num_classes logits.
        num_classes: number of classes, at least 2.
        recipe: loss, optimiser and schedule.
        class_counts: int, C: how many training pictures each class has, if all classes are to be
            learned alike however many they have; None learns them as frequent as they are. The
            logarithm of each class's share is added to its logit in training, and left out
            afterwards (Menon et al. 2021, "Long-tail learning via logit adjustment").

    Attributes:
        views: how many views of each test picture the test averages over.
        share: what this process's mean loss counts in the average over all processes, which
            Lightning takes of the gradients: more than 1 where it has more pictures of a batch.
    """

    def __init__(
        self,
        network: Network,
        num_classes: int,
        recipe: Recipe,
        class_counts: Tensor | None = None,
    ):
        super().__init__()
        self.offsets: Tensor | None
        self.network = network
        self.recipe = recipe
        self.views, self.share = 1, 1.0
        self.recorded: RecordedPass | None = None
        self.waiting = [
            weight
            for part in list(network.children())[:-1]
            for weight in part.parameters()
            if weight.requires_grad
        ]
        offsets = None if class_counts is None else class_counts.clamp(min=1).float().log()
        self.register_buffer("offsets", offsets, persistent=False)
        for split in ("train", "val", "test"):
            # the default check for NaN would wait for the device at every step; without it the
            # metric ignores weights, so it is given the loss of every picture
            setattr(self, f"{split}_loss", MeanMetric(nan_strategy="disable"))
            accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
            setattr(self, f"{split}_acc", accuracy)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised pictures (N×3×S×S, float) to logits (N×num_classes)."""
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> dict[str, Tensor]:
        """Return what to minimise for a batch, and its plain cross-entropies (N).

        Args:
            batch: images and targets first; what follows them is not needed here.
        """
        images, targets = batch[:2]
        passes = self.forward if self.recorded is None else self.recorded
        logits = passes(images).float()
        losses = self._measure("train", logits, targets)
        smoothing = self.recipe.label_smoothing
        if not smoothing and self.offsets is None:
            return {"loss": losses.mean(), "losses": losses.detach()}
        if self.offsets is not None:
            logits = logits + self.offsets
        loss = cross_entropy(logits, targets, label_smoothing=smoothing)
        return {"loss": loss, "losses": losses.detach()}

    def on_train_start(self) -> None:
        """Have passes recorded, where what is learned stays the same, by one process."""
        if self.trainer.world_size == 1 and not self.recipe.head_share:
            self.recorded = RecordedPass(self.network)

    def on_train_end(self) -> None:
        """Give the memory of a recorded pass back."""
        self.recorded = None

    def on_train_batch_start(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Note how large a part of the whole batch this process has."""
        trainer: Any = self.trainer
        if trainer.world_size > 1:
            whole = trainer.datamodule.size_of_batch(batch_idx)
            self.share = len(batch[1]) * trainer.world_size / whole

    def on_train_batch_end(self, outputs, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Log the metrics once an epoch: at every step, a GPU would wait for it."""
        if self.trainer.is_last_batch:
            self._log("train")

    def backward(self, loss: Tensor, *args, **kwargs) -> None:
        """Compute gradients whose average over all processes is that of the whole batch's mean."""
        super().backward(loss if self.share == 1 else loss * self.share, *args, **kwargs)

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """Measure a batch of the watched split."""
        images, targets = batch[:2]
        self._measure("val", self(images).float(), targets)
        self._log("val")

    def test_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Measure a batch of the test split, and return its logits (float32)."""
        images, targets = batch[:2]
        views = several_views(images, self.views)
        logits = sum(weight * self(view).float() for view, weight in views)
        self._measure("test", logits, targets)
        self._log("test")
        return logits

    def _measure(self, split: str, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (N) of a batch's logits, and add them to the metrics of the split."""
        losses = cross_entropy(logits, targets, reduction="none")
        if len(targets):  # of several processes, one may have no part in the last batch
            getattr(self, f"{split}_loss").update(losses.detach())
            getattr(self, f"{split}_acc").update(logits.detach(), targets)
        return losses

    def _log(self, split: str) -> None:
        """Have the Trainer read the metrics of a split at the end of its epoch."""
        metrics = {name: getattr(self, name) for name in (f"{split}_loss", f"{split}_acc")}
        self.log_dict(metrics, on_step=False, on_epoch=True)

    def on_train_epoch_start(self) -> None:
        """Have the network's last part learn alone in the first epochs, if the recipe says so.

        What waits does not change at all: its norms do not look at the pictures either. Nor do any,
        all the time, where the recipe has them keep their statistics.
        """
        if self.recipe.head_share:
            self._let_wait(self.current_epoch < round(self.recipe.head_share * self.recipe.epochs))
        if self.recipe.fixed_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _let_wait(self, waits: bool) -> None:
        *earlier, _ = self.network.children()
        for part in earlier:
            part.train(not waits)
        for weight in self.waiting:
            weight.requires_grad = not waits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser, and OneCycle stepped every batch over all steps of the training."""
        optimizer = build_optimizer(self.network, self.recipe, self.trainer.precision)
        schedule = one_cycle(optimizer, self.recipe, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def build_optimizer(
    network: nn.Module, recipe: Recipe, precision: str = "32-true"
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser, without a schedule.

    Args:
        network: whose weights are learned.
        recipe: of the training.
        precision: Lightning's name of it. In bfloat16, Muon multiplies so, too.
    """
    if recipe.optimizer == "muon":
        dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
        return Muon(network, recipe.max_lr, recipe.max_momentum, dtype=dtype)
    return torch.optim.Adam(_by_depth(network, recipe), lr=recipe.max_lr)


def _by_depth(network: nn.Module, recipe: Recipe) -> Iterable:
    """Return the network's weights, in groups with a rate each where the recipe has several."""
    parts = [part for part in network.children() if any(True for _ in part.parameters())]
    if recipe.depth_decay == 1 or not parts:
        return network.parameters()
    return [
        {"params": list(part.parameters()), "lr": recipe.max_lr * recipe.depth_decay**place}
        for place, part in enumerate(reversed(parts))
    ]


def one_cycle(optimizer: torch.optim.Optimizer, recipe: Recipe, total_steps: int) -> LRScheduler:
    """Return the recipe's OneCycle schedule, to be stepped after every batch.

    The first of the optimiser's groups has the recipe's peak, the others keep their share of it. A
    single step has the peak: there is nothing to rise from or to fall to.
    """
    first = optimizer.param_groups[0]["lr"]
    if total_steps == 1:
        return LambdaLR(optimizer, lambda step: recipe.max_lr / first)
    rise = recipe.warmup_share
    if rise * total_steps == 1:
        rise *= 1 + 1e-9  # for a rise of just one step torch divides by zero
    return OneCycleLR(
        optimizer,
        max_lr=[recipe.max_lr * group["lr"] / first for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=rise,
        anneal_strategy="linear",
        div_factor=recipe.initial_lr_divisor,
        final_div_factor=recipe.final_lr_divisor,
        base_momentum=recipe.min_momentum,
        max_momentum=recipe.max_momentum,
    )


def planned_schedule(recipe: Recipe, train_size: int) -> tuple[list[float], list[float], int]:
    """Return what a training of this size will follow, by running the schedule alone.

    Args:
        recipe: of the training.
        train_size: number of training pictures.

    Returns:
        learning rate and momentum (Adam's first beta) of each step, and the steps in an epoch.
    """
    steps_per_epoch = -(-pictures_per_epoch(train_size, recipe.skipped) // recipe.batch_size)
    optimizer = build_optimizer(nn.Linear(1, 1), recipe)
    schedule = one_cycle(optimizer, recipe, recipe.epochs * steps_per_epoch)
    learning_rates, momenta = [], []
    for _ in range(recipe.epochs * steps_per_epoch):
        group = optimizer.param_groups[0]
        learning_rates.append(group["lr"])
        momenta.append(group["betas"][0] if "betas" in group else group["momentum"])
        optimizer.step()
        schedule.step()
    return learning_rates, momenta, steps_per_epoch


def schedule_in_words(
    learning_rates: Sequence[float], momenta: Sequence[float], steps_per_epoch: int
) -> str:
    """Return how learning rate and momentum will go, of `planned_schedule`."""
    peak = max(range(len(learning_rates)), key=learning_rates.__getitem__)
    when = f"after {counted(peak, 'step')}" if peak else "at its first step"
    low, high = min(momenta), max(momenta)
    carried = f"stays at {low:.3g}"
    if low < high:
        carried = f"falls from {high:.3g} to {low:.3g} and returns"
    return (
        f"{counted(len(learning_rates), 'step')}, {steps_per_epoch:,} an epoch. The rate starts at "
        f"{learning_rates[0]:.2g}, is highest {when} "
        f"({learning_rates[peak]:.2g}) and ends at {learning_rates[-1]:.2g}; the momentum "
        f"{carried}."
    )
