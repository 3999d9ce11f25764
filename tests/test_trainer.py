"""The Trainer is quiet, and writes nothing but what it is told to."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.training import make_pictures
from utils.data.augment import normalise, several_views
from utils.data.batches import PictureDataModule
from utils.files import ROOT
from utils.models.registry import create_model
from utils.training.classifier import ImageClassifier
from utils.training.recipes import RECIPES
from utils.training.trainer import evaluate_averaged

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


@pytest.fixture(scope="module")
def classifier():
    network = create_model("davidnet", num_classes=3, width=4, image_size=16, seed=1)
    return ImageClassifier(network, 3, RECIPES["original"])


@pytest.mark.parametrize(("views", "unsure"), [(6, 0.2), (2, 0.4), (6, 1.0)])
def test_views_are_averaged_where_the_network_is_least_sure_in_whatever_order(
    classifier, views, unsure
):
    pictures = make_pictures(train_size=9, test_size=50)
    network = classifier.network.eval()

    def logits(images, count):
        shown = normalise(images, pictures.mean, pictures.std)
        with torch.no_grad():
            return sum(weight * network(view) for view, weight in several_views(shown, count))

    first, mean = (logits(pictures.test.images, count) for count in (1, views))
    lead = first.sort().values.diff()[:, -1]
    least = lead.argsort()[: round(unsure * 50)]
    expected = first.index_copy(0, least, mean[least])
    targets = pictures.test.targets
    assert not torch.allclose(expected, first) and (unsure == 1) == torch.equal(expected, mean)
    for order in (torch.arange(50), lead.argsort(), targets.argsort()):
        data = PictureDataModule(replace(pictures, test=pictures.test.subset(order)), 8)
        found = evaluate_averaged(classifier, data, "cpu", "32-true", views, unsure)
        right = (expected.argmax(1) == targets).float().mean().item()
        assert found["test_acc"] == pytest.approx(right)
        assert found["test_loss"] == pytest.approx(
            cross_entropy(expected, targets).item(), rel=1e-4
        )
    assert classifier.views == 1
