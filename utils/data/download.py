"""A published archive, from whichever of its addresses delivers it.

What came is kept beside the target, and the next address, or the next call, goes on from there. No
address is trusted: the checksum of the whole decides.
"""

import hashlib
import math
import os
import re
import time
import urllib.request
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from typing import BinaryIO
from urllib.error import HTTPError, URLError

from utils import InputError, first_line
from utils.files import check_space, writing
from utils.progress import progress_bar

#: Bytes that are read at a time.
CHUNK = 2**16


@dataclass(frozen=True)
class Patience:
    """When an address is left for another one.

    A dead or slow address is left after `window` + `silence` at the latest.

    Attributes:
        rate: bytes per second that an address has to send while another may be faster.
        window: seconds over which that is measured, and in which it has to begin to answer.
        silence: seconds without a byte after which it is taken for dead.
        pause: seconds before the same address is asked again.
    """

    rate: float = 200_000
    window: float = 20.0
    silence: float = 10.0
    pause: float = 1.0


PATIENCE = Patience()


def fetch(
    addresses: Sequence[str],
    target: Path,
    checksum: str,
    title: str,
    room: int,
    patience: Patience = PATIENCE,
) -> None:
    """Download an archive, going on from what an earlier call kept of it.

    Args:
        addresses: URLs of the same bytes, asked in this order.
        target: where the archive is moved once its checksum is right.
        checksum: its published MD5, in hexadecimal.
        title: what it is, in the words of the bar and of messages.
        room: bytes that it takes at most.
        patience: when an address is left.

    Raises:
        InputError: no address delivered it, or it cannot be written. What came is kept.
    """
    part = part_of(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target, part):
        check_space(target.parent, room - size_of(part), f"Downloading {title}")
        _Download(addresses, target, checksum, title, room, patience).run()


def part_of(target: Path) -> Path:
    """Return where what came of an archive is kept until all of it is there."""
    return target.with_name(f"{target.name}.part")


def size_of(path: Path) -> int:
    """Return the bytes in a file, none if it is missing."""
    return path.stat().st_size if path.exists() else 0


class _LeftError(Exception):
    """An address is left. The text says why."""


class _SlowError(_LeftError):
    """An address sends too little while another may send more."""

    def __init__(self, rate: float):
        super().__init__(f"it sends {rate / 1e3:,.0f} kB/s")
        self.rate = rate


class _MisfitError(_LeftError):
    """What an address offers is not what the part is the beginning of."""


