"""Prediction sets: their scores by hand, and their promise on data with a known answer."""

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
    ENOUGH,
    FREE,
    PENALTY,
    UNKNOWN,
    class_scores,
    class_thresholds,
    is_unknown,
    keep_thresholds,
    kept_thresholds,
    prediction_sets,
    promise_in_words,
    set_in_words,
    some_of_each,
    try_promise,
)
from utils.training.predictions import load_predictions

NAMES = tuple("abcdefghij")


def test_scores_are_those_of_a_hand_worked_case():
    scores = class_scores(np.array([[0.2, 0.5, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]]))
    # above: what is more probable; less its own; from the third class on, 0.1 each
    expected = [
        [0.5 - 0.2, 0 - 0.5, 0.9 - 0.1 + 0.2, 0.7 - 0.2 + 0.1],
        [0.9 - 0.1 + 0.2, 0.7 - 0.2 + 0.1, 0.4 - 0.3, 0 - 0.4],
    ]
    assert (PENALTY, FREE) == (0.1, 2)
    np.testing.assert_allclose(scores, expected)


def test_a_more_probable_class_never_fits_worse():
    probabilities = drawn_from(200).probabilities
    ranked = -np.sort(-probabilities, axis=1)
    assert (np.diff(class_scores(ranked), axis=1) > 0).all()


def test_a_threshold_is_the_ninety_first_of_a_hundred_scores():
    sure = np.linspace(0.51, 0.99, 100)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    first, second = class_thresholds(probabilities, np.zeros(100, int))
    assert first == pytest.approx(-np.sort(sure)[9])  # the scores are minus the confidences
    assert second == first  # no picture of its own: that of all together
    few = class_thresholds(probabilities[:8], np.zeros(8, int))
    assert prediction_sets(probabilities, few).all()  # eight cannot promise nine in ten


def test_a_class_with_enough_pictures_has_its_own_threshold():
    predictions = drawn_from(3_000)
    counts = np.bincount(predictions.target, minlength=10)
    assert counts.min() >= ENOUGH
    thresholds = class_thresholds(predictions.probabilities, predictions.target)
    assert len(set(thresholds)) == 10
    part = predictions.target != 3
    part[np.flatnonzero(~part)[: ENOUGH - 1]] = True
    few = class_thresholds(predictions.probabilities[part], predictions.target[part])
    scores = class_scores(predictions.probabilities[part])
    own = scores[np.arange(part.sum()), predictions.target[part]]
    assert few[3] == np.sort(own)[int(np.ceil(0.9 * (part.sum() + 1))) - 1]
    np.testing.assert_array_equal(np.delete(few, 3), np.delete(thresholds, 3))


@pytest.mark.parametrize("sharper", [0.3, 1.0, 4.0])
def test_the_promise_holds_in_new_pictures_of_every_class_however_sure_the_network(sharper):
    known, new = drawn_from(4_000, 0, sharper), drawn_from(40_000, 1, sharper)
    sets = prediction_sets(new.probabilities, class_thresholds(known.probabilities, known.target))
    held = sets[np.arange(len(sets)), new.target]
    assert held.mean() == pytest.approx(0.9, abs=0.01)
    for target in range(10):
        assert held[new.target == target].mean() > 0.86
    assert 1 < sets.sum(axis=1).mean() < 8  # without all classes in all sets


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


@pytest.mark.parametrize(
    ("classes", "size", "unknown"),
    [(10, 0, True), (10, 1, False), (10, 5, False), (10, 6, True), (2, 1, False), (2, 2, True)],
)
def test_a_set_without_a_class_or_with_most_of_them_tells_nothing(classes, size, unknown):
    members = np.arange(classes) < size
    assert is_unknown(members[None]).tolist() == [unknown]
    words = set_in_words(members, NAMES[:classes])
    assert words == (UNKNOWN if unknown else " or ".join(NAMES[:size]))


def test_some_of_each_kind_are_chosen():
    sizes = [1, 1, 1, 2, 0, 3, 9, 1]
    sets = np.arange(10) < np.array(sizes)[:, None]
    assert some_of_each(sets, each=2).tolist() == [0, 1, 3, 5, 4, 6]


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
    classes, probabilities, _ = predict_pictures(run, names)
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
