"""How far a batch is: a line for each run that ends, in a terminal and in a log."""

import time

import pytest

from utils.batch import table
from utils.batch.dispatch import Dispatcher
from utils.batch.estimate import Clock
from utils.batch.one_run import Outcome, Task
from utils.batch.table import Table, summary

NAMES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture
def at():
    """Two runs that wait, four under way for a minute, and room for four."""
    dispatcher = Dispatcher(None, [Task(name, "") for name in "ef"], None)
    dispatcher.under_way = dict.fromkeys("abcd", time.monotonic() - 60)
    dispatcher.workers = 4
    return dispatcher


@pytest.fixture
def shown():
    return Table({name: f"seed={name}" for name in NAMES}, Clock(dict.fromkeys(NAMES, ""), {}))


def test_each_run_that_ends_has_a_line_with_all_counts_and_the_time_left(at, shown, capsys):
    shown.head()
    del at.under_way["a"]
    shown.ended(Outcome("a", seconds=120.0), at)
    del at.under_way["b"]
    shown.ended(Outcome("b", "no memory"), at)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "time",
        "waiting",
        "running",
        "done",
        "failed",
        "left",
        "what",
        "happened",
    ]
    assert lines == [
        "  0:00:00        2        3      1       0   0:03:00  done: seed=a, in 0:02:00",
        "  0:00:00        2        2      1       1   0:02:00  failed: seed=b: no memory",
    ]
    assert (shown.done, shown.failed) == (1, {"b": "no memory"})


def test_a_run_that_a_worker_took_over_says_so_and_is_no_measure_of_others(at, shown, capsys):
    del at.under_way["a"]
    shown.ended(Outcome("a", seconds=2.0, taken_over=True), at)
    assert capsys.readouterr().out.endswith(
        "–  done: seed=a, in 0:00:02 since it was taken over from a worker that died\n"
    )


def test_now_and_then_a_line_says_what_is_at_work(at, shown, capsys, monkeypatch):
    shown.breathe(at)
    shown.breathe(at)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("–  at work: seed=a, seed=b, seed=c and 1 more")
    monkeypatch.setattr(table, "BREATH", 0.0)
    at.under_way = {}
    shown.breathe(at)
    assert capsys.readouterr().out.endswith("waiting for a worker\n")


def test_the_end_names_what_failed_and_where_to_look():
    said = summary(3, {"seed=1": "no memory"}, 2, {"seed=1": "outputs/b/run/log.txt"})
    assert said.splitlines() == [
        "3 runs complete, 1 failed, 2 not finished.",
        "failed: seed=1: no memory (outputs/b/run/log.txt)",
    ]
