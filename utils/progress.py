"""Progress bars that stay plain text: in a terminal, and in a notebook that will be rendered."""

import io
import sys
from multiprocessing import parent_process

from tqdm.std import tqdm

BAR_WIDTH = 100
#: Seconds between two drawings of a bar: where each replaces the last, and where all are kept.
LIVE_INTERVAL, LOG_INTERVAL = 0.5, 30.0
#: Marks an output as progress, so that whoever runs the notebook can pass it on.
PROGRESS_MARK = "progress"


class _NotebookLine(io.TextIOBase):
    """A stream that shows the line last written to it as one plain-text output of the cell.

    tqdm's own notebook bar is a widget, which a rendered notebook would fetch scripts for, and
    its text bar leaves one line in the stored notebook for every refresh.
    """

    def __init__(self):
        self._handle = None

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        if line:
            self._show(line)
        return len(text)

    def _show(self, line: str) -> None:
        from IPython.display import display

        content = {"text/plain": line}
        mark = {PROGRESS_MARK: True}
        if self._handle is None:
            self._handle = display(content, raw=True, metadata=mark, display_id=True)
        else:
            self._handle.update(content, raw=True, metadata=mark)


def in_notebook() -> bool:
    """Tell whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def is_live() -> bool:
    """Tell whether a bar is drawn over itself, in a notebook or a terminal, and not into a log."""
    return in_notebook() or sys.stderr.isatty()


def progress_bar(
    iterable=None,
    *,
    description: str,
    total: int | None = None,
    unit: str = "it",
    scale: bool = False,
    initial: int = 0,
    is_visible: bool = True,
):
    """Return a tqdm progress bar with a rate and an estimate, drawn as plain text.

    Args:
        iterable: what to walk through, or None to call ``update`` by hand.
        description: what is being done, shown at the left.
        total: number of units; taken from ``len(iterable)`` when left out.
        unit: what is counted, e.g. ``"pictures"``.
        scale: show large numbers as k, M, G.
        initial: number of units done before, which the rate leaves out.
        is_visible: False counts nothing and draws nothing.
    """
    is_fork = in_notebook() and parent_process() is not None  # nothing that it displays arrives
    return tqdm(
        iterable,
        desc=description,
        total=total,
        unit=f" {unit}",
        unit_scale=scale,
        initial=initial,
        disable=is_fork or not is_visible,
        file=_NotebookLine() if in_notebook() else sys.stderr,
        ncols=BAR_WIDTH if in_notebook() else None,
        mininterval=LIVE_INTERVAL if is_live() else LOG_INTERVAL,
        dynamic_ncols=not in_notebook(),
    )
