"""From a picture source to batches: what is read, kept, split, shuffled and handed to training."""

import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.error
from contextlib import contextmanager
from dataclasses import replace
from hashlib import md5
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from torch.nn import functional
from torchvision.datasets import CIFAR10

from helpers.records import valid_record
from utils import InputError, files
from utils.data import batches, cache, drawn_shapes, picture_set, pictures, sources
from utils.data.augment import Augmentation, augment, normalise, resize
from utils.data.batches import EpochShuffle, InOrder, PictureDataModule
from utils.data.picture_set import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    PictureSet,
    Split,
    channel_histograms,
    channel_statistics,
    stratified_part,
)
from utils.data.sources import load_pictures, pictures_of
from utils.files import ROOT
from utils.models.registry import create_model
from utils.runs import Run
from utils.training.classifier import ImageClassifier
from utils.training.recipes import choose_recipe

MEAN, STD = (0.5, 0.45, 0.4), (0.3, 0.25, 0.2)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to reach the network fails the way it does offline."""

    def refuse(*_, **__):
        raise urllib.error.URLError("no network in a test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def coloured(colour, size=(20, 24), seed=0):
    """A picture of about this colour, none like another."""
    rng = np.random.default_rng(seed)
    return (np.array(colour) + rng.integers(0, 30, (size[1], size[0], 3))).astype(np.uint8)


def make_folder(root, counts, ending="png"):
    """Write so many pictures into each folder; the last part of a folder's name is its class."""
    seed = 0
    for position, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed += 1
            image = Image.fromarray(coloured((20 * position, 100, 200 - 20 * position), seed=seed))
            image.save(root / folder / f"{number:03}.{ending}")
    return root


def load(root, tmp_path, **options):
    return load_pictures(str(root), data_dir=tmp_path / "data", **options)


