"""Archives of pictures (zip, tar), unpacked without trusting them.

Every name and size is checked before the first byte is written, only picture files are taken out,
and the folder appears under its name only when it is whole.
"""

import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self

from utils import InputError, brief, first_line
from utils.data.folder_names import split_roles
from utils.data.folders import is_hidden
from utils.data.pictures import EXTENSIONS, MAX_FILE_SIZE
from utils.files import beside_of, check_space, remove_leftovers, unwritable, write_text
from utils.locks import one_at_a_time
from utils.progress import progress_bar
from utils.settings import ARCHIVES, LABEL_TABLES, without_ending

#: What an unpacked archive is kept as: a folder of its pictures and tables, and the names of its
#: other files.
PICTURES, OTHERS = "pictures", "others.json"
#: Ways of packing that the standard library can unpack, by zip's numbers for them (APPNOTE 4.4.5).
PACKED_BY = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
#: The flag of a name in a zip that is UTF-8; macOS writes UTF-8 without it (APPNOTE 4.4.4, bit 11).
UTF8 = 0x800
#: Pictures hardly shrink when packed; what grows more than this, to more bytes, is a trap.
MAX_RATIO, SUSPICIOUS_SIZE = 200, 10**9
#: Bytes that the headers of one file in a tar may take: they are read whole into memory, and hold
#: little more than a name.
MAX_HEADER = 2**20
#: Bytes that all headers of a tar may take, or so many times its own size if that is more. What is
#: read of them stays in memory; many that are alike pack to next to nothing.
MAX_HEADERS, MAX_HEADERS_RATIO = 2**25, 30
#: Bytes of memory that an entry of a header takes: a field, those said once of the whole archive
#: included, or a stretch of a sparse file.
ENTRY = 128


@dataclass(frozen=True)
class _Member:
    """A file of an archive: its name, its size in bytes, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Tell whether this is a file whose name ends like an archive's."""
    return os.path.isfile(path) and path.name.lower().endswith(ARCHIVES)


def unpack(
    archive: Path, place: Path, extensions: Sequence[str], known_place: Path | None = None
) -> Path:
    """Return the folder that holds the pictures of an archive, unpacked the first time.

    Tables are taken out with them, since labels may be in one. A folder that is alone at the top of
    the archive, but for tables, is stepped into unless it is a split.

    Args:
        archive: a file for which `is_archive` is true.
        place: where unpacked archives are kept.
        extensions: how the names of the files to take out end, in lower case.
        known_place: another such place; what it holds is taken, and nothing is written to it.

    Raises:
        InputError: the archive is damaged or encrypted; a member's name leads outside, is a link
            or a device, or is too large; there is no room.
    """
    folder = _folder_of(archive, place)
    for there in (folder, folder if known_place is None else known_place / folder.name):
        if os.path.isdir(there / PICTURES):
            return _inner_folder(there / PICTURES)
    remove_leftovers(place, older_than=3600)
    with one_at_a_time(folder, f"Unpacking {archive.name}"):
        if not folder.is_dir():
            _unpack(archive, folder, tuple(extensions))
        for older in place.glob(f"{_prefix_of(archive)}-*"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)
    return _inner_folder(folder / PICTURES)


def whole_of(unpacked: Path) -> Path:
    """Return the folder of all that was taken out of an archive, from what `unpack` returned."""
    called_so = [folder for folder in (unpacked, *unpacked.parents) if folder.name == PICTURES]
    return next((f for f in called_so if (f.parent / OTHERS).is_file()), called_so[0])


