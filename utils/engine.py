"""One notebook through papermill: its parameters, its kernel, and its progress."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from utils import Interrupted
from utils.progress import PROGRESS_MARK

#: Called with a line of progress from the running cell, or with None when a cell is done.
OnProgress = Callable[[str | None], None]


class NotebookError(RuntimeError):
    """A cell raised an error; `cell` is its execution count, `error` what it raised."""

    def __init__(self, cell: int, error: str):
        super().__init__(f"cell [{cell}]: {error}")
        self.cell, self.error = cell, error


def parameters_of(notebook: Path) -> dict[str, str]:
    """Return the names of a notebook's parameters, each with its default as it is written."""
    found = papermill.inspect_notebook(str(notebook))
    return {name: about["default"] for name, about in found.items()}


def count_cells(notebook: Path) -> int:
    """Return the number of cells that will run; papermill adds one, with the parameters."""
    return len(nbformat.read(notebook, as_version=4).cells) + 1


def execute(
    notebook: Path, target: Path, values: Mapping, folder: Path, on_progress: OnProgress
) -> None:
    """Execute a notebook and write it, with its outputs, to `target`, also when a cell fails.

    Args:
        notebook: what to run.
        target: where the executed notebook goes.
        values: parameters; those the notebook does not take are left out.
        folder: the working directory of the kernel.
        on_progress: told of every finished cell and every line of progress.

    Raises:
        NotebookError: a cell raised an error, or the kernel died.
        KeyboardInterrupt: a person stopped it; the cell that ran was told so.
    """
    accepted = parameters_of(notebook)
    with _kernel_settings() as config:
        try:
            papermill.execute_notebook(
                notebook,
                target,
                {name: value for name, value in values.items() if name in accepted},
                engine_name=_Engine.name,
                kernel_name="python3",
                cwd=folder,
                progress_bar=False,
                config=config,
                on_progress=on_progress,
            )
        except papermill.PapermillExecutionError as error:
            if error.ename in (KeyboardInterrupt.__name__, Interrupted.__name__):
                raise KeyboardInterrupt(error.evalue) from error
            raise NotebookError(error.exec_count, f"{error.ename}: {error.evalue}") from error


@contextmanager
def _kernel_settings():
    """Yield a configuration that lets the kernel talk over sockets in a private folder.

    Over TCP, any user of the machine could try the kernel's ports. Windows has no choice.
    """
    # without this the kernel's debugger greets with a warning
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if sys.platform == "win32":
        yield Config()
        return
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": str(Path(folder, "kernel"))})


class _Client(PapermillNotebookClient):
    """Passes on what the running cell reports."""

    on_progress: OnProgress
    interrupted = False

    def execute_cell(self, cell, cell_index, **options):
        if self.interrupted:  # a kernel hears nothing while it starts, and between two cells
            raise KeyboardInterrupt
        try:
            result = super().execute_cell(cell, cell_index, **options)
        except DeadKernelError as error:
            died = "its kernel died. Most often memory ran out, or someone stopped it"
            raise NotebookError(self.code_cells_executed + 1, died) from error
        self.on_progress(None)
        return result

    def process_message(self, msg, *arguments, **options):
        content = msg.get("content", {})
        if PROGRESS_MARK in content.get("metadata", {}):
            self.on_progress(content["data"]["text/plain"])
        return super().process_message(msg, *arguments, **options)


class _Engine(Engine):
    """papermill's own engine, with the client above."""

    name = "davidnet"

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, config, on_progress, **_):
        client = _Client(nb_man, kernel_name=kernel_name, config=config, timeout=None)
        client.on_progress = on_progress
        with _interrupts_passed_on(client):
            client.execute()


@contextmanager
def _interrupts_passed_on(client: _Client):
    """Let the first Ctrl+C stop the running cell, as the button in Jupyter does; a second, all."""
    before = signal.getsignal(signal.SIGINT)

    def pass_on(*_):
        signal.signal(signal.SIGINT, before)
        client.interrupted = True
        if client.km is None or not client.km.has_kernel:
            raise KeyboardInterrupt
        os.kill(client.km.provisioner.pid, signal.SIGINT)

    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # there, a signal cannot be sent, or not be received
        return
    signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


papermill_engines.register(_Engine.name, _Engine)
