"""The decoded copy of a data set: taken where it fits, renewed where it does not."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import coloured, load, made_set, make_folder, same
from utils import files
from utils.data import cache, drawn_shapes, pictures, sources
from utils.data.sources import load_pictures
from utils.files import ROOT

pytestmark = pytest.mark.usefixtures("no_network")


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
        pictures,
        "read_pictures",
        lambda *given, **more: decoded.append(given) or read(*given, **more),
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
    cache.unlink()  # what is mapped of it stays
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


@pytest.mark.parametrize("part", cache.AUDITED)
def test_an_audit_that_was_altered_is_made_again(part, cached_folder, tmp_path, capsys):
    from safetensors import safe_open
    from safetensors.torch import save_file

    root, first = cached_folder
    (kept,) = (tmp_path / "data" / "cache").iterdir()
    with safe_open(kept, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert len(tensors["audit.images"]) and len(first.audit.rows) == 1  # of tiny pictures
    tensors[part].view(-1)[0] += 1
    kept.unlink()  # what is mapped of it stays
    save_file(tensors, kept, metadata)
    again = load(root, tmp_path)
    assert "the checksum of its audit is wrong" in capsys.readouterr().out
    assert torch.equal(again.audit.images, first.audit.images)
    assert torch.equal(again.train.groups, first.train.groups)


def test_what_was_not_audited_is_kept_without_an_audit(tmp_path):
    whole = made_set([0, 1, 2] * 4)
    fingerprint = cache._fingerprint(whole.classes, whole.train, whole.test)
    whole = replace(whole, fingerprint=fingerprint)
    source = cache.Source("made", "made", "made", "key", 15, lambda size, new: None)
    cache._finish(cache.TensorFile(tmp_path / "kept.safetensors", 0), source, whole)
    found = cache._read_cache(source, tmp_path / "kept.safetensors")
    assert same(found, whole) and found.audit is None and found.train.groups is None


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
    monkeypatch.setattr(drawn_shapes, "draw_split", lambda name, image_size, into: drawn[name])
    first = load_pictures(dataset="shapes", data_dir=tmp_path)
    monkeypatch.setattr(drawn_shapes, "draw_split", None)
    again = load_pictures(dataset="shapes", data_dir=tmp_path, limit_train=10)
    assert same(first, load_pictures(dataset="shapes", data_dir=tmp_path))
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
# what is imported for good
sources.load_pictures(dataset=str(place / "plain"), data_dir=place / "first", image_size=16)
(place / "data").mkdir()
(place / "data" / "cache").write_text("where the decoded copy would be kept")
for dataset in (str(place / "plain"), str(place / "split"), "cifar10"):
    load = partial(
        sources.load_pictures, dataset=dataset, data_dir=place / "data", image_size=side
    )
    print("peak", peak(load))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux tells the peak")
def test_no_more_memory_is_used_than_is_asked_for(tmp_path):
    for name, parts in (("plain", ("",)), ("split", ("train/", "test/"))):
        make_folder(tmp_path / name, {f"{p}{c}": 150 // len(parts) for p in parts for c in "ab"})
    command = [sys.executable, "-c", PEAKS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one = 300 * 3 * 256**2
    assert done.stdout.count("are not kept and will be decoded again") == 3
    for peak in (line.split()[1] for line in done.stdout.splitlines() if line.startswith("peak")):
        print(f"decoding: {int(peak) / one:.2f} copies")
        assert int(peak) < cache.COPIES * one + cache.DECODERS


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux tells what is taken")
def test_four_times_the_memory_that_the_system_allows_is_decoded_and_trained_on(tmp_path):
    make_folder(tmp_path / "few", {"ant": 6, "bee": 6})
    make_folder(tmp_path / "many", {"ant": 240, "bee": 240})
    command = [sys.executable, "-m", "helpers.under_a_limit", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    environment["MALLOC_ARENA_MAX"] = "1"  # how much the arenas of threads keep is chance
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused, trained, again = done.stdout.splitlines()
    assert refused == "The system refuses as much memory as the pictures take."
    assert trained.split() == [str(480 * 3 * 384**2)] * 2 + ["6"]
    assert again == "True"


@pytest.mark.slow
def test_what_a_killed_decoding_leaves_is_not_read(cached_folder, tmp_path):
    root, first = cached_folder
    folder = tmp_path / "data" / "cache"
    (kept,) = folder.iterdir()
    kept.unlink()
    script = (
        "import os; from utils.data import cache; from utils.data.sources import load_pictures\n"
        "cache._finish = lambda *given: os._exit(9)\n"
        f"load_pictures(dataset={str(root)!r}, data_dir={str(tmp_path / 'data')!r})"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 9
    (left,) = (path for path in folder.iterdir() if path.suffix == ".safetensors")
    assert left.name.startswith(".")
    os.utime(left, (0, 0))
    assert same(load(root, tmp_path), first)
    assert list(folder.iterdir()) == [kept]


@pytest.mark.parametrize("failing", ["unwritable", "no room"])
def test_what_cannot_be_kept_is_decoded_into_memory_and_said(
    failing, tmp_path, monkeypatch, capsys
):
    root = make_folder(tmp_path / "pets", {"ant": 5, "bee": 5})
    kept = load(root, tmp_path / "kept")
    if failing == "unwritable":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "cache").write_text("no folder")
    else:
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=30_000))
    assert same(load(root, tmp_path), kept)
    said = capsys.readouterr().out
    assert "are not kept and will be decoded again next time: " in said
    if failing == "no room":
        assert "The decoded copy of pets needs 0.00 GB in " in said


def test_pictures_are_mapped_and_cannot_be_written_to(cached_folder, tmp_path):
    _, first = cached_folder
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("Linux tells what is mapped")
    (kept,) = (tmp_path / "data" / "cache").iterdir()
    found = [line.split() for line in maps.read_text().splitlines() if str(kept) in line]
    addresses = [[int(end, 16) for end in line[0].split("-")] for line in found]
    assert {line[1] for line in found} == {"r--s"}  # read alone, and shared with the disk's cache
    for split in (first.train, first.test):
        assert any(low <= split.images.data_ptr() < high for low, high in addresses)


def test_loading_leaves_no_temporary_file(cached_folder, tmp_path):
    assert [name for name in os.listdir(tmp_path / "data" / "cache") if name.startswith(".")] == []
    assert len(os.listdir(tmp_path / "data" / "cache")) == 1
