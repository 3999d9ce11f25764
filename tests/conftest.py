"""Fixtures that several test files use, and the order in which files are tested.

Tests may be shared among processes (`make test`), each file by one of them.
"""

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from filelock import FileLock

from helpers.records import TINY

BUILD_SITE = """
import sys
from pathlib import Path
from utils.publish.book import build_site
print(build_site(target=Path(sys.argv[1])))
"""


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items):
    """Begin with files of many slow tests that wait for nothing; quick ones fill the time left."""
    waiting = [item for item in items if {"tiny_run", "built_site"} & set(item.fixturenames)]
    for item in waiting:
        item.add_marker("slow")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    late = {item.path for item in waiting}
    items.sort(key=lambda item: (not slow[item.path], item.path in late, -slow[item.path]))


@pytest.fixture(scope="session", autouse=True)
def in_background(request, shared_folder):
    """What takes long and several tests look at, made one after the other while others run."""
    wanted = {name for item in request.session.items for name in item.fixturenames}
    outputs, data, site = (str(shared_folder / name) for name in ("outputs", "data", "site/docs"))
    run = ["-m", "utils", "run", "--run-name", "tiny", "--output-dir", outputs, "--data-dir", data]
    run += [part for name, value in TINY.items() for part in ("-p", name, str(value))]
    arguments = {"tiny_run": run, "built_site": ["-c", BUILD_SITE, site]}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # A process of its own: what tests put in the place of functions and settings is not there.
    with ProcessPoolExecutor(1, get_context("spawn")) as worker:
        yield {
            name: worker.submit(_done, shared_folder / name, [sys.executable, *given], environment)
            for name, given in arguments.items()
            if name in wanted
        }
        worker.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder for what is made once, whatever number of processes share the tests."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Compute with one thread: two wait for each other where a core is taken, and round otherwise.

    What is made once for all tests has to come from as many threads as what is compared with it.
    """
    import torch

    torch.set_num_threads(1)


def _done(said: Path, command: list[str], environment: dict[str, str]) -> str:
    """Return the last line that a command printed, of whichever process is the first to run it."""
    with FileLock(f"{said}.lock"):
        if not said.exists():
            options = {"cwd": Path(__file__).parents[1], "capture_output": True, "text": True}
            done = subprocess.run(command, env=environment, **options)
            assert done.returncode == 0, done.stderr
            said.write_text(done.stdout)
    return said.read_text().strip().splitlines()[-1]


@pytest.fixture(scope="session")
def tiny_run(in_background: dict[str, Future], tmp_path_factory):
    """A run of all six notebooks on a few drawn shapes, through the command line.

    Each process has a copy of its own, in which nothing changes but by its own tests.
    """
    from utils.runs import Run

    made = Path(in_background["tiny_run"].result().split(": ", 1)[1])
    folder = tmp_path_factory.mktemp("outputs", numbered=False) / made.name
    shutil.copytree(made, folder)
    return Run(folder.name, folder.parent)


@pytest.fixture(scope="session")
def built_site(in_background: dict[str, Future]):
    """The whole site, with the chapters that are kept."""
    page = Path(in_background["built_site"].result())
    assert page.name == "index.html"
    return page.parent


@pytest.fixture(scope="session")
def built(tiny_run):
    """The folder of the tiny run's Space."""
    from utils.publish.space import build_space

    return build_space(tiny_run)


@pytest.fixture(scope="session")
def bundle(built):
    """The network in that folder, as the page uses it."""
    from utils.explain.portable import Bundle

    return Bundle(built)


@pytest.fixture(scope="session")
def exported(tiny_run, shared_folder):
    """What was told as the tiny run was exported, and the folder."""
    from utils.publish.export import export_run

    folder, told = shared_folder / "exported" / "network", shared_folder / "exported.txt"
    with FileLock(f"{told}.lock"):
        if not told.exists():
            told.write_text(export_run(tiny_run, folder))
    return told.read_text(), folder


@pytest.fixture(scope="module")
def small_network():
    """Whatever is trained is a network small enough to be trained many times."""
    from helpers.training import small_networks

    with small_networks():
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory, one_thread):
    """The plan of a complete run of the small network; tests only read it."""
    from helpers.training import make_plan, small_networks
    from utils.training.fit import fit

    with small_networks():
        plan = make_plan(tmp_path_factory.mktemp("trained"))
        fit(plan)
    return plan


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach the network fails the way it does offline."""

    def refuse(*_, **__):
        raise urllib.error.URLError("no network in a test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture
def no_gpu(monkeypatch):
    """Let torch find no GPU, whatever there is."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
