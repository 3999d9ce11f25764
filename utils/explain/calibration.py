"""Whether a network is right as often as it is sure, and what one temperature mends of it."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from utils import as_percent, counted
from utils.intervals import (
    COVERAGE,
    interval_in_words,
    share_in_words,
    wilson_interval,
)
from utils.training.predictions import Predictions

BINS = 15
#: Of the interval around a calibration error.
RESAMPLES = 1_000
#: Between which a temperature is looked for: nothing beyond changes what a person would read.
TEMPERATURES = (0.05, 20.0)


def calibration_table(predictions: Predictions, bins: int = BINS) -> pd.DataFrame:
    """Compare confidence with accuracy in bins of equal width (Guo et al. 2017, section 2).

    A bin holds the confidences above its start up to its stop, as there; full confidence is in
    the last one.

    Returns:
        a row a filled bin: start and stop of the bin, mean confidence, accuracy, low and high end
        of the accuracy's `wilson_interval`, count; all but the count in [0, 1].
    """
    right = predictions.predicted == predictions.target
    table = pd.DataFrame({"confidence": predictions.confidence, "accuracy": right})
    table["bin"] = _bin_of(predictions.confidence, bins)
    grouped = table.groupby("bin")
    means, count = grouped[["confidence", "accuracy"]].mean(), grouped.size()
    low, high = wilson_interval(grouped["accuracy"].sum(), count)
    start, stop = means.index / bins, (means.index + 1) / bins
    filled = means.assign(start=start, stop=stop, low=low, high=high, count=count)
    return filled.reset_index(drop=True)


def calibration_error(predictions: Predictions, bins: int = BINS) -> float:
    """Return the expected calibration error, in [0, 1] (Guo et al. 2017, equation 3).

    torchmetrics (issue 3510) puts confidences of exactly 1 into a bin of their own, which the
    paper does not have; of a very sure network it so reports a larger error.
    """
    place, gap = _gaps(predictions, bins)
    return _error(place, gap, bins)


def calibration_interval(
    predictions: Predictions, bins: int = BINS, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return between which values the expected calibration error probably lies, in [0, 1].

    The basic bootstrap interval (Davison and Hinkley 1997, section 5.2): the error of pictures
    drawn with replacement is on average larger than that of the pictures they are drawn from, as
    chance adds to the distance in every bin. The basic interval takes that off, where one of
    percentiles would count it twice.

    Args:
        predictions: of a split.
        bins: as for `calibration_error`.
        resamples: how often pictures are drawn.
        seed: of the drawing.
    """
    place, gap = _gaps(predictions, bins)
    random = np.random.default_rng(seed)
    drawn = (random.integers(len(gap), size=len(gap)) for _ in range(resamples))
    errors = [_error(place[positions], gap[positions], bins) for positions in drawn]
    found = _error(place, gap, bins)
    first, last = np.quantile(errors, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    return max(0.0, 2 * found - float(last)), min(1.0, max(found, 2 * found - float(first)))


def _gaps(predictions: Predictions, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each picture, and by how much it was surer than right: float64, N."""
    sure = predictions.confidence.astype(np.float64)
    return _bin_of(sure, bins), sure - (predictions.predicted == predictions.target)


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)


def _error(place: np.ndarray, gap: np.ndarray, bins: int) -> float:
    return float(np.abs(np.bincount(place, gap, bins)).sum() / len(gap))


# Temperature scaling


@dataclass(frozen=True)
class Scaling:
    """Predictions whose confidence one temperature has corrected.

    Attributes:
        predictions: with the logits divided; what is predicted stays.
        temperatures: what they were divided by, one for each part that was judged apart.
        fitted_on: how many held-out training pictures gave the temperature; 0 where none were held
            out, and each half of the test split was given the temperature of the other.
    """

    predictions: Predictions
    temperatures: tuple[float, ...]
    fitted_on: int


def negative_log_likelihood(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of −log p(target), in nats; `logits` N×C, `targets` int64 N."""
    logits = logits.astype(np.float64)
    return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]))


