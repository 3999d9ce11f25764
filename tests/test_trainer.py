"""The Trainer is quiet, and writes nothing but what it is told to."""

import os
import subprocess
import sys

import pytest

from utils.files import ROOT

QUIET_SCRIPT = """
import sys
from helpers.training import SmallDavidNet, make_plan
from utils.models.registry import MODELS
from utils.models.summary import layer_table
from utils.training import lr_finder
from utils.training.fit import fit
from utils.training.predictions import predict_test
MODELS["davidnet"] = SmallDavidNet
plan = make_plan(sys.argv[1], epochs=2)
layer_table(plan.network(), 16)
lr_finder.sweep(plan, steps=10)
print("now training")
run = fit(plan)
predict_test(run, plan.picture_set, devices="cpu")
fit(plan)
"""


@pytest.mark.slow
def test_nothing_is_printed_but_our_own_lines_and_nothing_written_elsewhere(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", QUIET_SCRIPT, str(tmp_path / "outputs")], cwd=here,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(here.iterdir())
    printed = done.stdout + done.stderr
    for chatter in ("GPU", "TPU", "HPU", "💡", "Tip", "max_epochs", "max_steps", "arning",
                    "Restor", "log_every_n_steps", "`Trainer", "rank_zero"):  # fmt: skip
        assert chatter not in printed, printed
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0] == "now training"
    assert [line.split()[:2] for line in lines[1:3]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert "reused" in lines[3]
    assert lines[4:] == lines[1:3]  # how it went, again
    for line in done.stderr.replace("\r", "\n").splitlines():  # progress bars, and no more
        assert not line.strip() or line.startswith(("Training:", "Epoch", "Range test:")), line
