"""3×3 convolutions that are also fast on maps of a few pixels, in the place of plain ones.

The networks are written with plain convolutions, and `faster_convolutions` exchanges them. In
float32, DavidNet then learns from 1.6 times as many pictures a second, and SpeedNet from 1.2 times
as many (medians of 4 rounds in turn, two cores of an AMD EPYC with AVX-512).
"""

from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from utils.models.winograd import Tiling, convolve

#: Up to so many pixels a map, one matrix product is faster on a CPU than its convolution kernels:
#: at 4×4 and 512 channels a training step takes 0.4 of the time in bfloat16, 0.8 in float32.
SMALL_MAP = 16
#: Whether multiplying less pays in float32, as measured on AMD EPYCs with AVX-512 and without.
#: Kernels for Arm may do the same themselves.
WINOGRAD_PAYS = (
    torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    and torch.backends.mkl.is_available()
)
#: From how many pairs of channels, where weights are learned and where they are only used, and from
#: how many tiles in a batch. Below, turning tiles and weights takes longer than it saves.
PAIRS_TO_LEARN, PAIRS_TO_USE, LEAST_TILES = 64 * 128, 256 * 256, 64
#: What a `Conv3x3` can stand in for, in the attributes of `nn.Conv2d`.
PLAIN = {
    "kernel_size": (3, 3),
    "stride": (1, 1),
    "padding": (1, 1),
    "dilation": (1, 1),
    "groups": 1,
    "bias": None,
    "padding_mode": "zeros",
}


def faster_convolutions(network: nn.Module) -> None:
    """Put a `Conv3x3` in the place of every plain 3×3 convolution, over the very same weights.

    Names, order and values of all parameters stay, and so does torch's random generator.

    Args:
        network: whose layers are exchanged.
    """
    for parent in list(network.modules()):
        layers = [*parent.named_children(), ("", None)]
        for (name, layer), (_, following) in pairwise(layers):
            if _is_plain(layer):
                pooled = isinstance(parent, nn.Sequential) and halves(following)
                setattr(parent, name, _over(layer, even=pooled))


def plain_convolutions(network: nn.Module) -> None:
    """Put a plain convolution back in the place of every `Conv3x3`, over the very same weights.

    An exporter is to find one operation there, and not the matrix product.

    Args:
        network: whose layers are exchanged.
    """
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Conv3x3):
                with torch.device("meta"):  # draws no weights
                    channels = layer.in_channels, layer.out_channels
                    plain = nn.Conv2d(*channels, 3, padding=1, bias=False)
                plain.weight = layer.weight
                setattr(parent, name, plain)


def _is_plain(layer: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return type(layer) is nn.Conv2d and all(getattr(layer, n) == v for n, v in PLAIN.items())


def _over(plain: nn.Conv2d, even: bool) -> "Conv3x3":
    with torch.device("meta"):  # draws no weights
        faster = Conv3x3(plain.in_channels, plain.out_channels, even)
    faster.weight = plain.weight
    return faster


def halves(layer: nn.Module | None) -> bool:
    """Tell whether a layer is a 2×2 max-pool that leaves out an odd last row and column."""
    return isinstance(layer, nn.MaxPool2d) and repr(layer) == repr(nn.MaxPool2d(2))


class Conv3x3(nn.Conv2d):
    """3×3 convolution, padding 1, without bias: channels-last, on any map.

    Small maps on a CPU go through a matrix product (im2col; Chellapilla et al. 2006, "High
    Performance Convolutional Neural Networks for Document Processing"), and in float32, on x86, all
    of many channels through `utils.models.winograd`. Results differ from the kernels' by rounding
    alone.

    Args:
        in_channels, out_channels: of the maps.
        even: leave out an odd last row and column of the result, at which a 2×2 max-pool does not
            look: of a 7×7 map, a quarter of the work.
    """

    def __init__(self, in_channels: int, out_channels: int, even: bool = False):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)
        self.even = even

    def forward(self, input: Tensor) -> Tensor:
        """Map N×in_channels×H×W to N×out_channels×H×W, or to the even sides below."""
        x = input
        height, width = x.shape[-2:]
        cut_y, cut_x = (height % 2, width % 2) if self.even else (0, 0)
        if x.is_cpu:
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            if self._multiplies_less(x, dtype):
                return convolve(x, self.weight, height - cut_y, width - cut_x)
            if height * width <= SMALL_MAP:
                product = _Product.apply(x.to(dtype), self.weight.to(dtype))
                return product[..., : height - cut_y, : width - cut_x]
        if cut_y or cut_x:
            return conv2d(pad(x, (1, 1 - cut_x, 1, 1 - cut_y)), self.weight)
        return super().forward(x)

    def _multiplies_less(self, x: Tensor, dtype: torch.dtype) -> bool:
        """Tell whether Winograd's way is faster for N×in_channels×H×W, computed in a dtype."""
        if not WINOGRAD_PAYS or not dtype == x.dtype == self.weight.dtype == torch.float32:
            return False
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        pairs = self.in_channels * self.out_channels
        enough = pairs >= (PAIRS_TO_LEARN if learns else PAIRS_TO_USE)
        return enough and len(x) * Tiling.of(*x.shape[2:]).count >= LEAST_TILES


class _Product(torch.autograd.Function):
    """The convolution as a product of the neighbourhoods of all pixels with the weights."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        neighbours = _neighbours(x)
        ctx.save_for_backward(neighbours, weight)
        return _multiply(neighbours, weight, x.shape)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        neighbours, weight = ctx.saved_tensors
        out_channels, in_channels = weight.shape[:2]
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, out_channels)
        by_place = (rows.T @ neighbours).view(out_channels, 3, 3, in_channels)
        # what a pixel gave to its neighbours comes back through the weights turned by half
        turned = weight.flip(2, 3).transpose(0, 1)
        back = _multiply(_neighbours(gradient), turned, gradient.shape)
        return back, by_place.permute(0, 3, 1, 2)


def _neighbours(x: Tensor) -> Tensor:
    """Return the 3×3 neighbourhood of every pixel as a row: N·H·W × 9·C, zero outside."""
    windows = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[1])


def _multiply(neighbours: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    columns = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
    return (neighbours @ columns).view(shape[0], *shape[2:], columns.shape[1]).permute(0, 3, 1, 2)
