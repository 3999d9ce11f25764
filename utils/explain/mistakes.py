"""What a network gets wrong: confusion, classes, single mistakes."""

import numpy as np
import pandas as pd
import torch
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from utils import as_markdown, as_percent, counted
from utils.explain.calibration import calibration_error
from utils.intervals import interval_in_words, mean_share_interval, share_in_words
from utils.training.predictions import Predictions

#: Of fewer test pictures of a class, an interval of its recall spans 28 points or more.
SCARCE = 10


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
    wrong = _mistakes_of(matrix)
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


def _mistakes_of(matrix: np.ndarray) -> np.ndarray:
    """Return a confusion matrix without what was right: zeros on its diagonal."""
    return matrix - np.diag(np.diag(matrix))


def misclassified(predictions: Predictions) -> np.ndarray:
    """Return the positions of the wrong predictions, int64, the most confident first."""
    wrong = np.flatnonzero(predictions.predicted != predictions.target)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]


def rightly_predicted(
    predictions: Predictions, classes: int = 10, each: int = 20
) -> list[np.ndarray]:
    """Return the positions of right predictions class by class, the most confident first.

    Args:
        predictions: of the test split.
        classes: how many classes at most, in their order; those without any are passed over.
        each: how many positions of a class at most.

    Returns:
        int64, at least one each.
    """
    right = np.flatnonzero(predictions.predicted == predictions.target)
    right = right[np.argsort(-predictions.confidence[right], kind="stable")]
    of_class = [right[predictions.target[right] == t] for t in range(predictions.num_classes)]
    return [positions[:each] for positions in of_class if len(positions)][:classes]


# In words


def wrong_in_words(predictions: Predictions) -> str:
    """Return how many of the test pictures are wrong: "2 of 8 test pictures are wrong"."""
    wrong = int((predictions.predicted != predictions.target).sum())
    is_wrong = "is wrong" if wrong == 1 else "are wrong"
    return f"{wrong:,} of {len(predictions.target):,} test pictures {is_wrong}"


def result_in_words(predictions: Predictions) -> str:
    """Return how many of the test pictures are wrong, and the accuracy with how it was measured.

    Where classes have different numbers of test pictures, the balanced accuracy follows.
    """
    right = int((predictions.predicted == predictions.target).sum())
    accuracy = share_in_words(right, len(predictions.target), 2)
    told = f"{wrong_in_words(predictions)}; accuracy in float32, one view: {accuracy}"
    found, tested = recalls(predictions)
    if len(set(tested)) > 1:
        low, high = mean_share_interval(found, tested)
        told += (
            f"\nbalanced accuracy, in which every class counts alike: "
            f"{as_percent(float((found / tested).mean()), 2)} ({interval_in_words(low, high, 2)})"
        )
    return told


