"""What the hardware offers: memory that is free, and memory that is kept."""

import platform
import subprocess
import sys

import psutil
import pytest
import torch

from utils import devices
from utils.devices import choose_precision
from utils.files import ROOT
from utils.models.registry import MODELS


def test_available_memory_is_what_the_machine_has_free():
    assert 0 < devices.available_memory() <= psutil.virtual_memory().total


def test_available_memory_respects_the_limit_of_a_container(tmp_path, monkeypatch):
    for name, value in (("memory.max", "3000000"), ("memory.current", "1000000")):
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(devices, "CONTROL_GROUP", tmp_path)
    assert devices.available_memory() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.available_memory() > 2_000_000


def group(folder, names, limit, used, reclaimable=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names.limit).write_text(f"{limit}\n")
    (folder / names.used).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 7\n{names.reclaimable} {reclaimable}\n")


@pytest.mark.parametrize(
    ("line", "place", "names"),
    [
        ("0::/user.slice/job", "user.slice/job", devices.VERSION_2),  # the process's own group
        ("0::/user.slice/job", "user.slice", devices.VERSION_2),  # one that it lies in
        ("0::/docker/0123", "", devices.VERSION_2),  # a container: the mounted folder is the group
        ("0::/../../outside", "", devices.VERSION_2),
        ("4:memory:/slurm/job_7", "memory/slurm/job_7", devices.VERSION_1),
        ("9:cpu,memory:/slurm/job_7", "memory/slurm", devices.VERSION_1),
        ("4:memory:/docker/0123", "memory", devices.VERSION_1),
    ],
)
def test_available_memory_respects_the_groups_of_both_versions(
    line, place, names, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(devices, "OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(f"8:pids:/\n{line}\n")
    group(tmp_path / "another", names, 1_000, 999)
    group(tmp_path / place, names, 5_000_000, 4_000_000)
    assert devices.available_memory() == 1_000_000
    group(tmp_path / place, names, 5_000_000, 4_000_000, reclaimable=3_000_000)
    assert devices.available_memory() == 4_000_000
    group(tmp_path / place, names, 2**63 - 4096, 4_000_000)  # how version 1 says that there is none
    assert devices.available_memory() > 5_000_000


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


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to")
def test_freed_memory_is_kept_and_not_cleared_anew_by_the_system():
    command = [sys.executable, "-c", COUNT_FAULTS]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    given_back, kept = map(int, done.stdout.split())
    assert kept * 10 < given_back


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((7, 0), "16-mixed"), ((7, 5), "16-mixed"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")],
)
def test_precision_of_a_gpu_follows_its_capability(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    chosen, reason = choose_precision("auto", "cuda")
    assert chosen == precision
    assert "{}.{}".format(*capability) in reason


@pytest.mark.parametrize(
    ("capabilities", "precision", "said"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16-mixed", "AMX"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16-mixed", "AVX-512 BF16"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "32-true", "no fast"),
        ({"neon": True}, "32-true", "no fast"),
    ],
)
def test_precision_of_a_cpu_follows_its_instructions(monkeypatch, capabilities, precision, said):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    chosen, reason = choose_precision("auto", "cpu")
    assert chosen == precision
    assert said in reason


@pytest.mark.parametrize(
    ("amx", "avx512", "precision"),
    [
        (True, False, "bf16-mixed"),
        (False, True, "bf16-mixed"),
        (False, False, "32-true"),
    ],
)
def test_precision_of_a_cpu_under_an_older_torch(monkeypatch, amx, avx512, precision):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert choose_precision("auto", "cpu")[0] == precision


def test_convolutions_of_one_channel_each_are_computed_in_float32_on_a_cpu(monkeypatch):
    monkeypatch.setattr("utils.devices._cpu_bfloat16", lambda: "units for it")
    assert choose_precision("auto", "cpu")[0] == "bf16-mixed"
    assert choose_precision("auto", "cpu", depthwise=True)[0] == "32-true"
    assert choose_precision("bf16-mixed", "cpu", depthwise=True)[0] == "bf16-mixed"
    depthwise = {name for name, network in MODELS.items() if network.depthwise}
    assert depthwise == {"efficientnet_lite0"}


def test_precision_asked_for_is_taken_whatever_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    assert choose_precision("32-true", "cuda")[0] == "32-true"
    assert choose_precision("16-mixed", "cuda")[0] == "16-mixed"
