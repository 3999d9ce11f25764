"""The figure of notebook 02: the learning-rate range test."""

import numpy as np

from utils.plots.style import (
    BEST,
    FAINT,
    MUTED,
    TRAIN,
    WATCHED,
    legend_above,
    limit_top,
    message_figure,
    new_figure,
    plain_log_ticks,
    styled,
)

#: How far up the y axis goes, as a multiple of the loss of guessing.
SHOWN = 1.5


@styled
def lr_curve(learning_rates, losses, smoothed, suggestion, dataset_title, chance=None, peak=None):
    """Draw loss against learning rate, the suggested rate, and the recipe's.

    Args:
        learning_rates: floats > 0, one per step, increasing.
        losses: floats, the loss of each step's batch.
        smoothed: floats, the same smoothed.
        suggestion: a learning rate, or None where the test found none.
        dataset_title: how figures name the data.
        chance: the loss of guessing, drawn as a level line; None draws none.
        peak: the highest rate of the recipe, drawn as an upright line; None draws none.
    """
    title = "Learning-rate range test"
    learning_rates = np.asarray(learning_rates, dtype=float)
    if not len(learning_rates):
        return message_figure(title, dataset_title, "The test recorded no step.")
    figure, axes = new_figure(title, dataset_title)
    axes.set_xscale("log")
    axes.plot(learning_rates, losses, color=FAINT, linewidth=0.9, label="loss of each batch")
    axes.plot(learning_rates, smoothed, color=TRAIN["color"], linewidth=2.4, label="smoothed loss")
    if chance is not None:
        label = f"guessing: {chance:.2f}"
        axes.axhline(chance, color=MUTED, linestyle="--", linewidth=1.0, label=label)
    if peak is not None:
        label = f"peak of the recipe: {peak:.3g}"
        axes.axvline(peak, color=WATCHED["color"], linestyle="-.", linewidth=1.4, label=label)
    if suggestion is None:
        nothing = "no suggestion: the loss falls nowhere clearly enough"
        axes.plot([], [], linestyle="none", label=nothing)
    else:
        mark_suggestion(axes, suggestion, learning_rates, smoothed)
    cut = end_near_guessing(axes, smoothed, losses, chance)
    axes.set(
        xlabel="learning rate (logarithmic)",
        ylabel="training loss" + (" (cut off at the top)" if cut else ""),
    )
    axes.margins(x=0.02)
    plain_log_ticks(axes.xaxis, learning_rates[0], learning_rates[-1])
    legend_above(axes)
    return figure


def end_near_guessing(axes, smoothed, losses, chance):
    """End the y axis above the loss of guessing, if the curve comes down to it.

    A fresh network can be sure and wrong, and large rates make it so again. Shown in full, both
    ends would leave the valley between them a few pixels. Return whether something is cut off.
    """
    top = SHOWN * (chance or 0)
    if not np.nanmin(np.asarray(smoothed, dtype=float), initial=np.inf) < top:
        return limit_top(axes, smoothed, losses)
    axes.set_ylim(top=top)
    return bool((np.asarray(losses) > top).any())


def mark_suggestion(axes, suggestion, learning_rates, smoothed):
    """Draw a line at the suggestion and a star where it meets the smoothed curve."""
    axes.axvline(suggestion, color=MUTED, linestyle=":", linewidth=1.4)
    height = np.interp(np.log(suggestion), np.log(learning_rates), smoothed)
    label = f"suggestion {suggestion:.3g}"
    axes.plot(suggestion, height, label=label, **BEST)
