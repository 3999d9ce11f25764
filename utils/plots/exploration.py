"""Figures of notebook 01: what the pictures look like and how they are spread."""

import numpy as np

from utils.plots.style import (
    FAINT,
    INK,
    MUTED,
    SMALL,
    TileSheet,
    channels_last,
    class_colour,
    legend_above,
    message_figure,
    new_figure,
    plain,
    shorten,
    shorten_to_width,
    some_of,
    styled,
)

MOST_PICTURE_ROWS = 20
MOST_BAR_ROWS = 40
MOST_MEANS = 50


def label_width(names):
    """Return the inches that the longest of `names` takes left of a sheet, with its swatch."""
    return 0.4 + 0.085 * max(len(name) for name in names)


@styled
def sample_grid(images, targets, classes, dataset_title, per_class=10):
    """Draw the first pictures of each class, a row per class.

    Args:
        images: uint8 N×3×H×W; of a split, or an array.
        targets: int N, indices into `classes`.
        classes: names of all classes.
        dataset_title: how figures name the data.
        per_class: pictures per row, at most; a class that has fewer leaves the rest blank.
    """
    targets = np.asarray(targets)
    found = np.unique(targets)
    if not len(found):
        return message_figure("Pictures by class", dataset_title, "There are no pictures to show.")
    shown = found[:MOST_PICTURE_ROWS]
    rows = [np.flatnonzero(targets == target)[:per_class] for target in shown]
    names = [shorten(classes[target], among=classes) for target in shown]
    sheet = TileSheet(
        len(shown),
        max(len(row) for row in rows),
        "Pictures by class",
        dataset_title,
        note=some_of(len(shown), len(found)),
        label=label_width(names),
        largest=0.85,
    )
    for row, indices in enumerate(rows):
        sheet.name_row(row, names[row], class_colour(shown[row], len(classes)))
        for column, index in enumerate(indices):
            sheet.picture(row, column, channels_last(np.asarray(images[index])))
    return sheet.figure


@styled
def audited(rows, images, targets, classes, dataset_title):
    """Draw the worst that an audit found, a row for each kind; copies stand in pairs.

    Args:
        rows: of each kind, what is wrong and the files' names.
        images: uint8 K×3×H×W, the pictures of all rows in order.
        targets: int K, indices into `classes`.
        classes: names of all classes.
        dataset_title: how figures name the data.
    """
    title = "What to look at before training"
    if not rows:
        return message_figure(title, dataset_title, "There are no pictures to look at again.")
    columns = max(len(names) for _, names in rows)
    sheet = TileSheet(
        len(rows),
        columns,
        title,
        dataset_title,
        note="Over each picture its class and its file. Of copies, every two belong together.",
        label=label_width([what for what, _ in rows]),
        caption=0.42,
        breaks=range(2, columns, 2),
        largest=1.1,
    )
    files = [name.rpartition("/")[2] for _, names in rows for name in names]
    place = 0
    for row, (what, names) in enumerate(rows):
        sheet.name_row(row, what)
        for column in range(len(names)):
            sheet.picture(row, column, channels_last(images[place]))
            name = shorten_to_width(classes[targets[place]], sheet.tile, among=classes)
            file = shorten_to_width(files[place], sheet.tile, among=files)
            sheet.write_caption(row, column, f"{name}\n{file}")
            place += 1
    return sheet.figure


@styled
def augmented_views(originals, views, dataset_title):
    """Draw pictures as they are, and as training sees them.

    Args:
        originals: uint8 K×3×H×W.
        views: uint8 K×V×3×H×W, V random augmentations of each original.
        dataset_title: how figures name the data.
    """
    title = "What augmentation does to a picture"
    if not len(originals):
        return message_figure(title, dataset_title, "There are no pictures to show.")
    number_of_views = len(views[0])
    sheet = TileSheet(
        len(originals), 1 + number_of_views, title, dataset_title, header=0.3, breaks=(1,)
    )
    sheet.name_column(0, "original")
    for column in range(1, 1 + number_of_views):
        sheet.name_column(column, f"view {column}")
    for row, (original, its_views) in enumerate(zip(originals, views, strict=True)):
        sheet.picture(row, 0, channels_last(original))
        for column, view in enumerate(its_views, start=1):
            sheet.picture(row, column, channels_last(view))
    return sheet.figure


