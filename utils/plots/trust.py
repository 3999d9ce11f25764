"""Figures of what class activation maps are worth."""

import matplotlib as mpl
import numpy as np

from utils.plots.style import GRID, NORMAL, SMALL, message_figure, new_figure, styled

COLUMNS = 4


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
        "Means over n pictures; colours run from the lowest to the highest of each panel. Higher "
        "is better, but for class and weights, where 0.5 passes. Below the line: maps that know "
        "nothing of the network, and the object's mask where it is known. Empty: not measured."
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
        _draw_panel(panel, np.array(cells, float), len(methods))
        count = table["n"][table["measure"] == measures[place]].max()
        panel.set_title(f"{measures[place]}, n = {count:,}", size=NORMAL)
        panel.set_xticks(range(len(blocks)), blocks, size=SMALL)
        names = [*methods, *known] if place % across == 0 else []
        panel.set_yticks(range(len(methods) + len(known)) if names else [], names, size=SMALL)
    return figure


def _draw_panel(panel, cells, number_of_methods):
    colours = mpl.colormaps["viridis"]
    low, high = (np.nanmin(cells), np.nanmax(cells)) if np.isfinite(cells).any() else (0, 1)
    panel.imshow(cells, cmap=colours, vmin=low, vmax=high, aspect="auto")
    for row, column in zip(*np.nonzero(np.isfinite(cells)), strict=True):
        is_baseline = row >= number_of_methods
        if is_baseline and column:
            continue
        value = round(cells[row, column], 2) + 0.0  # no minus before a zero
        is_dark = value < (low + high) / 2
        middle = (cells.shape[1] - 1) / 2 if is_baseline else column
        panel.text(
            middle, row, f"{value:.2f}", ha="center", va="center", size=SMALL,
            color="white" if is_dark else "black",
        )  # fmt: skip
    panel.axhline(number_of_methods - 0.5, color=GRID, linewidth=2)
    panel.grid(False)
    panel.tick_params(length=0)
