"""A batch from beginning to end, but for its workers: the plan, what is kept, who is refused."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from helpers.batches import NOTEBOOKS, complete, make_batch
from helpers.pictures import make_folder
from helpers.records import valid_record
from utils import InputError, Interrupted
from utils.batch import batch as batches
from utils.batch.batch import plan_batch, prepare, print_plan, run_batch
from utils.batch.grid import Asked
from utils.batch.one_run import COMPLETE, FAILED, INTERRUPTED, NEW, Outcome
from utils.data.sources import load_pictures
from utils.locks import held_alone
from utils.runs import Run
from utils.training.callbacks import NEEDED_TO_RESUME
from utils.training.plan import plan_training


class Done:
    """Stands for a dispatcher whose workers complete every run."""

    given: ClassVar[list[list[int]]] = []

    def __init__(self, client, tasks, *_):
        self.waiting, self.under_way, self.workers = list(tasks), {}, 1
        Done.given.append([task.parameters["seed"] for task in self.waiting])

    def outcomes(self):
        while self.waiting:
            task = self.waiting.pop(0)
            complete(task)
            yield Outcome(task.name, seconds=60.0)


@pytest.fixture
def given(monkeypatch):
    """The seeds that were given to workers, of each batch that was run."""
    monkeypatch.setattr(batches, "Dispatcher", Done)
    monkeypatch.setattr(Done, "given", [])
    return Done.given


class Nobody:
    """Workers that are never spoken with."""

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


def run(batch, **options):
    return run_batch(batch, Nobody, prepare=lambda _: None, **options)


def leave(batch):
    """Leave a complete run, an interrupted one, a failed one and a new one."""
    complete(batch.tasks[0])
    batch.tasks[1].run.update_record(status="running")
    batch.tasks[2].run.update_record(status="failed", failure={"error": "no memory"})
    assert list(batch.states().values()) == [COMPLETE, INTERRUPTED, FAILED, NEW]


def test_what_is_complete_is_kept_and_what_failed_is_tried_again_when_asked(
    tmp_path, given, capsys
):
    batch = make_batch(tmp_path / "b", 4)
    leave(batch)
    assert run(batch) == 1
    said = capsys.readouterr().out
    assert "4 runs in" in said and "of which 1 complete, 1 interrupted, 1 failed." in said
    assert "3 runs complete, 1 failed, 0 not finished." in said
    assert "failed: seed=2: no memory (" in said and "log.txt)" in said
    assert run(batch, retry_failed=True) == 0
    assert run(batch) == 0
    assert given == [[1, 3], [2]]


def test_a_changed_grid_takes_no_run_of_another(tmp_path, given):
    run(make_batch(tmp_path / "b", 2))
    run(make_batch(tmp_path / "b", 2, epochs=5))
    run(make_batch(tmp_path / "b", 3))
    run(make_batch(tmp_path / "b", 2, dataset_title="Drawn"))  # as only figures show
    assert given == [[0, 1], [0, 1], [2], [0, 1]]


def test_a_second_batch_of_the_same_name_is_refused(tmp_path, given):
    batch = make_batch(tmp_path / "b", 2)
    with (
        held_alone(batch.folder),
        pytest.raises(InputError, match=r"Batch 'b' in .* is at work already, in process \d+ on"),
    ):
        run(batch)
    assert run(batch) == 0


def test_what_was_stopped_says_how_to_go_on(tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Done, "outcomes", stop)
    monkeypatch.setattr(batches, "Dispatcher", Done)
    with pytest.raises(Interrupted, match=r"The batch was stopped\. .* the same command goes on"):
        run(make_batch(tmp_path / "b", 2))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(), "has no name"),
        (Asked("../up"), "The batch's name '../up' cannot name a folder"),
        (Asked("b", parameters={"epochs": 0}), "epochs is 0"),
        (Asked("b", grid={"recipe": ["speed", "sped"]}), "recipe 'sped' is unknown"),
        (Asked("b", grid={"image_size": [16, 20]}), "image_size is 20"),
        (Asked("b", grid={"epochs": [None]}, parameters={"seed": None}), "seed is None"),
        (Asked("b", grid={"epochs": [None]}, parameters={"epoch": 1}), "'epoch' is unknown"),
        (Asked("b", parameters={"run_name": "x"}), "run_name cannot be given to a batch"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(tmp_path, asked, said):
    asked = asked.joined(Asked(output_dir=str(tmp_path)))
    with pytest.raises(InputError, match=said):
        plan_batch(asked, NOTEBOOKS)
    assert list(tmp_path.iterdir()) == []


def test_two_cells_that_are_the_same_run_are_refused(tmp_path):
    asked = Asked("b", str(tmp_path), {"val_fraction": [0, 0.0], "seed": [1]})
    with pytest.raises(InputError, match=r"are the same run\. Leave one"):
        plan_batch(asked, NOTEBOOKS)


def test_a_run_is_no_batch(tmp_path):
    Run("b", tmp_path).update_record(status="complete")
    with pytest.raises(InputError, match="is a run, and no folder for others"):
        make_batch(tmp_path / "b")


def test_the_plan_says_what_there_is_and_how_long_the_rest_takes(tmp_path, capsys):
    batch = make_batch(tmp_path / "b", 4)
    leave(batch)
    print_plan(batch, 2, retry_failed=False)
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines()[:4]] == [
        [COMPLETE, "seed=0"],
        [INTERRUPTED, "seed=1"],
        [FAILED, "seed=2"],
        [NEW, "seed=3"],
    ]
    assert "To do: 2 runs. How long they take is known when the first is done." in said


def test_the_plan_takes_complete_runs_for_its_measure(tmp_path, capsys, monkeypatch):
    batch = make_batch(tmp_path / "b", 4)
    expected = dict.fromkeys(batch.labels) | {batch.tasks[1].name: 600.0}
    monkeypatch.setattr(batches.Batch, "expected", lambda _: expected)
    print_plan(batch, 2, retry_failed=False)
    said = capsys.readouterr().out
    assert "To do: 4 runs, 0:40:00 of work as runs like them took (3 of them are like none" in said
    assert said.endswith("0:20:00 with 2 at once.\n")
    print_plan(batch, None, retry_failed=False)
    assert capsys.readouterr().out.endswith("taken for average).\n")


def test_the_plan_counts_no_workers_that_would_have_nothing_to_do(tmp_path, capsys, monkeypatch):
    batch = make_batch(tmp_path / "b", 2)
    monkeypatch.setattr(batches.Batch, "expected", lambda _: dict.fromkeys(batch.labels, 3600.0))
    print_plan(batch, 16, retry_failed=False)
    said = capsys.readouterr().out
    assert said.endswith("2:00:00 of work as runs like them took: 1:00:00 with 16 at once.\n")


def test_runs_that_ask_for_a_gpu_need_workers_that_have_one(tmp_path):
    usual = make_batch(tmp_path / "b")
    asking = replace(usual.tasks[0], parameters={"seed": 0, "devices": "gpu"})
    assert not usual.on_gpu
    assert replace(usual, tasks=(asking, *usual.tasks[1:])).on_gpu


def test_pictures_are_prepared_once_and_what_was_begun_otherwise_is_refused(tmp_path, monkeypatch):
    from utils.data import sources

    loaded, load = [], sources.load_pictures

    def load_and_tell(**given):
        loaded.append(given["limit_train"])
        return load(**given)

    monkeypatch.setattr(sources, "load_pictures", load_and_tell)
    pictures = make_folder(tmp_path / "pets", {"ant": 9, "bee": 9})
    usual = {"dataset": str(pictures), "data_dir": str(tmp_path / "data"), "image_size": 16}
    asked = Asked("b", str(tmp_path), {"limit_train": [8, 6], "seed": [1, 2, 3]}, usual)
    batch = plan_batch(asked, NOTEBOOKS)
    prepare(batch)
    assert loaded == [8, 6]
    assert (tmp_path / "data" / "cache").is_dir()
    begun = batch.tasks[0]
    begun.run.update_record(**valid_record(**{**begun.parameters, "seed": 7}))
    with pytest.raises(InputError, match=r"seed was 7, now 1.*In a batch: delete .*, or give"):
        prepare(batch)


def test_pictures_are_prepared_in_each_size_that_recipes_bring(tmp_path, monkeypatch):
    from utils.data import sources

    sizes, load = [], sources.load_pictures

    def load_and_tell(**given):
        pictures = load(**given)
        sizes.append(pictures.image_size)
        return pictures

    monkeypatch.setattr(sources, "load_pictures", load_and_tell)
    pictures = make_folder(tmp_path / "pets", {"ant": 9, "bee": 9})
    usual = {"dataset": str(pictures), "data_dir": str(tmp_path / "data")}
    tuned = {"recipe": "finetune", "model": "resnet18", "weights": "random"}
    kinds = ({"recipe": "quick"}, tuned)
    batch = plan_batch(Asked("b", str(tmp_path), parameters=usual, kinds=kinds), NOTEBOOKS)
    prepare(batch)
    assert sizes == [32, 128]
    begun = batch.tasks[1]
    settings = plan_training(load(**begun.parameters), **begun.parameters).settings
    begun.run.update_record(**{**valid_record(), "settings": settings})
    prepare(batch)
    assert sizes == [32, 128, 32, 128]


def test_a_batch_for_gpus_elsewhere_is_planned_where_there_is_none(tmp_path, no_gpu):
    asked = Asked("b", str(tmp_path), {"seed": [1, 2]}, {"devices": "gpu"})
    assert plan_batch(asked, NOTEBOOKS, elsewhere=True).on_gpu
    with pytest.raises(InputError, match="devices is 'gpu', but torch finds no GPU here"):
        plan_batch(asked, NOTEBOOKS)


@pytest.mark.parametrize("devices", ["auto", "gpu"])
def test_what_a_gpu_elsewhere_left_unfinished_is_gone_on_with_from_here(tmp_path, no_gpu, devices):
    usual = {"data_dir": str(tmp_path), "image_size": 16, "limit_train": 40, "limit_test": 20}
    asked = Asked("b", str(tmp_path), {"seed": [1]}, usual | {"devices": devices})
    batch = plan_batch(asked, NOTEBOOKS, elsewhere=True)
    (task,) = batch.tasks
    begun = plan_training(load_pictures(**usual), **usual, seed=1).settings
    begun |= {"devices": "cuda", "precision": "bf16-mixed"}
    task.run.update_record(**{**valid_record(), "settings": begun})
    task.run.path("checkpoints").mkdir()
    held = dict.fromkeys(NEEDED_TO_RESUME) | {"epoch": 0, "identity": {}}
    torch.save(held, task.run.path("checkpoints", "last.ckpt"))
    prepare(batch)
    told = "no units" if devices == "auto" else "no GPU here"
    with pytest.raises(InputError, match=told) as refused:
        prepare(replace(batch, elsewhere=False))
    assert "delete" not in str(refused.value)
    task.run.update_record(settings={**begun, "seed": 7})
    with pytest.raises(InputError, match="seed was 7, now 1"):
        prepare(batch)