def listing(root):
    """Every file below a folder with its size, time and contents."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    } | {str(path.relative_to(root)): None for path in root.rglob("*") if path.is_dir()}


def counts_of(split, num_classes):
    return split.targets.bincount(minlength=num_classes).tolist()


def same(first, second):
    return all(
        torch.equal(getattr(first, s).images, getattr(second, s).images)
        and torch.equal(getattr(first, s).targets, getattr(second, s).targets)
        for s in ("train", "test")
    )


def made_split(targets, seed=0, size=16):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(targets), 3, size, size), dtype=np.uint8)
    return Split(torch.from_numpy(images), torch.tensor(targets))


def made_set(train_targets, test_targets=(0, 1, 2)):
    return PictureSet(
        "made", "made", ("a", "b", "c"), made_split(train_targets), made_split(test_targets, 1),
        MEAN, STD, "x", (), {},
    )  # fmt: skip


# CIFAR-10


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A small archive in the official layout, which torchvision takes for the official one."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "downloads"
    folder.mkdir()
    sums, contents = {}, {}
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:

        def add(name, content):
            raw = pickle.dumps(content, protocol=2)
            sums[name] = md5(raw).hexdigest()
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(raw)
            archive.addfile(member, BytesIO(raw))

        batches = [f"data_batch_{number}" for number in range(1, 6)]
        for name in [*batches, "test_batch"]:
            pixels = rng.integers(0, 256, (20, 3 * 32 * 32), dtype=np.uint8)
            labels = rng.permutation(np.arange(20) % 10).tolist()
            contents[name] = (pixels.reshape(20, 3, 32, 32), labels)
            add(name, {"batch_label": name, "labels": labels, "data": pixels, "filenames": []})
        add("batches.meta", {"label_names": list(NAMES), "num_vis": 3_072})
    whole = (folder / "cifar-10-python.tar.gz").read_bytes()
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(whole).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in batches])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    train = [np.concatenate(part) for part in zip(*(contents[n] for n in batches), strict=True)]
    return folder, train, contents["test_batch"]


def test_cifar10_is_read_from_the_archive_as_it_is(cifar10):
    folder, (train_images, train_labels), (test_images, test_labels) = cifar10
    loaded = load_pictures("cifar10", folder)
    np.testing.assert_array_equal(loaded.train.images, train_images)
    np.testing.assert_array_equal(loaded.train.targets, train_labels)
    np.testing.assert_array_equal(loaded.test.images, test_images)
    np.testing.assert_array_equal(loaded.test.targets, test_labels)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.train.targets.dtype == torch.int64
    assert loaded.classes == NAMES
    assert loaded.title == "CIFAR-10"


def test_cifar10_is_normalised_with_the_constants_of_the_source(cifar10):
    loaded = load_pictures("cifar10", cifar10[0])
    assert (loaded.mean, loaded.std) == (CIFAR10_MEAN, CIFAR10_STD)
    assert CIFAR10_MEAN == (0.4914, 0.4822, 0.4465)
    assert CIFAR10_STD == (0.2470, 0.2435, 0.2616)


def test_cifar10_is_loaded_a_second_time_without_the_archive(cifar10):
    folder = cifar10[0]
    first = load_pictures("cifar10", folder)
    for path in sorted(folder.rglob("*cifar-10-*"), reverse=True):
        if path.is_file():
            path.unlink()
    again = load_pictures("cifar10", folder)
    assert same(first, again)
    assert again.fingerprint == first.fingerprint
    assert (again.mean, again.std, again.classes) == (CIFAR10_MEAN, CIFAR10_STD, NAMES)


def test_cifar10_at_another_size_is_resized(cifar10):
    folder, (train_images, _), _ = cifar10
    loaded = load_pictures("cifar10", folder, image_size=48)
    assert loaded.image_size == 48
    assert loaded.train.images.shape == (100, 3, 48, 48)
    shrunk = functional.interpolate(
        loaded.train.images.float(), size=(32, 32), mode="bicubic", antialias=True
    )
    difference = (shrunk - torch.from_numpy(train_images).float()).abs().mean()
    assert difference < 25  # noise loses detail; another picture would differ by 85


def test_without_archive_and_network_the_message_says_where_to_put_it(tmp_path):
    folder = tmp_path / "downloads"
    with pytest.raises(InputError, match="CIFAR-10 could not be downloaded") as refused:
        load_pictures("cifar10", folder)
    for part in (str(folder), "cifar-10-python.tar.gz", "https://"):
        assert part in str(refused.value)
    assert list(folder.iterdir()) == []


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
    assert [note for note in loaded.notes if "7 pictures" in note and "20%" in note]
    train, test = ({i.numpy().tobytes() for i in s.images} for s in (loaded.train, loaded.test))
    assert not train & test
    assert len(train | test) == 32


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
    load_pictures("folder", data_dir=root)
    assert listing(root) == before
    assert list((tmp_path / "repository" / "data" / "cache").iterdir())


def test_the_name_folder_means_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path / "repository")
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    assert same(load_pictures("folder", data_dir=root), load(root, tmp_path))


def test_what_is_left_out_is_said_also_from_the_cache(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    (root / "ant" / ".hidden.png").write_bytes(b"x")
    (root / "ant" / "notes.txt").write_text("x")
    for _ in range(2):
        loaded = load(root, tmp_path)
        assert len(loaded.train) + len(loaded.test) == 8
        assert [note for note in loaded.notes if ": 1 that are no " in note]


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
        ({"image_size": 8}, "image_size is 8;.*16 to 256"),
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


# Cache


@pytest.fixture
def cached_folder(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 5, "bee": 5})
    return root, load(root, tmp_path)


def test_a_second_load_decodes_nothing(cached_folder, tmp_path, monkeypatch):
    root, first = cached_folder
    monkeypatch.setattr(pictures, "read_pictures", None)
    monkeypatch.setattr(pictures, "read_picture", None)
    again = load(root, tmp_path)
    assert same(first, again)
    assert replace(again, train=None, test=None) == replace(first, train=None, test=None)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_the_cache_is_renewed_when_a_file_changes(change, cached_folder, tmp_path):
    root, first = cached_folder
    picture = root / "ant" / "000.png"
    if change == "edit":
        Image.fromarray(coloured((200, 0, 0))).save(picture)
    elif change == "add":
        Image.fromarray(coloured((200, 0, 0))).save(root / "ant" / "zzz.png")
    elif change == "remove":
        picture.unlink()
    else:
        picture.rename(root / "bee" / "new.png")
    changed = load(root, tmp_path)
    assert changed.fingerprint != first.fingerprint
    assert same(changed, load(root, tmp_path / "elsewhere"))


def test_the_cache_is_renewed_when_the_code_that_decodes_changes(
    cached_folder, tmp_path, monkeypatch
):
    root, first = cached_folder
    monkeypatch.setattr(sources, "code_key", lambda *_: "another version")
    decoded = []
    read = pictures.read_pictures
    monkeypatch.setattr(
        pictures, "read_pictures", lambda *given: decoded.append(given) or read(*given)
    )
    assert same(load(root, tmp_path), first)
    assert len(decoded) == 1


def test_each_size_and_folder_has_a_cache_of_its_own(cached_folder, tmp_path):
    root, first = cached_folder
    other = make_folder(tmp_path / "other" / "pets", {"ant": 3, "cow": 3})
    assert load(root, tmp_path, image_size=16).image_size == 16
    assert load(other, tmp_path).classes == ("ant", "cow")
    assert same(load(root, tmp_path), first)
    assert len(list((tmp_path / "data" / "cache").iterdir())) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other file"])
def test_a_damaged_cache_is_said_and_decoded_again(damage, cached_folder, tmp_path, capsys):
    root, first = cached_folder
    (cache,) = (tmp_path / "data" / "cache").iterdir()
    whole = cache.read_bytes()
    if damage == "other file":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, cache)
    else:
        cache.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no"}[damage])
    capsys.readouterr()
    assert same(load(root, tmp_path), first)
    assert f"{cache} is damaged" in capsys.readouterr().out
    assert same(load(root, tmp_path), first)
    assert "damaged" not in capsys.readouterr().out


def test_drawn_shapes_keep_their_masks_through_the_cache(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    drawn = {
        name: drawn_shapes.DrawnPictures(
            rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8),
            np.arange(20) % 10,
            rng.random((20, 32, 32)) < 0.3,
        )
        for name in ("train", "test")
    }
    monkeypatch.setattr(drawn_shapes, "draw_split", lambda name, image_size: drawn[name])
    first = load_pictures("shapes", tmp_path)
    monkeypatch.setattr(drawn_shapes, "draw_split", None)
    again = load_pictures("shapes", tmp_path, limit_train=10)
    assert same(first, load_pictures("shapes", tmp_path))
    assert torch.equal(first.test.masks, torch.from_numpy(drawn["test"].masks))
    assert torch.equal(again.test.masks, first.test.masks)
    assert torch.equal(again.train.masks, first.train.masks[:10])


def test_the_fingerprint_is_of_the_pictures_and_not_of_place_or_limit(tmp_path):
    counts = {"ant": 5, "bee": 5}
    first = load(make_folder(tmp_path / "a", counts), tmp_path)
    moved = load(make_folder(tmp_path / "b", counts), tmp_path)
    limited = load(tmp_path / "a", tmp_path, limit_train=4)
    assert first.fingerprint == moved.fingerprint == limited.fingerprint
    renamed = load(make_folder(tmp_path / "c", {"ant": 5, "cow": 5}), tmp_path)
    assert renamed.fingerprint != first.fingerprint


def test_a_run_gets_its_pictures_back_and_refuses_others(cached_folder, tmp_path):
    root, _ = cached_folder
    first = load(root, tmp_path, limit_train=6)
    run = Run("r", tmp_path / "outputs")
    run.update_record(**valid_record(**first.options, data_fingerprint=first.fingerprint))
    assert same(pictures_of(run), first)
    assert same(pictures_of(run, tmp_path / "moved"), first)
    Image.fromarray(coloured((200, 0, 0))).save(root / "ant" / "000.png")
    with pytest.raises(InputError, match=r"have changed since run 'r'"):
        pictures_of(run)


def test_a_copy_that_another_process_made_meanwhile_is_read(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "pets", {"ant": 3, "bee": 3})
    expected = load(root, tmp_path)
    (kept,) = (tmp_path / "data" / "cache").iterdir()
    content = kept.read_bytes()
    kept.unlink()

    @contextmanager
    def after_another(path, work):
        path.write_bytes(content)
        yield True

    monkeypatch.setattr(cache, "one_at_a_time", after_another)
    monkeypatch.setattr(cache, "_decode", None)
    assert same(load(root, tmp_path), expected)


PEAKS = """
import sys
from functools import partial
from pathlib import Path

