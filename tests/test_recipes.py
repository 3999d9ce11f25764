"""Recipes: the numbers of the source, overrides, and refusals that say what is wrong."""

import json
from dataclasses import FrozenInstanceError

import pytest

from utils import InputError
from utils.data.epochs import pictures_per_epoch
from utils.settings import default_recipe
from utils.training.recipes import (
    RECIPES,
    Recipe,
    check_choice,
    check_number,
    choose_recipe,
    limit_batch_size,
)


def test_original_has_every_value_of_the_source():
    assert choose_recipe("original", "cifar10").as_settings() == {
        "recipe": "original",
        "model": "davidnet",
        "optimizer": "adam",
        "epochs": 20,
        "batch_size": 512,
        "max_lr": 1e-2,
        "warmup_share": 0.3,
        "initial_lr_divisor": 100.0,
        "final_lr_divisor": 1e4,
        "min_momentum": 0.85,
        "max_momentum": 0.9,
        "label_smoothing": 0.0,
        "growth": [],
        "whitening": True,
        "skipped": 0.0,
        "head_share": 0.0,
        "fixed_statistics": False,
        "depth_decay": 1.0,
        "crop_padding": 4,
        "flip_probability": 0.5,
        "alternate_flips": False,
        "cutout_size": 8,
        "jitter": 0.0,
        "affine": None,
        "shrink": None,
        "holes": None,
        "views": 1,
    }


def test_quick_is_the_default_on_shapes_and_original_elsewhere():
    for dataset, name in (("shapes", "quick"), ("cifar10", "original"), ("/a/shapes", "original")):
        assert default_recipe(dataset) == name
        assert choose_recipe(None, dataset) == RECIPES[name]
    assert choose_recipe("original", "shapes").name == "original"


def test_overrides_replace_only_what_they_name_and_none_replaces_nothing():
    changed = choose_recipe("original", "cifar10", epochs=3, batch_size=None, max_lr=0.5)
    expected = RECIPES["original"].as_settings() | {"epochs": 3, "max_lr": 0.5}
    assert changed.as_settings() == expected
    assert RECIPES["original"].epochs == 20


def test_a_recipe_tells_its_main_numbers():
    assert RECIPES["original"].in_words() == (
        "Adam with a peak learning rate of 0.01, 20 epochs in batches of 512"
    )
    assert "Muon" in RECIPES["speed"].in_words()
    assert RECIPES["speed"].in_words().endswith("label smoothing 0.2")


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        RECIPES["original"].epochs = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", True),
        ("epochs", "5"),
        ("epochs", 1.5),
        ("epochs", 0),
        ("epochs", -1),
        ("epochs", [5]),
        ("epochs", 10**9),
        ("batch_size", 1),
        ("batch_size", 64.0),
        ("batch_size", "512"),
        ("batch_size", False),
        ("max_lr", 0),
        ("max_lr", 0.0),
        ("max_lr", -1e-3),
        ("max_lr", float("nan")),
        ("max_lr", float("inf")),
        ("max_lr", 1e3),
        ("max_lr", "0.01"),
        ("max_lr", True),
        ("warmup_share", 1.5),
        ("warmup_share", -0.1),
        ("warmup_share", float("nan")),
        ("flip_probability", 1.01),
        ("flip_probability", -0.5),
        ("crop_padding", 4.0),
        ("crop_padding", -1),
        ("cutout_size", -8),
        ("cutout_size", 8.5),
    ],
)
def test_values_that_cannot_be_are_refused_by_name_and_value(name, value):
    with pytest.raises(InputError) as refused:
        choose_recipe("original", "cifar10", **{name: value})
    assert str(refused.value).startswith(f"{name} is {value!r};")
    assert " from " in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_lr_divisor", 0),
        ("initial_lr_divisor", -100.0),
        ("final_lr_divisor", float("nan")),
        ("min_momentum", 1.5),
        ("max_momentum", "0.9"),
    ],
)
def test_schedule_values_that_cannot_be_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=name):
        choose_recipe("original", "cifar10", **{name: value})


def test_an_absurdly_large_number_is_refused_like_any_other():
    with pytest.raises(InputError, match="epochs"):
        choose_recipe("original", "cifar10", epochs=10**400)


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 1, "batch_size": 2, "max_lr": 1},
        {"flip_probability": 0, "cutout_size": 0, "crop_padding": 0},
        {"flip_probability": 1, "warmup_share": 0.01},
    ],
)
def test_the_limits_themselves_are_allowed(values):
    settings = choose_recipe("quick", "shapes", **values).as_settings()
    assert {name: settings[name] for name in values} == values


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    for unknown in ("orginal", "", 3, ["quick"]):
        with pytest.raises(InputError, match="recipe") as refused:
            choose_recipe(unknown, "cifar10")
        assert repr(unknown) in str(refused.value)
        assert all(name in str(refused.value) for name in RECIPES)


def test_settings_give_the_same_recipe_back_whatever_else_they_hold():
    recipe = choose_recipe("original", "cifar10", epochs=7, max_lr=0.02)
    settings = {"model": "davidnet", "seed": 3, **recipe.as_settings()}
    assert Recipe.from_settings(settings) == recipe


