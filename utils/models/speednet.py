"""SpeedNet: the small network that the recipe ``speed`` trains."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from utils.models.network import Head, Network


class Whitening(nn.Conv2d):
    """2×2 convolution whose outputs are uncorrelated, and as large as each other, on pictures.

    Its weights are the directions in which 2×2 patches of the training pictures vary, each scaled
    to unit variance, and their negatives, so that a ReLU after it loses nothing (Page 2019, "How
    to Train Your ResNet 8"). `init_from_pictures` computes them; until then, this is an ordinary
    convolution.
    """

    def __init__(self):
        super().__init__(3, 24, 2, bias=False)

    @torch.no_grad()
    def init_from_pictures(self, batches: Iterable[Tensor], floor: float = 5e-4) -> None:
        """Set the weights from pictures, and keep them from being learned.

        Args:
            batches: of pictures (float, N×3×S×S, normalised).
            floor: added to each variance, so that noise is not blown up.
        """
        products, count = torch.zeros(12, 12, dtype=torch.float64), 0
        for images in batches:
            # in float64: some variances nearly agree, and rounding would turn their directions
            windows = images.double().unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5)
            patches = windows.reshape(-1, 12)
            products += patches.T @ patches
            count += len(patches)
        variances, directions = torch.linalg.eigh(products / count)
        scaled = (directions / (variances + floor).sqrt()).T.reshape(12, 3, 2, 2)
        self.weight.copy_(torch.cat([scaled, -scaled]))
        self.weight.requires_grad = False


class Norm(nn.BatchNorm2d):
    """Batch normalisation with a bias but no scale, which the next convolution can learn."""

    def __init__(self, channels: int):
        super().__init__(channels, momentum=0.4)  # a short training needs a short memory
        self.weight.requires_grad = False


class Block(nn.Sequential):
    """Two 3×3 convolutions; the first is followed by a 2×2 max-pool.

    Pooling comes before normalisation and activation, which then have a quarter to do. At the
    start each convolution hands its input on unchanged (Jordan 2024, section 3.3).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = Norm(out_channels)
        self.act1 = nn.SiLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = Norm(out_channels)
        self.act2 = nn.SiLU()
        for convolution in (self.conv1, self.conv2):
            nn.init.dirac_(convolution.weight.data[: convolution.in_channels])


class SpeedNet(Network):
    """A whitening layer, three blocks of two convolutions, and a linear head.

    The plan is that of the network in "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (Jordan
    2024).

    Args:
        num_classes: length of the logits, at least 2.
        width: channels of the first block; the others have four times as many.
        image_size: side of the input in pixels, at least 16.

    Raises:
        InputError: a size the network cannot take.
    """

    blocks = ("block1", "block2", "block3")
    begins_from_pictures = True
    size_step = 1

    def __init__(self, num_classes: int = 10, width: int = 64, image_size: int = 32):
        super().__init__(num_classes, width, image_size)
        self.whitening = Whitening()
        self.activation = nn.SiLU()
        self.block1 = Block(24, width)
        self.block2 = Block(width, 4 * width)
        self.block3 = Block(4 * width, 4 * width)
        linear = nn.Linear(4 * width, num_classes, bias=False)
        nn.init.normal_(linear.weight, std=1 / (4 * width))  # begins without an opinion
        self.head = Head(linear)

    def init_from_pictures(self, batches: Iterable[Tensor]) -> None:
        """Set the whitening layer from batches of training pictures (N×3×S×S, normalised)."""
        self.whitening.init_from_pictures(batches)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N×3×S×S, float) to logits (N×num_classes)."""
        x = self.activation(self.whitening(x))
        x = self.block1(x)
        x = self.block2(x)
        x = self.block3(x)
        return self.head(x)
