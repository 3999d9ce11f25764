"""What is done to training pictures, as a value: said in words, and refused out of range."""

import subprocess
import sys

import pytest

from utils import InputError
from utils.data.augmentation import Augmentation


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


def test_it_needs_no_torch():
    code = "import sys, utils.data.augmentation; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
