"""What several processes share: work that one does at a time, and what ends with its process."""

import json
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

#: How the temporary folders of this program begin.
PREFIX = "davidnet-"
#: Held by the process whose temporary folder it is; the system lets go of it with the process.
LIVE = ".live"
#: Seconds in which a folder may have been made whose maker does not hold it yet.
NEWBORN = 60.0
#: In a folder that one process at a time may write: its lock, and who holds it.
LOCK, HOLDER = ".lock", ".holder.json"
#: Set for a process that is to end with the one that started it, and holds its standard input.
TIED = "DAVIDNET_TIED"


class HeldError(Exception):
    """Another process holds a folder. The message says which."""


@contextmanager
def held_alone(folder: Path) -> Generator[None]:
    """Hold a folder: no other process can. The system lets go of it when this process ends.

    Args:
        folder: is made if it is not there.

    Raises:
        HeldError: another process holds it, which the message names.
        OSError: it cannot be written to.
    """
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise HeldError(_who(holder)) from None
    try:
        _write_holder(holder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _write_holder(holder: Path) -> None:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    told = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
    beside = holder.with_name(f"{holder.stem}-{os.getpid():08x}{holder.suffix}")
    beside.write_text(json.dumps(told), encoding="utf-8")
    os.replace(beside, holder)


def _who(holder: Path) -> str:
    try:
        told = json.loads(holder.read_text(encoding="utf-8"))
        return "process {process} on {host}, since {since}".format(**told)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def is_held(folder: Path) -> bool:
    """Tell whether a process holds a folder, this one included."""
    return _is_locked(folder / LOCK)


def is_being_made(target: Path) -> bool:
    """Tell whether a process is within `one_at_a_time` of this target, this one included."""
    return _is_locked(_lock_of(target))


def _is_locked(lock: Path) -> bool:
    if not lock.is_file():
        return False
    try:
        with FileLock(lock).acquire(blocking=False):
            return False
    except Timeout:
        return True


def end_with_starter() -> None:
    """If this process was started so, see that it and what it started end with its starter.

    A starter that is killed can end nobody; but the system then closes its end of the pipe that is
    this process's standard input.
    """
    if os.environ.pop(TIED, None):
        threading.Thread(target=_end_after_input, daemon=True).start()


def _end_after_input() -> None:
    import psutil

    while os.read(sys.stdin.fileno(), 1024):
        pass
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(128 + signal.SIGTERM)


@contextmanager
def one_at_a_time(target: Path, work: str) -> Generator[bool]:
    """Wait until no other process is making `target`, saying so in one line, and keep others out.

    Yields whether there was another: then `target` may be there now. Where the folder cannot be
    written to nobody is kept out: whoever then writes is told.

    Args:
        target: what is made within.
        work: what is being done, in the words of the line.
    """
    lock, is_new = FileLock(_lock_of(target)), not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        waited = _acquire(lock, work)
    except OSError:
        yield False
        return
    try:
        yield waited
    finally:
        with suppress(OSError):  # whoever waits for the file that is gone makes a new one
            os.unlink(lock.lock_file)
        lock.release()
        with suppress(OSError):  # something is in it, as a rule
            target.parent.rmdir() if is_new else None


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _acquire(lock: FileLock, work: str) -> bool:
    """Take the lock, and tell whether another process had it."""
    try:
        lock.acquire(blocking=False)
        return False
    except Timeout:
        print(f"{work}: another process is doing this already; waiting for it.", flush=True)
        lock.acquire()
        return True


@contextmanager
def private_folder(place: Path | None = None) -> Generator[Path]:
    """Yield an empty folder of this process alone; first remove those of processes now dead.

    Args:
        place: where to make it; None takes the system's folder for temporary files.
    """
    place = Path(tempfile.gettempdir() if place is None else place)
    remove_dead_folders(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    lock = FileLock(folder / LIVE)
    lock.acquire()
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_dead_folders(place: Path) -> None:
    """Remove the temporary folders in `place` that processes of this user left when killed."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            if not _is_mine(folder) or time.time() - folder.stat().st_mtime < NEWBORN:
                continue
            if not (folder / LIVE).is_file():
                folder.rmdir()  # its maker was killed at once; and if it is not empty, not ours
                continue
            with FileLock(folder / LIVE, blocking=False):
                pass
            shutil.rmtree(folder)


def _is_mine(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and (
        sys.platform == "win32" or status.st_uid == os.getuid()
    )
