"""Copies among decoded pictures: the same pixels twice are one picture, whatever the files say.

A picture to test on that was also trained on tells nothing; one under two labels teaches neither.
"""

import hashlib

import torch
from torch import Tensor

from utils.data.views import Images, parts


def first_copies(*splits: Images) -> Tensor:
    """Return for each picture the position of the first that has the same pixels.

    Args:
        splits: uint8, N×3×S×S each; positions count through all of them.

    Returns:
        int64, as many as there are pictures in all.

    >>> pictures = torch.tensor([5, 7, 5, 7, 9], dtype=torch.uint8).reshape(5, 1, 1, 1)
    >>> first_copies(pictures).tolist()
    [0, 1, 0, 1, 4]
    """
    first: dict[bytes, int] = {}
    pictures = (picture for images in splits for part in parts(images) for picture in part.numpy())
    digests = (hashlib.blake2b(picture, digest_size=16).digest() for picture in pictures)
    return torch.tensor([first.setdefault(d, i) for i, d in enumerate(digests)], dtype=torch.int64)


def conflicting(first: Tensor, targets: Tensor) -> Tensor:
    """Return which pictures have a copy under another label: bool, N.

    Args:
        first: int64, N, from `first_copies`.
        targets: int64, N.

    >>> conflicting(torch.tensor([0, 1, 0, 1]), torch.tensor([3, 3, 3, 2])).tolist()
    [False, True, False, True]
    """
    low, high = (
        torch.zeros_like(targets).scatter_reduce(0, first, targets, kind, include_self=False)
        for kind in ("amin", "amax")
    )
    return (low != high)[first]


def describe_copies(train: tuple[Images, Tensor], test: tuple[Images, Tensor]) -> list[str]:
    """Return what a person should know about copies: a sentence each, none where there are none.

    Args:
        train, test: of each split the pictures, uint8 N×3×S×S, and their classes, int64 N.
    """
    first, size = first_copies(train[0], test[0]), len(train[1])
    copies = int((first != torch.arange(len(first))).sum())
    leaked = int((first[size:] < size).sum())
    torn = int(conflicting(first, torch.cat((train[1], test[1]))).sum())
    notes = []
    if copies:
        notes.append(
            f"Copies: {copies:,} of {len(first):,} pictures have the very pixels of an earlier one"
            f"{'' if leaked else '; none lies in both splits'}."
        )
    if leaked:
        notes.append(
            f"Copies: {leaked:,} of {len(first) - size:,} test pictures are also among the "
            "training pictures, so accuracy on them says nothing about new ones."
        )
    if torn:
        notes.append(
            f"Copies: {torn:,} pictures have a copy under another label, so no network can get all "
            "of them right."
        )
    return notes
