"""What a network gets wrong: confusion, classes, calibration, single mistakes."""

import numpy as np
import pandas as pd
import torch
from torchmetrics.functional import calibration_error as torchmetrics_calibration_error
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from utils.training.predictions import Predictions

CALIBRATION_BINS = 15


def confusion(predictions: Predictions) -> np.ndarray:
    """Return the confusion matrix, int64, C×C: rows actual, columns predicted."""
    return multiclass_confusion_matrix(*_tensors(predictions)).numpy()


def per_class_table(predictions: Predictions, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return precision, recall and F1 of each class, in [0, 1], and its number of pictures.

    A class that was never predicted, or never occurs, has 0 where the ratio is undefined.
    """
    figures = {
        name: score(*_tensors(predictions), average="none").numpy().astype(float)
        for name, score in (
            ("precision", multiclass_precision),
            ("recall", multiclass_recall),
            ("f1", multiclass_f1_score),
        )
    }
    support = np.bincount(predictions.target, minlength=predictions.num_classes)
    return pd.DataFrame({"class": classes, **figures, "support": support})


def _tensors(predictions: Predictions):
    pair = torch.from_numpy(predictions.predicted), torch.from_numpy(predictions.target)
    return *pair, predictions.num_classes


def most_confused(matrix: np.ndarray, classes: tuple[str, ...], count: int = 10) -> pd.DataFrame:
    """Return the most frequent mistakes: actual, predicted, count, share of the actual class."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(wrong, axis=None, kind="stable")[::-1][:count]
    rows = [
        {
            "actual": classes[actual],
            "predicted": classes[predicted],
            "count": int(wrong[actual, predicted]),
            "share": float(wrong[actual, predicted] / matrix[actual].sum()),
        }
        for actual, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[actual, predicted]
    ]
    return pd.DataFrame(rows, columns=["actual", "predicted", "count", "share"])


def misclassified(predictions: Predictions) -> np.ndarray:
    """Return the positions of the wrong predictions, int64, the most confident first."""
    wrong = np.flatnonzero(predictions.predicted != predictions.target)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]


def calibration_table(predictions: Predictions, bins: int = CALIBRATION_BINS) -> pd.DataFrame:
    """Compare confidence with accuracy in bins of equal width (Guo et al. 2017, section 2).

    Returns:
        a row a filled bin: mean confidence, accuracy, count.
    """
    right = predictions.predicted == predictions.target
    table = pd.DataFrame({"confidence": predictions.confidence, "accuracy": right})
    table["bin"] = np.minimum((table["confidence"] * bins).astype(int), bins - 1)
    grouped = table.groupby("bin")
    means = grouped[["confidence", "accuracy"]].mean()
    return means.assign(count=grouped.size()).reset_index(drop=True)


def calibration_error(predictions: Predictions, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error, in [0, 1] (Guo et al. 2017, equation 3)."""
    return float(
        torchmetrics_calibration_error(
            torch.from_numpy(predictions.probabilities),
            torch.from_numpy(predictions.target),
            task="multiclass",
            num_classes=predictions.num_classes,
            n_bins=bins,
        )
    )
