"""What visitors of the Space send, on the disk: for a while, within bounds, for nobody else."""

import os
from io import BytesIO
from pathlib import Path

import pytest
import storage
from storage import Storage

from utils import InputError


@pytest.fixture
def stored(tmp_path):
    with Storage(tmp_path) as stored:
        yield stored


def aged(path, seconds):
    status = path.lstat()
    os.utime(path, (status.st_atime, status.st_mtime - seconds), follow_symlinks=False)


def test_what_is_kept_is_read_and_gone_at_the_end(tmp_path):
    with Storage(tmp_path) as stored:
        path = stored.keep(BytesIO(b"a picture"))
        assert stored.read(path) == b"a picture"
        assert stored.folder.stat().st_mode & 0o077 == 0  # nobody else's
    assert list(tmp_path.iterdir()) == []


def planted(folder: Path) -> dict[str, str]:
    """Paths that a stranger may name; those in the folder are worse than any that can be sent."""
    secret = folder.parent / "secret.png"
    secret.write_bytes(b"secret")
    (folder / "link").symlink_to(secret)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "beside").symlink_to(folder.parent)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with (folder / "large").open("wb") as file:
        file.truncate(50_000_000_000)
    inside = (
        "link",
        "loop",
        "beside/secret.png",
        "folder",
        "pipe",
        "large",
        "none",
        "../secret.png",
    )
    return {name: str(folder / name) for name in inside} | {
        "elsewhere": str(secret), "device": "/dev/zero", "terminal": "/dev/ptmx",
        "process": "/proc/self/environ", "descriptor": "/proc/self/fd/0", "the folder": str(folder),
        "relative": "secret.png", "nothing": "", "zero": f"{folder}/\0",
        "address": "http://127.0.0.1:9/a.png", "file address": f"file://{secret}",
        "its long way": f"{folder}/../{folder.name}/large",
    }  # fmt: skip


def test_nothing_but_uploads_is_read(stored):
    for kind, path in planted(stored.folder).items():
        message = "larger than 10 MB" if kind == "large" else "is not here"
        with pytest.raises(InputError, match=message):
            stored.read(path)


def test_uploads_go_by_age_and_with_them_what_else_lies_there(stored):
    paths = [Path(stored.keep(BytesIO(b"a"))) for _ in range(3)]
    planted(stored.folder)
    for path in set(stored.folder.iterdir()) - {paths[2]}:
        aged(path, storage.UPLOAD_AGE + 1)
    stored.sweep()
    assert list(stored.folder.iterdir()) == [paths[2]]
    assert (stored.folder.parent / "secret.png").exists()  # links are not followed


def test_the_oldest_uploads_go_where_there_are_too_many(stored, monkeypatch):
    monkeypatch.setattr(storage, "MOST_FILES", 3)
    monkeypatch.setattr(storage, "MOST_BYTES_IN_ALL", 1_000)
    paths = []
    for number in range(4):
        paths.append(Path(stored.keep(BytesIO(b"a"))))
        aged(paths[-1], 10 - number)
    assert sorted(stored.folder.iterdir()) == sorted(paths[1:])
    large = Path(stored.keep(BytesIO(bytes(999))))
    assert sorted(stored.folder.iterdir()) == sorted([paths[3], large])
    with pytest.raises(InputError, match="upload it again"):
        stored.read(str(paths[0]))


def test_what_a_killed_process_left_is_removed_and_what_others_use_is_not(tmp_path):
    left, used = Storage(tmp_path), Storage(tmp_path)
    left.keep(BytesIO(b"a"))
    other = tmp_path / "other"
    other.mkdir()
    for path in (left.folder, used.folder, other):
        aged(path, storage.LEFT_BEHIND + 1)
    used.sweep()
    with Storage(tmp_path):
        assert not left.folder.exists()
        assert used.folder.exists()
        assert other.exists()
