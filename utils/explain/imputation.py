"""Pixels taken out of pictures, and what is put in their place."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

#: Standard deviation of what is added to imputed pixels, in units of the normalised picture.
NOISE = 0.01
_MOST_STEPS, _STEPS_BETWEEN_CHECKS = 400, 8
_TOLERANCE = 1e-5


def impute(images: Tensor, removed: Tensor, noise: float = NOISE, seed: int = 0) -> Tensor:
    """Fill removed pixels from their surroundings, by noisy linear imputation.

    Each removed pixel becomes the mean of its eight neighbours, those that share a side counting
    twice; where these are removed too, all are solved for together (Rong et al. 2022, "A
    Consistent and Efficient Evaluation Strategy for Attribution Methods", section 4.2). What is
    left tells a network less of where pixels are missing than a flat colour would.

    The equations of a whole batch are solved at once, by conjugate gradients: written with the
    neighbours' weights on both sides, their matrix is symmetric and positive definite.

    Args:
        images: float, N×C×H×W.
        removed: bool, N×H×W; where all pixels of a picture are removed, it becomes 0.
        noise: standard deviation of what is added to each imputed value.
        seed: draws the noise.

    Returns:
        float32, N×C×H×W.
    """
    images, missing = images.float().contiguous(), removed[:, None]
    total = _neighbours(torch.ones_like(images[:1, :1]))
    known = images.masked_fill(missing, 0.0)

    def apply(values: Tensor) -> Tensor:
        return (total * values - _neighbours(values)).masked_fill_(~missing, 0.0)

    filled = _solve(apply, _neighbours(known).masked_fill_(~missing, 0.0))
    if noise:
        generator = torch.Generator().manual_seed(seed)
        grain = torch.randn(images.shape, generator=generator).to(images.device)
        filled += noise * grain
    return torch.where(missing, filled, images)


def _neighbours(values: Tensor) -> Tensor:
    """Return the weighted sum of each pixel's neighbours: 1/6 over a side, 1/12 over a corner."""
    rows = 2 * values
    rows[..., 1:] += values[..., :-1]
    rows[..., :-1] += values[..., 1:]
    both = 2 * rows
    both[..., 1:, :] += rows[..., :-1, :]
    both[..., :-1, :] += rows[..., 1:, :]
    return both.sub_(values, alpha=4).div_(12)


def _solve(apply: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """Return x with ``apply(x) = wanted``, for each picture and channel on its own.

    Conjugate gradients (Hestenes & Stiefel 1952), until no residual is larger than `_TOLERANCE`.
    """

    def product(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum(dim=(2, 3), keepdim=True)

    found, residual, direction = torch.zeros_like(wanted), wanted.clone(), wanted.clone()
    size = product(residual, residual)
    for step in range(_MOST_STEPS):
        if step % _STEPS_BETWEEN_CHECKS == 0 and residual.abs().max() < _TOLERANCE:
            break
        applied = apply(direction)
        length = size / product(direction, applied).clamp_min(1e-30)
        found += length * direction
        residual -= length * applied
        before, size = size, product(residual, residual)
        direction = residual + size / before.clamp_min(1e-30) * direction
    return found


def mean_colour(images: Tensor, removed: Tensor) -> Tensor:
    """Set removed pixels to zero: the mean colour of the training pictures, once normalised.

    Args:
        images: float, N×C×H×W.
        removed: bool, N×H×W.
    """
    return images.masked_fill(removed[:, None], 0.0)


def blurred(images: Tensor, removed: Tensor) -> Tensor:
    """Put a blurred picture where pixels are removed: colours stay, and what has an outline goes.

    Args:
        images: float, N×C×S×S.
        removed: bool, N×S×S.
    """
    deviation = images.shape[-1] / 8
    size = 2 * round(2 * deviation) + 1
    return torch.where(
        removed[:, None], gaussian_blur(images, [size, size], [deviation] * 2), images
    )
