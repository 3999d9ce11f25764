"""One notebook through papermill: its parameters, its kernel, and its progress."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from logging import CRITICAL
from pathlib import Path
from typing import IO

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from utils import Interrupted, first_line, printable
from utils.locks import PREFIX, private_folder
from utils.pipeline.forkserver import Forkserver
from utils.progress import PROGRESS_MARK

#: Called with a line of progress from the running cell, or with None when a cell is done.
OnProgress = Callable[[str | None], None]


#: Bytes that the name of a socket may take: macOS allows the fewest.
LONGEST_SOCKET = 103


class NotebookError(RuntimeError):
    """A cell raised an error; `cell` is its execution count, `error` what it raised.

    `cell` is None where not even the first could be run.
    """

    def __init__(self, cell: int | None, error: str):
        super().__init__(error if cell is None else f"cell [{cell}]: {error}")
        self.cell, self.error = cell, error


def parameters_of(notebook: Path) -> dict[str, str]:
    """Return the names of a notebook's parameters, each with its default as it is written."""
    return dict(_parameters_of(notebook, notebook.stat().st_mtime_ns))


@cache
def _parameters_of(notebook: Path, _changed: int) -> dict[str, str]:
    """Return the same of the notebook as it was changed last: many runs ask for it."""
    found = papermill.inspect_notebook(str(notebook))
    return {name: about["default"] for name, about in found.items()}


def count_cells(notebook: Path) -> int:
    """Return the number of cells that will run; papermill adds one, with the parameters."""
    return len(nbformat.read(notebook, as_version=4).cells) + 1


def execute(
    notebook: Path,
    target: Path,
    values: Mapping,
    folder: Path,
    on_progress: OnProgress,
    forkserver: Forkserver | None = None,
) -> None:
    """Execute a notebook and write it with its outputs to `target`, even when a cell fails.

    Args:
        notebook: what to run.
        target: where the executed notebook goes.
        values: parameters; those the notebook does not take are left out.
        folder: the working directory of the kernel.
        on_progress: told of every finished cell and every line of progress.
        forkserver: from which the kernel is forked; None starts a fresh one.

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
                forkserver=forkserver,
            )
        except papermill.PapermillExecutionError as error:
            if error.ename in (KeyboardInterrupt.__name__, Interrupted.__name__):
                raise KeyboardInterrupt(error.evalue) from error
            raise NotebookError(error.exec_count, f"{error.ename}: {error.evalue}") from error


@contextmanager
def _kernel_settings() -> Generator[Config]:
    """Yield a configuration that lets the kernel talk over sockets in a private folder.

    Over TCP, any user of the machine could try the kernel's ports. Windows has no choice.
    """
    # without this the kernel's debugger greets with a warning
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if sys.platform == "win32":
        yield Config()
        return
    place = _place_of_sockets()
    if place is None:
        print(
            "The notebook's kernel listens on 127.0.0.1, since paths of sockets would be too long."
        )
        yield Config()
        return
    with private_folder(place) as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": str(folder / "kernel")})


def _place_of_sockets() -> Path | None:
    """Return a folder for temporary files in which a socket's name is short enough, if any is."""
    places = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp")
    for place in filter(None, places):
        longest = Path(place, PREFIX + 8 * "x", "kernel-5")
        if len(os.fsencode(longest)) <= LONGEST_SOCKET and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    return None


class _ThisPython(KernelSpecManager):
    """Knows one kernel: the interpreter that this program runs in, with the packages it has.

    What Jupyter finds by the name of ``python3`` may be of another environment, or of none.
    """

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def with_streams_joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return a cell's outputs with what was printed in one go as one.

    A busy kernel may send the end of a line by itself. (nbclient's own `coalesce_streams` would
    also move what was printed after a figure before it.)
    """
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.get("output_type") == "stream" and output.name == last.get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


class _Client(PapermillNotebookClient):
    """Passes on what the running cell reports."""

    on_progress: OnProgress
    forkserver: Forkserver | None = None
    interrupted = False
    begun = False

    def create_kernel_manager(self):
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = _ThisPython()
        if self.forkserver is not None:
            manager.provisioner = self.forkserver.provisioner(manager)
        return manager

    def execute_in_this_python(self) -> None:
        """Execute the notebook; what its kernel says beside the cells is kept for an error."""
        with tempfile.TemporaryFile() as said:
            try:
                self.execute(stderr=said)
            except (RuntimeError, OSError, DeadKernelError) as error:
                if self.begun and not isinstance(error, DeadKernelError):
                    raise
                raise NotebookError(*self._death(error, said)) from error

    def _death(self, error: Exception, said: IO[bytes]) -> tuple[int | None, str]:
        """Return in which cell the kernel died, and what is known of it."""
        said.seek(0)
        words = said.read().decode(errors="replace").split("\n")
        last = next((printable(line.strip()) for line in reversed(words) if line.strip()), None)
        if self.begun:
            reason = "its kernel died, most likely because memory ran out or someone stopped it"
            cell = self.code_cells_executed  # counted when it is sent to the kernel
        else:
            reason, cell = f"its kernel did not start ({first_line(error)})", None
        return cell, reason if last is None else f"{reason}. It last said: {last[:300]}"

    def execute_cell(self, cell, cell_index, **options):
        self.begun = True
        if self.interrupted:  # a kernel hears nothing while it starts, and between two cells
            raise KeyboardInterrupt
        result = super().execute_cell(cell, cell_index, **options)
        if "outputs" in cell:  # it has code
            cell.outputs = with_streams_joined(cell.outputs)
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
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        config = options["config"]
        client = _Client(nb_man, kernel_name=kernel_name, config=config, timeout=None)
        client.log.setLevel(CRITICAL)  # a kernel that does not start is told of in one sentence
        client.on_progress = options["on_progress"]
        client.forkserver = options["forkserver"]
        with _interrupts_passed_on(client):
            client.execute_in_this_python()


@contextmanager
def _interrupts_passed_on(client: _Client):
    """Let the first Ctrl+C stop the running cell, as the button in Jupyter does; a second, all."""
    before = signal.getsignal(signal.SIGINT)

    def pass_on(*_):
        signal.signal(signal.SIGINT, before)
        client.interrupted = True
        provisioner = client.km and client.km.provisioner
        is_running = isinstance(provisioner, LocalProvisioner) and provisioner.has_process
        if not is_running or provisioner.pid is None:
            raise KeyboardInterrupt
        os.kill(provisioner.pid, signal.SIGINT)

    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # there, a signal cannot be sent, or not be received
        return
    signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


papermill_engines.register(_Engine.name, _Engine)