def left_packed(unpacked: Path) -> list[str]:
    """Return the names of an archive's files that are not there, hidden ones apart.

    Args:
        unpacked: what `unpack` returned, or `whole_of` it; the names count from there, and are no
            more than the file's own for what lies beside it.

    Raises:
        InputError: the list of them is damaged.
    """
    top = whole_of(unpacked)
    try:
        names = json.loads((top.parent / OTHERS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{top.parent / OTHERS} is damaged ({first_line(error)}). Delete {top.parent}, and it "
            "will be unpacked again."
        ) from error
    within = unpacked.relative_to(top).as_posix()
    inside = "" if within == "." else f"{within}/"
    return [
        name.removeprefix(inside) if name.startswith(inside) else PurePosixPath(name).name
        for name in names
        if not (name.startswith(inside) and (top / name).is_file())
    ]


def unpacked_size(archive: Path, place: Path) -> int:
    """Return how many bytes unpacking an archive takes in `place`, as far as it tells at once.

    Nothing where it is unpacked, and of a tar its own size: pictures hardly shrink when packed.
    """
    if _folder_of(archive, place).is_dir():
        return 0
    if zipfile.is_zipfile(archive):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(archive) as opened:
            return sum(info.file_size for info in opened.infolist())
    return archive.stat().st_size


def _folder_of(archive: Path, place: Path) -> Path:
    """Return where this version of an archive is unpacked."""
    status = archive.stat()
    taken = " ".join(EXTENSIONS)  # more of it, once more can be read
    about = f"{archive.name} {status.st_size} {status.st_mtime_ns}"
    version = f"{about} {PICTURES} {taken} {LABEL_TABLES}"
    return place / f"{_prefix_of(archive)}-{_short_hash(version)}"


def _prefix_of(archive: Path) -> str:
    """Return how the names of the folders begin into which an archive's versions are unpacked."""
    return f"{_stem(archive)}-{_short_hash(str(archive))}"


def _stem(archive: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._=+-]+", "_", without_ending(archive.name))[:80]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def _inner_folder(folder: Path) -> Path:
    """Step into a folder that is alone, unless its name tells of a split: that has to be read."""
    inside = _beside_tables(folder)
    while len(inside) == 1 and inside[0].is_dir() and not split_roles([inside[0].name]):
        deeper = _beside_tables(inside[0])
        if not any(path.is_dir() for path in deeper):  # a class
            break
        folder, inside = inside[0], deeper
    return folder


def _beside_tables(folder: Path) -> list[Path]:
    """Return what is in a folder but tables, which stand beside pictures and are none."""
    return [path for path in folder.iterdir() if not path.name.lower().endswith(LABEL_TABLES)]


def _unpack(archive: Path, folder: Path, extensions: tuple[str, ...]) -> None:
    beside = beside_of(folder)
    try:
        with _members(archive) as members:
            _check_members(archive, members)
            members = [member for member in members if not _is_hidden(member.name)]
            if not any(m.name.lower().endswith(extensions) for m in members):
                raise InputError(f"{archive} contains no pictures ({', '.join(extensions)}).")
            wanted = [m for m in members if m.name.lower().endswith((*extensions, *LABEL_TABLES))]
            check_space(folder, sum(m.size for m in wanted), f"Unpacking {archive}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            beside.mkdir()
            about = f"Unpacking {archive.name}"
            for member in progress_bar(wanted, description=about, unit="files"):
                _write(member, beside / PICTURES / member.name)
            others = sorted(m.name for m in members if not m.name.lower().endswith(extensions))
            write_text(beside / OTHERS, json.dumps(others))
        beside.rename(folder)
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything inside its reader
        clash = isinstance(error, (FileExistsError, NotADirectoryError))  # one name, two things
        if isinstance(error, OSError) and error.errno is not None and not clash:
            if error.filename == str(archive):
                raise InputError(
                    f"{archive} cannot be read: {error.strerror}. Change its permissions, or copy "
                    "it elsewhere."
                ) from error
            raise unwritable(folder, error) from error
        raise InputError(
            f"{archive} is damaged or not an archive ({first_line(error)}). Download or pack it "
            "again; nothing was kept."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _is_hidden(name: str) -> bool:
    return any(map(is_hidden, PurePosixPath(name).parts))


def _write(member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, target.open("xb") as opened:
        shutil.copyfileobj(source, opened)


# Reading


@contextmanager
def _members(archive: Path) -> Generator[list[_Member]]:
    """Yield an open archive's files, each name checked."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            files = [info for info in opened.infolist() if not info.is_dir()]
            yield [_zip_member(archive, opened, info) for info in files]
    else:
        with tarfile.open(archive, tarinfo=_TarInfo) as opened:
            entries = _tar_entries(archive, opened)
            members = [_tar_member(archive, opened, info) for info in entries]
            while opened.fileobj.read(2**20):  # to the end, where gzip keeps its checksum
                pass
            yield members


class _TarInfo(tarfile.TarInfo):
    """A member of a tar whose headers, with all that extends them, are read up to a limit."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        whole = tarfile.fileobj
        tarfile.fileobj = _Headers(tarfile)
        try:
            return super().fromtarfile(tarfile)
        finally:
            tarfile.fileobj = whole


class _Headers(io.BufferedIOBase):
    """A tar opened to read the headers of one member.

    Raises:
        InputError: they are larger than ``MAX_HEADER``, or give a size below nothing, which would
            be all the rest.
    """

    def __init__(self, opened: tarfile.TarFile):
        self.archive, self.whole, self.left = opened.name, opened.fileobj, MAX_HEADER

    def tell(self) -> int:
        return self.whole.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self.left:
            raise _too_much(self.archive, f"a header of more than {MAX_HEADER / 1e6:.0f} MB")
        self.left -= size
        return self.whole.read(size)


def _tar_entries(archive: Path, opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield what a tar holds but its folders.

    Raises:
        InputError: there is so much of it that reading where it lies would fill the memory.
        ValueError: a negative size, which would lead round in circles.
    """
    position, kept = 0, 0
    allowed = max(MAX_HEADERS, MAX_HEADERS_RATIO * archive.stat().st_size)
    while (info := opened.next()) is not None:
        if info.size < 0 or opened.offset < info.offset_data:
            raise ValueError(f"the size of {info.name!r} is {info.size}")
        entries = len(info.pax_headers) + len(info.sparse or ())
        kept += info.offset_data - position + ENTRY * entries
        if kept > allowed:
            raise _too_much(archive, f"headers of more than {allowed / 1e6:,.0f} MB")
        position = opened.offset
        if not info.isdir():
            yield info


def _too_much(archive: object, what: str) -> InputError:
    return InputError(
        f"{archive} contains {what}, which no archive of pictures needs. It was not unpacked; pack "
        "it again, or unpack it with another program and give the folder."
    )


def _zip_member(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    if info.flag_bits & 1:
        raise InputError(f"{archive} is encrypted. Unpack it and give the folder.")
    if info.compress_type not in PACKED_BY:
        known = getattr(zipfile, "compressor_names", {})  # which its documentation leaves out
        how = known.get(info.compress_type, f"method {info.compress_type}")
        raise InputError(
            f"{archive} is compressed with {how}, which is not supported. Unpack it with another "
            "program and give the folder."
        )
    kind = stat.S_IFMT(info.external_attr >> 16)
    name = _checked_name(archive, _zip_name(info), is_file=kind in (0, stat.S_IFREG))
    return _Member(name, info.file_size, lambda: opened.open(info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a file's name, read as UTF-8 also where nothing says so, if it can be."""
    if info.flag_bits & UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _tar_member(archive: Path, opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    def open_member() -> IO[bytes]:
        content = opened.extractfile(info)
        assert content is not None  # as it is for links and devices, refused below
        return content

    name = _checked_name(archive, info.name, info.isreg())
    return _Member(name, info.size, open_member)


def _checked_name(archive: Path, name: str, is_file: bool) -> str:
    """Return a member's name, in composed form, if it stays inside the folder it goes into."""
    name = unicodedata.normalize("NFC", name)
    path = PurePosixPath(name.replace("\\", "/"))
    is_drive = re.match(r"[A-Za-z]:", name) is not None
    if path.is_absolute() or ".." in path.parts or is_drive:
        raise InputError(
            f"{archive} contains {name!r}, which would be written outside its folder. It was not "
            "unpacked; do not trust it."
        )
    too_long = len(path.parts) > 50 or any(len(os.fsencode(p)) > 200 for p in path.parts)
    if too_long or not name.isprintable():
        raise InputError(
            f"{archive} contains {brief(name)}, a name that is too long or cannot be printed. It "
            "was not unpacked; rename that file."
        )
    if not is_file:
        raise InputError(
            f"{archive} contains {name!r}, which is a link or a device. It was not unpacked; pack "
            "the files themselves."
        )
    return str(path)


def _check_members(archive: Path, members: Sequence[_Member]) -> None:
    """Refuse what no archive of pictures holds: a name twice, a huge file, a huge whole."""
    names = set()
    for member in members:
        if member.name in names:
            raise InputError(f"{archive} contains {member.name!r} twice. It was not unpacked.")
        names.add(member.name)
        if member.size > MAX_FILE_SIZE:
            raise InputError(
                f"{archive} contains {member.name!r} of {member.size / 1e6:,.0f} MB; no picture is "
                f"larger than {MAX_FILE_SIZE / 1e6:,.0f} MB. It was not unpacked."
            )
    total, packed = sum(member.size for member in members), archive.stat().st_size
    if total > SUSPICIOUS_SIZE and total > MAX_RATIO * packed:
        raise InputError(
            f"{archive} would grow from {packed / 1e6:,.1f} to {total / 1e6:,.0f} MB, which "
            "pictures never do. It was not unpacked."
        )
