"""CIFAR-10 is read from its archive, at any size, or fetched, or asked for in words."""

import http.client
import os
import pickle
import tarfile
import urllib.request
from contextlib import ExitStack
from hashlib import md5
from io import BytesIO

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.datasets import CIFAR10

from helpers.pictures import same
from helpers.servers import Server, serving
from utils import InputError
from utils.data import cifar10 as module
from utils.data.cifar10 import read_cifar10
from utils.data.picture_set import CIFAR10_MEAN, CIFAR10_STD
from utils.data.sources import load_pictures

offline = pytest.mark.usefixtures("no_network")
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


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


@offline
def test_cifar10_is_read_from_the_archive_as_it_is(cifar10):
    folder, (train_images, train_labels), (test_images, test_labels) = cifar10
    loaded = load_pictures(dataset="cifar10", data_dir=folder)
    np.testing.assert_array_equal(loaded.train.images, train_images)
    np.testing.assert_array_equal(loaded.train.targets, train_labels)
    np.testing.assert_array_equal(loaded.test.images, test_images)
    np.testing.assert_array_equal(loaded.test.targets, test_labels)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.train.targets.dtype == torch.int64
    assert loaded.classes == NAMES
    assert loaded.title == "CIFAR-10"


@offline
def test_cifar10_is_normalised_with_the_constants_of_the_source(cifar10):
    loaded = load_pictures(dataset="cifar10", data_dir=cifar10[0])
    assert (loaded.mean, loaded.std) == (CIFAR10_MEAN, CIFAR10_STD)
    assert CIFAR10_MEAN == (0.4914, 0.4822, 0.4465)
    assert CIFAR10_STD == (0.2470, 0.2435, 0.2616)


@offline
def test_cifar10_is_loaded_a_second_time_without_the_archive(cifar10):
    folder = cifar10[0]
    first = load_pictures(dataset="cifar10", data_dir=folder)
    for path in sorted(folder.rglob("*cifar-10-*"), reverse=True):
        if path.is_file():
            path.unlink()
    again = load_pictures(dataset="cifar10", data_dir=folder)
    assert same(first, again)
    assert again.fingerprint == first.fingerprint
    assert (again.mean, again.std, again.classes) == (CIFAR10_MEAN, CIFAR10_STD, NAMES)


@offline
def test_cifar10_at_another_size_is_resized(cifar10):
    folder, (train_images, _), _ = cifar10
    loaded = load_pictures(dataset="cifar10", data_dir=folder, image_size=48)
    assert loaded.image_size == 48
    assert loaded.train.images.shape == (100, 3, 48, 48)
    shrunk = functional.interpolate(
        loaded.train.images.float(), size=(32, 32), mode="bicubic", antialias=True
    )
    difference = (shrunk - torch.from_numpy(train_images).float()).abs().mean()
    assert difference < 25  # noise loses detail; another picture would differ by 85


@offline
def test_without_archive_and_network_the_message_says_where_to_put_it(tmp_path):
    folder = tmp_path / "downloads"
    with pytest.raises(InputError, match="CIFAR-10 could not be downloaded") as refused:
        load_pictures(dataset="cifar10", data_dir=folder)
    for part in (str(folder), "cifar-10-python.tar.gz", "https://"):
        assert part in str(refused.value)
    assert list(folder.iterdir()) == []


# What is fetched


@pytest.fixture
def serve(monkeypatch):
    """A function that has an address of this machine stand in for the official one."""
    with ExitStack() as servers:

        def begin(**answer) -> None:
            addresses = servers.enter_context(serving(Server(**answer)))
            monkeypatch.setattr(module, "ADDRESSES", addresses)

        yield begin


def test_fetching_leaves_the_hidden_files_of_a_person_alone(cifar10, serve, tmp_path):
    home = tmp_path / "home"
    own = [home / ".bashrc-20240101", home / ".backup-20231231" / "thesis.tex"]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
        os.utime(path.parent, (0, 0))
    serve(content=(cifar10[0] / CIFAR10.filename).read_bytes())
    read_cifar10(home)
    assert all(path.is_file() for path in own)


def test_a_missing_archive_is_fetched_under_a_bar_and_kept_as_it_came(
    cifar10, serve, tmp_path, capsys
):
    folder, (train_images, _), _ = cifar10
    content = (folder / CIFAR10.filename).read_bytes()
    serve(content=content)
    _, (images, _), _ = read_cifar10(tmp_path / "elsewhere")
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2), train_images)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [CIFAR10.filename]
    assert (tmp_path / "elsewhere" / CIFAR10.filename).read_bytes() == content
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Downloading CIFAR-10: 100%" in shown.err
    assert f"{len(content) / 1000:.0f}k/" in shown.err


def test_the_official_address_is_asked_first():
    assert module.ADDRESSES[0] == CIFAR10.url
    assert all(address.startswith("https://") for address in module.ADDRESSES)


@pytest.mark.parametrize(
    ("answer", "words", "kept"),
    [
        (
            {"content": b"another file"},
            "what came is not the official archive",
            f"{CIFAR10.filename}.50e55790.refused",
        ),
        ({"content": b"half of it", "cuts": [4, 0]}, "more exp", f"{CIFAR10.filename}.part"),
        ({"content": b"", "status": 404}, "HTTP Error 404", None),
    ],
)
def test_what_is_not_the_official_archive_is_not_kept_as_such(
    cifar10, serve, tmp_path, monkeypatch, answer, words, kept
):
    monkeypatch.setattr("utils.data.download.time.sleep", lambda _: None)
    serve(**answer)
    with pytest.raises(InputError, match=rf"could not be downloaded \(.*({words}).*Check the net"):
        read_cifar10(tmp_path / "elsewhere")
    assert [path.name for path in (tmp_path / "elsewhere").glob("*")] == ([kept] if kept else [])


def test_what_came_before_is_not_fetched_again_nor_asked_room_for(cifar10, serve, tmp_path):
    folder, (train_images, _), _ = cifar10
    content = (folder / CIFAR10.filename).read_bytes()
    part = tmp_path / f"{CIFAR10.filename}.part"
    part.write_bytes(content[:1_000])
    assert not module.is_there(tmp_path)
    assert module.bytes_to_fetch(tmp_path) == module.ARCHIVE_SIZE - 1_000
    serve(content=content)
    _, (images, _), _ = read_cifar10(tmp_path)
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2), train_images)
    assert module.bytes_to_fetch(tmp_path) == 0
    assert not part.exists()


@pytest.mark.parametrize(
    "error", [http.client.IncompleteRead(b"half"), TimeoutError(), http.client.BadStatusLine("")]
)
def test_a_server_that_fails_midway_is_said(cifar10, serve, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(InputError, match="could not be downloaded") as refused:
        read_cifar10(tmp_path / "elsewhere")
    assert CIFAR10.url in str(refused.value)
    assert list((tmp_path / "elsewhere").glob("*")) == []
