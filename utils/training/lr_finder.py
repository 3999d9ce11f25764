"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates", section 3.3).

A throw-away network is trained for a few steps by a plain Trainer while the learning rate rises
exponentially. The raw loss of every step is recorded and smoothed without lag; the rate at which it
is lowest is suggested.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pytorch_lightning.utilities.seed import isolate_rng
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR

from utils import InputError, check_number, counted
from utils.progress import progress_bar
from utils.runs import Run
from utils.settings import SETTINGS
from utils.training.classifier import ImageClassifier, build_optimizer
from utils.training.plan import TrainingPlan, check_smallest_batch
from utils.training.recipes import Recipe
from utils.training.trainer import build_trainer, interruptible

DIVERGED = 3.0  # stop once the mean of the last losses is this many times the lowest such mean
RECENT = 3  # how many losses that mean is over; single batches are too noisy
SMOOTHING = 0.2  # standard deviation of the smoothing, in decades of learning rate


@dataclass(frozen=True)
class RangeTest:
    """What a sweep measured.

    Attributes:
        learning_rates: float64, one a step, rising.
        losses: float64, the training loss of each step.
        smoothed: float64, the losses averaged over their neighbours.
        suggestion: the rate at the lowest smoothed loss, or None.
        reason: why there is no suggestion, or only a weak one; empty where there is a good one.
        chance: the loss of guessing, ln(number of classes).
        seconds: how long the sweep took.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None
    reason: str
    chance: float = np.inf
    seconds: float = 0.0


def sweep(
    plan: TrainingPlan,
    steps: int = SETTINGS["lr_steps"].default,
    min_lr: float = 1e-4,
    max_lr: float = 1.0,
) -> RangeTest:
    """Train a throw-away network while the learning rate rises exponentially.

    It sees the very batches and augmentation that training will, but all of one size, that of
    training's first epoch: larger pictures halfway would bend the curve. Nothing of it is kept but
    the curve. Stops early once the loss has left all reason.

    Args:
        plan: the training whose learning rate is sought.
        steps: number of learning rates to try.
        min_lr, max_lr: the range.

    Raises:
        InputError: a number out of range, or an epoch whose last batch is too small to learn from.
    """
    SETTINGS["lr_steps"].check(steps)
    check_number("min_lr", min_lr, 1e-12, 10.0)
    check_number("max_lr of the sweep", max_lr, 1e-11, 1e3)
    if min_lr >= max_lr:
        raise InputError(f"The sweep must rise: min_lr is {min_lr:g} and max_lr {max_lr:g}.")
    started = time.perf_counter()
    with (
        progress_bar(description="Range test", total=steps, unit="steps") as bar,
        isolate_rng(),  # a loader draws a number for every pass, and training shall not notice
        interruptible(),
    ):
        classifier = _Sweep(plan, _rising(min_lr, max_lr, steps), bar.update)
        data = plan.data_module()
        data.sides = data.sides[:1]
        check_smallest_batch(plan, classifier.network, data)
        trainer = build_trainer(
            plan.device,
            plan.settings["precision"],
            max_steps=steps,
            limit_val_batches=0,  # a sweep needs no validation
        )
        trainer.fit(classifier, datamodule=data)
    learning_rates, losses = np.array(classifier.learning_rates), np.array(classifier.losses)
    seconds = time.perf_counter() - started
    chance = float(np.log(len(plan.picture_set.classes)))
    found = suggest(learning_rates, losses, chance)
    return RangeTest(learning_rates, losses, *found, chance, seconds)


def _rising(low: float, high: float, steps: int) -> Callable[[int], float]:
    """Return the learning rate of each step: `low` first, and `high` last.

    The steps are spaced as Lightning's `Tuner.lr_find` spaces them, the first of them twice as
    wide, so that curves can be compared with those of earlier versions.
    """

    def rate(step: int) -> float:
        return low * (high / low) ** ((step + 1) / steps) if step else low

    return rate


class _Sweep(ImageClassifier):
    """Follows the rates, keeps the raw loss of every step, and stops when it diverges.

    Args:
        plan: whose network and recipe are tried.
        rate: the learning rate by the number of the step.
        advance: is called after each step.
    """

    def __init__(
        self, plan: TrainingPlan, rate: Callable[[int], float], advance: Callable[[], object]
    ):
        classes = len(plan.picture_set.classes)
        super().__init__(plan.network(), classes, plan.recipe, plan.class_counts())
        self.rate, self.advance = rate, advance
        self.learning_rates: list[float] = []
        self.losses: list[float] = []
        self.lowest = float("inf")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the recipe's optimiser, and the rising rate, stepped every batch."""
        optimizer = build_optimizer(self.network, self.recipe, self.trainer.precision)
        for group in optimizer.param_groups:
            group["lr"] /= self.recipe.max_lr  # 1, or less; times the factor of the step
        rising = LambdaLR(optimizer, self.rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": rising, "interval": "step"},
        }

    def on_train_batch_start(self, batch, batch_idx: int) -> None:
        self.learning_rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, outputs, batch, batch_idx: int) -> None:
        self.advance()
        self.losses.append(float(outputs["losses"].mean()))
        recent = float(np.mean(self.losses[-RECENT:]))
        self.lowest = min(self.lowest, recent)
        if not recent <= DIVERGED * self.lowest:
            self.trainer.should_stop = True


