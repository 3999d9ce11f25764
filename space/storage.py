"""Where visitors' files lie: in a folder of this process alone, and not for long."""

import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import BinaryIO

from utils import InputError

MOST_MEGABYTES = 10
MOST_BYTES = MOST_MEGABYTES * 1_000_000
#: Seconds after which a file is removed, and how often that is looked after.
UPLOAD_AGE, SWEEP_EVERY = 60, 15
#: How many files lie here at most, and how many bytes in all; the oldest goes first.
MOST_FILES, MOST_BYTES_IN_ALL = 100, 100_000_000
#: A folder whose process has not touched it for so many seconds was left by one that was killed.
LEFT_BEHIND = 8 * SWEEP_EVERY
PREFIX = "network-page-"
#: The file is opened once; what it is, is asked of what was opened. Windows has neither of the two.
FOR_READING = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
TOO_LARGE = f"This file is larger than {MOST_MEGABYTES} MB. Make it smaller."
NOT_HERE = (
    "This picture is not here. Only an uploaded file is opened, for a minute at most and less when "
    "many are sent: upload it again."
)


class Storage:
    """A private folder of files with names that nobody can guess.

    It is entered as a context: the folder and all in it is removed at the end.

    Args:
        parent: where the folder is made; None means the system's folder for temporary files.

    Attributes:
        folder: its path, without links in it.
    """

    def __init__(self, parent: Path | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
        self._adding, self._ended = threading.Lock(), threading.Event()

    def __enter__(self) -> "Storage":
        self.sweep()
        threading.Thread(target=self._sweep_until_the_end, name="sweep", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sweep_until_the_end(self) -> None:
        while not self._ended.wait(SWEEP_EVERY):
            self.sweep()

    def keep(self, file: BinaryIO) -> str:
        """Copy a visitor's file into the folder; where the folder is full, the oldest go.

        Returns:
            its path.

        Raises:
            InputError: it is larger than ``MOST_MEGABYTES``.
        """
        path = self.folder / secrets.token_hex(16)
        content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InputError(TOO_LARGE)
        with self._adding:
            self.folder.mkdir(mode=0o700, exist_ok=True)  # a cleaner may have taken it for left
            path.write_bytes(content)
            self._make_room()
        return str(path)

    def read(self, path: str) -> bytes:
        """Return the content of a file that `keep` has named, and of nothing else.

        Raises:
            InputError: it is not such a file, or is no longer here.
        """
        named = self.folder / os.path.basename(path)
        if path != str(named):
            raise InputError(NOT_HERE)
        try:
            with open(os.open(named, FOR_READING), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise InputError(NOT_HERE)
                content = file.read(MOST_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            raise InputError(NOT_HERE) from error
        if len(content) > MOST_BYTES:
            raise InputError(TOO_LARGE)
        return content

    def sweep(self) -> None:
        """Remove what is older than ``UPLOAD_AGE``, and what killed processes left beside."""
        now = time.time()
        for path, status in _listed(self.folder):
            if now - status.st_mtime > UPLOAD_AGE:
                _remove(path, status)
        for path, status in _listed(self.folder.parent, f"{PREFIX}*"):
            if path != self.folder and now - status.st_mtime > LEFT_BEHIND:
                _remove(path, status)
        if self.folder.exists():
            os.utime(self.folder)  # so that others see that its process lives

    def _make_room(self) -> None:
        listed = sorted(_listed(self.folder), key=lambda item: item[1].st_mtime, reverse=True)
        total = 0
        for number, (path, status) in enumerate(listed, 1):
            total += status.st_size
            if number > MOST_FILES or total > MOST_BYTES_IN_ALL:
                _remove(path, status)


def _listed(folder: Path, pattern: str = "*") -> list[tuple[Path, os.stat_result]]:
    """Return what lies in a folder, links unfollowed; what vanishes meanwhile is left out."""
    found = []
    for path in folder.glob(pattern):
        try:
            found.append((path, path.lstat()))
        except FileNotFoundError:
            continue
    return found


def _remove(path: Path, status: os.stat_result) -> None:
    """Remove a file, a link or a folder; another user's cannot be, and stays."""
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
