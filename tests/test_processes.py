"""One training shared by two processes: the same batches, figures and weights as by one."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from shutil import copytree

import pytest
import torch
from pytorch_lightning.strategies import StrategyRegistry
from torch import nn

from helpers.training import (
    EPOCHS,
    TEST_SIZE,
    SmallDavidNet,
    all_files,
    interrupt,
    make_pictures,
    make_plan,
    read_table,
    same_weights,
    weights,
)
from utils import InputError, Interrupted
from utils.data.batches import EpochShuffle, InOrder
from utils.data.epochs import pictures_per_epoch
from utils.files import ROOT
from utils.models.registry import MODELS, create_model
from utils.settings import SETTINGS, as_meant
from utils.training.callbacks import TrainingLog
from utils.training.fit import fit
from utils.training.predictions import predict_test
from utils.training.processes import Processes, choose_processes
from utils.training.recipes import RECIPES

pytestmark = [
    pytest.mark.usefixtures("small_network"),
    pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there"),
]
BATCH_SIZE, SKIPPED = 10, 0.25  # of 33 pictures an epoch, the last batch has 3


class NoNorm(SmallDavidNet):
    """Normalises each picture by itself, so that those of a batch do not touch each other."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.GroupNorm(1, child.num_features))


def shared_plan(folder, devices, **changes):
    """A training that chooses its pictures by their losses, and augments them; its head begins."""
    recipe = RECIPES["original"].changed(skipped=SKIPPED, jitter=0.2, head_share=0.5)
    changes = {"recipe": recipe, "batch_size": BATCH_SIZE, "max_lr": 0.003} | changes
    return make_plan(folder, devices=devices, run_name=devices.replace(":", ""), **changes)