def smooth(learning_rates: np.ndarray, losses: np.ndarray, width: float = SMOOTHING) -> np.ndarray:
    """Average each loss with its neighbours, by a Gaussian in the decades of learning rate.

    Unlike a running average it looks both ways, so that it does not shift the curve.

    Args:
        learning_rates, losses: float, N.
        width: standard deviation in decades.
    """
    return _weights(learning_rates, width) @ losses


def _weights(learning_rates: np.ndarray, width: float) -> np.ndarray:
    """Return what each loss counts in each smoothed one: N×N, rows that sum to 1."""
    decades = np.log10(learning_rates)
    weights = np.exp(-0.5 * ((decades[:, None] - decades[None]) / width) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def suggest(
    learning_rates: np.ndarray, losses: np.ndarray, chance: float = np.inf
) -> tuple[np.ndarray, float | None, str]:
    """Find the rate at which the smoothed loss is lowest.

    At smaller rates the few steps of a sweep learn less, at larger ones they overshoot. A schedule
    that warms up and cools down can take this rate for its peak; a constant rate should be smaller.
    Where the loss falls steepest is no better guide: a fresh network can be sure and wrong, and the
    smallest rates undo that within a few steps, which is a steep fall and no learning.

    Args:
        learning_rates: float, N, rising.
        losses: float, N; what comes after the first value that is not a number is left out.
        chance: the loss of guessing.

    Returns:
        The smoothed losses (NaN where left out), the suggested rate or None, and the reason why
        there is none, or why it is a weak one; empty for a good one.
    """
    broken = np.flatnonzero(~np.isfinite(losses))
    usable = broken[0] if len(broken) else len(losses)
    smoothed = np.full(len(losses), np.nan)
    if usable < 5:
        return smoothed, None, f"only {usable} steps gave a finite loss"
    smoothed[:usable] = smooth(learning_rates[:usable], losses[:usable])
    lowest = int(np.nanargmin(smoothed))
    fallen = smoothed[:lowest].max(initial=-np.inf) - smoothed[lowest]
    if fallen < 1e-9 * np.abs(smoothed[:usable]).max():  # rounding alone is no fall
        return smoothed, None, "the loss never fell"
    reason = ""
    if smoothed[lowest] >= chance:
        reason = (
            f"weak: the loss never fell below that of guessing, {chance:.2f}; more steps would tell"
        )
    elif lowest == len(losses) - 1:
        reason = "weak: the loss was still falling at the largest rate that was tried"
    return smoothed, float(learning_rates[lowest]), reason


def floor(result: RangeTest) -> tuple[float, float] | None:
    """Return the lowest and the highest rate whose smoothed loss cannot be told from the lowest.

    It lies within two standard errors of it, as far as the scatter of the single losses about the
    curve tells; how far another seed would move the whole curve is not in it.

    Args:
        result: of `sweep`.

    Returns:
        None where nothing was suggested.
    """
    if result.suggestion is None:
        return None
    usable = np.flatnonzero(np.isfinite(result.smoothed))
    rates, smoothed = result.learning_rates[usable], result.smoothed[usable]
    lowest = int(smoothed.argmin())
    weights = _weights(rates, SMOOTHING)[lowest]
    scatter = weights @ (result.losses[usable] - smoothed) ** 2
    error = np.sqrt(scatter * (weights**2).sum())
    level = rates[smoothed <= smoothed[lowest] + 2 * error]
    return float(level[0]), float(level[-1])


def save(run: Run, result: RangeTest) -> None:
    """Write ``lr_finder.json``."""
    run.write_json(
        "lr_finder.json",
        {
            "learning_rates": result.learning_rates.tolist(),
            "losses": [loss if np.isfinite(loss) else None for loss in result.losses.tolist()],
            "suggestion": result.suggestion,
            "reason": result.reason,
            "seconds": round(result.seconds, 2),
        },
    )


def in_short(result: RangeTest, steps: int, recipe: Recipe) -> str:
    """Return what a range test found, as Markdown.

    Args:
        result: of `sweep`.
        steps: how many learning rates it was to try.
        recipe: whose peak is named beside it.
    """
    tried, rates = len(result.losses), result.learning_rates
    suggestion = "none" if result.suggestion is None else f"{result.suggestion:.2g}"
    between = floor(result)
    wide = f", on a floor from {between[0]:.2g} to {between[1]:.2g}" if between else ""
    remark = f" ({result.reason})" if result.reason else ""
    early = ", stopped early as the loss exploded" if tried < steps else ""
    return (
        f"{tried:,} of {counted(steps, 'rate')} tried in {result.seconds:.0f} s, from "
        f"{rates[0]:.2g} to {rates[-1]:.2g}{early}. Suggested peak: **{suggestion}**{remark}{wide}"
        f"; the recipe `{recipe.name}` peaks at {recipe.max_lr:g}."
    )
