"""Labels from a table, or from the names of files, are read as meant or refused by name."""

import os
import re
import shutil

import pytest

from helpers.pictures import load, make_folder
from utils import InputError
from utils.data.given_labels import scan_labelled

pytestmark = pytest.mark.usefixtures("no_network")

PICTURES = ("cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg")
ROWS = "cat_1.jpg,cat\ncat_2.jpg,cat\ndog_1.jpg,dog\ndog_2.jpg,dog\n"


def made(root, *names, table=None):
    """Files that are never opened, and a table beside them."""
    for name in names or PICTURES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"never opened")
    if table is not None:
        (root / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def listed(root, pairs):
    return [(os.path.relpath(path, root), target) for path, target in pairs]


# Tables


@pytest.mark.parametrize("mark", [b"", "\ufeff".encode()])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_gives_labels_whatever_stands_between_its_columns(delimiter, mark, tmp_path):
    text = f"File,Label\r\n{ROWS}".replace(",", delimiter)
    folder = scan_labelled(made(tmp_path, table=mark + text.encode()), "labels.csv")
    assert folder.classes == ("cat", "dog") and folder.test is None and folder.notes == ()
    assert listed(tmp_path, folder.train) == [(n, int(n.startswith("dog"))) for n in PICTURES]


def test_a_table_gives_the_split_too(tmp_path):
    rows = "cat_1.jpg,cat,train\ncat_2.jpg,cat,Test\ndog_1.jpg,dog,train\ndog_2.jpg,dog,test\n"
    root = made(tmp_path, *PICTURES, "new.jpg", table=f"file,label,split\n{rows}")
    folder = scan_labelled(root, "labels.csv")
    assert listed(root, folder.train) == [("cat_1.jpg", 0), ("dog_1.jpg", 1)]
    assert listed(root, folder.test) == [("cat_2.jpg", 0), ("dog_2.jpg", 1)]
    assert folder.notes == ("Left out, as without a label: 1 picture: new.jpg.",)
    (root / "labels.csv").write_text(f"file,label,split\n{rows}new.jpg,cat,val\n")
    told = "Left out, as neither to train nor to test on: 1 picture: new.jpg."
    assert scan_labelled(root, "labels.csv").notes == (told,)
    (root / "labels.csv").write_text(f"file,label,split\n{rows}".replace("est\n", "val\n")
                                     .replace("Tval", "val").replace("tval", "val"))  # fmt: skip
    folder = scan_labelled(root, "labels.csv")
    assert len(folder.test) == 2
    assert folder.notes[0] == "The validation split is used as the test split."


def test_files_are_named_from_the_folder_on_or_by_as_much_as_tells_them_apart(tmp_path):
    root = made(tmp_path, "images/a/1.jpg", "images/b/1.jpg", "images/b/2.jpg", "images/ö.jpg")
    table = root / "images" / "labels.csv"
    table.write_text(
        'file,label,by\n./images/a/1.jpg,cat,x\n"b\\1.jpg",cat,x\n2.jpg, NA ,y\no\u0308.jpg,NA,\n',
        encoding="utf-8",
    )
    folder = scan_labelled(root, "labels.csv")
    assert folder.classes == ("NA", "cat")
    assert [name for name, _ in listed(root, folder.train)] == [
        "images/b/2.jpg", "images/ö.jpg", "images/a/1.jpg", "images/b/1.jpg",
    ]  # fmt: skip
    assert folder.below == ("b/2.jpg", "ö.jpg", "a/1.jpg", "b/1.jpg")
    assert folder.notes == ("labels.csv: columns that are not read: by.",)
    elsewhere = shutil.move(table, tmp_path.parent / f"{tmp_path.name}.csv")
    assert scan_labelled(root, str(elsewhere)).train == folder.train


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,class\na.jpg,cat\n", r"no column label. Its first line names these: 'class',"),
        ("", r"no column file. Its first line names these: none. It must name file and label"),
        ("file,label,label\n", "has two columns label"),
        ("file,label\n", "no rows below its header"),
        (f"file,label\n{ROWS}cat_1.jpg,dog\n",
         "gives 'cat_1.jpg' two labels: 'cat' in line 2, 'dog' in line 6"),
        ("file,label,split\ncat_1.jpg,cat,train\ncat_1.jpg,cat,test\n",
         "two splits: 'train' in line 2, 'test' in line 3"),
        (f"file,label\n{ROWS}gone.jpg,cat\nnotes.txt,cat\n",
         r"names 2 files of which no picture is there.*: gone.jpg, notes.txt\."),
        ("file,label\ncat_1.jpg,\n", "line 2, has no label. Fill it in"),
        ("file,label\n ,cat\n", "line 2, has no file"),
        ("file,label,split\ncat_1.jpg,cat,\n", "line 2, has no split"),
        ("file,label,split\ncat_1.jpg,cat,fold1\n",
         "line 2, has the split 'fold1', which is unknown. Write one of: train"),
        ("file,label\n../cat_1.jpg,cat\n", "line 2, names '../cat_1.jpg', which leads out of"),
        ("file,label\na/../../b.jpg,cat\n", "leads out of the folder"),
        ("file,label\n/etc/cat_1.jpg,cat\n", "leads out of the folder"),
        ("file,label\nC:\\cat_1.jpg,cat\n", "leads out of the folder"),
        ("file,label\ncat_1.jpg,cat,tabby\n", "line 2, has 3 cells where its first line has 2"),
        ("file,label\ncat_1.jpg\n", "line 2, has 1 cell where"),
        ('file,label\n"cat_1.jpg,cat\n', "cannot be read as a table: line 2"),
        (b"file,label\ncat_1.jpg,k\xe4tzchen\n", "is not in UTF-8"),
        ("file,label\ncat_1.jpg,cat\ncat_2.jpg,cat\n", "gives one class alone to train on.*: cat"),
        ("file,label,split\ncat_1.jpg,cat,test\n", r"no picture is to train on: 1 test\."),
        ("file,label,split\ncat_1.jpg,cat,train\ndog_1.jpg,dog,train\ndog_2.jpg,fox,test\n",
         "test pictures but none to train on: fox. Those to train on are: cat, dog"),
        ("file,label\ncat_1.jpg,\x1b[2Jcat\ndog_1.jpg,dog\n", "label .* cannot be printed"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_meant_are_refused(table, message, tmp_path):
    root = made(tmp_path, *PICTURES, "notes.txt", table=table)
    with pytest.raises(InputError, match=message) as refused:
        scan_labelled(root, "labels.csv")
    assert "label" in str(refused.value)


def test_a_name_of_several_files_and_a_table_that_is_not_there_are_refused(tmp_path):
    root = made(tmp_path, "a/1.jpg", "b/1.jpg", table="file,label\n1.jpg,cat\n")
    with pytest.raises(InputError, match=r"line 2, names '1.jpg', and there are several: a/1.jpg"):
        scan_labelled(root, "labels.csv")
    with pytest.raises(InputError, match=r"no table 'other.csv'.*Tables there: labels.csv\."):
        scan_labelled(root, "other.csv")
    with pytest.raises(InputError, match="leads out of"):
        scan_labelled(root, "../labels.csv")
    with pytest.raises(InputError, match="is not there, or is no file"):
        scan_labelled(root, str(tmp_path / "gone.csv"))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="is not there, or is no file"):
        scan_labelled(root, "pipe.csv")


@pytest.mark.parametrize("name", [".labels.csv", ".git/labels.csv", "labels.csv"])
def test_a_table_that_is_named_in_full_may_lie_hidden_below_the_folder(name, tmp_path):
    root = made(tmp_path, *PICTURES, "deep/labels.csv", "deep/notes.txt")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(f"file,label\n{ROWS}")
    folder = scan_labelled(root, str(root / name))
    assert len(folder.train) == 4
    assert folder.notes == (f"Left out below {root}, as not pictures: 2 (1 .csv, 1 .txt).",)


@pytest.mark.parametrize("labels_from", ["^(cat|caf\u00e9)_", "labels.csv"])
@pytest.mark.parametrize("name", ["{}_cat.jpg", "{}/cat_9.jpg"])
def test_two_files_whose_names_are_one_in_unicode_are_refused_by_name(name, labels_from, tmp_path):
    twice = [name.format(word) for word in ("caf\u00e9", "cafe\u0301")]
    root = made(tmp_path, *PICTURES, *twice, table=f"file,label\n{ROWS}")
    if len({path.stat().st_ino for path in root.rglob("*.jpg")}) == len(PICTURES) + 1:
        pytest.skip("this file system takes the two names for one")
    with pytest.raises(InputError, match=f"two files called {twice[0]}, .*Rename one of each"):
        scan_labelled(root, labels_from)


def test_rows_that_repeat_others_are_counted(tmp_path):
    root = made(tmp_path, table=f"file,label\n{ROWS}{ROWS}")
    assert scan_labelled(root, "labels.csv").notes[0] == (
        "labels.csv: 4 rows repeated what another had said."
    )


# Names


def test_a_pattern_finds_labels_in_the_names_of_files(tmp_path):
    root = made(tmp_path, *PICTURES, "cats/fox.jpg")
    folder = scan_labelled(root, "^(cat|dog)_")
    assert listed(root, folder.train) == [(n, int(n.startswith("dog"))) for n in PICTURES]
    assert folder.notes == ("Left out, as without a label: 1 picture: cats/fox.jpg.",)
    assert scan_labelled(root, "^[a-z]+").classes == ("cat", "dog", "fox")


@pytest.mark.parametrize("inside", ["images", "train/images", "train", "."])
def test_masks_beside_pictures_have_no_labels_in_their_names(inside, tmp_path):
    masks = os.path.normpath(f"{inside}/../annotations" if "images" in inside else f"{inside}/gt")
    folders = (inside, f"{masks}/trimaps")
    root = made(tmp_path, *(f"{folder}/{name}" for folder in folders for name in PICTURES))
    folder = scan_labelled(root, "^(cat|dog)_")
    assert listed(root / inside, folder.train) == [(n, int("dog" in n)) for n in PICTURES]
    told = f"Not read, as annotations of the pictures beside them: {masks}."
    assert folder.notes == (told,)


def test_folders_called_like_splits_are_the_split_of_such_labels(tmp_path):
    root = made(tmp_path, *(f"pets/{part}/p/{n}" for part in ("train", "test") for n in PICTURES))
    folder = scan_labelled(root, "^(cat|dog)_")
    assert [len(folder.train), len(folder.test)] == [4, 4]
    assert folder.below == (*PICTURES, *PICTURES)
    assert folder.notes == ("Read as a split: pets/test (test), pets/train (train).",)


def test_a_test_folder_without_labels_is_left_out(tmp_path):
    root = made(tmp_path, *(f"train/{name}" for name in PICTURES), "test/1.jpg", "test/2.jpg")
    folder = scan_labelled(root, "^(cat|dog)_")
    assert len(folder.train) == 4 and folder.test is None
    assert folder.notes == ("Left out, as without a label: 2 pictures: test/1.jpg, test/2.jpg.",)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("^(cat", "labels_from '.*' is no regular expression"),
        ("(c)(a)", "has 2 groups in brackets"),
        ("bird", "'bird' matches no name of the 4 pictures below .*: cat_1.jpg"),
        ("folder", "it must be a table"),
        ("^cat", "gives one class alone to train on, and two are the least: cat"),
    ],
)
def test_patterns_that_give_no_labels_are_refused(pattern, message, tmp_path):
    with pytest.raises(InputError, match=message):
        scan_labelled(made(tmp_path), pattern)


