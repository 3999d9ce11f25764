"""DavidNet: the nine-layer residual network of David Page's DAWNBench entry (2018)."""

from torch import Tensor, nn

from utils.models.network import Head, Network


class ConvBlock(nn.Sequential):
    """3×3 convolution without bias → batch normalisation → ReLU, with 2×2 max-pool if asked.

    The original pools after the ReLU. The larger of four clipped values is the clipped larger of
    the four, so the order changes no result and no gradient, and this one clips a quarter as many.
    """

    def __init__(self, in_channels: int, out_channels: int, pool: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        if pool:
            self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU(inplace=True)


class Residual(nn.Module):
    """Two conv blocks; the input is added after the second ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.block1 = ConvBlock(channels, channels)
        self.block2 = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block2(self.block1(x))


class ResidualLayer(nn.Sequential):
    """A conv block that halves the picture, then a residual."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.down = ConvBlock(in_channels, out_channels, pool=True)
        self.residual = Residual(out_channels)


class DavidNet(Network):
    """DavidNet; 6,573,130 parameters at its defaults.

    Args:
        num_classes: length of the logits, at least 2.
        width: channels after the first block; later blocks have 2, 4 and 8 times as many.
        image_size: side of the input in pixels, a multiple of 8. The last pooling spans the whole
            map, which is 4×4 for the 32×32 pictures the network was made for, so it takes other
            multiples of 8 as well.

    Raises:
        InputError: a size the network cannot take.
    """

    blocks = ("prep", "layer1", "layer2", "layer3")
    size_step = 8

    def __init__(self, num_classes: int = 10, width: int = 64, image_size: int = 32):
        super().__init__(num_classes, width, image_size)
        self.prep = ConvBlock(3, width)
        self.layer1 = ResidualLayer(width, 2 * width)
        self.layer2 = ConvBlock(2 * width, 4 * width, pool=True)
        self.layer3 = ResidualLayer(4 * width, 8 * width)
        self.head = Head(nn.Linear(8 * width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N×3×S×S, float) to logits (N×num_classes)."""
        x = self.prep(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        return self.head(x)
