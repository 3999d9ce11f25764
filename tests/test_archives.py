"""Archives: what is taken out, and that nothing ever lands outside."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager

import pytest

from helpers.folders import REFUSED, make_files
from utils import InputError
from utils.data import archives
from utils.data.archives import is_archive, left_packed, unpack, whole_of
from utils.data.folders import scan_folder
from utils.data.sources import load_pictures
from utils.files import ROOT, beside_of

EXTENSIONS = (".jpg", ".png")
ENDINGS = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz"]
PICTURES = {"cat/1.jpg": b"first", "cat/2.JPG": b"second", "dog/a.png": b"third"}


def packed(path, files):
    """Write an archive of the kind its name says."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    mode = {"gz": "gz", "tgz": "gz", "bz2": "bz2", "xz": "xz", "txz": "xz", "tar": ""}
    with tarfile.open(path, f"w:{mode[path.name.rsplit('.', 1)[1]]}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(archive, tmp_path, match):
    """Check that nothing at all is written when an archive is refused; return the message."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as error:
        unpack(archive, tmp_path / "place", EXTENSIONS)
    assert [p for p in sorted(tmp_path.rglob("*")) if p != tmp_path / "place"] == before
    assert str(archive) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_pictures_of_every_kind_of_archive_come_out_as_they_were(ending, tmp_path):
    archive = packed(tmp_path / f"pets{ending}", PICTURES)
    assert is_archive(archive)
    assert contents(unpack(archive, tmp_path / "place", EXTENSIONS)) == PICTURES
    assert len(os.listdir(tmp_path / "place")) == 1


def test_only_pictures_are_taken_out(tmp_path):
    others = {"cat/virus.exe": b"x", "run.py": b"x", "__MACOSX/cat/1.jpg": b"x",
              "cat/.hidden.jpg": b"x", "model.pkl": b"x"}  # fmt: skip
    archive = packed(tmp_path / "pets.zip", {**PICTURES, **others})
    assert contents(unpack(archive, tmp_path / "place", EXTENSIONS)) == PICTURES


def test_a_folder_alone_at_the_top_is_stepped_into(tmp_path):
    deep = {f"pets-main/pictures/{name}": content for name, content in PICTURES.items()}
    folder = unpack(packed(tmp_path / "a.zip", deep), tmp_path / "place", EXTENSIONS)
    assert contents(folder) == PICTURES
    split = {f"train/{name}": content for name, content in PICTURES.items()}
    folder = unpack(packed(tmp_path / "b.zip", split), tmp_path / "place", EXTENSIONS)
    assert contents(folder) == split


#: A folder of each layout is refused, and so are these splits alone.
SPLITS_ALONE = {name: [f"{name}/ant/1.jpg", f"{name}/bee/1.jpg"] for name in (
    "test", "Test_images", "val", "deep/down/test",
)}  # fmt: skip
NOT_READ = {name: files for name, (files, _) in REFUSED.items()} | SPLITS_ALONE


@pytest.mark.parametrize("files", NOT_READ.values(), ids=NOT_READ)
def test_an_archive_is_refused_in_the_words_for_its_folder(files, tmp_path):
    make_files(tmp_path / "pets", *files)
    archive = packed(tmp_path / "pets.zip", dict.fromkeys(files, b"never opened"))
    said, alone = [], os.path.join(os.path.commonpath(files), "")  # names count from within it
    for place in (tmp_path / "pets", archive):
        with pytest.raises(InputError) as error:
            load_pictures(dataset=str(place), data_dir=tmp_path / "data")
        said.append(str(error.value).replace(str(place), "PLACE").replace(alone, ""))
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["pets", "train", "Training_set", "pets/trainset"])
def test_an_archive_of_training_pictures_alone_is_read_as_its_folder_is(name, tmp_path):
    files = [f"{name}/ant/1.jpg", f"{name}/bee/1.jpg"]
    make_files(tmp_path / "pets", *files)
    archive = packed(tmp_path / "pets.zip", dict.fromkeys(files, b"never opened"))
    folder = scan_folder(tmp_path / "pets")
    unpacked = scan_folder(unpack(archive, tmp_path / "place", EXTENSIONS))
    assert unpacked.classes == folder.classes == ("ant", "bee")
    assert (unpacked.below, unpacked.test) == (folder.below, folder.test)


def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path, monkeypatch):
    archive = packed(tmp_path / "pets.zip", PICTURES)
    first = unpack(archive, tmp_path / "place", EXTENSIONS)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "_unpack", lambda *_: pytest.fail("unpacked a second time"))
        assert unpack(archive, tmp_path / "place", EXTENSIONS) == first
    packed(archive, {"cat/1.jpg": b"other", "dog/2.jpg": b"pictures"})
    os.utime(archive, (1, 1))
    second = unpack(archive, tmp_path / "place", EXTENSIONS)
    assert contents(second) == {"cat/1.jpg": b"other", "dog/2.jpg": b"pictures"}
    assert len(os.listdir(tmp_path / "place")) == 1  # the older copy is gone


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize(
    "name",
    ["../outside.jpg", "cat/../../outside.jpg", "/tmp/outside.jpg", "..\\outside.jpg",
     "C:\\outside.jpg", "../../etc/passwd"],
)  # fmt: skip
def test_names_that_lead_outside_are_refused_and_nothing_is_written(ending, name, tmp_path):
    archive = packed(tmp_path / f"pets{ending}", {**PICTURES, name: b"x"})
    refused(archive, tmp_path, "written outside its folder")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("name", ["cat/\x1b[2Jx.jpg", f"cat/{'x' * 250}.jpg", "a/" * 60 + "b.jpg"])
def test_names_that_no_folder_should_hold_are_refused(ending, name, tmp_path):
    archive = packed(tmp_path / f"pets{ending}", {**PICTURES, name: b"x"})
    refused(archive, tmp_path, "too long or cannot be printed.*rename")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_an_archive_without_pictures_is_refused(ending, tmp_path):
    archive = packed(tmp_path / f"pets{ending}", {"notes.txt": b"x", "__MACOSX/a.jpg": b"x"})
    refused(archive, tmp_path, "contains no pictures")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_one_name_for_two_things_is_refused(ending, tmp_path):
    archive = packed(tmp_path / f"a{ending}", {"cat/a.jpg": b"x", "cat/a.jpg/b.jpg": b"x"})
    refused(archive, tmp_path, "damaged or not an archive")


def test_a_name_that_occurs_twice_is_refused(tmp_path):
    archive = packed(tmp_path / "pets.tar", PICTURES)
    with tarfile.open(archive, "a") as opened:
        opened.addfile(tarfile.TarInfo("cat/1.jpg"))
    refused(archive, tmp_path, "contains 'cat/1.jpg' twice")


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_are_refused(kind, tmp_path):
    archive = packed(tmp_path / "pets.tar", PICTURES)
    with tarfile.open(archive, "a") as opened:
        member = tarfile.TarInfo("cat/link.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        opened.addfile(member)
    refused(archive, tmp_path, "link or a device")


def test_links_in_a_zip_are_refused(tmp_path):
    archive = packed(tmp_path / "pets.zip", PICTURES)
    with zipfile.ZipFile(archive, "a") as opened:
        member = zipfile.ZipInfo("cat/link.jpg")
        member.external_attr = 0o120777 << 16
        opened.writestr(member, "/etc/passwd")
    refused(archive, tmp_path, "link or a device")


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = packed(tmp_path / "pets.zip", PICTURES)
    whole = bytearray(archive.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(whole)
    refused(archive, tmp_path, "encrypted")


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "flipped"])
def test_damaged_archives_are_refused(ending, damage, tmp_path):
    archive = packed(tmp_path / f"pets{ending}", {n: os.urandom(5_000) for n in PICTURES})
    whole = archive.read_bytes()
    middle = len(whole) // 2
    if damage == "flipped" and ending == ".tar":
        pytest.skip("a plain tar has no checksum of its contents")
    archive.write_bytes(
        {
            "truncated": whole[:middle],
            "empty": b"",
            "other": b"GIF89a" + bytes(2_000),
            "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        }[damage]
    )
    refused(archive, tmp_path, "damaged or not an archive")


def test_a_file_larger_than_any_picture_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE_SIZE", 1_000)
    archive = packed(tmp_path / "pets.zip", {**PICTURES, "cat/huge.jpg": bytes(1_001)})
    refused(archive, tmp_path, "no picture is larger")


def test_an_archive_that_would_grow_as_no_pictures_do_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SUSPICIOUS_SIZE", 10**6)
    blank = {f"{name}/{number}.png": bytes(10**6) for name in "ab" for number in range(3)}
    refused(packed(tmp_path / "bomb.zip", blank), tmp_path, "which pictures never do")


def test_what_the_disk_has_no_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    archive = packed(tmp_path / "pets.zip", PICTURES)
    refused(archive, tmp_path, "needs 0.00 GB .* Free some space")


@pytest.mark.slow
def test_processes_that_start_together_unpack_once_and_all_find_it(tmp_path):
    archive = packed(tmp_path / "pets.zip", {f"cat/{i}.jpg": b"x" * 1_000 for i in range(300)})
    code = """
import sys
from pathlib import Path
from utils.data.archives import unpack
sys.stdin.read(1)
print(unpack(Path(sys.argv[1]), Path(sys.argv[2]), (".jpg",)))
"""
    command = [sys.executable, "-c", code, str(archive), str(tmp_path / "place")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [subprocess.Popen(command, text=True, cwd=ROOT, **pipes) for _ in range(3)]
    for process in started:  # all have imported what they need, or nearly
        process.stdin.write("x")
        process.stdin.close()
    results = [(p.stdout.read().splitlines(), p.stderr.read(), p.wait()) for p in started]
    for process in started:
        process.stdout.close(), process.stderr.close()
    assert [status for _, _, status in results] == [0, 0, 0], results
    assert len({said[-1] for said, _, _ in results}) == 1
    assert sum("Unpacking" in shown for _, shown, _ in results) == 1  # the bar of one of them
    assert len(os.listdir(tmp_path / "place")) == 1


def test_an_archive_that_takes_long_is_left_in_peace_by_the_next(tmp_path, monkeypatch):
    first = packed(tmp_path / "first.zip", PICTURES)
    second = packed(tmp_path / "second.zip", PICTURES)
    place, write = tmp_path / "place", archives._write

    def write_and_wait(member, target):
        """Write a file; then the folder looks old, and another archive is unpacked beside it."""
        write(member, target)
        monkeypatch.setattr(archives, "_write", write)
        for path in place.iterdir():
            os.utime(path, (0, 0))
        unpack(second, place, EXTENSIONS)

    monkeypatch.setattr(archives, "_write", write_and_wait)
    assert contents(unpack(first, place, EXTENSIONS)) == PICTURES
    assert len(os.listdir(place)) == 2


def test_what_a_killed_process_left_is_removed_before_the_next_is_unpacked(tmp_path):
    left = beside_of(tmp_path / "place" / "pets-1234abcd-89abcdef")
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    unpack(packed(tmp_path / "pets.zip", PICTURES), tmp_path / "place", EXTENSIONS)
    assert not left.exists() and len(os.listdir(tmp_path / "place")) == 1


def test_what_another_made_meanwhile_is_taken(tmp_path, monkeypatch):
    archive = packed(tmp_path / "pets.zip", PICTURES)
    unpack_it, calls = archives._unpack, []

    @contextmanager
    def after_another(folder, work):
        calls.append(work)
        unpack_it(archive, folder, EXTENSIONS)
        monkeypatch.setattr(archives, "_unpack", lambda *_: pytest.fail("unpacked twice"))
        yield True

    monkeypatch.setattr(archives, "one_at_a_time", after_another)
    assert contents(unpack(archive, tmp_path / "place", EXTENSIONS)) == PICTURES
    assert calls == ["Unpacking pets.zip"]


def test_an_archive_that_cannot_be_read_is_not_blamed_on_writing(tmp_path, monkeypatch):
    archive = packed(tmp_path / "pets.tar", PICTURES)

    def refuse(name, *_, **__):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(tarfile, "open", refuse)
    refused(archive, tmp_path, r"pets\.tar cannot be read: Permission denied")


# headers, which are read whole

LARGE = 2**26
BLOCK = tarfile.BLOCKSIZE


def header(kind, size, **changed):
    """Return a header of a tar; `changed` bytes are put at the places that their names tell."""
    member = tarfile.TarInfo("cat/a.jpg")
    member.type, member.size = kind, size
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    for place, content in changed.items():
        block[int(place[1:])] = content
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return bytes(block)


def extended(**fields):
    """Return an extended header that says this of the file after it."""
    member = tarfile.TarInfo("cat/a.jpg")
    member.pax_headers = {name.replace("__", "."): value for name, value in fields.items()}
    return member.tobuf(tarfile.PAX_FORMAT)[:-BLOCK]


STRETCHES = (b"00000000001\0" * 42 + b"\1").ljust(BLOCK, b"\0")
SPARSE = extended(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="9")
ONE = 2**20 - 2 * BLOCK
#: The beginning of a tar, what comes after it again and again, and what is said to be too large.
LONG_HEADERS = {
    "extended": (header(tarfile.XHDTYPE, LARGE), bytes(BLOCK), "a header"),
    "of the whole archive": (header(tarfile.XGLTYPE, LARGE), bytes(BLOCK), "a header"),
    "of Solaris": (header(tarfile.SOLARIS_XHDTYPE, LARGE), bytes(BLOCK), "a header"),
    "long name": (header(tarfile.GNUTYPE_LONGNAME, LARGE), bytes(BLOCK), "a header"),
    "long link": (header(tarfile.GNUTYPE_LONGLINK, LARGE), bytes(BLOCK), "a header"),
    "size below nothing": (header(tarfile.XHDTYPE, -BLOCK), bytes(BLOCK), "a header"),
    "one after the other": (b"", header(tarfile.XGLTYPE, 2**17) + bytes(2**17), "a header"),
    "sparse": (header(tarfile.GNUTYPE_SPARSE, 9, _482=1), STRETCHES, "a header"),
    "sparse, in numbers": (
        SPARSE + header(tarfile.REGTYPE, LARGE) + b"99999999\n".ljust(BLOCK, b"0"),
        b"\n".rjust(16, b"0"), "a header",
    ),
    "of many files": (
        b"", header(tarfile.XHDTYPE, ONE) + bytes(ONE) + header(tarfile.REGTYPE, 0), "headers",
    ),
    "of many empty files": (b"", header(tarfile.REGTYPE, 0), "headers"),
    "of many sparse files": (
        b"", header(tarfile.GNUTYPE_SPARSE, 0, _482=1) + STRETCHES[:504].ljust(BLOCK, b"\0"),
        "headers",
    ),
    "of the whole, kept with each file": (
        header(tarfile.XGLTYPE, 2**16) + b"".join(b"8 %04d=\n" % n for n in range(2**13)),
        header(tarfile.REGTYPE, 0), "headers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("begin", "again", "what"), LONG_HEADERS.values(), ids=LONG_HEADERS)
def test_headers_that_would_fill_the_memory_are_refused(begin, again, what, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_HEADERS", 2**21)
    monkeypatch.setattr(archives, "MAX_HEADERS_RATIO", 1)
    archive, again = tmp_path / "pets.tar.gz", again * (2**20 // len(again))
    with gzip.open(archive, "wb", compresslevel=1) as opened:
        opened.write(begin)
        for _ in range(LARGE // len(again)):
            opened.write(again)
    tracemalloc.start()
    try:
        said = refused(archive, tmp_path, f"contains {what} of more than .*unpack it with another")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{said} Memory: {peak / 1e6:.0f} MB")
    assert peak < 16_000_000


def test_headers_as_programs_write_them_are_read(tmp_path):
    archive = tmp_path / "pets.tar.gz"
    name = f"{'cat/' * 40}1.jpg"
    with gzip.open(archive, "wb") as opened:
        opened.write(extended(path=name, SCHILY__xattr__note="x" * 100_000))
        opened.write(header(tarfile.REGTYPE, 1) + b"1".ljust(BLOCK, b"\0"))
        opened.write(SPARSE + header(tarfile.REGTYPE, 2 * BLOCK))
        opened.write(b"1\n0\n9\n".ljust(BLOCK, b"\0") + b"123456789".ljust(BLOCK, b"\0"))
        opened.write(bytes(2 * BLOCK))
    folder = unpack(archive, tmp_path / "place", EXTENSIONS)
    assert sorted(contents(whole_of(folder)).values()) == [b"1", b"123456789"]


# names, and what stays packed


def with_raw_names(path, files):
    """Write a zip whose names are these bytes, without the flag that says UTF-8."""
    packed(path, {f"{number:04}".ljust(len(raw), "q"): content
                  for number, (raw, content) in enumerate(files.items())})  # fmt: skip
    content = path.read_bytes()
    for number, raw in enumerate(files):
        content = content.replace(f"{number:04}".ljust(len(raw), "q").encode(), raw)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Ka\u0308fer/1.jpg".encode(), "K\u00e4fer/1.jpg"),  # as macOS writes it
        ("\u732b/1.jpg".encode(), "\u732b/1.jpg"),
        ("K\u00e4fer/1.jpg".encode("cp437"), "K\u00e4fer/1.jpg"),  # as the format says
        (b"cat/1.jpg", "cat/1.jpg"),
    ],
)
def test_names_without_a_sign_of_utf8_are_read_as_it_where_they_can_be(raw, name, tmp_path):
    archive = with_raw_names(tmp_path / "pets.zip", {raw: b"x", b"dog/2.jpg": b"y"})
    assert contents(unpack(archive, tmp_path / "place", EXTENSIONS)) == {
        name: b"x",
        "dog/2.jpg": b"y",
    }


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_names_are_composed(ending, tmp_path):
    archive = packed(tmp_path / f"pets{ending}", {"Ka\u0308fer/1.jpg": b"x", "b/1.jpg": b"y"})
    assert "K\u00e4fer/1.jpg" in contents(unpack(archive, tmp_path / "place", EXTENSIONS))


@pytest.mark.parametrize(("method", "name"), [(9, "deflate64"), (98, "ppmd"), (77, "method 77")])
def test_ways_of_packing_that_are_not_unpacked_are_named(method, name, tmp_path):
    archive = packed(tmp_path / "pets.zip", PICTURES)
    content = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        place = -1
        while (place := content.find(mark, place + 1)) >= 0:
            content[place + offset] = method
    archive.write_bytes(content)
    refused(archive, tmp_path, f"is compressed with {name}, .* give the folder")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_the_names_of_what_is_not_taken_out_are_kept(ending, tmp_path):
    others = {"pets/birch/1.heic": b"x", "pets/cat/notes.txt": b"x", "labels.csv": b"x",
              "__MACOSX/pets/cat/._1.jpg": b"x", "pets/.DS_Store": b"x"}  # fmt: skip
    inside = {f"pets/{name}": content for name, content in PICTURES.items()}
    archive = packed(tmp_path / f"pets{ending}", {**inside, **others})
    for _ in range(2):
        folder = unpack(archive, tmp_path / "place", EXTENSIONS)
        assert contents(folder) == PICTURES
        assert left_packed(folder) == ["labels.csv", "birch/1.heic", "cat/notes.txt"]


def test_a_class_alone_is_not_stepped_into(tmp_path):
    archive = packed(tmp_path / "pets.zip", {"pets/oak/1.jpg": b"x", "pets/birch/1.heic": b"y"})
    folder = unpack(archive, tmp_path / "place", EXTENSIONS)
    assert contents(folder) == {"oak/1.jpg": b"x"}
    assert left_packed(folder) == ["birch/1.heic"]
