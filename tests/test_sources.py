"""What a data set becomes when it is read: pictures, classes, two splits, and notes on them."""

import errno
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from helpers.pictures import coloured, counts_of, listing, load, made_set, make_folder, same, scene
from helpers.records import valid_record
from utils import InputError, files
from utils.data import cache, pictures, sources
from utils.data.augment import Augmentation
from utils.data.batches import PictureDataModule, hold_out
from utils.data.picture_set import channel_statistics
from utils.data.sources import load_pictures, pictures_of
from utils.runs import Run

pytestmark = pytest.mark.usefixtures("no_network")


def test_train_and_test_folders_become_the_two_splits(tmp_path):
    root = make_folder(
        tmp_path / "pets", {"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 2}
    )
    loaded = load(root, tmp_path)
    assert loaded.classes == ("cat", "dog")
    assert loaded.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert loaded.test.targets.tolist() == [0, 1, 1]
    files = sorted((root / "train").rglob("*.png"))
    for image, path in zip(loaded.train.images, files, strict=True):
        expected = pictures.read_picture(path, 32).transpose(2, 0, 1)
        np.testing.assert_array_equal(image, expected)
    assert (loaded.mean, loaded.std) == channel_statistics(loaded.train.images)
    assert loaded.title == "pets"
    assert load(root, tmp_path, dataset_title="My pets").title == "My pets"


def test_a_plain_folder_is_split_by_class_and_that_is_said(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 20, "bee": 10, "cow": 2})
    loaded = load(root, tmp_path)
    assert counts_of(loaded.test, 3) == [4, 2, 1]
    assert counts_of(loaded.train, 3) == [16, 8, 1]
    assert [note for note in loaded.notes if note.startswith("No test folder: 7 pictures (")]
    train, test = ({i.numpy().tobytes() for i in s.images} for s in (loaded.train, loaded.test))
    assert not train & test
    assert len(train | test) == 32


@pytest.mark.parametrize(
    ("ants", "bees", "told"),
    [
        (20, 11, "6 pictures (20% of each class) are held out to test."),
        (30, 2, "7 pictures (20% to 50% of each class; whole pictures, with their copies, came no "
                "nearer to 20% of: bee 50%) are held out to test."),
        (2, 2, "2 pictures (50% of each class; whole pictures, with their copies, came no nearer "
               "to 20% of: ant 50%, bee 50%) are held out to test."),
    ],
)  # fmt: skip
def test_what_is_held_out_of_each_class_is_said_as_it_is(ants, bees, told, tmp_path):
    loaded = load(make_folder(tmp_path / "pets", {"ant": ants, "bee": bees}), tmp_path)
    assert f"No test folder: {told}" in loaded.notes


def test_the_split_of_a_plain_folder_is_the_same_whatever_any_generator_is_at(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 10, "bee": 10})
    torch.manual_seed(1)
    first = load(root, tmp_path / "first")
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(first, load(root, tmp_path / "second"))


def test_a_validation_folder_is_used_as_test_split_and_that_is_said(tmp_path):
    root = make_folder(
        tmp_path / "pets", {"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 2}
    )
    loaded = load(root, tmp_path)
    assert counts_of(loaded.test, 2) == [1, 2]
    assert [note for note in loaded.notes if str(root / "val") in note]


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "webp", "bmp", "JPG"])
def test_every_kind_of_file_is_found(ending, tmp_path):
    root = make_folder(tmp_path / "pets", {"train/a": 2, "train/b": 2, "test/a": 1}, ending)
    loaded = load(root, tmp_path)
    assert (len(loaded.train), len(loaded.test)) == (4, 1)
    colours = loaded.train.images.float().mean(dim=(2, 3))
    expected = torch.tensor([[14.5, 114.5, 214.5], [14.5, 114.5, 214.5]])
    torch.testing.assert_close(colours[:2], expected, atol=6, rtol=0)


def test_two_and_twelve_classes(tmp_path):
    for count in (2, 12):
        names = [f"class{number:02}" for number in range(count)]
        root = make_folder(tmp_path / f"n{count}", dict.fromkeys(names, 2))
        loaded = load(root, tmp_path)
        assert loaded.classes == tuple(names)
        assert counts_of(loaded.train, count) == counts_of(loaded.test, count) == [1] * count