def recalls(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pictures of each tested class are predicted correctly, and how many it has.

    Returns:
        int64, a number a class that has test pictures.
    """
    classes, tested = np.unique(predictions.target, return_counts=True)
    right = predictions.target[predictions.predicted == predictions.target]
    return (right[:, None] == classes).sum(axis=0), tested


def pairs_in_words(pairs: pd.DataFrame, matrix: np.ndarray, classes: tuple[str, ...]) -> str:
    """Return a line on the share of the most frequent mistakes, and one on each of the first three.

    Args:
        pairs: from `most_confused`; of a pair that comes both ways, the first counts.
        matrix: from `confusion`.
        classes: names of all classes.
    """
    if pairs.empty:
        return "There are no mistakes to count."
    wrong, least = _mistakes_of(matrix), pairs["count"].min()
    share = pairs["count"].sum() / wrong.sum()
    told = counted(len(pairs), "pair")
    lines = [f"The {told} above make {as_percent(share, 0)} of all mistakes."]
    if others := (wrong == least).sum() - (pairs["count"] == least).sum():
        have = "has" if others == 1 else "have"
        lines[0] += f" {counted(others, 'more pair')} {have} {least:,}, too."
    if len(pairs) == 1:
        lines = ["The one pair above makes all mistakes."]
    both = pairs.apply(lambda pair: frozenset((pair["actual"], pair["predicted"])), axis=1)
    for pair in pairs[~both.duplicated()][:3].itertuples():
        back = matrix[classes.index(pair.predicted), classes.index(pair.actual)]
        lines.append(
            f"{pair.actual} is taken for {pair.predicted} {counted(pair.count, 'time')} "
            f"({as_percent(pair.share)} of its pictures), the other way round "
            f"{counted(back, 'time')}"
        )
    return "\n".join(lines)


def weakest_class(table: pd.DataFrame) -> pd.Series:
    """Return the row of the tested class with the lowest F1, of `per_class_table`."""
    return table[table["support"] > 0].sort_values("f1").iloc[0]


def classes_in_words(table: pd.DataFrame) -> str:
    """Return which class of `per_class_table` is found best, and which worst, and what is untested.

    Classes without test pictures have no rank.
    """
    best, weakest = table[table["support"] > 0].sort_values("f1").iloc[-1], weakest_class(table)
    told = (
        f"Highest F1: {best['class']} ({as_percent(best.f1)}). Lowest: {weakest['class']} "
        f"({as_percent(weakest.f1)}; recall {as_percent(weakest.recall)}, precision "
        f"{as_percent(weakest.precision)}: {_weakness(weakest)})."
    )
    untested = table["class"][table["support"] == 0]
    if len(untested):
        told += f"\nNot tested, for want of test pictures: {', '.join(untested)}."
    scarce = table[(table["support"] > 0) & (table["support"] < SCARCE)].sort_values("support")
    if len(scarce):
        row = scarce.iloc[0]
        found = share_in_words(round(row.recall * row.support), int(row.support))
        told += (
            f"\n{counted(len(scarce), 'class', 'classes')} of fewer than {SCARCE} test pictures, "
            f"of which a figure says little. {row['class']} has {row.support:,}, the fewest: "
            f"recall {found}."
        )
    return told


def _weakness(row: pd.Series) -> str:
    """Return how often a class is missed and wrongly named, and which is beyond chance."""
    found = row.recall * row.support
    missed = row.support - found
    named = found / row.precision - found if row.precision else 0.0
    told = f"missed {counted(round(missed), 'time')}, wrongly named {counted(round(named), 'time')}"
    if missed == named:
        return told
    if abs(missed - named) <= 2 * np.sqrt(missed + named):  # two standard errors of the difference
        return f"{told}, a difference that chance alone can explain"
    return f"{told}: it is {'missed' if missed > named else 'called'} too often"


def surest_in_words(predictions: Predictions) -> str:
    """Return how many of the surest tenth of all predictions, at least one, are wrong."""
    surest = predictions.confidence.argsort()[::-1][: max(1, len(predictions.target) // 10)]
    missed = int((predictions.predicted[surest] != predictions.target[surest]).sum())
    number = f"{missed:,}" if missed else "none"
    right = share_in_words(len(surest) - missed, len(surest))
    return (
        f"Among the {counted(len(surest), 'prediction')} that it was surest of, a tenth of all, "
        f"{number} {'is' if missed == 1 else 'are'} wrong; right: {right}."
    )


def in_short(
    run_name: str,
    dataset_title: str,
    predictions: Predictions,
    table: pd.DataFrame,
    pairs: pd.DataFrame,
) -> str:
    """Return what the mistakes of a run told, as Markdown.

    Args:
        run_name: of the run.
        dataset_title: how figures name the data.
        predictions: of its test split.
        table: from `per_class_table`.
        pairs: from `most_confused`.
    """
    weakest, worst = weakest_class(table), "none"
    if len(pairs):
        worst = f"{pairs.iloc[0].actual} taken for {pairs.iloc[0].predicted}"
    return (
        f"Run **{run_name}** on {as_markdown(dataset_title)}: {wrong_in_words(predictions)}. "
        f"Weakest class: {as_markdown(weakest['class'])} (F1 {as_percent(weakest.f1)}); most "
        f"frequent mistake: {as_markdown(worst)}. Expected calibration error "
        f"{as_percent(calibration_error(predictions))}."
    )
