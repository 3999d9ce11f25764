"""Picture files: every kind becomes the same square RGB array."""

import numpy as np
import pytest
from PIL import Image

from utils import InputError
from utils.data import pictures
from utils.data.pictures import read_picture, read_pictures, resize_and_crop

SIZE = 32


def noise(size=(SIZE, SIZE), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def saved(folder, array_or_image, name="a.png", **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array_or_image
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


def read_colour(path):
    """The colour of a picture that is all one colour."""
    array = read_picture(path, SIZE)
    assert array.shape == (SIZE, SIZE, 3)
    assert array.dtype == np.uint8
    assert (array == array[0, 0]).all()
    return tuple(array[0, 0].tolist())


# kinds of file


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.PNG"])
def test_a_lossless_picture_of_the_right_size_is_read_exactly(name, tmp_path):
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path, noise(), name, **options)
    np.testing.assert_array_equal(read_picture(path, SIZE), noise())
    np.testing.assert_array_equal(read_picture(str(path), SIZE), noise())


def test_a_jpeg_is_read_nearly_exactly(tmp_path):
    smooth = np.linspace(0, 255, SIZE).astype(np.uint8)
    array = np.stack(np.broadcast_arrays(smooth, smooth[:, None], np.uint8(90)), axis=-1)
    read = read_picture(saved(tmp_path, array, "a.jpeg", quality=100, subsampling=0), SIZE)
    assert np.abs(read.astype(int) - array).max() <= 5


# modes


@pytest.mark.parametrize(
    ("mode", "value", "colour"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (77, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
    ],
)
def test_a_mode_becomes_the_colour_that_is_meant(mode, value, colour, tmp_path):
    assert read_colour(saved(tmp_path, Image.new(mode, (SIZE, SIZE), value))) == colour


@pytest.mark.parametrize(
    ("mode", "value", "colour"),
    [("LA", (100, 51), (224, 224, 224)), ("RGBA", (0, 100, 255, 51), (204, 224, 255))],
)
def test_a_fifth_of_a_colour_on_white(mode, value, colour, tmp_path):
    read = read_colour(saved(tmp_path, Image.new(mode, (SIZE, SIZE), value)))
    np.testing.assert_allclose(read, colour, atol=1)


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_only_the_transparent_part_becomes_white(name, tmp_path):
    array = np.dstack([noise(), np.full((SIZE, SIZE), 255, np.uint8)])
    array[:, : SIZE // 2, 3] = 0
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    read = read_picture(saved(tmp_path, array, name, **options), SIZE)
    assert (read[:, : SIZE // 2] == 255).all()
    np.testing.assert_array_equal(read[:, SIZE // 2 :], noise()[:, SIZE // 2 :])


def palette_picture():
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([200, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, SIZE // 2, SIZE))
    return image


def test_a_palette_becomes_its_colours(tmp_path):
    read = read_picture(saved(tmp_path, palette_picture()), SIZE)
    assert (read[:, : SIZE // 2] == (200, 0, 0)).all()
    assert (read[:, SIZE // 2 :] == (10, 20, 30)).all()


def test_the_transparent_colour_of_a_palette_becomes_white(tmp_path):
    read = read_picture(saved(tmp_path, palette_picture(), transparency=0), SIZE)
    assert (read[:, : SIZE // 2] == 255).all()
    assert (read[:, SIZE // 2 :] == (10, 20, 30)).all()


@pytest.mark.parametrize(
    ("mode", "value", "transparency"), [("RGB", (1, 2, 3), (1, 2, 3)), ("L", 9, 9), ("1", 0, 0)]
)
def test_one_colour_declared_transparent_becomes_white(mode, value, transparency, tmp_path):
    image = Image.new(mode, (SIZE, SIZE), value)
    assert read_colour(saved(tmp_path, image, transparency=transparency)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_to_eight_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65_535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    path = saved(tmp_path, Image.fromarray(ramp))
    with Image.open(path) as opened:
        assert opened.mode.startswith("I")  # else this test is about nothing
    read = read_picture(path, SIZE)
    assert (read == read[..., :1]).all()
    assert np.abs(read[..., 0] - ramp / 257).max() <= 1
    assert read.min() == 0
    assert read.max() == 255


def test_sixteen_bit_pictures_are_resized_like_others(tmp_path):
    steps = np.repeat(np.arange(64, dtype=np.uint16) * 1_000, 2)
    path = saved(tmp_path, Image.fromarray(np.tile(steps, (128, 1))))
    read = read_picture(path, SIZE)[..., 0].astype(float)
    expected = (np.arange(SIZE) * 2 + 0.5) * 1_000 / 257
    np.testing.assert_allclose(read[:, 2:-2], np.tile(expected, (SIZE, 1))[:, 2:-2], atol=2)


def test_cmyk_becomes_the_colours_that_were_printed(tmp_path):
    image = Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0))
    read = read_picture(saved(tmp_path, image, "a.jpg", quality=95), SIZE).astype(int)
    np.testing.assert_allclose(read.mean(axis=(0, 1)), (255, 0, 0), atol=6)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_large_jpegs_of_any_mode_are_read(mode, tmp_path):
    image = Image.fromarray(np.full((400, 600, 3), 200, np.uint8)).convert(mode)
    read = read_picture(saved(tmp_path, image, "a.jpg"), SIZE).astype(int)
    assert read.shape == (SIZE, SIZE, 3)
    np.testing.assert_allclose(read, 200, atol=6)


# orientation and geometry


ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_orientation_is_applied(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, noise(), exif=exif)
    np.testing.assert_array_equal(read_picture(path, SIZE), ORIENTED[orientation](noise()))


def test_exif_orientation_of_a_large_photograph_is_applied_before_cropping(tmp_path):
    stored = np.zeros((400, 800, 3), np.uint8)
    stored[:, 200:600] = (0, 255, 0)  # the centre square
    stored[:200, 200:600, 0] = 255  # its upper half is yellow
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show: what was up is right
    read = read_picture(saved(tmp_path, stored, "a.jpg", exif=exif, quality=95), SIZE)
    assert (read[..., 1] > 200).all()
    assert (read[:, : SIZE // 2 - 2, 0] < 60).all()
    assert (read[:, SIZE // 2 + 2 :, 0] > 200).all()


LARGE = [(640, 480), (480, 640), (1_001, 301)]
SMALL = [(5, 300), (300, 5), (33, 32), (20, 16), (64, 64)]


@pytest.mark.parametrize(
    ("name", "size"),
    [("a.jpg", size) for size in LARGE] + [("a.png", size) for size in LARGE + SMALL],
)
def test_the_shorter_side_is_resized_and_the_centre_kept(name, size, tmp_path):
    width, height = size
    ramp = [np.linspace(0, 255, length) for length in (width, height)]
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 0], array[..., 1] = np.rint(ramp[0]), np.rint(ramp[1])[:, None]
    read = read_picture(saved(tmp_path, array, name), SIZE).astype(float)
    shorter = min(size)
    for channel, length in ((0, width), (1, height)):
        place = (length - shorter) / 2 + (np.arange(SIZE) + 0.5) * shorter / SIZE - 0.5
        expected = place.clip(0, length - 1) * 255 / (length - 1)
        seen = read[..., channel].T if channel == 1 else read[..., channel]
        tolerance = 0.35 * 255 / (length - 1) + (6 if name == "a.jpg" else 1)
        np.testing.assert_allclose(seen, np.tile(expected, (SIZE, 1)), atol=tolerance)


def test_what_lies_outside_the_centre_square_has_no_influence(tmp_path):
    array = np.full((48, 96, 3), (0, 200, 0), np.uint8)
    array[:, :22], array[:, 74:] = (255, 0, 0), (255, 0, 0)
    assert (read_picture(saved(tmp_path, array), 48) == (0, 200, 0))[:, 3:-3].all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_pictures_are_enlarged(size, tmp_path):
    path = saved(tmp_path, Image.new("RGB", size, (10, 200, 30)))
    assert read_colour(path) == (10, 200, 30)


@pytest.mark.parametrize("image_size", [16, 48, 64])
def test_the_size_asked_for_is_the_size_given(image_size, tmp_path):
    read = read_picture(saved(tmp_path, noise((50, 70))), image_size)
    assert read.shape == (image_size, image_size, 3)


def test_an_open_picture_and_its_file_give_the_same(tmp_path):
    array = noise((50, 70))
    np.testing.assert_array_equal(
        resize_and_crop(Image.fromarray(array), SIZE), read_picture(saved(tmp_path, array), SIZE)
    )


# reading many


@pytest.fixture
def mixed_files(tmp_path):
    """Nine pictures of several kinds, with three unreadable ones at known places."""
    paths = [
        saved(tmp_path, noise((20 + 5 * i, 40), seed=i), f"{i}.{ending}")
        for i, ending in enumerate(["png", "jpg", "bmp", "webp", "png", "png"])
    ]
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = saved(tmp_path, noise((90, 90)), "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    paths[2:2] = [tmp_path / "text.jpg", tmp_path / "empty.png"]
    return [str(path) for path in [*paths, tmp_path / "cut.jpg"]]


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_many_files_give_what_each_gives_alone_with_failures_at_their_places(
    processes, mixed_files, monkeypatch
):
    monkeypatch.setattr(pictures, "PROCESSES_FROM", 1 if processes else 10**9)
    monkeypatch.setattr(pictures, "CHUNK", 2)
    decoded = read_pictures(mixed_files, 24)
    images, failures = decoded.images, decoded.failures
    assert images.shape == (9, 3, 24, 24)
    assert images.dtype == np.uint8
    assert sorted(failures) == [2, 3, 8]
    for position, path in enumerate(mixed_files):
        if position in failures:
            assert path in failures[position]
            assert (images[position] == 0).all()
            with pytest.raises(InputError, match=r"cannot be read as a picture") as refused:
                read_picture(path, 24)
            assert str(refused.value) == failures[position]
        else:
            expected = read_picture(path, 24).transpose(2, 0, 1)
            np.testing.assert_array_equal(images[position], expected)


def test_no_files_give_no_pictures():
    decoded = read_pictures([], 24)
    assert decoded.images.shape == (0, 3, 24, 24)
    assert decoded.failures == {}


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        read_picture(tmp_path / "gone.png", SIZE)


# deep greyscale


def deep(folder, *values, name="{}.png"):
    """Write a 16-bit picture of each value, and return the paths."""
    images = [Image.fromarray(np.full((SIZE, SIZE), value, np.uint16)) for value in values]
    return [str(saved(folder, image, name.format(i))) for i, image in enumerate(images)]


@pytest.mark.parametrize(
    ("brightest", "bits"),
    [
        (1, 8),
        (255, 8),
        (256, 10),
        (1_023, 10),
        (4_095, 12),
        (4_096, 14),
        (16_383, 14),
        (65_535, 16),
    ],
)
@pytest.mark.parametrize("name", ["{}.png", "{}.tif"])
def test_deep_pictures_are_scaled_by_the_range_that_all_of_them_use(
    brightest, bits, name, tmp_path
):
    half = brightest // 2
    decoded = read_pictures(deep(tmp_path, half, brightest, name=name), SIZE)
    assert decoded.bits == bits
    assert decoded.deep == {0: half.bit_length(), 1: brightest.bit_length()}
    assert decoded.images[:, 0, 0, 0].tolist() == [half >> (bits - 8), brightest >> (bits - 8)]


def test_deep_pictures_can_be_scaled_as_others_were(tmp_path):
    paths = deep(tmp_path, 1_000, 4_095)
    for bits, expected in ((12, [62, 255]), (16, [3, 15]), (8, [255, 255])):
        decoded = read_pictures(paths, SIZE, bits=bits)
        assert decoded.bits == bits
        assert decoded.images[:, 0, 0, 0].tolist() == expected
        assert read_picture(paths[0], SIZE, bits)[0, 0, 0] == expected[0]


def test_other_pictures_have_no_say_in_that(tmp_path):
    paths = [*deep(tmp_path, 4_095), str(saved(tmp_path, noise(), "b.png"))]
    decoded = read_pictures(paths, SIZE)
    assert (decoded.bits, list(decoded.deep)) == (12, [0])
    np.testing.assert_array_equal(decoded.images[1], noise().transpose(2, 0, 1))
    assert read_pictures(paths[1:], SIZE).bits == 16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((9, 9), 0.5, np.float32), "floating-point numbers; save it with 8 or 16 bits"),
        (np.full((9, 9), 70_000, np.int32), "values go up to 70,000; save it with 8 or 16 bits"),
    ],
)
def test_values_of_no_known_range_are_refused(values, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_picture(saved(tmp_path, Image.fromarray(values), "a.tif"), SIZE)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.tiff", "a.jfif", "a.jpe", "a.ppm", "a.bmp"])
def test_other_kinds_of_file_are_read(name, tmp_path):
    options = {"format": "JPEG"} if name in ("a.jfif", "a.jpe") else {}
    path = saved(tmp_path, Image.new("RGB", (SIZE, SIZE), (200, 40, 40)), name, **options)
    assert np.abs(read_picture(path, SIZE).astype(int) - (200, 40, 40)).max() <= 2


def test_files_of_several_pictures_give_the_first_and_are_told(tmp_path):
    paths = [saved(tmp_path, Image.new("RGB", (9, 9), "blue"), "a.png")]
    for name in ("b.gif", "c.tif"):
        red, blue = (Image.new("RGB", (9, 9), colour) for colour in ("red", "blue"))
        paths.append(saved(tmp_path, red, name, save_all=True, append_images=[blue]))
    decoded = read_pictures([str(path) for path in paths], SIZE)
    assert decoded.several == {1, 2}
    assert (decoded.images[1:, 0] > 250).all() and not decoded.images[1:, 1:].any()


def test_a_file_larger_than_any_picture_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_FILE_SIZE", 1_000_000)
    path = saved(tmp_path, noise())
    with open(path, "ab") as opened:
        opened.truncate(1_000_001)
    with pytest.raises(InputError, match="it is larger than 1 MB"):
        read_picture(path, SIZE)
