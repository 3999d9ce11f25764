"""How near a training comes to the one that this project reproduces, as that one's log shows it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils import as_markdown
from utils.data.picture_set import PictureSet
from utils.measure import trials
from utils.measure.trials import Trial
from utils.training.history import pooled_accuracy, read_history
from utils.training.recipes import CANDIDATES, RECIPES

#: After these epochs the log is compared where its curves are read at single points.
EPOCHS = (5, 10, 15, 20)


@dataclass(frozen=True)
class Curves:
    """What is compared.

    Attributes:
        train_loss: after ``EPOCHS``; of a run the epoch's mean, of the log a batch near its end.
        pooled: accuracy over training and test pictures together, after ``EPOCHS``.
        test_loss: after each of twenty epochs.
    """

    train_loss: Sequence[float]
    pooled: Sequence[float]
    test_loss: Sequence[float]


#: The original's, read from a picture of its TensorBoard, to within 0.02.
LOGGED = Curves(
    train_loss=(0.77, 0.37, 0.29, 0.19),
    pooled=(0.71, 0.845, 0.895, 0.932),
    test_loss=(
        *(1.25, 1.03, 1.17, 1.16, 0.85, 1.00, 0.50, 0.70, 0.39, 0.43),
        *(0.365, 0.44, 0.365, 0.37, 0.305, 0.295, 0.275, 0.25, 0.24, 0.232),
    ),
)


def print_candidates(
    picture_set: PictureSet, output_dir: str | Path, table_file: str | Path | None = None, **options
) -> None:
    """Train as the original did, with each augmentation that it may have had, and compare the logs.

    Args:
        picture_set: from `utils.data.sources.load_pictures`.
        output_dir: where the runs are kept; what is complete is read, what was stopped goes on.
        table_file: where to write the tables too; None for nowhere.
        options: further arguments of `utils.training.plan.plan_training`.
    """
    variants = {
        f"augmentation {letter}": replace(RECIPES["original"], augmentation=augmentation)
        for letter, augmentation in CANDIDATES.items()
    }
    in_turn = trials.train_in_turn(picture_set, variants, 1, output_dir, **options)
    made = trials.print_each(in_turn)
    trials.print_and_write([*trials.table(made), "", *table(made)], table_file)


def curves_of(trial: Trial) -> Curves:
    """Return what a complete run of twenty epochs logged."""
    record, history = trial.run.record["data"], read_history(trial.run)
    pooled = pooled_accuracy(history, record["train_size"], record["watched_size"])
    at = [epoch - 1 for epoch in EPOCHS]
    return Curves(
        tuple(history["train_loss"].iloc[at]),
        tuple(pooled.iloc[at]),
        tuple(history["val_loss"]),
    )


def distances(curves: Curves) -> dict[str, float]:
    """Return how far each curve lies from the original's, on average over its points, by name."""
    return {
        name: float(np.abs(np.subtract(getattr(curves, name), logged)).mean())
        for name, logged in vars(LOGGED).items()
    }


def table(made: Sequence[Trial]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a column for the log and for each training.

    Args:
        made: complete, of twenty epochs, on the same pictures.
    """
    curves = [curves_of(trial) for trial in made]
    columns = ("the original's log", *(as_markdown(trial.variant) for trial in made))
    yield f"| after epochs {', '.join(map(str, EPOCHS))} | {' | '.join(columns)} |"
    yield f"| --- |{' --- |' * len(columns)}"
    for name, what in (("train_loss", "training loss"), ("pooled", "pooled accuracy")):
        cells = (_listed(getattr(each, name)) for each in (LOGGED, *curves))
        yield f"| {what} | {' | '.join(cells)} |"
    at = [epoch - 1 for epoch in EPOCHS]
    cells = (_listed(np.take(each.test_loss, at)) for each in (LOGGED, *curves))
    yield f"| test loss | {' | '.join(cells)} |"
    for name, what in (
        ("train_loss", "distance in training loss"),
        ("pooled", "distance in pooled accuracy"),
        ("test_loss", "distance in test loss, all epochs"),
    ):
        far = (f"{distances(each)[name]:.3f}" for each in curves)
        yield f"| {what} | – | {' | '.join(far)} |"


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
