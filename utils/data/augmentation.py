"""What is done to a training picture, as a value; `utils.data.augment` does it. Needs no torch."""

from dataclasses import dataclass
from inspect import signature

from utils import InputError, as_percent, brief, check_flag, check_number


@dataclass(frozen=True)
class Affine:
    """A picture moved, scaled and turned about its centre; its surroundings are its mirror image.

    Attributes:
        probability: of being changed at all.
        shift: by at most this share of the side, each way.
        scale: by a factor of at most so much more or less than 1.
        degrees: by at most so many, each way.

    Raises:
        InputError: a value is not of the right kind or out of its range.
    """

    probability: float = 0.5
    shift: float = 0.05
    scale: float = 0.1
    degrees: float = 25.0

    def __post_init__(self):
        check_number("affine probability", self.probability, 0.0, 1.0)
        check_number("affine shift", self.shift, 0.0, 0.5)
        check_number("affine scale", self.scale, 0.0, 0.5)
        check_number("affine degrees", self.degrees, 0.0, 180.0)

    def in_words(self) -> str:
        """Return what it does, as a sentence's part."""
        return (
            f"with probability {self.probability:g} moved by up to {as_percent(self.shift, 0)} of "
            f"its side, scaled by up to {as_percent(self.scale, 0)} and turned by up to "
            f"{self.degrees:g}°"
        )


@dataclass(frozen=True)
class Shrink:
    """A picture padded by its mirror image and resized to its old side, which makes it smaller.

    Attributes:
        probability: of being changed at all.
        padding: on each side, in pixels.

    Raises:
        InputError: a value is not of the right kind or out of its range.
    """

    probability: float = 0.5
    padding: int = 4

    def __post_init__(self):
        check_number("shrink probability", self.probability, 0.0, 1.0)
        check_number("shrink padding", self.padding, 0, 15, whole=True)

    def in_words(self) -> str:
        """Return what it does, as a sentence's part."""
        return (
            f"with probability {self.probability:g} made smaller, its surroundings of "
            f"{self.padding} pixels filled by reflection"
        )


@dataclass(frozen=True)
class Holes:
    """Black rectangles, each wholly inside the picture, overlapping as they fall.

    Attributes:
        probability: of having any.
        least, most: how many.
        shortest, longest: side in pixels; height and width are drawn apart.

    Raises:
        InputError: a value is not of the right kind or out of its range.
    """

    probability: float = 0.5
    least: int = 1
    most: int = 3
    shortest: int = 4
    longest: int = 20

    def __post_init__(self):
        check_number("holes probability", self.probability, 0.0, 1.0)
        check_number("least holes", self.least, 1, 64, whole=True)
        check_number("most holes", self.most, self.least, 64, whole=True)
        check_number("shortest side of a hole", self.shortest, 1, 256, whole=True)
        check_number("longest side of a hole", self.longest, self.shortest, 256, whole=True)

    def in_words(self) -> str:
        """Return what it does, as a sentence's part."""
        several = self.most > 1
        count = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        if self.shortest == self.longest:
            kind = f"{'squares' if several else 'square'} of {self.longest}×{self.longest} pixels"
        else:
            kind = f"{'rectangles' if several else 'rectangle'} with sides of "
            kind += f"{self.shortest} to {self.longest} pixels"
        return f"with probability {self.probability:g} {count} black {kind}"


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
        affine, shrink, holes: None for none.

    Raises:
        InputError: a value is not of the right kind or out of its range.
    """

    crop_padding: int = 4
    flip_probability: float = 0.5
    cutout_size: int = 8
    alternate_flips: bool = False
    jitter: float = 0.0
    affine: Affine | None = None
    shrink: Shrink | None = None
    holes: Holes | None = None

    def __post_init__(self):
        check_number("crop_padding", self.crop_padding, 0, 16, whole=True)
        check_number("flip_probability", self.flip_probability, 0.0, 1.0)
        check_number("cutout_size", self.cutout_size, 0, 64, whole=True)
        check_flag("alternate_flips", self.alternate_flips)
        check_number("jitter", self.jitter, 0.0, 0.5)
        for name, kind in (("affine", Affine), ("shrink", Shrink), ("holes", Holes)):
            object.__setattr__(self, name, _part(name, kind, getattr(self, name)))

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
        parts += [part.in_words() for part in (self.shrink, self.affine, self.holes) if part]
        if self.jitter:
            parts.append(f"contrast and brightness changed by up to {as_percent(self.jitter, 0)}")
        if self.cutout_size:
            size = f"{self.cutout_size}×{self.cutout_size}"
            parts.append(f"one square of {size} pixels set to the mean colour")
        return "; ".join(parts) or "left as it is"


def _part(name: str, kind: type, value):
    """Return a part as what it is; in ``run.json`` it stands as its fields."""
    if value is None or isinstance(value, kind):
        return value
    try:
        return kind(**value)
    except TypeError:
        raise InputError(f"{name} is {brief(value)}; it must have {_fields(kind)}.") from None


def _fields(kind: type) -> str:
    return ", ".join(signature(kind).parameters)


#: What leaves every picture as it is.
UNCHANGED = Augmentation(crop_padding=0, flip_probability=0.0, cutout_size=0)
