"""What files tell is measured as it was put into them."""

import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFilter

from helpers.pictures import scene
from utils import InputError
from utils.data import pictures
from utils.data.audit import BLURRED
from utils.data.traits import MEASURED, read_trait, read_traits


def noise(width, height, low=0, high=256):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(low, high, (height, width, 3), dtype=np.uint8))


def exif(**tags):
    made = Image.Exif()
    for tag, value in tags.items():
        made[{"orientation": 0x0112, "maker": 0x010F, "model": 0x0110, "changed": 0x0132}[tag]] = (
            value
        )
    return made


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_and_kind_are_those_of_the_file_upright(ending, orientation, tmp_path):
    for size in ((40, 30), (301, 200)):
        noise(*size).save(tmp_path / f"a.{ending}", exif=exif(orientation=orientation))
        trait = read_trait(str(tmp_path / f"a.{ending}"))
        assert (trait.width, trait.height) == (size[::-1] if orientation > 4 else size)
        assert trait.kind == {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}[ending]


def test_light_is_that_of_the_pixels(tmp_path):
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:60], pixels[60:], pixels[:2] = 51, 153, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    trait = read_trait(str(tmp_path / "a.png"))
    assert trait.brightness == pytest.approx(0.02 + 0.58 * 0.2 + 0.4 * 0.6, abs=1e-4)
    assert trait.darkest == pytest.approx(0.2) and trait.lightest == pytest.approx(1)


def test_sharpness_tells_sharp_from_blurred_at_any_size(tmp_path):
    def sharpness(image):
        image.save(tmp_path / "a.png")
        return read_trait(str(tmp_path / "a.png")).sharpness

    assert sharpness(noise(MEASURED, MEASURED)) == pytest.approx(math.sqrt(20), rel=0.02)
    assert sharpness(Image.new("RGB", (50, 50), "teal")) == 0
    for side in (64, 300, 900):
        sharp, measured_pixel = scene(side=side), max(1, side / MEASURED)
        assert sharpness(sharp) > 2 * BLURRED
        assert sharpness(sharp.filter(ImageFilter.GaussianBlur(4 * measured_pixel))) < BLURRED


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 1), (2, 2)])
def test_a_picture_of_a_few_pixels_is_measured(size, tmp_path):
    noise(*size).save(tmp_path / "a.png")
    trait = read_trait(str(tmp_path / "a.png"))
    assert (trait.width, trait.height) == size and math.isfinite(trait.sharpness)


@pytest.mark.parametrize(
    ("tags", "camera"),
    [
        ({}, ""),
        ({"maker": "Canon", "model": "Canon EOS 5D\0"}, "Canon EOS 5D"),
        ({"maker": "NIKON ", "model": "D90"}, "NIKON D90"),
        ({"model": "x\x1b[2J" + 99 * "y"}, ("x\\x1b[2J" + 99 * "y")[:40]),
    ],
)
def test_the_camera_is_what_the_file_says_and_can_be_printed(tags, camera, tmp_path):
    noise(20, 20).save(tmp_path / "a.jpg", exif=exif(**tags))
    assert read_trait(str(tmp_path / "a.jpg")).camera == camera


def test_the_date_is_that_of_the_picture_or_else_of_the_file(tmp_path):
    def date(tags):
        noise(20, 20).save(tmp_path / "a.jpg", exif=tags)
        return read_trait(str(tmp_path / "a.jpg")).date

    changed = exif(changed="2024:05:31 18:00:00")
    assert date(changed) == 739_037.75
    changed.get_ifd(0x8769)[0x9003] = "2024:05:30 00:00:00"
    assert date(changed) == 739_036
    for none in ("", "0000:00:00 00:00:00", "yesterday"):
        assert math.isnan(date(exif(changed=none)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_tell_nothing(tmp_path):
    noise(20, 20).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40))
    trait = read_trait(str(tmp_path / "a.jpg"))
    assert trait.camera == "" and math.isnan(trait.date) and trait.width == 20


@pytest.mark.parametrize("processes", [False, True])
def test_many_are_read_in_order(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "PROCESSES_FROM", 1 if processes else 10**9)
    monkeypatch.setattr("utils.data.traits.CHUNK", 2)
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    for number, path in enumerate(paths):
        noise(20 + number, 30).save(path)
    traits = read_traits(paths)
    assert traits.width.tolist() == [20, 21, 22, 23, 24] and set(traits.kind) == {"PNG"}
    assert traits.sharpness.shape == traits.camera.shape == (5,)


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        read_traits([str(tmp_path / "gone.png")])


def test_deep_greyscale_is_as_light_as_it_is_shown(tmp_path):
    written = BytesIO()
    Image.fromarray(np.full((30, 30), 2_048, np.uint16)).save(written, "PNG")
    (tmp_path / "a.png").write_bytes(written.getvalue())
    assert read_trait(str(tmp_path / "a.png"), bits=12).brightness == pytest.approx(128 / 255)
