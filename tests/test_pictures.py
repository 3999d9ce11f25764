"""Picture files: every kind becomes the same square RGB array, and folders are read as promised."""

import os

import numpy as np
import pytest
from PIL import Image

from utils import InputError, pictures
from utils.pictures import fit_picture, read_picture, read_pictures, scan_folder

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
        fit_picture(Image.fromarray(array), SIZE), read_picture(saved(tmp_path, array), SIZE)
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
    images, failures = read_pictures(mixed_files, 24)
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
    images, failures = read_pictures([], 24)
    assert images.shape == (0, 3, 24, 24)
    assert failures == {}


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        read_picture(tmp_path / "gone.png", SIZE)


# folders


def make_files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"never opened")


def listed(root, pairs):
    return [(os.path.relpath(path, root), target) for path, target in pairs]


def test_train_and_test_folders_are_read_as_they_are(tmp_path):
    make_files(
        tmp_path, "train/dog/b.jpg", "train/dog/a.JPEG", "train/cat/c.png", "test/dog/d.webp",
        "test/cat/sub/e.bmp",
    )  # fmt: skip
    folder = scan_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert listed(tmp_path, folder.train) == [
        ("train/cat/c.png", 0), ("train/dog/a.JPEG", 1), ("train/dog/b.jpg", 1),
    ]  # fmt: skip
    assert listed(tmp_path, folder.test) == [("test/cat/sub/e.bmp", 0), ("test/dog/d.webp", 1)]
    assert folder.notes == ()


def test_a_plain_folder_has_no_test_split_of_its_own(tmp_path):
    make_files(tmp_path, "b/1.jpg", "a/2.jpg", "a/1.jpg")
    folder = scan_folder(tmp_path)
    assert listed(tmp_path, folder.train) == [("a/1.jpg", 0), ("a/2.jpg", 0), ("b/1.jpg", 1)]
    assert folder.test is None


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_stands_in_for_a_missing_test_folder_and_that_is_said(name, tmp_path):
    make_files(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{name}/a/2.jpg", f"{name}/b/2.jpg")
    folder = scan_folder(tmp_path)
    assert listed(tmp_path, folder.test) == [(f"{name}/a/2.jpg", 0), (f"{name}/b/2.jpg", 1)]
    assert [note for note in folder.notes if f"{name} is used as the test split" in note]


def test_beside_a_test_folder_a_validation_folder_is_not_read_and_that_is_said(tmp_path):
    make_files(
        tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg", "val/a/3.jpg"
    )
    folder = scan_folder(tmp_path)
    assert listed(tmp_path, folder.test) == [("test/a/2.jpg", 0), ("test/b/2.jpg", 1)]
    assert len(folder.train) == 2
    assert [note for note in folder.notes if "Not read" in note and "val" in note]


def test_hidden_files_are_left_out_and_files_that_are_no_pictures_are_counted(tmp_path):
    make_files(
        tmp_path, "a/1.jpg", "b/1.jpg", "a/.DS_Store", "a/._1.jpg", "b/readme.txt", "b/1.gif",
        ".git/x.jpg", "__MACOSX/a.jpg",
    )  # fmt: skip
    folder = scan_folder(tmp_path)
    assert folder.classes == ("a", "b")
    assert listed(tmp_path, folder.train) == [("a/1.jpg", 0), ("b/1.jpg", 1)]
    assert len(folder.notes) == 1
    assert ": 2 that are no " in folder.notes[0]  # what is hidden is nobody's picture


def test_pictures_in_hidden_folders_of_a_class_are_left_out(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", "a/.ipynb_checkpoints/1-checkpoint.jpg")
    assert listed(tmp_path, scan_folder(tmp_path).train) == [("a/1.jpg", 0), ("b/1.jpg", 1)]


def test_pictures_that_lie_in_no_class_folder_are_mentioned(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", "loose.jpg")
    folder = scan_folder(tmp_path)
    assert len(folder.train) == 2
    assert folder.notes


def test_file_names_that_are_no_unicode_are_read(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    try:
        os.rename(tmp_path / "a/1.jpg", os.fsencode(tmp_path) + b"/a/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert len(scan_folder(tmp_path).train) == 2


def test_a_link_to_nowhere_is_no_crash(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    try:
        scan_folder(tmp_path)
    except InputError as refused:
        assert "2.jpg" in str(refused)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "at least two class folders.*found: none"),
        (["a.jpg"], "at least two class folders.*found: none"),
        (["a/1.jpg", "a/2.jpg"], "at least two class folders.*found: a"),
        (["a/1.jpg", "b/1.txt"], "at least two class folders.*found: a"),
        (["train/a/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "at least two class folders"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/c/1.jpg", "test/d/1.jpg"],
            "test pictures but none to train on: c, d",
        ),
    ],
)
def test_folders_that_cannot_be_learnt_from_are_refused_with_the_reason(files, message, tmp_path):
    make_files(tmp_path, *files)
    with pytest.raises(InputError, match=message) as refused:
        scan_folder(tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    make_files(tmp_path, "a.jpg")
    for path in (tmp_path / "gone", tmp_path / "a.jpg"):
        with pytest.raises(InputError, match=f"no folder {path}"):
            scan_folder(path)


def test_the_key_changes_with_any_name_size_time_or_place_and_with_nothing_else(tmp_path):
    make_files(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")

    def key():
        return scan_folder(tmp_path).key

    keys = [key()]
    assert key() == keys[0]
    make_files(tmp_path, "a/notes.txt")
    assert key() == keys[0]
    os.utime(tmp_path / "a/1.jpg", ns=(1, 1))
    keys.append(key())
    (tmp_path / "a/1.jpg").write_bytes(b"of another size")
    os.utime(tmp_path / "a/1.jpg", ns=(1, 1))
    keys.append(key())
    (tmp_path / "a/1.jpg").rename(tmp_path / "a/3.jpg")
    keys.append(key())
    (tmp_path / "a/3.jpg").rename(tmp_path / "b/3.jpg")
    keys.append(key())
    (tmp_path / "b/3.jpg").unlink()
    keys.append(key())
    assert len(set(keys)) == len(keys)
