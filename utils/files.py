"""Files written whole or not at all, paths as people mean them, and room on the disk.

Every file is written beside its target, flushed, and moved into place, so that a reader never sees
half a file. Needs no torch.
"""

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from zipfile import ZipFile

from utils import InputError, brief, first_line, printable

ROOT = Path(__file__).resolve().parent.parent


def resolve_path(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one counts from the repository's root.

    Raises:
        InputError: it is not a valid path.
    """
    if path == "":
        raise InputError("A path is empty. Give the file or folder that you mean.")
    try:
        resolved = (ROOT / Path(path).expanduser()).resolve()
        resolved.exists()  # a name that is too long shows only here
        return resolved
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{brief(path)} is not a valid path ({error}).") from error


def brief_path(path: Path) -> str:
    """Return a path as people should see it: from the repository's root where it lies inside.

    >>> brief_path(ROOT / "outputs" / "quickstart")
    'outputs/quickstart'
    """
    return printable(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path))


#: How the names begin of what is half-written. A mark of this project's own: people have hidden
#: files too, and eight hexadecimal digits alone may be a date.
_MARK = ".davidnet~"
_LEFTOVER = re.compile(rf"{re.escape(_MARK)}[0-9a-f]{{8}}~(.+)")


def beside_of(target: Path) -> Path:
    """Return a unique name beside `target`, which `remove_leftovers` recognises."""
    return target.with_name(f"{_MARK}{uuid.uuid4().hex[:8]}~{target.name}")


@contextmanager
def replacing(target: Path) -> Generator[Path]:
    """Yield a path beside `target` to write to; it takes the target's place if all went well.

    Raises:
        InputError: the disk is full, the folder is read-only, or the like. Errors about anything
            else that is done within pass through as they are.
    """
    beside = beside_of(target)
    try:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with writing(target, beside):
            yield beside
        with writing(target):
            with open(beside, "rb") as written:
                os.fsync(written.fileno())
            os.replace(beside, target)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path) -> Generator[Path]:
    """Yield an empty folder to fill; it takes the target's place if all went well.

    Raises:
        InputError: as `replacing`.
    """
    beside = beside_of(target)
    try:
        with writing(target):
            beside.mkdir(parents=True)
        with writing(target, beside):
            yield beside
        with writing(target):
            shutil.rmtree(target, ignore_errors=True)
            beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


#: What only writing comes to. A failing write does not say of which file it was.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def writing(target: Path, within: Path | None = None) -> Generator[None]:
    """Say that `target` cannot be written where the system says so, of `within` if given.

    Raises:
        InputError: it says so. Errors about anything else pass through as they are.
    """
    try:
        yield
    except OSError as error:
        if within is None or _concerns(error, within):
            raise unwritable(target, error) from error
        raise


def _concerns(error: OSError, place: Path) -> bool:
    """Tell whether an error is about writing a file or folder, or something in it."""
    names = [n for n in (error.filename, error.filename2) if isinstance(n, str | bytes | Path)]
    if not names:
        return error.errno in _NO_ROOM
    return any(Path(os.fsdecode(name)).is_relative_to(place) for name in names)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target`, atomically, in UTF-8.

    Raises:
        InputError: as `replacing`.
    """
    with replacing(target) as beside:
        beside.write_text(text, encoding="utf-8")


def write_files(contents: Mapping[Path, str | bytes]) -> None:
    """Write each file atomically, text in UTF-8; whoever asks has found out before what to write.

    Raises:
        InputError: as `replacing`.
    """
    for target, content in contents.items():
        with replacing(target) as beside:
            beside.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_leftovers(folder: Path, older_than: float = 0.0) -> None:
    """Remove what a killed process left half-written beside its targets in `folder`.

    What has a target that a process is making, within `utils.locks.one_at_a_time`, stays. So
    whoever makes one calls this before.

    Args:
        folder: may be missing.
        older_than: seconds; what is younger may still be in the making.
    """
    from utils.locks import is_being_made  # here, since badges are written with nothing installed

    for path in folder.glob(f"{_MARK}*"):
        with suppress(OSError):
            named = _LEFTOVER.fullmatch(path.name)
            if named is None or time.time() - path.stat().st_mtime < older_than:
                continue
            if not is_being_made(folder / named[1]):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def unwritable(target: Path, error: BaseException) -> InputError:
    """Return what to tell a person when `target` could not be written."""
    number = getattr(error, "errno", None)
    remedy = "Choose another folder"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Free some space there, or choose another folder"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "Make its folder writable, or choose another"
    reason = getattr(error, "strerror", None) or first_line(error)
    return InputError(f"{target} cannot be written: {reason}. {remedy}.")


def check_growth(archive: ZipFile, allowed: float) -> None:
    """Refuse a zip that would fill the memory: zeros pack to a thousandth.

    Args:
        archive: opened.
        allowed: bytes that its files may take together, unpacked.

    Raises:
        ValueError: with what they would take.
    """
    total = sum(info.file_size for info in archive.infolist())
    if total > allowed:
        raise ValueError(
            f"it would take {total / 1e6:,.1f} MB unpacked, and no more than "
            f"{allowed / 1e6:,.1f} MB are sound"
        )


def existing_part(folder: Path) -> Path:
    """Return what there is of a path: the folder itself, or the nearest above it."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to start what the disk has no room for.

    Args:
        folder: where it is to be written; may not exist yet.
        needed: bytes.
        purpose: what they are for, in the words of the message.

    Raises:
        InputError: with what is needed and what is free.
    """
    free = shutil.disk_usage(existing_part(folder)).free
    if free < needed:
        raise InputError(
            f"{purpose} needs {needed / 1e9:.2f} GB in {folder}, but only {free / 1e9:.2f} GB "
            "are free there. Free some space, or choose another folder."
        )
