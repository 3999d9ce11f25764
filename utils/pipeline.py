"""Run the notebooks through papermill: in order, with one progress bar, into a run's folder."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from traitlets.config import Config

from utils import InputError
from utils.progress import PROGRESS_MARK, progress_bar
from utils.runs import ROOT, Run, derive_run_name, find_run, replacing, resolve_path

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
ENGINE = "davidnet"


class PipelineError(RuntimeError):
    """A notebook did not complete. The message names the notebook, the cell and the error."""


@dataclass(frozen=True)
class Finished:
    """A notebook that completed, and the seconds it took."""

    notebook: str
    seconds: float


def select_notebooks(only: str | None = None, start: str | None = None) -> list[str]:
    """Return the names of the notebooks to run, in order.

    Args:
        only: numbers such as ``"05,06"``; None for all.
        start: the number of the first, such as ``"04"``.

    Raises:
        InputError: a number that no notebook has.
    """
    by_number = {name[:2]: name for name in NOTEBOOKS}
    wanted = [part.strip().zfill(2) for part in only.split(",")] if only else list(by_number)
    asked = [*wanted, start.strip().zfill(2)] if start else wanted
    for number in asked:
        if number not in by_number:
            raise InputError(
                f"There is no notebook {number!r}. Choose from: {', '.join(by_number)}."
            )
    return [by_number[n] for n in sorted(set(wanted)) if not start or n >= asked[-1]]


def notebook_parameters(names: Sequence[str] | None = None) -> dict[str, str]:
    """Return the parameters that these notebooks (None: all) take, each with its explanation."""
    parameters: dict[str, str] = {}
    for name in names or NOTEBOOKS:
        for parameter, about in papermill.inspect_notebook(str(NOTEBOOKS[name])).items():
            parameters.setdefault(parameter, about["help"])
    return parameters


def check_names(parameters: Mapping, names: Sequence[str]) -> None:
    """Refuse parameters that none of these notebooks takes.

    Raises:
        InputError: with the names that are allowed.
    """
    allowed = notebook_parameters(names)
    for name in parameters:
        if name not in allowed:
            raise InputError(
                f"Parameter {name!r} is unknown. Allowed here: {', '.join(sorted(allowed))}."
            )


def run_notebooks(
    run: Run, parameters: Mapping, names: Sequence[str] | None = None
) -> list[Finished]:
    """Execute notebooks in order into the run's folder, each with the parameters it takes.

    Args:
        run: whose folder receives the executed notebooks and everything they write.
        parameters: values by name, beyond ``run_name`` and ``output_dir``.
        names: which notebooks; None runs all.

    Raises:
        InputError: a parameter that no notebook takes.
        PipelineError: a notebook failed; its executed part is kept, the run is marked failed.
    """
    names = list(NOTEBOOKS if names is None else names)
    check_names(parameters, names)
    values = {**parameters, "run_name": run.name, "output_dir": str(run.folder.parent)}
    cells = {name: _count_cells(NOTEBOOKS[name]) for name in names}
    finished = []
    with progress_bar(description="Notebooks", total=sum(cells.values()), unit="cells") as bar:
        for name in names:
            bar.set_description(name)
            started = time.perf_counter()
            _execute(run, name, values, _bar_updater(bar))
            finished.append(Finished(name, time.perf_counter() - started))
            run.add_seconds(name, finished[-1].seconds)
        bar.set_postfix_str("")
    if run.is_trained:
        run.update_record(status="complete", failure=None)
    return finished


def _count_cells(path: Path) -> int:
    return (
        len(nbformat.read(path, as_version=4).cells) + 1
    )  # papermill adds the parameters it was given


def _bar_updater(bar) -> Callable[[str | None], None]:
    """Return what the engine calls: with a line of progress, or with None when a cell is done."""

    def update(line: str | None) -> None:
        bar.set_postfix_str(re.sub(r"\|.*\|", "", line or ""), refresh=line is not None)
        if line is None:
            bar.update()

    return update


def _execute(run: Run, name: str, values: Mapping, on_progress: Callable) -> None:
    accepted = papermill.inspect_notebook(str(NOTEBOOKS[name]))
    failure = None
    with replacing(run.path("notebooks", f"{name}.ipynb")) as beside, _kernel_settings() as config:
        try:
            papermill.execute_notebook(
                NOTEBOOKS[name],
                beside,
                {key: value for key, value in values.items() if key in accepted},
                engine_name=ENGINE,
                kernel_name="python3",
                cwd=ROOT,
                progress_bar=False,
                config=config,
                on_progress=on_progress,
            )
        except papermill.PapermillExecutionError as error:
            failure = error
    if failure is not None:
        about = {
            "notebook": name,
            "cell": failure.exec_count,
            "error": f"{failure.ename}: {failure.evalue}",
        }
        run.update_record(status="failed", failure=about)
        raise PipelineError(
            f"{name} failed in cell [{failure.exec_count}]: {failure.ename}: {failure.evalue}\n"
            f"What it did until then is in {run.path('notebooks', name)}.ipynb."
        )


@contextmanager
def _kernel_settings():
    """Yield a configuration that lets the kernel talk over sockets in a private folder.

    Over TCP, any user of the machine could connect to the kernel's ports. Windows has no choice.
    """
    os.environ.setdefault(
        "PYDEVD_DISABLE_FILE_VALIDATION", "1"
    )  # or the kernel starts with a warning
    if sys.platform == "win32":
        yield Config()
        return
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": str(Path(folder, "kernel"))})


class _Client(PapermillNotebookClient):
    """Passes on what the running cell reports."""

    on_progress: Callable[[str | None], None]

    def execute_cell(self, cell, cell_index, **options):
        result = super().execute_cell(cell, cell_index, **options)
        self.on_progress(None)
        return result

    def process_message(self, msg, *arguments, **options):
        content = msg.get("content", {})
        if PROGRESS_MARK in content.get("metadata", {}):
            self.on_progress(content["data"]["text/plain"])
        return super().process_message(msg, *arguments, **options)


class _Engine(Engine):
    """papermill's own engine, with the client above."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, config, on_progress, **_):
        client = _Client(nb_man, kernel_name=kernel_name, config=config, timeout=None)
        client.on_progress = on_progress
        client.execute()


papermill_engines.register(ENGINE, _Engine)


def open_run(
    run_name: str | None = None,
    output_dir: str | Path = "outputs",
    dataset: str | None = None,
    seed: int | None = None,
) -> Run:
    """Return the run that a notebook on results is about; train a small one if there is none.

    Args:
        run_name: None takes the newest complete run.
        output_dir: where runs are.
        dataset, seed: None, or what the run must have been trained with.

    Raises:
        InputError: the run asked for does not exist, or was trained with something else.
    """
    run = find_run(run_name, output_dir)
    if run is None:
        run = Run(derive_run_name("shapes", "quick", 0), output_dir)
        print(
            f"There is no trained run in {resolve_path(output_dir)} yet: "
            "training one on the drawn shapes first."
        )
        run_notebooks(run, {"dataset": "shapes", "recipe": "quick"}, select_notebooks("03"))
    for name, value in (("dataset", dataset), ("seed", seed)):
        if value is not None and value != run.settings[name]:
            raise InputError(
                f"Run {run.name!r} was trained with {name} {run.settings[name]!r}, not {value!r}. "
                f"Leave {name} at None, or choose another run_name."
            )
    return run
