"""A 3×3 convolution with a quarter of the multiplications, for processors that make few a second.

Winograd's minimal filtering (Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural
Networks", section 4.1): a square of 4×4 pixels of the result takes 36 products for each pair of
channels, and not 144. Tiles of 6×6 pixels, filters of 3×3 weights, and the products of both are
turned by small matrices of constants; what is left is 36 matrix products over the channels. Where
squares of 3×3 or 2×2 pixels fit the map better, they are taken.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

#: Sides of the squares of the result, and by how much more a tile sees.
GIVEN, MORE = (4, 3, 2), 2
#: Where the polynomials are evaluated whose product a convolution is: the first of these as far as
#: they are needed, and infinity. They round off half as much as the usual 0, ±1, ±2 do.
POINTS = (0, 0.75, -0.75, 1.5, -1.5)
#: How many bytes of turned tiles are made at a time: as many as a processor's cache may hold.
AT_A_TIME = 16_000_000


@dataclass(frozen=True)
class Tiling:
    """How a map is cut into tiles.

    Attributes:
        given: side of the square of the result that a tile gives, in pixels.
        down, across: how many tiles there are.
    """

    given: int
    down: int
    across: int

    @classmethod
    def of(cls, rows: int, columns: int) -> "Tiling":
        """Return the one that takes the fewest products for a result of this size."""
        tilings = (cls(given, -(-rows // given), -(-columns // given)) for given in GIVEN)
        return min(tilings, key=lambda tiling: tiling.count * tiling.seen**2)

    @property
    def seen(self) -> int:
        """Side of what a tile sees."""
        return self.given + MORE

    @property
    def count(self) -> int:
        """How many tiles a picture has."""
        return self.down * self.across

    def tiles(self, x: Tensor) -> Tensor:
        """Return what each tile sees of N×C×H×W, zero outside: T × seen² × C."""
        height, width = x.shape[2:]
        below, right = self.down * self.given + 1 - height, self.across * self.given + 1 - width
        padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        windows = padded.unfold(1, self.seen, self.given).unfold(2, self.seen, self.given)
        return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, self.seen**2, x.shape[1])

    def squares(self, result: Tensor) -> Tensor:
        """Return the part of a result (N×D×rows×columns) that each tile gave: T × given² × D."""
        rows, columns = result.shape[2:]
        below, right = self.down * self.given - rows, self.across * self.given - columns
        padded = pad(result.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below))
        cut = padded.reshape(len(result), self.down, self.given, self.across, self.given, -1)
        return cut.transpose(2, 3).reshape(-1, self.given**2, result.shape[1])

    def laid_out(self, tiles: Tensor) -> Tensor:
        """Return T × side² × C as a view of N × down × side × across × side × C."""
        side = round(tiles.shape[1] ** 0.5)
        cells = tiles.view(-1, self.down, self.across, side, side, tiles.shape[2])
        return cells.transpose(2, 3)

    def overlapped(self, tiles: Tensor, height: int, width: int) -> Tensor:
        """Return the sum of what tiles (T × seen² × C) say of each pixel they see: N×C×H×W."""
        given, cells = self.given, self.laid_out(tiles)
        sides = len(cells), self.down + 1, given, self.across + 1, given, tiles.shape[2]
        total = tiles.new_zeros(sides)
        total[:, :-1, :, :-1] = cells[:, :, :given, :, :given]
        total[:, 1:, :MORE, :-1] += cells[:, :, given:, :, :given]
        total[:, :-1, :, 1:, :MORE] += cells[:, :, :given, :, given:]
        total[:, 1:, :MORE, 1:, :MORE] += cells[:, :, given:, :, given:]
        whole = total.flatten(3, 4).flatten(1, 2)
        return whole[:, 1 : height + 1, 1 : width + 1].permute(0, 3, 1, 2)


def convolve(x: Tensor, weight: Tensor, rows: int, columns: int) -> Tensor:
    """Return a 3×3 convolution with padding 1, which has gradients.

    Its rounding errors are about twice as large as a plain one's.

    Args:
        x: floating point, N×C×H×W; channels-last, or it is copied.
        weight: D×C×3×3, of the same dtype.
        rows, columns: of the result: H and W, or one less, where a last one is not wanted.

    Returns:
        N×D×rows×columns, channels-last.
    """
    return _Winograd.apply(x, weight, rows, columns)


@cache
def transforms(given: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return what turns a tile (seen² × seen²), a filter (seen² × 9), and the products of both
    (given² × seen²).

    On a line, with V(n) the n first powers of each point, a filter g becomes V(3)·g, a tile d the
    transposed inverse of V(seen) times d, and their products p the result V(given)ᵀ·p: a product
    of polynomials from its values, transposed. For a square, rows and columns are each turned so,
    which is one product with the matrix's Kronecker square.
    """
    points = POINTS[: given + MORE - 1]

    def powers(count: int) -> np.ndarray:
        return np.vstack([np.vander(points, count, increasing=True), np.eye(count)[-1]])

    tile, kernel, result = (
        torch.from_numpy(np.kron(each, each)).to(dtype)
        for each in (np.linalg.inv(powers(given + MORE)).T, powers(3), powers(given).T)
    )
    return tile, kernel, result


class _Winograd(torch.autograd.Function):
    """A few pictures at a time."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, rows: int, columns: int) -> Tensor:
        tiling, channels, count = Tiling.of(rows, columns), weight.shape[1], len(weight)
        tile, kernel, result = transforms(tiling.given, x.dtype)
        filters = (kernel @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, channels, count)
        turned = tiling.count * tiling.seen**2 * max(channels, count) * x.element_size()
        few = max(1, AT_A_TIME // turned)
        given = tiling.given
        output = x.new_empty(len(x), tiling.down, given, tiling.across, given, count)
        for pictures, outputs in zip(x.split(few), output.split(few), strict=True):
            products = _by_place(_turned(tile, tiling.tiles(pictures)), filters)
            outputs.copy_(tiling.laid_out(_turned(result, products)))
        ctx.save_for_backward(x, filters)
        ctx.tiling, ctx.few = tiling, few
        return output.flatten(3, 4).flatten(1, 2)[:, :rows, :columns].permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, filters = ctx.saved_tensors
        tile, kernel, result = transforms(ctx.tiling.given, x.dtype)
        back = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_filters = torch.zeros_like(filters) if ctx.needs_input_grad[1] else None
        for start in range(0, len(x), ctx.few):
            few = slice(start, start + ctx.few)
            products = _turned(result.T, ctx.tiling.squares(gradients[0][few]))
            if of_filters is not None:
                tiles = _turned(tile, ctx.tiling.tiles(x[few]))
                of_filters.baddbmm_(tiles.permute(1, 2, 0), products.transpose(0, 1))
            if back is not None:
                tiles = _turned(tile.T, _by_place(products, filters.mT))
                back[few] = ctx.tiling.overlapped(tiles, *x.shape[2:])
        if of_filters is None:
            return back, None, None, None
        of_weight = (kernel.T @ of_filters.flatten(1)).view(3, 3, *filters.shape[1:])
        return back, of_weight.permute(3, 2, 0, 1), None, None


def _turned(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Return the places of each tile (T × places × C) turned by a matrix."""
    return torch.bmm(matrix.expand(len(tiles), *matrix.shape), tiles)


def _by_place(tiles: Tensor, filters: Tensor) -> Tensor:
    """Return the products of tiles (T × places × C) with a matrix a place: T × places × D."""
    return torch.bmm(tiles.transpose(0, 1), filters).transpose(0, 1)
