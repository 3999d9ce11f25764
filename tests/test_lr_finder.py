"""The range test: what it suggests on known curves, and what a sweep measures and leaves alone."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from helpers.training import SmallDavidNet, make_pictures
from utils import InputError
from utils.data.augment import Augmentation, augment
from utils.data.picture_set import Split
from utils.models.registry import MODELS
from utils.runs import Run
from utils.training.classifier import build_optimizer
from utils.training.fit import fit
from utils.training.lr_finder import (
    DIVERGED,
    RECENT,
    RangeTest,
    _Sweep,
    floor,
    in_short,
    save,
    smooth,
    suggest,
    sweep,
)
from utils.training.plan import plan_training
from utils.training.recipes import RECIPES
from utils.training.trainer import build_trainer

STEPS = 41
RATES = np.logspace(-5, 0, STEPS)
ONE_STEP = 5 / (STEPS - 1) + 1e-9  # decades


def valley(bottom, rates=RATES, left=0.3, right=1.0):
    """A loss that is lowest at 10**bottom, with walls of these steepnesses, in nats per decade²."""
    beyond = np.log10(rates) - bottom
    return 1.4 + np.where(beyond < 0, left, right) * beyond**2


def distance(suggestion, centre):
    return abs(np.log10(suggestion) - centre)


# suggest()


@pytest.mark.parametrize(("left", "right"), [(0.3, 0.3), (0.3, 1.0), (0.1, 3.0)])
@pytest.mark.parametrize("bottom", [-4, -3.5, -2.93, -2.5, -2, -1.2])
def test_suggestion_is_where_a_known_curve_is_lowest(bottom, left, right):
    losses = valley(bottom, left=left, right=right)
    _, suggestion, reason = suggest(RATES, losses)
    assert losses[suggestion == RATES] - losses.min() <= 0.02  # nats
    assert distance(suggestion, bottom) <= 0.33  # a factor of about 2
    assert reason == ""


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bottom", [-3, -2.5, -2])
def test_suggestion_survives_the_noise_of_batches(bottom, seed):
    rates = np.logspace(-4, 0, 100)  # those of a sweep
    noise = np.random.default_rng(seed).normal(0, 0.12, 100)
    losses = valley(bottom, rates)
    _, suggestion, _ = suggest(rates, losses + noise)
    assert losses[rates == suggestion] - losses.min() <= 0.08  # nats, of a noise of 0.12
    assert distance(suggestion, bottom) <= 0.5  # a factor of about 3


@pytest.mark.parametrize("bottom", [-4, -3, -2.2])
def test_explosion_after_the_lowest_point_does_not_move_the_suggestion(bottom):
    explosion = 10.0 ** (6 * (np.log10(RATES) - bottom - 1.5)).clip(-10, 3)
    losses = valley(bottom) + explosion
    assert losses.max() > 100
    _, suggestion, _ = suggest(RATES, losses)
    assert distance(suggestion, bottom) <= 2 * ONE_STEP


@pytest.mark.parametrize("start", [3.0, 5.0, 12.0])
def test_a_network_that_is_sure_and_wrong_at_first_does_not_move_the_suggestion(start):
    """The steepest fall is then at the smallest rates, where a bad start is undone."""
    undone = start * np.exp(-np.arange(STEPS) / 2)
    _, suggestion, reason = suggest(RATES, valley(-2.5) + undone, chance=2.3)
    assert distance(suggestion, -2.5) <= 2 * ONE_STEP
    assert reason == ""


@pytest.mark.parametrize("height", [0.1, 1.0, 2.302585092994046, 2.3, 7.77])
def test_flat_curve_gives_no_suggestion_but_a_reason(height):
    _, suggestion, reason = suggest(RATES, np.full(STEPS, height))
    assert suggestion is None
    assert "never fell" in reason


@pytest.mark.parametrize("losses", [2.3 + RATES, np.linspace(1, 2, STEPS), valley(-6)])
def test_rising_curve_gives_no_suggestion_but_a_reason(losses):
    _, suggestion, reason = suggest(RATES, losses)
    assert suggestion is None
    assert "never fell" in reason


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_losses_from_the_first_that_is_no_number_on_are_left_out(broken):
    losses = valley(-3.5)
    losses[30] = broken
    losses[35:] = -100  # what comes after must not count
    smoothed, suggestion, _ = suggest(RATES, losses)
    assert np.isfinite(smoothed[:30]).all() and np.isnan(smoothed[30:]).all()
    alone, expected, _ = suggest(RATES[:30], valley(-3.5)[:30])
    assert suggestion == expected
    np.testing.assert_array_equal(smoothed[:30], alone)


@pytest.mark.parametrize("usable", [0, 1, 4])
def test_too_few_steps_give_no_suggestion_but_a_reason(usable):
    losses = np.where(np.arange(STEPS) < usable, np.linspace(2, 1, STEPS), np.nan)
    smoothed, suggestion, reason = suggest(RATES, losses)
    assert suggestion is None
    assert f"only {usable} steps" in reason
    assert len(smoothed) == STEPS


@pytest.mark.parametrize("factor", [0.1, 10, 1000])
def test_suggestion_scales_with_the_learning_rates(factor):
    losses = valley(-2.1) + 0.1 * np.sin(4 * np.log10(RATES))  # an uneven fall
    _, suggestion, _ = suggest(RATES, losses)
    _, scaled, _ = suggest(factor * RATES, losses)
    assert scaled == pytest.approx(factor * suggestion)


def test_suggestion_does_not_depend_on_the_size_of_the_loss():
    losses = valley(-2.6)
    assert suggest(RATES, 1e-3 * losses + 5)[1] == suggest(RATES, losses)[1]


def test_smoothing_keeps_the_place_of_a_peak_and_the_level_of_a_plain():
    peak = np.exp(-0.5 * ((np.log10(RATES) + 2.5) / 0.2) ** 2)
    assert smooth(RATES, peak).argmax() == peak.argmax()
    np.testing.assert_allclose(smooth(RATES, np.full(STEPS, 1.7)), 1.7)
    noise = np.random.default_rng(0).normal(size=STEPS)
    assert smooth(RATES, noise).std() < 0.6 * noise.std()


# floor()


def measured(losses):
    return RangeTest(RATES, losses, *suggest(RATES, losses))


def test_two_valleys_of_one_depth_are_one_floor():
    losses = np.minimum(valley(-4), valley(-2)) + np.random.default_rng(0).normal(0, 0.05, STEPS)
    low, high = floor(measured(losses))
    assert distance(low, -4) < 0.5 and distance(high, -2) < 0.5


def test_a_steep_valley_without_noise_has_a_narrow_floor():
    found = measured(valley(-3, left=2, right=2))
    low, high = floor(found)
    assert low <= found.suggestion <= high <= 3 * low


def test_a_wide_valley_has_a_wider_floor_the_more_the_batches_scatter():
    noise = np.random.default_rng(1).normal(size=STEPS)
    calm, rough = (floor(measured(valley(-3) + size * noise)) for size in (0.01, 0.2))
    assert rough[1] / rough[0] > 3 * calm[1] / calm[0]


def test_where_nothing_is_suggested_there_is_no_floor():
    assert floor(measured(np.full(STEPS, 2.3))) is None


# sweep()


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setitem(MODELS, "davidnet", SmallDavidNet)


@pytest.fixture
def make_plan(tmp_path):
    """Plans in folders of their own, with pictures whose brightness tells the class."""
    pictures = make_pictures(40, 16)
    return partial(
        plan_training, pictures, run_name="run", output_dir=tmp_path / "outputs",
        recipe="original", epochs=1, batch_size=8, precision="32-true", devices="cpu", seed=3,
    )  # fmt: skip


def test_sweep_tries_as_many_rates_as_asked_for_exponentially_spaced(make_plan):
    result = sweep(make_plan(), steps=24, min_lr=1e-6, max_lr=1e-3)
    assert len(result.learning_rates) == len(result.losses) == len(result.smoothed) == 24
    rates = np.log10(result.learning_rates)
    assert rates[0] == pytest.approx(-6, abs=1e-6)
    assert rates[-1] == pytest.approx(-3, abs=3 / 23 + 1e-6)  # one step of the grid
    steps = np.diff(rates)
    np.testing.assert_allclose(steps[1:-1], np.median(steps), rtol=1e-3)
    assert (steps > 0.5 * np.median(steps)).all() and (steps < 2.1 * np.median(steps)).all()
    assert np.isfinite(result.losses).all()
    assert result.seconds > 0


def test_rates_are_spaced_as_those_of_lightnings_range_test(make_plan):
    result = sweep(make_plan(), steps=10, min_lr=1e-6, max_lr=1e-3)
    expected = [1e-6, *(1e-6 * 1e3 ** ((step + 1) / 10) for step in range(1, 10))]
    assert result.learning_rates.tolist() == pytest.approx(expected, rel=1e-12)


def test_every_group_of_an_optimizer_follows_the_rate_and_keeps_its_scale(make_plan):
    plan = make_plan(recipe="speed", model="davidnet")
    sweeping = _Sweep(plan, lambda step: 1e-3 * 2**step, lambda: None)
    sweeping.trainer = build_trainer("cpu", "32-true")
    steps = sweeping.configure_optimizers()
    optimizer, schedule = steps["optimizer"], steps["lr_scheduler"]["scheduler"]
    trained = build_optimizer(plan.network(), plan.recipe)
    for rate in (1e-3, 2e-3, 4e-3):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate] * 3)
        optimizer.step()
        schedule.step()
    scales = [[g["lr_scale"] for g in o.param_groups] for o in (optimizer, trained)]
    assert scales[0] == scales[1]
    assert len(set(scales[0])) == 3


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_sweep_and_a_training_tell_the_optimiser_their_precision(
    precision, make_plan, monkeypatch
):
    told = []

    def kept(network, recipe, precision):
        told.append(precision)
        return build_optimizer(network, recipe, precision)

    for module in ("classifier", "lr_finder"):
        monkeypatch.setattr(f"utils.training.{module}.build_optimizer", kept)
    plan = make_plan(recipe="quick", precision=precision)
    sweep(plan, steps=10)
    fit(plan)
    assert told == [precision, precision]


def test_a_sweep_shows_its_steps_as_text(make_plan, capsys):
    sweep(make_plan(), steps=10)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(line.startswith("Range test:") for line in shown.err.split("\r") if line.strip())
    assert "10/10" in shown.err
    assert shown.err.endswith("\n")  # closed


def test_first_loss_is_the_fresh_networks_on_the_first_batch_of_training(make_plan):
    plan = make_plan()
    pictures = plan.picture_set
    indices = next(iter(plan.data_module().train_dataloader().sampler))
    images = augment(
        pictures.train.images[indices], indices, Augmentation(4, 0.5, 8),
        pictures.mean, pictures.std, 3, 0,
    )  # fmt: skip
    loss = cross_entropy(plan.network().train()(images), pictures.train.targets[indices])
    result = sweep(plan, steps=10)
    assert result.losses[0] == pytest.approx(loss.item(), rel=1e-5)


def test_all_pictures_of_a_sweep_have_the_size_of_trainings_first_epoch(make_plan, monkeypatch):
    pictures, sides, forward = make_plan.args[0], [], SmallDavidNet.forward
    larger = Split(pictures.train.images.repeat(1, 1, 2, 2), pictures.train.targets)
    plan = make_plan.func(
        replace(pictures, train=larger), **make_plan.keywords | {"recipe": "fast", "epochs": 4}
    )
    assert plan.recipe.picture_sides(32) == [16, 16, 24, 32]

    def seen(network, images):
        sides.append(images.shape[-1])
        return forward(network, images)

    monkeypatch.setattr(SmallDavidNet, "forward", seen)
    sweep(plan, steps=30)
    assert len(sides) > 20 and set(sides) == {16}


def test_losses_are_those_of_a_plain_loop_without_smoothing(make_plan):
    plan = make_plan()
    pictures, network = plan.picture_set, plan.network().train()
    result = sweep(plan, steps=12, max_lr=1e-2)
    optimizer = torch.optim.Adam(network.parameters())
    sampler = plan.data_module().train_dataloader().sampler
    losses = []
    for epoch in range(3):  # five steps each
        sampler.set_epoch(epoch)
        for indices in sampler:
            if len(losses) == 12:
                break
            images = augment(
                pictures.train.images[indices], indices, Augmentation(4, 0.5, 8),
                pictures.mean, pictures.std, 3, epoch,
            )  # fmt: skip
            loss = cross_entropy(network(images), pictures.train.targets[indices])
            optimizer.param_groups[0]["lr"] = result.learning_rates[len(losses)]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert result.losses == pytest.approx(losses, rel=1e-3)


def test_sweep_leaves_files_and_random_numbers_alone(make_plan, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    plan = make_plan()
    plan.run.write_json("other.json", {"kept": 1})
    torch.manual_seed(11)
    random = torch.get_rng_state()
    sweep(plan, steps=10)
    assert torch.equal(torch.get_rng_state(), random)
    assert not list(here.iterdir())
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [plan.run.path("other.json")]


@pytest.mark.slow
def test_training_after_a_sweep_is_the_training_without(make_plan):
    swept, plain = make_plan(run_name="swept"), make_plan(run_name="plain")
    sweep(swept, steps=10)
    fit(swept)
    fit(plain)
    weights = [load_file(plan.run.path("model.safetensors")) for plan in (swept, plain)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_sweep_measures_the_same_twice(make_plan):
    first, second = (sweep(make_plan(), steps=10) for _ in range(2))
    np.testing.assert_array_equal(first.losses, second.losses)


@pytest.mark.slow
def test_sweep_stops_early_once_the_loss_has_exploded(make_plan):
    result = sweep(make_plan(), steps=60, min_lr=1e-4, max_lr=1000.0)
    assert 2 < len(result.losses) < 60
    assert len(result.learning_rates) == len(result.losses)
    recent = [
        result.losses[max(0, i - RECENT + 1) : i + 1].mean() for i in range(len(result.losses))
    ]
    exploded = ~(np.array(recent) <= DIVERGED * np.minimum.accumulate(recent))
    assert exploded.tolist() == [False] * (len(exploded) - 1) + [True]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"steps": 9}, ["lr_steps", "9", "from 10"]),
        ({"steps": 20.5}, ["lr_steps", "20.5", "whole"]),
        ({"min_lr": 0}, ["min_lr", "0"]),
        ({"min_lr": -1e-3}, ["min_lr", "-0.001"]),
        ({"max_lr": float("inf")}, ["max_lr", "inf"]),
        ({"min_lr": 0.1, "max_lr": 0.01}, ["min_lr is 0.1", "max_lr 0.01"]),
        ({"min_lr": 0.1, "max_lr": 0.1}, ["must rise"]),
    ],
)
def test_sweep_refuses_numbers_out_of_range(make_plan, numbers, words):
    with pytest.raises(InputError) as refusal:
        sweep(make_plan(), **numbers)
    for word in words:
        assert word in str(refusal.value)


# save()


def test_saved_sweep_is_plain_json_that_training_can_read(make_plan):
    plan = make_plan()
    losses = valley(-2.5)
    losses[-1] = np.nan
    save(plan.run, RangeTest(RATES, losses, *suggest(RATES, losses), 1.234))
    written = json.loads(plan.run.path("lr_finder.json").read_text(), parse_constant=pytest.fail)
    assert written["learning_rates"] == RATES.tolist()
    assert written["losses"][:-1] == losses[:-1].tolist()
    assert written["losses"][-1] is None
    assert written["reason"] == ""
    assert make_plan(max_lr="found").recipe.max_lr == written["suggestion"]


def test_saved_sweep_without_a_suggestion_keeps_the_reason(tmp_path):
    losses = 2.3 + RATES
    run = Run("run", tmp_path)
    save(run, RangeTest(RATES, losses, *suggest(RATES, losses)))
    written = json.loads(run.path("lr_finder.json").read_text())
    assert written["suggestion"] is None
    assert "never fell" in written["reason"]


def test_a_loss_that_still_falls_at_the_largest_rate_gives_a_weak_suggestion():
    _, suggestion, reason = suggest(RATES, valley(1.0), chance=12.0)
    assert suggestion == RATES[-1]
    assert reason == "weak: the loss was still falling at the largest rate that was tried"
    exploded = np.concatenate([valley(1.0)[:-5], np.full(5, np.nan)])
    assert (
        suggest(RATES, exploded, chance=12.0)[2] == ""
    )  # the next rates were tried, and too large


def test_a_loss_that_never_falls_below_guessing_gives_a_weak_suggestion_and_says_so():
    decades = np.log10(RATES)
    losses = 2.4 + 3 / (1 + np.exp((decades + 4) / 0.2)) + 5 / (1 + np.exp(-(decades + 1) / 0.2))
    smoothed, suggestion, reason = suggest(RATES, losses, chance=2.3)
    assert suggestion == RATES[np.argmin(smoothed)]
    assert "weak" in reason
    assert "guessing, 2.30" in reason


# In words


def test_a_range_test_in_short_holds_its_figures():
    losses = valley(-3)
    found = RangeTest(RATES, losses, losses, 1e-3, "", seconds=12.4)
    peak = RECIPES["original"].max_lr
    assert in_short(found, STEPS, RECIPES["original"]) == (
        "41 of 41 rates tried in 12 s, from 1e-05 to 1. Suggested peak: **0.001**, on a floor from "
        f"0.001 to 0.001; the recipe `original` peaks at {peak:g}."
    )
    weak = RangeTest(RATES[:20], losses[:20], losses[:20], 1e-3, "weak: so and so", seconds=1)
    text = in_short(weak, STEPS, RECIPES["original"])
    assert "20 of 41 rates tried" in text and ", stopped early as the loss exploded." in text
    assert "**0.001** (weak: so and so), on a floor from 0.001 to 0.001;" in text


def test_a_range_test_that_found_nothing_says_so():
    nothing = np.full(STEPS, np.nan)
    text = in_short(
        RangeTest(RATES, nothing, nothing, None, "the loss never fell"), STEPS, RECIPES["quick"]
    )
    assert "Suggested peak: **none** (the loss never fell); " in text
