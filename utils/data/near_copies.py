"""Near-copies: pictures that show the same, re-encoded, resized or mirrored.

There is one notion of them. A perceptual hash proposes pairs, and the pixels decide: among hashes,
as among a network's features, two pictures of one class may be as near as two copies. A folder's
audit looks for them among all of its pictures, and chapter 5 between the splits of any data set.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity

from utils.data import copies
from utils.data.picture_set import Split
from utils.data.views import Images, chosen, reduced
from utils.progress import progress_bar

#: Two pictures are nearly the same where, averaged over 2×2 pixels, one of them mirrored or not
#: and shifted by a pixel or not, they correlate in their luma at least so much,
LEAST_CORRELATION = 0.96
#: and differ in their channels by at most so much on average; a pixel value is in 0…1.
MOST_DIFFERENCE = 0.06
#: Lumas that vary less, by their norm and in 0…255, are the same throughout but for rounding.
PLAIN = 1e-3
#: What red, green and blue add to luma (ITU-R BT.601), as Pillow has it. JPEG keeps it well, and
#: halves the resolution of all else about colour.
LUMA = (0.299, 0.587, 0.114)
#: Side to which larger pictures are reduced before, so that one notion serves all sizes; it is
#: also the side that the perceptual hash is made from.
COMPARED = 32
#: Pairs are proposed whose hashes differ in at most so many of their 64 bits. Of 2,000 pictures of
#: CIFAR-10 (JPEG copy), all were within 8 bits of themselves at quality 50; of a million pairs of
#: different ones two were within 8, and fifteen within 12.
MOST_BITS = 10
#: As many pairs are proposed for a picture at most, those of the nearest hashes: where all pictures
#: look much the same, such as digits, millions would be.
MOST_PROPOSED = 20
#: Comparing more pictures than these takes long enough to show progress.
MANY = 20_000
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


def near_groups(images: Images) -> tuple[Tensor, Tensor]:
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
    pairs, alike = near_pairs(chosen(images, distinct) if len(distinct) < len(images) else images)
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


def near_pairs(first: Images, second: Images | None = None) -> tuple[Tensor, Tensor]:
    """Return which pictures are nearly the same, by ``LEAST_CORRELATION`` and ``MOST_DIFFERENCE``.

    Args:
        first: uint8, N×3×S×S.
        second: uint8, M×3×S×S; None looks among `first`, for each pair once.

    Returns:
        pairs, int64 P×2: positions in `first` and in `second`; and their correlation, float32 P.
    """
    one = reduced(first, COMPARED)
    other = one if (within := second is None) else reduced(second, COMPARED)
    hashes, found, alike = perceptual_hashes(other), [], []
    ways = progress_bar(
        (False, True), description="Comparing pictures", unit="ways", is_visible=len(other) > MANY
    )
    for mirrored in ways:
        own = hashes if within and not mirrored else perceptual_hashes(one, mirrored)
        proposed = _near_hashes(own, hashes, within)
        correlation = _alike(one, other, proposed, mirrored)
        near = correlation >= LEAST_CORRELATION
        found.append(proposed[near])
        alike.append(correlation[near])
    pairs, place = torch.cat(found).unique(dim=0, return_inverse=True)
    best = torch.full((len(pairs),), -1.0)
    return pairs, best.scatter_reduce(0, place, torch.cat(alike), "amax")


def perceptual_hashes(images: Images, mirrored: bool = False) -> Tensor:
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
        agreeing = first[start : start + ROWS] @ second[skipped:].T
        close = agreeing >= least
        pairs = close.nonzero()
        if len(pairs) > MOST_PROPOSED * len(close):
            close = close.triu(1) if within else close
            pairs = _nearest(agreeing.where(close, -1.0)).nonzero()
        pairs += torch.tensor([start, skipped])
        found.append(pairs[pairs[:, 0] < pairs[:, 1]] if within else pairs)
    return torch.cat(found)


def _nearest(agreeing: Tensor) -> Tensor:
    """Return which hashes are among the nearest of each row, at most ``MOST_PROPOSED``: bool, R×M.

    Args:
        agreeing: float32, R×M: how much they agree, −1 where they are not near.
    """
    values, columns = agreeing.topk(min(MOST_PROPOSED, agreeing.shape[1]), dim=1)
    return torch.zeros_like(agreeing, dtype=torch.bool).scatter_(1, columns, values >= 0)


def _alike_either_way(first: Images, second: Images, pairs: Tensor) -> Tensor:
    """Return `_alike` of pairs of any pictures, mirrored or not, whichever is more: float32, P."""
    one, other = reduced(first, COMPARED), reduced(second, COMPARED)
    ways = [_alike(one, other, pairs, mirrored) for mirrored in (False, True)]
    return torch.stack(ways).amax(0)


def _alike(first: Images, second: Images, pairs: Tensor, mirrored: bool) -> Tensor:
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
        found.append(_compare(one, second[part[:, 1]]))
    return torch.cat(found)


def _compare(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation of two pictures each; −1 where they differ too much: float32, N.

    Of all shifts by at most a pixel, both are those of the one with the highest correlation.

    Args:
        first, second: uint8, N×3×S×S.
    """
    height, width = (side - 2 for side in first.shape[-2:])
    middle, alike = _halved(_luma(first)[..., 1:-1, 1:-1]), []
    luma = _luma(second)
    for shift in range(9):
        top, left = divmod(shift, 3)
        other = _halved(luma[..., top : top + height, left : left + width])
        alike.append(_correlation(middle, other))
    correlation, best = torch.stack(alike).max(dim=0)
    for shift in range(9):
        top, left = divmod(shift, 3)
        near = ((correlation >= LEAST_CORRELATION) & (best == shift)).nonzero()[:, 0]
        other = _halved(second[near, :, top : top + height, left : left + width])
        apart = (_halved(first[near, :, 1:-1, 1:-1]) - other).abs().mean(dim=(1, 2, 3))
        correlation[near[apart > 255 * MOST_DIFFERENCE]] = -1
    return correlation


def _halved(images: Tensor) -> Tensor:
    """Return pictures averaged over 2×2 pixels, as float32."""
    return avg_pool2d(images.float(), 2)


def _luma(images: Tensor) -> Tensor:
    """Return the luma of pictures, float32 N×1×S×S, from 0 to 255."""
    return (images * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlations of luma in pairs, float32 N; of two plain ones, 1."""
    first, second = (luma.flatten(1) - luma.mean(dim=(2, 3)) for luma in (first, second))
    plain = (first.norm(dim=1) < PLAIN) & (second.norm(dim=1) < PLAIN)
    return torch.where(plain, 1.0, cosine_similarity(first, second))
