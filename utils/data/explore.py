"""What is in a data set, in numbers and pictures, before any training."""

import numpy as np
import torch
from torch import Tensor

from utils import as_markdown, counted
from utils.data.augment import augment
from utils.data.batches import PictureDataModule
from utils.data.picture_set import PictureSet, Split


def class_counts(picture_set: PictureSet) -> dict[str, np.ndarray]:
    """Return the number of pictures of each class (int64, C), for both splits by name."""
    length = len(picture_set.classes)
    splits = {"train": picture_set.train, "test": picture_set.test}
    return {name: s.targets.bincount(minlength=length).numpy() for name, s in splits.items()}


def mean_pictures(split: Split, num_classes: int) -> np.ndarray:
    """Return the mean picture of each class, float32 C×3×S×S in [0, 1]; black for an empty one."""
    means = torch.zeros(num_classes, *split.images.shape[1:])
    for target in split.targets.unique():
        members = split.images[split.targets == target]
        means[target] = members.sum(0, dtype=torch.int64) / (255 * len(members))
    return means.numpy()


def nearest_mean_accuracy(means: np.ndarray, split: Split) -> float:
    """Return how often the class whose mean picture is nearest is the right one, in [0, 1].

    A classifier that knows nothing but where which colour is usual.

    Args:
        means: float32 C×3×S×S in [0, 1], from `mean_pictures` of the training split.
        split: what to classify, by the Euclidean distance over all pixels.
    """
    centres = torch.from_numpy(means).flatten(1)
    nearest = [
        torch.cdist(images.flatten(1) / 255, centres).argmin(1)
        for images in split.images.split(1_000)
    ]
    return float((torch.cat(nearest) == split.targets).float().mean())


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
        f"be right in {most_frequent_share(counts):.1%} of the test pictures."
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
        f"frequent class would be right in {most_frequent_share(counts):.1%} of the test pictures, "
        f"naming the class whose mean picture is nearest in {by_means:.1%}; every later figure has "
        "to be read against these two."
    )