def test_nothing_is_written_into_the_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path / "repository")
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    before = listing(root)
    load(root, tmp_path)
    load_pictures(dataset="folder", data_dir=root)
    assert listing(root) == before
    assert list((tmp_path / "repository" / "data" / "cache").iterdir())


def test_the_name_folder_means_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path / "repository")
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    assert same(load_pictures(dataset="folder", data_dir=root), load(root, tmp_path))


def test_what_is_left_out_is_said_also_from_the_cache(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    (root / "ant" / ".hidden.png").write_bytes(b"x")
    (root / "ant" / "notes.txt").write_text("x")
    for _ in range(2):
        loaded = load(root, tmp_path)
        assert len(loaded.train) + len(loaded.test) == 8
        assert [note for note in loaded.notes if "as not pictures in a class folder: 1 (" in note]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"ant": 4}, "two class folders"),
        ({}, "two class folders"),
        ({"ant": 4, "bee": 1}, "two readable pictures.*bee"),
        ({"train/ant": 2, "train/bee": 2, "test/cow": 2}, "none to train on: cow"),
    ],
)
def test_folders_that_cannot_be_learnt_from_are_refused(counts, message, tmp_path):
    root = make_folder(tmp_path / "pets", counts)
    root.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        load(root, tmp_path)
    assert not (tmp_path / "data" / "cache").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "cifar100"}, "'cifar100' is unknown.*shapes, cifar10"),
        ({"dataset": "/no/such/folder"}, "/no/such/folder"),
        ({"image_size": 8}, "image_size is 8;.*16 to 384"),
        ({"image_size": 32.0}, r"image_size is 32\.0;"),
        ({"image_size": "32"}, "image_size is '32';"),
        ({"limit_train": 0}, "limit_train is 0;"),
        ({"limit_test": -5}, "limit_test is -5;"),
        ({"limit_test": True}, "limit_test is True;"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(
    options, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(sources, "_find_source", None)
    with pytest.raises(InputError, match=message):
        load_pictures(data_dir=tmp_path, **options)


# Unreadable pictures


@pytest.fixture
def damaged_folder(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 10, "bee": 10})
    (root / "ant" / "000.png").write_bytes(b"no picture")
    (root / "bee" / "009.png").write_bytes((root / "bee" / "008.png").read_bytes()[:300])
    return root


def test_unreadable_pictures_are_refused_by_name(damaged_folder, tmp_path):
    with pytest.raises(InputError, match=r"2 of [0-9]+ files cannot be read") as refused:
        load(damaged_folder, tmp_path)
    for name in (str(damaged_folder / "ant" / "000.png"), "bee/009.png", "skip_unreadable=True"):
        assert name in str(refused.value)


def test_skip_unreadable_leaves_them_out_and_names_them(damaged_folder, tmp_path):
    loaded = load(damaged_folder, tmp_path, skip_unreadable=True)
    assert counts_of(loaded.train, 2) == [7, 7]
    assert counts_of(loaded.test, 2) == [2, 2]
    together = torch.cat([loaded.train.images, loaded.test.images])
    assert (together.flatten(1).max(dim=1).values > 0).all()  # no black stand-ins
    (note,) = [note for note in loaded.notes if "Left out" in note]
    assert "ant/000.png" in note
    assert "bee/009.png" in note
    with pytest.raises(InputError, match=r"2 of [0-9]+ files cannot be read"):
        load(damaged_folder, tmp_path)  # the cache of the lenient reading is not taken


def test_a_class_whose_training_pictures_are_all_unreadable_is_refused(tmp_path):
    root = make_folder(
        tmp_path / "pets", {"train/ant": 3, "train/bee": 1, "test/ant": 1, "test/bee": 1}
    )
    (root / "train" / "bee" / "000.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="bee"):
        load(root, tmp_path, skip_unreadable=True)


@pytest.fixture
def half_tested_folder(tmp_path):
    """A split whose test pictures of bees cannot be read."""
    root = make_folder(
        tmp_path / "pets", {f"{s}/{c}": 2 for s in ("train", "test") for c in ("ant", "bee")}
    )
    for path in (root / "test" / "bee").iterdir():
        path.write_bytes(b"no picture")
    return root


def by_table(root):
    """The same labels and split from a table."""
    paths = sorted(path.relative_to(root) for path in root.rglob("*.png"))
    rows = [f"{path.as_posix()},{path.parts[1]},{path.parts[0]}" for path in paths]
    (root / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    return {"labels_from": "labels.csv"}


@pytest.mark.parametrize("options", [lambda root: {}, by_table])
def test_a_class_none_of_whose_test_pictures_can_be_read_is_said(
    options, half_tested_folder, tmp_path
):
    given = options(half_tested_folder)
    for _ in range(2):  # also from the cache
        loaded = load(half_tested_folder, tmp_path, skip_unreadable=True, **given)
        assert counts_of(loaded.test, 2) == [2, 0]
        assert "Without test pictures: bee." in loaded.notes


@pytest.mark.parametrize("options", [lambda root: {}, by_table])
def test_a_test_split_without_a_readable_picture_is_refused(options, half_tested_folder, tmp_path):
    for path in (half_tested_folder / "test" / "ant").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"None of the 4 test pictures in .*/pets can be read"):
        load(half_tested_folder, tmp_path, skip_unreadable=True, **options(half_tested_folder))


def test_a_class_without_test_pictures_is_said(tmp_path):
    root = make_folder(tmp_path / "pets", {"train/ant": 2, "train/bee": 2, "test/ant": 1})
    assert "Without test pictures: bee." in load(root, tmp_path).notes


def test_nothing_that_is_said_of_a_folder_acts_on_a_terminal(tmp_path):
    acts = "\x1b[2J\nAll is well."
    inside = ("train/a/x", f"train/a/{acts}", "train/b", "test/a", "test/b", f"extra{acts}/c")
    root = make_folder(tmp_path / f"pets{acts}", dict.fromkeys(inside, 2))
    (root / "train" / "b" / f"bad{acts}.png").write_bytes(b"no picture")
    (tmp_path / "pets").symlink_to(root)  # what cannot be printed is refused as a parameter
    loaded = load(tmp_path / "pets", tmp_path, skip_unreadable=True)
    said = [loaded.title, loaded.name, *loaded.notes, *loaded.train.names]
    odd = [text for text in said if "\\x1b[2J\\nAll is well." in text]
    assert len(odd) >= 7  # title and name, three notes, two pictures
    assert all(text.isprintable() for text in said)


# A run's pictures


def test_a_run_gets_its_pictures_back_and_refuses_others(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 5, "bee": 5})
    first = load(root, tmp_path, limit_train=6)
    run = Run("r", tmp_path / "outputs")
    run.update_record(**valid_record(**first.options, data_fingerprint=first.fingerprint))
    assert same(pictures_of(run), first)
    assert same(pictures_of(run, tmp_path / "moved"), first)
    Image.fromarray(coloured((200, 0, 0))).save(root / "ant" / "000.png")
    with pytest.raises(InputError, match=r"have changed since run 'r'"):
        pictures_of(run)


@pytest.fixture
def run_of(tmp_path):
    """Return a function that makes the record of a run on a data set."""

    def make(picture_set, **settings):
        run = Run("r", tmp_path / "outputs")
        options = {**picture_set.options, "data_fingerprint": picture_set.fingerprint, **settings}
        run.update_record(**valid_record(**options))
        return run

    return make


def test_pictures_that_moved_are_taken_wherever_they_are_the_same(run_of, tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    first = load(root, tmp_path)
    run = run_of(first)
    moved = root.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"were in '.*/pets', which no longer exists.* dataset="):
        pictures_of(run)
    with pytest.raises(InputError, match=r"which no longer exists"):  # an unmounted drive
        pictures_of(run, data_dir=tmp_path / "data")
    assert same(pictures_of(run, tmp_path / "data", str(moved)), first)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", moved)
    assert same(pictures_of(run, tmp_path / "data", archive), first)
    other = make_folder(tmp_path / "other", {"ant": 3, "bee": 4})
    with pytest.raises(
        InputError, match=r"'.*/other' does not hold the pictures .* were '.*/pets'"
    ):
        pictures_of(run, tmp_path / "data", str(other))


def test_a_folder_given_as_data_dir_may_have_moved_too(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    first = load_pictures(dataset="folder", data_dir=root)
    run = run_of(first)
    moved = root.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"were in '.*/pets', which no longer exists"):
        pictures_of(run)
    assert same(pictures_of(run, data_dir=moved), first)
    assert same(pictures_of(run, dataset=str(moved)), first)
    run = run_of(first, data_dir="C:\\Users\\me\\pets")  # of another machine
    assert same(pictures_of(run, dataset=str(moved)), first)


@pytest.mark.parametrize("packed", [False, True])
def test_what_a_run_says_of_places_is_read_and_never_written_to(
    packed, run_of, tmp_path, monkeypatch
):
    for module in (sources, files):
        monkeypatch.setattr(module, "ROOT", tmp_path / "repository")
    root, theirs = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4}), tmp_path / "theirs"
    dataset = shutil.make_archive(str(tmp_path / "packed"), "zip", root) if packed else str(root)
    first = load_pictures(dataset=dataset, data_dir=theirs)
    run, before = run_of(first), listing(theirs)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_decode", None)
        assert same(pictures_of(run), first)  # what is kept there is read
    assert listing(theirs) == before and not (tmp_path / "repository").exists()
    for path in theirs.iterdir():
        shutil.rmtree(path)
    assert same(pictures_of(run), first)
    assert listing(theirs) == {}
    assert list((tmp_path / "repository" / "data" / "cache").iterdir())


