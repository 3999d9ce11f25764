"""Normalisation and augmentation of whole batches, on whatever device the batch is on.

Every random draw is a function of (seed, epoch, picture, purpose) alone: a hash of those numbers,
not the state of a generator. So a picture gets the same crop however many were drawn before it,
on every device, and in a run that was interrupted and resumed.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

from utils.data.augmentation import Affine, Augmentation, Holes, Shrink
from utils.data.picture_set import CIFAR10_MEAN

_MASK = 0xFFFFFFFF
_CROP_Y, _CROP_X, _FLIP, _CUT_Y, _CUT_X, _CONTRAST, _BRIGHTNESS = range(7)
_AFFINE, _SHIFT_Y, _SHIFT_X, _SCALE, _TURN, _SHRINK, _HOLES, _COUNT = range(7, 15)
_PURPOSES = 15  # of those above
_HOLE = 100  # and the purposes after it: four for each hole
#: How the original fills a hole: with CIFAR-10's mean for pixels from 0 to 1, but on pixels from 0
#: to 255, where it is black.
BLACK = CIFAR10_MEAN


def uniform(seed: int, epoch: int, indices: Tensor, purpose: int | Tensor) -> Tensor:
    """Draw one number in [0, 1) for each picture, and each purpose.

    Args:
        seed, epoch, purpose: any whole numbers; draws for different ones are independent. Several
            purposes are an int64 tensor, P×1, and drawn for at once: a GPU then has few things to
            begin rather than many.
        indices: int64, N: the pictures' positions in their split.

    Returns:
        float32, N or P×N, the same on every device.
    """
    return _drawn(_key(seed, epoch, purpose), indices)


def _key(seed: int, epoch: int, purpose: int | Tensor) -> Any:
    key = _mix(seed & _MASK)
    for number in (seed >> 32, epoch, purpose):
        key = _mix(key ^ (number & _MASK))
    return key


def _drawn(key: int | Tensor, indices: Tensor) -> Tensor:
    hashed = _mix(_mix(indices ^ key) ^ (indices >> 32))
    return (hashed >> 8).float() / (1 << 24)  # 24 bits: what a float32 holds exactly


def _mix(x: int | Tensor) -> Any:
    """Scramble 32-bit numbers, in int64 (the finaliser of MurmurHash3, Appleby 2011)."""
    x = (x + 0x9E3779B9) & _MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale pictures to zero mean and unit standard deviation per channel.

    Args:
        images: uint8, N×3×H×W.
        mean, std: one number a channel, for pixel values in [0, 1].

    Returns:
        float32, N×3×H×W, channels-last.
    """
    scale, shift = scale_and_shift(tuple(mean), tuple(std), images.device)
    images = images.to(torch.float32, memory_format=torch.channels_last)
    return images.mul_(scale).sub_(shift)


