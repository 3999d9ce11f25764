"""The sequence of notebooks: run in order, with one progress bar, into a run's folder.

papermill itself (`utils.pipeline.kernel`) is imported only where a notebook is run: it takes longer
to import than chapter 4 takes to draw its curves.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from utils import InputError, Interrupted
from utils.files import ROOT, brief_path, replacing
from utils.progress import is_live, progress_bar
from utils.runs import Run

CHAPTERS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
#: The chapter about many runs, which has a folder of its own.
COMPARISON = "07_compare"
#: The chapters about one run, in the order in which they are run into its folder.
NOTEBOOKS = {name: path for name, path in CHAPTERS.items() if name != COMPARISON}


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
        InputError: a number that no notebook has, or nothing left to run.
    """
    by_number = {name[:2]: name for name in NOTEBOOKS}
    wanted = list(by_number) if only is None else [_number(part) for part in only.split(",")]
    first = min(by_number) if start is None else _number(start)
    for number in (*wanted, first):
        if number == COMPARISON[:2]:
            raise InputError(f"{COMPARISON} is about many runs: python -m utils compare.")
        if number not in by_number:
            raise InputError(f"There is no notebook {number!r}. Choose: {', '.join(by_number)}.")
    names = [by_number[number] for number in sorted(set(wanted)) if number >= first]
    if not names:
        raise InputError(f"Nothing to run: --only {only} names no notebook from {first} on.")
    return names


def _number(text: str) -> str:
    text = text.strip()
    return text.zfill(2) if text else text


def check_names(parameters: Mapping, names: Sequence[str]) -> None:
    """Refuse parameters that none of these notebooks takes.

    Raises:
        InputError: with the names that are allowed.
    """
    from utils.pipeline.kernel import parameters_of

    allowed = {parameter for name in names for parameter in parameters_of(NOTEBOOKS[name])}
    for name in parameters:
        if name not in allowed:
            listed, near = ", ".join(sorted(allowed)), get_close_matches(name, allowed, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"Parameter {name!r} is unknown.{meant} Allowed here: {listed}.")


def check_needed(parameters: Mapping, names: Sequence[str]) -> None:
    """Refuse None for a parameter that one of these notebooks cannot do without.

    Raises:
        InputError: naming the parameter and the notebook.
    """
    from utils.pipeline.kernel import parameters_of

    for notebook in names:
        for name, default in parameters_of(NOTEBOOKS[notebook]).items():
            if default != "None" and name in parameters and parameters[name] is None:
                raise InputError(
                    f"{name} is None, but {notebook} needs a value; its default is {default}."
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
        InputError: a parameter that no notebook takes, or another process is writing this run.
        PipelineError: a notebook failed; its executed part is kept, and the failure is noted in
            ``run.json``. The run is marked failed unless its training was complete.
        Interrupted: a person stopped it; likewise, and the message says what goes on.
    """
    from utils.pipeline.forkserver import forkserver
    from utils.pipeline.kernel import count_cells

    names = list(NOTEBOOKS if names is None else names)
    check_names(parameters, names)
    values = {**parameters, "run_name": run.name, "output_dir": brief_path(run.folder.parent)}
    total = sum(count_cells(NOTEBOOKS[name]) for name in names)
    finished, begun = [], run.record.get("started")
    with (
        run.locked(),
        forkserver() if len(names) > 1 else nullcontext() as source,
        progress_bar(description="Notebooks", total=total, unit="cells") as bar,
    ):
        for name in names:
            bar.set_description(name)
            started = time.perf_counter()
            _execute(run, name, values, _bar_updater(bar), source, begun)
            finished.append(Finished(name, time.perf_counter() - started))
            run.add_seconds(name, finished[-1].seconds)
        if run.is_trained:
            mended = run.failed_notebook in (None, *names)
            run.update_record(status="complete", **({"failure": None} if mended else {}))
    return finished


def _bar_updater(bar) -> Callable[[str | None], None]:
    """Return what the engine reports to: the line of progress stands behind the bar."""

    def update(line: str | None) -> None:
        is_news = line is not None and is_live()
        bar.set_postfix_str(re.sub(r"\|.*\|", "", line or ""), refresh=is_news)
        if line is None:
            bar.update()

    return update


def run_comparison(folder: Run, parameters: Mapping) -> Finished:
    """Execute the chapter about many runs into a folder that no training has.

    Args:
        folder: of the comparison; no ``run.json`` is written there.
        parameters: values by name, beyond the folder's own.

    Raises:
        InputError: another process is writing there.
        PipelineError: the notebook failed; its executed part is kept.
        Interrupted: a person stopped it.
    """
    from utils.pipeline.kernel import count_cells

    where = {"comparison": folder.name, "output_dir": brief_path(folder.folder.parent)}
    notebook, started = CHAPTERS[COMPARISON], time.perf_counter()
    with (
        folder.locked(),
        progress_bar(description=COMPARISON, total=count_cells(notebook), unit="cells") as bar,
    ):
        failure, stopped = _attempt(folder, notebook, {**parameters, **where}, _bar_updater(bar))
        if stopped is not None:
            raise Interrupted(f"{COMPARISON} was stopped. The same command begins it anew.")
        if failure is not None:
            raise _broken(folder, failure)
    return Finished(COMPARISON, time.perf_counter() - started)


def _execute(
    run: Run, name: str, values: Mapping, on_progress: Callable, source, begun: str | None
) -> None:
    """Execute a chapter of a run, whose last training, before the command, had begun at `begun`."""
    failure, stopped = _attempt(run, NOTEBOOKS[name], values, on_progress, source)
    if failure is None:
        return
    # a network that is trained stays so, whatever becomes of a chapter about it
    run.update_record(status="complete" if run.is_trained else "failed", failure=failure)
    if stopped is not None:
        again = "the same command"
        if values.get("overwrite") and run.record.get("started") != begun:
            again += " without overwrite"  # which would replace the training that is kept
        kept = f"What run {run.name!r} has finished is kept; {again} continues from there."
        raise Interrupted(f"{name} was stopped. {str(stopped) or kept}")
    raise _broken(run, failure)


def _attempt(
    run: Run, notebook: Path, values: Mapping, on_progress: Callable, source=None
) -> tuple[dict[str, Any] | None, KeyboardInterrupt | None]:
    """Execute a chapter into a folder, and return what failed and what stopped it, if anything."""
    from utils.pipeline.kernel import NotebookError, execute

    name, failure, stopped = notebook.stem, None, None
    with replacing(_executed(run, name)) as beside:
        try:
            execute(notebook, beside, values, ROOT, on_progress, source)
        except NotebookError as error:
            where = {} if error.cell is None else {"cell": error.cell}
            failure = {"notebook": name, **where, "error": error.error}
        except KeyboardInterrupt as error:
            stopped, failure = error, {"notebook": name, "error": "interrupted"}
    return failure, stopped


def _executed(run: Run, name: str) -> Path:
    return run.path("notebooks", f"{name}.ipynb")


def _broken(run: Run, failure: Mapping[str, Any]) -> PipelineError:
    """Return what to tell a person of a notebook that failed."""
    name = failure["notebook"]
    if "cell" not in failure:
        return PipelineError(f"{name} could not be run: {failure['error']}.")
    return PipelineError(
        f"{name} failed in cell [{failure['cell']}]: {failure['error']}\n"
        f"What it did up to that point is in {_executed(run, name)}."
    )
