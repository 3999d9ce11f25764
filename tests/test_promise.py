"""The promise of prediction sets, tried in halves of a test split and kept with a run."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from helpers.predictions import drawn_from
from helpers.training import copy_of, make_pictures
from utils import InputError
from utils.cli import main
from utils.explain.predict import predict_pictures
from utils.explain.prediction_sets import (
    class_scores,
    class_thresholds,
    prediction_sets,
    set_in_words,
)
from utils.explain.promise import keep_thresholds, kept_thresholds, promise_in_words, try_promise
from utils.explain.trained_model import TrainedModel
from utils.training.predictions import load_predictions

NAMES = tuple("abcdefghij")


@pytest.mark.parametrize("gain", [0, 6])
def test_the_promise_is_tried_in_halves_of_the_test_split(gain):
    predictions = drawn_from(4_000)
    predictions.logits[np.arange(4_000), predictions.target] += gain  # up to 98 % right
    found = try_promise(predictions)
    assert len(found.splits) == 20
    assert found.splits["coverage"].mean() == pytest.approx(0.9, abs=0.01)
    assert found.splits["coverage"].std() > 0  # no two halves are the same
    assert (found.by_class > 0.88).all()
    assert (found.splits["size"].mean() < 1) == (gain > 0)
    assert try_promise(predictions).splits.equals(found.splits)


def test_a_class_of_few_pictures_is_promised_nothing_alone():
    predictions = drawn_from(1_000)
    found = try_promise(predictions)
    assert np.isnan(found.by_class).all()
    told = promise_in_words(found, NAMES)
    assert "No class has 100 pictures in a half" in told


def test_what_was_kept_of_the_promise_is_said():
    told = promise_in_words(try_promise(drawn_from(4_000)), NAMES)
    first, worst, sizes = told.splitlines()
    assert first.startswith("Promised: 90%. Kept: 9") or first.startswith("Promised: 90%. Kept: 89")
    assert "over 20 splits of the test pictures into halves (" in first
    assert worst.startswith("Lowest of any class: ")
    assert sizes.startswith("A set holds ") and sizes.endswith('are an "I do not know".')


# What a run keeps


@pytest.fixture
def run(trained, tmp_path):
    return copy_of(trained, tmp_path).run


def predict(run, *more):
    return main(["predict", "--run", run.name, "--output-dir", str(run.folder.parent), *more])


def test_thresholds_stay_with_the_run(run):
    predictions = load_predictions(run)
    with pytest.raises(InputError, match=r"no prediction sets yet.* --only 05$"):
        kept_thresholds(run)
    keep_thresholds(run, predictions)
    expected = class_thresholds(predictions.probabilities, predictions.target)
    np.testing.assert_array_equal(kept_thresholds(run), expected)
    run.update_metrics(prediction_sets={"promise": 0.9, "pictures": 3, "thresholds": [0.1, 0.2]})
    with pytest.raises(InputError, match="has 3 classes, and prediction sets for 2"):
        kept_thresholds(run)
    run.update_metrics(prediction_sets={"promise": 0.9, "pictures": 3, "thresholds": ["a"]})
    with pytest.raises(InputError, match="damaged"):
        kept_thresholds(run)


def test_predict_prints_the_sets(run, small_network, tmp_path, capsys):
    pictures = make_pictures()
    names = [str(tmp_path / f"{number}.png") for number in range(8)]
    for name, image in zip(names, pictures.test.images, strict=False):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(name)
    with pytest.raises(SystemExit, match="no prediction sets yet"):
        predict(run, "--sets", *names)
    classes, probabilities, _ = predict_pictures(TrainedModel(run), names)
    middle = float(np.median(class_scores(probabilities)))
    kept = {"promise": 0.9, "pictures": 33, "thresholds": [middle, middle, -2.0]}
    run.update_metrics(prediction_sets=kept)
    sets = prediction_sets(probabilities, np.array(kept["thresholds"]))
    expected = [set_in_words(members, classes) for members in sets]
    assert len(set(expected)) > 1
    predict(run, "--sets", "--csv", *names)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["set"] for row in rows] == expected
    predict(run, "--sets", *names)
    lines = capsys.readouterr().out.splitlines()
    assert all(f"  {told}" in line for told, line in zip(expected, lines, strict=True))
    predict(run, "--csv", *names)
    assert "set" not in capsys.readouterr().out.splitlines()[0].split(",")
