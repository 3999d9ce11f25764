"""What several processes share: work done once, and temporary folders that outlive nobody."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from utils import locks
from utils.files import ROOT
from utils.locks import (
    LIVE,
    PREFIX,
    TIED,
    HeldError,
    held_alone,
    is_held,
    one_at_a_time,
    private_folder,
)

HOLD = """
import sys, time
from pathlib import Path
from utils.locks import one_at_a_time, private_folder
with private_folder(Path(sys.argv[1])) as folder, one_at_a_time(Path(sys.argv[1], "made"), "It"):
    (folder / "half").write_text("x")
    print("held", flush=True)
    sys.stdin.read(1)
    Path(sys.argv[1], "made").write_text("first")
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, at work until a byte is sent to it."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_comes_second_says_so_waits_and_finds_what_the_first_made(
    holder, tmp_path, capsys, monkeypatch
):
    waits = locks.FileLock.acquire

    def let_the_first_go_on(self, **options):
        if not options:  # without a limit: it waits
            holder.communicate("x")
        return waits(self, **options)

    monkeypatch.setattr(locks.FileLock, "acquire", let_the_first_go_on)
    with one_at_a_time(tmp_path / "made", "Making it") as waited:
        assert waited and (tmp_path / "made").read_text() == "first"
    expected = "Making it: another process is doing this already; waiting for it.\n"
    assert capsys.readouterr().out == expected
    assert os.listdir(tmp_path) == ["made"]


def test_where_nothing_can_be_written_nobody_is_kept_waiting(tmp_path):
    (tmp_path / "file").write_text("")
    with one_at_a_time(tmp_path / "file" / "made", "Making it") as waited:
        assert not waited


def test_folders_of_the_dead_are_removed_and_no_others(holder, tmp_path, monkeypatch):
    (live,) = tmp_path.glob(f"{PREFIX}*")
    dead, foreign = tmp_path / f"{PREFIX}dead", tmp_path / f"{PREFIX}foreign"
    for folder in (dead, foreign, tmp_path / "other"):
        folder.mkdir()
        (folder / "something").write_text("x")
    (dead / LIVE).write_text("")
    (tmp_path / f"{PREFIX}unborn").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(dead)
    with private_folder(tmp_path):
        assert dead.exists()  # as young as it is, it may be in the making
    monkeypatch.setattr(locks, "NEWBORN", 0.0)
    with private_folder(tmp_path) as folder:
        there = {path.name for path in tmp_path.iterdir()} - {".made.lock"}
        kept = {live.name, foreign.name, folder.name, f"{PREFIX}link", "other"}
        assert there == kept
    holder.kill()
    holder.wait()
    with private_folder(tmp_path):
        assert not live.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no user's number there")
def test_folders_of_other_users_are_left_alone(tmp_path, monkeypatch):
    theirs = tmp_path / f"{PREFIX}theirs"
    theirs.mkdir()
    (theirs / LIVE).write_text("")
    monkeypatch.setattr(locks, "NEWBORN", 0.0)
    monkeypatch.setattr(os, "getuid", lambda: theirs.stat().st_uid + 1)
    locks.remove_dead_folders(tmp_path)
    assert theirs.exists()


def test_a_folder_is_held_by_one_process_and_by_nobody_once_that_is_dead(tmp_path):
    hold = HOLD.replace("one_at_a_time, private_folder", "held_alone")
    hold = hold.partition("with")[0] + "with held_alone(Path(sys.argv[1])):\n"
    hold += '    print("held", flush=True)\n    time.sleep(60)'
    assert not is_held(tmp_path)
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        with pytest.raises(HeldError, match=f"process {first.pid} on"), held_alone(tmp_path):
            pytest.fail("two hold it")
        first.kill()
    assert not is_held(tmp_path)
    with held_alone(tmp_path):
        assert is_held(tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


def test_who_holds_a_folder_need_not_be_known(tmp_path):
    with held_alone(tmp_path):
        (tmp_path / ".holder.json").write_text("{")
        with pytest.raises(HeldError, match="another process"), held_alone(tmp_path):
            pytest.fail("two hold it")


TIED_PROCESS = """
import subprocess, sys, time
from utils.locks import end_with_starter
end_with_starter()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
STARTER = f"""
import os, subprocess, sys, time
command = [sys.executable, "-c", {TIED_PROCESS!r}]
environment = os.environ | {{{TIED!r}: "1"}}
tied = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
print(tied.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_tied_process_and_what_it_started_end_with_the_one_that_was_killed():
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        processes = [psutil.Process(int(starter.stdout.readline())) for _ in range(2)]
        assert all(process.is_running() for process in processes)
        starter.kill()
        begun = time.monotonic()
        psutil.wait_procs(processes, timeout=10)
    assert time.monotonic() - begun < 5
    assert not any(psutil.pid_exists(p.pid) and p.status() != "zombie" for p in processes)
