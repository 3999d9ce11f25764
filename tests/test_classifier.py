"""The LightningModule: its schedule number by number, and metrics exact for each split."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from sklearn.metrics import accuracy_score, log_loss

from utils.data.augment import Augmentation, normalise
from utils.data.batches import PictureDataModule
from utils.data.epochs import pictures_per_epoch
from utils.data.picture_set import PictureSet, Split
from utils.models.registry import create_model
from utils.training.callbacks import KeepLogits
from utils.training.classifier import (
    ImageClassifier,
    build_optimizer,
    one_cycle,
    planned_schedule,
    schedule_in_words,
)
from utils.training.optimizers import Muon
from utils.training.recipes import RECIPES, choose_recipe

CLASSES = ("a", "b", "c")
MEAN, STD = (0.5, 0.45, 0.4), (0.3, 0.25, 0.2)


def split_of(size, seed, hint=60):
    """Pictures whose brightness hints at their class."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, len(CLASSES), size)
    targets[: len(CLASSES)] = range(len(CLASSES))
    noise = rng.integers(0, 120, (size, 3, 16, 16))
    images = (noise + hint * targets[:, None, None, None]).astype(np.uint8)
    return Split(torch.from_numpy(images), torch.from_numpy(targets))


@pytest.fixture(scope="module")
def picture_set():
    return PictureSet(
        "made", "made", CLASSES, split_of(45, 0), split_of(270, 1, hint=20), MEAN, STD, "x", (), {}
    )


class Watcher(Callback):
    """Notes the learning rate and beta of each step, and the metrics of each epoch."""

    def __init__(self):
        self.rates, self.betas, self.epochs = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        group = trainer.optimizers[0].param_groups[0]
        self.rates.append(group["lr"])
        self.betas.append(group["betas"][0])

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({k: float(v) for k, v in trainer.callback_metrics.items()})


