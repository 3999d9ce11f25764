"""Shared code behind the notebooks: one module per notebook, and what they have in common."""

from collections.abc import Sequence


class InputError(ValueError):
    """Something a person gave cannot be used. The message says what, and what to do about it."""


def check_number(name: str, value, low: float, high: float, whole: bool = False) -> None:
    """Refuse a value that is no number from `low` to `high`.

    Raises:
        InputError: naming the parameter, its value and what is allowed.
    """
    kind = "a whole number" if whole else "a number"
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; it must be {kind} from {low:g} to {high:g}.")


def check_choice(name: str, value, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of the allowed names.

    Raises:
        InputError: naming the parameter, its value and the allowed names.
    """
    if value not in allowed:
        raise InputError(
            f"{name} {value!r} is unknown. Choose one of: {', '.join(map(str, allowed))}."
        )
