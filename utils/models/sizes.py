"""What sizes of pictures a network takes."""

from torch import nn

from utils import InputError, shown

SMALLEST = 16


def check_image_size(network: type[nn.Module], image_size: int) -> None:
    """Refuse pictures that a network cannot take.

    Args:
        network: its class, whose ``size_step`` divides every size that it takes.
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
        f"image_size is {shown(image_size)}; {network.__name__} halves the picture three times, "
        f"so it must be {wanted}."
    )
