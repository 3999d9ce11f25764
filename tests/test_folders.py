"""Folders of labelled pictures are read as they were meant, or refused by name."""

import os
import re
import unicodedata

import pytest

from helpers.folders import REFUSED, make_files
from utils import InputError
from utils.data.folders import scan_folder
from utils.data.given_labels import scan_labelled


def listed(root, pairs):
    return [(os.path.relpath(path, root), target) for path, target in pairs]


def test_train_and_test_folders_are_read_as_they_are(tmp_path):
    make_files(
        tmp_path, "train/dog/b.jpg", "train/dog/a.JPEG", "train/cat/c.png", "test/dog/d.webp",
        "test/cat/sub/e.bmp",
    )  # fmt: skip
    folder = scan_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert listed(tmp_path, folder.train) == [
        ("train/cat/c.png", 0), ("train/dog/a.JPEG", 1), ("train/dog/b.jpg", 1),
    ]  # fmt: skip
    assert listed(tmp_path, folder.test) == [("test/cat/sub/e.bmp", 0), ("test/dog/d.webp", 1)]
    assert folder.notes == ()


def test_a_plain_folder_has_no_test_split_of_its_own(tmp_path):
    make_files(tmp_path, "b/1.jpg", "a/2.jpg", "a/1.jpg")
    folder = scan_folder(tmp_path)
    assert listed(tmp_path, folder.train) == [("a/1.jpg", 0), ("a/2.jpg", 0), ("b/1.jpg", 1)]
    assert folder.test is None


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_stands_in_for_a_missing_test_folder_and_that_is_said(name, tmp_path):
    make_files(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{name}/a/2.jpg", f"{name}/b/2.jpg")
    folder = scan_folder(tmp_path)
    assert listed(tmp_path, folder.test) == [(f"{name}/a/2.jpg", 0), (f"{name}/b/2.jpg", 1)]
    assert [note for note in folder.notes if f"{name} is used as the test split" in note]


def test_beside_a_test_folder_a_validation_folder_is_not_read_and_that_is_said(tmp_path):
    make_files(
        tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg", "val/a/3.jpg"
    )
    folder = scan_folder(tmp_path)
    assert listed(tmp_path, folder.test) == [("test/a/2.jpg", 0), ("test/b/2.jpg", 1)]
    assert len(folder.train) == 2
    assert [note for note in folder.notes if "Not read" in note and "val" in note]


def test_hidden_files_are_left_out_and_files_that_are_no_pictures_are_counted(tmp_path):
    make_files(
        tmp_path, "a/1.jpg", "b/1.jpg", "a/.DS_Store", "a/._1.jpg", "b/readme.txt", "b/1.cr2",
        ".git/x.jpg", "__MACOSX/a.jpg",
    )  # fmt: skip
    folder = scan_folder(tmp_path)
    assert folder.classes == ("a", "b")
    assert listed(tmp_path, folder.train) == [("a/1.jpg", 0), ("b/1.jpg", 1)]
    assert len(folder.notes) == 1
    assert (
        "as not pictures in a class folder: 2 (" in folder.notes[0]
    )  # what is hidden is nobody's picture


def test_pictures_in_hidden_folders_of_a_class_are_left_out(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", "a/.ipynb_checkpoints/1-checkpoint.jpg")
    assert listed(tmp_path, scan_folder(tmp_path).train) == [("a/1.jpg", 0), ("b/1.jpg", 1)]


def test_pictures_that_lie_in_no_class_folder_are_mentioned(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", "loose.jpg")
    folder = scan_folder(tmp_path)
    assert len(folder.train) == 2
    assert folder.notes


def test_file_names_that_are_no_unicode_are_read(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    try:
        os.rename(tmp_path / "a/1.jpg", os.fsencode(tmp_path) + b"/a/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert len(scan_folder(tmp_path).train) == 2


def test_a_link_to_nowhere_is_no_crash(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    try:
        scan_folder(tmp_path)
    except InputError as refused:
        assert "2.jpg" in str(refused)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "at least two class folders.*found: none"),
        (["a.jpg"], "at least two class folders.*found: none"),
        (["a/1.jpg", "a/2.jpg"], "at least two class folders.*found: a"),
        (["a/1.jpg", "b/1.txt"], "at least two class folders.*found: a"),
        (["train/a/1.jpg", "test/a/1.jpg", "test/b/1.jpg"], "at least two class folders"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/c/1.jpg", "test/d/1.jpg"],
            "test pictures but none to train on: c, d",
        ),
    ],
)
def test_folders_that_cannot_be_learnt_from_are_refused_with_the_reason(files, message, tmp_path):
    make_files(tmp_path, *files)
    with pytest.raises(InputError, match=message) as refused:
        scan_folder(tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    make_files(tmp_path, "a.jpg")
    for path in (tmp_path / "gone", tmp_path / "a.jpg"):
        with pytest.raises(InputError, match=f"The folder {path} does not exist"):
            scan_folder(path)


def test_the_key_changes_with_any_name_size_time_or_place_and_with_nothing_else(tmp_path):
    make_files(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")

    def key():
        return scan_folder(tmp_path).key

    keys = [key()]
    assert key() == keys[0]
    make_files(tmp_path, "a/notes.txt")
    assert key() == keys[0]
    os.utime(tmp_path / "a/1.jpg", ns=(1, 1))
    keys.append(key())
    (tmp_path / "a/1.jpg").write_bytes(b"of another size")
    os.utime(tmp_path / "a/1.jpg", ns=(1, 1))
    keys.append(key())
    (tmp_path / "a/1.jpg").rename(tmp_path / "a/3.jpg")
    keys.append(key())
    (tmp_path / "a/3.jpg").rename(tmp_path / "b/3.jpg")
    keys.append(key())
    (tmp_path / "b/3.jpg").unlink()
    keys.append(key())
    assert len(set(keys)) == len(keys)


# splits by other names


def split_layout(root, train, test, classes=("cat", "dog")):
    """Two pictures a class to train on and one to test on; {} in a folder's name is the class."""
    for name in classes:
        make_files(root, *(f"{train.format(name)}/{number}.jpg" for number in (1, 2)))
        make_files(root, f"{test.format(name)}/3.jpg")


SPLIT_NAMES = [
    ("train", "test"), ("Training", "Test"), ("TRAIN", "TEST"), ("training", "testing"),
    ("train_set", "test_set"), ("TrainingSet", "TestSet"), ("trainset", "testset"),
    ("train_images", "test_images"), ("Train Data", "Test Data"), ("train2017", "val2017"),
    ("seg_train/seg_train", "seg_test/seg_test"), ("asl_train", "asl_test"), ("train", "valid"),
    ("training", "validation"), ("train", "evaluation"), ("archive/train", "archive/Test"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "test"), SPLIT_NAMES)
def test_what_is_plainly_a_split_is_read_as_one(train, test, tmp_path):
    split_layout(tmp_path, f"{train}/{{}}", f"{test}/{{}}")
    folder = scan_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert [name for name, _ in listed(tmp_path / train, folder.train)] == [
        "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg",
    ]  # fmt: skip
    assert listed(tmp_path / test, folder.test) == [("cat/3.jpg", 0), ("dog/3.jpg", 1)]
    told = " ".join(folder.notes)
    assert (
        (train, test) == ("train", "test") or train.split("/")[-1] in told or "test split" in told
    )


@pytest.mark.parametrize("test", ["test", "Val", "testing"])
def test_a_split_below_each_class_is_read_as_one_and_that_is_said(test, tmp_path):
    split_layout(tmp_path, "{}/Train", f"{{}}/{test}")
    folder = scan_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert listed(tmp_path, folder.test) == [(f"cat/{test}/3.jpg", 0), (f"dog/{test}/3.jpg", 1)]
    assert len(folder.train) == 4
    assert f"Read as a split below each class: cat/Train, cat/{test}" in folder.notes[0]


@pytest.mark.parametrize("name", ["test tube", "training shoes", "contest", "trainer", "Testudo"])
def test_a_class_whose_name_only_begins_like_a_split_is_a_class(name, tmp_path):
    make_files(tmp_path, f"{name}/1.jpg", "beaker/1.jpg", "flask/1.jpg")
    folder = scan_folder(tmp_path)
    assert set(folder.classes) == {name, "beaker", "flask"}
    assert folder.notes == ()


def test_a_train_among_vehicles_is_a_class_and_that_is_said(tmp_path):
    make_files(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")
    folder = scan_folder(tmp_path)
    assert folder.classes == ("bus", "car", "train")
    assert folder.notes == ("Read as a class, not as a split: train, beside bus, car.",)


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED)
def test_what_looks_like_a_split_and_is_none_is_refused_by_name(files, message, tmp_path):
    make_files(tmp_path, *files)
    with pytest.raises(InputError, match=message):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "dog"), ("mask", "no mask"), ("with_mask", "without_mask"), ("labels", "stickers"),
        ("photo", "painting"), ("0", "1"), ("images", "cat"), ("images_class", "masks"),
        ("mask images", "face images"), ("gt", "gti"),
    ],
)  # fmt: skip
def test_classes_numbered_alike_are_classes_unless_their_names_tell_otherwise(names, tmp_path):
    make_files(tmp_path, *(f"{name}/{number:04}.jpg" for name in names for number in range(4)))
    folder = scan_folder(tmp_path)
    assert set(folder.classes) == set(names)
    assert folder.notes == ()


def test_a_stray_picture_makes_no_annotations_of_classes(tmp_path):
    make_files(
        tmp_path, "example.jpg", *(f"{n}/{i}.jpg" for n in ("mask", "no_mask") for i in "123")
    )
    folder = scan_folder(tmp_path)
    assert folder.classes == ("mask", "no_mask")
    assert scan_labelled(tmp_path, "([12])").classes == ("1", "2")


@pytest.mark.parametrize("number", ["_{}", ".{}", " ({})", "{}", "-{:03}"])
@pytest.mark.parametrize(
    "labels",
    [
        ("crow", "crow_hooded", "owl"),
        ("cat", "cat fish", "catfish", "fish"),
        ("Abyssinian", "Bengal", "beagle", "pug"),
        ("Cat", "cat", "dog"),
        ("K\u00e4fer", "Wespe"),
    ],
)
def test_the_pattern_that_is_advised_reads_the_labels_that_are_named(labels, number, tmp_path):
    names = [
        f"{name}{number.format(10 * i + j)}" for i, name in enumerate(labels) for j in range(4)
    ]
    make_files(tmp_path, *(unicodedata.normalize("NFD", f"{name}.jpg") for name in names))
    with pytest.raises(InputError, match="found: none") as refused:
        scan_folder(tmp_path)
    told, pattern = re.search(
        r'names of the files \((.*?)\): labels_from="(.*?)" reads', str(refused.value)
    ).groups()
    folder = scan_labelled(tmp_path, pattern)
    assert list(folder.classes) == told.split(", ") == sorted(labels)
    read = [folder.classes[target] for _, target in folder.train]
    assert sorted(zip(folder.below, read, strict=True)) == sorted(
        (f"{name}.jpg", label_of(name)) for name in names
    )
    alike = "'Cat' and 'cat' are read as different classes, though only case or spaces differ. Ren"
    assert (alike in str(refused.value)) == ("Cat" in labels)


def label_of(name):
    """The label of a name that begins with it and ends with a number."""
    return name.rstrip("0123456789()").rstrip(" ._-")


def test_test_pictures_without_classes_give_way_to_a_validation_split(tmp_path):
    split_layout(tmp_path, "train/{}", "val/{}")
    make_files(tmp_path, "test/1.jpg", "test/2.jpg")
    folder = scan_folder(tmp_path)
    assert listed(tmp_path, folder.test) == [("val/cat/3.jpg", 0), ("val/dog/3.jpg", 1)]
    assert "test has no class folders, so its pictures have no labels." in folder.notes
    assert f"Not read: {tmp_path / 'test'} (2 .jpg)." in folder.notes


# names


def test_a_name_composed_and_decomposed_is_one_class(tmp_path):
    composed, decomposed = "K\u00e4fer", "Ka\u0308fer"
    make_files(tmp_path, f"train/{decomposed}/1.jpg", "train/Ameise/1.jpg")
    make_files(tmp_path, f"test/{composed}/2.jpg", f"train/{composed}/3.jpg", "test/Ameise/2.jpg")
    folder = scan_folder(tmp_path)
    assert folder.classes == ("Ameise", composed)
    assert [target for _, target in folder.train] == [0, 1, 1]
    assert [target for _, target in folder.test] == [0, 1]


def test_classes_that_differ_in_case_or_spaces_alone_are_told(tmp_path):
    make_files(tmp_path, "Cat/1.jpg", "cat/1.jpg", "cat /1.jpg", "dog/1.jpg")
    (note,) = scan_folder(tmp_path).notes
    assert note.startswith("'Cat' and 'cat' and 'cat ' are read as different classes")


@pytest.mark.parametrize("name", ["__none__", "__", "_a", "~", "a.b"])
def test_names_that_begin_oddly_are_read(name, tmp_path):
    make_files(tmp_path, f"{name}/__1__.jpg", "b/1.jpg", "__MACOSX/b/1.jpg", "b/__MACOSX/2.jpg")
    folder = scan_folder(tmp_path)
    assert set(folder.classes) == {name, "b"}
    assert len(folder.train) == 2
    assert folder.notes == ()


# what is left out


def test_classes_without_a_picture_that_can_be_read_are_named(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.CR2", "c/deep/2.cr2", "c/3.mp4")
    (tmp_path / "empty").mkdir()
    folder = scan_folder(tmp_path)
    assert folder.classes == ("a", "b")
    assert folder.notes == (
        "Class 'c' is left out: none of its files can be read (2 .cr2, 1 .mp4).",
        "Class 'empty' is left out: it is empty.",
    )


def test_all_that_is_not_used_is_counted_by_ending_and_folder(tmp_path):
    split_layout(tmp_path, "train/{}", "test/{}")
    make_files(tmp_path, "extra/9.jpg", "extra/deep/8.png", "train/loose.jpg", "labels.csv",
               "train/cat/clip.mp4", "test/cat/README")  # fmt: skip
    assert scan_folder(tmp_path).notes == (
        f"Not read: {tmp_path / 'extra'} (1 .jpg, 1 .png).",
        f"Left out below {tmp_path}, as not pictures in a class folder: 4 "
        "(1 .csv, 1 .jpg, 1 .mp4, 1 without an ending).",
    )


def test_several_subfolders_of_a_class_are_pooled_and_that_is_said(tmp_path):
    make_files(tmp_path, "cat/siamese/1.jpg", "cat/tabby/1.jpg", "dog/1.jpg")
    folder = scan_folder(tmp_path)
    assert [target for _, target in folder.train] == [0, 0, 1]
    assert folder.notes == ("Pictures in subfolders count as their class: cat (siamese, tabby).",)


def test_linked_folders_are_followed_but_not_in_a_circle(tmp_path):
    make_files(tmp_path / "pets", "a/1.jpg", "b/1.jpg")
    make_files(tmp_path / "elsewhere", "2.jpg")
    (tmp_path / "pets/a/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pets/b/round").symlink_to(tmp_path / "pets")
    folder = scan_folder(tmp_path / "pets")
    assert [target for _, target in folder.train] == [0, 0, 1]


def test_a_folder_alone_at_the_top_is_stepped_into_and_that_is_said(tmp_path):
    make_files(tmp_path, "PetImages/cat/1.jpg", "PetImages/dog/1.jpg", "annotations/1.xml")
    folder = scan_folder(tmp_path)
    assert folder.classes == ("cat", "dog")
    assert folder.notes[0] == f"Read: {tmp_path / 'PetImages'}, which alone holds pictures."
    assert "(1 .xml)" in folder.notes[1]


def test_files_that_stayed_elsewhere_count_as_if_they_were_there(tmp_path):
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    folder = scan_folder(tmp_path, ["c/1.cr2", "a/notes.txt"])
    assert "Class 'c' is left out: none of its files can be read (1 .cr2)." in folder.notes
    assert "(1 .txt)" in folder.notes[1]
