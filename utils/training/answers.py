"""What test pictures are and were taken for: read without logits and torch, of many runs."""

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from utils import InputError, first_line
from utils.runs import Run


def load_answers(run: Run, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the true and the predicted classes of ``predictions.npz``.

    The logits are most of the file, so this takes a small part of the time that all of it takes.

    Args:
        run: a trained run.
        num_classes: how many it was trained on.

    Returns:
        the true and the predicted classes, int64, N each.

    Raises:
        InputError: the file is missing, damaged, or not of one prediction a picture.
    """
    arrays = run.read_arrays("predictions.npz", ("target", "predicted"))
    with checking(run):
        for name, values in arrays.items():
            check_numbers(name, values, arrays["target"].size, num_classes)
    return arrays["target"], arrays["predicted"]


@contextmanager
def checking(run: Run) -> Generator[None]:
    """Say that ``predictions.npz`` is damaged where what is done within shows it.

    Raises:
        InputError: naming the file and what is wrong.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{run.path('predictions.npz')} is damaged ({first_line(error)}). Delete it and run "
            "again."
        ) from error


def check_numbers(name: str, values: np.ndarray, size: int, limit: int) -> None:
    """Raise ValueError where these are not so many numbers, int64, from 0 to below `limit`."""
    if values.shape != (size,) or values.dtype != np.int64 or size == 0:
        raise ValueError(f"{name} is {values.dtype} {values.shape}, not int64 ({size},)")
    if values.min() < 0 or values.max() >= limit:
        raise ValueError(f"{name} has values outside 0 … {limit - 1}")
