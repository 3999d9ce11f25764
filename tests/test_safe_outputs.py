"""What a run puts out, written anew: honest outputs stay what they are, others cannot act."""

import base64
import re
import struct
import zlib
from io import BytesIO

import nbformat
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from nbformat.v4 import new_output
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from utils.pipeline.sequence import CHAPTERS
from utils.publish.safe_outputs import safe_markdown, safe_outputs, safe_table, smaller_picture

PAGES = {"03_training.ipynb", "../your_pictures.md", "../docs/your_pictures.md"}
TABLE = pd.DataFrame({"class": ["a < b", "c & d"], "share": [0.5, 0.25]})


def png(picture=None, **options):
    made = BytesIO()
    picture = picture or Image.linear_gradient("L").convert("RGB")
    picture.save(made, "PNG", **options)
    return made.getvalue()


def rebuilt(*outputs):
    return safe_outputs(outputs, str, PAGES)


def shown(data, **options):
    return new_output("display_data", data, **options)


# Pictures


def test_photographs_keep_their_colours_and_charts_get_few():
    ramp = Image.linear_gradient("L").resize((120, 90))
    photograph = png(Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))))
    kept = smaller_picture(photograph)
    with Image.open(BytesIO(photograph)) as before, Image.open(BytesIO(kept)) as after:
        assert np.array_equal(before, after)
    large = png(Image.linear_gradient("L").resize((900, 700)).convert("RGB"))
    chart = smaller_picture(large)
    with Image.open(BytesIO(chart)) as after:
        assert after.mode == "P" and after.size == (900, 700)
    assert len(chart) < len(large)


def test_of_a_picture_its_pixels_are_kept_and_nothing_else():
    about = PngInfo()
    about.add_text("Comment", "evil")
    content = png(pnginfo=about, icc_profile=b"evil" * 40, exif=b"Exif\0\0evil") + b"evil.zip"
    assert content.count(b"evil") > 2
    made = smaller_picture(content)
    assert b"evil" not in made
    assert set(re.findall(b"[A-Za-z]{4}", made)) >= {b"IHDR", b"IDAT", b"IEND"}
    assert b"iCCP" not in made and b"eXIf" not in made


