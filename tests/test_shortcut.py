"""A mark that tells the class: where it lies, and that a network which reads it is found out."""

import numpy as np
import pytest
import torch

from utils.data import drawn_shapes
from utils.data.picture_set import PictureSet, Split
from utils.measure import shortcut
from utils.measure.shortcut import CLEAN, MARKED, Outcome, ask, mark, mark_places, marked_sets
from utils.models.davidnet import DavidNet

COUNT = 60


@pytest.fixture(scope="module")
def picture_set():
    drawn = drawn_shapes.draw_split("test", count=COUNT)
    split = Split(*(torch.from_numpy(a) for a in (drawn.images, drawn.targets, drawn.masks)))
    half, classes = (0.5, 0.5, 0.5), drawn_shapes.CLASSES
    options = {"dataset": "shapes"}
    return PictureSet("shapes", "shapes", classes, split, split, half, half, "f", (), options)


def test_every_place_has_a_whole_mark_of_its_own():
    where = mark_places(torch.arange(10), 32)
    assert where.sum(dim=(1, 2)).tolist() == [9] * 10
    assert (where.sum(dim=0) <= 1).all()
    assert not where[:, [0, 1, -1, -2]].any() and not where[:, :, [0, 1, -1, -2]].any()


def test_a_mark_changes_nothing_else(picture_set):
    images, targets = picture_set.test.images, picture_set.test.targets
    marked, where = mark(images, targets), mark_places(targets, 32)
    there = where[:, None].expand_as(images)
    assert torch.equal(marked[~there], images[~there])
    colours = marked.permute(0, 2, 3, 1)[where]
    assert (colours == torch.tensor(shortcut.COLOUR)).all()


def test_marks_tell_the_class_or_nothing(picture_set):
    sets = marked_sets(picture_set)
    by_class = mark(picture_set.train.images, picture_set.train.targets)
    assert torch.equal(sets[MARKED].train.images, by_class)
    same = (sets[CLEAN].train.images == by_class).all(dim=(1, 2, 3))
    assert same.float().mean() < 0.35
    assert len({each.fingerprint for each in (*sets.values(), picture_set)}) == 3
    assert torch.equal(sets[CLEAN].train.targets, picture_set.train.targets)


class ReadsMark(DavidNet):
    """Says the class whose place is marked."""

    def __init__(self, by_mark):
        super().__init__(width=4)
        where = mark_places(torch.arange(10), 32).float()
        self.register_buffer("where", where if by_mark else torch.zeros_like(where))

    def forward(self, x):
        magenta = (x[:, 0] + x[:, 2] - x[:, 1]).clamp(0) ** 3
        return torch.einsum("nhw,chw->nc", magenta, self.where) + 1e-3 * self.head(
            self.layer3(self.layer2(self.layer1(self.prep(x))))
        )


def test_a_network_that_reads_the_mark_follows_it(picture_set):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = {MARKED: ReadsMark(True).eval(), CLEAN: ReadsMark(False).eval()}
    outcome = ask(networks, picture_set, COUNT)
    assert outcome.accuracy[0] == 1.0
    assert outcome.flipped[0] == 1.0
    assert outcome.accuracy[1] < 0.5
    assert outcome.flipped[1] < 0.5
    assert {method for method, _ in outcome.auroc} == {
        "gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam"
    }  # fmt: skip
    assert all(0 <= value <= 1 for value in outcome.auroc.values())


def test_maps_that_point_at_the_mark_tell_the_networks_apart(picture_set, monkeypatch):
    where = mark_places(picture_set.test.targets, 32).numpy()[:, None].repeat(4, axis=1)

    def maps(network, images, targets, methods, blocks):
        noise = np.random.default_rng(0).random(where.shape, np.float32)
        return {m: noise + 10 * where * (network.by_mark and m == "hirescam") for m in methods}

    monkeypatch.setattr(shortcut, "maps_by_method", maps)
    networks = {}
    for name, by_mark in ((MARKED, True), (CLEAN, False)):
        networks[name] = ReadsMark(by_mark).eval()
        networks[name].by_mark = by_mark
    auroc = ask(networks, picture_set, COUNT).auroc
    assert auroc["hirescam", "layer1"] == 1.0
    assert auroc["gradcam", "layer1"] == pytest.approx(0.5)


def test_the_table_has_mean_and_deviation_over_seeds():
    outcomes = [
        Outcome((0.9, 0.8), (0.85, 0.02), {("gradcam", "layer1"): 0.6, ("gradcam", "layer3"): 1.0}),
        Outcome((1.0, 0.8), (0.95, 0.0), {("gradcam", "layer1"): 0.8, ("gradcam", "layer3"): 1.0}),
    ]
    lines = list(shortcut.table(outcomes, 500))
    assert lines[0].startswith("mark by class: 95.0 ± 7.1 % right; 90.0 ± 7.1 % of the right")
    assert lines[1].startswith("mark anywhere: 80.0 ± 0.0 % right; 1.0 ± 1.4 %")
    assert lines[-3:] == [
        "| | layer1 | layer3 |", "| --- | --- | --- |",
        "| gradcam | 0.700 ± 0.141 | 1.000 ± 0.000 |",
    ]  # fmt: skip
