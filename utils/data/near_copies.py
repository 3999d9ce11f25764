"""Near-copies: pictures that show the same, re-encoded, resized or mirrored.

There is one notion of them. A perceptual hash proposes pairs, and the pixels decide: among hashes,
as among a network's features, two pictures of one class may be as near as two copies. A folder's
audit looks for them among all of its pictures, and chapter 5 between the splits of any data set.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, cosine_similarity

from utils.data import copies
from utils.data.picture_set import Split

#: Two pictures are nearly the same where, averaged over 2×2 pixels, one of them mirrored or not
#: and shifted by a pixel or not, they correlate in their luma at least so much,
LEAST_CORRELATION = 0.95
#: and differ in their channels by at most so much on average; a pixel value is in 0…1.
MOST_DIFFERENCE = 0.06
#: What red, green and blue add to luma (ITU-R BT.601), as Pillow has it. JPEG keeps it well, and
#: halves the resolution of all else about colour.
LUMA = (0.299, 0.587, 0.114)
#: Side to which larger pictures are reduced before, so that one notion serves all sizes; it is
#: also the side that the perceptual hash is made from.
COMPARED = 32
#: Pairs are proposed whose hashes differ in at most so many of their 64 bits. Of 2,000 pictures of
#: CIFAR-10 (JPEG copy), all were within 8 bits of themselves at quality 50, and of 100,000 pairs of
#: different ones, one or two were within 12.
MOST_BITS = 12
#: Hashes, or pairs, that are compared at once; bounds memory.
ROWS = 500


def near_copies(test: Split, train: Split) -> np.ndarray:
    """Return for each test picture a training picture that is nearly the same; −1 where none is.

    Where the splits have groups, the audit has looked before: the answer is then of the same group,
    and nothing else. The test splits of CIFAR are known to have such pictures (Barz and Denzler
    2020, "Do We Train on Test Data?").

    Args:
        test, train: of the same data set.

    Returns:
        int64, N: positions in `train`, of the most alike where there are several.
    """
    if test.groups is None or train.groups is None:
        pairs, alike = near_pairs(test.images, train.images)
    else:
        rows = torch.isin(test.groups, train.groups).nonzero()[:, 0]
        pairs = (test.groups[rows, None] == train.groups).nonzero()
        pairs[:, 0] = rows[pairs[:, 0]]
        alike = _alike_either_way(test.images, train.images, pairs)
    copy_of = np.full(len(test), -1)
    ascending = alike.argsort(stable=True)  # the most alike is written last, and stays
    rows, columns = pairs[ascending].T.numpy()
    copy_of[rows] = columns
    return copy_of


def near_groups(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pictures of many belong together as copies or near-copies.

    What is nearly the same as a member is of the group, even where two members of it are not: a
    split must not part them.

    Args:
        images: uint8, N×3×S×S.

    Returns:
        for each picture the position of the first of its group, int64 N, and the pairs of nearly
        the same pictures, int64 P×2, the most alike first. Of pictures with the same pixels only
        the first is in pairs.
    """
    first = copies.first_copies(images)
    distinct, place = first.unique(return_inverse=True)
    pairs, alike = near_pairs(images[distinct] if len(distinct) < len(images) else images)
    group = distinct[connected(len(distinct), pairs)[place]]
    return group, distinct[pairs[alike.argsort(descending=True, stable=True)]]


def connected(count: int, pairs: Tensor) -> Tensor:
    """Return for each of `count` things the first that pairs connect it with: int64, N.

    >>> connected(5, torch.tensor([[3, 4], [1, 3]])).tolist()
    [0, 1, 2, 1, 1]
    """
    group = torch.arange(count)
    while len(pairs):
        lowest = group[pairs].amin(1).repeat_interleave(2)
        lower = group.scatter_reduce(0, pairs.flatten(), lowest, "amin")
        lower = lower[lower]
        if torch.equal(lower, group):
            break
        group = lower
    return group


