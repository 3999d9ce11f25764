"""What training logged: reading it, and the few numbers that sum it up. Needs no torch."""

import pandas as pd

from utils.runs import HISTORY_COLUMNS, STEP_COLUMNS, Run
from utils.training.recipes import Recipe


def read_history(run: Run) -> pd.DataFrame:
    """Return ``metrics.csv``: a row an epoch, epochs counted from 1, accuracies in [0, 1].

    Raises:
        InputError: the file is missing or damaged.
    """
    return pd.DataFrame(run.read_csv("metrics.csv", HISTORY_COLUMNS), columns=HISTORY_COLUMNS)


def read_steps(run: Run) -> pd.DataFrame:
    """Return ``steps.csv``: a row every few steps, counted from 0; epochs from 1.

    Raises:
        InputError: the file is missing or damaged.
    """
    return pd.DataFrame(run.read_csv("steps.csv", STEP_COLUMNS), columns=STEP_COLUMNS)


def summarise(history: pd.DataFrame) -> dict[str, float]:
    """Return final and best figures, and where the watched split stopped improving.

    Args:
        history: at least one epoch, as `read_history` gives it.

    Returns:
        ``epochs``, ``seconds`` (all of training), ``final_*`` for every loss and accuracy,
        ``best_acc`` and ``best_epoch`` (the first with the highest watched accuracy),
        ``lowest_loss`` and ``lowest_loss_epoch`` (of the watched split), ``gap`` (final train
        minus watched accuracy, in [-1, 1]), ``epochs_since_best``.
    """
    last = history.iloc[-1]
    best = history.loc[history["val_acc"].idxmax()]
    lowest = history.loc[history["val_loss"].idxmin()]
    measured = ("train_loss", "train_acc", "val_loss", "val_acc")
    return {
        "epochs": int(last["epoch"]),
        "seconds": float(history["seconds"].sum()),
        **{f"final_{name}": float(last[name]) for name in measured},
        "best_acc": float(best["val_acc"]),
        "best_epoch": int(best["epoch"]),
        "lowest_loss": float(lowest["val_loss"]),
        "lowest_loss_epoch": int(lowest["epoch"]),
        "gap": float(last["train_acc"] - last["val_acc"]),
        "epochs_since_best": int(last["epoch"] - best["epoch"]),
    }


def picture_sides(run: Run) -> list[int]:
    """Return the pictures' side in pixels in each epoch planned; empty where they do not grow."""
    recipe = Recipe.from_settings(run.settings)
    return recipe.picture_sides(run.settings["image_size"]) if recipe.growth else []


def pooled_accuracy(history: pd.DataFrame, shown: int, watched: int) -> pd.Series:
    """Return the accuracy over training and watched pictures together, after each epoch.

    The original logged this as its validation accuracy: one metric collected both, and was reset
    only after validation. Training pictures count as they were seen, augmented and while the
    network learned.

    Args:
        history: as `read_history` gives it.
        shown: how many training pictures an epoch shows.
        watched: how many pictures are watched after it.

    Returns:
        float, a value an epoch, in [0, 1].
    """
    right = history["train_acc"] * shown + history["val_acc"] * watched
    return right / (shown + watched)
