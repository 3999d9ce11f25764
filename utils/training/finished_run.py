"""The trained run that a later chapter is about."""

from pathlib import Path
from typing import Any

from utils import InputError
from utils.files import resolve_path
from utils.pipeline.sequence import run_notebooks, select_notebooks
from utils.runs import Run, find_run
from utils.settings import derive_run_name


def open_run(
    run_name: str | None = None,
    output_dir: str | Path = "outputs",
    dataset: str | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
) -> Run:
    """Return the run that a notebook on results is about; train a small one if there is none.

    Args:
        run_name: None takes the newest complete run.
        output_dir: where runs are.
        dataset, seed: None, or what the run must have been trained with. A data set may lie in
            another place now: it is read, and must hold the same pictures.
        data_dir: as `utils.data.sources.pictures_of` takes it.

    Raises:
        InputError: the run asked for does not exist, or was trained with something else.
    """
    run = find_run(run_name, output_dir)
    if run is None:
        missing: dict[str, Any] = {"dataset": "shapes", "recipe": "quick"}
        run = Run(derive_run_name(**missing), output_dir)
        print(
            f"There is no trained run in {resolve_path(output_dir)} yet: "
            "training one on the drawn shapes first."
        )
        run_notebooks(run, missing, select_notebooks("03"))
    if run.failure:
        print(f"A chapter of this run failed last time: {run.failure}")
    trained_on = run.settings["dataset"]
    if seed not in (None, run.settings["seed"]):
        raise InputError(
            f"Run {run.name!r} was trained with seed {run.settings['seed']!r}, not {seed!r}. "
            "Leave seed at None, or choose another run_name."
        )
    if dataset is not None and resolve_path(dataset) != resolve_path(trained_on):
        from utils.data.sources import pictures_of

        pictures_of(run, data_dir, dataset)
    return run
