"""Fixtures that several test files use."""

import os

import pytest

#: What a tiny run of the whole sequence is trained with.
TINY = {"epochs": 1, "limit_train": 160, "limit_test": 80, "image_size": 16, "lr_steps": 10}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run of all six notebooks on a few drawn shapes, through the command line."""
    from utils.cli import main
    from utils.runs import Run

    folder = tmp_path_factory.mktemp("pipeline")
    os.environ["MPLBACKEND"] = "agg"
    arguments = ["run", "--run-name", "tiny", "--output-dir", str(folder / "outputs")]
    arguments += ["--data-dir", str(folder / "data")]
    for name, value in TINY.items():
        arguments += ["-p", name, str(value)]
    main(arguments)
    return Run("tiny", folder / "outputs")
