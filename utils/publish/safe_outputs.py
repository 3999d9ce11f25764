"""Outputs of a run's cells, rebuilt so that nothing in them can act when shown or published.

A run's folder may come from anywhere. Text, tables and PNG pictures are read and written anew; what
a browser or Sphinx could execute, follow or fetch (HTML, JavaScript, SVG, LaTeX, widgets,
directives) is none of these.
"""

import ast
import base64
import html
import re
from collections import Counter
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from io import BytesIO
from itertools import takewhile

from markdown_it import MarkdownIt
from markdown_it.token import Token
from nbformat import NotebookNode
from nbformat.v4 import new_output
from PIL import Image

from utils import NOT_PLAIN, escape_markdown, printable

#: Characters that one text or table may have, and bytes and pixels that one picture may have.
MOST_OF_A_TEXT, MOST_OF_A_PICTURE, MOST_PIXELS = 200_000, 20_000_000, 40_000_000
#: What has more colours than this is no chart.
COLOURS_OF_A_CHART = 4_096
#: Characters that may say what a picture shows.
MOST_OF_AN_ALT = 1_000
#: Widest that a picture may ask to be shown, in pixels.
WIDEST = 2_000


def safe_outputs(
    outputs: Iterable[NotebookNode], rewritten: Callable[[str], str], pages: Iterable[str]
) -> tuple[list[NotebookNode], Counter]:
    """Return a code cell's outputs, rebuilt, and how many of which kind were left out.

    Args:
        outputs: as nbformat reads them.
        rewritten: makes of text what is to be shown in its place, such as shorter paths.
        pages: addresses that links may lead to.

    Returns:
        outputs that hold text, Markdown, tables and PNG pictures alone, each in one form; and
        counts by MIME type, or by the kind of output where it has none.
    """
    rebuild = {
        "image/png": lambda png: base64.b64encode(smaller_picture(_decoded(png))).decode(),
        "text/html": lambda text: safe_table(rewritten(text)),
        "text/markdown": lambda text: safe_markdown(rewritten(text), pages),
        "text/plain": lambda text: safe_text(rewritten(text)),
    }
    kept, left_out = [], Counter()
    for output in outputs:
        if output.output_type == "stream":
            try:
                text = safe_text(rewritten(output.text))
                name = "stderr" if output.name == "stderr" else "stdout"
                kept.append(new_output("stream", name=name, text=text))
            except ValueError:
                left_out["text/plain"] += 1
            continue
        data = output.get("data", {})
        left_out.update(kind for kind in data if kind not in rebuild)
        if output.output_type not in ("display_data", "execute_result"):
            left_out[output.output_type] += 1
        for kind in rebuild:  # the richest form that can be rebuilt
            if kind not in data:
                continue
            try:
                safe = {kind: rebuild[kind](data[kind])}
            except Exception:  # whatever a damaged picture makes of its decoder
                left_out[kind] += 1
                continue
            kept.append(new_output("display_data", safe, metadata=_size(output, kind)))
            break
    return kept, left_out


def _decoded(png: str) -> bytes:
    if len(png) > 2 * MOST_OF_A_PICTURE:
        raise ValueError("it is too large")
    return base64.b64decode(png)


def _size(output: NotebookNode, kind: str) -> dict:
    """Return what a picture's output says of its width and of what it shows, if that is plain."""
    about = output.get("metadata", {}).get(kind)
    if kind != "image/png" or not isinstance(about, dict):
        return {}
    width, alt = about.get("width"), about.get("alt")
    size = {}
    if isinstance(alt, str) and 0 < len(alt) <= MOST_OF_AN_ALT and not NOT_PLAIN.search(alt):
        size["alt"] = alt
    if type(width) is int and 0 < width <= WIDEST:
        size["width"] = width
    return {kind: size}


def safe_text(text: str) -> str:
    """Return text without control characters, which a terminal or a browser might obey.

    Raises:
        ValueError: it is longer than ``MOST_OF_A_TEXT``.
    """
    if len(text) > MOST_OF_A_TEXT:
        raise ValueError("it is too long")
    return printable(text.expandtabs())


def smaller_picture(png: bytes) -> bytes:
    """Return a PNG file's pixels, and nothing else of it, in as small a PNG file as shows the same.

    A chart has few colours and is kept with 256 of them; what holds photographs or maps keeps all.

    Raises:
        ValueError: it has more than ``MOST_OF_A_PICTURE`` bytes or ``MOST_PIXELS`` pixels.
        OSError: it is not a PNG file, or is damaged.
    """
    if len(png) > MOST_OF_A_PICTURE:
        raise ValueError(f"it has more than {MOST_OF_A_PICTURE:,} bytes")
    with Image.open(BytesIO(png), formats=("PNG",)) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError(f"it has more than {MOST_PIXELS:,} pixels")
        picture = opened.convert("RGB")
    picture.info = {}  # a colour profile would be written again
    if picture.getcolors(COLOURS_OF_A_CHART):
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    made = BytesIO()
    picture.save(made, format="PNG", optimize=True)
    return made.getvalue()