def test_check_number_states_the_range():
    check_number("val_fraction", 0.25, 0.0, 0.9)
    with pytest.raises(InputError, match=r"val_fraction is 0\.95; .*a number from 0 to 0\.9"):
        check_number("val_fraction", 0.95, 0.0, 0.9)
    with pytest.raises(InputError, match=r"a whole number from 1 to 5"):
        check_number("n", 2.0, 1, 5, whole=True)


def test_check_choice_lists_what_there_is():
    check_choice("devices", "cpu", ("auto", "cpu"))
    with pytest.raises(InputError, match=r"devices 'tpu'.*auto, cpu"):
        check_choice("devices", "tpu", ("auto", "cpu"))


@pytest.mark.parametrize("name", list(RECIPES))
def test_settings_survive_json(name):
    settings = json.loads(json.dumps(RECIPES[name].as_settings()))
    assert settings == RECIPES[name].as_settings()
    assert Recipe.from_settings(settings) == RECIPES[name]


def test_settings_of_an_earlier_version_give_the_recipe_they_were():
    settings = RECIPES["original"].as_settings()
    added = (
        "optimizer label_smoothing growth whitening skipped alternate_flips jitter views affine "
    )
    added += "shrink holes head_share fixed_statistics depth_decay"
    for name in added.split():
        del settings[name]
    assert Recipe.from_settings(settings) == RECIPES["original"]


@pytest.mark.parametrize(
    ("growth", "epochs", "image_size", "expected"),
    [
        ((), 3, 32, [32, 32, 32]),
        (((0.5, 0.4), (0.75, 0.75)), 10, 32, [16] * 4 + [24] * 4 + [32] * 2),
        (((0.5, 0.4), (0.75, 0.75)), 4, 64, [32] * 2 + [48] + [64]),
        (((0.5, 0.5),), 2, 24, [16, 24]),  # 12 is less than a network takes
        (((0.5, 0.5),), 2, 16, [16, 16]),
        (((0.5, 0.5),), 2, 50, [24, 50]),  # the full size is never rounded
        ((), 2, 50, [50, 50]),
        (((0.5, 0.5),), 1, 32, [32]),  # a single epoch is of the full size
        (((0.5, 1.0),), 2, 32, [16, 16]),
    ],
)
def test_pictures_grow_over_the_epochs(growth, epochs, image_size, expected):
    recipe = choose_recipe("original", "cifar10", growth=growth, epochs=epochs)
    assert recipe.picture_sides(image_size) == expected


@pytest.mark.parametrize(
    "growth",
    [3, "half", ((0.5,),), ((0.5, 0.4, 1),), ((0.5, 2.0),), ((0.0, 0.4),),
     ((0.75, 0.4), (0.5, 0.8)), ((0.5, 0.8), (0.75, 0.4)), (("a", 0.4),)],
)  # fmt: skip
def test_growth_that_cannot_be_is_refused(growth):
    with pytest.raises(InputError, match="growth"):
        choose_recipe("original", "cifar10", growth=growth)


@pytest.mark.parametrize(
    ("name", "value"),
    [("optimizer", "sgd"), ("views", 3), ("views", "6"), ("alternate_flips", 1),
     ("label_smoothing", 1.0), ("jitter", 0.6), ("jitter", -0.1)],
)  # fmt: skip
def test_choices_that_are_not_there_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        choose_recipe("original", "cifar10", **{name: value})


@pytest.mark.parametrize(
    ("asked", "train_size", "expected"),
    [
        (512, 50_000, 512),
        (512, 5_120, 512),
        (512, 5_119, 256),
        (512, 2_560, 256),
        (512, 100, 8),
        (512, 1, 8),
        (500, 3_000, 256),
        (100, 700, 64),
        (9, 20, 8),
        (8, 20, 8),
        (4, 20, 4),
    ],
)
def test_small_data_sets_get_batches_that_leave_ten_steps_an_epoch(asked, train_size, expected):
    recipe = choose_recipe("original", "cifar10", batch_size=asked)
    lowered = limit_batch_size(recipe, train_size)
    assert lowered.batch_size == expected
    assert lowered.as_settings() == recipe.as_settings() | {"batch_size": expected}
    if expected > 8:
        assert -(-train_size // expected) >= 10


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("train_size", [100, 200, 400, 1_000, 2_000, 5_000])
def test_what_an_epoch_leaves_out_makes_no_steps(name, train_size):
    recipe = limit_batch_size(RECIPES[name], train_size)
    shown = pictures_per_epoch(train_size, recipe.skipped)
    assert recipe.batch_size == 8 or -(-shown // recipe.batch_size) >= 10


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("epochs", range(1, 21))
def test_the_last_epoch_sees_pictures_of_full_size(name, epochs):
    sides = RECIPES[name].changed(epochs=epochs).picture_sides(32)
    assert len(sides) == epochs and sides[-1] == 32 and sides == sorted(sides)
