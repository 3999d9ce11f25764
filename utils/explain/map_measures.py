"""What can be measured on class activation maps: each a number a map, and higher is better."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchmetrics.functional.image import structural_similarity_index_measure

from utils.devices import autocast, choose_precision
from utils.explain.gradcam import similarity
from utils.explain.imputation import blurred, impute, mean_colour
from utils.models.network import Network

#: Which shares of a picture's pixels are removed, and what is put in their place.
SHARES = (0.1, 0.3, 0.6)
FILLS = {"removal": impute, "deletion": mean_colour, "insertion": blurred}
_THRESHOLDS = np.linspace(0.05, 0.95, 19)
_AT_ONCE = 256


# Localisation


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return whether each map is highest on the object (Zhang et al. 2016, "Top-down Neural
    Attention by Excitation Backprop", section 4.2).

    Where several pixels are the highest, which share of them lies on it: what a choice among them
    would give on average, and what a blank map gets.

    Args:
        maps: float, N×S×S.
        masks: bool, N×S×S.

    Returns:
        float64, N, in [0, 1].
    """
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    return (highest & masks).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))


def energy_on_object(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return which share of each map lies on the object (Wang et al. 2020, "Score-CAM", section
    4.3); of a blank map, the object's share of the picture.

    Args:
        maps: float, N×S×S, not negative.
        masks: bool, N×S×S.

    Returns:
        float64, N, in [0, 1].
    """
    shares = _as_shares(maps)
    return (shares * masks).sum(axis=(1, 2))


def _as_shares(maps: np.ndarray) -> np.ndarray:
    """Return maps whose pixels sum to 1; a blank one is the same everywhere."""
    total = maps.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
    even = 1 / maps[0].size
    return np.where(total > 0, maps / np.where(total > 0, total, 1), even)


def best_iou(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the overlap of each map with its object, at the threshold best for all of them.

    Args:
        maps: float, N×S×S in [0, 1]; pixels at or above the threshold are taken.
        masks: bool, N×S×S.

    Returns:
        float64, N: intersection over union, in [0, 1].
    """
    overlaps = []
    for threshold in _THRESHOLDS:
        taken = maps >= threshold
        both, either = (taken & masks).sum(axis=(1, 2)), (taken | masks).sum(axis=(1, 2))
        overlaps.append(both / np.maximum(either, 1))
    return max(overlaps, key=np.mean)


LOCALISATION = {"pointing game": pointing_game, "energy": energy_on_object, "IoU": best_iou}


# Faithfulness


def ranks(maps: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the rank of every pixel, 0 the highest: int64, N×S×S.

    Every rank is given once; those of equal pixels are drawn.

    Args:
        maps: float, N×S×S.
        seed: draws them.
    """
    flat = maps.reshape(len(maps), -1)
    shuffled = np.random.default_rng(seed).permuted(
        np.broadcast_to(np.arange(flat.shape[1]), flat.shape), axis=1
    )
    sorted_ = np.argsort(-np.take_along_axis(flat, shuffled, 1), axis=1, kind="stable")
    order = np.take_along_axis(shuffled, sorted_, 1)
    ranked = np.empty_like(order)
    np.put_along_axis(ranked, order, np.arange(flat.shape[1])[None], 1)
    return ranked.reshape(maps.shape)


def removal_curves(
    network: Network,
    images: Tensor,
    targets: np.ndarray,
    maps: np.ndarray,
    fill: Callable[[Tensor, Tensor], Tensor] = impute,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    precision: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """Remove the highest pixels of each map, or the lowest, and ask the network again.

    To insert the highest into what fills the rest is to remove the lowest: both orders give
    deletion and insertion (Petsiuk et al. 2018, "RISE", section 4.3), and with imputed pixels the
    curves of ROAD (Rong et al. 2022, section 5).

    Args:
        network: in evaluation mode.
        images: float32, N×3×S×S, normalised.
        targets: int64, N.
        maps: float, N×S×S.
        fill: returns pictures (float, M×3×S×S) in which pixels (bool, M×S×S) are replaced.
        shares: of all pixels; of 1,024, a share of 0.1 removes 102.
        seed: draws which of equal pixels go first.
        precision: that the network computes in, one of `utils.devices.PRECISIONS`.

    Returns:
        the probability of each picture's target, the highest removed first and the lowest first:
        float32, N×len(shares) each.
    """
    ranked, pixels = torch.from_numpy(ranks(maps, seed)).to(images.device), maps[0].size
    curves = np.empty((2, len(images), len(shares)), np.float32)
    precision, _ = choose_precision(precision, images.device.type, network.depthwise)
    for start in range(0, len(images), _AT_ONCE // 2):  # in both orders at once
        here = slice(start, start + _AT_ONCE // 2)
        twice, asked = torch.cat([images[here]] * 2), np.tile(targets[here], 2)
        for place, share in enumerate(shares):
            count = round(share * pixels)
            removed = torch.cat([ranked[here] < count, ranked[here] >= pixels - count])
            left = _probabilities(network, fill(twice, removed), asked, precision)
            curves[:, here, place] = left.reshape(2, -1)
    return curves[0], curves[1]


def removal_score(curves: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return how much less is left without a map's highest pixels than without its lowest.

    Args:
        curves: from `removal_curves`.

    Returns:
        float32, N, in [-1, 1]: the mean distance of the curves. A random order gives 0 on average.
    """
    highest_first, lowest_first = curves
    return (lowest_first - highest_first).mean(axis=1)


def patch_agreement(maps: np.ndarray, drops: np.ndarray, side: int, stride: int) -> np.ndarray:
    """Return how well each map's patches are ordered as their removal orders them.

    Args:
        maps: float, N×S×S.
        drops, side, stride: from and as for `patch_drops`.

    Returns:
        float64, N, in [-1, 1]: Spearman's correlation over the patches; 0 for a blank map.
    """
    means = avg_pool2d(torch.from_numpy(np.ascontiguousarray(maps))[:, None], side, stride)
    return rank_correlation(means[:, 0].numpy(), drops)


def worth(maps: np.ndarray, regions: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """Return what each map points at was worth to the network, against what was worth most.

    A point is drawn from the map, and the part of the picture that lies there is taken away. By
    how much does the target's logit fall, on average, as a share of what the most valuable part's
    absence takes? 1: the map lies on that part. Below 0: on what spoke against the class.

    Args:
        maps: float, N×S×S, not negative.
        regions: bool, N×P×S×S; every pixel belongs to one part.
        drops: float, N×P.

    Returns:
        float64, N, at least -1; NaN where no part's absence lowers the logit.
    """
    on_part = part_shares(maps, regions)
    most = drops.max(axis=1)
    expected = (on_part * drops).sum(axis=1)
    return np.where(most > 0, np.clip(expected / np.where(most > 0, most, 1), -1, 1), np.nan)


def part_shares(maps: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Return which share of each map lies on each part: float64, N×P; arguments as for `worth`."""
    return np.einsum("nhw,nphw->np", _as_shares(maps), regions.astype(np.float64))


# Likeness


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation over the pixels of two maps each: float64, N, in [-1, 1].

    Args:
        first, second: float, N×H×W; 0 where one of the two is the same everywhere.
    """
    ranked = (rankdata(m.reshape(len(m), -1), axis=1).reshape(m.shape) for m in (first, second))
    return similarity(*ranked)


def structural_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the structural similarity of two maps each (Wang et al. 2004): float64, N.

    Args:
        first, second: float in [0, 1], N×S×S.
    """
    mine, other = (
        torch.from_numpy(np.ascontiguousarray(maps))[:, None].double() for maps in (first, second)
    )
    alike = structural_similarity_index_measure(mine, other, data_range=1.0, reduction="none")
    return np.atleast_1d(np.asarray(alike))


# What a network says


def logits_of(network: Network, images: Tensor, targets: np.ndarray) -> np.ndarray:
    """Return the logit of each picture's class: float32, N."""
    return all_logits(network, images).numpy()[range(len(targets)), targets]


@torch.inference_mode()
def all_logits(network: Network, images: Tensor) -> Tensor:
    """Return the logits of all classes, batch by batch: float32, N×C, on the CPU."""
    return torch.cat([network(part).float().cpu() for part in images.split(_AT_ONCE)])


@torch.inference_mode()
def _probabilities(
    network: Network, images: Tensor, targets: np.ndarray, precision: str
) -> np.ndarray:
    """Return the probability of each picture's class: float32, N."""
    images = images.contiguous(memory_format=torch.channels_last)
    with autocast(images.device.type, precision):
        logits = network(images)
    return logits.float().softmax(1).cpu().numpy()[range(len(targets)), targets]
