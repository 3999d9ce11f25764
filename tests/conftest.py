"""Fixtures that several test files use, and the order in which files are tested."""

import os
import socket
import subprocess
import sys
import urllib.error
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from helpers.records import TINY

#: Tested last, when nothing else is at work: they measure times, or kill at certain moments.
TIMED = ("test_bench", "test_kill")
BUILD_SITE = """
import sys
from pathlib import Path
from utils.publish.book import build_site
print(build_site(target=Path(sys.argv[1])))
"""


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items):
    """Test first what waits for nothing that is made in the background, and last what is timed."""
    waiting = [item for item in items if {"tiny_run", "built_site"} & set(item.fixturenames)]
    for item in waiting:
        item.add_marker("slow")
    files = {item.path for item in waiting}
    items.sort(key=lambda item: 2 * (item.path.stem in TIMED) + (item.path in files))


@pytest.fixture(scope="session", autouse=True)
def in_background(request, tmp_path_factory):
    """What takes long and several tests look at, made one after the other while others run."""
    wanted = {name for item in request.session.items for name in item.fixturenames}
    folder = tmp_path_factory.mktemp("background")
    run = ["-m", "utils", "run", "--run-name", "tiny", "--output-dir", str(folder / "outputs")]
    run += ["--data-dir", str(folder / "data")]
    run += [part for name, value in TINY.items() for part in ("-p", name, str(value))]
    arguments = {"tiny_run": run, "built_site": ["-c", BUILD_SITE, str(folder / "site" / "docs")]}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # A process of its own: what tests put in the place of functions and settings is not there.
    with ProcessPoolExecutor(1, get_context("spawn")) as worker:
        yield {
            name: worker.submit(_done, [sys.executable, *given], environment)
            for name, given in arguments.items()
            if name in wanted
        }
        worker.shutdown(cancel_futures=True)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Compute with one thread: two wait for each other where a core is taken, and round otherwise.

    What is made once for all tests has to come from as many threads as what is compared with it.
    """
    import torch

    torch.set_num_threads(1)


def _done(command: list[str], environment: dict[str, str]) -> str:
    """Return the last line that a command printed."""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def tiny_run(in_background: dict[str, Future]):
    """A run of all six notebooks on a few drawn shapes, through the command line."""
    from utils.runs import Run

    folder = Path(in_background["tiny_run"].result().split(": ", 1)[1])
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
def exported(tiny_run, tmp_path_factory):
    """What was told as the tiny run was exported, and the folder."""
    from utils.publish.export import export_run

    folder = tmp_path_factory.mktemp("exported") / "network"
    return export_run(tiny_run, folder), folder


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
