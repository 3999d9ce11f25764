"""Gradio's page, made to take plain values only: whatever else a request carries is refused.

Gradio itself looks for files in all that it is sent, opens what they name and fetches what they
give an address of. Nothing here needs that.
"""

import math
from typing import Any

import gradio as gr

#: Larger than any number that is asked for.
MOST = 1e9


class Upload(gr.Image):
    """Gradio's image, handed on as the path that was sent: opening it is not for Gradio to do."""

    is_template = True

    def preprocess(self, payload) -> str | None:
        """Return the path that was sent, or None."""
        return None if payload is None else payload.path

    def example_payload(self) -> dict:
        """Return what "Use via API" shows: a file of one's own."""
        return {"path": "picture.png", "meta": {"_type": "gradio.FileData"}}


class Range(gr.Slider):
    """Gradio's slider, whose box may hold any number: the nearest that it allows is taken."""

    is_template = True

    def preprocess(self, payload):
        """Return that number; None where the box is empty."""
        if payload is None:
            return None
        steps = math.floor((payload - self.minimum) / self.step + 0.5)  # as JavaScript rounds
        return min(self.maximum, max(self.minimum, self.minimum + steps * self.step))

    @property
    def nearest(self) -> str:
        """What does the same in the browser; null where the box is empty."""
        return f"(value) => window.page.nearest(value, {self.minimum}, {self.maximum}, {self.step})"


class PlainBlocks(gr.Blocks):
    """Gradio's blocks; each of their inputs takes the kind of value that it is made for."""

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        """Turn what was sent into what a function takes.

        Raises:
            gr.Error: there are more or fewer values than inputs, or one is of another kind.
        """
        wanted = block_fn.inputs
        if len(inputs) != len(wanted):
            told = f"This takes {len(wanted)} values, and {len(inputs)} were sent."
            raise gr.Error(told, print_exception=False)
        plain = [_plain(block, value) for block, value in zip(wanted, inputs, strict=True)]
        return await super().preprocess_data(block_fn, plain, state, explicit_call)


def _plain(block: gr.components.Component, value: Any) -> Any:
    """Return a value as its component may see it: of a file the path alone."""
    if block.stateful:
        return None
    if not _is_of_kind(block, value):
        told = f"What was sent for “{block.label}” is not the kind of value that it takes."
        raise gr.Error(told, print_exception=False)
    return {"path": value.get("path")} if isinstance(value, dict) else value


def _is_of_kind(block: gr.components.Component, value: Any) -> bool:
    if isinstance(block, Upload):
        return value is None or (
            isinstance(value, dict) and isinstance(value.get("path"), str | None)
        )
    if isinstance(block, Range) and value is None:
        return True
    if isinstance(block, gr.Slider | gr.Number):
        return type(value) in (int, float) and -MOST < value < MOST
    if isinstance(block, gr.CheckboxGroup):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, str) or (value is None and not isinstance(block, gr.Dropdown))
