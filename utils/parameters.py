"""Parameters as they were meant: of which kind each is, and what text or a number says of it.

Three ways lead to a notebook's parameters, and each reads text in its own manner: papermill makes
007 a number, YAML leaves 1e-3 a text, and a shell knows text alone.
"""

import ast
from collections.abc import MutableMapping

from utils import shown

TEXT, WHOLE, NUMBER, FLAG = "text", "a whole number", "a number", "True or False"
#: Every parameter's kind; each but a flag may also be None, and `max_lr` a word.
KINDS = {
    **dict.fromkeys(
        ("run_name", "output_dir", "data_dir", "dataset", "dataset_title", "model", "recipe",
         "precision", "devices", "method", "block"),
        TEXT,
    ),
    **dict.fromkeys(
        ("image_size", "limit_train", "limit_test", "epochs", "batch_size", "views", "seed",
         "lr_steps", "show_misclassified", "show_pictures"),
        WHOLE,
    ),
    **dict.fromkeys(("val_fraction", "max_lr"), NUMBER),
    **dict.fromkeys(("overwrite", "skip_unreadable"), FLAG),
}  # fmt: skip
_WORDS = {"none": None, "null": None}
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parse_value(text: str):
    """Read a value as a Python literal (numbers, True, None …), or else as text."""
    word = text.strip().lower()
    if word in ("true", "false"):
        return _FLAGS[word]
    if word in _WORDS:
        return _WORDS[word]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def from_shell(name: str, text: str):
    """Return the value of a parameter that was typed in a shell: text, to be read by its kind."""
    value = parse_value(text)
    if KINDS.get(name) is TEXT:  # quotes within are what a person put around text
        return value if value is None or isinstance(value, str) else text
    return as_meant(name, value)


def as_meant(name: str, value):
    """Return a parameter's value in its kind where its meaning is plain, or else as it is."""
    kind = KINDS.get(name)
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return None
    if kind is TEXT:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if is_number else value
    if kind is FLAG and isinstance(value, str):
        return _FLAGS.get(value.strip().lower(), value)
    if kind in (WHOLE, NUMBER):
        number = _number(value) if isinstance(value, str) else value
        is_whole = isinstance(number, float) and number.is_integer()
        return int(number) if kind is WHOLE and is_whole else number
    return value


def _number(text: str) -> int | float | str:
    """Return the number that a text is, in tens; words that stand for one are none."""
    if not any(character.isdigit() for character in text):
        return text
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def take_as_meant(namespace: MutableMapping) -> None:
    """Put each parameter in a notebook's namespace in its kind, and say where text was lost."""
    for name in KINDS.keys() & namespace.keys():
        before = namespace[name]
        namespace[name] = as_meant(name, before)
        if KINDS[name] is TEXT and namespace[name] is not before and namespace[name] is not None:
            print(
                f"{name} came as the number {shown(before)}, and is read as the text "
                f"{namespace[name]!r}. If another was meant: papermill keeps text with -r."
            )
