"""What names tell is taken for no more than they tell."""

import re

import pytest

from utils.data.folder_names import (
    annotation_folders,
    labels_in_names,
    pattern_of_labels,
    split_roles,
    tell_of_no_class,
)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["Train", "testSet", "extra"], {"Train": "train", "testSet": "test"}),
        (["seg_train", "seg_test"], {"seg_train": "train", "seg_test": "test"}),
        (["seg_train", "asl_test", "test tube"], {}),
        (["train_test", "contest"], {}),
    ],
)
def test_a_split_is_told_by_words_that_mean_nothing_else(names, roles):
    assert split_roles(names) == roles


@pytest.mark.parametrize(
    ("names", "annotations"),
    [
        (["images", "masks"], ["masks"]),
        (["img_png", "LabelImages", "GroundTruth"], ["LabelImages", "GroundTruth"]),
        (["JPEGImages", "SegmentationClass"], ["SegmentationClass"]),
        (["train", "train_masks"], ["train_masks"]),
        (["mask", "no_mask"], []),
        (["masks", "images", "cat"], []),
        (["maskimagery", "images"], []),
        (["1", "masks"], []),
        ([], []),
    ],
)
def test_annotations_are_told_by_name_beside_pictures_alone(names, annotations):
    assert annotation_folders(names) == annotations


@pytest.mark.parametrize(("names", "found"), [(["gt", "mask"], ["gt", "mask"]), (["cat"], [])])
def test_pictures_right_beside_annotations_need_no_folder(names, found):
    assert annotation_folders(names) == []
    assert annotation_folders(names, has_pictures=True) == found


def test_names_that_only_say_that_they_are_folders_tell_of_no_class():
    assert tell_of_no_class(["images", "Photo Set 2", "dataset_1"])
    assert not tell_of_no_class(["images", "cat"])
    assert not tell_of_no_class(["1", "2"])


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("Cat_1 Cat_2 cat_3 cat_4 dog_5 dog_6", ["Cat", "cat", "dog"]),
        ("IMG_1 IMG_2 img_3 img_4", []),
        ("Cat_1 cat_2 dog_3", []),
        ("cat_1 cat_2 dog_3 dog_4 a b c d", []),
        ("cat-1 cat_2 cat.3 dog4 dog(5) dog_wild_6 dog_wild_7", ["cat", "dog", "dog_wild"]),
        ("cafe\u0301_1 cafe\u0301_2 the_3 the_4", ["caf\u00e9", "the"]),
    ],
)
def test_labels_are_seen_as_they_are_spelt(names, labels):
    assert labels_in_names(f"deep/{name}.jpg" for name in names.split()) == labels


def test_each_of_labels_that_begin_one_another_is_found():
    pattern = pattern_of_labels(["owl", "owl_eagle", "owlet"])
    names = [
        "owl_1.jpg",
        "owl_eagle_1.jpg",
        "owlet 1.jpg",
        "owl (1).jpg",
        "owlish_1.jpg",
        "owl.jpg",
    ]
    found = [match and match[1] for match in (re.search(pattern, name) for name in names)]
    assert found == ["owl", "owl_eagle", "owlet", "owl", None, None]
