"""What is judged, against maps whose worth is known, and the rule that follows from it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from helpers.networks import with_lived_in_statistics
from utils import InputError
from utils.data import drawn_shapes
from utils.data.augmentation import UNCHANGED, Augmentation
from utils.data.picture_set import PictureSet, Split
from utils.explain import trust
from utils.explain.trust import (
    MASK,
    Judgement,
    agreement_with_intervention,
    baselines,
    best_candidate,
    choose_subjects,
    judge,
    maps_by_candidate,
    patch_drops,
    sanity,
)
from utils.models.davidnet import DavidNet
from utils.models.summary import stages
from utils.plots.trust import scores_by_measure
from utils.training.predictions import Predictions

COUNT, SIZE = 40, 32
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module", autouse=True)
def few_pictures():
    """Let pictures be looked for among as many as there are here."""
    few = partial(drawn_shapes.draw_split, count=COUNT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn_shapes, "draw_split", few)
        yield


@pytest.fixture(scope="module")
def picture_set():
    """The first drawn shapes of the test split, which stand for both splits."""
    drawn = drawn_shapes.draw_split("test", count=COUNT)
    split = Split(*(torch.from_numpy(a) for a in (drawn.images, drawn.targets, drawn.masks)))
    classes = drawn_shapes.CLASSES
    return PictureSet("shapes", "drawn shapes", classes, split, split, HALF, HALF, "", (), {})


class ReadsBrightness(DavidNet):
    """Knows the class, and is the surer of it the brighter the picture is."""

    def forward(self, x):
        bright = x.amax(dim=(1, 2, 3))
        return torch.stack([bright] + [torch.zeros_like(bright)] * 9, dim=1)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return with_lived_in_statistics(DavidNet(width=4)).eval()


def right_about(picture_set, wrong=()):
    """Predictions that are right but for some pictures; the last class is never likely."""
    targets = picture_set.test.targets.numpy()
    logits = np.zeros((len(targets), 10), np.float32)
    logits[range(len(targets)), targets] = 2.0
    logits[list(wrong)] = 0.0
    logits[:, 9] -= 1.0
    predicted = targets.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 10
    return Predictions(np.arange(len(targets)), targets, predicted, logits)


@pytest.fixture(scope="module")
def subjects(picture_set, network):
    predictions = right_about(picture_set)
    return choose_subjects(network, picture_set, predictions, Augmentation(), COUNT)


# Pictures


def test_only_pictures_predicted_rightly_are_judged(picture_set, network):
    wrong = [0, 3, 17]
    chosen = choose_subjects(network, picture_set, right_about(picture_set, wrong), UNCHANGED, 100)
    assert len(chosen) == COUNT - 3
    assert not set(wrong) & set(chosen.index)
    assert np.array_equal(chosen.raw, picture_set.test.images.numpy()[chosen.index])
    assert np.array_equal(chosen.targets, picture_set.test.targets.numpy()[chosen.index])
    assert (chosen.unlikely == 9).sum() >= len(chosen) - 4
    assert chosen.hole is None
    few = choose_subjects(network, picture_set, right_about(picture_set, wrong), UNCHANGED, 5)
    assert np.array_equal(few.index, chosen.index[:5])
    assert np.array_equal(few.index, chosen.first(5).index)


def test_mistakes_are_judged_for_the_class_they_are_taken_for(picture_set, network):
    predictions = right_about(picture_set, (3, 7, 12))
    asked = network, picture_set, predictions, UNCHANGED, 100
    chosen = choose_subjects(*asked, mistakes=True)
    assert sorted(chosen.index) == [3, 7, 12] and not chosen.is_right
    assert np.array_equal(chosen.targets, predictions.predicted[chosen.index])
    assert 3 not in choose_subjects(*asked).index
    without = network, picture_set, right_about(picture_set), UNCHANGED, 100
    with pytest.raises(InputError, match="makes no mistake"):
        choose_subjects(*without, mistakes=True)


def test_where_nothing_is_right_the_predicted_class_is_judged_and_that_is_said(
    picture_set, network
):
    predictions = right_about(picture_set, range(COUNT))
    chosen = choose_subjects(network, picture_set, predictions, UNCHANGED, 5)
    assert np.array_equal(chosen.targets, predictions.predicted[chosen.index])
    assert trust.subjects_in_words(chosen, 2) == (
        "No test picture is predicted correctly. Measured, for the predicted class, on 5 test "
        "pictures, of which 2 for class, weights, flip and shift."
    )
    right = choose_subjects(network, picture_set, right_about(picture_set), UNCHANGED, 5)
    assert trust.subjects_in_words(right, 9) == (
        "Measured on 5 test pictures, of which 5 for class, weights, flip and shift; all are "
        "predicted correctly."
    )


def test_parts_are_found_again_and_worth_what_their_absence_costs(picture_set):
    with torch.random.fork_rng(devices=[]):
        reader = ReadsBrightness(width=4).eval()
    predictions = right_about(picture_set)
    targets = np.zeros_like(predictions.target)
    zero = replace(predictions, target=targets, predicted=targets)
    chosen = choose_subjects(reader, picture_set, zero, UNCHANGED, COUNT)
    assert (chosen.regions[:, 0] != chosen.masks).mean() < 0.002  # a half counts there alone
    assert (chosen.regions.sum(axis=1) == 1).all()
    drops = dict(zip(drawn_shapes.PARTS, chosen.drops.T, strict=True))
    # objects are the lightest thing in nearly every picture, and nothing changes without a stick
    assert drops["object"].mean() > 5 * np.abs(drops["clutter"]).mean()
    occluded = chosen.regions[:, 1].any(axis=(1, 2))
    assert (drops["occluder"][~occluded] == 0).all()


# Baselines


def test_baselines_know_what_they_are_called(subjects):
    maps = baselines(subjects)
    assert list(maps) == [*trust.KNOWS_NOTHING, MASK]
    for each in maps.values():
        assert each.shape == (COUNT, SIZE, SIZE)
        assert each.dtype == np.float32
        assert each.min() >= 0
        assert each.max() <= 1
    assert np.array_equal(maps[MASK].astype(bool), subjects.masks)
    blob = maps["centre blob", ""][0]
    assert np.unravel_index(blob.argmax(), blob.shape) in ((15, 15), (15, 16), (16, 15), (16, 16))
    assert "object's mask" not in {name for name, _ in baselines(replace(subjects, masks=None))}


def test_edges_are_where_brightness_changes(subjects):
    raw = np.zeros_like(subjects.raw)
    raw[:, :, :, 16:] = 200
    edges = baselines(replace(subjects, raw=raw))["edges", ""]
    assert (edges[:, :, 15:17] == 1).all()
    assert (edges[:, :, :15] == 0).all() and (edges[:, :, 17:] == 0).all()
    assert (baselines(replace(subjects, raw=np.zeros_like(raw)))["edges", ""] == 0).all()


def test_a_patch_costs_what_its_absence_does(subjects):
    class ReadsCorner(DavidNet):
        def forward(self, x):
            corner = x[:, :, :8, :8].mean(dim=(1, 2, 3))
            return torch.stack([corner] * 10, dim=1)

    reader = ReadsCorner(width=4).eval()
    bright = replace(subjects, network=reader, images=torch.ones_like(subjects.images))
    drops = patch_drops(bright, torch.zeros(3, 1, 1), 8, 8)
    assert drops.shape == (COUNT, 4, 4)
    assert drops[:, 0, 0] == pytest.approx(np.ones(COUNT))
    drops[:, 0, 0] = 0
    assert (drops == 0).all()


# Sanity


def test_what_ignores_class_and_network_fails_and_what_follows_them_passes(subjects, monkeypatch):
    few = subjects.first(6)

    def edges_of(network, images, targets, methods, blocks):
        maps = np.random.default_rng(0).random((1, 1, SIZE, SIZE)) * images.numpy()[:, :1]
        return {"edges": np.abs(maps).astype(np.float32)}

    monkeypatch.setattr(trust, "maps_by_method", edges_of)
    own = edges_of(None, few.images, None, None, None)["edges"]
    said = sanity(few, ["edges"], ["any"], own[None])
    for name in ("class", "weights", "weights, SSIM"):
        assert said[name] == pytest.approx(np.zeros((1, 6, 1)), abs=1e-6)
    monkeypatch.undo()
    methods, blocks = ["hirescam", "fem"], ["layer1", "layer3"]
    own = maps_by_candidate(few, methods, blocks)
    own = np.stack([np.stack([own[m, b] for b in blocks], axis=1) for m in methods])
    said = sanity(few, methods, blocks, own)
    assert all(values.shape == (2, 6, 2) for values in said.values())
    assert said["weights"][0, :, 0].mean() > 0.3
    assert said["class"][0, :, 0].mean() > 0.3
    assert said["class"][1] == pytest.approx(np.zeros((6, 2)), abs=1e-6)  # it looks at no class


def test_a_map_that_moves_with_its_picture_is_found_to(subjects, monkeypatch):
    def red(network, images, targets, methods, blocks):
        return {"red": (images[:, None, 0] + 1).numpy()}

    monkeypatch.setattr(trust, "maps_by_method", red)
    own = red(None, subjects.images, None, None, None)["red"]
    said = sanity(subjects, ["red"], ["any"], own[None])
    assert said["flip"] == pytest.approx(np.ones((1, COUNT, 1)))
    assert said["shift"] == pytest.approx(np.ones((1, COUNT, 1)))
    monkeypatch.setattr(trust, "maps_by_method", lambda *_: {"still": still})
    still = np.broadcast_to(np.random.default_rng(0).random((SIZE, SIZE)), (COUNT, 1, SIZE, SIZE))
    said = sanity(subjects, ["still"], ["any"], still[None])
    assert np.abs(said["flip"]).max() < 0.2
    assert np.abs(said["shift"]).max() < 0.2


# All of it


def test_everything_is_judged_and_joined(subjects):
    judgement = judge(subjects, ["gradcam", "hirescam"], fills=["deletion"], sane=4)
    baselines_ = [*trust.KNOWS_NOTHING, MASK]
    blocks = DavidNet.blocks
    expected = [*baselines_, *((m, b) for m in ("gradcam", "hirescam") for b in blocks)]
    assert list(judgement.candidates) == expected
    assert set(judgement.scores) == {
        "pointing game", "energy", "IoU", "intervention", "deletion", "patches", "class",
        "weights", "weights, SSIM", "flip", "shift",
    }  # fmt: skip
    assert all(scores.shape == (12, COUNT) for scores in judgement.scores.values())
    table = judgement.table().set_index(["method", "block", "measure"])
    assert table.loc[(*MASK, "energy"), "mean"] == pytest.approx(1)
    assert table.loc[("gradcam", "layer3", "class"), "n"] == 4
    assert (*MASK, "class") not in table.index
    energy = judgement.scores["energy"][4]
    row = table.loc[("gradcam", "prep", "energy")]
    assert row["mean"] == pytest.approx(energy.mean())
    assert row["high"] - row["mean"] == pytest.approx(
        stats.t.ppf(0.975, COUNT - 1) * energy.std(ddof=1) / COUNT**0.5
    )

    few = judge(subjects.first(5), ["layercam"], ["layer1"], fills=["deletion"], sane=4)
    both = judgement.joined(few)
    assert both.candidates == (*judgement.candidates, ("layercam", "layer1"))
    assert np.isnan(both.scores["energy"][-1, 5:]).all()
    assert np.array_equal(both.scores["energy"][-1, :5], few.scores["energy"][-1])
    assert np.array_equal(both.scores["energy"][:-1], judgement.scores["energy"])


def test_without_objects_or_holes_less_is_measured(subjects):
    plain = replace(subjects, masks=None, regions=None, drops=None, hole=None).first(4)
    judgement = judge(plain, ["gradcam"], ["layer3"], fills=[], sane=2)
    assert set(judgement.scores) == {"class", "weights", "weights, SSIM", "flip", "shift"}
    assert trust.fills_for(subjects) == ["removal"]
    assert trust.fills_for(plain) == ["removal", "deletion"]
    assert MASK not in judgement.candidates


CANDIDATES = (*trust.KNOWS_NOTHING, MASK, ("a", "x"), ("b", "x"), ("c", "x"))


def made_up(**means):
    """A judgement of 200 pictures whose measures have these means."""
    random = np.random.default_rng(0)
    scores = {
        name: np.array(values)[:, None] + random.normal(0, 0.01, (len(values), 200))
        for name, values in means.items()
    }
    return Judgement(CANDIDATES, scores)


def test_measures_are_judged_by_the_intervention():
    worth = [0.1, 0.2, 0.3, 1.0, 0.5, 0.6, 0.7]
    judgement = made_up(
        intervention=worth,
        same=[2 * value for value in worth],
        opposite=[-value for value in worth],
        fooled=[0.1, 0.9, 0.3, 0.0, 0.5, 0.6, 0.7],
    )
    table = agreement_with_intervention(judgement, samples=50).set_index("measure")
    assert table.loc["same", "tau"] == pytest.approx(1)
    assert table.loc["opposite", "tau"] == pytest.approx(-1)
    assert table.loc["fooled", "tau"] == pytest.approx(1 - 2 * 4 / 15)
    assert table["is_broken"].to_dict() == {"same": False, "opposite": True, "fooled": True}
    assert table.loc["fooled", "winner"] == "centre blob"
    assert table.loc["same", "winner"] == "c at x"
    assert (table["low"] <= table["tau"]).all() and (table["tau"] <= table["high"]).all()
    assert (table["n"] == 200).all()


def test_a_ranking_by_chance_has_a_wide_interval_around_nothing():
    random = np.random.default_rng(1)
    scores = {name: random.normal(size=(7, 200)) for name in ("intervention", "chance")}
    row = agreement_with_intervention(Judgement(CANDIDATES, scores)).iloc[0]
    assert row["low"] < 0 < row["high"]
    assert row["high"] - row["low"] > 0.4


def test_maps_that_were_measured_on_fewer_pictures_are_not_ranked():
    judgement = made_up(intervention=[0.1, 0.2, 0.3, 1.0, 0.5, 0.6, 0.7], same=range(7))
    for scores in judgement.scores.values():
        scores[5, 20:] = np.nan
    table = agreement_with_intervention(judgement, samples=20)
    assert table["n"].tolist() == [200]
    assert table["tau"].tolist() == pytest.approx([1.0])


def sane_but(**low):
    """Sanity scores of three methods, of which some are low; baselines have none."""
    return {
        name: [np.nan] * 4 + [0.2 if f"{m}" in low.get(name, "") else 0.9 for m in "abc"]
        for name in ("class", "weights")
    }


def test_the_map_shown_first_is_the_best_that_follows_class_and_weights():
    worth = [0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6]
    assert best_candidate(made_up(removal=worth, **sane_but()), "removal") == ("b", "x")
    without = made_up(removal=worth, **sane_but(weights="b"))
    assert best_candidate(without, "removal") == ("c", "x")
    without = made_up(removal=worth, **sane_but(weights="b", **{"class": "c"}))
    assert best_candidate(without, "removal") == ("a", "x")
    with pytest.raises(InputError, match="no map should be shown first"):
        best_candidate(made_up(removal=worth, **sane_but(weights="abc")), "removal")


# In words


def test_the_summary_is_of_the_maps_that_were_judged():
    judgement = made_up(removal=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], **sane_but())
    rows = trust.summary(judgement, [("b", "x"), ("noise", ""), ("never", "x")])
    assert rows["map"].tolist() == ["b at x", "noise"]
    assert rows["removal"].tolist() == ["0.70 ± 0.00", "0.10 ± 0.00"]
    assert rows["class"].tolist() == ["0.90 ± 0.00", "–"]


def test_a_mean_is_rounded_alike_wherever_it_is_told():
    tied = np.repeat([[0.415], [0.1], [-0.001], [1.0], [0.6], [0.7], [0.855]], 2, axis=1)
    judgement = Judgement(CANDIDATES, {"removal": tied})
    rows = trust.summary(judgement, CANDIDATES).set_index("map")["removal"]
    told = trust.judged_in_words(judgement)
    figure = scores_by_measure(judgement.table(), "Shapes", "davidnet")
    drawn = {text.get_text() for axes in figure.axes for text in axes.texts}
    for name, mean in (("noise", tied[0].mean()), ("c at x", tied[-1].mean())):
        number = f"{mean:.2f}"
        assert rows[name].startswith(number) and f"{name} ({number})" in told and number in drawn
    assert rows["edges"].startswith("0.00") and "0.00" in drawn


def test_the_winner_is_told_with_what_it_beats_or_that_it_beats_nothing():
    judgement = made_up(
        removal=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], fooled=[0.1, 0.2, 0.9, 1.0, 0.5, 0.7, 0.6],
        **sane_but(),
    )  # fmt: skip
    assert trust.judged_in_words(judgement).splitlines() == [
        "removal: b at x (0.70); of what knows nothing, edges (0.30)",
        "fooled: b at x (0.70); of what knows nothing, edges (0.90), which wins: this measure says "
        "nothing here",
    ]
    failing = made_up(
        removal=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], **sane_but(weights="b", **{"class": "b"})
    )
    assert trust.judged_in_words(failing) == (
        "removal: b at x (0.70, but it does not follow the class and weights); of what knows "
        "nothing, edges (0.30)"
    )


def test_a_map_s_standing_against_what_knows_nothing_is_told_by_measure():
    judgement = made_up(
        removal=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], energy=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.3],
        IoU=[0.1, 0.9, 0.3, 1.0, 0.5, 0.7, 0.6], **sane_but(),
    )  # fmt: skip
    judgement.scores["energy"][6] = judgement.scores["energy"][2] + np.tile([0.1, -0.1], 100)
    assert trust.standing_in_words(judgement, ("c", "x")) == (
        "c at x, against the best of what knows nothing: beats edges by removal; cannot be told "
        "from edges by energy; loses to centre blob by IoU."
    )


def test_a_map_is_compared_with_another_by_every_measure():
    judgement = made_up(
        removal=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], energy=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.3],
        IoU=[0.1, 0.9, 0.3, 1.0, 0.5, 0.7, 0.8],
        flip=[np.nan] * 4 + [0.5, 0.4, 0.9], **sane_but(),
    )  # fmt: skip
    assert trust.compared_in_words(judgement, ("b", "x"), ("c", "x")) == (
        "b at x, against c at x: beats it by removal and energy; loses to it by IoU and flip."
    )


def test_one_picture_tells_no_map_from_another():
    judgement = made_up(removal=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], **sane_but())
    single = {name: scores[:, :1] for name, scores in judgement.scores.items()}
    told = trust.compared_in_words(replace(judgement, scores=single), ("b", "x"), ("c", "x"))
    assert told == "b at x, against c at x: cannot be told from it by removal."


def test_what_a_map_lies_on_is_told_with_what_it_is_worth(subjects):
    maps = subjects.regions[:, 0].astype(np.float32)
    chosen = np.array([5, 2])
    lines = trust.parts_in_words(subjects, chosen, maps[chosen], drawn_shapes.CLASSES)
    drop = subjects.drops[5, 0]
    name = drawn_shapes.CLASSES[subjects.targets[5]]
    assert lines[0].startswith(f"{name}: object 100% ({-drop:+.1f}), occluder 0% (")
    assert len(lines) == 2
    plain = replace(subjects, regions=None, drops=None)
    assert trust.parts_in_words(plain, chosen, maps[chosen], drawn_shapes.CLASSES) == []


def test_the_choice_is_told_beside_what_is_shown():
    worth = [0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6]
    judgement = made_up(deletion=worth, **sane_but())
    assert trust.choice_in_words(judgement, ("b", "x")) == (
        "By deletion, the rule chooses b at x on these pictures, the map that is shown first."
    )
    assert trust.choice_in_words(judgement, ("c", "x")).endswith(
        "not c at x, which is shown first (0.70 against 0.60, ahead by 0.10 ± 0.00)."
    )
    assert trust.choice_in_words(judgement, ("d", "x")).endswith("was not judged.")
    by_worth = made_up(deletion=worth, intervention=[*worth[:4], 0.7, 0.6, 0.5], **sane_but())
    assert trust.choice_in_words(by_worth, ("a", "x")).startswith("By intervention, the rule")
    none = made_up(deletion=worth, **sane_but(weights="abc"))
    assert "no map should be shown first" in trust.choice_in_words(none, ("a", "x"))
    blob = made_up(deletion=[0.1, 0.8, *worth[2:]], **sane_but())
    assert trust.choice_in_words(blob, ("c", "x")) == (
        "By deletion, centre blob comes first (0.80; b at x 0.70), which knows nothing of the "
        "network. So it decides nothing here; c at x is shown first."
    )


def test_a_method_with_a_pass_for_every_channel_is_not_shown_first():
    judgement = made_up(deletion=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], **sane_but())
    slow = replace(judgement, candidates=(*CANDIDATES[:5], ("scorecam", "x"), CANDIDATES[6]))
    assert best_candidate(judgement, "deletion") == CANDIDATES[5]
    assert best_candidate(slow, "deletion") == CANDIDATES[6]


def test_where_a_map_is_worth_least_comes_first():
    judgement = made_up(deletion=[0.1, 0.2, 0.3, 1.0, 0.5, 0.7, 0.6], **sane_but())
    scores = judgement.scores["deletion"][5]
    scores[[7, 3]] = -1.0, -0.5
    scores[9:] = np.nan
    assert trust.worst_of(judgement, ("b", "x"), 2).tolist() == [7, 3]
    assert len(trust.worst_of(judgement, ("b", "x"), 50)) == 9


# As coarse as another block


def test_a_coarse_map_is_one_of_fewer_cells(subjects):
    sides = {stage.name: stage.side for stage in stages(subjects.network, SIZE)}
    assert (sides["layer1"], sides["layer3"]) == (16, 4)  # what the report coarsens by
    fine = subjects.masks.astype(np.float32)
    coarse = trust.coarsened(fine, 4)
    assert coarse.shape == fine.shape and coarse.dtype == np.float32
    means = fine.reshape(COUNT, 4, 8, 4, 8).mean(axis=(2, 4))
    assert coarse[:, 3:5, 3:5].mean(axis=(1, 2)) == pytest.approx(means[:, 0, 0], abs=0.1)
    assert trust.coarsened(np.ones_like(fine), 4) == pytest.approx(1)


def test_further_maps_are_judged_by_all_but_sanity(subjects):
    few = subjects.first(4)
    own = {("mine", "layer1"): few.masks.astype(np.float32)}
    judgement = judge(few, ["gradcam"], ["layer3"], fills=[], sane=2, further=own)
    place = judgement.candidates.index(("mine", "layer1"))
    assert judgement.scores["energy"][place] == pytest.approx(np.ones(4))
    assert np.isnan(judgement.scores["class"][place]).all()