def header(width, height):
    """A PNG file that says how large it is and then ends."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(b"IHDR" + body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + body + check


def jpeg():
    made = BytesIO()
    Image.new("RGB", (9, 9)).save(made, "JPEG")
    return made.getvalue()


NO_PICTURES = [b"", b"<svg/>", jpeg(), header(60_000, 60_000), header(9, 9), png()[:-200]]


@pytest.mark.parametrize("content", NO_PICTURES)
def test_what_is_no_png_picture_is_left_out(content):
    encoded = base64.b64encode(content).decode()
    kept, left_out = rebuilt(shown({"image/png": encoded, "text/plain": "<Image>"}))
    assert [output.data for output in kept] == [{"text/plain": "<Image>"}]
    assert left_out == {"image/png": 1}


def test_a_picture_of_too_many_bytes_is_left_out(monkeypatch):
    monkeypatch.setattr("utils.publish.safe_outputs.MOST_OF_A_PICTURE", 100)
    assert rebuilt(shown({"image/png": base64.b64encode(png()).decode()}))[1] == {"image/png": 1}


@pytest.mark.parametrize(
    ("about", "kept"),
    [
        ({"width": 900, "alt": "04 losses"}, {"width": 900, "alt": "04 losses"}),
        (
            {"alt": "An epoch's loss (±1): 93 %, 0.25."},
            {"alt": "An epoch's loss (±1): 93 %, 0.25."},
        ),
        ({"width": "9 onload=x", "alt": '"><script>', "class": "x"}, {}),
        ({"alt": 'a\n"onload`={{x}}[y]<b>&\x1b'}, {}),
        ({"alt": '"<>'}, {}),
        ({"width": True, "alt": ["x"], "height": 9}, {}),
        ({"width": 10**9, "alt": "x" * 1_001}, {}),
        ({"alt": "x" * 1_000}, {"alt": "x" * 1_000}),
        ("x", None),
    ],
)
def test_of_what_is_said_about_a_picture_width_and_name_are_kept(about, kept):
    data = {"image/png": base64.b64encode(png()).decode()}
    said = {"image/png": about, "mystnb": {"image": {"classes": "x"}}, "filenames": {"a": "/x"}}
    ((output,), _) = rebuilt(shown(data, metadata=said))
    assert output.metadata == ({} if kept is None else {"image/png": kept})


# Tables


@pytest.mark.parametrize("write", [pd.DataFrame._repr_html_, lambda table: table.style.to_html()])
def test_a_table_of_pandas_keeps_its_rows_and_cells(write):
    text = write(TABLE).replace("a < b", "a &lt; b")  # which a Styler does not escape
    made = safe_table(text)
    assert re.findall("<(t[hd])>(.*?)</", made) == [
        ("th", ""), ("th", "class"), ("th", "share"), ("th", "0"), ("td", "a &lt; b"),
        *[("td", value) for value in re.findall("0.50*", made)], ("th", "1"),
        ("td", "c &amp; d"), *[("td", value) for value in re.findall("0.250*", made)],
    ]  # fmt: skip
    assert set(re.findall("<[^>]*>", made)) <= {
        f"<{slash}{tag}>" for tag in ("table", "thead", "tbody", "tr", "th", "td")
        for slash in ("", "/")
    }  # fmt: skip
    assert safe_table(made) == made


@pytest.mark.parametrize(
    "text",
    [
        "<script>evil()</script>", "<table><tr><td><script>x</script></td></tr></table>",
        "<table><tr><td><img src=x onerror=evil()></td></tr></table>", "<p>evil</p>", "evil", "",
        "<table></table><table></table>", "<table><tr><td><table></table></td></tr></table>",
        "<table><tr><td>1</td></tr></table>evil", "<table><td>1</td></table>",
        "<table><tr><td colspan=2>1</td></tr></table>", "<iframe src=//evil></iframe>",
        "<table><tr><td>1</td></tr></table><scr", "<style>@import '//evil'</style>",
        "<table><tr><td>" + 200_000 * "a" + "</td></tr></table>",
    ],
)  # fmt: skip
def test_html_that_is_no_plain_table_is_left_out(text):
    kept, left_out = rebuilt(shown({"text/html": text, "text/plain": "as text"}))
    assert [output.data for output in kept] == [{"text/plain": "as text"}]
    assert left_out == {"text/html": 1}


def test_what_a_table_says_besides_is_not_kept():
    made = safe_table(
        "<style>td {background: url(//evil)}</style><!-- evil --><table class=evil onclick=evil()>"
        "<tr style='x:url(//evil)'><th>a</th></tr><tr><td id=evil>&lt;script&gt;\x1b[1m</td></tr>"
        "</table>"
    )
    assert "evil" not in made
    assert r"<td>&lt;script&gt;\x1b[1m</td>" in made


# Text and Markdown


def test_control_characters_are_shown_and_not_sent():
    text = "a\tb\x1b[31m\x1b]8;;http://evil\x07c\r\u202e\0"
    kept, _ = rebuilt(new_output("stream", text=text), shown({"text/plain": text}))
    expected = r"a       b\x1b[31m\x1b]8;;http://evil\x07c\r\u202e\x00"
    assert (kept[0].text, kept[1].data["text/plain"]) == (expected, expected)


@pytest.mark.parametrize("kind", ["text/plain", "text/markdown"])
def test_text_without_end_is_left_out(kind):
    assert rebuilt(shown({kind: 300_000 * "a"})) == ([], {kind: 1})
    assert rebuilt(new_output("stream", text=300_000 * "a")) == ([], {"text/plain": 1})


ACTING = [
    "application/javascript", "image/svg+xml", "text/latex", "application/json", "image/jpeg",
    "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json",
]  # fmt: skip


def test_all_other_kinds_are_left_out_and_counted():
    outputs = [shown({kind: "evil()", "text/plain": "object"}) for kind in ACTING]
    outputs.append(new_output("error", ename="x", evalue="y", traceback=["evil"]))
    kept, left_out = rebuilt(*outputs, shown({"text/latex": "evil"}))
    assert [output.data for output in kept] == len(ACTING) * [{"text/plain": "object"}]
    assert left_out == {**dict.fromkeys(ACTING, 1), "text/latex": 2, "error": 1}


def as_html(text):
    return MarkdownIt("commonmark").render(text)


@pytest.mark.parametrize("name", CHAPTERS)
def test_what_chapters_say_is_said_as_before(name):
    cells = nbformat.read(CHAPTERS[name], 4).cells
    pages = {*PAGES, "../docs/api/index.md"}
    for cell in cells:
        if cell.cell_type == "markdown" and "colab" not in cell.source:
            made = safe_markdown(cell.source, pages, headings=True)
            assert as_html(made) == as_html(cell.source)
            assert safe_markdown(made, pages, headings=True) == made


def test_a_last_cell_is_said_as_before():
    text = (
        "Run **c-0=1** on CIFAR-10 \\(JPEG copy\\) \\$5 &lt;b&gt; with `speed`: *n* is **1.5%**, "
        "+6.6 points. Next: [how](03_training.ipynb), [your **own**](../your_pictures.md): "
        '`dataset="a"`.\n\n- 1\\_000\n\n89.9% and ``a`b``'
    )
    made = safe_markdown(text, PAGES)
    assert as_html(made) == as_html(text.replace("- 1", "\\- 1"))
    assert safe_markdown(made, PAGES) == made


@pytest.mark.parametrize(
    "text",
    [
        "<script>evil()</script>", "<!-- evil", "a\n===", "a\n---", "---\na: 1\n---", "# a", "- a",
        "1. a", "1) a", "> a", "    a", "\ta", "```{eval-rst}\nevil\n```", "~~~\na\n~~~", "% evil",
        "![a](b.png)", "[a](javascript:evil)", "[a](//evil)", "[a]\n\n[a]: //evil", "<//evil>",
        "<https://evil>", "| a |\n| --- |\n| b |", "&#10;- a", "&#32;    a", "***", "___", "+ a",
        "&#x1b;[1m", "[03](03_training.ipynb#evil)", "[x](03_training.ipynb \"evil\") ![x](y)",
        "\\", "a\\\nb", "[" * 5_000, "**" * 5_000, "`" * 5_000, ">" * 5_000, "[a](" * 5_000,
    ],
)  # fmt: skip
def test_all_other_markdown_is_text(text):
    made = safe_markdown(text, PAGES)
    tags = set(re.findall(r"<[^>]*>", as_html(made)))
    assert tags <= {"<p>", "</p>", "<code>", "</code>", '<a href="03_training.ipynb">', "</a>"}
    assert safe_markdown(made, PAGES) == made


CODE = 'def f(x):\n    """Of `x`."""\n    return [x](x) * "<b>"'


def test_a_block_of_python_stays_one_between_what_is_rewritten():
    made = safe_markdown(f"a <b>\n\n```python\n{CODE}\n```\n\n**c**", PAGES)
    assert made == f"a &lt;b&gt;\n\n```python\n{CODE}\n```\n\n**c**"
    assert safe_markdown(made, PAGES) == made


@pytest.mark.parametrize("inside", ["````", "  ```", "``` ", "```\n# a\n```"])
def test_no_text_in_a_block_of_python_ends_it_early(inside):
    code = f'"""\n{inside}\n[a](//evil)\n"""'
    made = safe_markdown(f"```python\n{code}\n```", PAGES)
    assert "<a" not in as_html(made)
    assert safe_markdown(made, PAGES) == made


@pytest.mark.parametrize(
    "text",
    [
        "```python\nno Python\n```", "```python\nx = 1\n", "  ```python\nx = 1\n```",
        "```python {evil}\nx = 1\n```", "```{python}\nx = 1\n```",
        "```python\n" + "(" * 5_000 + "\n```",
    ],
)  # fmt: skip
def test_a_block_that_is_not_python_is_text(text):
    made = safe_markdown(text, PAGES)
    tags = set(re.findall(r"<[^>]*>", as_html(made)))
    assert tags <= {"<p>", "</p>", "<code>", "</code>"}
    assert safe_markdown(made, PAGES) == made
