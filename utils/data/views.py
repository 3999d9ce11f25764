"""Pictures that may be more than memory holds: looked at in parts, and chosen without a copy."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

#: Bytes of pictures that are looked at together: a thousand of 32 pixels a side.
PART = 1_000 * 3 * 32**2
#: So many bytes of chosen pictures are copied, since a tensor can do more; more are a view.
MOST_COPIED = 2**28


class PictureView:
    """Some of many pictures, by their positions; only what is asked for is copied.

    Indexed like a tensor, it returns one. What else a tensor can do it leaves to `parts`.

    Args:
        whole: uint8, N×3×S×S; may be mapped from a file.
        positions: int64, M.
    """

    def __init__(self, whole: Tensor, positions: Tensor):
        self.whole, self.positions = whole, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index) -> Tensor:
        return self.whole[self.positions[index]]

    @property
    def shape(self) -> torch.Size:
        """M, 3, S, S."""
        return torch.Size((len(self), *self.whole.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """That of the whole."""
        return self.whole.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.whole.device

    @property
    def nbytes(self) -> int:
        """How much they are, in bytes."""
        return self.shape.numel() * self.whole.element_size()

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield them, so many at a time."""
        return (self.whole[positions] for positions in self.positions.split(size))

    def numpy(self) -> np.ndarray:
        """Return a copy of them in memory, which must have room for it."""
        return self[:].numpy()

    def to(self, device: torch.device) -> Tensor:
        """Return a copy of them on a device, for which memory here need not have room."""
        copied = torch.empty(self.shape, dtype=self.dtype, device=device)
        start = 0
        for part in parts(self):
            copied[start : start + len(part)] = part.to(device)
            start += len(part)
        return copied


#: Pictures, uint8 N×3×S×S: in memory, mapped from a file, or chosen from either.
Images = Tensor | PictureView


def parts(images: Images) -> Iterator[Tensor]:
    """Yield pictures in their order, at most ``PART`` bytes at a time, or one."""
    yield from images.split(max(1, PART // max(1, _bytes_of_one(images))))


def of_each(images: Images, look: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what is seen in each picture, looking at them part by part.

    Room for all of it is taken at first. If each part's were kept until the end instead, it could
    come to lie where the next part's large interim results do not fit beside it, and memory would
    grow by those with every part.

    Args:
        images: uint8, N×3×S×S.
        look: returns something for each picture of such a part: a tensor as long as the part.
    """
    found, start = None, 0
    for part in parts(images):
        seen = look(part)
        if found is None:
            found = seen.new_empty((len(images), *seen.shape[1:]))
        found[start : start + len(part)] = seen
        start += len(part)
    assert found is not None  # of no pictures there is one part, without any
    return found


def reduced(images: Images, side: int) -> Images:
    """Return pictures averaged to at most so many pixels a side: uint8, N×3×side×side."""
    if images.shape[-1] <= side:
        return images
    return of_each(images, lambda p: adaptive_avg_pool2d(p.float(), side).round().to(torch.uint8))


def chosen(images: Images, positions: Tensor) -> Images:
    """Return the pictures at these positions (int64, M): a copy where they are few, else a view."""
    if len(positions) * _bytes_of_one(images) <= MOST_COPIED:
        return images[positions]
    if isinstance(images, PictureView):
        return PictureView(images.whole, images.positions[positions])
    return PictureView(images, positions)


def _bytes_of_one(images: Images) -> int:
    return math.prod(images.shape[1:])
