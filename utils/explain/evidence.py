"""Why, by example: the training pictures that look most alike to the network."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from utils import as_percent, counted
from utils.data.augment import normalise
from utils.data.batches import hold_out
from utils.data.picture_set import PictureSet, limited
from utils.data.views import Images
from utils.devices import autocast, choose_device, choose_precision
from utils.explain.prediction_sets import across_classes
from utils.intervals import share_in_words
from utils.progress import progress_bar
from utils.runs import Run
from utils.training.predictions import Predictions
from utils.training.trained import load_network

NEIGHBOURS = 5
BATCH_SIZE = 256
#: So many training pictures, every class in proportion, pass through the network on a CPU, by the
#: precision that suits it: that takes DavidNet about half a minute on two cores. A GPU takes all.
MOST_ON_CPU = {"bf16-mixed": 20_000, "32-true": 4_000}
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
    network = load_network(run, device)
    precision, _ = choose_precision("auto", device, network.depthwise)
    trained_on, _ = hold_out(picture_set, run.settings["val_fraction"])
    most = MOST_ON_CPU[precision] if device == "cpu" else None
    most = None if most is None else max(most, len(picture_set.classes))
    train = limited(trained_on, most, "The number of training pictures to look at")
    asked = picture_set.mean, picture_set.std, precision
    own = features(network, picture_set.test.images[positions], *asked)
    others = features(network, train.images, *asked, progress=True)
    places, similarity = nearest(own, others, count)
    return Neighbours(
        train.images[torch.from_numpy(places)].numpy(), train.targets.numpy()[places], similarity,
        len(train), len(trained_on), precision,
    )  # fmt: skip


@torch.inference_mode()
def features(
    network: nn.Module,
    images: Images,
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
            for batch in images.split(BATCH_SIZE) if len(images) else ():
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


def some_copies(copy_of: np.ndarray, targets: np.ndarray, count: int = 9) -> np.ndarray:
    """Return the positions of some test pictures that are nearly training pictures, int64.

    Args:
        copy_of: from `utils.data.near_copies.near_copies`.
        targets: the classes of all test pictures, int64, N.
        count: how many at most.
    """
    return across_classes(np.flatnonzero(copy_of >= 0), targets, count)


def copies_in_words(predictions: Predictions, copy_of: np.ndarray) -> str:
    """Return how many test pictures are nearly training pictures, and the accuracy without them.

    Args:
        predictions: of the test split.
        copy_of: from `utils.data.near_copies.near_copies`.
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