def best_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return what to divide logits by, so that their likelihood is largest.

    That is temperature scaling (Guo et al. 2017, section 4.2); the order of the classes stays.

    Args:
        logits: float, N×C.
        targets: int64, N.

    Returns:
        a number in ``TEMPERATURES``; 1 where there are no pictures.
    """
    if not len(targets):
        return 1.0
    logits = logits.astype(np.float64)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(logits / np.exp(log), targets),
        bounds=np.log(TEMPERATURES),
        method="bounded",
    )
    return float(np.exp(found.x))


def scaled(predictions: Predictions, held_out: Predictions | None = None) -> Scaling:
    """Return predictions scaled by a temperature that other pictures gave.

    Args:
        predictions: of the test split.
        held_out: of training pictures that the network was not trained on; None where there are
            none. Then the test split is halved at random, always alike, and each half is scaled by
            the temperature that is best for the other.
    """
    if held_out is not None:
        temperature = best_temperature(held_out.logits, held_out.target)
        return Scaling(_divided(predictions, temperature), (temperature,), len(held_out.target))
    order = np.random.default_rng(0).permutation(len(predictions.target))
    halves = np.array_split(order, 2)
    by_picture, found = np.ones(len(order)), []
    for judged, other in (halves, halves[::-1]):
        found.append(best_temperature(predictions.logits[other], predictions.target[other]))
        by_picture[judged] = found[-1]
    return Scaling(_divided(predictions, by_picture[:, None]), tuple(found), 0)


def _divided(predictions: Predictions, temperature) -> Predictions:
    return replace(predictions, logits=(predictions.logits / temperature).astype(np.float32))


# In words


def calibration_in_words(predictions: Predictions) -> str:
    """Return how sure the network is beside how often it is right."""
    sure, right = predictions.confidence.mean(), predictions.accuracy
    count = len(predictions.target)
    told = (
        f"Its mean confidence is {as_percent(sure, 2)}, its accuracy "
        f"{share_in_words(round(right * count), count, 2)}: "
    )
    points = 100 * (sure - right)
    if abs(points) < 0.005:
        return f"{told}as sure as it is right."
    return f"{told}{'too sure' if points > 0 else 'not sure enough'} by {abs(points):.2f} points."


def bins_in_words(table: pd.DataFrame) -> str:
    """Return in how many bins chance alone does not explain that accuracy is not confidence.

    Args:
        table: from `calibration_table`.
    """
    sure, number = table["confidence"], counted(len(table), "bin")
    above, below = int((sure > table["high"]).sum()), int((sure < table["low"]).sum())
    if not above + below:
        return f"In none of {number} does confidence lie outside the {COVERAGE:.0%} interval."
    return (
        f"In {above + below} of {number} confidence lies outside the {COVERAGE:.0%} interval: "
        f"too sure in {above}, not sure enough in {below}. Of a network whose confidence is "
        f"right, about one bin in {round(1 / (1 - COVERAGE))} would lie there by chance."
    )


def scaling_in_words(predictions: Predictions, scaling: Scaling) -> str:
    """Return the calibration error and the likelihood before and after, a line each.

    Args:
        predictions: of the test split, as the network gave them.
        scaling: of these, from `scaled`.
    """
    after = scaling.predictions
    before_nll, after_nll = (
        negative_log_likelihood(p.logits, p.target) for p in (predictions, after)
    )
    return "\n".join(
        (
            _temperature_in_words(scaling),
            f"Expected calibration error: {_error_in_words(predictions)} before, "
            f"{_error_in_words(after)} after.",
            f"Negative log-likelihood: {before_nll:.4f} before, {after_nll:.4f} after. "
            "No prediction changes.",
        )
    )


def _temperature_in_words(scaling: Scaling) -> str:
    given = " and ".join(f"{temperature:.2f}" for temperature in scaling.temperatures)
    if scaling.fitted_on:
        pictures = counted(scaling.fitted_on, "held-out training picture")
        return f"Temperature {given}, from {pictures}."
    return (
        f"Temperatures {given}, each from one half of the test pictures and for the other: this "
        "run held no training pictures out."
    )


def _error_in_words(predictions: Predictions) -> str:
    error, ends = calibration_error(predictions), calibration_interval(predictions)
    return f"{as_percent(error, 2)} ({interval_in_words(*ends, 2)})"
