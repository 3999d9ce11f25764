"""The drawing of a network in notebook 03: its blocks, their layers, and what they hand on."""

import math

from matplotlib.patches import FancyBboxPatch, Rectangle

from utils.plots.style import (
    INK,
    MARGIN,
    MUTED,
    NORMAL,
    SMALL,
    WIDTH,
    characters,
    message_figure,
    new_figure,
    shorten,
    styled,
)

#: Inches: the tallest map, a line of text, and a layer's box with the gap under it.
MAP, LINE, ROW = 0.85, 0.19, 0.27
#: How far each of a stack's sheets lies behind the one before it, in inches.
SHEET = 0.025
#: Box and text of what learns in a layer, most of it darkest, so that grey tells them apart, too.
LEARNED, FIXED = ("#2f6f9f", "white"), ("white", INK)
NORMALISED = ("#bcd9f0", INK)


@styled
def blocks(stages, image_size, name, dataset_title):
    """Draw a network from left to right: the maps each block hands on, above the block's layers.

    Args:
        stages: blocks in forward order, with attributes `name`; `layers`, names of layers in
            order; `skips`, pairs of positions in it, of the first layer that an input bypasses and
            the last; `channels` and `side` of the map that it hands on, `side` being None for plain
            numbers; and `parameters`, their number.
        image_size: side of the input in pixels.
        name: of the network.
        dataset_title: how figures name the data.
    """
    title = f"{name} from the picture to the logits"
    if not stages:
        return message_figure(title, dataset_title, "There are no blocks to draw.")
    rows = max(len(stage.layers) + len(stage.skips) for stage in stages)
    width, height = WIDTH - 2 * MARGIN, MAP + 0.4 + 4 * LINE + rows * ROW
    note = (
        "A square's side is that of the maps a block hands on, and each sheet behind it a doubling "
        "of their number. Blue layers have parameters, dark ones nearly all of them; a line past "
        "layers adds their input back."
    )
    figure, axes = new_figure(title, dataset_title, width=WIDTH, height=height + 1.2, note=note)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", anchor="NW")
    axes.axis("off")
    column = width / (len(stages) + 1)
    draw_maps(axes, column / 2, 3, image_size, image_size)
    write_under(axes, column / 2, column, "picture", ["3 channels", f"{image_size}×{image_size}"])
    for place, stage in enumerate(stages, start=1):
        centre = (place + 0.5) * column
        arrow(
            axes, (centre - 0.62 * column, MAP / 2 + 0.2), (centre - 0.42 * column, MAP / 2 + 0.2)
        )
        draw_maps(axes, centre, stage.channels, stage.side, image_size)
        write_under(axes, centre, column, stage.name, size_in_words(stage, len(stages) > 5))
        draw_layers(axes, centre, column, stage)
    return figure


def size_in_words(stage, is_narrow):
    counted = f"{stage.parameters:,} parameters" if stage.parameters else "nothing learned"
    if is_narrow and stage.parameters >= 1e6:
        counted = f"{stage.parameters / 1e6:.2f} M parameters"
    if stage.side is None:
        return [f"{stage.channels:,} logits", "", counted]
    return [f"{stage.channels:,} channels", f"{stage.side}×{stage.side}", counted]


def draw_maps(axes, centre, channels, side, image_size):
    """Draw a stack of squares, or for plain numbers a bar."""
    tall = MAP * (side or image_size) / image_size
    wide = tall if side else 0.16
    sheets = max(1, round(math.log2(channels))) if side else 1
    left, top = centre - (wide + SHEET * (sheets - 1)) / 2, (MAP - tall) / 2 + 0.2
    for behind in reversed(range(sheets)):
        corner = left + SHEET * behind, top - SHEET * behind
        face = "#d9e8f5" if behind == 0 else "white"
        box = Rectangle(corner, wide, tall, facecolor=face, edgecolor=MUTED)
        axes.add_patch(box)


def write_under(axes, centre, column, name, lines):
    """Write a block's name under its maps, and what is to be said of it."""
    axes.text(
        centre,
        MAP + 0.4,
        shorten(name, characters(column, NORMAL)),
        size=NORMAL,
        weight="bold",
        ha="center",
        va="center",
    )
    for number, line in enumerate(lines, start=1):
        axes.text(centre, MAP + 0.4 + number * LINE, line, size=SMALL, ha="center", va="center")


def draw_layers(axes, centre, column, stage):
    """Draw a box a layer from top to bottom, and a line past those whose input is added back."""
    adds = {last: first for first, last in stage.skips}
    tops, row = [], 0
    for number, layer in enumerate(stage.layers):
        tops.append(draw_layer(axes, centre, column, row, layer))
        row += 1
        if number in adds:
            top = draw_layer(axes, centre, column, row, "add input")
            bypass(axes, centre + 0.41 * column, tops[adds[number]], top, 0.07 * column)
            row += 1


def draw_layer(axes, centre, column, row, layer):
    """Draw a layer's box and return the height of its top."""
    wide, top = 0.82 * column, MAP + 0.4 + 3.8 * LINE + row * ROW
    face, ink = look_of(layer)
    box = FancyBboxPatch(
        (centre - wide / 2, top),
        wide,
        ROW - 0.06,
        boxstyle="round,pad=0,rounding_size=0.05",
        facecolor=face,
        edgecolor=MUTED,
        linewidth=0.8,
    )
    axes.add_patch(box)
    text = shorten(layer, characters(wide, SMALL))
    axes.text(
        centre,
        top + (ROW - 0.06) / 2,
        text,
        size=SMALL,
        color=ink,
        ha="center",
        va="center_baseline",
    )
    return top


def look_of(layer):
    if layer.startswith(("conv", "linear", "residual", "separable")):
        return LEARNED
    return NORMALISED if "norm" in layer else FIXED


def bypass(axes, edge, start, end, out):
    """Draw a line at the right of the boxes, from above one to the middle of another."""
    start, end = start - 0.03, end + (ROW - 0.06) / 2
    axes.plot([edge, edge + out, edge + out], [start, start, end], color=INK, linewidth=1.2)
    arrow(axes, (edge + out, end), (edge, end))


def arrow(axes, start, end):
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)