@cache
def scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return both numbers of each channel on a device: float32, 3×1×1.

    A pixel from 0 to 255 times the first, less the second, is normalised. They are kept, since a
    batch that brought its own to a GPU would wait for all work before it.
    """
    means, stds = (torch.tensor(v, device=device).view(3, 1, 1) for v in (mean, std))
    return 1 / (255 * stds), means / stds


def augment(
    images: Tensor,
    indices: Tensor,
    augmentation: Augmentation,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    epoch: int,
) -> Tensor:
    """Augment and normalise a batch; each picture has draws of its own.

    Args:
        images: uint8, N×3×H×W.
        indices: int64, N: the pictures' positions in the training split.
        mean, std: as for `normalise`.
        seed, epoch: which draws to use.

    Returns:
        float32, N×3×H×W, channels-last.
    """
    keys = _keys(augmentation, seed, epoch, indices.device)
    draw = _drawn(keys, indices).__getitem__  # a row a purpose
    height, width = images.shape[-2:]
    span = 2 * augmentation.crop_padding + 1
    shift_y = (draw(_CROP_Y) * span).long() - augmentation.crop_padding
    shift_x = (draw(_CROP_X) * span).long() - augmentation.crop_padding
    flip = draw(_FLIP) < augmentation.flip_probability
    flip ^= augmentation.alternate_flips and epoch % 2 == 1
    images = normalise(shift_and_flip(images, shift_y, shift_x, flip), mean, std)
    if augmentation.shrink:
        images = shrink(images, augmentation.shrink, draw)
    if augmentation.affine:
        images = transform(images, augmentation.affine, draw)
    if augmentation.jitter:
        contrast, brightness = (
            augmentation.jitter * (2 * draw(purpose) - 1) for purpose in (_CONTRAST, _BRIGHTNESS)
        )
        images.mul_((1 + contrast).view(-1, 1, 1, 1)).add_(brightness.view(-1, 1, 1, 1))
    if augmentation.cutout_size:
        centre_y, centre_x = (draw(_CUT_Y) * height).long(), (draw(_CUT_X) * width).long()
        cut_out(images, centre_y, centre_x, augmentation.cutout_size)
    if augmentation.holes:
        black = _black(tuple(mean), tuple(std), images.device)
        images = torch.where(holes(images, augmentation.holes, draw), black, images)
    return images


@lru_cache(maxsize=2)
def _keys(augmentation: Augmentation, seed: int, epoch: int, device: torch.device) -> Tensor:
    """Return what tells the draws for each purpose of an augmentation apart: int64, P×1.

    They are kept for the other batches of the epoch. Flips that alternate are drawn once for all
    epochs.
    """
    holes_ = augmentation.holes
    purposes = _HOLE + 4 * holes_.most if holes_ else _PURPOSES
    keys = _key(seed, epoch, torch.arange(purposes, device=device)[:, None])
    if augmentation.alternate_flips:
        keys[_FLIP] = _key(seed, 0, _FLIP)
    return keys


def shift_and_flip(images: Tensor, shift_y: Tensor, shift_x: Tensor, flip: Tensor) -> Tensor:
    """Move each picture's window over its reflected surroundings, then flip some left-right.

    The same as reflect-padding and cropping, as a single gather.

    Args:
        images: N×3×H×W.
        shift_y, shift_x: int64, N: the window's offset in pixels, smaller than the side.
        flip: bool, N.

    Returns:
        as `images`, channels-last.
    """
    height, width = images.shape[-2:]
    rows = _reflect(torch.arange(height, device=images.device) + shift_y[:, None], height)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    columns = _reflect(columns + shift_x[:, None], width)
    picture = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def _reflect(position: Tensor, size: int) -> Tensor:
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)


def shrink(images: Tensor, how: Shrink, draw: Callable[[int], Tensor]) -> Tensor:
    """Make some pictures smaller, their surroundings filled by reflection.

    The edge pixel is not repeated; the resizing is bilinear, without antialiasing.

    Args:
        images: float, N×3×S×S.
        how: with which probability, and by how much.
        draw: returns a number in [0, 1) for each picture, by purpose.

    Returns:
        as `images`, channels-last.
    """
    padded = pad(images, (how.padding,) * 4, mode="reflect")
    smaller = interpolate(padded, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return _where(draw(_SHRINK) < how.probability, smaller, images)


def transform(images: Tensor, how: Affine, draw: Callable[[int], Tensor]) -> Tensor:
    """Move, scale and turn some pictures about their centre, bilinearly.

    What lies outside is reflected; the edge pixel is not repeated.

    Args:
        images: float, N×3×S×S.
        how: with which probability, and by how much.
        draw: returns a number in [0, 1) for each picture, by purpose.

    Returns:
        as `images`, channels-last.
    """

    def symmetric(purpose: int, most: float) -> Tensor:
        return most * (2 * draw(purpose) - 1)

    angle = torch.deg2rad(symmetric(_TURN, how.degrees))
    scale = 1 + symmetric(_SCALE, how.scale)
    side = images.shape[-1]
    most = how.shift * side / ((side - 1) / 2)  # the grid counts from centre to edge pixel
    shift = torch.stack([symmetric(_SHIFT_X, most), symmetric(_SHIFT_Y, most)], dim=1)
    # where each new pixel comes from: the change undone
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    undone = torch.stack([cosine, sine, -sine, cosine], dim=1).view(-1, 2, 2)
    matrices = torch.cat([undone, -undone @ shift[:, :, None]], dim=2)
    grid = affine_grid(matrices, list(images.shape), align_corners=True)
    moved = grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    return _where(draw(_AFFINE) < how.probability, moved, images)


def holes(images: Tensor, how: Holes, draw: Callable[[int], Tensor]) -> Tensor:
    """Return where pictures have holes: bool, N×1×H×W.

    Args:
        images: N×3×H×W.
        how: with which probability, how many and how large; no side is longer than the picture's.
        draw: returns a number in [0, 1) for each picture, by purpose.
    """
    height, width = images.shape[-2:]

    def whole(purpose: int, low: int, high: int | Tensor) -> Tensor:
        return low + (draw(purpose) * (high - low + 1)).long()

    def inside(purpose: int, length: int) -> Tensor:
        side = whole(purpose, min(how.shortest, length), min(how.longest, length))
        start = whole(purpose + 1, 0, length - side)
        position = torch.arange(length, device=images.device)
        return (position >= start[:, None]) & (position < (start + side)[:, None])

    count = whole(_COUNT, how.least, how.most) * (draw(_HOLES) < how.probability)
    mask = torch.zeros(len(images), height, width, dtype=torch.bool, device=images.device)
    for hole in range(how.most):
        purpose = _HOLE + 4 * hole
        rectangle = inside(purpose, height)[:, :, None] & inside(purpose + 2, width)[:, None, :]
        mask |= rectangle & (hole < count)[:, None, None]
    return mask[:, None]


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """Return the changed pictures where they are chosen (bool, N): no device is waited for."""
    together = torch.where(chosen[:, None, None, None], changed, images)
    return together.contiguous(memory_format=torch.channels_last)


def hole_colour(
    augmentation: Augmentation, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Tensor | None:
    """Return the colour of holes among normalised pictures: float32, 3×1×1; None without holes.

    That of `holes` is black, that of cutout the mean colour, which is 0.
    """
    if augmentation.holes:
        return _black(tuple(mean), tuple(std), device)
    return torch.zeros(3, 1, 1, device=device) if augmentation.cutout_size else None


@cache
def _black(mean: tuple, std: tuple, device: torch.device) -> Tensor:
    scale, shift = scale_and_shift(mean, std, device)
    return torch.tensor(BLACK, device=device).view(3, 1, 1) * scale - shift


def cut_out(images: Tensor, centre_y: Tensor, centre_x: Tensor, size: int) -> Tensor:
    """Set one square a picture to zero, the mean colour once normalised, in place.

    Args:
        images: float, N×3×H×W.
        centre_y, centre_x: int64, N; the square reaches from centre − size // 2 over `size`
            pixels, and what falls outside the picture is lost.
        size: side of the square in pixels.
    """
    height, width = images.shape[-2:]

    def inside(centre: Tensor, length: int) -> Tensor:
        offset = torch.arange(length, device=images.device) - (centre[:, None] - size // 2)
        return (offset >= 0) & (offset < size)

    square = inside(centre_y, height)[:, :, None] & inside(centre_x, width)[:, None, :]
    return images.masked_fill_(square[:, None], 0.0)


def resize(images: Tensor, side: int) -> Tensor:
    """Make square pictures smaller, each new pixel an average of those that it covers.

    Args:
        images: float, N×3×S×S.
        side: of the result in pixels; S or less.

    Returns:
        float, N×3×side×side, channels-last; `images` themselves where they have that size.
    """
    if images.shape[-1] == side:
        return images
    smaller = interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last)


def several_views(images: Tensor, count: int) -> list[tuple[Tensor, float]]:
    """Return several views of the same pictures, whose logits are to be averaged.

    Two views are the pictures and their mirror images. Six are these, and both again moved by one
    pixel along each diagonal, what is moved counting half (Jordan 2024, section 3.5).

    Args:
        images: float, N×3×S×S, normalised.
        count: 1, 2 or 6.

    Returns:
        each view, shaped like `images`, with its weight; the weights sum to 1.
    """
    views = [(images, 1.0)]
    if count == 6:
        side = images.shape[-1]
        padded = pad(images, (1, 1, 1, 1), mode="reflect")
        moved = (padded[..., start : start + side, start : start + side] for start in (0, 2))
        views = [(images, 0.5), *((view, 0.25) for view in moved)]
    if count == 1:
        return views
    sides = [((view, view.flip(-1)), weight / 2) for view, weight in views]
    return [(view, weight) for pair, weight in sides for view in pair]
