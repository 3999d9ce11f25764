"""A real training process, killed again and again, ends where an uninterrupted one does."""

import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

EPOCHS = 14
WAIT_LIMIT = 60  # seconds without a sign of life, after which something is wrong

#: New processes fork from one that has imported what training needs: each starts at once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["utils.training.fit"])


def train(folder: str) -> None:
    """Train the real network on few small pictures, in this process."""
    from utils.data.sources import load_pictures
    from utils.training.fit import fit
    from utils.training.plan import plan_training

    torch.set_num_threads(1)
    log = open(Path(folder, "log.txt"), "a")  # noqa: SIM115 - open until the process ends
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    picture_set = load_pictures(
        dataset="shapes",
        data_dir=Path(folder, "data"),
        image_size=16,
        limit_train=32,
        limit_test=20,
    )
    fit(
        plan_training(
            picture_set, run_name="run", output_dir=folder, epochs=EPOCHS, batch_size=16,
            devices="cpu",
        )
    )  # fmt: skip


def start(folder: Path):
    process = processes.Process(target=train, args=(str(folder),))
    process.start()
    return process


def finish(folder: Path) -> None:
    process = start(folder)
    process.join(timeout=5 * WAIT_LIMIT)
    assert process.exitcode == 0, Path(folder, "log.txt").read_text()[-3000:]


def wait_for_write(folder: Path, process, number: int) -> None:
    """Return when this process is writing a checkpoint, its first or a later one."""
    checkpoints, until = folder / "run" / "checkpoints", time.monotonic() + WAIT_LIMIT
    seen = set(os.listdir(checkpoints)) if checkpoints.exists() else set()
    while time.monotonic() < until and process.is_alive():
        there = set(os.listdir(checkpoints)) if checkpoints.exists() else set()
        if new := there - seen - {"last.ckpt"}:
            seen |= new
            number -= 1
            if number == 0:
                return
        time.sleep(0.0005)
    raise AssertionError("no checkpoint was written")


def wait_for_lock(folder: Path, process) -> None:
    """Return when this process has taken the run."""
    holder, until = folder / "run" / ".holder.json", time.monotonic() + WAIT_LIMIT
    while time.monotonic() < until and process.is_alive():
        if holder.exists() and json.loads(holder.read_text())["process"] == process.pid:
            return
        time.sleep(0.001)
    raise AssertionError("training did not begin")


def epochs_in(run: Path) -> int:
    return len(rows_but_seconds(run)) if (run / "metrics.csv").exists() else 0


def wait_for_epochs(folder: Path, process, number: int) -> None:
    """Return when this process has finished so many epochs more than there were."""
    until, before = time.monotonic() + WAIT_LIMIT, epochs_in(folder / "run")
    while time.monotonic() < until and process.is_alive():
        if epochs_in(folder / "run") >= before + number:
            return
        time.sleep(0.001)
    raise AssertionError(f"{number} epochs were not finished")


def check_nothing_is_half_written(run: Path) -> int:
    """Read every file under its proper name; return the number of epochs in the checkpoint."""
    for name in ("run.json", "metrics.json"):
        if (run / name).exists():
            json.loads((run / name).read_text())
    for name in ("metrics.csv", "steps.csv"):
        if (run / name).exists():
            rows = list(csv.reader((run / name).read_text().splitlines()))
            assert {len(row) for row in rows} == {len(rows[0])}
    checkpoint = run / "checkpoints" / "last.ckpt"
    if not checkpoint.exists():
        return 0
    with ZipFile(checkpoint) as archive:
        assert archive.testzip() is None
    return torch.load(checkpoint, weights_only=True, mmap=True)["epoch"] + 1


def kill(folder: Path, *, write: int = 0, epochs: int = 0, delay: float = 0.0) -> str:
    """Start training, kill it in its `write`th checkpoint or after a while; tell what was found.

    The while is so many epochs, however long they take, and seconds.
    """
    process = start(folder)
    if write:
        wait_for_write(folder, process, write)
    else:
        wait_for_lock(folder, process)
        wait_for_epochs(folder, process, epochs)
        time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was finished before it could be killed"
    after = f"{delay:.2f} s after {epochs} epochs"
    kind = f"while writing checkpoint {write}" if write else after
    left = [path.name for path in (folder / "run").rglob(".davidnet~*") if path.suffix == ".ckpt"]
    finished = check_nothing_is_half_written(folder / "run")
    for path in (folder / "run").glob(".davidnet~*"):
        os.utime(path, (0, 0))  # tables: what lies there may be another's, unless it has lain long
    return f"{kind}: {finished} epochs kept, {len(left)} half-written checkpoints left"


def rows_but_seconds(run: Path) -> list[dict]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{**row, "seconds": None} for row in csv.DictReader(file)]


def check_same_end(run: Path, reference: Path) -> None:
    assert len(rows_but_seconds(run)) == EPOCHS
    assert rows_but_seconds(run) == rows_but_seconds(reference)
    assert (run / "steps.csv").read_bytes() == (reference / "steps.csv").read_bytes()
    assert (run / "metrics.json").read_bytes() == (reference / "metrics.json").read_bytes()
    weights, expected = (load_file(r / "model.safetensors") for r in (run, reference))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    predictions, expected = (np.load(r / "predictions.npz") for r in (run, reference))
    for name in expected.files:
        np.testing.assert_array_equal(predictions[name], expected[name])
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    assert [p.name for p in run.rglob(".*")] == [".lock"]  # what was half-written is gone


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("reference")
    finish(folder)
    return folder / "run"


def epoch_seconds(run: Path) -> float:
    with (run / "metrics.csv").open(newline="") as file:
        return float(np.median([float(row["seconds"]) for row in csv.DictReader(file)]))


def test_a_training_killed_at_random_moments_ends_like_an_uninterrupted_one(reference, tmp_path):
    moments, log = random.Random(7), []
    one_epoch = epoch_seconds(reference)
    for number in range(1, 13):
        if number % 3 == 0:
            found = kill(tmp_path, write=moments.choice((1, 2)))
        else:
            epochs, part = divmod(moments.uniform(0, 4), 1)
            found = kill(tmp_path, epochs=int(epochs), delay=part * one_epoch)
        log.append(f"kill {number:2}, {found}")
    finish(tmp_path)
    print("\n".join(log))
    assert sum("1 half-written" in line for line in log) >= 2  # some did hit a write
    check_same_end(tmp_path / "run", reference)


def another_file_system(path: Path) -> Path | None:
    shared = Path("/dev/shm")
    usable = shared.is_dir() and os.access(shared, os.W_OK)
    differs = usable and shared.stat().st_dev != path.stat().st_dev
    return shared if differs and shutil.disk_usage(shared).free > 2**30 else None


def test_checkpoints_are_atomic_on_another_file_system_too(reference, tmp_path):
    """A temporary file in the system's own folder would have to be copied over, byte by byte."""
    place = another_file_system(Path(tempfile.gettempdir()))
    if place is None:
        pytest.skip("there is no second file system to write to (/dev/shm)")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for write in (1, 2, 1):
            print("kill " + kill(Path(folder), write=write))
        finish(Path(folder))
        check_same_end(Path(folder, "run"), reference)
