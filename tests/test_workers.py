"""Workers: how many this machine has room for, one for each GPU, and what each is told."""

import os

import psutil
import pytest
import torch

from helpers.batches import quick_workers
from utils import InputError, devices
from utils.batch.workers import GPU, local_workers, plan_workers, size_of_machine, visible_gpus


@pytest.mark.parametrize(
    ("cores", "memory", "asked", "expected"),
    [
        (2, 20, None, (2, 1)),
        (64, 500, None, (64, 1)),
        (64, 40, None, (20, 3)),
        (4, 1, None, (1, 4)),
        (8, 1, 2, (2, 4)),
        (2, 1, 5, (5, 1)),
    ],
)
def test_as_many_runs_as_cores_and_memory_allow_share_the_threads(cores, memory, asked, expected):
    assert size_of_machine(cores, memory * 10**9, asked) == expected


def test_a_gpu_has_one_worker_and_only_that_sees_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(None) == visible_gpus("gpu") == ["0", "1", "2"]
    assert visible_gpus("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-8e,7")
    environments, threads = plan_workers(None, visible_gpus("auto"))
    assert environments == [{"CUDA_VISIBLE_DEVICES": name} for name in ("4", "GPU-8e", "7")]
    assert threads >= 1
    assert len(plan_workers(2, visible_gpus("auto"))[0]) == 2
    with pytest.raises(InputError, match="--workers is 4, but there are 3 GPUs here"):
        plan_workers(4, visible_gpus("auto"))


def test_without_a_gpu_this_process_s_own_cores_count(monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda: 10**12)
    environments, threads = plan_workers(None, [])
    assert (len(environments), threads) == (len(psutil.Process().cpu_affinity()), 1)
    with pytest.raises(InputError, match="--workers is 0"):
        plan_workers(0, [])


@pytest.mark.slow
def test_workers_speak_in_secret_have_one_thread_and_are_labelled_by_their_gpu():
    with quick_workers(1) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        assert client.nthreads().popitem()[1] == 1
    with local_workers([{"CUDA_VISIBLE_DEVICES": "4"}]) as client:
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["resources"] == {GPU: 1}
        seen = client.submit(os.getenv, "CUDA_VISIBLE_DEVICES", resources={GPU: 1})
        assert seen.result(timeout=20) == "4"
