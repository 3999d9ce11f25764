"""Kernels that are forked: they find what a fresh one finds, and end as a fresh one does."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from utils.files import ROOT
from utils.pipeline import kernel
from utils.pipeline.forkserver import PRELOADED, forkserver
from utils.runs import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every kernel is a fresh one"),
]

BEFORE = """
import os, sys
loaded = sorted(sys.modules)
names = sorted(name for name in globals() if not name.startswith("_"))
"""
#: What a library may ask on import, or be told, of where it is.
FOUND = """
import json, logging, multiprocessing, random, signal, threading, warnings

import matplotlib
import numpy as np
import pandas as pd
import torch
import torchvision
from lightning_fabric.utilities import imports
from torchmetrics import MeanMetric
from tqdm.auto import tqdm
from matplotlib import pyplot

drawn = [random.random(), np.random.rand(), torch.rand(1).item()]
found = {
    "names": names,
    "path": sys.path,
    "argv": [sys.argv[0], *sys.argv[3:]],
    "folder": os.getcwd(),
    "environment": sorted(f"{k}={v}" for k, v in os.environ.items() if k != "JPY_PARENT_PID"),
    "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "leads its session": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "threads": sorted(thread.name for thread in threading.enumerate()),
    "process": multiprocessing.current_process().name,
    "warnings": sorted(map(str, warnings.filters)),
    "rc": {key: str(value) for key, value in matplotlib.rcParams.items()},
    "interactive": [pyplot.isinteractive(), bool(imports._IS_INTERACTIVE)],
    "bar": tqdm.__module__,
    "columns": pd.get_option("display.max_columns"),
    "torch": [torch.get_num_threads(), torch.get_default_dtype().itemsize],
    "can use a GPU": not torch.cuda._is_in_bad_fork(),
    "computes with threads": bool((torch.ones(300, 300) @ torch.ones(300, 300) == 300).all()),
    "other standard streams": [sys.stdin.read(), type(sys.stderr).__module__],
}
print(json.dumps([loaded, drawn, os.getppid(), found]))
"""
LOGGED = """
logging.getLogger("pytorch_lightning").warning("logged by a library")
pyplot.plot([1, 2])
pyplot.show()
"""


def stored(path, *cells):
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    notebook.cells = list(map(nbformat.v4.new_code_cell, cells))
    nbformat.write(notebook, path)
    return path


def executed(folder, *cells, source=None):
    """Return a notebook's cells with what they gave."""
    notebook = stored(folder / "a.ipynb", *cells)
    kernel.execute(notebook, folder / "b.ipynb", {}, ROOT, lambda _: None, source)
    return nbformat.read(folder / "b.ipynb", as_version=4).cells


def test_a_forked_kernel_finds_what_a_fresh_one_finds(tmp_path):
    def told(source):
        _, told, shown = executed(tmp_path, BEFORE, FOUND, LOGGED, source=source)
        kinds = [(o.output_type, o.get("name"), sorted(o.get("data", ()))) for o in shown.outputs]
        loaded, drawn, parent, found = json.loads(told.outputs[0].text)
        return loaded, drawn, parent, found | {"said": told.outputs[1:], "shown": kinds}

    loaded, _, parent, fresh = told(None)
    assert "torch" not in loaded and parent == os.getpid()
    with forkserver() as source:
        loaded, drawn, parent, forked = told(source)
        assert set(PRELOADED) <= set(loaded) and parent != os.getpid()
        for name in ("utils.runs", "pandas", "matplotlib.pyplot", "torchmetrics", "tqdm.auto"):
            assert name not in loaded
        assert {
            name: (fresh[name], forked[name]) for name in fresh if fresh[name] != forked[name]
        } == {}
        _, again, _, _ = told(source)
        assert all(one != other for one, other in zip(drawn, again, strict=True))
    picture = ("display_data", None, ["image/png", "text/plain"])
    assert forked["shown"] == [("stream", "stderr", []), picture]


def test_a_forked_kernel_that_dies_is_told_of_with_its_last_words(tmp_path):
    dies = "import os, sys; os.write(2, b'no room left\\n'); os._exit(3)"
    with forkserver() as source:
        with pytest.raises(kernel.NotebookError, match=r"kernel died.*no room left"):
            executed(tmp_path, dies, source=source)
        (cell,) = executed(tmp_path, "print(__name__)", source=source)  # the next one lives
    assert cell.outputs[0].text == "__main__\n"


def test_a_kernel_is_a_fresh_one_where_none_can_be_forked(tmp_path, monkeypatch):
    asks = "import os; print(os.getppid())"
    with forkserver() as source:
        (cell,) = executed(tmp_path, asks, source=source)
        server = psutil.Process(int(cell.outputs[0].text))
        assert server.ppid() == os.getpid()
        server.kill()
        (cell,) = executed(tmp_path, asks, source=source)
    assert int(cell.outputs[0].text) == os.getpid()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(tmp_path / "gone"))
        with forkserver() as source:
            assert source is None
    monkeypatch.setattr(sys, "platform", "darwin")
    with forkserver() as source:
        assert source is None


def test_nothing_is_left_when_kernels_were_forked(tmp_path):
    with forkserver() as source:
        (cell,) = executed(tmp_path, "import os; print(os.getppid())", source=source)
        server = psutil.Process(int(cell.outputs[0].text))
        assert server.children() == []  # nor one that ended and that nobody asked for
    assert not server.is_running()


LONG = """
import os, pathlib, time
place = pathlib.Path({place!r})
(place / "half").write_text(str(os.getpid()))
(place / "half").replace(place / "begun")
try:
    time.sleep(600)
except KeyboardInterrupt:
    (place / "told").touch()
    raise
"""
SEQUENCE = """
import sys
from pathlib import Path
from utils.pipeline import sequence
from utils.runs import Run
place = Path(sys.argv[1])
names = ["04_curves", "05_misclassified"]
sequence.NOTEBOOKS.update({name: place / "a.ipynb" for name in names})
sequence.run_notebooks(Run("r", place), {}, names)
"""


@pytest.fixture
def running(tmp_path):
    """A sequence whose first cell takes long, its forked kernel, and what that is a fork of."""
    stored(tmp_path / "a.ipynb", LONG.format(place=str(tmp_path)))
    command = [sys.executable, "-c", SEQUENCE, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < until and process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        forked = psutil.Process(int((tmp_path / "begun").read_text()))
        server = forked.parent()
        assert server.ppid() == process.pid
        yield process, forked, server
        process.kill()


def test_ctrl_c_reaches_the_cell_of_a_forked_kernel(running, tmp_path):
    process, *others = running
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert said.strip().splitlines()[-1].startswith("utils.Interrupted: 04_curves was stopped")
    assert (tmp_path / "told").exists()
    assert not any(other.is_running() for other in others)
    assert Run("r", tmp_path).record["failure"]["error"] == "interrupted"


def test_forked_kernels_end_with_a_starter_that_is_killed(running, tmp_path):
    process, *others = running
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(others, timeout=120)
    assert alive == [] and not (tmp_path / "told").exists()
