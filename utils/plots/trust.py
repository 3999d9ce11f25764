"""Figures of what class activation maps are worth."""

import matplotlib as mpl
import numpy as np

from utils.plots.style import MUTED, NORMAL, SMALL, message_figure, new_figure, styled

COLUMNS = 4
#: How the measures begin that a map passes or fails, and from where on it passes.
CHECKS, PASSES = ("class", "weights"), 0.5


@styled
def scores_by_measure(table, dataset_title, network):
    """Draw every measure's mean as a small heat map, methods by blocks, over what knows nothing.

    Args:
        table: DataFrame with columns method, block (empty for a baseline), measure, mean and n.
        dataset_title: how figures name the data.
        network: name of the network that was asked.
    """
    title = f"What the maps of {network} are worth, by measure"
    if not len(table):
        return message_figure(title, dataset_title, "There are no measurements to show.")
    measures = list(dict.fromkeys(table["measure"]))
    has_block = table["block"] != ""
    blocks = list(dict.fromkeys(table["block"][has_block]))
    methods = list(dict.fromkeys(table["method"][has_block]))
    known = list(dict.fromkeys(table["method"][~has_block]))
    across, down = min(COLUMNS, len(measures)), -(-len(measures) // COLUMNS)
    height = 0.19 * (len(methods) + len(known)) + 0.75
    note = (
        "Means over n pictures. Colours run from the lowest to the highest of each panel, higher "
        f"being better; those of class and weights only tell what passes ({PASSES} or more, light) "
        "from what fails (dark). Below the line: maps that know nothing of the network, and the "
        f"object's mask where it is known. Empty: not measured.{_on_fewer(table)}"
    )
    figure, axes = new_figure(
        title,
        dataset_title,
        down,
        across,
        width=2.0 + 0.5 * across * max(len(blocks), 4),
        height=1.3 + height * down,
        note=note,
        squeeze=False,
    )
    for place, panel in enumerate(axes.flat):
        if place >= len(measures):
            panel.set_axis_off()
            continue
        rows = table[table["measure"] == measures[place]].set_index(["method", "block"])["mean"]
        cells = [[rows.get((method, block), np.nan) for block in blocks] for method in methods]
        cells += [[rows.get((name, ""), np.nan)] * len(blocks) for name in known]
        is_check = measures[place].startswith(CHECKS)
        _draw_panel(panel, np.array(cells, float), len(methods), is_check)
        count = table["n"][table["measure"] == measures[place]].max()
        panel.set_title(f"{measures[place]}, n = {count:,}", size=NORMAL)
        panel.set_xticks(range(len(blocks)), blocks, size=SMALL)
        names = [*methods, *known] if place % across == 0 else []
        panel.set_yticks(range(len(methods) + len(known)) if names else [], names, size=SMALL)
    return figure


def _on_fewer(table):
    """Return which methods were measured on fewer pictures than n, and on how many; or nothing."""
    most = table.groupby("measure")["n"].transform("max")
    fewer = table[(table["n"] < 0.5 * most) & (table["block"] != "")]
    if not len(fewer):
        return ""
    counts = sorted(set(zip(fewer["n"], most[fewer.index], strict=True)), reverse=True)
    told = ", ".join(f"{few:,} for {n:,}" for few, n in counts)
    return f" On fewer pictures: {' and '.join(dict.fromkeys(fewer['method']))}, {told}."


def _draw_panel(panel, cells, number_of_methods, is_check):
    colours = mpl.colormaps["viridis"]
    low, high = (np.nanmin(cells), np.nanmax(cells)) if np.isfinite(cells).any() else (0, 1)
    shown = cells
    if is_check:  # between two colours of the scale, there is nothing to rank
        low, high = 0.0, 2 * PASSES
        shown = np.where(np.isnan(cells), np.nan, np.where(cells < PASSES, 0.2, 0.75) * high)
    panel.imshow(shown, cmap=colours, vmin=low, vmax=high, aspect="auto")
    for row, column in zip(*np.nonzero(np.isfinite(cells)), strict=True):
        is_baseline = row >= number_of_methods
        if is_baseline and column:
            continue
        value = cells[row, column]
        number = f"{value:z.2f}"  # z: no minus before a zero
        is_dark = value < (low + high) / 2
        middle = (cells.shape[1] - 1) / 2 if is_baseline else column
        panel.text(
            middle, row, number, ha="center", va="center", size=SMALL,
            color="white" if is_dark else "black",
        )  # fmt: skip
    panel.axhline(number_of_methods - 0.5, color=MUTED, linewidth=2)
    panel.grid(False)
    panel.tick_params(length=0)
