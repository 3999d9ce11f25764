"""Copies among pictures are found by their pixels."""

import re

import pytest
import torch

from utils.data.copies import conflicting, describe_copies, first_copies


def pictures(*kinds):
    """One picture of 3×4×4 for each number; equal numbers give equal pictures."""
    return torch.stack([torch.full((3, 4, 4), kind, dtype=torch.uint8) for kind in kinds])


def test_each_picture_is_told_its_first_copy():
    assert first_copies(pictures(5, 7, 5, 9, 7, 5)).tolist() == [0, 1, 0, 3, 1, 0]
    assert first_copies(pictures(5, 7), pictures(7, 8)).tolist() == [0, 1, 1, 3]


def test_one_pixel_makes_another_picture():
    images = pictures(5, 5)
    images[1, 2, 3, 3] += 1
    assert first_copies(images).tolist() == [0, 1]


def test_copies_under_several_labels_conflict_all_of_them():
    first = first_copies(pictures(1, 2, 1, 3, 1))
    assert conflicting(first, torch.tensor([0, 0, 0, 1, 1])).tolist() == [
        True, False, True, False, True,
    ]  # fmt: skip
    assert not conflicting(first, torch.tensor([0, 1, 0, 1, 0])).any()


def said(train, train_targets, test, test_targets):
    return describe_copies(
        (pictures(*train), torch.tensor(train_targets)),
        (pictures(*test), torch.tensor(test_targets)),
    )


@pytest.mark.parametrize(
    ("arguments", "notes"),
    [
        (([1, 2], [0, 1], [3, 4], [0, 1]), []),
        (([1, 1, 2], [0, 0, 1], [3], [0]), ["1 of 4 pictures .*; none lies in both splits"]),
        (
            ([1, 2], [0, 1], [2, 2, 3], [1, 1, 0]),
            ["2 of 5 pictures", "2 of 3 test pictures are also among the training pictures"],
        ),
        (
            ([1, 2, 1], [0, 1, 1], [3], [0]),
            ["1 of 4 pictures", "2 pictures have a copy under another label"],
        ),
    ],
)
def test_what_is_said_of_copies(arguments, notes):
    found = said(*arguments)
    assert len(found) == len(notes)
    for note, pattern in zip(found, notes, strict=True):
        assert re.search(pattern, note)