def no_room(path, expected):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_cifar10_is_read_where_a_run_found_it_and_fetched_elsewhere(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path / "repository")
    places, theirs = [], tmp_path / "theirs"
    arrays = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4) % 2

    def read(place):
        places.append(place)
        return (("a", "b"), arrays, arrays)

    monkeypatch.setattr("utils.data.cifar10.read_cifar10", read)
    monkeypatch.setattr(cache, "TensorFile", no_room)  # so that nothing is kept
    run = run_of(load_pictures(dataset="cifar10", data_dir=theirs))
    pictures_of(run)
    (theirs / CIFAR10.base_folder).mkdir(parents=True)
    pictures_of(run)
    assert places == [theirs, tmp_path / "repository" / "data", theirs]


# Limits


def test_limits_take_the_first_pictures_of_each_class_in_proportion(tmp_path, monkeypatch):
    whole = made_set([0] * 10 + [1] * 20 + [2] * 10, [2, 1, 0] * 10)
    monkeypatch.setattr(sources, "cached_pictures", lambda *_: whole)
    loaded = load_pictures(dataset="shapes", data_dir=tmp_path, limit_train=8, limit_test=6)
    positions = [0, 1, 10, 11, 12, 13, 30, 31]
    assert torch.equal(loaded.train.images, whole.train.images[positions])
    assert torch.equal(loaded.train.targets, whole.train.targets[positions])
    assert torch.equal(loaded.test.images, whole.test.images[:6])
    assert loaded.options["limit_train"] == 8


