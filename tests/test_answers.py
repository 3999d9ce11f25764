"""Answers of a run without its logits: those of its predictions, or a reason."""

import numpy as np
import pytest

from helpers.runs import CLASSES, make_run, rights
from utils import InputError
from utils.training.answers import load_answers
from utils.training.predictions import load_predictions


@pytest.fixture
def run(tmp_path):
    """A run with predictions of forty pictures in three classes."""
    return make_run(tmp_path, "run", rights(1, 40)[0])


def test_answers_are_those_of_the_predictions(run):
    target, predicted = load_answers(run, len(CLASSES))
    predictions = load_predictions(run)
    np.testing.assert_array_equal(target, predictions.target)
    np.testing.assert_array_equal(predicted, predictions.predicted)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"predicted": np.arange(3)}, r"predicted is int64 \(3,\)"),
        ({"predicted": np.full(40, 3)}, "predicted has values outside 0 … 2"),
        ({"target": np.full(40, -1)}, "target has values outside 0 … 2"),
        ({"target": np.zeros(40)}, "target is float64"),
        ({"target": np.empty(0, int), "predicted": np.empty(0, int)}, "target is int64"),
    ],
)
def test_what_are_no_answers_is_refused(run, changed, words):
    run.write_arrays("predictions.npz", **{**run.read_arrays("predictions.npz"), **changed})
    with pytest.raises(InputError, match=f"predictions.npz is damaged .*{words}"):
        load_answers(run, len(CLASSES))


def test_a_file_without_them_is_refused(run):
    run.write_arrays("predictions.npz", target=np.arange(3))
    with pytest.raises(InputError, match="damaged"):
        load_answers(run, len(CLASSES))
    run.path("predictions.npz").unlink()
    with pytest.raises(InputError, match="05_misclassified"):
        load_answers(run, len(CLASSES))