import numpy as np

from utils.data import cifar10, sources

place, side, count = Path(sys.argv[1]), 256, 300

def size(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

def peak(load):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = size("VmRSS")
    load()
    return size("VmHWM") - before

def read_cifar10(folder):
    images, targets = np.full((count // 2, 32, 32, 3), 7, np.uint8), np.arange(count // 2) % 2
    return ("a", "b"), (images, targets), (images, targets.copy())

cifar10.read_cifar10 = read_cifar10
sources.CIFAR10_SIZE = count
sources.load_pictures(str(place / "plain"), place / "first", 16)  # what is imported for good
for dataset in (str(place / "plain"), str(place / "split"), "cifar10"):
    load = partial(sources.load_pictures, dataset, place / "data", side)
    print(peak(load), peak(load))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux tells the peak")
def test_no_more_memory_is_used_than_is_asked_for(tmp_path):
    for name, parts in (("plain", ("",)), ("split", ("train/", "test/"))):
        make_folder(tmp_path / name, {f"{p}{c}": 150 // len(parts) for p in parts for c in "ab"})
    command = [sys.executable, "-c", PEAKS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one = 300 * 3 * 256**2
    for line in done.stdout.splitlines():
        decoded, read = (int(peak) / one for peak in line.split())
        print(f"decoding: {decoded:.2f} copies, reading: {read:.2f}")
        assert decoded < cache.COPIES + 0.2 and read < cache.COPIES_READ


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
    with pytest.raises(InputError, match=r"were in '.*/pets', and nothing is there.* dataset="):
        pictures_of(run)
    with pytest.raises(InputError, match=r"and nothing is there"):  # an unmounted drive
        pictures_of(run, data_dir=tmp_path / "data")
    assert same(pictures_of(run, tmp_path / "data", str(moved)), first)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", moved)
    assert same(pictures_of(run, tmp_path / "data", archive), first)
    other = make_folder(tmp_path / "other", {"ant": 3, "bee": 4})
    with pytest.raises(InputError, match=r"'.*/other' holds other pictures .* were '.*/pets'"):
        pictures_of(run, tmp_path / "data", str(other))


def test_a_folder_given_as_data_dir_may_have_moved_too(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    first = load_pictures("folder", root)
    run = run_of(first)
    moved = root.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"were in '.*/pets', and nothing is there"):
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
    first = load_pictures(dataset, theirs)
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


def test_cifar10_is_read_where_a_run_found_it_and_fetched_elsewhere(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path / "repository")
    places, theirs = [], tmp_path / "theirs"
    arrays = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4) % 2

    def read(place):
        places.append(place)
        return (("a", "b"), arrays, arrays)

    monkeypatch.setattr("utils.data.cifar10.read_cifar10", read)
    monkeypatch.setattr(cache, "_write_cache", lambda *_: None)
    run = run_of(load_pictures("cifar10", theirs))
    pictures_of(run)
    (theirs / CIFAR10.base_folder).mkdir(parents=True)
    pictures_of(run)
    assert places == [theirs, tmp_path / "repository" / "data", theirs]


# Limits and hold-out


def test_limits_take_the_first_pictures_of_each_class_in_proportion(tmp_path, monkeypatch):
    whole = made_set([0] * 10 + [1] * 20 + [2] * 10, [2, 1, 0] * 10)
    monkeypatch.setattr(sources, "cached_pictures", lambda *_: whole)
    loaded = load_pictures("shapes", tmp_path, limit_train=8, limit_test=6)
    positions = [0, 1, 10, 11, 12, 13, 30, 31]
    assert torch.equal(loaded.train.images, whole.train.images[positions])
    assert torch.equal(loaded.train.targets, whole.train.targets[positions])
    assert torch.equal(loaded.test.images, whole.test.images[:6])
    assert loaded.options["limit_train"] == 8


@pytest.mark.parametrize(
    "counts", [[5, 5, 5], [40, 3, 2], [7, 1, 1], [100, 1, 1, 1, 1], [9] * 10, [1, 2, 300]]
)
def test_a_limit_is_exact_and_keeps_every_class(counts):
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    split = Split(torch.zeros(len(targets), 3, 1, 1, dtype=torch.uint8), targets)
    for limit in range(len(counts), len(targets) + 1):
        kept = picture_set.limited(split, limit, "limit_train")
        assert len(kept) == limit
        assert min(counts_of(kept, len(counts))) >= 1


def test_limits_beyond_the_split_change_nothing_and_too_small_ones_are_refused(
    tmp_path, monkeypatch
):
    whole = made_set([0, 1, 2] * 5)
    monkeypatch.setattr(sources, "cached_pictures", lambda *_: whole)
    assert same(load_pictures("shapes", tmp_path, limit_train=15, limit_test=99), whole)
    with pytest.raises(InputError, match="limit_train is 2, fewer than the 3 classes"):
        load_pictures("shapes", tmp_path, limit_train=2)


def test_a_part_is_stratified_chosen_by_seed_and_among_those_allowed():
    targets = torch.tensor([0] * 100 + [1] * 40 + [2] * 3)
    part = stratified_part(targets, 0.25, seed=0)
    assert targets[part].bincount().tolist() == [25, 10, 1]
    assert torch.equal(part, stratified_part(targets, 0.25, seed=0))
    assert not torch.equal(part, stratified_part(targets, 0.25, seed=1))
    among = torch.arange(143) % 2 == 0
    chosen = stratified_part(targets, 0.5, seed=0, among=among)
    assert not (chosen & ~among).any()
    assert targets[chosen].bincount().tolist() == [25, 10, 1]
    chances = sum(stratified_part(targets, 0.25, seed).float() for seed in range(400)) / 400
    assert (chances[:140] > 0.15).all()
    assert (chances[:140] < 0.36).all()


def test_a_hold_out_is_stratified_and_apart_from_what_is_trained_on():
    picture_set = made_set([0, 1, 1, 2] * 15)
    module = PictureDataModule(picture_set, 8, Augmentation(), seed=0, val_fraction=0.2)
    assert counts_of(module.watched, 3) == [3, 6, 3]
    assert counts_of(module.train, 3) == [12, 24, 12]
    train, watched, whole = (
        {image.numpy().tobytes() for image in split.images}
        for split in (module.train, module.watched, picture_set.train)
    )
    assert not train & watched
    assert train | watched == whole
    again = PictureDataModule(picture_set, 8, Augmentation(), seed=99, val_fraction=0.2)
    assert torch.equal(again.watched.images, module.watched.images)


def test_no_hold_out_watches_the_test_split():
    picture_set = made_set([0, 1, 2] * 5)
    module = PictureDataModule(picture_set, 8, Augmentation())
    assert torch.equal(module.watched.images, picture_set.test.images)
    assert torch.equal(module.train.images, picture_set.train.images)


def test_a_hold_out_leaves_every_class_something_to_train_on():
    module = PictureDataModule(made_set([0] * 10 + [1] * 10 + [2]), 8, val_fraction=0.2)
    assert min(counts_of(module.train, 3)) >= 1


def test_a_hold_out_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"val_fraction 0\.9 holds nothing out"):
        PictureDataModule(made_set([0, 1, 2]), 8, val_fraction=0.9)


# Statistics


def test_channel_statistics_are_those_of_numpy():
    images = made_split([0] * 50, seed=3).images
    images[:, 1] //= 2
    pixels = images.numpy() / 255
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), atol=5.1e-5)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), atol=5.1e-5)
    histograms = channel_histograms(images)
    for channel in range(3):
        expected = np.bincount(images[:, channel].numpy().ravel(), minlength=256)
        np.testing.assert_array_equal(histograms[channel], expected)


