"""What a network that may say nothing gains: risk against coverage."""

import numpy as np
import pandas as pd

from utils import as_percent, counted
from utils.intervals import interval_in_words, wilson_interval
from utils.training.predictions import Predictions

#: Shares of the pictures, the least certain ones, that are refused.
REFUSED = (0.01, 0.05, 0.1)
#: Points of a curve; more than these would lie on each other.
POINTS = 200


def answered_curve(predictions: Predictions, points: int = POINTS) -> pd.DataFrame:
    """Return the accuracy among the surest pictures, by how many of them are answered.

    One minus this accuracy is the selective risk at that coverage (El-Yaniv and Wiener 2010, "On
    the Foundations of Noise-free Selective Classification", section 2). Of equally sure ones, the
    first in the split are answered first.

    Returns:
        a row for each of at most `points` counts, ascending: answered (share of all), count,
        accuracy, and low and high, the ends of its `wilson_interval`; all but the count in [0, 1].
    """
    total = len(predictions.target)
    counts = np.unique(np.linspace(1, total, min(points, total)).round().astype(int))
    return _answered(predictions, counts)


def refusal_table(
    predictions: Predictions, refused: tuple[float, ...] = (0.0, *REFUSED)
) -> pd.DataFrame:
    """Return the accuracy of what is answered where the least certain pictures are refused.

    Returns:
        as `answered_curve`, a row for each share in `refused`, with that share, and with gain: by
        how much the accuracy is above that of all pictures.
    """
    total = len(predictions.target)
    counts = np.array([max(1, total - round(share * total)) for share in refused])
    table = _answered(predictions, counts)
    return table.assign(refused=refused, gain=table["accuracy"] - predictions.accuracy)


def _answered(predictions: Predictions, counts: np.ndarray) -> pd.DataFrame:
    surest = np.argsort(-predictions.confidence, kind="stable")
    right = np.cumsum((predictions.predicted == predictions.target)[surest])[counts - 1]
    low, high = wilson_interval(right, counts)
    return pd.DataFrame(
        {
            "answered": counts / len(surest),
            "count": counts,
            "accuracy": right / counts,
            "low": low,
            "high": high,
        }
    )


def refusal_in_words(table: pd.DataFrame) -> str:
    """Return what each refusal gains, a line each, beginning with none.

    Args:
        table: from `refusal_table`.
    """
    lines = []
    for row in table.to_dict("records"):
        accuracy = f"{as_percent(row['accuracy'], 2)} right"
        interval = interval_in_words(row["low"], row["high"], 2)
        if not row["refused"]:
            pictures = counted(row["count"], "picture")
            lines.append(f"All {pictures} answered: {accuracy} ({interval}).")
            continue
        lines.append(
            f"The least certain {as_percent(row['refused'], 0)} refused: {accuracy} of the other "
            f"{row['count']:,} ({interval}), {_change(row['gain'])}."
        )
    return "\n".join(lines)


def _change(gain: float) -> str:
    points = round(100 * gain, 2)
    if not points:
        return "no more than before"
    return f"{abs(points):.2f} points {'more' if points > 0 else 'less'}"
