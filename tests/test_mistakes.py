"""Error analysis against scikit-learn and plain numpy."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from helpers.predictions import (
    NEVER_OCCURS,
    NEVER_PREDICTED,
    from_probabilities,
    make_predictions,
    of_classes,
)
from utils.explain.calibration import calibration_in_words
from utils.explain.mistakes import (
    classes_in_words,
    confusion,
    in_short,
    misclassified,
    most_confused,
    pairs_in_words,
    per_class_table,
    result_in_words,
    rightly_predicted,
    surest_in_words,
    wrong_in_words,
)

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")


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


# In words


def test_how_many_are_wrong_is_said():
    two_of_four = of_classes([0, 1, 2, 2], [0, 1, 0, 0])
    assert wrong_in_words(two_of_four) == "2 of 4 test pictures are wrong"
    assert wrong_in_words(of_classes([0, 1], [0, 2])) == "1 of 2 test pictures is wrong"
    assert wrong_in_words(of_classes([0, 1], [0, 1])) == "0 of 2 test pictures are wrong"


def test_the_most_frequent_pairs_are_said_once_each_with_the_way_back():
    names = ("ant", "bee", "cat")
    matrix = np.array([[90, 7, 3], [20, 80, 0], [0, 1, 49]])
    pairs = most_confused(matrix, names)
    assert pairs_in_words(pairs, matrix, names).splitlines() == [
        "The 4 pairs above make 100% of all mistakes.",
        "bee is taken for ant 20 times (20.0% of its pictures), the other way round 7 times",
        "ant is taken for cat 3 times (3.0% of its pictures), the other way round 0 times",
        "cat is taken for bee 1 time (2.0% of its pictures), the other way round 0 times",
    ]
    few = pairs_in_words(most_confused(matrix, names, count=2), matrix, names)
    assert few.startswith("The 2 pairs above make 87% of all mistakes.\n")
    tied = np.array([[5, 3, 3], [3, 5, 3], [0, 4, 5]])
    first, second, third = (
        pairs_in_words(most_confused(tied, names, count), tied, names).splitlines()[0]
        for count in (2, 4, 5)
    )
    assert first.endswith("of all mistakes. 3 more pairs have 3, too.")
    assert second.endswith("of all mistakes. 1 more pair has 3, too.")
    assert third.endswith("of all mistakes.")
    one = np.array([[1, 1], [0, 2]])
    assert pairs_in_words(most_confused(one, names[:2]), one, names[:2]).splitlines() == [
        "The one pair above makes all mistakes.",
        "ant is taken for bee 1 time (50.0% of its pictures), the other way round 0 times",
    ]


def test_a_network_without_mistakes_is_said_to_have_none():
    matrix = np.diag([3, 0, 4])
    names = ("ant", "bee", "cat")
    assert pairs_in_words(most_confused(matrix, names), matrix, names) == (
        "There are no mistakes to count."
    )


def test_the_best_and_worst_class_are_said_and_the_untested_ones_named():
    predictions = of_classes([0, 0, 0, 1, 1], [0, 0, 1, 1, 0])
    assert classes_in_words(per_class_table(predictions, ("ant", "bee", "cat"))).startswith(
        "Highest F1: ant (66.7%). Lowest: bee (50.0%; recall 50.0%, precision 50.0%: missed "
        "1 time, wrongly named 1 time).\nNot tested, for want of test pictures: cat."
    )
    all_tested = per_class_table(of_classes([0, 1, 2], [0, 1, 2]), ("ant", "bee", "cat"))
    assert "Not tested" not in classes_in_words(all_tested)
    missed = of_classes([0] * 10 + [1] * 10 + [2] * 10, [0] * 10 + [1] * 4 + [2] * 6 + [2] * 10)
    assert (
        "Lowest: bee (57.1%; recall 40.0%, precision 100.0%: missed 6 times, wrongly named 0 "
        "times: it is missed too often)"
    ) in classes_in_words(per_class_table(missed, ("ant", "bee", "cat")))
    # six missed and two wrongly named: a difference that chance makes
    near = of_classes([0] * 10 + [1] * 10, [0] * 8 + [1] * 2 + [1] * 4 + [0] * 6)
    told = classes_in_words(per_class_table(near, ("ant", "bee", "cat")))
    chance = "a difference that chance alone can explain"
    assert f"missed 6 times, wrongly named 2 times, {chance})" in told
    called = of_classes([0] * 10 + [1] * 10 + [2] * 2, [2] * 6 + [0] * 4 + [1] * 10 + [2] * 2)
    assert "missed 0 times, wrongly named 6 times: it is called too often)" in classes_in_words(
        per_class_table(called, ("ant", "bee", "cat"))
    )


def test_a_figure_of_few_test_pictures_is_said_to_say_little():
    few = of_classes([0] * 30 + [1] * 6 + [2], [0] * 30 + [1] * 5 + [0, 2])
    told = classes_in_words(per_class_table(few, ("ant", "bee", "cat")))
    assert told.splitlines()[1] == (
        "2 classes of fewer than 10 test pictures, of which a figure says little. cat has 1, the "
        "fewest: recall 100.0% (95% interval 20.7% to 100.0%)."
    )
    many = of_classes([0] * 30 + [1] * 10, [0] * 30 + [1] * 10)
    assert len(classes_in_words(per_class_table(many, ("ant", "bee", "cat"))).splitlines()) == 2


def test_what_is_nearly_right_is_not_said_to_be_wholly_right():
    nearly = of_classes([0] * 5_000, [0] * 4_999 + [1])
    assert result_in_words(nearly) == (
        "1 of 5,000 test pictures is wrong; accuracy in float32, one view: 99.98% (95% interval "
        "99.89% to 99.996%)"
    )
    told = classes_in_words(per_class_table(nearly, ("ant", "bee", "cat")))
    assert "(99.99%; recall 99.98%, precision 100.0%: " in told
    assert "its accuracy 99.98% (" in calibration_in_words(nearly)
    matrix = np.diag([9_000, 9_000])
    matrix[0, 1] = 1
    pairs = most_confused(matrix, ("ant", "bee"))
    assert "(0.01% of its pictures)" in pairs_in_words(pairs, matrix, ("ant", "bee"))


def test_the_surest_tenth_is_said_with_its_mistakes():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1], size=40)
    surest = np.argsort(-probabilities.max(axis=1))
    target = probabilities.argmax(axis=1)
    target[surest[[0, 2, 9]]] = 1 - target[surest[[0, 2, 9]]]
    assert surest_in_words(from_probabilities(probabilities, target)) == (
        "Among the 4 predictions that it was surest of, a tenth of all, 2 are wrong; right: 50.0% "
        "(95% interval 15.0% to 85.0%)."
    )
    assert " 1 is wrong; right: 0.0% (" in surest_in_words(of_classes([0], [1]))
    assert surest_in_words(of_classes([0], [0])).startswith(
        "Among the 1 prediction that it was surest of, a tenth of all, none are wrong; right: 100.0"
    )


def test_the_mistakes_in_short_hold_the_figures_and_no_markup_of_names():
    names = ("ant", "b*e*e", "cat")
    predictions = of_classes([0, 0, 0, 1, 1], [0, 0, 1, 1, 0])
    table = per_class_table(predictions, names)
    pairs = most_confused(confusion(predictions), names)
    assert in_short("r", "drawn", predictions, table, pairs) == (
        "Run **r** on drawn: 2 of 5 test pictures are wrong. Weakest class: b\\*e\\*e (F1 50.0%); "
        "most frequent mistake: b\\*e\\*e taken for ant. Expected calibration error 15.0%."
    )
    right = of_classes([0, 1, 2], [0, 1, 2])
    none = in_short("r", "drawn", right, per_class_table(right, names), pairs[:0])
    assert "most frequent mistake: none." in none


def test_what_is_right_is_listed_class_by_class_the_surest_first():
    predictions = of_classes([0, 0, 0, 2, 2, 1], [0, 1, 0, 2, 2, 0])
    found = [positions.tolist() for positions in rightly_predicted(predictions)]
    assert [sorted(positions) for positions in found] == [[0, 2], [3, 4]]
    for positions in found:
        assert predictions.confidence[positions[0]] == predictions.confidence[positions].max()
    assert [len(p) for p in rightly_predicted(predictions, classes=1, each=1)] == [1]
    assert rightly_predicted(of_classes([0, 1], [1, 0])) == []
