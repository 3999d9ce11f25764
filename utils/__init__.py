"""Shared code behind the notebooks: one module per notebook, and what they have in common."""


class InputError(ValueError):
    """Something a person gave cannot be used. The message says what, and what to do about it."""
