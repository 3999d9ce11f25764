"""A folder of planted faults: as many pictures as are said, each fault where it is said to be."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from helpers.pictures import load, scene
from utils import InputError
from utils.data.folders import scan_folder
from utils.measure.difficult import CLASSES, DRAWN, make_difficult

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder, and what was planted."""
    root = tmp_path_factory.mktemp("difficult")
    for number in range(CLASSES * DRAWN):
        folder = root / "source" / "abcdefgh"[number // DRAWN]
        folder.mkdir(parents=True, exist_ok=True)
        scene(number, 32).save(folder / f"{number}.png")
    return root / "made", make_difficult(root / "made", root / "source")


def test_every_fault_lies_where_it_is_said_to_lie(made):
    folder, planted = made
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert 115 <= len(files) <= 140
    assert {file for of_fault in planted.values() for file in of_fault} <= files
    contents = [(folder / file).read_bytes() for file in planted["exact copies"]]
    assert [contents[0], contents[2]] == [contents[1], contents[3]]
    one, other = planted["two labels, same pixels"]
    assert one[0] != other[0] and (folder / one).read_bytes() == (folder / other).read_bytes()
    with Image.open(folder / planted["animated GIF"][0]) as image:
        assert image.n_frames == 2
    with Image.open(folder / planted["TIFF, 12 bits in 16"][0]) as image:
        assert np.asarray(image).max() > 255
    assert len(list((folder / "e").iterdir())) == 5


def test_the_audit_finds_what_was_planted(made, tmp_path):
    folder, planted = made
    with pytest.raises(InputError, match=planted["broken"][0]):
        load(folder, tmp_path)
    told = "\n".join(load(folder, tmp_path, skip_unreadable=True).notes)
    for fault in (
        "exact copies", "re-encoded", "resized", "mirrored", "two labels, same pixels",
        "two labels, re-encoded", "animated GIF", "very dark", "of one colour", "broken",
    ):  # fmt: skip
        for file in planted[fault]:
            assert file in told, fault
    assert "A mark? At the top right, 24 of 24 pictures of a that were looked at" in told
    assert "Of 1 greyscale picture of more than 8 bits, 12 bits are used" in told


def test_the_same_seed_makes_the_same_folder(made, tmp_path):
    def digest(folder):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()

    folder, planted = made
    source = folder.parent / "source"
    assert make_difficult(tmp_path / "again", source) == planted
    assert digest(tmp_path / "again") == digest(folder)
    assert make_difficult(tmp_path / "other", source, seed=1) != planted


def test_a_place_that_is_taken_and_too_few_pictures_are_refused(made, tmp_path):
    folder, _ = made
    with pytest.raises(InputError, match="exists already"):
        make_difficult(folder, folder.parent / "source")
    with pytest.raises(InputError, match="5 classes of 40 are needed"):
        make_difficult(tmp_path / "new", folder)
    assert not (tmp_path / "new").exists() and len(scan_folder(folder).classes) == CLASSES