class _Download:
    """An archive on its way: what came of it, and which addresses may still be asked."""

    def __init__(
        self,
        addresses: Sequence[str],
        target: Path,
        checksum: str,
        title: str,
        room: int,
        patience: Patience,
    ):
        self.target, self.part, self.official = target, part_of(target), addresses[0]
        self.checksum, self.title, self.room, self.patience = checksum, title, room, patience
        self.waiting = list(addresses)
        self.misfits: list[str] = []
        self.rates: dict[str, float] = {}  # of those found slow, in bytes per second
        self.reasons: dict[str, str] = {}  # why each was left the last time
        self.origins = {"an earlier call"} if self.size else set()  # of the bytes in the part
        self.total: int | None = None  # bytes of what the part is the beginning of
        self.misfit: Path | None = None  # a part that was set aside unfinished
        self.news = ""

    @property
    def size(self) -> int:
        """Bytes that came so far."""
        return size_of(self.part)

    def run(self) -> None:
        """Ask one address after the other until the archive is there.

        Raises:
            InputError: none is left to ask.
        """
        asked = None
        while self._digest() != self.checksum:  # it may be all there, and only not moved yet
            address = self._next()
            self._tell(address)
            time.sleep(self.patience.pause if address == asked else 0)
            self._try(address)
            asked = address
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.target)

    # Which address is asked

    def _next(self) -> str:
        """Return the first address that is not known to be slow, or else the fastest.

        Raises:
            InputError: none is left.
        """
        if not self.waiting and self.misfits:
            self._begin_anew()
        if not self.waiting:
            raise self._failure()
        return max(self.waiting, key=lambda address: self.rates.get(address, math.inf))

    def _floor(self, address: str) -> float:
        """Return the rate below which others may be faster, in bytes per second."""
        others = (other for other in self.waiting if other != address)
        best = max((self.rates.get(other, self.patience.rate) for other in others), default=0.0)
        return best / 2 if address in self.rates else best  # the fastest is not left for a trifle

    def _tell(self, address: str) -> None:
        """Print what happened and what is done now, unless this is a plain beginning."""
        if not (self.news or self.size):
            return
        how = f"going on from {_megabytes(self.size)}" if self.size else "beginning from zero"
        if address in self.rates:
            address = f"{address}, the fastest that answers ({self.rates[address] / 1e3:,.0f} kB/s)"
        print(f"Downloading {self.title}: {self.news}{how} with {address}.", flush=True)
        self.news = ""

    def _try(self, address: str) -> None:
        """Take from an address what it sends, and note why it was left if it was."""
        before = self.size
        try:
            self._receive(address)
        except _LeftError as left:
            self._leave(address, left, has_advanced=self.size > before)
        else:
            if (found := self._digest()) != self.checksum:
                self._refuse(address, found)

    def _leave(self, address: str, left: _LeftError, has_advanced: bool) -> None:
        self.reasons[address] = str(left)
        self.news = f"{address} was left ({left}); "
        if not self.size:
            self.part.unlink(missing_ok=True)
        if isinstance(left, _SlowError):
            self.rates[address] = left.rate
            return
        self.waiting.remove(address)
        if isinstance(left, _MisfitError):
            self.misfits.append(address)
        elif has_advanced:  # it only broke off: its turn comes again
            self.waiting.append(address)

    # What comes

    def _receive(self, address: str) -> None:
        """Add to the part all that an address has beyond it.

        Raises:
            _LeftError: it sent less than that.
        """
        have, watch = self.size, _Watch(self._floor(address), self.patience.window)
        with _ask(address, have, self.patience) as answer:
            begin, total = _extent(answer, have)
            self._check_total(total, have)
            with (
                self.part.open("r+b" if have else "wb") as file,
                progress_bar(
                    description=f"Downloading {self.title}",
                    total=total,
                    unit="bytes",
                    scale=True,
                    initial=begin,
                ) as bar,
            ):
                end = file.seek(begin)
                for chunk in _chunks(answer, (total or self.room) - begin, self.patience):
                    end += self._store(file, chunk, have, address)
                    bar.update(len(chunk))
                    watch.count(len(chunk))
        if end < (total or max(have, 1)):
            missing = f", with {total - end:,} more expected" if total else ""
            raise _LeftError(f"it broke off after {end:,} bytes{missing}")

    def _check_total(self, total: int | None, have: int) -> None:
        """Compare what an address offers, in bytes, with what came before.

        Raises:
            _LeftError: the part is not the beginning of it, or it is too large for any archive.
        """
        if total is not None and total > self.room:
            raise _LeftError(
                f"it offers {total:,} bytes, more than the {self.room:,} expected at most"
            )
        known = self.total if have else None
        if total is not None and (total < have or total != (known or total)):
            came = f"of {known:,} bytes" if known else f"with {have:,} bytes already here"
            raise _MisfitError(f"it offers a file of {total:,} bytes instead of one {came}")
        self.total = total or known

    def _store(self, file: BinaryIO, chunk: bytes, have: int, address: str) -> int:
        """Write what is new of a chunk, once what is not is the same; return its length."""
        known = have - file.tell()
        old = file.read(min(known, len(chunk))) if known > 0 else b""
        if old != chunk[: len(old)]:
            raise _MisfitError("what it sends is not what came before")
        if len(chunk) > len(old):
            file.write(chunk[len(old) :])
            self.origins.add(address)
        return len(chunk)

    # What is made of it

    def _digest(self) -> str:
        """Return the MD5 of what came; of nothing, nothing."""
        if not self.size:
            return ""
        with self.part.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()

    def _refuse(self, address: str, found: str) -> None:
        """Keep what is not the archive for inspection; its address is not asked again."""
        self.waiting.remove(address)
        if self.origins != {address}:  # the fault may be another's
            self.waiting.append(address)
        self.reasons[address] = (
            f"what came is not the official archive (its MD5 is {found}, not {self.checksum}) "
            f"and is kept as {self._set_aside(found)}"
        )
        self.news = f"{address} was left ({self.reasons[address]}); "

    def _set_aside(self, digest: str) -> Path:
        """Give the part a name that says what it is; the same bytes are kept once."""
        kept = self.target.with_name(f"{self.target.name}.{digest[:8]}.refused")
        os.replace(self.part, kept)
        self.origins = set()
        return kept

    def _begin_anew(self) -> None:
        """Ask those that the part does not fit for the whole, with the part set aside."""
        self.waiting, self.misfits = self.misfits, []
        if self.size:
            self.misfit = self._set_aside(self._digest())
            self.news += f"what came before fits no address and is kept as {self.misfit}; "

    def _failure(self) -> InputError:
        """Return what to tell a person when no address delivered the archive."""
        if self.misfit and not self.size:  # nothing better came: it may be right after all
            os.replace(self.misfit, self.part)
        reasons = "; ".join(f"{address}: {reason}" for address, reason in self.reasons.items())
        kept, again = "", " and give the same command again"
        if self.size:
            kept = f"{_megabytes(self.size)} of it are kept in {self.part}. "
            again += " to go on from there"
        return InputError(
            f"{self.title} could not be downloaded ({reasons}). {kept}Check the network{again}, "
            f"or put {self.target.name} from {self.official} into {self.target.parent}."
        )


