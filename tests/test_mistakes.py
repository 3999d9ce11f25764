"""Error analysis against scikit-learn and plain numpy, and predictions of the whole test split."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

from helpers.records import valid_record
from utils import InputError
from utils.data.batches import EVAL_BATCH_SIZE
from utils.data.picture_set import PictureSet, Split
from utils.explain.mistakes import (
    calibration_error,
    calibration_table,
    confusion,
    misclassified,
    most_confused,
    per_class_table,
)
from utils.models.davidnet import DavidNet
from utils.models.registry import MODELS, create_model
from utils.runs import Run
from utils.training import predictions
from utils.training.predictions import Predictions, load_predictions, predict_test
from utils.training.recipes import RECIPES
from utils.training.trained import save_network

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")
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


# Tables


@pytest.mark.parametrize("seed", range(5))
def test_confusion_counts_actual_in_rows_and_predicted_in_columns(seed):
    predictions = make_predictions(seed=seed)
    matrix = confusion(predictions)
    expected = confusion_matrix(predictions.target, predictions.predicted, labels=range(6))
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.int64
    assert not matrix[NEVER_OCCURS].any() and not matrix[:, NEVER_PREDICTED].any()
    assert not np.array_equal(matrix, matrix.T)  # the wrong way round would show


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_each_class_are_those_of_scikit_learn(seed):
    predictions = make_predictions(seed=seed)
    assert set(predictions.predicted) == {0, 1, 3, 4, 5}
    table = per_class_table(predictions, CLASSES)
    expected = precision_recall_fscore_support(
        predictions.target, predictions.predicted, labels=range(6), zero_division=0
    )
    assert list(table["class"]) == list(CLASSES)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(table[name], values, rtol=1e-6, err_msg=name)
    assert table["support"][NEVER_OCCURS] == 0
    assert table[["precision", "recall", "f1"]].iloc[NEVER_PREDICTED].eq(0).all()
    assert not table.isna().any(axis=None)


def test_accuracy_is_that_of_scikit_learn():
    predictions = make_predictions()
    expected = accuracy_score(predictions.target, predictions.predicted)
    assert 0.2 < expected < 0.9
    assert predictions.accuracy == pytest.approx(expected)


def test_confidence_is_the_probability_of_the_predicted_class():
    predictions = make_predictions()
    exponentials = np.exp(predictions.logits.astype(np.float64))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-6)
    chosen = expected[np.arange(len(expected)), predictions.predicted]
    np.testing.assert_allclose(predictions.confidence, chosen, atol=1e-6)


def test_misclassified_are_all_the_wrong_ones_the_most_confident_first():
    predictions = make_predictions()
    found = misclassified(predictions)
    wrong = [i for i in range(400) if predictions.predicted[i] != predictions.target[i]]
    assert sorted(found) == wrong
    confidences = predictions.confidence[found]
    assert (np.diff(confidences) <= 0).all() and confidences[0] > confidences[-1]


def test_nothing_is_misclassified_where_all_is_right():
    predictions = from_probabilities([[0.9, 0.1], [0.2, 0.8]], [0, 1])
    assert len(misclassified(predictions)) == 0


def test_most_confused_lists_the_most_frequent_mistakes_with_their_share():
    matrix = np.array([[90, 7, 3], [20, 80, 0], [0, 5, 45]])
    table = most_confused(matrix, ("ant", "bee", "cat"))
    rows = list(table.itertuples(index=False, name=None))
    assert rows == [
        ("bee", "ant", 20, 0.2),
        ("ant", "bee", 7, 0.07),
        ("cat", "bee", 5, 0.1),
        ("ant", "cat", 3, 0.03),
    ]
    shown = most_confused(matrix, ("ant", "bee", "cat"), count=2)
    assert list(shown["count"]) == [20, 7]


def test_most_confused_is_an_empty_table_where_nothing_is_wrong():
    table = most_confused(np.diag([3, 0, 4]), ("ant", "bee", "cat"))
    assert list(table.columns) == ["actual", "predicted", "count", "share"]
    assert table.empty


# Calibration


def direct_bins(predictions, bins):
    """Guo et al. 2017: bin m holds confidences in ((m − 1)/M, m/M]."""
    probabilities = np.exp(predictions.logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    confidence = probabilities.max(axis=1)
    right = predictions.logits.argmax(1) == predictions.target
    edges = np.linspace(0, 1, bins + 1)
    rows = []
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            rows.append((confidence[inside].mean(), right[inside].mean(), inside.sum()))
    return np.array(rows)


@pytest.mark.parametrize("bins", [5, 15])
@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_the_weighted_gap_of_the_bins(seed, bins):
    predictions = make_predictions(seed=seed, sharpness=3.0)
    confidence, accuracy, count = direct_bins(predictions, bins).T
    expected = (np.abs(confidence - accuracy) * count).sum() / count.sum()
    assert expected > 0.01
    assert calibration_error(predictions, bins) == pytest.approx(expected, abs=1e-5)


def test_calibration_error_of_known_cases():
    sure_and_wrong = from_probabilities([[0.99999, 0.00001]] * 10, [1] * 10)
    assert calibration_error(sure_and_wrong) == pytest.approx(1, abs=1e-3)
    honest = from_probabilities([[0.75, 0.25]] * 100, [0] * 75 + [1] * 25)
    assert calibration_error(honest) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_table_has_a_row_a_filled_bin(seed):
    predictions = make_predictions(seed=seed)
    table = calibration_table(predictions)
    np.testing.assert_allclose(
        table[["confidence", "accuracy", "count"]], direct_bins(predictions, 15), atol=1e-5
    )
    assert table["count"].sum() == 400


def test_full_confidence_falls_into_the_last_bin():
    predictions = Predictions(
        np.arange(2), np.zeros(2, int), np.zeros(2, int),
        np.array([[90, -90], [0.1, 0]], np.float32),
    )  # fmt: skip
    table = calibration_table(predictions, bins=10)
    assert table["confidence"].tolist() == pytest.approx([0.525, 1.0], abs=1e-3)
    assert table["count"].tolist() == [1, 1]


# Predictions of the test split


class SmallDavidNet(DavidNet):
    """Fast enough for more than one batch of evaluation."""

    def __init__(self, num_classes=10, image_size=32, width=4):
        super().__init__(num_classes, width, image_size)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run whose network has random weights, and its pictures: more than one batch of them."""
    monkeypatch.setitem(MODELS, "davidnet", SmallDavidNet)
    generator = torch.Generator().manual_seed(1)

    def split(size):
        images = torch.randint(0, 256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator)
        return Split(images, torch.randint(0, 6, (size,), generator=generator))

    pictures = PictureSet(
        "noise", "noise", CLASSES, split(12), split(EVAL_BATCH_SIZE + 44),
        (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "fingerprint", (), {},
    )  # fmt: skip
    run = Run("run", tmp_path)
    network = create_model("davidnet", num_classes=6, image_size=16, seed=3)
    with torch.no_grad():  # batch normalisation must use what it learned, not this batch
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
        network.head.linear.weight.mul_(50)  # logits that differ from picture to picture
    record = valid_record(**RECIPES["quick"].as_settings())
    record["data"]["classes"] = list(CLASSES)
    run.update_record(**record)
    save_network(run, network)
    return run, pictures, network.eval()


def test_predictions_are_those_of_a_direct_pass_in_the_order_of_the_split(trained):
    run, pictures, network = trained
    predictions = predict_test(run, pictures, devices="cpu")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pictures.mean, pictures.std))
    with torch.no_grad():
        expected = network((pictures.test.images.float() / 255 - mean) / std).numpy()
    np.testing.assert_allclose(predictions.logits, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(predictions.predicted, expected.argmax(1))
    np.testing.assert_array_equal(predictions.target, pictures.test.targets)
    np.testing.assert_array_equal(predictions.index, np.arange(300))
    assert predictions.logits.dtype == np.float32
    assert expected.std(axis=0).max() > 0.1  # another order would show


def test_predictions_are_written_and_reused(trained, monkeypatch):
    run, pictures, _ = trained
    first = predict_test(run, pictures, devices="cpu")
    assert run.path("predictions.npz").exists()

    def never(*_, **__):
        raise AssertionError("the network ran again")

    monkeypatch.setattr(Trainer, "predict", never)
    monkeypatch.setattr(predictions, "load_network", never)
    again = predict_test(run, pictures, devices="cpu")
    for name in ("index", "target", "predicted", "logits"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_damaged_predictions_are_refused(trained):
    run, pictures, _ = trained
    with pytest.raises(InputError, match="05_misclassified"):
        load_predictions(run)
    run.write_arrays("predictions.npz", target=np.arange(3))
    with pytest.raises(InputError, match="damaged"):
        load_predictions(run)
    run.path("predictions.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="damaged"):
        predict_test(run, pictures, devices="cpu")
