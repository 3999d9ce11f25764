"""The one look of every figure: fonts, colours, headings, and sheets of small pictures.

A public plotting function is decorated with `@styled` and starts from `new_figure`, `TileSheet`
or `message_figure`. Figures are plain `Figure` objects, not pyplot's: pyplot keeps every figure
it makes, and a notebook would show each of them twice.
"""

import re
import textwrap
from collections import Counter
from functools import cache, wraps
from itertools import pairwise, takewhile
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patches import Rectangle
from matplotlib.rcsetup import cycler
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from utils import NOT_PLAIN, as_percent, counted

WIDTH = 9.0  # inches; about the width of a README
MARGIN = 0.08  # inches
DPI = 120
SMALL, NORMAL, LARGE = 8.5, 9.5, 12.0  # font sizes in points; nothing is smaller than SMALL

INK = "#222222"
MUTED = "#595959"
FAINT = "#9a9a9a"
GRID = "#e2e2e2"

# Two curves that are compared differ in colour, lightness, marker and line style.
TRAIN = {"color": "#3f90da", "marker": "o", "linestyle": "-"}
WATCHED = {"color": "#a31a01", "marker": "s", "linestyle": "--"}
BEST = {
    "color": "#ffa90e",
    "marker": "*",
    "markersize": 15,
    "markeredgecolor": INK,
    "linestyle": "none",
    "zorder": 5,
}

# M. Petroff, "Accessible Color Sequences for Data Visualization" (2021), the sequence of ten.
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip

FONT = "DejaVu Sans"  # comes with matplotlib: the same on every machine
LAST_RESORT = "Last Resort High-Efficiency"  # comes with it, too: it has a box for everything
STYLE: dict[Any, Any] = {  # matplotlib's own type of the keys is not in all its versions
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
    "font.size": NORMAL,
    "axes.labelsize": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.edgecolor": MUTED,
    "axes.facecolor": "white",
    "axes.labelcolor": INK,
    "figure.constrained_layout.h_pad": MARGIN,
    "figure.constrained_layout.w_pad": MARGIN,
    "figure.facecolor": "white",
    "figure.titlesize": LARGE,
    "figure.titleweight": "normal",
    "figure.labelweight": "normal",
    "figure.labelsize": SMALL,
    "hatch.linewidth": 1.0,
    "legend.fontsize": NORMAL,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


def styled(draw):
    """Give a function the house's style while it runs, and its figure fonts for every script.

    The figure's label becomes what `described` says of it.
    """

    @wraps(draw)
    def drawn(*arguments, **keywords):
        with mpl.rc_context(STYLE):
            made = draw(*arguments, **keywords)
        if isinstance(made, Figure):
            use_fonts_of_every_script(made)
            made.set_label(described(made))
        return made

    return drawn


def described(figure):
    """Return what a figure shows, on a line, to those who cannot see it.

    That is its heading and note, what stands on its axes, and the legends with their figures.
    """
    parts = [figure.get_label()]
    for panel in figure.axes:
        names = [panel.get_ylabel(), panel.get_xlabel()]
        axes = " against ".join(filter(None, names))
        legend = panel.get_legend()
        shown = "; ".join(text.get_text() for text in legend.get_texts()) if legend else ""
        parts.append(": ".join(filter(None, (axes, shown))))
        pictures = sum(image.get_array().ndim == 3 for image in panel.images)  # others are tables
        if pictures:
            parts.append(counted(pictures, "small picture"))
    lines = dict.fromkeys(on_one_line(part) for part in parts if part)
    sentences = (f"{line[0].upper()}{line[1:].rstrip('.')}." for line in lines)
    return NOT_PLAIN.sub("", " ".join(sentences).replace(r"\$", "$"))


def use_fonts_of_every_script(figure):
    """Have this machine's other fonts take over where the house's font lacks a character."""
    for text in figure.findobj(Text):
        fonts = fonts_for(text.get_text())
        if len(fonts) > 1:
            text.set_fontfamily(fonts)


def fonts_for(text):
    """Return the names of the house's font and of those that have what it lacks of a text."""
    missing = frozenset(filter(str.isprintable, text)) - characters_of(findfont(FONT))
    return [FONT, *fonts_with(missing)]


@cache
def characters_of(file):
    """Return the characters that a font file has, as a frozen set."""
    return frozenset(map(chr, get_font(file).get_charmap()))


@cache
def fonts_with(wanted):
    """Return the names of the fewest installed fonts that have all these characters together.

    Says so, once, where some character is in none.
    """
    upright = [font for font in fontManager.ttflist if font.style == "normal"]
    files = {font.name: font.fname for font in sorted(upright, key=lambda f: (f.name, f.fname))}
    boxes = [LAST_RESORT] * (files.pop(LAST_RESORT, None) is not None)
    found = []
    while wanted:
        has = {name: wanted & characters_of(file) for name, file in files.items()}
        best = max(has, key=lambda name: len(has[name]))
        if not has[best]:
            few = " ".join(sorted(wanted)[:10])
            print(f"No font on this machine has {few}. Install one, such as Noto Sans, to see it.")
            found += boxes
            break
        found.append(best)
        wanted -= has[best]
    return tuple(found)


def class_colour(index, number_of_classes):
    """Return the colour of class `index`, an RGBA tuple, the same in all figures of a data set.

    Up to ten classes have colours of their own; more than ten are spread over one colour map.
    """
    if number_of_classes <= len(PALETTE):
        return mpl.colors.to_rgba(PALETTE[index])
    # The lightest end of the map would not show on white.
    return mpl.colormaps["viridis"](0.9 * index / (number_of_classes - 1))


def plain(text):
    """Return `text` on one line, its dollar signs escaped: to matplotlib they are mathematics."""
    return on_one_line(text).replace("$", r"\$")


def cut_end(name, length):
    """Return `name` in at most `length` characters, the last one an ellipsis if it was cut."""
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def cut_middle(name, length):
    """Return `name` in at most `length` characters, with its beginning and its end."""
    tail = (length - 1) // 2
    return name if len(name) <= length else name[: length - 1 - tail] + "…" + name[-tail:]


def cut_start(name, length):
    """Return `name` in at most `length` characters, with its end."""
    return name if len(name) <= length else "…" + name[1 - length :].lstrip()


@cache
def own_parts(names):
    """Return by name its rest from the word on in which it differs from all the others.

    Args:
        names: sorted, so that a name is most like one of its neighbours.
    """
    shared = []
    for pair in pairwise(names):
        alike = takewhile(lambda two: two[0] == two[1], zip(*pair, strict=False))
        shared.append(len(list(alike)))
    likest = map(max, zip([0, *shared], [*shared, 0], strict=True))
    return {
        name: re.sub(r"^.*[\W_]", "", name[:length]) + name[length:]
        for name, length in zip(names, likest, strict=True)
    }


@cache
def cut_apart(names, length):
    """Return names by name, each cut to at most `length` characters such that all stay different.

    A name keeps its beginning where that will do, or its beginning and end, or its end, or else
    begins with the word that tells it from the others. What no cut tells apart is numbered, and
    longer where the number takes more.
    """
    cut, rest = {}, own_parts(names)

    def cut_shared(name, length):
        return cut_end(f"…{rest[name]}", length)

    for shorter in (cut_end, cut_middle, cut_start, cut_shared):
        made = {name: shorter(name, length) for name in names if name not in cut}
        times = Counter([*cut.values(), *made.values()])
        cut |= {name: short for name, short in made.items() if times[short] == 1}
    number, taken = 0, set(cut.values())
    for name in [name for name in names if name not in cut]:
        while name not in cut or cut[name] in taken:  # a name may itself end in "…1"
            number += 1
            mark = f"…{number}"
            cut[name] = name[: max(length - len(mark), 0)] + mark
        taken.add(cut[name])
    return cut


def on_one_line(text):
    return " ".join(str(text).split())


def shorten(name, length=18, among=()):
    """Return `name` cut to at most `length` characters, different from the others of `among`."""
    name = on_one_line(name)
    names = tuple(dict.fromkeys((name, *map(on_one_line, among))))
    return plain(cut_apart(tuple(sorted(names)), length)[name])


def characters(inches, size=SMALL):
    """Return how many characters of `size` points are sure to fit into a line of these inches."""
    return max(4, int(inches * 72 / (0.62 * size)))


@styled
def shorten_to_width(name, inches, before="", after="", among=()):
    """Return `name` between two texts, shortened until it all fits into `inches` at size SMALL.

    It stays different from the other names of `among`.
    """
    font = FontProperties(family=fonts_for(f"{before}{name}{after}…"), size=SMALL)
    for length in range(max(len(str(name)), 3), 2, -1):
        line = f"{before}{shorten(name, length, among)}{after}"
        width, _, _ = text_to_path.get_text_width_height_descent(line, font, ismath=False)
        if width <= 72 * inches:
            break
    return line


def percent(share, digits=0):
    """Return a share of one in the figures' spelling: 0.934 is "93 %", 0.9998 is "99.98 %"."""
    return as_percent(share, digits, " %")


def some_of(shown, total, what="classes"):
    """Return a note that a figure does not show everything; empty where it does."""
    return f"{shown} of {total} {what} shown." if shown < total else ""


def wrapped(text, width, size):
    return "\n".join(textwrap.wrap(text, characters(width, size)))


def head_and_foot(figure, title, dataset_title, note):
    """Write the title with the data set's name under it, and the note at the bottom.

    Where a name takes more than its line, the figure grows, so that the panels do not shrink.
    """
    width = figure.get_figwidth() - 2 * MARGIN
    left = MARGIN / figure.get_figwidth()
    lines = [wrapped(plain(text), width, LARGE) for text in (title, dataset_title)]
    heading = "\n".join(lines)
    figure.set_figheight(figure.get_figheight() + 0.22 * (heading.count("\n") - 1))
    figure.suptitle(heading, x=left, ha="left", linespacing=1.25)
    figure.set_label(" ".join(filter(None, (f"{title.rstrip('?')}, {dataset_title}.", note))))
    if note:
        figure.supxlabel(wrapped(plain(note), width, SMALL), x=left, ha="left", color=MUTED)


def dress(axes):
    """Set what matplotlib would otherwise look up when it draws, after the style has ended."""
    axes.tick_params(which="both", labelsize=SMALL, labelcolor=INK, color=MUTED, width=0.8)
    axes.tick_params(which="major", length=3.5, pad=3.5)
    axes.tick_params(which="minor", length=2)
    axes.grid(True, color=GRID, linewidth=0.8, linestyle="-", alpha=1.0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def new_figure(
    title, dataset_title, rows=1, columns=1, *, width=WIDTH, height=4.4, note="", **subplots
):
    """Return an empty figure with its heading, and its axes as `Figure.subplots` returns them.

    `width` and `height` are inches; `note` is a line of small print under the panels; further
    keywords go to `Figure.subplots`.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, **subplots)
    for panel in np.atleast_1d(axes).flat:
        dress(panel)
    head_and_foot(figure, title, dataset_title, note)
    return figure, axes


def message_figure(title, dataset_title, message):
    """Return a figure that says in words why there is nothing to draw."""
    figure, axes = new_figure(title, dataset_title, height=1.8)
    axes.axis("off")
    text = wrapped(plain(message), WIDTH - 1, LARGE)
    axes.text(0.5, 0.5, text, ha="center", va="center", size=LARGE, color=MUTED)
    figure.set_label(f"{figure.get_label()} {message}")
    return figure


def legend_above(axes, columns=3, **keywords):
    """Draw a legend between heading and panel, where it cannot cover data."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.6, **keywords
    )


def integer_ticks(axis, at_most=12):
    """Set ticks at whole numbers only, on an axis that counts epochs or pictures."""
    axis.set_major_locator(MaxNLocator(nbins=at_most, integer=True, min_n_ticks=1))


def plain_log_ticks(axis, low, high):
    """Set plain numbers as ticks of a logarithmic axis: decades, or 1-2-5 where there are few."""
    subs = (1.0,) if high / low > 1000 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def limit_top(axes, strong, faint):
    """End the y axis above the `strong` curves, so that single spikes of `faint` do not rule it.

    Return whether some of `faint` is cut off.
    """
    strong, faint = (np.asarray(values, dtype=float) for values in (strong, faint))
    strong, faint = strong[np.isfinite(strong)], faint[np.isfinite(faint)]
    candidates = [strong.max()] if strong.size else []
    if faint.size:
        candidates.append(np.percentile(faint, 98))
    if not candidates or not (faint > 1.5 * max(candidates)).any():
        return False
    axes.set_ylim(top=1.1 * max(candidates))
    return True


def channels_last(image):
    """Return a picture, 3×H×W, as matplotlib wants it: H×W×3."""
    return np.moveaxis(np.asarray(image), 0, -1)


class TileSheet:
    """Small square pictures in rows and columns on one panel, whose coordinates are inches.

    One panel for all of them: a hundred axes, one a picture, would take seconds to lay out.

    Args:
        rows, columns: how many tiles.
        title, dataset_title, note: as for `new_figure`.
        label: inches kept free at the left, for the names of rows.
        header: inches kept free above the first row, for the names of columns.
        caption: inches kept free above each row.
        breaks: columns with a wider gap before them.
        side: inches kept free at the right, for a colour bar.
        largest: inches that a tile may measure at most.
    """

    GAP, WIDE_GAP, NARROWEST = 0.07, 0.25, 6.5

    def __init__(
        self,
        rows,
        columns,
        title,
        dataset_title,
        *,
        note="",
        label=0.0,
        header=0.0,
        caption=0.0,
        breaks=(),
        side=0.0,
        largest=1.72,
    ):
        self.label, self.header, self.caption, self.breaks = label, header, caption, breaks
        gaps = (columns - 1) * self.GAP + len(breaks) * self.WIDE_GAP
        self.tile = min(largest, (WIDTH - 2 * MARGIN - label - side - gaps) / columns)
        width = label + columns * self.tile + gaps
        height = self.top(rows) - caption
        figure_width = max(width + side + 2 * MARGIN, self.NARROWEST)
        note_lines = len(textwrap.wrap(note, characters(figure_width - 2 * MARGIN, SMALL)))
        self.figure, self.axes = new_figure(
            title,
            dataset_title,
            width=figure_width,
            height=height + 0.75 + 0.25 * note_lines,
            note=note,
        )
        self.axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", anchor="NW")
        self.axes.axis("off")

    def left(self, column):
        wide = self.WIDE_GAP * sum(column >= first for first in self.breaks)
        return self.label + column * (self.tile + self.GAP) + wide

    def top(self, row):
        return self.header + row * (self.tile + self.GAP + self.caption) + self.caption

    def picture(self, row, column, image):
        """Draw `image`, H×W×3, uint8 or floats in 0..1, pixel by pixel."""
        left, top = self.left(column), self.top(row)
        extent = (left, left + self.tile, top + self.tile, top)
        tile = self.axes.imshow(image, extent=extent, interpolation="nearest")
        tile.set_in_layout(False)

    def write(self, x, y, text, size, **alignment):
        """Write at a place in inches; the sheet has the room, so the layout need not measure."""
        self.axes.text(x, y, text, size=size, in_layout=False, **alignment)

    def name_row(self, row, text, colour=None):
        """Write `text` left of a row, with a swatch of the class colour if one is given."""
        top, right = self.top(row), self.label - 0.1
        if colour is not None:
            swatch = Rectangle((right - 0.08, top), 0.08, self.tile, color=colour)
            self.axes.add_patch(swatch)
            right -= 0.16
        self.write(right, top + self.tile / 2, text, NORMAL, ha="right", va="center")

    def name_column(self, column, text):
        """Write `text` in the header, centred over a column."""
        centre = self.left(column) + self.tile / 2
        self.write(centre, self.header - 0.06, text, NORMAL, ha="center", va="bottom")

    def write_caption(self, row, column, text):
        """Write `text` over the tile, flush with its left edge."""
        self.write(self.left(column), self.top(row) - 0.05, text, SMALL, ha="left", va="bottom")