def test_a_channel_of_one_value_does_not_divide_by_zero():
    mean, std = channel_statistics(torch.full((4, 3, 8, 8), 51, dtype=torch.uint8))
    assert mean == (0.2, 0.2, 0.2)
    assert min(std) > 0


# Batches


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, batch_size=32):
        sampler = EpochShuffle(1_000, batch_size, seed)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler))

    orders = {(seed, epoch): order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert len({o.numpy().tobytes() for o in orders.values()}) == 9
    for (seed, epoch), first in orders.items():
        assert torch.equal(first.sort().values, torch.arange(1_000))
        torch.manual_seed(epoch)
        assert torch.equal(order(seed, epoch), first)
        assert torch.equal(order(seed, epoch, batch_size=7), first)


def test_what_an_epoch_leaves_out_is_a_random_half_of_the_easiest():
    losses = torch.randperm(1_000, generator=torch.Generator().manual_seed(0)).float()
    easy = set(losses.argsort()[:600].tolist())

    def order(epoch, seed=0):
        sampler = EpochShuffle(1_000, 32, seed, 700, lambda: losses)
        sampler.set_epoch(epoch)
        assert len(sampler) == 22
        return torch.cat(list(sampler)).tolist()

    left_out = [set(range(1_000)) - set(order(epoch)) for epoch in range(20)]
    assert all(len(set(order(epoch))) == len(order(epoch)) == 700 for epoch in (0, 1))
    assert all(len(out) == 300 and out <= easy for out in left_out)
    assert set.union(*left_out) == easy  # none is left out for good
    assert not set.intersection(*left_out)
    assert order(3) == order(3) != order(4)
    assert order(3) != order(3, seed=1)


def test_pictures_whose_loss_is_not_known_are_left_out_by_chance_and_then_shown_first():
    losses = torch.full((1_000,), torch.inf)
    sampler = EpochShuffle(1_000, 32, 0, 700, lambda: losses)
    first = torch.cat(list(sampler))
    assert abs(first.float().mean() - 499.5) < 40  # neither end is preferred
    losses[first] = 1.0
    sampler.set_epoch(1)
    unseen = set(range(1_000)) - set(first.tolist())
    assert unseen <= set(torch.cat(list(sampler)).tolist())


def test_losses_are_kept_with_a_checkpoint_only_where_the_next_epoch_depends_on_them():
    everything = PictureDataModule(made_set([0, 1, 2] * 4), 4, Augmentation(), skipped=0.0)
    everything.note_losses(torch.tensor([1]), torch.tensor([0.5]))
    assert everything.state_dict() == {}
    part = PictureDataModule(made_set([0, 1, 2] * 4), 4, Augmentation(), skipped=0.25)
    assert part.shown == 9
    part.note_losses(torch.tensor([2, 5]), torch.tensor([0.5, 2.0]))
    again = PictureDataModule(made_set([0, 1, 2] * 4), 4, Augmentation(), skipped=0.25)
    again.load_state_dict(part.state_dict())
    assert again.losses[[2, 5]].tolist() == [0.5, 2.0]
    assert torch.isinf(again.losses).sum() == 10
    orders = [module.train_dataloader().sampler.order() for module in (part, again)]
    assert torch.equal(*orders)


@pytest.mark.parametrize("kind", ["shuffled", "in order"])
def test_the_last_smaller_batch_is_kept(kind):
    sampler = EpochShuffle(20, 8, seed=0) if kind == "shuffled" else InOrder(20, 8)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert len(sampler) == 3
    assert torch.cat(batches).sort().values.tolist() == list(range(20))
    assert len(InOrder(16, 8)) == len(list(InOrder(16, 8))) == 2


def test_a_batch_holds_the_pictures_targets_and_positions_of_its_indices():
    picture_set = made_set([0, 1, 2] * 7)
    module = PictureDataModule(picture_set, 8, Augmentation(), seed=3)
    sizes = []
    for images, targets, indices in module.train_dataloader():
        assert torch.equal(images, picture_set.train.images[indices])
        assert torch.equal(targets, picture_set.train.targets[indices])
        sizes.append(len(indices))
    assert sizes == [8, 8, 5]


class Recorder:
    """What a network was really given, by stage, with the targets of each step."""

    def __init__(self, module, epochs, folder):
        recipe = choose_recipe("quick", "x", epochs=epochs, batch_size=module.batch_size)
        network = create_model("davidnet", 3, image_size=16, seed=0, width=2)
        self.inputs = {"train": [], "other": []}
        network.register_forward_pre_hook(self._keep)
        self.classifier = ImageClassifier(network, 3, recipe)
        self.trainer = Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=2,
            default_root_dir=folder,
        )  # fmt: skip
        self.trainer.fit(self.classifier, datamodule=module)

    def _keep(self, network, inputs):
        self.inputs["train" if network.training else "other"].append(inputs[0].clone())


