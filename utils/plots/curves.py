"""Figures of notebook 04: what training logged.

`history` has a row per epoch, with columns epoch (from 1), step, lr, train_loss, train_acc,
val_loss, val_acc, seconds; `steps` a row every few steps, with columns step, epoch, lr,
train_loss. Accuracies are 0..1, losses cross-entropy. Both are pandas tables, but anything that
gives arrays by column name will do. `watched` names the split behind val_loss and val_acc;
`sides` are the pictures' sides in pixels, one for each epoch planned, where they grow.
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
    styled,
)

NO_EPOCH = "No epoch has been logged."
NO_STEP = "No step has been logged."


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
    """Draw the two curves that are compared, in the styles they have in every figure."""
    for values, label, style in zip((train, watched), labels, (TRAIN, WATCHED), strict=True):
        axes.plot(epochs, values, label=label, markevery=every(len(epochs)), **style)


def epoch_axis(axes, epochs, first=None):
    """Label whole epochs below the panel, with half an epoch's room before and after a curve."""
    integer_ticks(axes.xaxis)
    axes.set_xlim(epochs.min() - 0.5 if first is None else first, epochs.max() + 0.5)
    axes.set_xlabel("epoch")


def mark_growth(axes, sides, after=0.5):
    """Draw a line where the pictures grew, `after` the epoch before, and the size right of it."""
    starts = [epoch for epoch, side in enumerate(sides) if epoch and side != sides[epoch - 1]]
    for epoch in starts:
        axes.axvline(epoch + after, color=INK, linewidth=1, linestyle=":")
    for epoch in [0, *starts] if starts else []:
        left = epoch + after if epoch else axes.get_xlim()[0]
        axes.annotate(
            f" {sides[epoch]} px",
            (left, 0.02),
            xycoords=("data", "axes fraction"),
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
    epoch_axis(axes, epochs, first=epochs.min() - 1)
    mark_growth(axes, sides[: len(epochs)], after=0.0)  # an epoch ends at its number here
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
    train, held = (100 * column(history, name) for name in ("train_acc", "val_acc"))
    labels = (f"training: {train[-1]:.2f} % at the end", f"{watched}: {held[-1]:.2f} % at the end")
    draw_pair(axes, epochs, train, held, labels)
    if np.isfinite(held).any():
        best = int(np.nanargmax(held))
        label = f"best {watched}: {held[best]:.2f} % (epoch {epochs[best]:.0f})"
        axes.plot(epochs[best], held[best], label=label, **BEST)
    axes.set_ylabel("accuracy, %")
    epoch_axis(axes, epochs)
    mark_growth(axes, sides[: len(epochs)])
    legend_above(axes)
    return figure


@styled
def generalisation_gap(history, dataset_title, watched="test", sides=()):
    """Draw training accuracy minus watched accuracy by epoch, in percentage points."""
    title = f"Gap between training and {watched} accuracy"
    if not len(history):
        return message_figure(title, dataset_title, NO_EPOCH)
    note = (
        "Training accuracy is measured while training, on augmented pictures and changing "
        "weights, so the gap can lie below zero and understates how much was memorised."
    )
    figure, axes = new_figure(title, dataset_title, height=3.8, note=note)
    epochs = column(history, "epoch")
    gap = 100 * (column(history, "train_acc") - column(history, "val_acc"))
    axes.fill_between(epochs, gap, color=TRAIN["color"], alpha=0.2, linewidth=0)
    axes.plot(epochs, gap, markevery=every(len(epochs)), **TRAIN)
    axes.axhline(0, color=INK, linewidth=1.2)
    axes.set_ylabel(f"training − {watched} accuracy,\npercentage points")
    axes.set_title(f"{gap[-1]:+.2f} points in epoch {epochs[-1]:.0f}".replace("-", "−"))
    epoch_axis(axes, epochs)
    mark_growth(axes, sides[: len(epochs)])
    return figure
