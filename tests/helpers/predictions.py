"""Predictions with known properties, for tests of what is made of them."""

import numpy as np

from utils.training.predictions import Predictions

NEVER_PREDICTED, NEVER_OCCURS = 2, 4


def make_predictions(size=400, seed=0, sharpness=2.0):
    """Random predictions, right about half of the time; confidences all over [1/6, 1]."""
    random = np.random.default_rng(seed)
    occurring = [c for c in range(6) if c != NEVER_OCCURS]
    target = random.choice(occurring, size)
    logits = random.normal(size=(size, 6)) * sharpness
    logits[np.arange(size), target] += 2
    logits[:, NEVER_PREDICTED] = -20
    logits = logits.astype(np.float32)
    return Predictions(np.arange(size), target, logits.argmax(1), logits)


def from_probabilities(probabilities, target):
    """Predictions with exactly these probabilities."""
    probabilities = np.asarray(probabilities, np.float64)
    return Predictions(
        np.arange(len(target)), np.asarray(target), probabilities.argmax(1),
        np.log(probabilities).astype(np.float32),
    )  # fmt: skip


def of_classes(target, predicted, sure=0.75):
    """Predictions of three classes, all as sure."""
    probabilities = np.full((len(target), 3), (1 - sure) / 2)
    probabilities[np.arange(len(target)), predicted] = sure
    return from_probabilities(probabilities, target)


def drawn_from(size, seed=0, sharper=1.0):
    """Predictions of ten classes; targets are drawn from the probabilities of `sharper` = 1."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(size, 10))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = (chances.cumsum(axis=1) > random.random((size, 1))).argmax(axis=1)
    logits = (sharper * logits).astype(np.float32)
    return Predictions(np.arange(size), target, logits.argmax(1), logits)