def test_training_sees_each_epoch_in_its_own_order_and_augmentation(tmp_path):
    picture_set, augmentation = made_set([0, 1, 2] * 7), Augmentation(3, 0.5, 6)
    module = PictureDataModule(picture_set, 8, augmentation, seed=5)
    recorder = Recorder(module, epochs=2, folder=tmp_path)
    batches = recorder.inputs["train"]
    assert [len(batch) for batch in batches] == [8, 8, 5] * 2
    orders = []
    for epoch in range(2):
        seen = torch.cat(batches[3 * epoch : 3 * epoch + 3])
        everything = augment(
            picture_set.train.images, torch.arange(21), augmentation, MEAN, STD, 5, epoch
        )
        equal = (seen[:, None] == everything[None]).flatten(2).all(dim=2)
        assert (equal.sum(dim=0) == 1).all()  # each picture exactly once
        assert (equal.sum(dim=1) == 1).all()
        orders.append(equal.float().argmax(dim=1))
        sampler = EpochShuffle(21, 8, seed=5)
        sampler.set_epoch(epoch)
        assert torch.equal(orders[-1], sampler.order())
    assert not torch.equal(*orders)


def test_validation_and_test_see_the_pictures_normalised_and_not_augmented(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "EVAL_BATCH_SIZE", 4)
    picture_set = made_set([0, 1, 2] * 3, [0, 1, 2] * 2)
    module = PictureDataModule(picture_set, 8, Augmentation(4, 1.0, 8), seed=5)
    recorder = Recorder(module, epochs=2, folder=tmp_path)
    seen = recorder.inputs["other"]
    expected = normalise(picture_set.test.images, MEAN, STD)
    assert [len(batch) for batch in seen] == [4, 2] * 3  # the sanity check, then two epochs
    for start in (0, 2, 4):
        assert torch.equal(torch.cat(seen[start : start + 2]), expected)
    seen.clear()
    recorder.trainer.test(recorder.classifier, datamodule=module, verbose=False)
    assert torch.equal(torch.cat(seen), expected)


