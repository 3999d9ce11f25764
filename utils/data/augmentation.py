"""What is done to a training picture, as a value; `utils.data.augment` does it. Needs no torch."""

from dataclasses import dataclass

from utils import check_flag, check_number


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training picture.

    Attributes:
        crop_padding: reflect-pad by this many pixels, then crop at random to the old size.
        flip_probability: flip left-right.
        cutout_size: side in pixels of one square set to the mean colour, its centre drawn over the
            whole picture (DeVries & Taylor 2017, "Cutout"); 0 for none.
        alternate_flips: draw the flip for the first epoch alone, then turn each picture round
            every epoch, so that any two epochs in a row show both sides (Jordan 2024, "94% on
            CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.6).
        jitter: multiply the contrast by at most so much more or less than 1, and move the
            brightness by at most so many standard deviations (after Howard 2013, "Some
            Improvements on Deep Convolutional Neural Network Based Image Classification").

    Raises:
        InputError: a value is not of the right kind or out of its range.
    """

    crop_padding: int = 4
    flip_probability: float = 0.5
    cutout_size: int = 8
    alternate_flips: bool = False
    jitter: float = 0.0

    def __post_init__(self):
        check_number("crop_padding", self.crop_padding, 0, 16, whole=True)
        check_number("flip_probability", self.flip_probability, 0.0, 1.0)
        check_number("cutout_size", self.cutout_size, 0, 64, whole=True)
        check_flag("alternate_flips", self.alternate_flips)
        check_number("jitter", self.jitter, 0.0, 0.5)

    def in_words(self) -> str:
        """Return what it does, as a sentence's end."""
        parts = []
        if self.crop_padding:
            parts.append(
                f"moved by up to {self.crop_padding} pixels, its edge filled by reflection"
            )
        if self.flip_probability and self.alternate_flips:
            parts.append("flipped left-right every other epoch")
        elif self.flip_probability:
            parts.append(f"flipped left-right with probability {self.flip_probability:g}")
        if self.jitter:
            parts.append(f"contrast and brightness changed by up to {self.jitter:.0%}")
        if self.cutout_size:
            size = f"{self.cutout_size}×{self.cutout_size}"
            parts.append(f"one square of {size} pixels set to the mean colour")
        return "; ".join(parts) or "left as it is"


#: What leaves every picture as it is.
UNCHANGED = Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0)
