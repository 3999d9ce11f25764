"""What is done to training pictures, as a value: said in words, and refused out of range."""

import json
import subprocess
import sys

import pytest

from utils import InputError
from utils.data.augmentation import Affine, Augmentation, Holes, Shrink
from utils.training.recipes import CANDIDATES, RECIPES, Recipe


@pytest.mark.parametrize(
    ("augmentation", "words"),
    [
        (Augmentation(), "moved by up to 4 pixels, its edge filled by reflection; "
         "flipped left-right with probability 0.5; "
         "one square of 8×8 pixels set to the mean colour"),
        (Augmentation(2, 0.5, 0, True), "moved by up to 2 pixels, its edge filled by reflection; "
         "flipped left-right every other epoch"),
        (Augmentation(0, 0.0, 0, jitter=0.2), "contrast and brightness changed by up to 20%"),
        (Augmentation(0, 0.0, 0), "left as it is"),
        (CANDIDATES["a"], "flipped left-right with probability 0.5; with probability 0.5 moved by "
         "up to 5% of its side, scaled by up to 10% and turned by up to 25°; "
         "with probability 0.5 1 to 3 black rectangles with sides of 4 to 20 pixels"),
        (CANDIDATES["b"], "flipped left-right with probability 0.5; with probability 0.5 made "
         "smaller, its surroundings of 4 pixels filled by reflection; "
         "with probability 0.5 8 black squares of 8×8 pixels"),
    ],
)  # fmt: skip
def test_an_augmentation_says_what_it_does(augmentation, words):
    assert augmentation.in_words() == words


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_padding", 17),
        ("crop_padding", 1.5),
        ("flip_probability", -0.1),
        ("flip_probability", "0.5"),
        ("cutout_size", 65),
        ("alternate_flips", 1),
        ("jitter", 0.6),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name} is {value!r}; it must be"):
        Augmentation(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Affine, "degrees", 181),
        (Affine, "shift", -0.1),
        (Affine, "scale", 1.0),
        (Shrink, "padding", 16),
        (Shrink, "probability", 1.1),
        (Holes, "least", 0),
        (Holes, "most", 0),
        (Holes, "shortest", 0),
        (Holes, "longest", 3),
    ],
)
def test_a_part_refuses_what_is_out_of_its_range(kind, name, value):
    with pytest.raises(InputError, match=f"{name}.* is {value!r}; it must be"):
        kind(**{name: value})


@pytest.mark.parametrize("letter", CANDIDATES)
def test_parts_survive_run_json(letter):
    recipe = RECIPES["original"].changed(**vars(CANDIDATES[letter]))
    settings = json.loads(json.dumps(recipe.as_settings()))
    assert settings == recipe.as_settings()
    assert Recipe.from_settings(settings) == recipe


@pytest.mark.parametrize("odd", [{"probability": 0.5, "angle": 3}, "all", 5, [1, 2]])
def test_a_part_that_is_none_is_refused_with_its_fields(odd):
    with pytest.raises(InputError, match=r"affine is .*; it must have probability, shift, scale"):
        Augmentation(affine=odd)


def test_it_needs_no_torch():
    code = "import sys, utils.data.augmentation; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
