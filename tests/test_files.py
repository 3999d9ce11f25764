"""Files are replaced whole or not at all, and what stands in the way is named."""

import errno
import os
from pathlib import Path

import pytest

from utils import InputError
from utils.files import (
    beside_of,
    check_space,
    remove_leftovers,
    replacing,
    replacing_folder,
    resolve_path,
)
from utils.locks import one_at_a_time
from utils.runs import Run


def test_replacing_shows_the_old_file_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with replacing(target) as beside:
        beside.write_text("first")
        assert not target.exists()
    with replacing(target) as beside:
        beside.write_text("second")
        assert target.read_text() == "first"
        assert beside.parent == target.parent
        assert beside.suffix == ".csv"
    assert target.read_text() == "second"
    assert os.listdir(target.parent) == ["table.csv"]


def test_replacing_keeps_the_old_file_and_leaves_no_other_when_writing_fails(tmp_path):
    target = tmp_path / "run.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as beside:
        beside.write_text("half of the n")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_replacing_leaves_nothing_when_nothing_was_written(tmp_path):
    with pytest.raises(InputError, match="No such file"), replacing(tmp_path / "a.json"):
        pass
    assert os.listdir(tmp_path) == []


def write_another(beside, elsewhere):
    (elsewhere / "missing" / "other.txt").write_text("x")


def fill_the_disk(beside, elsewhere):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() does it: without a name


def fill_the_disk_by_copying(beside, elsewhere):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(elsewhere), None, str(beside / "a"))


def lose_the_network(beside, elsewhere):
    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


@pytest.mark.parametrize("place", [replacing, replacing_folder])
@pytest.mark.parametrize(
    ("act", "expected", "said"),
    [
        (write_another, FileNotFoundError, "other.txt"),
        (lose_the_network, ConnectionRefusedError, "refused"),
        (fill_the_disk, InputError, "target cannot be written: No space left"),
        (fill_the_disk_by_copying, InputError, "target cannot be written: No space left"),
    ],
)
def test_writing_is_blamed_for_what_happened_in_writing_alone(place, act, expected, said, tmp_path):
    (tmp_path / "target").mkdir() if place is replacing_folder else None
    with pytest.raises(expected, match=said), place(tmp_path / "target") as beside:
        act(beside, tmp_path)
    assert os.listdir(tmp_path) == (["target"] if place is replacing_folder else [])


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    with replacing(tmp_path / "a.json") as first, replacing(tmp_path / "a.json") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.json").read_text() == "first"
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_cannot_be_written_leaves_every_old_file_as_it_was(tmp_path):
    run = Run("r", tmp_path)
    run.write_json("metrics.json", {"test_acc": 0.5, "test_loss": 1.5, "test_size": 4})
    run.write_csv("metrics.csv", ["epoch"], [{"epoch": 1}])
    before = {p.name: p.read_bytes() for p in run.folder.iterdir()}
    with pytest.raises(ValueError):
        run.write_json("metrics.json", {"test_acc": float("nan")})
    with pytest.raises(TypeError):
        run.update_metrics(test_acc=object())
    with pytest.raises(ValueError):
        run.write_csv("metrics.csv", ["epoch"], [{"epoch": 2, "surprise": 3}])
    assert {p.name: p.read_bytes() for p in run.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device. Free some space there, or choose another folder"),
        (errno.EROFS, "Read-only file system. Make its folder writable, or choose another"),
        (errno.EACCES, "Permission denied. Make its folder writable, or choose another"),
        (errno.EIO, "Input/output error. Choose another folder"),
    ],
)
def test_a_full_or_closed_place_is_named_with_a_remedy(number, said, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    run = Run("r", tmp_path)
    run.write_json("a.json", {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(InputError, match=rf"a\.json cannot be written: {said}"):
            run.write_json("a.json", {"a": 2})
    assert run.read_json("a.json") == {"a": 1}
    assert os.listdir(run.folder) == ["a.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written: .*Choose another folder"):
        Run("r", tmp_path / "file").write_json("a.json", {})


#: Files and folders of a person, some as earlier versions or the locks of archives are called.
OTHERS = [
    "last.ckpt", ".hidden", "a-0123abcd.ckpt", ".bashrc-20240101", ".a-1234abcd.lock",
    ".backup-20231231/thesis.tex", ".davidnet-1234abcd-89abcdef.lock", ".davidnet/notes.txt",
    ".davidnet~1234abcd", ".davidnet~notes~a.txt", "davidnet~1234abcd~a.txt",
]  # fmt: skip


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    targets = ["last.ckpt", "03_training.ipynb", "folder/half.txt", "pets-1234abcd-89abcdef/a.jpg"]
    for name in OTHERS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    kept = sorted(os.listdir(tmp_path))
    for folder, *inside in (Path(name).parts for name in targets):
        left = beside_of(tmp_path / folder).joinpath(*inside)
        left.parent.mkdir(exist_ok=True)
        left.write_text("half")
    remove_leftovers(tmp_path, older_than=60)  # they may be in the making
    assert len(os.listdir(tmp_path)) == len(kept) + len(targets)
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == kept
    assert all((tmp_path / name).is_file() for name in OTHERS)
    remove_leftovers(tmp_path / "missing")


@pytest.mark.parametrize("name", ["pets-1234abcd-89abcdef", "pets.safetensors"])
def test_what_a_process_is_making_stays_however_old_it_looks(name, tmp_path):
    beside = beside_of(tmp_path / name)
    with one_at_a_time(tmp_path / name, "It"):
        beside.mkdir()
        os.utime(beside, (0, 0))  # as a folder looks whose first entry is long ago
        remove_leftovers(tmp_path, older_than=3600)
        assert beside.is_dir()
    remove_leftovers(tmp_path, older_than=3600)
    assert not beside.exists()


def test_what_does_not_fit_on_the_disk_is_not_begun(tmp_path):
    check_space(tmp_path / "not" / "yet" / "there", 1_000, "A test")
    said = r"A test needs 1000000000\.00 GB in .*there, but only .* GB are free there"
    with pytest.raises(InputError, match=said):
        check_space(tmp_path / "there", 10**18, "A test")


def test_relative_paths_count_from_the_repository_wherever_we_are(tmp_path, monkeypatch):
    root = Path(__file__).resolve().parent.parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path("outputs/a") == root / "outputs" / "a"
    assert resolve_path("../x") == root.parent / "x"
    assert resolve_path(tmp_path / "a" / ".." / "b") == tmp_path.resolve() / "b"
    assert resolve_path("~/c") == tmp_path.resolve() / "c"
