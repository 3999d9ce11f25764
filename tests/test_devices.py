"""What the hardware offers: memory that is free, and memory that is kept."""

import platform
import subprocess
import sys

import psutil
import pytest

from utils import devices
from utils.runs import ROOT


def test_available_memory_is_what_the_machine_has_free():
    assert 0 < devices.available_memory() <= psutil.virtual_memory().total


def test_available_memory_respects_the_limit_of_a_container(tmp_path, monkeypatch):
    for name, value in (("memory.max", "3000000"), ("memory.current", "1000000")):
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(devices, "CONTROL_GROUP", tmp_path)
    assert devices.available_memory() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.available_memory() > 2_000_000


COUNT_FAULTS = """
import resource, torch
from utils.devices import keep_freed_memory

def faults():
    for _ in range(20):  # until the heap has found its size
        torch.ones(10_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_freed_memory()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to")
def test_freed_memory_is_kept_and_not_cleared_anew_by_the_system():
    command = [sys.executable, "-c", COUNT_FAULTS]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    given_back, kept = map(int, done.stdout.split())
    assert kept * 10 < given_back