def test_pictures_grow_from_epoch_to_epoch_and_are_tested_at_full_size(tmp_path):
    picture_set, augmentation = made_set([0, 1, 2] * 3, [0, 1, 2] * 2), Augmentation(3, 0.5, 0)
    module = PictureDataModule(picture_set, 16, augmentation, seed=5, sides=[8, 16, 16])
    recorder = Recorder(module, epochs=3, folder=tmp_path)
    assert [images.shape[-1] for images in recorder.inputs["train"]] == [8, 16, 16]
    assert [images.shape[-1] for images in recorder.inputs["other"]] == [8, 8, 16, 16]
    order = EpochShuffle(9, 16, seed=5).order()
    full = augment(picture_set.train.images, torch.arange(9), augmentation, MEAN, STD, 5, 0)
    torch.testing.assert_close(recorder.inputs["train"][0], resize(full, 8)[order])
    recorder.inputs["other"].clear()
    recorder.trainer.test(recorder.classifier, datamodule=module, verbose=False)
    assert [images.shape[-1] for images in recorder.inputs["other"]] == [16]


def test_loading_leaves_no_temporary_file(cached_folder, tmp_path):
    assert [name for name in os.listdir(tmp_path / "data" / "cache") if name.startswith(".")] == []
    assert len(os.listdir(tmp_path / "data" / "cache")) == 1


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


def test_without_copies_the_choice_is_as_it_is_with_none_looked_for():
    targets = torch.arange(90) % 3
    first = torch.arange(90)
    chosen = stratified_part(targets, 0.2, 0)
    assert torch.equal(chosen, stratified_part(targets, 0.2, 0, first=first))
    assert chosen.sum() == 18


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
            "6 greyscale pictures of more than 8 bits use 12: 4,095 is shown white." in loaded.notes
        )
        flat = "2 files are all of nearly one colour: ant/blank.png, bee/blank.png."
        assert flat in loaded.notes


def test_what_an_archive_holds_beside_pictures_is_named(tmp_path):
    root = make_folder(tmp_path / "pets", {"oak": 5, "elm": 5})
    (root / "birch").mkdir()
    (root / "birch" / "1.HEIC").write_bytes(b"x")
    archive = shutil.make_archive(tmp_path / "trees", "zip", tmp_path, "pets")
    loaded = load(archive, tmp_path)
    assert loaded.classes == ("elm", "oak")
    assert "Class 'birch' is left out: none of its files can be read (1 .heic)." in loaded.notes
