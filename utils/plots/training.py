"""The figure of notebook 03: the schedule, before training starts."""

import numpy as np

from utils.plots.style import (
    TRAIN,
    WATCHED,
    dress,
    integer_ticks,
    message_figure,
    new_figure,
    styled,
)


@styled
def planned_schedule(learning_rates, momenta, steps_per_epoch, dataset_title):
    """Draw the learning rate and momentum at every step of the training to come.

    Args:
        learning_rates: floats, one per step.
        momenta: floats, one per step: momentum, or Adam's beta 1.
        steps_per_epoch: batches in an epoch.
        dataset_title: how figures name the data.
    """
    title = "The planned schedule"
    if not len(learning_rates):
        return message_figure(title, dataset_title, "The schedule has no step.")
    if constant := min(momenta) == max(momenta):
        note = f"The momentum is {momenta[0]:g} at every step."
        figure, upper = new_figure(title, dataset_title, height=3.4, note=note)
    else:
        figure, (upper, lower) = new_figure(
            title, dataset_title, rows=2, height=4.8, sharex=True, height_ratios=(3, 2)
        )
    steps = np.arange(len(learning_rates))
    lonely = "o" if len(steps) == 1 else None  # one point makes no line
    upper.plot(steps, learning_rates, color=TRAIN["color"], marker=lonely)
    peak = int(np.argmax(learning_rates))
    upper.plot(peak, learning_rates[peak], color=TRAIN["color"], marker="o")
    upper.set_title(
        f"starts at {learning_rates[0]:.3g}, peaks at {learning_rates[peak]:.3g} after "
        f"{peak / steps_per_epoch:.1f} epochs, ends at {learning_rates[-1]:.3g}"
    )
    upper.set(ylabel="learning rate", ylim=(0, None))
    upper.margins(x=0.02)
    if not constant:
        lower.plot(steps, momenta, color=WATCHED["color"])
        lower.set(ylabel="momentum (β1)")
    (upper if constant else lower).set_xlabel("step")
    epochs = upper.secondary_xaxis(
        "top",
        functions=(lambda step: step / steps_per_epoch, lambda epoch: epoch * steps_per_epoch),
    )
    dress_secondary(epochs)
    return figure


def dress_secondary(axis):
    """Style the axis on top, which counts epochs: a frame line of its own and no grid."""
    dress(axis)
    axis.grid(False)
    integer_ticks(axis.xaxis)
    axis.spines["top"].set_visible(True)
    axis.set_xlabel("epochs")