class _Watch:
    """Measures the rate of what comes, from now on and in one window after the other."""

    def __init__(self, floor: float, window: float):
        self.floor, self.window = floor, window
        self.since, self.number = time.monotonic(), 0

    def count(self, number: int) -> None:
        """Count bytes that came.

        Raises:
            _SlowError: a window is over, and fewer came than the floor asks for.
        """
        self.number += number
        elapsed = time.monotonic() - self.since
        if elapsed < self.window:
            return
        if self.number / elapsed < self.floor:
            raise _SlowError(self.number / elapsed)
        self.since, self.number = time.monotonic(), 0


def _ask(address: str, have: int, patience: Patience) -> HTTPResponse:
    """Ask an address for what it has beyond `have` bytes.

    Raises:
        _LeftError: it does not answer, or with an error.
    """
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        return _open(request, patience)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            raise _MisfitError(f"it has nothing beyond the {have:,} bytes already here") from error
        raise _LeftError(first_line(error)) from error
    except (OSError, HTTPException) as error:
        raise _LeftError(_reason(error, patience)) from error


def _open(request: urllib.request.Request, patience: Patience) -> HTTPResponse:
    """Open a request within the window of `patience`.

    urllib's own limit is for one step, and a name with several machines or redirects take many.
    """
    opened: Future[HTTPResponse] = Future()

    def work() -> None:
        try:
            opened.set_result(urllib.request.urlopen(request, timeout=patience.silence))
        except BaseException as error:
            opened.set_exception(error)

    Thread(target=work, daemon=True).start()
    try:
        return opened.result(patience.window)
    except TimeoutError as error:
        if opened.done():
            raise
        opened.add_done_callback(lambda late: late.exception() or late.result().close())
        raise _LeftError(f"it did not answer within {patience.window:g} s") from error


def _extent(answer: HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return where an answer begins and the length of the whole, in bytes; None if not said.

    Raises:
        _LeftError: it is another part than the one asked for.
    """
    if answer.status != 206:  # the whole: the server resumes nothing, or was not asked to
        return 0, answer.length
    said = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said)
    if not found or int(found[1]) != have:
        raise _LeftError(
            f"it sent another part than the one from byte {have:,} on ({said or 'unsaid'})"
        )
    return have, None if found[2] == "*" else int(found[2])


def _chunks(answer: HTTPResponse, number: int, patience: Patience) -> Generator[bytes]:
    """Yield what comes as it comes, `number` bytes at most.

    Raises:
        _LeftError: the network or the server failed.
    """
    while number > 0:
        try:
            chunk = answer.read1(min(CHUNK, number))
        except (OSError, HTTPException) as error:
            raise _LeftError(_reason(error, patience)) from error
        if not chunk:
            return
        number -= len(chunk)
        yield chunk


def _reason(error: BaseException, patience: Patience) -> str:
    """Return why the network failed, in few words."""
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"nothing came for {patience.silence:g} s"
    return first_line(error)


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"
