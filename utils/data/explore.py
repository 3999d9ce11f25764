"""What is in a data set, in numbers and pictures, before any training."""

import re
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor

from utils import as_markdown, as_percent, counted
from utils.data import drawn_shapes
from utils.data.augment import augment
from utils.data.batches import PictureDataModule
from utils.data.given_labels import is_table
from utils.data.picture_set import PictureSet, Split
from utils.data.views import of_each, parts


def class_counts(picture_set: PictureSet) -> dict[str, np.ndarray]:
    """Return the number of pictures of each class (int64, C), for both splits by name."""
    length = len(picture_set.classes)
    splits = {"train": picture_set.train, "test": picture_set.test}
    return {name: s.targets.bincount(minlength=length).numpy() for name, s in splits.items()}


def mean_pictures(split: Split, num_classes: int) -> np.ndarray:
    """Return the mean picture of each class, float32 C×3×S×S in [0, 1]; black for an empty one."""
    sums = torch.zeros(num_classes, *split.images.shape[1:], dtype=torch.int64)
    start = 0
    for part in parts(split.images):
        targets = split.targets[start : start + len(part)]
        for target in targets.unique():
            sums[target] += part[targets == target].sum(0, dtype=torch.int32)
        start += len(part)
    sizes = split.targets.bincount(minlength=num_classes).clamp(min=1)
    return (sums / (255 * sizes).view(-1, 1, 1, 1)).numpy()


def nearest_mean_accuracy(means: np.ndarray, split: Split) -> float:
    """Return how often the class whose mean picture is nearest is the right one, in [0, 1].

    A classifier that knows nothing but where which colour is usual.

    Args:
        means: float32 C×3×S×S in [0, 1], from `mean_pictures` of the training split.
        split: what to classify, by the Euclidean distance over all pixels.
    """
    centres = torch.from_numpy(means).flatten(1)
    nearest = of_each(
        split.images, lambda images: torch.cdist(images.flatten(1) / 255, centres).argmin(1)
    )
    return float((nearest == split.targets).float().mean())


def augmented_views(
    data: PictureDataModule, pictures: int = 6, epochs: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Return training pictures and what the network will see of them in the first epochs.

    Args:
        data: the batches of a training.
        pictures: how many, taken from as many classes as there are.
        epochs: how many views of each.

    Returns:
        uint8 K×3×S×S and uint8 K×V×3×S×S.
    """
    indices = _one_of_each_class(data.train.targets, pictures)
    images, whole = data.train.images[indices], data.picture_set
    statistics = whole.mean, whole.std
    views = [
        _denormalise(
            augment(images, indices, data.augmentation, *statistics, data.seed, epoch), *statistics
        )
        for epoch in range(epochs)
    ]
    return images.numpy(), torch.stack(views, dim=1).numpy()


def _one_of_each_class(targets: Tensor, count: int) -> Tensor:
    """Return positions: the first picture of each class, then the second of each, and so on."""
    rank = torch.zeros_like(targets)
    for target in targets.unique():
        members = targets == target
        rank[members] = torch.arange(int(members.sum()))
    return torch.argsort(rank, stable=True)[:count].sort().values


def _denormalise(images: Tensor, mean, std) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


# In words


CIFAR10 = (
    "CIFAR-10 is a labelled subset of the 80 Million Tiny Images, photographs collected from the "
    "web and scaled down to 32×32 pixels (Krizhevsky 2009). It is not without faults: an estimated "
    "0.54% of its test labels are wrong (Northcutt et al. 2021), and 3.3% of its test pictures "
    "have a duplicate or near-duplicate among the training pictures (Barz & Denzler 2020)."
)


def origin_in_words(picture_set: PictureSet) -> str:
    """Return in two or three sentences where the pictures come from, and what is known of them."""
    dataset = picture_set.options["dataset"]
    if dataset == "cifar10":
        return CIFAR10
    if dataset == "shapes":
        return _shapes_in_words()
    if re.search(r"\bcifar[-_ ]?10\b", picture_set.title, re.IGNORECASE):
        return f"By its title, this is a copy of CIFAR-10. {CIFAR10}"
    total = len(picture_set.train) + len(picture_set.test)
    return (
        f"These pictures are your own: {counted(total, 'picture')} in "
        f"{counted(len(picture_set.classes), 'class', 'classes')}, and "
        f"{_labels_in_words(picture_set.options.get('labels_from'))}. Nothing else is known of "
        "them here: what was counted stands in this chapter, and whether the labels are right only "
        "you can tell."
    )


def _labels_in_words(labels_from: str | None) -> str:
    """Return a clause, as Markdown, on where the labels of a person's own pictures come from."""
    if labels_from is None:
        return "each folder's name is the label"
    if is_table(labels_from):
        return f"the table {as_markdown(PurePath(labels_from).name)} gives the labels"
    return f"the label is what {as_markdown(labels_from)} finds in each file's name"


def _shapes_in_words() -> str:
    *others, last = drawn_shapes.CLASSES
    return (
        f"This project drew these pictures itself: {len(drawn_shapes.CLASSES)} outlines "
        f"({', '.join(others)} and {last}), each lighter than its textured ground and all of the "
        "same range of areas, at any place, size, angle and colour, so that only the outline tells "
        f"the class. Every picture has {drawn_shapes.CLUTTER_COUNT} loose sticks behind the object "
        f"and noise in every pixel, and in about {drawn_shapes.OCCLUDED_SHARE:.0%} of them another "
        "stick lies across it; every label is right, since the label came first."
    )


def nearest_mean_in_words(by_means: float, classes: int) -> str:
    """Return what `nearest_mean_accuracy` found, beside guessing among so many classes."""
    return (
        f"Naming the class of the nearest mean picture is right in {as_percent(by_means)} of the "
        f"test pictures; guessing among {classes:,} classes, in {as_percent(1 / classes)}."
    )


def each_class_in_words(counts: dict[str, np.ndarray]) -> str:
    """Return how many training pictures a class has, of `class_counts`: "6 training pictures"."""
    smallest, largest = int(counts["train"].min()), int(counts["train"].max())
    most = counted(largest, "training picture")
    return most if smallest == largest else f"{smallest:,} to {most}"


def most_frequent_share(counts: dict[str, np.ndarray]) -> float:
    """Return how often the most frequent class of the test split would be right, in [0, 1]."""
    return float(counts["test"].max() / counts["test"].sum())


def balance_in_words(counts: dict[str, np.ndarray]) -> str:
    """Return two sentences: how many pictures classes have, and what always naming one would do."""
    return (
        f"Each class has {each_class_in_words(counts)}. Always naming the most frequent one would "
        f"be right in {as_percent(most_frequent_share(counts))} of the test pictures."
    )


def in_short(picture_set: PictureSet, counts: dict[str, np.ndarray], by_means: float) -> str:
    """Return what the chapter found, as Markdown.

    Args:
        picture_set: what it looked at.
        counts: from `class_counts`.
        by_means: from `nearest_mean_accuracy`.
    """
    trained, tested = len(picture_set.train), len(picture_set.test)
    side = picture_set.image_size
    return (
        f"**{as_markdown(picture_set.title)}**: {counted(trained, 'picture')} to train on and "
        f"{tested:,} to test with, {len(picture_set.classes)} classes with "
        f"{each_class_in_words(counts)} each, {side}×{side} pixels. Always guessing the most "
        f"frequent class would be right in {as_percent(most_frequent_share(counts))} of the test "
        f"pictures, naming the class whose mean picture is nearest in {as_percent(by_means)}; "
        "every later figure has to be read against these two."
    )
