"""What every network of the registry says of itself, and what sizes of pictures it takes."""

from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn

from utils import InputError, brief


class Network(nn.Module):
    """A network that maps pictures (N×3×S×S, float) to logits (N×num_classes).

    Attributes:
        blocks: names of the submodules whose class activation maps make sense, in forward order.
        size_step: divides the side of every picture that it takes.
        smallest: side of the smallest that it takes, in pixels.
        depthwise: whether most of its convolutions look at one channel each; a CPU computes those
            more slowly in bfloat16 than in float32 (measured on an AMD EPYC with AVX-512 BF16).
        begins_from_pictures: whether some weights depend on the training pictures, and
            `init_from_pictures` sets them.
        usual, halvings: some sides that it takes, and how often it halves them, in words.

    Args:
        num_classes: length of the logits, at least 2.
        width: channels after the first block.
        image_size: side of the input in pixels.

    Raises:
        InputError: a size the network cannot take.
    """

    blocks: ClassVar[tuple[str, ...]]
    size_step: ClassVar[int]
    smallest: ClassVar[int] = 16
    depthwise: ClassVar[bool] = False
    begins_from_pictures: ClassVar[bool] = False
    usual: ClassVar[str] = "32, 48 or 64"
    halvings: ClassVar[str] = "three"

    def __init__(self, num_classes: int = 10, width: int = 64, image_size: int = 32):
        super().__init__()
        check_image_size(type(self), image_size)

    def lag(self, block: str) -> int:
        """Return by how many pixels a block's cells look above, and left of, their own place.

        Nothing where each cell sees around its middle, as where pooling halves the side.
        """
        return 0

    def init_from_pictures(self, batches: Iterable[Tensor]) -> None:
        """Set those weights that depend on the training pictures: here, none.

        Args:
            batches: of pictures (float, N×3×S×S, normalised), so that few are held at a time.
        """


class Head(nn.Sequential):
    """A number for each channel, wherever it lies, and a linear layer on these.

    Args:
        linear: the layer.
        pool: what makes the number; None takes the largest value.
    """

    def __init__(self, linear: nn.Linear, pool: nn.Module | None = None):
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1) if pool is None else pool
        self.flatten = nn.Flatten()
        self.linear = linear


def check_image_size(network: type[Network], image_size: int) -> None:
    """Refuse pictures that a network cannot take.

    Args:
        network: its class.
        image_size: side of the pictures in pixels.

    Raises:
        InputError: with what it takes.
    """
    step, smallest = network.size_step, network.smallest
    if isinstance(image_size, int) and image_size >= smallest and image_size % step == 0:
        return
    wanted = f"a whole number, at least {smallest}"
    if step > 1:
        wanted = f"a multiple of {step}, at least {smallest} (for example {network.usual})"
    raise InputError(
        f"image_size is {brief(image_size)}; {network.__name__} halves the picture "
        f"{network.halvings} times, so it must be {wanted}."
    )