def near_pairs(first: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return which pictures are nearly the same, by ``LEAST_CORRELATION`` and ``MOST_DIFFERENCE``.

    Args:
        first: uint8, N×3×S×S.
        second: uint8, M×3×S×S; None looks among `first`, for each pair once.

    Returns:
        pairs, int64 P×2: positions in `first` and in `second`; and their correlation, float32 P.
    """
    first = _reduced(first)
    second = first if (within := second is None) else _reduced(second)
    hashes, found, alike = perceptual_hashes(second), [], []
    for mirrored in (False, True):
        own = hashes if within and not mirrored else perceptual_hashes(first, mirrored)
        proposed = _near_hashes(own, hashes, within)
        correlation = _alike(first, second, proposed, mirrored)
        near = correlation >= LEAST_CORRELATION
        found.append(proposed[near])
        alike.append(correlation[near])
    pairs, place = torch.cat(found).unique(dim=0, return_inverse=True)
    best = torch.full((len(pairs),), -1.0)
    return pairs, best.scatter_reduce(0, place, torch.cat(alike), "amax")


def perceptual_hashes(images: Tensor, mirrored: bool = False) -> Tensor:
    """Return the perceptual hash of each picture: float32 N×64, each bit as −1 or 1.

    Which of the 8×8 lowest frequencies of a cosine transform lie above their median, as imagehash
    computes it (Krawetz 2011, "Looks Like It").

    Args:
        images: uint8, N×3×S×S.
        mirrored: whether to take their mirror images instead.
    """
    import imagehash  # with SciPy, which is not to be imported where nothing is compared

    bits = []
    for part in images.split(ROWS):
        part = part.flip(3) if mirrored else part
        rows = part.permute(0, 2, 3, 1).contiguous().numpy()
        bits += [imagehash.phash(Image.fromarray(row)).hash.ravel() for row in rows]
    return 2 * torch.from_numpy(np.array(bits, np.float32).reshape(-1, 64)) - 1


def _near_hashes(first: Tensor, second: Tensor, within: bool) -> Tensor:
    """Return the pairs of hashes that differ in at most ``MOST_BITS``: int64, P×2.

    Args:
        first, second: from `perceptual_hashes`.
        within: whether both are of the same pictures; each pair is then returned once.
    """
    least = first.shape[1] - 2 * MOST_BITS
    found = [torch.empty(0, 2, dtype=torch.int64)]
    for start in range(0, len(first), ROWS):
        skipped = start if within else 0
        close = first[start : start + ROWS] @ second[skipped:].T >= least
        if within:
            close = close.triu(1)
        found.append(close.nonzero() + torch.tensor([start, skipped]))
    return torch.cat(found)


def _reduced(images: Tensor) -> Tensor:
    """Return pictures with at most ``COMPARED`` pixels a side: uint8, N×3×S×S."""
    if images.shape[-1] <= COMPARED:
        return images
    parts = [adaptive_avg_pool2d(part.float(), COMPARED) for part in images.split(ROWS)]
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def _alike_either_way(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    """Return `_alike` of pairs of any pictures, mirrored or not, whichever is more: float32, P."""
    first, second = _reduced(first), _reduced(second)
    ways = [_alike(first, second, pairs, mirrored) for mirrored in (False, True)]
    return torch.stack(ways).amax(0)


def _alike(first: Tensor, second: Tensor, pairs: Tensor, mirrored: bool) -> Tensor:
    """Return the correlation of pictures in pairs, float32 P; −1 where they differ too much.

    Args:
        first, second: uint8, N×3×S×S and M×3×S×S.
        pairs: int64, P×2: positions in both.
        mirrored: whether to compare the mirror images of `first`.
    """
    found = [torch.empty(0)]
    for part in pairs.split(ROWS):
        one = first[part[:, 0]]
        one = one.flip(3) if mirrored else one
        correlation, difference = _compare(one, second[part[:, 1]])
        found.append(correlation.where(difference <= MOST_DIFFERENCE, -1.0))
    return torch.cat(found)


def _compare(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return correlation and mean absolute difference of pictures in pairs: float32, N each.

    Of all shifts by at most a pixel, they are those of the one with the highest correlation.
    """
    first, second = first.float() / 255, second.float() / 255
    height, width = (side - 2 for side in first.shape[-2:])
    middle = _centred_luma(halved := avg_pool2d(first[..., 1:-1, 1:-1], 2))
    alike, difference = [], []
    for top in range(3):
        for left in range(3):
            other = avg_pool2d(second[..., top : top + height, left : left + width], 2)
            alike.append(_correlation(middle, _centred_luma(other)))
            difference.append((halved - other).abs().mean(dim=(1, 2, 3)))
    best, shift = torch.stack(alike).max(dim=0)
    return best, torch.stack(difference).gather(0, shift[None])[0]


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines of centred pictures in pairs; of two plain ones, 1."""
    plain = (first.norm(dim=1) < 1e-6) & (second.norm(dim=1) < 1e-6)
    return torch.where(plain, 1.0, cosine_similarity(first, second))


def _centred_luma(images: Tensor) -> Tensor:
    """Return the luma of pictures without its mean: float32, N×H·W."""
    luma = (images * torch.tensor(LUMA).view(3, 1, 1)).sum(1).flatten(1)
    return luma - luma.mean(1, keepdim=True)