# With all that follows


def flat(root, names=("ant", "bee"), count=6):
    """The pictures of class folders, all in one folder, with a table beside it."""
    made_root = make_folder(root / "sorted", dict.fromkeys(names, count))
    (root / "images").mkdir()
    rows = ["file,label"]
    for path in sorted(made_root.rglob("*.png")):
        path.rename(root / "images" / f"{path.parent.name}_{path.name}")
        rows.append(f"{path.parent.name}_{path.name},{path.parent.name}")
    shutil.rmtree(made_root)
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def test_the_table_counts_for_the_decoded_copy_and_labels_for_the_fingerprint(tmp_path):
    root = flat(tmp_path / "pets")
    loaded = load(root, tmp_path, labels_from="labels.csv")
    assert loaded.classes == ("ant", "bee") and len(loaded.train) + len(loaded.test) == 12
    named = load(root, tmp_path, labels_from="^(ant|bee)_")
    assert named.fingerprint == loaded.fingerprint
    assert named.options["labels_from"] == "^(ant|bee)_"
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("ant_000.png,ant", "ant_000.png,bee"))
    again = load(root, tmp_path, labels_from="labels.csv")
    assert again.fingerprint != loaded.fingerprint
    together = load(root, tmp_path, labels_from="labels.csv", keep_together=r"_(\d+)")
    assert not set(together.train.together.tolist()) & set(together.test.together.tolist())


@pytest.mark.parametrize("inside", ["", "pets/"])
def test_a_table_in_an_archive_is_read(inside, tmp_path):
    flat(tmp_path / "whole" / inside)
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "whole")
    loaded = load(archive, tmp_path, labels_from="labels.csv")
    assert loaded.classes == ("ant", "bee") and len(loaded.train) + len(loaded.test) == 12
    with pytest.raises(InputError, match=re.escape(f"{archive} holds no table 'other.csv'")):
        load(archive, tmp_path, labels_from="other.csv")


def test_where_labels_seem_to_be_is_told_with_what_reads_them(tmp_path):
    root = flat(tmp_path / "pets")
    with pytest.raises(InputError, match=r'labels_from="labels.csv" reads it'):
        load(root, tmp_path)
    (root / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"labels_from=\"\^\(ant\|bee\).*\" reads them"):
        load(root, tmp_path)
