"""Every figure is drawn from plausible data and looked at: ink, words, overlaps, no traces."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from utils.plots import (
    compare,
    curves,
    errors,
    exploration,
    gradcam,
    lr_finder,
    network,
    style,
    trust,
)

TITLE = "CIFAR-10 (JPEG copy)"
BLOCKS = ["prep", "layer 1", "layer 2", "layer 3"]

# Warnings are faults here: matplotlib warns where a layout or a glyph fails.
pytestmark = pytest.mark.filterwarnings("error")


# ---------------------------------------------------------------- looking at a figure


def render(figure):
    """The figure as RGBA pixels, uint8 H×W×4."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def look(figure):
    """Pixels as of `render`, and (words, bounding box) of every text that was really drawn."""
    seen = []
    original = Text.draw

    def note_and_draw(text, renderer):
        if text.get_visible() and text.get_text().strip():
            seen.append(text)
        return original(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", note_and_draw)
        pixels = render(figure)
    return pixels, [(text.get_text(), text.get_window_extent()) for text in seen]


def words(figure):
    """All that is written in the figure, found without the cost of drawing it."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def check(figure):
    """There is ink, and no text is too small, leaves the figure or runs into another one."""
    pixels, texts = look(figure)
    assert (pixels[..., :3] != 255).any(axis=2).mean() > 0.005
    assert len(np.unique(pixels[::3, ::3].view(np.uint32))) > 8
    for text, box in texts:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1
        assert inside and box.y1 < figure.bbox.y1 + 1, f"{text!r} leaves the figure"
    for (first, box), (second, other) in combinations(texts, 2):
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        along = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert across <= 1 or along <= 1, f"{first!r} runs into {second!r}"
    for text in figure.findobj(Text):
        assert text.get_fontsize() >= 8 or not text.get_text().strip(), text


# ---------------------------------------------------------------- plausible data


def rng():
    return np.random.default_rng(7)


def class_names(number):
    stems = ["cat", "automobile", "Northern flicker (Colaptes auratus)", "x", "costs $1 or $2"]
    return [f"{stems[index % len(stems)]} {index}" for index in range(number)]


def pictures(number, size=32):
    return rng().integers(0, 256, (number, 3, size, size), dtype=np.uint8)


def maps(*shape, size=32):
    return rng().random((*shape, size, size), dtype=np.float32)


def history(epochs=20):
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "step": 98 * epoch,
            "lr": np.linspace(1e-2, 1e-8, epochs),
            "train_loss": 1.9 * np.exp(-epoch / 5) + 0.2,
            "train_acc": 0.94 - 0.7 * np.exp(-epoch / 4),
            "val_loss": 1.7 * np.exp(-epoch / 5) + 0.22,
            "val_acc": 0.93 - 0.6 * np.exp(-epoch / 4),
            "seconds": 11.0,
        }
    )


def steps(number=196):
    step = 10 * np.arange(1, number + 1)
    return pd.DataFrame(
        {
            "step": step,
            "epoch": (step - 1) // 98 + 1,
            "lr": np.interp(step, [0, 588, 1960], [1e-4, 1e-2, 1e-8]),
            "train_loss": 2 * np.exp(-step / 500) + 0.2 + 0.1 * rng().random(number),
        }
    )


def gaps(epochs=20):
    epoch = np.arange(2, epochs + 1)
    return pd.DataFrame({"epoch": epoch - 0.5, "gap": 0.03 - 0.1 * np.exp(-epoch / 4)})


def class_table(number):
    table = pd.DataFrame(rng().uniform(0.8, 0.99, (number, 2)), columns=["precision", "recall"])
    table["f1"] = 2 * table.precision * table.recall / (table.precision + table.recall)
    return table.assign(support=1000, **{"class": class_names(number)})


def pair_table(number):
    names = class_names(number + 1)
    count = np.arange(number, 0, -1)
    columns = {"actual": names[:-1], "predicted": names[1:], "count": count, "share": count / 1000}
    return pd.DataFrame(columns)


def reliability_table(bins=15):
    confidence = (np.arange(bins) + 0.5) / bins
    counts = 3 ** np.linspace(0, 8, bins)
    accuracy = confidence**1.2
    half = 0.5 / np.sqrt(counts)
    columns = {
        "start": np.arange(bins) / bins,
        "stop": np.arange(1, bins + 1) / bins,
        "confidence": confidence,
        "accuracy": accuracy,
        "low": np.maximum(accuracy - half, 0),
        "high": np.minimum(accuracy + half, 1),
        "count": counts.astype(int),
    }
    return pd.DataFrame(columns)


def sample_grid(number=10, size=32, per_class=10):
    targets = np.repeat(np.arange(number), 3)
    images = pictures(len(targets), size)
    return exploration.sample_grid(images, targets, class_names(number), TITLE, per_class)


def audited(number=10, size=32):
    kinds = ("two labels", "near-copies", "very bright", "tiny")
    names = [tuple(f"class {n}/IMG_{n:04}.jpg" for n in range(count)) for count in (6, 4, 5, 1)]
    rows = tuple(zip(kinds, names, strict=True))
    return exploration.audited(
        rows, pictures(16, size), np.arange(16) % number, class_names(number), TITLE
    )


def augmented_views(number=4, views=8, size=32):
    shape = (number, views, 3, size, size)
    augmented = pictures(number * views, size).reshape(shape)
    return exploration.augmented_views(pictures(number, size), augmented, TITLE)


def class_counts(number=10):
    counts = {"train": np.full(number, 5000), "test": np.arange(number) + 1000}
    return exploration.class_counts(counts, class_names(number), TITLE)


def mean_pictures(number=10):
    means = pictures(number) / 255
    return exploration.mean_pictures(means, class_names(number), TITLE)


def channel_statistics():
    histograms = rng().integers(500, 1500, (3, 256))
    used = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return exploration.channel_statistics(histograms, (0.49,) * 3, (0.25,) * 3, *used, TITLE)


def lr_curve(suggestion=2.5e-3):
    rates = np.geomspace(1e-7, 1, 100)
    smoothed = 2.3 - 1.2 / (1 + (1e-3 / rates) ** 0.8) + 3 * rates**2
    losses = smoothed + 0.1 * rng().standard_normal(100)
    return lr_finder.lr_curve(rates, losses, smoothed, suggestion, TITLE)


def stage(name, channels, side, parameters, layers=("conv 3×3", "batch norm", "ReLU"), skips=()):
    return SimpleNamespace(
        name=name, channels=channels, side=side, parameters=parameters, layers=layers, skips=skips
    )


def network_blocks(size=32):
    residual = ("conv 3×3", "max-pool 2×2", "ReLU", *3 * ("conv 3×3",))
    made = [
        stage("prep", 64, size, 1_856),
        stage("layer1", 128, size // 2, 369_408, residual, ((3, 5),)),
        stage("layer3", 512, size // 8, 5_901_312, residual, ((0, 0), (3, 5))),
        stage("pool", 512, 1, 0, ("max-pool 2×2",)),
        stage("a block of a long name", 1_000, None, 5_120_000, ("max of each map", "linear")),
    ]
    return network.blocks(made, size, "DavidNet", TITLE)


def confusion_matrix(number=10):
    matrix = rng().poisson(0.6, (number, number)) + 950 * np.eye(number, dtype=int)
    return errors.confusion_matrix(matrix, class_names(number), TITLE)


def missed(count, number):
    """actual, predicted, confidences for `count` missed pictures."""
    actual = np.arange(count) % number
    return actual, (actual + 1) % number, np.linspace(0.3, 1, count)


def misclassified_grid(number=10, count=12, columns=5, size=32):
    names = class_names(number)
    images = pictures(count, size)
    return errors.misclassified_grid(images, *missed(count, number), names, TITLE, columns)


def doubted_labels(number=10, count=10, size=32):
    names = class_names(number)
    return errors.doubted_labels(pictures(count, size), *missed(count, number), names, TITLE)


def prediction_sets(number=10, count=9, size=32):
    names = class_names(number)
    sets = ["I do not know", names[0], " or ".join(names[:3])] * (count // 3)
    actual = np.arange(count) % number
    return errors.prediction_sets(pictures(count, size), actual, sets, names, TITLE)


def nearest_training(number=10, count=5, size=32):
    neighbours = pictures(5 * count, size).reshape(count, 5, 3, size, size)
    targets = rng().integers(0, number, (count, 5))
    mistakes = pictures(count, size), *missed(count, number)[:2]
    return errors.nearest_training(*mistakes, neighbours, targets, class_names(number), TITLE)


def near_copies(number=10, count=7, size=32):
    images, targets = (pictures(count, size),) * 2, missed(count, number)[:2]
    return errors.near_copies(*images, *targets, class_names(number), TITLE)


def answered_table(number=200):
    answered = np.arange(1, number + 1) / number
    accuracy = 1 - 0.1 * answered**2
    half = 0.4 / np.sqrt(10_000 * answered)
    ends = {"low": accuracy - half, "high": np.minimum(accuracy + half, 1)}
    return pd.DataFrame({"answered": answered, "accuracy": accuracy, **ends})


def answered_curve(number=200):
    curve = answered_table(number)
    refusals = curve.iloc[[-1, -3, -11, -21]].assign(refused=[0, 0.01, 0.05, 0.1])
    return errors.answered_curve(curve, refusals, TITLE)


def misclassified_maps(number=10, count=5, columns=2, size=32):
    return gradcam.misclassified_maps(
        pictures(count, size),
        maps(count, size=size),
        maps(count, size=size),
        *missed(count, number),
        class_names(number),
        TITLE,
        columns=columns,
    )


def judged_maps(methods=12, blocks=BLOCKS, measures=11):
    rows = [
        (f"method {m}", block, f"measure {i}", rng().random() + m / 10, 1000)
        for i in range(measures) for m in range(methods) for block in blocks
    ]  # fmt: skip
    rows += [
        (name, "", f"measure {i}", 0.1 * i, 1000)
        for i in range(measures // 2)
        for name in ("noise", "centre blob", "edges", "object's mask")
    ]
    return pd.DataFrame(rows, columns=["method", "block", "measure", "mean", "n"])


def methods_by_block():
    methods = ["Grad-CAM", "Grad-CAM++", "EigenCAM"]
    label = "cat, predicted dog (93 %)"
    return gradcam.methods_by_block(pictures(1)[0], maps(3, 4), methods, BLOCKS, TITLE, label)


def blocks_by_picture(size=32):
    labels = ["cat, predicted Northern flicker (Colaptes auratus) (93 %)"] * 3
    return gradcam.blocks_by_picture(
        pictures(3, size), maps(3, 4, size=size), BLOCKS, labels, TITLE
    )


def group_names(number):
    names = ["original", "speed epochs=10", "mark_anywhere-a-name-that-is-long-epochs=5", "$1"]
    return [names[n] if n < len(names) else f"fast limit_train={500 * n}" for n in range(number)]


def bands(groups=3, runs=5, epochs=20):
    tables = [
        history(epochs).assign(
            group=name, n=runs, is_whole=True, val_acc_spread=0.02 if runs > 1 else np.nan,
            val_loss_spread=0.1 if runs > 1 else np.nan,
        )
        for name in group_names(groups)
    ]  # fmt: skip
    for number, table in enumerate(tables):
        table["val_acc"] -= 0.05 * number
    return pd.concat(tables) if tables else history(0).assign(group=[])


def run_and_group_tables(groups=3, runs=5):
    names = np.repeat(group_names(groups), runs)
    place = np.repeat(np.arange(groups), runs)
    accuracy = 0.85 + 0.02 * place + 0.003 * rng().standard_normal(len(place))
    times = {"accuracy": accuracy, "training_seconds": 50.0 * 3**place + rng().random(len(place))}
    single = pd.DataFrame({"group": names, **times})
    grouped = single.groupby("group", sort=False)
    means = grouped.mean().join(grouped.std().add_suffix("_spread"))
    return single, means.assign(n=runs, is_front=np.arange(groups) != 1).reset_index()


def accuracy_by_time(groups=3, runs=5):
    return compare.accuracy_by_time(*run_and_group_tables(groups, runs), TITLE)


def differences(pairs=5, rows=3):
    holds = ["other seeds", "other pictures", "other seeds and pictures"][:rows]
    table = pd.DataFrame({"holds_for": holds, "difference": 0.004, "p": 0.1})
    table = table.assign(low=[-0.001, 0.002, -0.002][:rows], high=[0.009, 0.006, 0.01][:rows])
    gains = 0.004 + 0.002 * rng().standard_normal(pairs)
    return compare.differences(table, gains, group_names(4)[2:], TITLE)


def times_wrong(runs=10):
    counts = np.geomspace(9_000, 40, runs + 1).astype(int)
    return compare.times_wrong(counts, np.geomspace(6_000, 1e-6, runs + 1), TITLE)


def pictures_by_kind(number=10, count=6, size=32):
    names = class_names(number)
    actual, taken_for, _ = missed(count, number)
    columns = {"actual": [names[n] for n in actual], "taken_for": [names[n] for n in taken_for]}
    table = pd.DataFrame({**columns, "wrong": 10})
    kinds = {
        "always wrong": table[:0], "sometimes wrong": table.assign(wrong=5),
        "never wrong": table.assign(wrong=0),
    }  # fmt: skip
    images = {kind: pictures(len(some), size) for kind, some in kinds.items()}
    return compare.pictures_by_kind(images, kinds, TITLE, 10)


FIGURES = {
    "bands": lambda: compare.curves(bands(), TITLE),
    "bands_of_single_runs": lambda: compare.curves(bands(2, 1, 1), TITLE),
    "bands_of_many_groups": lambda: compare.curves(bands(30), TITLE),
    "accuracy_by_time": accuracy_by_time,
    "accuracy_by_time_of_many": lambda: accuracy_by_time(12, 1),
    "differences": differences,
    "differences_of_two_runs": lambda: differences(0, 1),
    "times_wrong": times_wrong,
    "times_wrong_in_two_runs": lambda: times_wrong(2),
    "times_wrong_in_many_runs": lambda: times_wrong(200),
    "pictures_by_kind": pictures_by_kind,
    "sample_grid": sample_grid,
    "audited": audited,
    "augmented_views": augmented_views,
    "class_counts": class_counts,
    "mean_pictures": mean_pictures,
    "channel_statistics": channel_statistics,
    "lr_curve": lr_curve,
    "network_blocks": network_blocks,
    "learning_rate_and_epoch": lambda: curves.learning_rate_and_epoch(steps(), TITLE),
    "loss_curves": lambda: curves.loss_curves(history(), steps(), TITLE),
    "accuracy_curves": lambda: curves.accuracy_curves(history(), TITLE),
    "generalisation_gap": lambda: curves.generalisation_gap(gaps(), TITLE),
    "confusion_matrix": confusion_matrix,
    "per_class_bars": lambda: errors.per_class_bars(class_table(10), TITLE),
    "misclassified_grid": misclassified_grid,
    "reliability": lambda: errors.reliability(reliability_table(), 0.0231, TITLE),
    "reliability_scaled": lambda: errors.reliability(
        reliability_table(), 0.0231, TITLE, reliability_table(12)
    ),
    "answered_curve": answered_curve,
    "prediction_sets": prediction_sets,
    "nearest_training": nearest_training,
    "doubted_labels": doubted_labels,
    "near_copies": near_copies,
    "most_confused": lambda: errors.most_confused(pair_table(12), TITLE),
    "misclassified_maps": misclassified_maps,
    "methods_by_block": methods_by_block,
    "trust": lambda: trust.scores_by_measure(judged_maps(), TITLE, "davidnet"),
    "blocks_by_picture": blocks_by_picture,
}

BY_CLASS_COUNT = {
    "sample_grid": sample_grid,
    "audited": audited,
    "class_counts": class_counts,
    "mean_pictures": mean_pictures,
    "confusion_matrix": confusion_matrix,
    "per_class_bars": lambda number: errors.per_class_bars(class_table(number), TITLE),
    "misclassified_grid": misclassified_grid,
    "nearest_training": nearest_training,
    "doubted_labels": doubted_labels,
    "near_copies": near_copies,
    "most_confused": lambda number: errors.most_confused(pair_table(number), TITLE),
    "misclassified_maps": misclassified_maps,
    "pictures_by_kind": pictures_by_kind,
}

NO_PICTURES = np.empty((0, 3, 32, 32), np.uint8)
NO_MAPS = np.empty((0, 32, 32), np.float32)
NOTHING = np.empty(0, int)
NAMES = class_names(10)

EMPTY = {
    "bands": lambda: compare.curves(bands(0), TITLE),
    "accuracy_by_time": lambda: compare.accuracy_by_time([], [], TITLE),
    "differences": lambda: compare.differences([], [], [], TITLE),
    "times_wrong": lambda: compare.times_wrong([0, 0], [0.0, 0.0], TITLE),
    "pictures_by_kind": lambda: compare.pictures_by_kind({}, {}, TITLE, 3),
    "sample_grid": lambda: exploration.sample_grid(NO_PICTURES, NOTHING, NAMES, TITLE),
    "audited": lambda: exploration.audited((), NO_PICTURES, NOTHING, NAMES, TITLE),
    "augmented_views": lambda: exploration.augmented_views(NO_PICTURES, [], TITLE),
    "lr_curve": lambda: lr_finder.lr_curve([], [], [], None, TITLE),
    "network_blocks": lambda: network.blocks([], 32, "DavidNet", TITLE),
    "learning_rate_and_epoch": lambda: curves.learning_rate_and_epoch(steps(0), TITLE),
    "loss_curves": lambda: curves.loss_curves(history(0), steps(0), TITLE),
    "accuracy_curves": lambda: curves.accuracy_curves(history(0), TITLE),
    "generalisation_gap": lambda: curves.generalisation_gap(gaps(1), TITLE),
    "confusion_matrix": lambda: errors.confusion_matrix(np.zeros((10, 10), int), NAMES, TITLE),
    "per_class_bars": lambda: errors.per_class_bars(class_table(10)[:0], TITLE),
    "misclassified_grid": lambda: errors.misclassified_grid(
        NO_PICTURES, NOTHING, NOTHING, NOTHING, NAMES, TITLE
    ),
    "reliability": lambda: errors.reliability(reliability_table()[:0], 0.0, TITLE),
    "answered_curve": lambda: errors.answered_curve(answered_table(0), answered_table(0), TITLE),
    "prediction_sets": lambda: errors.prediction_sets(NO_PICTURES, NOTHING, [], NAMES, TITLE),
    "nearest_training": lambda: errors.nearest_training(
        NO_PICTURES, NOTHING, NOTHING, NO_PICTURES[None], NOTHING, NAMES, TITLE
    ),
    "doubted_labels": lambda: errors.doubted_labels(
        NO_PICTURES, NOTHING, NOTHING, NOTHING, NAMES, TITLE
    ),
    "near_copies": lambda: errors.near_copies(
        NO_PICTURES, NO_PICTURES, NOTHING, NOTHING, NAMES, TITLE
    ),
    "most_confused": lambda: errors.most_confused(pair_table(3)[:0], TITLE),
    "misclassified_maps": lambda: gradcam.misclassified_maps(
        NO_PICTURES, NO_MAPS, NO_MAPS, NOTHING, NOTHING, NOTHING, NAMES, TITLE
    ),
    "trust": lambda: trust.scores_by_measure(judged_maps(0, [], 0), TITLE, "davidnet"),
    "methods_by_block": lambda: gradcam.methods_by_block(
        pictures(1)[0], NO_MAPS, [], BLOCKS, TITLE, "cat"
    ),
    "blocks_by_picture": lambda: gradcam.blocks_by_picture(NO_PICTURES, NO_MAPS, BLOCKS, [], TITLE),
}


# ---------------------------------------------------------------- every figure


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_named_and_legible(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert TITLE in figure.get_suptitle()
    assert 6 <= figure.get_figwidth() <= 10
    check(figure)


# The other figures show at most forty classes, so forty look there as a hundred do.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name in BY_CLASS_COUNT for number in (2, 100)]
    + [("confusion_matrix", 40), ("mean_pictures", 40)],
)
def test_any_number_of_classes(name, number):
    figure = BY_CLASS_COUNT[name](number)
    check(figure)
    assert figure.get_figheight() <= 20


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_draw_is_said_in_words(name):
    figure = EMPTY[name]()
    assert TITLE in figure.get_suptitle()
    message = figure.axes[0].texts[0].get_text()
    known = ("No ", "There are no", "The test recorded no", "The schedule has no")
    assert message.startswith(known)
    check(figure)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loss_curves", "confusion_matrix", "sample_grid", "reliability"])
def test_look_does_not_depend_on_global_settings(name):
    """Ticks are made when a figure is drawn, so a style could leak into them."""
    expected = render(FIGURES[name]())
    loud = {
        "font.size": 30,
        "xtick.labelsize": 30,
        "ytick.labelsize": 30,
        "axes.grid": True,
        "grid.color": "red",
        "grid.linewidth": 5,
        "axes.facecolor": "yellow",
        "lines.linewidth": 9,
        "text.color": "red",
        "xtick.color": "red",
        "legend.fontsize": 30,
    }
    with mpl.rc_context(loud):
        np.testing.assert_array_equal(render(FIGURES[name]()), expected)


@pytest.mark.slow
def test_no_traces_are_left():
    import matplotlib.pyplot as plt
    import seaborn  # noqa: F401  (both register things when first imported; that is not ours)

    before = dict(mpl.rcParams)
    for draw in FIGURES.values():
        draw()
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_importing_needs_no_slow_package():
    code = (
        "import sys; import utils.plots.curves, utils.plots.errors, utils.plots.gradcam; "
        "print({'seaborn', 'pandas', 'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[1]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"


# ---------------------------------------------------------------- single figures


def test_a_group_s_line_ends_where_one_of_its_runs_does():
    table = bands(2, 4, 10)
    longer = (table["epoch"] > 6) & (table["group"] == table["group"].iloc[0])
    figure = compare.curves(table.assign(is_whole=~longer), TITLE)
    lengths = [len(line.get_xdata()) for line in figure.axes[0].lines]
    assert lengths == [6, 10] and "ends with the first run" in words(figure)
    assert "ends with the first run" not in words(compare.curves(table, TITLE))


def test_the_spread_after_a_single_epoch_is_seen():
    figure = compare.curves(bands(1, 4, 1), TITLE)
    (heights,) = figure.axes[0].collections[0].get_segments()
    assert np.ptp(heights[:, 1]) == pytest.approx(4)  # two standard deviations of 2 points


def test_sample_grid_shows_the_first_pictures_of_each_class():
    images, targets = pictures(6), np.array([1, 0, 1, 1, 0, 1])
    figure = exploration.sample_grid(images, targets, ["cat", "dog"], TITLE, per_class=3)
    shown = [np.asarray(tile.get_array()) for tile in figure.axes[0].images]
    expected = [images[index].transpose(1, 2, 0) for index in (1, 4, 0, 2, 3)]
    np.testing.assert_array_equal(shown, expected)
    assert all(tile.get_interpolation() == "nearest" for tile in figure.axes[0].images)


@pytest.mark.parametrize(("name", "shown"), [("sample_grid", 20), ("class_counts", 40)])
def test_left_out_classes_are_counted(name, shown):
    assert f"{shown} of 100 classes shown." in words(BY_CLASS_COUNT[name](100))
    assert "shown" not in words(BY_CLASS_COUNT[name](10))


def test_what_an_audit_found_stands_row_by_row_under_class_and_file():
    rows = (("near-copies", ("a/1.jpg", "a/2.jpg")), ("very dark", ("b/3.jpg",)))
    images = pictures(3)
    figure = exploration.audited(rows, images, [0, 0, 1], ["ant", "bee"], TITLE)
    shown = [np.asarray(tile.get_array()) for tile in figure.axes[0].images]
    np.testing.assert_array_equal(shown, [np.moveaxis(image, 0, -1) for image in images])
    assert {"near-copies", "very dark", "ant", "1.jpg", "2.jpg", "bee", "3.jpg"} <= set(
        words(figure).splitlines()
    )


def test_augmented_views_mark_the_original():
    figure = augmented_views(number=2, views=3)
    assert "original" in words(figure)
    assert len(figure.axes[0].images) == 2 * (1 + 3)


def test_missing_suggestion_is_said_in_words():
    assert "no suggestion" in words(lr_curve(None))
    assert "suggestion 0.0025" in words(lr_curve(2.5e-3))
    guessing = lr_finder.lr_curve([1e-3, 1e-2], [2, 1], [2, 1], 1e-2, TITLE, chance=2.3)
    assert "guessing: 2.30" in words(guessing)


def test_range_test_that_diverged():
    rates = np.geomspace(1e-4, 1, 20)
    losses = np.r_[np.linspace(2, 1, 17), 1e3, np.inf, np.nan]
    smoothed = np.r_[np.linspace(2, 1, 17), np.nan, np.nan, np.nan]
    figure = lr_finder.lr_curve(rates, losses, smoothed, 0.01, TITLE)
    check(figure)
    top = figure.axes[0].get_ylim()[1]
    assert 2 < top < 1e3


@pytest.mark.slow
def test_the_epochs_in_which_pictures_grow_are_marked():
    sides = [16] * 8 + [24] * 8 + [32] * 4
    for draw in (
        lambda sides: curves.loss_curves(history(), steps(), TITLE, "test", sides),
        lambda sides: curves.accuracy_curves(history(), TITLE, "test", sides),
        lambda sides: curves.generalisation_gap(gaps(), TITLE, "test", sides),
    ):
        check(draw(sides))
        marked = words(draw(sides))
        assert all(f"{side} px" in marked for side in (16, 24, 32))
        assert "px" not in words(draw([32] * 20)) and "px" not in words(draw([]))
        dotted = [line for line in draw(sides).axes[0].lines if line.get_linestyle() == ":"]
        assert [line.get_xdata()[0] for line in dotted] == [8, 16]


def test_a_run_that_was_stopped_marks_only_the_epochs_it_has():
    figure = curves.accuracy_curves(history(3), TITLE, "test", [16, 16, 24, 32])
    assert "24 px" in words(figure) and "32 px" not in words(figure)


@pytest.mark.parametrize("size", [16, 64, 256])
def test_a_network_is_drawn_for_pictures_of_any_size(size):
    figure = network_blocks(size)
    check(figure)
    assert f"{size}×{size}" in words(figure) and f"{size // 8}×{size // 8}" in words(figure)


def test_a_network_s_blocks_are_named_and_counted():
    written = words(network_blocks())
    for text in ("picture", "prep", "64 channels", "369,408 parameters", "1,000 logits"):
        assert text in written
    assert "nothing learned" in written
    assert written.count("add input") == 3
    assert written.count("conv 3×3") == 1 + 4 + 4


def test_layers_with_weights_are_told_apart_without_colour():
    grey = [
        np.dot(mpl.colors.to_rgb(network.look_of(layer)[0]), (0.299, 0.587, 0.114))
        for layer in ("conv 3×3", "batch norm", "ReLU")
    ]
    assert np.diff(grey).min() > 0.15
    assert network.look_of("linear") == network.look_of("conv 2×2")


@pytest.mark.parametrize("watched", ["test", "validation"])
def test_curves_name_the_watched_split(watched):
    loss = words(curves.loss_curves(history(), steps(), TITLE, watched))
    assert f"lowest {watched} loss: 0.251 (epoch 20)" in loss
    accuracy = words(curves.accuracy_curves(history(), TITLE, watched))
    assert f"{watched}: 92.60 % at the end" in accuracy
    assert f"{watched} accuracy" in words(curves.generalisation_gap(gaps(), TITLE, watched))
    assert ("the program chooses nothing by it" in loss) == (watched == "test")


def test_best_epoch_is_not_always_the_last():
    table = history(5)
    table["val_loss"] = [1.0, 0.5, np.nan, 0.7, 0.8]
    table["val_acc"] = [0.5, 0.6, np.nan, 0.8, 0.7]
    assert "lowest test loss: 0.500 (epoch 2)" in words(curves.loss_curves(table, steps(), TITLE))
    assert "best test: 80.00 % (epoch 4)" in words(curves.accuracy_curves(table, TITLE))


def test_split_that_was_never_watched():
    table = history(5).assign(val_loss=np.nan, val_acc=np.nan)
    assert "lowest" not in words(curves.loss_curves(table, steps(), TITLE))
    assert "best" not in words(curves.accuracy_curves(table, TITLE))


@pytest.mark.slow
def test_single_epoch_and_single_step():
    one = curves.loss_curves(history(1), steps(1), TITLE)
    for figure in (one, curves.accuracy_curves(history(1), TITLE)):
        assert "One epoch only" in words(figure)
        check(figure)
    figure = curves.learning_rate_and_epoch(steps(1), TITLE)
    assert "One row of steps only" in words(figure)
    check(figure)
    check(curves.generalisation_gap(gaps(2), TITLE))


def test_epoch_without_logged_steps():
    check(curves.loss_curves(history(3), steps(0), TITLE))


def test_steps_end_where_their_epoch_is_drawn():
    table = pd.DataFrame({"step": [49, 98, 196, 245]})
    assert curves.steps_in_epochs(table, history(3)).tolist() == pytest.approx([0.5, 1, 2, 2.5])
    # A resumed or truncated log starts later than epoch 1.
    assert curves.steps_in_epochs(table[2:], history(4)[2:]).tolist() == pytest.approx([2, 2.5])


def test_the_gap_is_drawn_in_points_in_the_middle_of_its_epochs():
    table = pd.DataFrame({"epoch": [1.5, 2.5], "gap": [-0.1, 0.05]})
    figure = curves.generalisation_gap(table, TITLE)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [1.5, 2.5])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [-10, 5])
    assert "Training pictures are augmented" in " ".join(words(figure).split())
    assert "+5.00 points in epoch 3" in words(figure)


@pytest.mark.parametrize("epochs", [1, 2, 7, 20])
def test_means_over_an_epoch_stand_in_its_middle_and_what_is_watched_at_its_end(epochs):
    """A network that learns along one line has both curves on that line: no gap between them."""
    end = np.arange(1, epochs + 1)
    table = history(epochs).assign(
        train_loss=2 - 0.05 * (end - 0.5), val_loss=2 - 0.05 * end,
        train_acc=0.04 * (end - 0.5), val_acc=0.04 * end,
    )  # fmt: skip
    for figure, line in (
        (curves.loss_curves(table, steps(0), TITLE), lambda x: 2 - 0.05 * x),
        (curves.accuracy_curves(table, TITLE), lambda x: 4 * x),
    ):
        panel = figure.axes[0]
        drawn = {line.get_label().split(":")[0]: line for line in panel.lines}
        train, watched = drawn["training, epoch mean"], drawn["test"]
        assert train.get_xdata().tolist() == (end - 0.5).tolist()
        assert watched.get_xdata().tolist() == end.tolist()
        for curve in (train, watched):
            np.testing.assert_allclose(curve.get_ydata(), line(curve.get_xdata()))
        assert panel.get_xlabel() == "epochs completed"
        assert panel.get_xlim()[0] == 0 and panel.get_xlim()[1] > epochs


def test_confusion_matrix_writes_counts_of_few_classes_only():
    names = [f"class {index}" for index in range(3)]
    matrix = np.array([[901, 0, 17], [3, 902, 4], [5, 6, 903]])
    drawn = [text for text, _ in look(errors.confusion_matrix(matrix, names, TITLE))[1]]
    assert {"901", "902", "903", "17", "3", "4", "5", "6"} <= set(drawn)
    assert "950" not in words(confusion_matrix(40))


def test_confusion_matrix_without_errors_or_with_empty_classes():
    assert "There are no errors." in words(
        errors.confusion_matrix(5 * np.eye(3, dtype=int), NAMES[:3], TITLE)
    )
    matrix = np.array([[5, 2, 0], [0, 0, 0], [1, 0, 7]])
    check(errors.confusion_matrix(matrix, NAMES[:3], TITLE))


def test_per_class_figures_are_sorted_by_f1():
    table = class_table(3).assign(f1=[0.9, 0.7, 0.8], **{"class": ["a", "b", "c"]})
    panel = errors.per_class_bars(table, TITLE).axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["b", "c", "a"]
    assert panel.yaxis_inverted()  # so the first, the lowest F1, stands on top


def test_misclassified_grid_says_actual_predicted_and_confidence():
    figure = errors.misclassified_grid(
        pictures(6), [0] * 6, [1] * 6, np.full(6, 0.97), ["cat", "dog"], TITLE
    )
    assert "actual cat\npredicted dog, 97 %" in words(figure)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 3, 8, 10])
def test_misclassified_grid_of_any_width(columns):
    check(misclassified_grid(columns=columns, count=12))


@pytest.mark.parametrize("columns", [1, 3])
def test_misclassified_maps_of_any_width(columns):
    check(misclassified_maps(columns=columns))


@pytest.mark.slow
@pytest.mark.parametrize("size", [64])
def test_other_picture_sizes(size):
    for figure in (
        sample_grid(size=size),
        augmented_views(size=size),
        misclassified_grid(size=size),
        misclassified_maps(size=size),
        blocks_by_picture(size=size),
    ):
        assert np.asarray(figure.axes[0].images[-1].get_array()).shape == (size, size, 3)
        check(figure)


def test_reliability_skips_empty_bins():
    table = reliability_table(4)
    table.loc[1, ["confidence", "accuracy", "count"]] = [np.nan, np.nan, 0]
    upper, lower = errors.reliability(table, 0.0231, TITLE).axes
    points = upper.lines[1].get_xdata()
    np.testing.assert_allclose(points, [12.5, 62.5, 87.5])
    assert len(lower.patches) == 3


def test_reliability_draws_the_interval_and_the_count_of_each_bin():
    table = reliability_table(5).assign(count=[1, 20, 300, 4_000, 50_000])
    figure = errors.reliability(table, 0.0231, TITLE)
    check(figure)
    upper, lower = figure.axes
    interval = upper.collections[0].get_segments()
    np.testing.assert_allclose([ends[:, 1] for ends in interval], 100 * table[["low", "high"]])
    np.testing.assert_allclose([ends[0, 0] for ends in interval], 100 * table["confidence"])
    assert [text.get_text() for text in lower.texts] == ["1", "20", "300", "4,000", "50,000"]
    check(errors.reliability(reliability_table().assign(count=99_999), 0.0231, TITLE))


def test_reliability_names_the_calibration_error():
    assert "2.31 %" in words(FIGURES["reliability"]())


def test_reliability_draws_what_a_temperature_made_of_it():
    panel = FIGURES["reliability_scaled"]().axes[0]
    (line,) = [line for line in panel.lines if line.get_label() == "after temperature scaling"]
    np.testing.assert_allclose(line.get_xdata(), 100 * reliability_table(12)["confidence"])
    assert "temperature" not in words(FIGURES["reliability"]())


def test_refusals_stand_on_the_curve_and_are_named_with_their_accuracy():
    figure = answered_curve()
    *_, points = figure.axes[0].lines
    np.testing.assert_allclose(points.get_xdata(), [100, 99, 95, 90])
    np.testing.assert_allclose(points.get_ydata(), 100 - 10 * np.array([1, 0.99, 0.95, 0.9]) ** 2)
    assert "refused: none (90.00 % right), 1 % (90.20 % right)" in words(figure)


def test_neighbours_are_marked_by_what_they_speak_for():
    targets = np.array([[0, 1, 2]])
    figure = errors.nearest_training(
        pictures(1), [0], [1], pictures(3)[None], targets, ["cat", "dog", "elk"], TITLE
    )
    written = words(figure).splitlines()
    assert {"cat", "→ dog", "cat +", "dog =", "elk"} <= set(written)
    assert len(figure.axes[0].images) == 4


def test_near_copies_stand_in_pairs():
    test, train = pictures(4)[:2], pictures(4)[2:]
    figure = errors.near_copies(test, train, [0, 1], [1, 1], ["cat", "dog"], TITLE)
    shown = [np.asarray(tile.get_array()) for tile in figure.axes[0].images]
    expected = [np.moveaxis(image, 0, -1) for image in (test[0], train[0], test[1], train[1])]
    np.testing.assert_array_equal(shown, expected)


def test_the_valley_of_a_range_test_fills_its_figure():
    rates = np.geomspace(1e-4, 1, 60)
    losses = 1.5 + np.geomspace(3.0, 0.01, 60) + np.minimum(6.0, (rates / 1e-2) ** 2)
    figure = lr_finder.lr_curve(rates, losses, losses, 3e-3, TITLE, chance=2.3)
    low, high = figure.axes[0].get_ylim()
    assert (losses.min() - low) < 0.3 and high == 1.5 * 2.3
    assert "cut off at the top" in words(figure)
    never = lr_finder.lr_curve(rates, losses + 4, losses + 4, None, TITLE, chance=2.3)
    assert never.axes[0].get_ylim()[1] > (losses + 4).max()


# ---------------------------------------------------------------- overlay


def test_overlay_without_map_is_the_picture_in_grey():
    image = pictures(1)[0]
    blend = gradcam.overlay(image, maps(1)[0], map_weight=0)
    assert blend.dtype == np.uint8
    red, green, blue = image.astype(float)
    grey = np.rint(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    np.testing.assert_array_equal(blend, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)])
def test_every_colour_in_an_overlay_is_the_map_s(colour):
    image = np.broadcast_to(np.uint8(colour)[:, None, None], (3, 1, 100))
    ramp = np.linspace(0, 1, 100, dtype=np.float32)[None]
    blend = gradcam.overlay(image, ramp)[0].astype(float)
    plain = gradcam.overlay(np.zeros((3, 1, 100), np.uint8), ramp)[0].astype(float)
    added = blend - plain
    assert np.ptp(added) <= 1  # the picture only makes all of it lighter, by as much everywhere
    brightness = blend @ np.array(gradcam.LUMA)
    assert (np.diff(brightness) > -1).all() and brightness[-1] - brightness[0] > 60


def test_overlay_without_picture_is_the_colour_map():
    class_map = maps(1)[0]
    expected = mpl.colormaps[gradcam.COLOUR_MAP](class_map, bytes=True)[..., :3]
    np.testing.assert_array_equal(gradcam.overlay(pictures(1)[0], class_map, 1), expected)


def test_overlay_default_is_six_parts_picture_four_parts_map():
    image = np.full((3, 2, 2), 100, np.uint8)
    low, high = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    colours = mpl.colormaps[gradcam.COLOUR_MAP]([0.0, 1.0], bytes=True)[:, :3].astype(float)
    for class_map, colour in ((low, colours[0]), (high, colours[1])):
        blend = gradcam.overlay(image, class_map)
        assert blend.shape == (2, 2, 3)
        np.testing.assert_array_equal(blend[0, 0], np.rint(0.6 * 100 + 0.4 * colour))


def test_one_picture_under_many_methods_is_shown_as_it_is_once():
    shown = [np.asarray(tile.get_array()) for tile in methods_by_block().axes[0].images]
    raw = pictures(1)[0].transpose(1, 2, 0)
    assert sum(np.array_equal(tile, raw) for tile in shown) == 1
    assert len(shown) == 1 + 3 * len(BLOCKS)


def test_overlay_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="resize the map"):
        gradcam.overlay(pictures(1)[0], np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"map_weight is 1\.5"):
        gradcam.overlay(pictures(1)[0], maps(1)[0], 1.5)


def test_tiles_stand_in_the_order_raw_predicted_true():
    image, zeros, ones = pictures(1), np.zeros((1, 32, 32)), np.ones((1, 32, 32))
    figure = gradcam.misclassified_maps(
        image, zeros, ones, [0], [1], [0.9], ["cat", "dog"], TITLE, map_weight=1
    )
    raw, predicted, true = (np.asarray(tile.get_array()) for tile in figure.axes[0].images)
    np.testing.assert_array_equal(raw, image[0].transpose(1, 2, 0))
    assert predicted.mean() < 10 < 150 < true.mean()  # inferno runs from black to light yellow


# ---------------------------------------------------------------- style


def test_no_share_is_drawn_as_all_or_nothing_that_is_not():
    assert style.percent(0.9998) == "99.98 %" and style.percent(1) == "100 %"
    nearly = history(5).assign(train_acc=0.99998, val_acc=0.99999)
    assert "100.00 %" not in words(curves.accuracy_curves(nearly, TITLE))
    table = class_table(3).assign(f1=0.9999)
    assert words(errors.per_class_bars(table, TITLE)).count("99.99 %") == 3
    sure = np.full(2, 0.9998)
    grid = errors.misclassified_grid(pictures(2), [0, 1], [1, 0], sure, NAMES, TITLE)
    assert words(grid).count(", 99.98 %") == 2
    pairs = pair_table(2).assign(share=0.0002)
    assert words(errors.most_confused(pairs, TITLE)).count("(0.02 %)") == 2


def test_a_figure_says_what_it_shows_to_those_who_cannot_see_it():
    loss = curves.loss_curves(history(), steps(), TITLE)
    assert loss.get_label() == (
        "Training and test loss, CIFAR-10 (JPEG copy). The test split is only watched: the program "
        "chooses nothing by it. Loss, cross-entropy against epochs completed: training, single "
        "steps; training, epoch mean; test; lowest test loss: 0.251 (epoch 20)."
    )
    assert "10 small pictures." in mean_pictures().get_label()
    assert (
        "small picture" not in errors.confusion_matrix(np.eye(len(NAMES)), NAMES, TITLE).get_label()
    )
    empty = errors.most_confused(pair_table(3)[:0], "costs $1")
    assert empty.get_label() == "Most confused pairs, costs $1. No picture was misclassified."


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_at_length_what_it_shows(name):
    said = FIGURES[name]().get_label()
    assert TITLE in said and "\n" not in said and len(said) > len(TITLE) + 30
    assert len(said) < 800 and said.endswith(".")


def test_class_colours_differ_in_hue_and_are_the_same_every_time():
    for number in (2, 10, 40):
        colours = [style.class_colour(index, number) for index in range(number)]
        assert len(set(colours)) == number
    assert style.class_colour(1, 2) == style.class_colour(1, 10)


def test_shorten_and_plain():
    assert style.shorten("automobile", 10) == "automobile"
    assert style.shorten("automobiles", 10) == "automobil…"
    assert style.shorten("two\nlines", 20) == "two lines"
    assert style.plain("$5") == r"\$5"


def test_fit_keeps_to_the_width():
    assert style.shorten_to_width("cat", 1.5, "actual ") == "actual cat"
    narrow = style.shorten_to_width("Northern flicker", 0.8, after=", 97 %")
    assert narrow.startswith("No") and narrow.endswith("…, 97 %")
    assert style.shorten_to_width("x", 0.01) == "x"


def test_long_data_set_titles_are_wrapped():
    figure = exploration.class_counts({"train": [3, 4]}, ["cat", "dog"], "a long name " * 20)
    check(figure)


PLANTS = [
    "Cherry_(including_sour)___Powdery_mildew", "Cherry_(including_sour)___healthy",
    "Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot", "Corn_(maize)___Common_rust_",
    "Corn_(maize)___Northern_Leaf_Blight", "Corn_(maize)___healthy",
    "Tomato___Tomato_Yellow_Leaf_Curl_Virus", "Tomato___Tomato_mosaic_virus",
]  # fmt: skip
#: Alike at the beginning, at the end, and at both.
ALIKE = [*PLANTS, *(f"{n} of the very long names of a class" for n in "ABC"),
         *(f"the very long name of class {n} among many others" for n in range(12))]  # fmt: skip


@pytest.mark.parametrize("length", [8, 12, 16, 18, 24])
def test_names_that_differ_stay_different_when_they_are_cut(length):
    short = [style.shorten(name, length, ALIKE) for name in ALIKE]
    assert len(set(short)) == len(ALIKE)
    assert max(map(len, short)) <= length
    assert style.shorten("cat", length, ["cat", "dog"]) == "cat"


def test_breeds_that_begin_alike_stay_different_and_tell_their_difference():
    breeds = ["American pit bull terrier", "American pit bull mix"]
    for length in range(4, 30):
        assert len({style.shorten(name, length, breeds) for name in breeds}) == 2
    assert [style.shorten(name, 16, breeds) for name in breeds] == [
        "American…terrier", "American…ull mix",
    ]  # fmt: skip
    breeds.append("American Staffordshire terrier")
    assert [style.shorten(name, 8, breeds) for name in breeds] == [
        "…terrier", "Amer…mix", "…Staffo…",
    ]  # fmt: skip
    numbered = [f"American pit bull {n} of the north" for n in range(30)]
    assert style.shorten(numbered[13], 8, numbered) == "…13 of…"


MANY = [
    [f"American pit bull {n}" for n in range(200)],
    [f"American pit bull {n} of the north" for n in range(200)],
    [*(f"a long name {n} here" for n in range(198)), "a…1", "…12"],  # as cut names look
]


@pytest.mark.parametrize("names", MANY)
@pytest.mark.parametrize("length", [3, 4, 5, 8, 16, 24])
def test_two_hundred_names_stay_different(names, length):
    assert len({style.shorten(name, length, names) for name in names}) == 200


def test_untested_classes_are_named_apart_below_the_confusion_matrix():
    names = [f"{'a long beginning of a name ' * 3}{n} and its end" for n in range(3)]
    figure = errors.confusion_matrix(np.diag([5, 0, 0]), names, TITLE)
    note = " ".join(words(figure).split())
    untested = note.partition("Not tested: ")[2].partition(".")[0].split(", ")
    assert len(set(untested)) == 2


def test_names_that_differ_stay_different_in_every_figure():
    number = len(PLANTS)
    matrix = np.arange(number**2).reshape(number, number)
    figure = errors.confusion_matrix(matrix, PLANTS, TITLE)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert len({label.get_text() for label in axis.get_ticklabels()}) == number
    table = pd.DataFrame(
        {"class": PLANTS, "precision": 0.5, "recall": 0.4, "f1": 0.45, "support": 9}
    )
    bars = errors.per_class_bars(table, TITLE)
    counts = exploration.class_counts({"train": [3] * number}, PLANTS, TITLE)
    for drawn in (bars, counts):
        assert len({label.get_text() for label in drawn.axes[0].get_yticklabels()}) == number
    images = np.zeros((number, 3, 8, 8), np.uint8)
    means = exploration.mean_pictures(images / 255, PLANTS, TITLE)
    captions = [text.get_text() for text in means.axes[0].texts]
    assert len(set(captions)) == number


def test_a_class_without_test_pictures_is_not_tested_and_not_the_weakest():
    table = pd.DataFrame(
        {"class": ["red", "green", "blue"], "precision": [0.8, 0, 0.9], "recall": [0.7, 0, 0.9],
         "f1": [0.75, 0, 0.9], "support": [5, 0, 5]}
    )  # fmt: skip
    figure = errors.per_class_bars(table, TITLE)
    check(figure)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["red", "blue", "green"]
    assert words(figure).count("not tested") == 1
    assert "(0)" not in words(figure)
    matrix = np.array([[3, 1, 1], [0, 0, 0], [0, 0, 5]])
    confused = errors.confusion_matrix(matrix, ["red", "green", "blue"], TITLE)
    assert "Not tested: green." in words(confused)


@pytest.fixture
def foreign_font(tmp_path):
    """A font of this machine that has one character more than the house's."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib.font_manager import fontManager

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1_000)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord("\u6f22"): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "square": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Foreign", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "foreign.ttf")
    before = list(fontManager.ttflist)
    style.fonts_with.cache_clear()
    fontManager.ttflist = [font for font in before if font.name.startswith(("DejaVu", "Last"))]
    fontManager.addfont(tmp_path / "foreign.ttf")
    yield
    fontManager.ttflist = before
    style.fonts_with.cache_clear()