class Steps(ImageClassifier):
    """Keeps the logits and targets that each step computed, by split and epoch."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = {}

    def _measure(self, split, logits, targets):
        seen = logits.detach().double().clone(), targets.clone()
        self.seen.setdefault((split, self.current_epoch), []).append(seen)
        return super()._measure(split, logits, targets)

    def measured(self, split, epoch):
        logits, targets = (torch.cat(part) for part in zip(*self.seen[split, epoch], strict=True))
        return loss_and_accuracy(logits, targets)


def loss_and_accuracy(logits, targets):
    """Both computed by scikit-learn from logits in double precision."""
    probabilities = logits.softmax(dim=1).numpy()
    labels = range(logits.shape[1])
    return (
        log_loss(targets.numpy(), probabilities, labels=labels),
        accuracy_score(targets.numpy(), probabilities.argmax(axis=1)),
    )


def build(picture_set, epochs=3, batch_size=8, val_fraction=0.0, seed=0, kind=Steps):
    recipe = choose_recipe("original", "shapes", epochs=epochs, batch_size=batch_size)
    network = create_model("davidnet", len(CLASSES), image_size=16, seed=seed, width=4)
    data = PictureDataModule(
        picture_set, batch_size, Augmentation(2, 0.5, 4), seed, val_fraction=val_fraction
    )
    return kind(network, len(CLASSES), recipe), data, recipe


def trainer_for(folder, epochs=3, **options):
    return Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=folder, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(picture_set, tmp_path_factory):
    """A training of three epochs in steps of 8 pictures and a last of 5, then a test."""
    classifier, data, recipe = build(picture_set)
    watcher = Watcher()
    trainer = trainer_for(tmp_path_factory.mktemp("fit"), callbacks=[watcher])
    trainer.fit(classifier, datamodule=data)
    tested = trainer.test(classifier, datamodule=data, verbose=False)[0]
    return classifier, data, recipe, watcher, tested


# the schedule


def test_the_original_schedule_has_98_steps_an_epoch_and_1960_in_all():
    rates, betas, steps_per_epoch = planned_schedule(RECIPES["original"], 50_000)
    assert (steps_per_epoch, len(rates), len(betas)) == (98, 1_960, 1_960)


def test_the_original_learning_rate_rises_from_1e_4_to_1e_2_and_falls_to_1e_8():
    rates, _, _ = planned_schedule(RECIPES["original"], 50_000)
    peak = 587  # 30 % of 1960 steps are 588, of which this is the last
    rising = [1e-4 + (1e-2 - 1e-4) * step / peak for step in range(peak + 1)]
    falling = [1e-2 + (1e-8 - 1e-2) * step / (1_959 - peak) for step in range(1, 1_960 - peak)]
    np.testing.assert_allclose(rates, rising + falling, rtol=1e-6, atol=1e-13)
    assert rates[0] == pytest.approx(1e-4, rel=1e-9)
    assert int(np.argmax(rates)) == peak
    assert rates[peak] == pytest.approx(1e-2, rel=1e-9)
    assert rates[-1] == pytest.approx(1e-8, rel=1e-6)


def test_the_original_momentum_falls_from_0_9_to_0_85_and_comes_back():
    _, betas, _ = planned_schedule(RECIPES["original"], 50_000)
    falling = [0.9 - 0.05 * step / 587 for step in range(588)]
    rising = [0.85 + 0.05 * step / 1_372 for step in range(1, 1_373)]
    np.testing.assert_allclose(betas, falling + rising, rtol=1e-9)


def test_one_cycle_changes_only_the_first_beta_of_adam():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = one_cycle(optimizer, RECIPES["original"], 10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
    optimizer.step()
    schedule.step()
    first, second = optimizer.param_groups[0]["betas"]
    assert first == pytest.approx(0.875)  # half way from 0.9 at step 0 to 0.85 at step 2
    assert second == 0.999


@pytest.mark.parametrize(
    ("train_size", "batch_size", "steps"), [(512, 512, 1), (513, 512, 2), (7, 8, 1), (45, 8, 6)]
)
def test_the_last_smaller_batch_is_a_step_of_the_plan(train_size, batch_size, steps):
    recipe = choose_recipe("original", "x", epochs=4, batch_size=batch_size)
    rates, _, steps_per_epoch = planned_schedule(recipe, train_size)
    assert steps_per_epoch == steps
    assert len(rates) == 4 * steps


def test_the_trainer_follows_the_planned_schedule_at_every_step(trained):
    _, _, recipe, watcher, _ = trained
    rates, betas, steps_per_epoch = planned_schedule(recipe, 45)
    assert steps_per_epoch == 6
    assert len(watcher.rates) == 18
    np.testing.assert_allclose(watcher.rates, rates, rtol=1e-12)
    np.testing.assert_allclose(watcher.betas, betas, rtol=1e-12)


def test_the_schedule_is_as_long_as_what_is_left_after_the_hold_out(picture_set, tmp_path):
    classifier, data, recipe = build(picture_set, epochs=2, val_fraction=0.4)
    watcher = Watcher()
    trainer_for(tmp_path, epochs=2, callbacks=[watcher]).fit(classifier, datamodule=data)
    rates, _, _ = planned_schedule(recipe, len(data.train))
    assert len(data.train) < 30
    np.testing.assert_allclose(watcher.rates, rates, rtol=1e-12)


# metrics


def test_train_metrics_are_exact_over_the_epoch_with_a_smaller_last_batch(trained):
    classifier, _, _, watcher, _ = trained
    assert [len(targets) for _, targets in classifier.seen["train", 0]] == [8] * 5 + [5]
    assert len(watcher.epochs) == 3
    for epoch, logged in enumerate(watcher.epochs):
        loss, accuracy = classifier.measured("train", epoch)
        assert logged["train_loss"] == pytest.approx(loss, abs=1e-6)
        assert logged["train_acc"] == pytest.approx(accuracy, abs=1e-7)


def test_watched_metrics_are_exact_over_the_epoch_and_of_the_watched_split(trained):
    classifier, _, _, watcher, _ = trained
    assert [len(targets) for _, targets in classifier.seen["val", 0]] == [256, 14]
    for epoch, logged in enumerate(watcher.epochs):
        loss, accuracy = classifier.measured("val", epoch)
        assert logged["val_loss"] == pytest.approx(loss, abs=1e-6)
        assert logged["val_acc"] == pytest.approx(accuracy, abs=1e-7)


def final_figures(classifier, split):
    """Loss and accuracy of the final weights on a whole split, in one batch and in double."""
    network = classifier.network.double().eval()
    with torch.no_grad():
        logits = network(normalise(split.images, MEAN, STD).double())
    network.float()
    return loss_and_accuracy(logits, split.targets)


def test_the_last_watched_and_tested_figures_are_those_of_the_final_weights(trained, picture_set):
    classifier, _, _, watcher, tested = trained
    loss, accuracy = final_figures(classifier, picture_set.test)
    assert watcher.epochs[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert watcher.epochs[-1]["val_acc"] == pytest.approx(accuracy, abs=1e-7)
    assert tested["test_loss"] == pytest.approx(loss, rel=1e-4)
    assert tested["test_acc"] == pytest.approx(accuracy, abs=1e-7)
    assert sorted(tested) == ["test_acc", "test_loss"]


def test_train_watched_and_test_metrics_do_not_mix(picture_set, tmp_path):
    classifier, data, _ = build(picture_set, epochs=2, val_fraction=0.4, seed=1)
    watcher = Watcher()
    trainer = trainer_for(tmp_path, epochs=2, callbacks=[watcher])
    trainer.fit(classifier, datamodule=data)
    tested = trainer.test(classifier, datamodule=data, verbose=False)[0]
    held_out = final_figures(classifier, data.watched)
    untouched = final_figures(classifier, picture_set.test)
    assert abs(held_out[0] - untouched[0]) > 1e-3  # else this test could not fail
    logged = watcher.epochs[-1]
    assert (logged["val_loss"], logged["val_acc"]) == pytest.approx(held_out, rel=1e-4)
    assert (tested["test_loss"], tested["test_acc"]) == pytest.approx(untouched, rel=1e-4)
    assert (logged["train_loss"], logged["train_acc"]) == pytest.approx(
        classifier.measured("train", 1), abs=1e-6
    )


# training and prediction


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_step_minimises_the_smoothed_and_reports_the_plain_cross_entropy(picture_set, smoothing):
    classifier, _, recipe = build(picture_set, kind=ImageClassifier)
    classifier.recipe = replace(recipe, label_smoothing=smoothing)
    classifier.log_dict = lambda *_, **__: None
    images = normalise(picture_set.train.images[:10], MEAN, STD)
    targets = picture_set.train.targets[:10]
    step = classifier.training_step((images, targets), 0)
    logits = classifier(images).detach().double()
    plain = loss_and_accuracy(logits, targets)[0]
    spread = -logits.log_softmax(dim=1).mean(dim=1).mean().item()
    assert step["losses"].mean().item() == pytest.approx(plain, abs=1e-5)
    expected = (1 - smoothing) * plain + smoothing * spread
    assert step["loss"].item() == pytest.approx(expected, abs=1e-5)
    assert step["loss"].requires_grad and not step["losses"].requires_grad


@pytest.mark.parametrize("count", [2, 6])
def test_a_test_averages_logits_over_the_views_asked_for(picture_set, tmp_path, count):
    classifier, data, _ = build(picture_set, kind=ImageClassifier)
    classifier.views = count
    kept = KeepLogits()
    trainer_for(tmp_path, callbacks=[kept]).test(classifier, datamodule=data, verbose=False)
    classifier.eval()
    images = normalise(picture_set.test.images, MEAN, STD)
    around = torch.nn.functional.pad(images, (1,) * 4, mode="reflect")
    shown = [images] if count == 2 else [images, images, around[..., :-2, :-2], around[..., 2:, 2:]]
    with torch.no_grad():
        sides = [classifier(side) for view in shown for side in (view, view.flip(-1))]
    torch.testing.assert_close(
        torch.cat(kept.logits), torch.stack(sides).mean(dim=0), rtol=1e-4, atol=1e-4
    )


def test_a_balanced_step_minimises_what_the_classes_frequencies_leave_to_be_learned(picture_set):
    recipe = choose_recipe("quick", "shapes")
    counts = torch.tensor([90, 9, 0])  # no class is taken for impossible
    network = create_model("davidnet", num_classes=3, width=2, image_size=16)
    classifier = ImageClassifier(network, 3, recipe, counts)
    classifier.log_dict = lambda *_, **__: None
    images = normalise(picture_set.test.images[:8], MEAN, STD)
    targets = picture_set.test.targets[:8]
    step = classifier.training_step((images, targets), 0)
    logits = network(images).detach()
    shares = np.array([90, 9, 1]) / 100
    weighted = shares * np.exp(logits.double().numpy())
    expected = -np.log(weighted[range(8), targets] / weighted.sum(axis=1)).mean()
    assert step["loss"].item() == pytest.approx(expected, rel=1e-4)
    plain = log_loss(targets, logits.softmax(1).numpy(), labels=range(3))
    assert float(step["losses"].mean()) == pytest.approx(plain, rel=1e-4)
    assert "offsets" not in classifier.state_dict()  # checkpoints are as those without


def test_the_recipe_names_the_optimiser():
    network = torch.nn.Linear(2, 2)
    assert type(build_optimizer(network, RECIPES["original"])) is torch.optim.Adam
    optimizer = build_optimizer(network, RECIPES["speed"])
    assert type(optimizer) is Muon
    assert optimizer.param_groups[0]["lr"] == RECIPES["speed"].max_lr
    assert optimizer.param_groups[0]["momentum"] == RECIPES["speed"].max_momentum


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", "float32"), ("bf16-mixed", "bfloat16"), ("16-mixed", "float32")],
)
def test_muon_multiplies_in_bfloat16_where_training_does(precision, dtype):
    optimizer = build_optimizer(torch.nn.Linear(2, 2), RECIPES["quick"], precision)
    assert optimizer.dtype == getattr(torch, dtype)


def test_the_schedule_of_speed_falls_in_a_straight_line_with_constant_momentum():
    recipe = RECIPES["speed"]
    rates, momenta, steps_per_epoch = planned_schedule(recipe, 5_000)
    assert steps_per_epoch == -(-pictures_per_epoch(5_000, recipe.skipped) // recipe.batch_size)
    assert pictures_per_epoch(5_000, recipe.skipped) == 3_500
    assert len(rates) == recipe.epochs * steps_per_epoch
    assert set(momenta) == {recipe.max_momentum}
    falls = -np.diff([recipe.max_lr, *rates])
    np.testing.assert_allclose(falls, falls.mean(), rtol=1e-6)
    assert rates[-1] == pytest.approx(
        recipe.max_lr / recipe.initial_lr_divisor / recipe.final_lr_divisor
    )


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10, 20])
def test_a_schedule_of_any_length_can_be_followed(total_steps):
    for share in (0.0, 0.1, 0.3, 0.5, 0.99):
        recipe = replace(RECIPES["original"], warmup_share=share)
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = one_cycle(optimizer, recipe, total_steps)
        for _ in range(total_steps):
            assert 0 < optimizer.param_groups[0]["lr"] <= recipe.max_lr * (1 + 1e-9)
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_training_of_one_step_makes_it_at_the_peak(name):
    recipe = replace(RECIPES[name], epochs=1, batch_size=64, skipped=0.0)
    rates, momenta, steps_per_epoch = planned_schedule(recipe, 64)
    assert rates == pytest.approx([recipe.max_lr]) and len(momenta) == steps_per_epoch == 1


def test_training_learns(trained):
    _, _, _, watcher, _ = trained
    assert watcher.epochs[-1]["train_loss"] < watcher.epochs[0]["train_loss"]


def test_testing_gives_the_logits_of_every_test_picture_in_order(trained, picture_set, tmp_path):
    classifier, data, _, _, _ = trained
    kept = KeepLogits()
    trainer_for(tmp_path, callbacks=[kept]).test(classifier, datamodule=data, verbose=False)
    logits = torch.cat(kept.logits)
    classifier.eval()
    with torch.no_grad():
        expected = classifier(normalise(picture_set.test.images, MEAN, STD))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_training(trained, picture_set, tmp_path):
    classifier, data, _ = build(picture_set)
    torch.manual_seed(4321)  # nothing may depend on the global generator
    watcher = Watcher()
    trainer_for(tmp_path, callbacks=[watcher]).fit(classifier, datamodule=data)
    first = trained[3].epochs
    for again, before in zip(watcher.epochs, first, strict=True):
        assert again == pytest.approx({name: before[name] for name in again}, rel=1e-5)


def test_the_planned_schedule_is_said():
    assert schedule_in_words([1e-4, 5e-3, 1e-2, 1e-8] * 300, [0.9, 0.87, 0.85, 0.9] * 300, 98) == (
        "1,200 steps, 98 an epoch. The rate starts at 0.0001, is highest after 2 steps (0.01) and "
        "ends at 1e-08; the momentum falls from 0.9 to 0.85 and returns."
    )
    assert schedule_in_words([0.5], [0.6], 1) == (
        "1 step, 1 an epoch. The rate starts at 0.5, is highest at its first step (0.5) and ends "
        "at 0.5; the momentum stays at 0.6."
    )
