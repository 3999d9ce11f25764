"""Figures of notebook 04: what training logged.

`history` has a row per epoch, with columns epoch (from 1), step, lr, train_loss, train_acc,
val_loss, val_acc, seconds; `steps` a row every few steps, with columns step, epoch, lr,
train_loss. Accuracies are 0..1, losses cross-entropy. Both are pandas tables, but anything that
gives arrays by column name will do. `watched` names the split behind val_loss and val_acc;
`sides` are the pictures' sides in pixels, one for each epoch planned, where they grow.

The axis counts epochs completed: epoch 1 lies between 0 and 1. What is watched is measured at an
epoch's end and drawn there. A training figure is the mean over its epoch, so it is drawn in the
middle; at the end, it would trail the watched one by half an epoch of learning.
"""

import numpy as np

from utils.plots.style import (
    BEST,
    FAINT,
    INK,
    TRAIN,
    WATCHED,
    integer_ticks,
    legend_above,
    limit_top,
    message_figure,
    new_figure,
    percent,
    styled,
)

NO_EPOCH = "No epoch has been logged."
NO_STEP = "No step has been logged."
NO_GAP = "There are no two epochs, and the first alone has nothing watched before it to compare."


def column(table, name):
    return np.asarray(table[name], dtype=float)


def footnote(history, watched):
    """Return what a reader should know before comparing the two curves."""
    notes = []
    if len(history) == 1:
        notes.append("One epoch only: a point each, no curve.")
    if watched == "test":
        notes.append("The test split is only watched: the program chooses nothing by it.")
    return " ".join(notes)


