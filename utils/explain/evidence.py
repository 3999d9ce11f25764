"""Why, by example: the training pictures that look most alike to the network, and near-copies."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import (
    adaptive_avg_pool2d,
    avg_pool2d,
    cosine_similarity,
    normalize,
)

from utils import as_percent, counted
from utils.data.augment import normalise
from utils.data.batches import hold_out
from utils.data.picture_set import PictureSet, limited
from utils.devices import autocast, choose_device, choose_precision
from utils.explain.intervals import share_in_words
from utils.progress import progress_bar
from utils.runs import Run
from utils.training.predictions import Predictions
from utils.training.trained import load_network

NEIGHBOURS = 5
BATCH_SIZE = 256
#: So many training pictures, every class in proportion, pass through the network on a CPU, by the
#: precision that suits it: that takes DavidNet about half a minute on two cores. A GPU takes all.
MOST_ON_CPU = {"bf16-mixed": 20_000, "32-true": 8_000}
#: Two pictures are nearly the same where, averaged over 2×2 pixels, one of them mirrored or not
#: and shifted by a pixel or not, they correlate in their channels at least so much,
LEAST_CORRELATION = 0.95
#: and differ by at most so much on average; a pixel value is in 0…1.
MOST_DIFFERENCE = 0.06
#: Side of the pictures by which candidates for that are found.
THUMBNAIL = 8
#: Test pictures that are compared with all training pictures at once; bounds memory.
ROWS = 500


@dataclass(frozen=True)
class Neighbours:
    """The training pictures that look most alike to a network, for each of M pictures.

    Attributes:
        images: uint8, M×K×3×S×S, the most alike first.
        targets: int64, M×K: their classes.
        similarity: float32, M×K: the cosine of the features, in [-1, 1].
        searched: how many training pictures were looked at,
        available: of how many that the network was trained on.
        precision: what the features were computed in.
    """

    images: np.ndarray
    targets: np.ndarray
    similarity: np.ndarray
    searched: int
    available: int
    precision: str


def nearest_training(
    run: Run,
    picture_set: PictureSet,
    positions: np.ndarray,
    devices: str = "auto",
    count: int = NEIGHBOURS,
) -> Neighbours:
    """Find the training pictures nearest to some test pictures, in the network's own features.

    The features are the input of its last linear layer. All pictures pass through it once, in the
    precision that the hardware does best.

    Args:
        run: a trained run.
        picture_set: what it was trained on.
        positions: int64, M: which test pictures.
        devices: as `utils.devices.choose_device` takes it.
        count: how many neighbours, K; fewer where there are fewer training pictures.
    """
    device, _ = choose_device(devices)
    precision, _ = choose_precision("auto", device)
    trained_on, _ = hold_out(picture_set, run.settings["val_fraction"])
    most = MOST_ON_CPU[precision] if device == "cpu" else None
    most = None if most is None else max(most, len(picture_set.classes))
    train = limited(trained_on, most, "The number of training pictures to look at")
    images = torch.cat([picture_set.test.images[positions], train.images])
    network = load_network(run, device)
    found = features(network, images, picture_set.mean, picture_set.std, precision, progress=True)
    places, similarity = nearest(found[: len(positions)], found[len(positions) :], count)
    return Neighbours(
        train.images.numpy()[places], train.targets.numpy()[places], similarity,
        len(train), len(trained_on), precision,
    )  # fmt: skip


@torch.inference_mode()
def features(
    network: nn.Module,
    images: Tensor,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    precision: str = "32-true",
    progress: bool = False,
) -> np.ndarray:
    """Return the input of a network's last linear layer: float32, N×D.

    Args:
        network: in evaluation mode, on its device.
        images: uint8, N×3×S×S.
        mean, std: per channel, what it was trained with.
        precision: one of `utils.devices.PRECISIONS` but ``"auto"``.
        progress: whether to draw a progress bar.
    """
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    kept = [torch.empty(0, last.in_features)]
    hook = last.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].float().cpu()))
    device = next(network.parameters()).device
    bar = progress_bar(
        description="Features", total=len(images), unit="pictures", is_visible=progress
    )
    try:
        with bar, autocast(device.type, precision):
            for batch in images.split(BATCH_SIZE):
                network(normalise(batch.to(device), mean, std))
                bar.update(len(batch))
    finally:
        hook.remove()
    return torch.cat(kept).numpy()


def nearest(queries: np.ndarray, references: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Return the nearest of some vectors to each of others, by cosine, the most alike first.

    Args:
        queries: float32, M×D.
        references: float32, N×D; N is at least 1.
        count: how many, K; N where that is less.

    Returns:
        positions in `references`, int64, M×K, and cosines, float32, M×K.
    """
    count = min(count, len(references))
    directions = normalize(torch.from_numpy(references), dim=1)
    found = [
        (normalize(part, dim=1) @ directions.T).topk(count, dim=1)
        for part in torch.from_numpy(queries).split(ROWS)
    ]
    if not found:
        return np.empty((0, count), np.int64), np.empty((0, count), np.float32)
    return (
        torch.cat([part.indices for part in found]).numpy(),
        torch.cat([part.values for part in found]).numpy(),
    )