def test_fonts_of_the_machine_take_over_where_the_house_s_lacks_a_script(foreign_font, capsys):
    figure = exploration.class_counts({"train": [3, 4]}, ["\u6f22", "dog"], TITLE)
    render(figure)  # a character without a glyph would warn
    foreign = [t for t in figure.findobj(Text) if "\u6f22" in t.get_text()]
    assert foreign and all(t.get_fontfamily() == [style.FONT, "Foreign"] for t in foreign)
    dog = [t for t in figure.findobj(Text) if t.get_text() == "dog"]
    assert dog and all("Foreign" not in t.get_fontfamily() for t in dog)
    assert capsys.readouterr().out == ""


def test_names_are_shortened_by_the_fonts_that_they_are_written_in(foreign_font):
    classes = ["\u6f22" * 40, "dog"]
    figure = exploration.mean_pictures(np.zeros((2, 3, 8, 8)), classes, TITLE)
    render(figure)  # measuring a character without a glyph would warn, too
    texts = [t for t in figure.findobj(Text) if "\u6f22" in t.get_text()]
    assert texts and all(t.get_text().endswith("…") for t in texts)
    widths = [t.get_window_extent().width / figure.dpi for t in texts]
    tile = figure.axes[0].images[0].get_window_extent().width / figure.dpi
    assert all(0.8 * tile < width <= tile + 0.01 for width in widths)


def test_a_script_that_no_font_has_is_said_once(foreign_font, capsys):
    for _ in range(2):
        render(exploration.class_counts({"train": [3, 4]}, ["\u6f22\u5b57", "dog"], TITLE))
    assert capsys.readouterr().out.count("No font on this machine has \u5b57") == 1
