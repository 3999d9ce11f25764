"""Figures of notebook 07: many runs beside each other, in groups.

A group has a colour, a marker and a line style, by its place among all groups, the same in every
figure. Accuracies are 0..1.
"""

import numpy as np

from utils.plots.style import (
    FAINT,
    INK,
    MUTED,
    NORMAL,
    PALETTE,
    SMALL,
    TRAIN,
    WATCHED,
    TileSheet,
    channels_last,
    characters,
    cut_end,
    integer_ticks,
    legend_above,
    message_figure,
    new_figure,
    plain_log_ticks,
    shorten,
    shorten_to_width,
    some_of,
    styled,
)

MARKERS, LINES = "os^DvPX*", ("-", "--", "-.", ":")
MOST_GROUPS = len(MARKERS)
#: With more bars than this, their counts would run into each other.
MOST_COUNTED = 16
#: Of fewer epochs, the second half is not drawn again.
LEAST_EPOCHS = 4
NO_RUN = "There are no runs to compare."


def look_of(place):
    """Return the colour, marker and line style of a group by its place."""
    return {
        "color": PALETTE[place % len(PALETTE)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": LINES[place % len(LINES)],
    }


def groups_shown(table):
    """Return the names of the groups that there is room for, and a note on the others."""
    names = list(dict.fromkeys(table["group"]))
    return names[:MOST_GROUPS], some_of(min(len(names), MOST_GROUPS), len(names), "groups")


@styled
def curves(bands, dataset_title, watched="test split"):
    """Draw watched accuracy and loss by epoch: each group's mean, and a band over its runs.

    Args:
        bands: DataFrame with columns group, epoch, n (runs), is_whole, val_acc, val_acc_spread,
            val_loss and val_loss_spread: means, and standard deviations, which are NaN for a single
            run. Epochs that some runs of a group lack, and that are not whole, are not drawn.
        dataset_title: how figures name the data.
        watched: the split behind them.
    """
    title = "Accuracy and loss by epoch, mean and spread over runs"
    if not len(bands):
        return message_figure(title, dataset_title, NO_RUN)
    names, left = groups_shown(bands)
    is_whole = bands["is_whole"]
    cut = "" if is_whole.all() else "A line ends with the first run of its group that does. "
    bands = bands[is_whole]
    late = bands["epoch"] > bands["epoch"].max() / 2
    views = [bands, bands[late]] if bands["epoch"].max() >= LEAST_EPOCHS else [bands]
    closer = "At the right, the second half of the epochs again. " * (len(views) - 1)
    note = (
        f"Figures of the {watched}. Bands reach one standard deviation over the runs of a group to "
        f"either side; a single run has none. {cut}{closer}{left}"
    )
    # the legend must not be wider than its panel, or else it would push the others aside
    longest = min(max(map(len, names)), 40) + 15
    across = max(1, min(3, characters(8.0 if len(views) == 1 else 5.0, NORMAL) // longest))
    figure, panels = new_figure(
        title, dataset_title, 2, len(views), height=6.9 - 0.24 * (-len(names) // across),
        note=note, sharex="col", squeeze=False, width_ratios=(3, 2)[: len(views)],
    )  # fmt: skip
    for column, view in enumerate(views):
        for place, name in enumerate(names):
            draw_bands(panels[:, column], view[view["group"] == name], place, names)
        panels[1, column].set_xlabel("epochs completed")
        integer_ticks(panels[1, column].xaxis, at_most=8)
    panels[0, 0].set_ylabel("accuracy, %")
    panels[1, 0].set_ylabel("loss, cross-entropy")
    legend_above(panels[0, 0], columns=across)
    return figure


def draw_bands(panels, rows, place, names):
    """Draw a group's mean accuracy and loss, each on its panel, and the spread around it."""
    look, every = look_of(place), max(1, len(rows) // 20)
    label = f"{shorten(names[place], 40, names)} (n = {rows['n'].max()})"
    for panel, column, scale in zip(panels, ("val_acc", "val_loss"), (100, 1), strict=True):
        mean, spread = scale * rows[column], scale * rows[f"{column}_spread"]
        panel.plot(rows["epoch"], mean, label=label, markevery=every, **look)
        ends = mean - spread, mean + spread
        if len(rows) == 1:  # a band without length would not be seen
            panel.vlines(rows["epoch"], *ends, color=look["color"], alpha=0.6)
        panel.fill_between(rows["epoch"], *ends, color=look["color"], alpha=0.22, lw=0)


@styled
def accuracy_by_time(runs, groups, dataset_title):
    """Draw accuracy against training time: runs, the means of their groups, and the Pareto front.

    Args:
        runs: DataFrame with a row a run: group, accuracy and training_seconds.
        groups: DataFrame with a row a group: group, n, accuracy, training_seconds, of both the
            standard deviation as …_spread, and is_front.
        dataset_title: how figures name the data.
    """
    title = "Accuracy on test pictures against training time"
    if not len(groups):
        return message_figure(title, dataset_title, NO_RUN)
    names, left = groups_shown(groups)
    note = (
        "Small: single runs. Large: the mean of a group, with one standard deviation to either "
        "side. The line is the Pareto front: no other group is better in one and no worse in the "
        "other. "
        f"{left.replace('shown', 'named')}"
    )
    figure, axes = new_figure(title, dataset_title, height=4.8, note=note)
    front = groups[groups["is_front"]].sort_values("training_seconds")
    axes.plot(
        front["training_seconds"], 100 * front["accuracy"], color=INK, linewidth=1.2, zorder=2,
        drawstyle="steps-post", label="Pareto front of the means",
    )  # fmt: skip
    others = groups[~groups["group"].isin(names)]
    if len(others):
        points = others["training_seconds"], 100 * others["accuracy"]
        axes.plot(*points, color=FAINT, marker=".", linestyle="none", label="other groups")
    for place, name in enumerate(names):
        look = {**look_of(place), "linestyle": "none"}
        single, (mean,) = runs[runs["group"] == name], groups[groups["group"] == name].itertuples()
        points = single["training_seconds"], 100 * single["accuracy"]
        axes.plot(*points, **look, markersize=4.5, alpha=0.6, markeredgewidth=0, zorder=3)
        spreads = np.nan_to_num([mean.training_seconds_spread, 100 * mean.accuracy_spread])
        axes.errorbar(
            mean.training_seconds, 100 * mean.accuracy, xerr=spreads[0], yerr=spreads[1], **look,
            markersize=9, markeredgecolor=INK, markeredgewidth=0.8, elinewidth=1.4, zorder=4,
            label=f"{shorten(name, 40, names)} (n = {mean.n})",
        )  # fmt: skip
    axes.set(xlabel="training time, s", ylabel="right, % of the test pictures")
    times = runs["training_seconds"]
    if times.min() > 0 and times.max() > 5 * times.min():
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis, times.min(), times.max())
        axes.set_xlabel("training time, s (logarithmic)")
    axes.margins(0.08)
    legend_above(axes, columns=2 if max(map(len, names)) > 16 else 3)
    return figure


@styled
def differences(table, gains, names, dataset_title):
    """Draw by how much the second group is better: each pair of runs, and intervals of the mean.

    Args:
        table: DataFrame with a row an interval: holds_for, difference, low, high (all -1..1), p.
        gains: float, of each pair of runs, -1..1; empty where they are not paired.
        names: of the two groups.
        dataset_title: how figures name the data.
    """
    if not len(table):
        message = "There are no two groups to compare."
        return message_figure("Difference between two groups", dataset_title, message)
    first, second = (cut_end(name, 40) for name in names)
    title = f"Difference in accuracy: {second} less {first}"
    note = (
        "Points: pairs of runs. Lines: 95 % intervals of the mean, by what it is to hold for "
        "beyond these runs and these pictures. One that crosses zero does not show which is better."
    )
    rows, pairs = len(table), len(gains) > 0
    figure, axes = new_figure(title, dataset_title, height=1.9 + 0.42 * (rows + pairs), note=note)
    axes.axvline(0, color=INK, linewidth=1.2)
    places = np.arange(rows) + pairs
    if pairs:
        spots = np.linspace(-0.22, 0.22, len(gains)) if len(gains) > 1 else [0]
        axes.plot(100 * gains, spots, color=MUTED, marker="o", linestyle="none", markersize=4.5)
    axes.hlines(places, 100 * table["low"], 100 * table["high"], color=TRAIN["color"], lw=3)
    axes.plot(
        100 * table["difference"], places, color=INK, marker="D", linestyle="none", markersize=6
    )
    labels = [*["each pair"] * pairs, *table["holds_for"]]
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="difference in accuracy, percentage points", ylim=(len(labels) - 0.4, -0.6))
    axes.margins(x=0.08)
    values = axes.secondary_yaxis("right")
    words = [
        f"{100 * row.difference:+.2f}  ({100 * row.low:+.2f} to {100 * row.high:+.2f})".replace(
            "-", "−"
        )
        for row in table.itertuples()
    ]
    values.set_yticks(places, words)
    values.tick_params(length=0, labelsize=SMALL, colors=INK)
    values.spines["right"].set_visible(False)
    axes.grid(False, axis="y")
    return figure


@styled
def times_wrong(counts, expected, dataset_title):
    """Draw how many test pictures are wrong in how many runs, and how many would be by chance.

    Args:
        counts: int, runs + 1: pictures that are wrong 0, 1, 2 … times.
        expected: float, the same, were mistakes spread by chance.
        dataset_title: how figures name the data.
    """
    title = "In how many runs is a test picture wrong?"
    counts = np.asarray(counts)
    if not counts.sum():
        return message_figure(title, dataset_title, "There are no predictions to count.")
    runs = len(counts) - 1
    note = (
        "Expected by chance: each run as often wrong as it is, on pictures drawn by lot. Where the "
        "bars at the right are far higher, the runs fail on the same pictures."
    )
    figure, axes = new_figure(title, dataset_title, height=4.2, note=note)
    places = np.arange(runs + 1)
    colours = [FAINT, *[TRAIN["color"]] * (runs - 1), WATCHED["color"]]
    kinds = ["never", *["sometimes"] * (runs - 1), "always"]
    is_few = runs <= MOST_COUNTED
    edge = {"width": 0.8, "edgecolor": INK, "linewidth": 0.6} if is_few else {"width": 1.0}
    bars = axes.bar(places, counts, color=colours, **edge)
    for bar, kind, before in zip(bars, kinds, [None, *kinds], strict=False):
        bar.set_label("" if kind == before else f"{kind} wrong")
        bar.set_hatch({"always": "///"}.get(kind, ""))
    axes.plot(
        places, expected, color=INK, marker="o" * is_few, linestyle=":", markerfacecolor="white",
        label="expected by chance",
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(0.7, 4 * counts.max())
    plain_log_ticks(axes.yaxis, 1, 1e4)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="runs that are wrong on the picture", ylabel="test pictures (logarithmic)")
    axes.set_xlim(-0.7, runs + 0.7)
    integer_ticks(axes.xaxis, at_most=14)
    if is_few:  # above the bars, the line would run through them
        axes.set_xticks(places, [f"{n}\n{count:,}" for n, count in enumerate(counts)])
        axes.set_xlabel("runs that are wrong on the picture, and how many such pictures there are")
    legend_above(axes, columns=4)
    return figure


@styled
def pictures_by_kind(images, kinds, dataset_title, runs):
    """Draw test pictures in rows by how often they are wrong, each with its classes.

    Args:
        images: by kind, uint8 N×3×H×W.
        kinds: by kind, DataFrame with a row a picture: actual, taken_for, wrong (runs).
        dataset_title: how figures name the data.
        runs: how many there are.
    """
    title = "Test pictures that all runs, some runs and no run get wrong"
    columns = max(map(len, images.values()), default=0)
    if not columns:
        return message_figure(title, dataset_title, "There are no pictures to show.")
    sheet = TileSheet(
        len(kinds),
        columns,
        title,
        dataset_title,
        label=1.2,
        caption=0.42,
        largest=1.2,
        note="Above each picture its class, then what it is most often taken for, and how many of "
        f"{runs} runs are wrong.",
    )
    for row, (kind, table) in enumerate(kinds.items()):
        sheet.name_row(row, kind.replace(" ", "\n"))
        if not len(table):
            place = sheet.left(0), sheet.top(row) + sheet.tile / 2
            sheet.write(*place, "There is none.", NORMAL, ha="left", va="center", color=MUTED)
        for column, picture in enumerate(table.itertuples()):
            sheet.picture(row, column, channels_last(images[kind][column]))
            above = shorten_to_width(picture.actual, sheet.tile)
            if picture.wrong:
                times = f" ({picture.wrong})"
                below = shorten_to_width(picture.taken_for, sheet.tile, "→ ", times)
                above = f"{above}\n{below}"
            sheet.write_caption(row, column, above)
    return sheet.figure
