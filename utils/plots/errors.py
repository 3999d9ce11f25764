"""Figures of notebook 05: where the network errs, and whether it knows."""

import matplotlib as mpl
import numpy as np

from utils.plots.style import (
    FAINT,
    GRID,
    INK,
    MUTED,
    SMALL,
    TRAIN,
    WATCHED,
    TileSheet,
    channels_last,
    class_colour,
    integer_ticks,
    legend_above,
    message_figure,
    new_figure,
    percent,
    plain_log_ticks,
    shorten,
    shorten_to_width,
    some_of,
    styled,
)

SCALED = {"color": INK, "marker": "^", "linestyle": "-.", "linewidth": 1.2}
MOST_ROWS = 40
MOST_ANNOTATED = 20
MOST_NAMED = 45


@styled
def confusion_matrix(matrix, classes, dataset_title):
    """Draw the counts of all pairs of actual and predicted class, so that errors stand out.

    Args:
        matrix: int C×C, rows actual, columns predicted.
        classes: the C names.
        dataset_title: how figures name the data.
    """
    title = "Confusion matrix"
    matrix = np.asarray(matrix)
    if not matrix.sum():
        return message_figure(title, dataset_title, "There are no predictions to count.")
    number = len(classes)
    right = np.eye(number, dtype=bool)
    stride = -(-number // MOST_NAMED)
    side = np.clip(3.6 + 0.5 * number, 5.0, 8.0)
    note = "Grey: predicted rightly. Colour: errors, as a share of the actual class. White: none."
    if stride > 1:
        note += f" One class in {stride} is named."
    if not matrix[~right].any():
        note += " There are no errors."
    if untested := [classes[row] for row in np.flatnonzero(matrix.sum(axis=1) == 0)]:
        named = (shorten(name, 60, classes) for name in untested[:MOST_ROWS])
        note += f" Not tested: {', '.join(named)}."
    figure, axes = new_figure(
        title, dataset_title, width=max(side + 1, 6.5), height=side + 0.6, note=note
    )
    draw_cells(axes, matrix, right, annotate=number <= MOST_ANNOTATED)
    places = np.arange(0, number, stride)
    names = [shorten(classes[place], 16, classes) for place in places]
    axes.set_xticks(places + 0.5, names, rotation=90)
    axes.set_yticks(places + 0.5, names, rotation=0)
    axes.set(xlabel="predicted class", ylabel="actual class")
    return figure


def draw_cells(axes, matrix, right, annotate):
    """Draw the errors as a heat map of row shares, the diagonal in a neutral grey.

    The diagonal holds almost everything: on a common scale it would be all that one sees.
    """
    import seaborn  # here, because importing it takes longer than drawing most figures

    shares = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    largest = shares[~right].max() or 1.0
    # Without its two ends, which would pass for white and for black.
    errors = mpl.colors.ListedColormap(mpl.colormaps["magma_r"](np.linspace(0.04, 0.88, 256)))
    counts = np.where(matrix > 0, matrix.astype(str), "")
    common = {
        "ax": axes,
        "fmt": "",
        "square": True,
        "annot": counts if annotate else None,
        "annot_kws": {"size": SMALL},
        "xticklabels": False,
        "yticklabels": False,
        "linewidths": 0.5 if annotate else 0,
        "linecolor": GRID,
    }
    seaborn.heatmap(
        shares,
        mask=right | (matrix == 0),
        cmap=errors,
        vmin=0,
        vmax=largest,
        norm=mpl.colors.PowerNorm(0.5, 0, largest),
        cbar_kws={"label": "errors, % of the actual class", "shrink": 0.7, "pad": 0.02},
        **common,
    )
    grey = mpl.colors.ListedColormap(["#d9d9d9"])
    seaborn.heatmap(shares, mask=~right, cmap=grey, cbar=False, **common)
    axes.grid(False)
    axes.figure.axes[-1].tick_params(labelsize=SMALL)


@styled
def per_class_bars(table, dataset_title):
    """Draw the precision, recall and F1 of each class, in percent, the lowest F1 first.

    Points and not bars from zero: the classes differ by a few percent, which bars would hide.

    Args:
        table: DataFrame with columns class, precision, recall, f1 (0..1) and support (pictures),
            in the order of the classes, from which the class colours follow.
        dataset_title: how figures name the data.
    """
    title = "Precision, recall and F1 by class"
    if not len(table):
        return message_figure(title, dataset_title, "There are no classes to compare.")
    tested = np.asarray(table["support"]) > 0
    order = np.lexsort((table["f1"], ~tested))[:MOST_ROWS]
    note = (
        "Precision: how many of those predicted to be the class are. Recall: how many of the "
        f"class are found. {some_of(len(order), len(table), 'classes, lowest F1 first,')}"
    )
    figure, axes = new_figure(title, dataset_title, height=1.9 + 0.27 * len(order), note=note)
    rows = np.arange(len(order))
    precision, recall, f1 = (
        np.where(tested, 100 * np.asarray(table[name], dtype=float), np.nan)[order]
        for name in ("precision", "recall", "f1")
    )
    colours = [class_colour(index, len(table)) for index in order]
    axes.hlines(rows, np.fmin(precision, recall), np.fmax(precision, recall), color=FAINT, lw=2)
    axes.scatter(
        precision,
        rows,
        marker="<",
        s=42,
        facecolor="white",
        edgecolor=INK,
        zorder=3,
        label="precision",
    )
    axes.scatter(
        recall, rows, marker="|", s=110, color=INK, linewidth=2.2, zorder=3, label="recall"
    )
    axes.scatter(f1, rows, s=75, c=colours, edgecolor=INK, linewidth=0.8, zorder=4)
    axes.scatter([], [], s=75, c="white", edgecolor=INK, label="F1 (in the class colour)")
    names = np.asarray(table["class"])[order]
    axes.set_yticks(rows, [shorten(name, 24, names) for name in names])
    axes.set(xlabel="percent", ylim=(len(order) - 0.4, -0.6))
    values = axes.secondary_yaxis("right")
    support = np.asarray(table["support"])[order]
    words = [
        f"{percent(score / 100, 1)}  ({count:,.0f})" if count else "not tested"
        for score, count in zip(f1, support, strict=True)
    ]
    values.set_yticks(rows, words)
    values.tick_params(length=0, labelsize=SMALL, colors=INK)
    values.set_ylabel("F1 (pictures of the class)", fontsize=SMALL)
    values.spines["right"].set_visible(False)
    legend_above(axes, scatterpoints=1)
    return figure


@styled
def misclassified_grid(images, actual, predicted, confidences, classes, dataset_title, columns=5):
    """Draw misclassified pictures, each with its actual and its predicted class.

    Args:
        images: uint8 N×3×H×W.
        actual, predicted: int N, indices into `classes`.
        confidences: float N in 0..1, probability of the predicted class.
        classes: names of all classes.
        dataset_title: how figures name the data.
        columns: pictures per row.
    """
    title = "Misclassified pictures"
    if not len(images):
        return message_figure(title, dataset_title, "No picture was misclassified.")
    note = "Above each picture the actual class, then the prediction and how sure the network was."
    return class_pairs(
        images,
        (actual, predicted, confidences),
        classes,
        (title, dataset_title, note),
        ("actual ", "predicted "),
        columns,
    )


@styled
def doubted_labels(images, labels, suggested, evidence, classes, dataset_title, columns=5):
    """Draw pictures whose label is in doubt, each with the label and what the evidence is for.

    Args:
        images: uint8 N×3×H×W.
        labels, suggested: int N, indices into `classes`.
        evidence: float N in 0..1, the share of the evidence that is for the class suggested.
        classes: names of all classes.
        dataset_title: how figures name the data.
        columns: pictures per row.
    """
    title = "Labels most at odds with the evidence"
    if not len(images):
        return message_figure(title, dataset_title, "No label is at odds with the network.")
    note = (
        "Above each picture its label, then the class that the evidence is for, and its share: "
        "the mean of the network's probability and of the nearest training pictures' classes."
    )
    return class_pairs(
        images,
        (labels, suggested, evidence),
        classes,
        (title, dataset_title, note),
        ("label ", "evidence "),
        columns,
    )


def class_pairs(images, given, classes, headings, words, columns):
    """Draw pictures in rows, above each a class, and another with its share.

    Args:
        images: uint8 N×3×H×W.
        given: the two classes, int N each, and the share of the second, float N.
        classes: names of all classes.
        headings: title, data set's title and note.
        words: before the two classes, where there is room for words.
        columns: pictures per row.
    """
    columns = min(columns, len(images))
    title, dataset_title, note = headings
    rows = -(-len(images) // columns)
    sheet = TileSheet(rows, columns, title, dataset_title, caption=0.42, note=note)
    # Words where there is room for them, as the system reproduced here has them.
    before = words if sheet.tile >= 1.5 else ("", "→ ")
    for index, (image, above, below, share) in enumerate(zip(images, *given, strict=True)):
        row, column = divmod(index, columns)
        sheet.picture(row, column, channels_last(image))
        first = shorten_to_width(classes[above], sheet.tile, before[0], among=classes)
        sure = f", {percent(share)}"
        second = shorten_to_width(classes[below], sheet.tile, before[1], sure, classes)
        sheet.write_caption(row, column, f"{first}\n{second}")
    return sheet.figure


@styled
def prediction_sets(images, actual, sets, classes, dataset_title, columns=6):
    """Draw pictures, each with its actual class and the set of classes predicted for it.

    Args:
        images: uint8 N×3×H×W.
        actual: int N, indices into `classes`.
        sets: N texts.
        classes: names of all classes.
        dataset_title: how figures name the data.
        columns: pictures per row.
    """
    title = "Some pictures and their sets of classes"
    if not len(images):
        return message_figure(title, dataset_title, "There are no predictions to show.")
    columns = min(columns, len(images))
    sheet = TileSheet(
        -(-len(images) // columns),
        columns,
        title,
        dataset_title,
        caption=0.42,
        note="Above each picture the actual class, and then its set.",
    )
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet.picture(row, column, channels_last(image))
        first = shorten_to_width(classes[actual[index]], sheet.tile, among=classes)
        second = shorten_to_width(sets[index], sheet.tile, "→ ")
        sheet.write_caption(row, column, f"{first}\n{second}")
    return sheet.figure


@styled
def nearest_training(images, actual, predicted, neighbours, targets, classes, dataset_title):
    """Draw mistakes, a row each, beside the training pictures that look most alike to the network.

    Args:
        images: uint8 N×3×H×W.
        actual, predicted: int N, indices into `classes`.
        neighbours: uint8 N×K×3×H×W.
        targets: int N×K, the neighbours' classes.
        classes: names of all classes.
        dataset_title: how figures name the data.
    """
    title = "Training pictures nearest to its surest mistakes"
    if not len(images):
        return message_figure(title, dataset_title, "No picture was misclassified.")
    sheet = TileSheet(
        len(images),
        1 + neighbours.shape[1],
        title,
        dataset_title,
        caption=0.42,
        breaks=(1,),
        note="Left a test picture, with its actual class and the one predicted; right the training "
        "pictures nearest to it in the network's last features, the nearest first, with their "
        "classes: = is the class that was predicted, + the actual one.",
    )
    for row, image in enumerate(images):
        sheet.picture(row, 0, channels_last(image))
        first = shorten_to_width(classes[actual[row]], sheet.tile, among=classes)
        second = shorten_to_width(classes[predicted[row]], sheet.tile, "→ ", among=classes)
        sheet.write_caption(row, 0, f"{first}\n{second}")
        marks = {actual[row]: " +", predicted[row]: " ="}
        for column, target in enumerate(targets[row], start=1):
            sheet.picture(row, column, channels_last(neighbours[row, column - 1]))
            mark = marks.get(target, "")
            name = shorten_to_width(classes[target], sheet.tile, after=mark, among=classes)
            sheet.write_caption(row, column, name)
    return sheet.figure


@styled
def near_copies(test, train, test_targets, train_targets, classes, dataset_title, pairs=3):
    """Draw test pictures beside the training pictures that are nearly the same.

    Args:
        test, train: uint8 N×3×H×W, a pair each.
        test_targets, train_targets: int N, indices into `classes`.
        classes: names of all classes.
        dataset_title: how figures name the data.
        pairs: how many in a row.
    """
    title = "Test pictures that nearly repeat a training picture"
    if not len(test):
        return message_figure(
            title, dataset_title, "No test picture is nearly the same as a training picture."
        )
    pairs = min(pairs, len(test))
    sheet = TileSheet(
        -(-len(test) // pairs),
        2 * pairs,
        title,
        dataset_title,
        caption=0.24,
        breaks=range(2, 2 * pairs, 2),
        note="Of each pair, left the test picture and right the training picture, with their "
        "classes.",
    )
    for index in range(len(test)):
        row, column = divmod(index, pairs)
        pair = ((test, test_targets), (train, train_targets))
        for place, (images, targets) in enumerate(pair, start=2 * column):
            sheet.picture(row, place, channels_last(images[index]))
            name = shorten_to_width(classes[targets[index]], sheet.tile, among=classes)
            sheet.write_caption(row, place, name)
    return sheet.figure


@styled
def answered_curve(curve, refusals, dataset_title):
    """Draw the accuracy among the surest pictures, by how many of them are answered.

    Args:
        curve: DataFrame with columns answered, accuracy, low and high (the ends of its 95 %
            interval), all 0..1, in ascending order of answered.
        refusals: DataFrame of the same columns, and refused (0..1): the points to be named.
        dataset_title: how figures name the data.
    """
    title = "How much saying nothing gains"
    if not len(curve):
        return message_figure(title, dataset_title, "There are no predictions to judge.")
    figure, axes = new_figure(
        title,
        dataset_title,
        note="The least certain pictures are refused first. At the left, few are left to judge by, "
        "and the interval is wide.",
    )
    answered, accuracy, low, high = (
        100 * np.asarray(curve[name], dtype=float)
        for name in ("answered", "accuracy", "low", "high")
    )
    axes.fill_between(
        answered, low, high, color=TRAIN["color"], alpha=0.25, lw=0, label="95 % interval (Wilson)"
    )
    axes.plot(answered, accuracy, color=TRAIN["color"], label="right among those answered")
    points = 100 * np.asarray(refusals["answered"]), 100 * np.asarray(refusals["accuracy"])
    axes.plot(*points, color=INK, marker="o", linestyle="none", label=_refusals_named(refusals))
    lowest = min(accuracy.min(), low[answered >= 20].min(initial=100))
    axes.set(xlabel="answered, % of the test pictures", ylabel="right, %", xlim=(0, 101))
    axes.set_ylim(max(0, lowest - 1), 100 + 0.05 * (101 - lowest))
    legend_above(axes, columns=1)
    return figure


def _refusals_named(refusals):
    named = (
        (percent(row.refused) if row.refused else "none", percent(row.accuracy, 2))
        for row in refusals.itertuples()
    )
    return "refused: " + ", ".join(f"{share} ({right} right)" for share, right in named)


@styled
def reliability(table, calibration_error, dataset_title, scaled=None):
    """Draw how often the network is right, by how sure it is.

    Args:
        table: DataFrame with a row per bin: start and stop, confidence (mean in the bin),
            accuracy, low and high (the ends of its 95 % interval), all 0..1, and count
            (pictures). Empty bins may be missing or have count 0.
        calibration_error: expected calibration error, 0..1.
        dataset_title: how figures name the data.
        scaled: such a table after temperature scaling; None draws none.
    """
    title = "Is the network as often right as it is sure?"
    counts = np.asarray(table["count"])
    used = counts > 0
    if not used.any():
        return message_figure(title, dataset_title, "There are no predictions to judge.")
    counts = counts[used]
    start, stop, confidence, accuracy, low, high = (
        100 * np.asarray(table[name], dtype=float)[used]
        for name in ("start", "stop", "confidence", "accuracy", "low", "high")
    )
    figure, (upper, lower) = new_figure(
        title,
        dataset_title,
        rows=2,
        height=7.4,
        sharex=True,
        height_ratios=(3, 1),
        note="Below the diagonal the network is surer than it is right, above it less sure. Where "
        "an interval reaches the diagonal, chance alone may explain the difference.",
    )
    upper.plot([0, 100], [0, 100], color=MUTED, linestyle=":", label="perfectly calibrated")
    label = f"this network (expected calibration error {percent(calibration_error, 2)})"
    upper.plot(confidence, accuracy, label=label, **TRAIN)
    upper.vlines(
        confidence,
        low,
        high,
        color=TRAIN["color"],
        linewidth=6,
        alpha=0.35,
        label="95 % interval of each bin (Wilson)",
    )
    upper.vlines(
        confidence, confidence, accuracy, color=WATCHED["color"], linewidth=1.2, label="difference"
    )
    if scaled is not None:
        points = 100 * scaled["confidence"], 100 * scaled["accuracy"]
        upper.plot(*points, label="after temperature scaling", **SCALED)
    upper.set(ylabel="right, %", xlim=(0, 102), ylim=(0, 102))
    bars = lower.bar(start, counts, stop - start, align="edge", color=FAINT, edgecolor=MUTED)
    lower.bar_label(bars, [f"{count:,.0f}" for count in counts], padding=2, size=SMALL)
    lower.set_yscale("log")
    lower.set(xlabel="confidence in the predicted class, %", ylabel="pictures\n(logarithmic)")
    lower.set_ylim(0.7, 4 * counts.max())
    plain_log_ticks(lower.yaxis, 1, 1e4)
    lower.yaxis.set_major_formatter("{x:,.0f}")
    legend_above(upper, columns=2)
    return figure


@styled
def most_confused(pairs, dataset_title):
    """Draw the pairs of classes that are confused most often.

    Args:
        pairs: DataFrame with columns actual, predicted (names), count (pictures) and share
            (0..1, of the actual class's pictures), in the order to be drawn.
        dataset_title: how figures name the data.
    """
    title = "Most confused pairs"
    if not len(pairs):
        return message_figure(title, dataset_title, "No picture was misclassified.")
    shown = pairs[:MOST_ROWS]
    figure, axes = new_figure(
        title,
        dataset_title,
        height=1.5 + 0.28 * len(shown),
        note=some_of(len(shown), len(pairs), "pairs"),
    )
    rows = np.arange(len(shown))
    counts, shares = np.asarray(shown["count"]), np.asarray(shown["share"])
    bars = axes.barh(rows, counts, height=0.7, color=TRAIN["color"])
    numbers = zip(counts, shares, strict=True)
    words = [f"{count:,} ({percent(share, 1)})" for count, share in numbers]
    axes.bar_label(bars, words, padding=4, size=SMALL)
    names = {*shown["actual"], *shown["predicted"]}
    pairs = [
        " → ".join(shorten(name, among=names) for name in pair)
        for pair in zip(shown["actual"], shown["predicted"], strict=True)
    ]
    axes.set_yticks(rows, pairs)
    integer_ticks(axes.xaxis, at_most=8)
    axes.set(
        xlabel="pictures; in brackets their share of the actual class",
        ylim=(len(shown) - 0.4, -0.6),
    )
    axes.margins(x=0.14)
    axes.grid(False, axis="y")
    return figure
