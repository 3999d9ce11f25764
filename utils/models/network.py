"""What every network of the registry says of itself, and what sizes of pictures it takes."""

from typing import ClassVar

from torch import Tensor, nn

from utils import InputError, brief

SMALLEST = 16


class Network(nn.Module):
    """A network that maps pictures (N×3×S×S, float) to logits (N×num_classes).

    Attributes:
        blocks: names of the submodules whose class activation maps make sense, in forward order.
        size_step: divides the side of every picture that it takes.

    Args:
        num_classes: length of the logits, at least 2.
        width: channels after the first block.
        image_size: side of the input in pixels.

    Raises:
        InputError: a size the network cannot take.
    """

    blocks: ClassVar[tuple[str, ...]]
    size_step: ClassVar[int]

    def __init__(self, num_classes: int = 10, width: int = 64, image_size: int = 32):
        super().__init__()
        check_image_size(type(self), image_size)

    def init_from_pictures(self, images: Tensor) -> None:
        """Set those weights that depend on the training pictures: here, none.

        Args:
            images: float, N×3×S×S, normalised.
        """


class Head(nn.Sequential):
    """The largest value of each channel, wherever it lies, and a linear layer on these."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)
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
    step = network.size_step
    if isinstance(image_size, int) and image_size >= SMALLEST and image_size % step == 0:
        return
    wanted = f"a whole number, at least {SMALLEST}"
    if step > 1:
        wanted = f"a multiple of {step}, at least {SMALLEST} (for example 32, 48 or 64)"
    raise InputError(
        f"image_size is {brief(image_size)}; {network.__name__} halves the picture three times, "
        f"so it must be {wanted}."
    )