def trained_by(folder, devices, patch, **changes):
    """A run, and what each of its processes saw: epoch, positions and threads of each batch."""
    original = TrainingLog.on_train_batch_start

    def note(self, trainer, module, batch, number):
        with open(folder / f"seen-{devices}-{trainer.global_rank}.jsonl", "a") as file:
            seen = [trainer.current_epoch, batch[2].tolist(), torch.get_num_threads()]
            file.write(json.dumps(seen) + "\n")
        original(self, trainer, module, batch, number)

    patch.setattr(TrainingLog, "on_train_batch_start", note)
    run = fit(shared_plan(folder, devices, **changes))
    paths = sorted(folder.glob(f"seen-{devices}-*.jsonl"))
    return run, [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


@pytest.fixture(scope="module")
def both(tmp_path_factory, small_network):
    """The same training by one process, and by two, whose starter has used two threads."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "davidnet", NoNorm)
        alone = trained_by(folder, "cpu", patch)
        patch.setenv("OMP_NUM_THREADS", "2")
        torch.set_num_threads(2)
        torch.randn(64, 64, 32, 32).exp().sum()
        together = trained_by(folder, "cpu:2", patch)
        torch.set_num_threads(1)
    return alone, together


@pytest.mark.slow
def test_both_parts_of_every_batch_are_the_batch_and_share_no_picture(both):
    (_, (alone,)), (_, (first, second)) = both
    assert len(alone) == len(first) == len(second) == EPOCHS * 4
    for (epoch, whole, _), (epoch_1, part, _), (epoch_2, other, _) in zip(
        alone, first, second, strict=True
    ):
        assert epoch == epoch_1 == epoch_2
        assert sorted(part + other) == sorted(whole)
        assert not set(part) & set(other)
        assert abs(len(part) - len(other)) <= 1
    sizes = [len(whole) for _, whole, _ in alone]
    assert sizes == [10, 10, 10, 3] * EPOCHS


@pytest.mark.slow
def test_a_fork_never_counts_on_threads_that_it_does_not_have(both):
    _, (_, seen) = both
    assert {threads for part in seen for _, _, threads in part} == {1}


@pytest.mark.slow
def test_weights_without_batch_normalisation_are_those_of_one_process(both):
    (alone, _), (together, _) = both
    mine, fresh = weights(together), create_model("davidnet", 3, 16, seed=0).state_dict()
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-6)
    moved = [not torch.allclose(mine[n], fresh[n], rtol=1e-2) for n in mine if n in fresh]
    assert any(moved)


@pytest.mark.slow
def test_figures_of_steps_and_epochs_are_those_of_one_process(both):
    (alone, _), (together, _) = both
    for name in ("metrics.csv", "steps.csv"):
        rows = zip(read_table(alone, name), read_table(together, name), strict=True)
        for row, other in rows:
            for key in set(row) - {"seconds"}:
                assert float(other[key]) == pytest.approx(float(row[key]), rel=1e-4), key
            if "train_acc" in row:  # counts of pictures
                assert (row["train_acc"], row["val_acc"]) == (other["train_acc"], other["val_acc"])


@pytest.mark.slow
def test_there_is_one_set_of_files_and_the_record_tells_of_two_processes(both):
    (alone, _), (together, _) = both

    def names(run):
        return {n.name for n in all_files(run.folder) if not n.name.startswith("events.")}

    assert names(together) == names(alone)
    assert len(list(together.path("tensorboard").glob("events.*"))) == 1
    record, settings = together.record, together.settings
    assert record["status"] == "complete"
    assert record["device"]["name"].endswith(", 2 processes")
    assert (settings["devices"], settings["strategy"]) == ("cpu:2", "ddp_notebook")
    assert (alone.settings["devices"], alone.settings["strategy"]) == ("cpu", "auto")
    assert 0 < record["seconds"]["watching"] < record["seconds"]["training"]


@pytest.mark.slow
def test_a_shared_run_is_reused_as_any_other_and_its_predictions_read(both, capsys):
    _, (together, _) = both
    plan = shared_plan(together.folder.parent, "cpu")
    plan = replace(plan, run=together)
    assert fit(plan).record["settings"]["devices"] == "cpu:2"
    assert "is reused" in capsys.readouterr().out
    assert len(predict_test(together, plan.picture_set, "cpu").index) == TEST_SIZE


@pytest.fixture(scope="module")
def normalised(tmp_path_factory, small_network):
    """A run of DavidNet by two processes."""
    folder = tmp_path_factory.mktemp("normalised")
    return fit(make_plan(folder, devices="cpu:2"))


@pytest.mark.slow
def test_figures_of_davidnet_are_exact_over_both_processes(normalised):
    last, final = read_table(normalised, "metrics.csv")[-1], normalised.read_json("metrics.json")
    assert float(last["val_acc"]) == pytest.approx(final["test_acc"], abs=1e-7)  # by one process
    assert float(last["val_loss"]) == pytest.approx(final["test_loss"], rel=1e-5)


def in_second_epoch(trainer):
    return trainer.current_epoch == 1


@pytest.mark.slow
def test_what_was_interrupted_goes_on_to_the_same_end_or_alone(
    normalised, tmp_path, monkeypatch, capsys
):
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    with monkeypatch.context() as patch:
        interrupt(patch, "on_train_epoch_end", RuntimeError("gone"), in_second_epoch)
        with pytest.raises(Exception, match="RuntimeError: gone"):
            fit(make_plan(shared, devices="cpu:2"))
    copytree(shared, alone)
    capsys.readouterr()
    run = fit(make_plan(shared, devices="auto"))  # keeps its own: two
    assert "resumed from its last finished epoch" in capsys.readouterr().out
    assert run.settings["devices"] == "cpu:2"
    assert len(read_table(run, "metrics.csv")) == EPOCHS
    assert same_weights(run, normalised)
    other = fit(make_plan(alone, devices="cpu"))
    assert other.record["changes"] == [{"epoch": 2, "settings": {"devices": ["cpu:2", "cpu"]}}]


@pytest.mark.slow
def test_what_a_process_tells_a_person_is_told(tmp_path, monkeypatch):
    interrupt(monkeypatch, "on_train_epoch_end", InputError("Lower max_lr."), lambda _: True)
    with pytest.raises(InputError, match=r"^Lower max_lr\.$"):
        fit(make_plan(tmp_path, devices="cpu:2"))


@pytest.mark.slow
def test_a_person_who_stops_the_starter_stops_all(tmp_path, monkeypatch):
    def stop(trainer):
        if in_second_epoch(trainer):
            if trainer.is_global_zero:
                os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)

    interrupt(monkeypatch, "on_train_epoch_end", None, stop)
    started = time.perf_counter()
    # a shell has what it starts in the background ignore the signal
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted, match="1 of 3 epochs are finished and kept"):
            fit(make_plan(tmp_path, devices="cpu:2"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - started < 50


@pytest.mark.parametrize(
    ("device", "total", "says"), [("cpu", 1, 0), ("cpu", 2, 1), ("cuda", 2, 0)]
)
def test_it_is_said_where_batch_normalisation_is_not_shared(device, total, says):
    processes, network = Processes(total, 1, "ddp_notebook"), create_model("davidnet", 3, 16)
    assert bool(processes.remark(device, network, 64)) == says
    assert processes.remark(device, NoNorm(3, 16), 64) is None


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_notebook"])
@pytest.mark.parametrize("some_wait", [False, True])
def test_how_processes_share_has_a_name_that_lightning_knows(strategy, some_wait):
    name = Processes(2, 1, strategy).lightning_strategy(some_wait)
    assert name == "auto" or name in StrategyRegistry.available_strategies()
    assert ("unused" in name) == (some_wait and strategy != "auto")


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_leave_nothing_out_and_give_nothing_twice(processes):
    for make in (lambda: InOrder(33, 8), lambda: EpochShuffle(44, 8, 5, 33)):
        whole, parts = list(make()), []
        for rank in range(processes):
            sampler = make()
            sampler.rank, sampler.processes = rank, processes
            parts.append(list(sampler))
            assert len(parts[-1]) == len(sampler) == len(whole)
        for number, batch in enumerate(whole):
            shared = torch.cat([part[number] for part in parts])
            assert sorted(shared.tolist()) == sorted(batch.tolist())


# What is refused


def test_a_batch_that_leaves_a_process_without_a_picture_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"2 processes cannot share a batch of 1 picture, the last"
    ):
        fit(make_plan(tmp_path, make_pictures(train_size=41), devices="cpu:2"))
    assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(InputError, match=r"9 processes cannot share a batch of 8 pictures: each"):
        Processes(9).check(8, 80)
    Processes(2).check(8, pictures_per_epoch(44, 0))


def test_a_share_that_cannot_be_normalised_is_refused_with_a_batch_that_can(tmp_path):
    settings = {"recipe": "speed", "max_lr": None, "devices": "cpu:2"}
    with pytest.raises(InputError, match=r"Give batch_size 10, or a larger image_size"):
        fit(make_plan(tmp_path, make_pictures(train_size=26), **settings))  # shows 19: 8, 8, 3
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("value", ["cpu:0", "gpu:", "gpu:-1", "gpu:two", "2", "cpu:99999", "tpu:2"])
def test_what_is_no_number_of_devices_is_refused(value):
    with pytest.raises(InputError, match=r"devices .* is unknown. Choose one of: auto, cpu, gpu"):
        SETTINGS["devices"].check(as_meant("devices", value))


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"strategy": "dpp"}, "strategy 'dpp' is unknown. Choose one of: ddp, ddp_notebook"),
        ({"strategy": "ddp", "devices": "cpu:2"}, "torchrun did not start this"),
        ({"strategy": "ddp_notebook"}, "one process has nothing to share"),
        ({"num_nodes": 0}, "num_nodes is 0; it must be a whole number from 1"),
        ({"num_nodes": 2}, "torchrun did not start this. .*--nproc-per-node 1 -m utils train"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, asked, match):
    with pytest.raises(InputError, match=match):
        make_plan(tmp_path, **asked)


def test_more_gpus_than_there_are_are_refused(tmp_path, monkeypatch):
    for name, value in {"is_available": True, "device_count": 2, "is_initialized": False}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "G")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with pytest.raises(InputError, match="'gpu:3', but torch finds 2 GPUs here"):
        make_plan(tmp_path, devices="gpu:3")
    plan = make_plan(tmp_path, devices="gpu:2", precision="auto")
    assert (plan.settings["devices"], plan.device) == ("cuda:2", "cuda")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(InputError, match=r"has used a GPU.* --nproc-per-node 2"):
        plan.processes.check(8, 40)


# torchrun


@pytest.fixture
def torchrun(monkeypatch):
    """As torchrun starts the first of four processes, on two machines."""
    four = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "RANK": "0"}
    for name, value in four.items():
        monkeypatch.setenv(name, value)


def test_under_torchrun_there_are_as_many_as_it_started(torchrun):
    for devices in ("auto", "cpu", "cpu:2"):
        assert choose_processes(devices, 2) == Processes(2, 2, "ddp")


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (("cpu:3", 2), "'cpu:3', but torchrun started 2 processes"),
        (("cpu", 1), "num_nodes is 1, but torchrun started processes on 2 machines"),
        (("cpu", 2, "ddp_notebook"), "torchrun has started them"),
    ],
)
def test_what_torchrun_did_not_start_is_refused(torchrun, asked, match):
    with pytest.raises(InputError, match=match):
        choose_processes(*asked)


@pytest.mark.slow
def test_torchrun_trains_with_two_processes_and_the_first_alone_writes_and_speaks(tmp_path):
    options = {
        "epochs": 2, "limit_train": 60, "limit_test": 33, "image_size": 16, "batch_size": 16,
        "devices": "cpu", "precision": "32-true",
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "utils", "train", "--run-name", "run", "--output-dir", str(tmp_path)]
    command += ["--data-dir", str(tmp_path / "data")]
    command += [part for name, value in options.items() for part in ("-p", name, str(value))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert len([line for line in lines if line.startswith("epoch ")]) == 2
    assert len([line for line in lines if line.startswith("run ")]) == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "complete"
    assert (record["settings"]["devices"], record["settings"]["strategy"]) == ("cpu:2", "ddp")
    (table,) = tmp_path.rglob("metrics.csv")
    final = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert float(table.read_text().split(",")[-2]) == pytest.approx(final["test_acc"], abs=1e-7)