def every(points):
    """Return the stride that puts about twenty markers on a curve, however long it is."""
    return max(1, points // 20)


def draw_pair(axes, epochs, train, watched, labels):
    """Draw the two curves that are compared, in the styles they have in every figure.

    Means over an epoch stand in its middle, what was watched after it at its end.
    """
    common = {"markevery": every(len(epochs))}
    axes.plot(epochs - 0.5, train, label=labels[0], **common, **TRAIN)
    axes.plot(epochs, watched, label=labels[1], **common, **WATCHED)


def epoch_axis(axes, first, last):
    """Count completed epochs below the panel, with a little room after the last."""
    integer_ticks(axes.xaxis)
    axes.set_xlim(first, last + 0.03 * (last - first))
    axes.set_xlabel("epochs completed")


def mark_growth(axes, sides, at_top=False):
    """Draw a line where the pictures grew, and their size right of it, at the bottom or the top."""
    starts = [epoch for epoch, side in enumerate(sides) if epoch and side != sides[epoch - 1]]
    for epoch in starts:
        axes.axvline(epoch, color=INK, linewidth=1, linestyle=":")
    for epoch in [0, *starts] if starts else []:
        axes.annotate(
            f" {sides[epoch]} px",
            (epoch, 0.98 if at_top else 0.02),
            xycoords=("data", "axes fraction"),
            verticalalignment="top" if at_top else "bottom",
            color=INK,
            fontsize=8,
        )


@styled
def learning_rate_and_epoch(steps, dataset_title):
    """Draw epoch against step, and learning rate against step."""
    title = "Epoch and learning rate by step"
    if not len(steps):
        return message_figure(title, dataset_title, NO_STEP)
    note = "One row of steps only: a point, no curve." if len(steps) == 1 else ""
    figure, (left, right) = new_figure(title, dataset_title, columns=2, height=3.6, note=note)
    marker = "o" if len(steps) == 1 else None
    x = column(steps, "step")
    left.plot(x, column(steps, "epoch"), color=INK, marker=marker, drawstyle="steps-post")
    right.plot(x, column(steps, "lr"), color=TRAIN["color"], marker=marker)
    left.set(xlabel="step", ylabel="epoch")
    right.set(xlabel="step", ylabel="learning rate")
    integer_ticks(left.yaxis)
    for panel in (left, right):
        integer_ticks(panel.xaxis, at_most=6)
    return figure


@styled
def loss_curves(history, steps, dataset_title, watched="test", sides=()):
    """Draw the training and the watched split's loss by epoch, over the loss of single steps."""
    title = f"Training and {watched} loss"
    if not len(history):
        return message_figure(title, dataset_title, NO_EPOCH)
    figure, axes = new_figure(title, dataset_title, note=footnote(history, watched))
    epochs, train, held = (column(history, name) for name in ("epoch", "train_loss", "val_loss"))
    step_losses = column(steps, "train_loss")
    axes.plot(
        steps_in_epochs(steps, history),
        step_losses,
        color=FAINT,
        linewidth=0.8,
        alpha=0.7,
        label="training, single steps",
    )
    draw_pair(axes, epochs, train, held, ("training, epoch mean", watched))
    if np.isfinite(held).any():
        best = int(np.nanargmin(held))
        label = f"lowest {watched} loss: {held[best]:.3f} (epoch {epochs[best]:.0f})"
        axes.plot(epochs[best], held[best], label=label, **BEST)
    axes.set_ylim(bottom=0)
    cut = limit_top(axes, np.concatenate([train, held]), step_losses)
    axes.set_ylabel("loss, cross-entropy" + (" (cut off at the top)" if cut else ""))
    epoch_axis(axes, epochs.min() - 1, epochs.max())
    mark_growth(axes, sides[: len(epochs)], at_top=True)
    legend_above(axes, columns=2)
    return figure


def steps_in_epochs(steps, history):
    """Return each step's place on an axis of epochs: an epoch's last step is at its number."""
    ends, epochs = column(history, "step"), column(history, "epoch")
    per_epoch = ends[0] if len(ends) == 1 else ends[1] - ends[0]
    return np.interp(column(steps, "step"), [ends[0] - per_epoch, *ends], [epochs[0] - 1, *epochs])


@styled
def accuracy_curves(history, dataset_title, watched="test", sides=()):
    """Draw training and watched accuracy by epoch, in percent, with their last and best values."""
    title = f"Training and {watched} accuracy"
    if not len(history):
        return message_figure(title, dataset_title, NO_EPOCH)
    figure, axes = new_figure(title, dataset_title, note=footnote(history, watched))
    epochs = column(history, "epoch")
    train, held = (column(history, name) for name in ("train_acc", "val_acc"))
    labels = (
        f"training, epoch mean: {percent(train[-1], 2)} in the last",
        f"{watched}: {percent(held[-1], 2)} at the end",
    )
    draw_pair(axes, epochs, 100 * train, 100 * held, labels)
    if np.isfinite(held).any():
        best = int(np.nanargmax(held))
        label = f"best {watched}: {percent(held[best], 2)} (epoch {epochs[best]:.0f})"
        axes.plot(epochs[best], 100 * held[best], label=label, **BEST)
    axes.set_ylabel("accuracy, %")
    epoch_axis(axes, epochs.min() - 1, epochs.max())
    mark_growth(axes, sides[: len(epochs)])
    legend_above(axes, columns=2)
    return figure


@styled
def generalisation_gap(gaps, dataset_title, watched="test", sides=()):
    """Draw how far training accuracy is ahead of the watched one by epoch, in percentage points.

    Args:
        gaps: table with columns epoch, the middle of each but the first, and gap, -1..1.
        dataset_title, watched, sides: as for the other curves.
    """
    title = f"Gap between training and {watched} accuracy"
    if not len(gaps):
        return message_figure(title, dataset_title, NO_GAP)
    note = (
        "Each epoch's mean training accuracy against the mean of what was watched before and after "
        "it. Training pictures are augmented, so the gap can lie below zero and understates how "
        "much was memorised."
    )
    figure, axes = new_figure(title, dataset_title, height=3.8, note=note)
    epochs, gap = column(gaps, "epoch"), 100 * column(gaps, "gap")
    axes.fill_between(epochs, gap, color=TRAIN["color"], alpha=0.2, linewidth=0)
    axes.plot(epochs, gap, markevery=every(len(epochs)), **TRAIN)
    axes.axhline(0, color=INK, linewidth=1.2)
    axes.set_ylabel(f"training − {watched} accuracy,\npercentage points")
    ends = epochs + 0.5
    axes.set_title(f"{gap[-1]:+.2f} points in epoch {ends[-1]:.0f}".replace("-", "−"))
    epoch_axis(axes, ends.min() - 2, ends.max())
    mark_growth(axes, sides[: 1 + len(epochs)], at_top=True)
    return figure