# Tables


def safe_table(text: str) -> str:
    """Return an HTML table as pandas writes it with rows and cells alone, their text escaped.

    Raises:
        ValueError: there is anything beside one plain table.
    """
    if len(text) > MOST_OF_A_TEXT:
        raise ValueError("it is too long")
    table = _Table()
    table.feed(text)
    if table.rawdata.strip() or table.tables != 1:
        raise ValueError("it is not one table")
    heads = len(list(takewhile(lambda row: all(tag == "th" for tag, _ in row), table.rows)))
    lines = ["<table>"]
    for part, rows in (("thead", table.rows[:heads]), ("tbody", table.rows[heads:])):
        lines += [f"<{part}>", *(f"<tr>{_cells(row)}</tr>" for row in rows), f"</{part}>"]
    return "\n".join([*lines, "</table>"])


def _cells(row: list[tuple[str, str]]) -> str:
    texts = [
        (tag, html.escape(printable(" ".join(text.split())), quote=False)) for tag, text in row
    ]
    return "".join(f"<{tag}>{text}</{tag}>" for tag, text in texts)


class _Table(HTMLParser):
    """Reads one table: `rows` of cells, each ``["th" or "td", text]``."""

    _KNOWN = frozenset(("div", "style", "table", "thead", "tbody", "tr", "th", "td"))

    def __init__(self):
        super().__init__()
        self.tables, self.rows, self._inside = 0, [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in self._KNOWN or {"colspan", "rowspan"} & dict(attrs).keys():
            raise ValueError(f"it holds <{tag}>")
        self._inside = tag
        if tag == "table":
            self.tables += 1
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append([tag, ""])

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside in ("th", "td"):
            self.rows[-1][-1][1] += data
        elif self._inside != "style" and data.strip():
            raise ValueError("it holds text beside a table")


# Markdown


#: Read as Markdown; all else in it is text.
_PARTS = ("backticks", "emphasis", "entity", "escape", "link", "newline")
_MARKS = {
    "strong_open": "**",
    "strong_close": "**",
    "em_open": "*",
    "em_close": "*",
    "link_open": "[",
    "softbreak": " ",
    "hardbreak": " ",
}


#: A block of Python, as `utils.as_code` writes it.
_PYTHON = re.compile(r"^(`{3,})python\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)


def safe_markdown(text: str, pages: Iterable[str], headings: bool = False) -> str:
    """Return Markdown with paragraphs, bold, italics, code and links alone; all else is text in it.

    A fenced block of what is Python stays one, and is no more than shown.

    Args:
        text: any Markdown.
        pages: addresses that links may lead to.
        headings: whether lines that begin with ``#`` are headings.

    Raises:
        ValueError: it is longer than ``MOST_OF_A_TEXT``.
    """
    reader = MarkdownIt("zero").enable([*_PARTS, *["heading"] * headings])
    allowed = frozenset(pages)
    reader.validateLink = lambda url: url in allowed
    text, parts, end = safe_text(text), [], 0
    for block in _PYTHON.finditer(text):
        if _is_python(block[2]):
            parts += [_paragraphs(text[end : block.start()], reader), _as_block(block[2])]
            end = block.end()
    parts.append(_paragraphs(text[end:], reader))
    return "\n\n".join(filter(None, parts))


def _as_block(source: str) -> str:
    """Return a fenced block that ends where `source` ends, whatever stands in it."""
    fence = "`" * (max([2, *map(len, re.findall("`+", source))]) + 1)
    return f"{fence}python\n{source}\n{fence}"


def _is_python(source: str) -> bool:
    """Tell whether `source` is Python: of what is not, the site's highlighting would complain."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _paragraphs(text: str, reader: MarkdownIt) -> str:
    lines, mark = [], ""
    for token in reader.parse(text):
        if token.type == "heading_open":
            mark = f"{token.markup} "
        elif token.type == "inline":
            lines.append(mark + _written(token.children or []))
            mark = ""
    return "\n\n".join(lines)


def _written(tokens: list[Token]) -> str:
    """Return a paragraph as one line of Markdown that MyST, CommonMark and GitHub read alike."""
    written, address = "", ""
    for token in tokens:
        if token.type == "link_open":
            address = token.attrGet("href")
        if token.type == "link_close":
            written += f"]({address})"
        elif token.type == "code_inline":
            written += _as_code(token.content)
        elif token.type in _MARKS:
            written += _MARKS[token.type]
        else:  # an entity may stand for any character
            written += escape_markdown(printable(re.sub(r"\s", " ", token.content)))
    # these begin a list, a comment, a rule or a fence at the start of a line, and only there
    return re.sub(r"^(\d*)([-+=%:.])", r"\1\\\2", written.strip())


def _as_code(text: str) -> str:
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text or text.startswith(" ") else ""  # which is no part of the code
    return f"{fence}{space}{text}{space}{fence}"
