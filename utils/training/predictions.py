"""What a trained network says about each test picture: computed once, kept, checked."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from utils import InputError
from utils.data.batches import PictureDataModule, hold_out
from utils.data.picture_set import PictureSet
from utils.devices import choose_device
from utils.runs import Run
from utils.training.answers import check_numbers, checking
from utils.training.classifier import ImageClassifier
from utils.training.recipes import Recipe
from utils.training.trained import load_network
from utils.training.trainer import evaluate


def write_predictions(run: Run, logits: Tensor, targets: Tensor) -> None:
    """Write ``predictions.npz``: for each test picture its index, target, prediction and logits."""
    run.write_arrays(
        "predictions.npz",
        index=np.arange(len(logits)),
        target=targets.numpy(),
        predicted=logits.argmax(1).numpy(),
        logits=logits.numpy(),
    )


def right_on_new(picture_set: PictureSet, logits: Tensor) -> dict[str, int] | None:
    """Count the test pictures that are no copies or near-copies of training pictures.

    Args:
        picture_set: what the network was trained on.
        logits: float32, N×C: of its test split.

    Returns:
        ``size``, how many they are, and ``right``, how many of them were predicted right; None
        where no audit looked for copies, or where there are none.
    """
    train, test = picture_set.train, picture_set.test
    if train.groups is None or test.groups is None:
        return None
    new = ~torch.isin(test.groups, train.groups)
    if new.all():
        return None
    right = logits.argmax(1) == test.targets
    return {"size": int(new.sum()), "right": int(right[new].sum())}


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
        write_predictions(run, _logits(run, picture_set, devices), picture_set.test.targets)
    predictions = load_predictions(run)
    same = np.array_equal(predictions.target, picture_set.test.targets.numpy())
    if not same or predictions.num_classes != len(picture_set.classes):
        raise InputError(
            f"{run.path('predictions.npz')} is about pictures other than this run's. Delete it and "
            "run again."
        )
    return predictions


def predict_held_out(
    run: Run, picture_set: PictureSet, devices: str = "auto"
) -> Predictions | None:
    """Return a run's predictions for the training pictures it held out: one pass, float32.

    Args:
        run, picture_set, devices: as for `predict_test`.

    Returns:
        None where the run held none out. The indices count within what was held out.
    """
    if not run.settings["val_fraction"]:
        return None
    _, held_out = hold_out(picture_set, run.settings["val_fraction"])
    logits = _logits(run, replace(picture_set, test=held_out), devices)
    predicted, targets = logits.argmax(1).numpy(), held_out.targets.numpy()
    return Predictions(np.arange(len(logits)), targets, predicted, logits.numpy())


def _logits(run: Run, picture_set: PictureSet, devices: str) -> Tensor:
    """Return what a run's network says about a test split: float32, N×C."""
    device, _ = choose_device(devices)
    _, logits = evaluate(*trained_classifier(run, picture_set), device)
    return logits


def trained_classifier(
    run: Run, picture_set: PictureSet
) -> tuple[ImageClassifier, PictureDataModule]:
    """Return a trained run's classifier, and the batches to evaluate it on.

    Args:
        run: trained.
        picture_set: whose test split is evaluated.

    Raises:
        InputError: the weights are missing, damaged, or of another network.
    """
    recipe = Recipe.from_settings(run.settings)
    classifier = ImageClassifier(load_network(run), len(picture_set.classes), recipe)
    return classifier, PictureDataModule(picture_set, recipe.batch_size)


def load_predictions(run: Run) -> Predictions:
    """Read ``predictions.npz``.

    Raises:
        InputError: the file is missing, damaged, or not of one prediction a picture.
    """
    arrays = run.read_arrays("predictions.npz")
    with checking(run):
        predictions = Predictions(**arrays)
        _check_shapes(predictions)
    return predictions


def _check_shapes(predictions: Predictions) -> None:
    """Raise ValueError where the arrays are not what `Predictions` says of them."""
    logits = predictions.logits
    if logits.ndim != 2 or logits.dtype != np.float32 or not np.isfinite(logits).all():
        raise ValueError(f"logits are {logits.dtype} of shape {logits.shape}, or not finite")
    size, num_classes = logits.shape
    limits = {"index": size, "target": num_classes, "predicted": num_classes}
    for name, limit in limits.items():
        check_numbers(name, getattr(predictions, name), size, limit)
