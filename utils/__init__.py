"""The code behind the notebooks: packages that import only from floors below their own."""

import html
import inspect
import re
import textwrap
from collections.abc import Collection, Sequence


def printable(text: str) -> str:
    """Return `text` with what no terminal should be sent (control characters, bytes) escaped.

    >>> print(printable("größe\\x1b[2J"))
    größe\\x1b[2J
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


#: What no sentence about a picture needs, and what a page could read as markup.
NOT_PLAIN = re.compile(r"[^\w .,:;!?'()%$#+=/×°±−–→…-]")


def brief(value) -> str:
    """Return a value as a message shows it: as Python writes it, but never at any length.

    >>> print(brief("jpg"), brief(1.5), brief(10**400))
    'jpg' 1.5 a number of 1,329 bits
    """
    if isinstance(value, int) and value.bit_length() > 1_000:  # Python may refuse to write it
        return f"a number of {value.bit_length():,} bits"
    written = repr(value)
    return written if len(written) <= 200 else f"{written[:200]}…"


def as_markdown(text: str) -> str:
    """Return what shows `text` as it is, on one line of Markdown: a name may hold markup.

    >>> print(as_markdown("my_cats <3"))
    my\\_cats &lt;3
    """
    return escape_markdown(" ".join(text.split()))


def escape_markdown(text: str) -> str:
    """Return a piece of a line, spaces around it included, with its markup escaped."""
    return re.sub(r"([\\`*_{}\[\]()|~$!#])", r"\\\1", html.escape(text, quote=False))


def as_code(*things) -> str:
    """Return Markdown that shows the Python source of these classes and functions."""
    sources = (textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)
    return "\n\n\n".join(sources).join(("```python\n", "\n```"))


def counted(number: int, noun: str, several: str = "") -> str:
    """Return a number with what it counts: "1 picture", "1,200 pictures"; `several` if not "-s"."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def listed(names: Sequence[str]) -> str:
    """Return names in a row.

    >>> listed(["prep"]), listed(["prep", "layer1", "layer2"])
    ('prep', 'prep, layer1 and layer2')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def as_percent(share: float, digits: int = 1, unit: str = "%") -> str:
    """Return a share of one in percent; what is not all or nothing is never rounded to it.

    It has more digits than asked for where fewer would show 0 or 100 %.

    Args:
        share: in [0, 1].
        digits: after the point.
        unit: what follows the number.

    >>> print(as_percent(0.934), as_percent(0.9998), as_percent(0.0002, 0), as_percent(1.0, 0))
    93.4% 99.98% 0.02% 100%
    """
    share = float(share)
    if 0 < share < 1e-6:  # nobody counts more zeros
        return f"under 0.0001{unit}"
    if 0 < share < 1:
        while float(f"{100 * share:.{digits}f}") in (0, 100):
            digits += 1
    return f"{100 * share:.{digits}f}{unit}"


def as_cell(text: str) -> str:
    """Return text for a CSV file, with an apostrophe where a spreadsheet would compute it.

    Class and file names may be a stranger's.

    >>> print(as_cell("heron"), as_cell("-1"), as_cell("=HYPERLINK(1)"), as_cell("-1+2"))
    heron -1 '=HYPERLINK(1) '-1+2
    """
    if text[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def first_line(error: BaseException) -> str:
    """Return the short form of a library's message, or the error's kind where it has none.

    >>> first_line(ValueError("no room\\nand much more"))
    'no room'
    >>> first_line(TimeoutError())
    'TimeoutError'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


class InputError(ValueError):
    """Something a person gave cannot be used. The message says what, and what to do about it."""

    def __init__(self, message: str):
        super().__init__(printable(message))

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the explanation alone, without our own lines of code."""
        return [f"{type(self).__name__}: {self}"]


class Interrupted(KeyboardInterrupt):
    """A person stopped the work. The message says what is kept and how to go on."""

    _render_traceback_ = InputError._render_traceback_


def check_number(name: str, value, low: float, high: float, whole: bool = False) -> None:
    """Refuse a value that is not a number from `low` to `high`.

    Raises:
        InputError: naming the parameter, its value and what is allowed.
    """
    kind = "a whole number" if whole else "a number"
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        least, most = (f"{n:,}" if isinstance(n, int) else f"{n:g}" for n in (low, high))
        raise InputError(f"{name} is {brief(value)}; it must be {kind} from {least} to {most}.")


def check_choice(name: str, value, allowed: Collection) -> None:
    """Refuse a value that is not one of the allowed ones.

    Raises:
        InputError: naming the parameter, its value and the allowed ones.
    """
    if value not in allowed:
        raise InputError(
            f"{name} {brief(value)} is unknown. Choose one of: {', '.join(map(str, allowed))}."
        )


def check_flag(name: str, value) -> None:
    """Refuse a value that is neither True nor False: text such as "no" would count as true.

    Raises:
        InputError: naming the parameter and its value.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} is {brief(value)}; it must be True or False.")


def check_text(name: str, value) -> None:
    """Refuse a value that is not text, is empty, or has characters that cannot be printed.

    Raises:
        InputError: naming the parameter and its value.
    """
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InputError(f"{name} is {brief(value)}; it must be printable text.")