def test_limits_beyond_the_split_change_nothing_and_too_small_ones_are_refused(
    tmp_path, monkeypatch
):
    whole = made_set([0, 1, 2] * 5)
    monkeypatch.setattr(sources, "cached_pictures", lambda *_: whole)
    assert same(
        load_pictures(dataset="shapes", data_dir=tmp_path, limit_train=15, limit_test=99), whole
    )
    with pytest.raises(InputError, match="limit_train is 2, fewer than the 3 classes"):
        load_pictures(dataset="shapes", data_dir=tmp_path, limit_train=2)


# Copies, and pictures that show nothing


def with_copies(root, originals=12, times=3, classes=("ant", "bee")):
    """So many pictures a class, each there several times, as downloads leave them."""
    make_folder(root, dict.fromkeys(classes, originals))
    for path in sorted(root.rglob("*.png")):
        for number in range(1, times):
            shutil.copy(path, path.with_name(f"{path.stem} ({number}).png"))
    return root


def keys(split):
    return [image.numpy().tobytes() for image in split.images]


@pytest.mark.parametrize("times", [2, 3, 5])
def test_copies_stay_on_one_side_of_a_split_that_is_drawn(times, tmp_path):
    loaded = load(with_copies(tmp_path / "pets", times=times), tmp_path)
    assert not set(keys(loaded.train)) & set(keys(loaded.test))
    assert len(loaded.train) + len(loaded.test) == 24 * times
    assert counts_of(loaded.test, 2) == [times * (12 * times // 5 // times)] * 2
    told = [note for note in loaded.notes if note.startswith("Copies")]
    assert len(told) == 1
    assert f"{24 * (times - 1)} of {24 * times} pictures" in told[0]
    assert "none lies in both splits" in told[0]


def test_copies_stay_on_one_side_of_what_is_held_out(tmp_path):
    loaded = load(with_copies(tmp_path / "pets"), tmp_path)
    module = PictureDataModule(loaded, 8, Augmentation(0, 0.0, 0), val_fraction=0.25)
    train, watched = set(keys(module.train)), set(keys(module.watched))
    assert train and watched and not train & watched


def test_near_copies_stay_on_one_side_of_what_is_held_out(tmp_path):
    for name, first in (("ant", 0), ("bee", 20)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(first, first + 12):
            path = tmp_path / "pets" / name / f"{number}.png"
            scene(number).save(path)
            scene(number).save(path.with_suffix(".jpg"), quality=50)
    loaded = load(tmp_path / "pets", tmp_path)
    for val_fraction in (0.1, 0.3, 0.5):
        train, watched = hold_out(loaded, val_fraction)
        groups = [set(split.groups.tolist()) for split in (train, watched, loaded.test)]
        assert all(groups) and sum(map(len, groups)) == len(set.union(*groups)) == 24


def test_copies_in_both_splits_that_were_given_are_counted(tmp_path):
    root = make_folder(tmp_path / "pets", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    shutil.copy(root / "train/a/000.png", root / "test/a/000.png")
    told = [note for note in load(root, tmp_path).notes if "test pictures" in note]
    assert told and "1 of 4 test pictures are also among the training pictures" in told[0]


def test_a_picture_under_two_labels_is_never_tested_on_and_is_counted(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 6, "bee": 6})
    shutil.copy(root / "ant/000.png", root / "bee/copy.png")
    loaded = load(root, tmp_path)
    torn = [key for key in keys(loaded.train) if keys(loaded.train).count(key) > 1]
    assert len(torn) == 2
    assert [note for note in loaded.notes if "2 pictures have a copy under another label" in note]


def test_a_class_of_nothing_but_copies_cannot_be_split(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 6, "bee": 1})
    for number in range(5):
        shutil.copy(root / "bee/000.png", root / f"bee/copy {number}.png")
    with pytest.raises(
        InputError, match=r"held out to test of: bee\. All .* copies of one picture"
    ):
        load(root, tmp_path)


def test_pictures_of_one_colour_are_named_and_deep_ones_scaled_also_from_the_cache(tmp_path):
    root = tmp_path / "pets"
    for name, brightest in (("ant", 4_000), ("bee", 2_000)):
        (root / name).mkdir(parents=True)
        for number in range(3):
            ramp = np.linspace(0, brightest - number, 400).astype(np.uint16).reshape(20, 20)
            Image.fromarray(ramp).save(root / name / f"{number}.png")
        Image.new("RGB", (20, 20), (0, 0, brightest // 20)).save(root / name / "blank.png")
    for _ in range(2):
        loaded = load(root, tmp_path)
        assert loaded.bits == 12
        assert int(torch.cat((loaded.train.images, loaded.test.images)).max()) >= 248
        assert (
            "Of 6 greyscale pictures of more than 8 bits, 12 bits are used: 4,095 is shown white."
            in loaded.notes
        )
        flat = "2 files are all of nearly one colour: ant/blank.png, bee/blank.png."
        assert flat in loaded.notes


def test_what_an_archive_holds_beside_pictures_is_named(tmp_path):
    root = make_folder(tmp_path / "pets", {"oak": 5, "elm": 5})
    (root / "birch").mkdir()
    (root / "birch" / "1.CR2").write_bytes(b"x")
    archive = shutil.make_archive(tmp_path / "trees", "zip", tmp_path, "pets")
    loaded = load(archive, tmp_path)
    assert loaded.classes == ("elm", "oak")
    assert "Class 'birch' is left out: none of its files can be read (1 .cr2)." in loaded.notes