@styled
def class_counts(counts, classes, dataset_title):
    """Draw how many pictures each class has in each split.

    Args:
        counts: dict from a split's name to an int array of length C.
        classes: the C names.
        dataset_title: how figures name the data.
    """
    shown = min(len(classes), MOST_BAR_ROWS)
    thickness = 0.8 / len(counts)
    figure, axes = new_figure(
        "Pictures per class",
        dataset_title,
        height=1.6 + shown * (0.08 + 0.15 * len(counts)),
        note=some_of(shown, len(classes)),
    )
    rows = np.arange(shown)
    colours = [class_colour(index, len(classes)) for index in rows]
    # A split is told by its filling, since the colour is the class's.
    fillings = [None, "/////", ".....", "xxxxx"]
    for place, (split, numbers) in enumerate(counts.items()):
        numbers = np.asarray(numbers)[:shown]
        filling = fillings[place % len(fillings)]
        face = colours if filling is None else "white"
        offset = (place - (len(counts) - 1) / 2) * thickness
        bars = axes.barh(
            rows + offset, numbers, 0.9 * thickness, color=face, edgecolor=colours, hatch=filling
        )
        axes.bar_label(bars, [f"{number:,}" for number in numbers], padding=3, size=SMALL)
        grey = {"facecolor": FAINT if filling is None else "white", "edgecolor": MUTED}
        axes.bar(0, 0, hatch=filling, label=plain(split), **grey)
    axes.set_yticks(rows, [shorten(name, 24, classes) for name in classes[:shown]])
    axes.set(xlabel="pictures", ylim=(shown - 0.4, -0.6), xlim=(0, None))
    axes.margins(x=0.1)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    legend_above(axes, columns=4)
    return figure


@styled
def mean_pictures(means, classes, dataset_title):
    """Draw the mean picture of each class: what is left when details cancel out.

    Args:
        means: float C×3×H×W in 0..1.
        classes: the C names.
        dataset_title: how figures name the data.
    """
    shown = min(len(classes), MOST_MEANS)
    columns = min(shown, 5 if shown <= 10 else 10)
    rows = -(-shown // columns)
    sheet = TileSheet(
        rows,
        columns,
        "Mean picture of each class",
        dataset_title,
        note=some_of(shown, len(classes)),
        caption=0.26,
    )
    for index in range(shown):
        row, column = divmod(index, columns)
        sheet.picture(row, column, np.clip(channels_last(means[index]), 0, 1))
        sheet.write_caption(
            row, column, shorten_to_width(classes[index], sheet.tile, among=classes)
        )
    return sheet.figure


@styled
def channel_statistics(histograms, computed_mean, computed_std, used_mean, used_std, dataset_title):
    """Draw the pixel values of each channel, and the normalisation that training uses.

    Args:
        histograms: int 3×256, how often each pixel value occurs.
        computed_mean, computed_std: 3 floats in 0..1, of this data.
        used_mean, used_std: 3 floats in 0..1, what training subtracts and divides by.
        dataset_title: how figures name the data.
    """
    figure, panels = new_figure(
        "Pixel values by channel",
        dataset_title,
        columns=3,
        height=4.4,
        sharey=True,
    )
    shares = 100 * np.asarray(histograms) / np.maximum(np.sum(histograms, axis=1), 1)[:, None]
    top = 1.25 * max(shares.max(), 1e-3)  # with room for the bar above the tallest step
    for channel, (panel, name) in enumerate(zip(panels, ("red", "green", "blue"), strict=True)):
        colour = ("#c9503c", "#4f9a4f", "#4a7fc1")[channel]
        panel.stairs(shares[channel], np.linspace(0, 1, 257), fill=True, color=colour, alpha=0.75)
        mean, std = computed_mean[channel], computed_std[channel]
        panel.axvspan(
            mean - std,
            mean + std,
            color=FAINT,
            alpha=0.25,
            label="±1 std of this data",
            linewidth=0,
        )
        panel.axvline(mean, color=INK, linewidth=1.6, label="mean of this data")
        panel.errorbar(
            used_mean[channel],
            0.91 * top,
            xerr=used_std[channel],
            color=INK,
            marker="D",
            markerfacecolor="white",
            linestyle="none",
            capsize=5,
            label="mean ±1 std used in training",
        )
        used = f"{used_mean[channel]:.4f} ± {used_std[channel]:.4f}"
        words = f"{name}\ndata {mean:.4f} ± {std:.4f}\nused {used}"
        panel.set(title=words, xlim=(0, 1), ylim=(0, top), xlabel="pixel value, 0 to 1")
    panels[0].set_ylabel("share of pixels, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3)
    return figure