# Near-copies


def near_copies(test: Tensor, train: Tensor) -> np.ndarray:
    """Return for each test picture a training picture that is nearly the same; −1 where none is.

    Candidates are the training picture whose thumbnail is most alike, and the one whose mirrored
    thumbnail is. Pixels then decide, by ``LEAST_CORRELATION`` and ``MOST_DIFFERENCE``: among a
    network's features two pictures of one class may be as near as two copies. The test splits of
    CIFAR are known to have such pictures (Barz and Denzler 2020, "Do We Train on Test Data?").

    Args:
        test, train: uint8, N×3×S×S and M×3×S×S.

    Returns:
        int64, N: positions in `train`.
    """
    wanted = [_thumbnails(test.flip(3) if mirrored else test) for mirrored in (False, True)]
    known = _thumbnails(train)
    places = np.stack([nearest(part, known, 1)[0][:, 0] for part in wanted])
    alike, difference = (np.empty(places.shape, np.float32) for _ in range(2))
    for row, flipped in enumerate((test, test.flip(3))):
        for start in range(0, len(test), ROWS):
            part = slice(start, start + ROWS)
            others = train[torch.from_numpy(places[row, part])]
            alike[row, part], difference[row, part] = _compare(flipped[part], others)
    alike[difference > MOST_DIFFERENCE] = -1
    best = alike.argmax(axis=0)
    columns = np.arange(len(test))
    return np.where(alike[best, columns] >= LEAST_CORRELATION, places[best, columns], -1)


def _thumbnails(images: Tensor) -> np.ndarray:
    parts = [adaptive_avg_pool2d(part.float(), THUMBNAIL) for part in images.split(ROWS)]
    return _centred(torch.cat(parts)).numpy()


def _compare(first: Tensor, second: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return correlation and mean absolute difference of pictures in pairs: float32, N each.

    Of all shifts by at most a pixel, they are those of the one with the highest correlation.
    """
    first, second = first.float() / 255, second.float() / 255
    height, width = (side - 2 for side in first.shape[-2:])
    middle = _centred(halved := avg_pool2d(first[..., 1:-1, 1:-1], 2))
    alike, difference = [], []
    for top, left in product(range(3), range(3)):
        other = avg_pool2d(second[..., top : top + height, left : left + width], 2)
        alike.append(_correlation(middle, _centred(other)))
        difference.append((halved - other).abs().mean(dim=(1, 2, 3)))
    best, shift = torch.stack(alike).max(dim=0)
    return best.numpy(), torch.stack(difference).gather(0, shift[None])[0].numpy()


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines of centred pictures in pairs; of two plain ones, 1."""
    plain = (first.norm(dim=1) < 1e-6) & (second.norm(dim=1) < 1e-6)
    return torch.where(plain, 1.0, cosine_similarity(first, second))


def _centred(images: Tensor) -> Tensor:
    """Return pictures without the mean of each channel, which would make all of a hue alike."""
    return (images - images.mean(dim=(2, 3), keepdim=True)).flatten(1)


# In words


def search_in_words(found: Neighbours) -> str:
    """Return what was searched for neighbours, and how."""
    many = f"{found.searched:,}"
    if found.searched < found.available:
        many += f" of {found.available:,}"
    precision = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}
    return (
        f"Searched: {many} training pictures, every class in proportion; features computed in "
        f"{precision[found.precision]}."
    )


def neighbours_in_words(found: Neighbours, actual: np.ndarray, predicted: np.ndarray) -> str:
    """Return of how many mistakes the nearest training picture is of the class predicted.

    Args:
        found: from `nearest_training`, for the mistakes.
        actual, predicted: int64, M: of the mistakes.
    """
    if not len(actual):
        return "There are no mistakes to explain."
    nearest_class, total = found.targets[:, 0], len(actual)
    misled, rightly = int((nearest_class == predicted).sum()), int((nearest_class == actual).sum())
    return (
        f"The nearest training picture has the class that was predicted in {misled:,} of "
        f"{counted(total, 'mistake')}, {share_in_words(misled, total)}; the actual class in "
        f"{rightly:,}, and another in {total - misled - rightly:,}."
    )


def copies_in_words(predictions: Predictions, copy_of: np.ndarray) -> str:
    """Return how many test pictures are nearly training pictures, and the accuracy without them.

    Args:
        predictions: of the test split.
        copy_of: from `near_copies`.
    """
    right, new = predictions.predicted == predictions.target, copy_of < 0
    number, total = int((~new).sum()), len(new)
    if not number:
        return f"None of {total:,} test pictures is nearly the same as a training picture."
    told = (
        f"{number:,} of {total:,} test pictures ({as_percent(number / total)}) "
        f"{'is' if number == 1 else 'are'} nearly the same as a training picture."
    )
    if number == total:
        return f"{told} None is new, so the accuracy says nothing about new ones."
    without = share_in_words(int(right[new].sum()), int(new.sum()), 2)
    everything = share_in_words(int(right.sum()), total, 2)
    return f"{told}\nAccuracy without them: {without}; with them: {everything}."
