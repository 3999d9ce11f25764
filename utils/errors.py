"""Error analysis: predictions of the whole test split, and what they get wrong."""

from dataclasses import dataclass

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

from utils import InputError, first_line
from utils.classifier import ImageClassifier
from utils.data import PictureDataModule, PictureSet
from utils.devices import choose_device
from utils.recipes import Recipe
from utils.runs import Run
from utils.training import load_network, test_in_float32, write_predictions

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Predictions:
    """What a network said about each picture of a split.

    Attributes:
        index: int64, N: position in the split.
        target: int64, N: the true class.
        predicted: int64, N: the class with the highest logit.
        logits: float32, N×C.
    """

    index: np.ndarray
    target: np.ndarray
    predicted: np.ndarray
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, float32, N×C."""
        return torch.from_numpy(self.logits).softmax(1).numpy()

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, float32, N."""
        return self.probabilities.max(axis=1)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.logits.shape[1]

    @property
    def accuracy(self) -> float:
        """Share of pictures predicted right."""
        return float((self.predicted == self.target).mean())


def predict_test(run: Run, picture_set: PictureSet, devices: str = "auto") -> Predictions:
    """Return a run's predictions for the test split: one pass, float32, written and reused.

    Args:
        run: a trained run; its ``predictions.npz`` is read, or else written.
        picture_set: the data set it was trained on.
        devices: as `utils.devices.choose_device` takes it.

    Raises:
        InputError: the file is damaged, or about other pictures.
    """
    if not run.path("predictions.npz").exists():
        device, _ = choose_device(devices)
        recipe = Recipe.from_settings(run.settings)
        classifier = ImageClassifier(load_network(run), len(picture_set.classes), recipe)
        data = PictureDataModule(picture_set, recipe.batch_size)
        _, logits = test_in_float32(classifier, data, device)
        write_predictions(run, logits, picture_set.test.targets)
    predictions = load_predictions(run)
    same = np.array_equal(predictions.target, picture_set.test.targets.numpy())
    if not same or predictions.num_classes != len(picture_set.classes):
        raise InputError(
            f"{run.path('predictions.npz')} is about other pictures than those of this run. Delete "
            "it and run again."
        )
    return predictions


def load_predictions(run: Run) -> Predictions:
    """Read ``predictions.npz``.

    Raises:
        InputError: the file is missing, damaged, or not of one prediction a picture.
    """
    arrays = run.read_arrays("predictions.npz")
    try:
        predictions = Predictions(**arrays)
        _check_shapes(predictions)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{run.path('predictions.npz')} is damaged ({first_line(error)}). Delete it and run "
            "again."
        ) from error
    return predictions


def _check_shapes(predictions: Predictions) -> None:
    """Raise ValueError where the arrays are not what `Predictions` says of them."""
    logits = predictions.logits
    if logits.ndim != 2 or logits.dtype != np.float32 or not np.isfinite(logits).all():
        raise ValueError(f"logits are {logits.dtype} of shape {logits.shape}, or not finite")
    size, num_classes = logits.shape
    limits = {"index": size, "target": num_classes, "predicted": num_classes}
    for name, limit in limits.items():
        values = getattr(predictions, name)
        if values.shape != (size,) or values.dtype != np.int64 or size == 0:
            raise ValueError(f"{name} is {values.dtype} {values.shape}, not int64 ({size},)")
        if values.min() < 0 or values.max() >= limit:
            raise ValueError(f"{name} has values outside 0 … {limit - 1}")


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
