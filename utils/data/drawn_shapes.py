"""The embedded data set: pictures of ten kinds of drawn object, made on the spot with NumPy.

Each picture shows one object, lighter than its textured background, among loose sticks and often
with one lying across it. Place, size, rotation, colour and texture are drawn without looking at
the class, and all objects are scaled to the same area, so that only the outline tells the classes
apart. No class turns into another by rotation or reflection: both are safe augmentations.

Coordinates: a picture spans [-1, 1] in x (rightwards) and y (downwards), at every image size.
An outline is a signed distance, negative inside, which also gives the share of each pixel that
is covered, and with it soft edges without supersampling.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

TRAIN_SIZE = 8_000
TEST_SIZE = 2_000
MIN_IMAGE_SIZE = 16

# Difficulty, tuned so that DavidNet is right in most of the test pictures after three epochs and
# still makes mistakes worth explaining when trained for longer. What makes or breaks so short a
# training is that objects are always lighter than the ground: with random polarity three epochs
# do not get far. Small, pale and occluded objects are what remains hard.
OBJECT_AREA = (0.07, 0.26)  # share of the picture; the smallest are eight pixels wide at 32×32
CONTRAST = (0.25, 0.80)  # distance between object and ground in RGB, a channel being 0…1
GRAIN = (0.01, 0.04)  # standard deviation of the noise in each pixel
TEXTURE = (0.03, 0.10)  # amplitude of the slow changes of colour
CLUTTER_COUNT = 4
OCCLUDED_SHARE = 0.4  # pictures with a stick across the object
# In units of the object's size, which is the square root of its area. Half a stick's width stays
# below 0.3, as every object is wider than that in all directions and so cannot vanish behind it.
OCCLUDER_RADIUS = (0.06, 0.26)
OCCLUDER_OFFSET = 0.5  # furthest a stick's middle is from the object's, in x and in y

#: What a picture is made of, from the front to the back.
PARTS = ("object", "occluder", "clutter", "background")

_TEXTURE_CELLS = 5  # knots on a side of the random grid that textures are interpolated from
_BLOCK = 500  # pictures drawn together; part of the data set's definition, as each has its stream
_CACHED = 500_000  # bytes of pictures painted at once, in float32; more do not stay in a cache
_SPLITS = {"train": TRAIN_SIZE, "test": TEST_SIZE}


@dataclass(frozen=True)
class DrawnPictures:
    """Pictures with their classes and the objects' visible support.

    Attributes:
        images: uint8, N×3×S×S, RGB.
        targets: int64, N, an index into CLASSES.
        masks: bool, N×S×S, true where the object makes up more than half of what the pixel shows.
            Occluders, and the holes of a ring or a frame, are left out. Never empty.
    """

    images: np.ndarray
    targets: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Sticks:
    """Straight bars, K to a picture; one whose radius (half its width) is -1 is not drawn.

    centre: N×K×2; angle (radians), half_length, radius: N×K; colour: N×K×3 in 0…1.
    """

    centre: np.ndarray
    angle: np.ndarray
    half_length: np.ndarray
    radius: np.ndarray
    colour: np.ndarray

    def at(self, chosen: np.ndarray) -> "Sticks":
        """Return those of some pictures, by their positions: int64, M."""
        return Sticks(**{name: values[chosen] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Scenes:
    """What there is to draw in N pictures, at no particular resolution.

    targets: int64 N; centre: N×2; size (square root of the object's area), angle (radians): N;
    colour, background: N×3 in 0…1; object_texture, background_texture: N×3×G×G, added to these;
    grain: N, the noise's standard deviation; grain_seed: where that noise starts;
    clutter lies behind the object, occluders in front of it.
    """

    targets: np.ndarray
    centre: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    colour: np.ndarray
    background: np.ndarray
    object_texture: np.ndarray
    background_texture: np.ndarray
    grain: np.ndarray
    grain_seed: int
    clutter: Sticks
    occluders: Sticks

    def at(self, chosen: np.ndarray) -> "Scenes":
        """Return those at some positions (int64, M); the noise still starts where it did."""
        values = {name: v[chosen] for name, v in vars(self).items() if isinstance(v, np.ndarray)}
        sticks = {name: getattr(self, name).at(chosen) for name in ("clutter", "occluders")}
        return replace(self, **values, **sticks)


# Signed distances to the outlines, in the object's own frame.


def _disc(x, y):
    return np.sqrt(x * x + y * y) - 1


def _ring(x, y):
    return np.abs(_disc(x, y) + 0.2) - 0.2


def _square(x, y):
    return np.maximum(np.abs(x), np.abs(y)) - 1


def _frame(x, y):
    return np.abs(_square(x, y) + 0.2) - 0.2


def _two_outermost_sides(x, y, sides):
    """Return the two largest signed distances to the side lines of a polygon of inradius 1."""
    largest = second = np.full_like(x, -np.inf)
    for k in range(sides):
        turn = 2 * math.pi * k / sides
        distance = x * math.cos(turn) + y * math.sin(turn) - 1
        second = np.maximum(second, np.minimum(largest, distance))
        largest = np.maximum(largest, distance)
    return largest, second


def _triangle(x, y):
    return _two_outermost_sides(x, y, 3)[0]


def _pentagon(x, y):
    return _two_outermost_sides(x, y, 5)[0]


def _star(x, y):
    # A pentagram is the set of points outside at most one side line of the pentagon within it.
    return _two_outermost_sides(x, y, 5)[1]


def _cross(x, y):
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.36, np.maximum(x, y) - 1)


def _crescent(x, y):
    return np.maximum(_disc(x - 0.3, y), 0.85 - np.sqrt((x - 0.9) ** 2 + y * y))


def _heart(x, y):
    # The lower part of a square standing on its corner, and two discs with a cleft between them.
    x, y = np.abs(x), y - 0.3
    wedge = np.maximum((x + np.abs(y)) * math.sqrt(0.5) - 1, -0.9 - y)
    lobe = np.sqrt((x - 0.85) ** 2 + (y + 0.6) ** 2) - 0.9
    return np.minimum(wedge, lobe)


SignedDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Each outline with the area it encloses, by which all are brought to the same area.
_OUTLINES: dict[str, tuple[SignedDistance, float]] = {
    "disc": (_disc, math.pi),
    "ring": (_ring, math.pi * (1 - 0.6**2)),
    "square": (_square, 4.0),
    "frame": (_frame, 4 * (1 - 0.6**2)),
    "triangle": (_triangle, 3 * math.tan(math.pi / 3)),
    "pentagon": (_pentagon, 5 * math.tan(math.pi / 5)),
    "star": (_star, 11.756),
    "cross": (_cross, 8 * 0.36 - 4 * 0.36**2),
    "crescent": (_crescent, 1.563),
    "heart": (_heart, 6.578),
}
CLASSES: tuple[str, ...] = tuple(_OUTLINES)


def draw_split(
    split: str,
    seed: int = 0,
    image_size: int = 32,
    count: int | None = None,
    into: tuple[np.ndarray, np.ndarray] | None = None,
) -> DrawnPictures:
    """Draw the pictures of a split, always the same for the same arguments.

    Platforms may differ in a few pixels by one level, where their sines round differently.

    Args:
        split: "train" or "test", which share no randomness.
        seed: a non-negative integer.
        image_size: pixels on a side. The scenes are the same at every size, only finer.
        count: how many pictures (default: TRAIN_SIZE or TEST_SIZE). A smaller count gives the
            first pictures of a larger one. Classes are balanced to within one for every count.
        into: arrays to draw pictures and masks into, such as of a file; None makes them in memory.

    Raises:
        ValueError: an unknown split, an image_size below MIN_IMAGE_SIZE, a count below 1 or a
            negative seed.
    """
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(map(repr, _SPLITS))}")
    if image_size < MIN_IMAGE_SIZE:
        raise ValueError(
            f"image_size is {image_size}, but the objects cannot be told apart below "
            f"{MIN_IMAGE_SIZE} pixels: use {MIN_IMAGE_SIZE} or more (32 is usual)"
        )
    count = _SPLITS[split] if count is None else count
    if count < 1:
        raise ValueError(f"count is {count}: ask for at least one picture")
    if seed < 0:
        raise ValueError(f"seed is {seed}: use zero or a positive integer")

    if into is None:
        shape = image_size, image_size
        into = np.empty((count, 3, *shape), np.uint8), np.empty((count, *shape), bool)
    pictures = DrawnPictures(into[0], np.empty(count, np.int64), into[1])
    for here, scenes in _blocks(split, seed, count):
        wanted = np.arange(here.stop - here.start)
        pictures.images[here], shares = render(scenes, image_size, chosen=wanted)
        pictures.targets[here] = scenes.targets[wanted]
        pictures.masks[here] = shares["object"] > 0.5
    return pictures


def _blocks(split: str, seed: int, count: int) -> Iterator[tuple[slice, Scenes]]:
    """Yield where each block of pictures stands, and its scenes, of which the last has too many."""
    for start in range(0, count, _BLOCK):
        entropy = np.random.SeedSequence([seed, list(_SPLITS).index(split), start])
        scenes = sample_scenes(np.random.Generator(np.random.PCG64(entropy)), _BLOCK)
        yield slice(start, min(start + _BLOCK, count)), scenes


@dataclass(frozen=True)
class DrawnParts:
    """Pictures of a split, each drawn again without one of its parts.

    Attributes:
        images: the whole pictures, uint8, N×3×S×S: `draw_split`'s.
        without: by part (`PARTS`), the pictures without it: uint8, N×3×S×S.
        regions: by part, where it makes up most of what a pixel shows: bool, N×S×S. Every pixel
            belongs to one part.
    """

    images: np.ndarray
    without: dict[str, np.ndarray]
    regions: dict[str, np.ndarray]


def draw_parts(
    positions: np.ndarray, split: str = "test", seed: int = 0, image_size: int = 32
) -> DrawnParts:
    """Draw some of a split's pictures, and each again without one of its `PARTS`.

    All else is drawn the same, to the last grain of noise. Instead of its own, a picture has the
    background of the next, nowhere lighter than its own was: an object stays lighter than what is
    behind it.

    Args:
        positions: int64, N: which pictures of the split.
        split, seed, image_size: as in `draw_split`.
    """
    images = np.empty((len(positions), 3, image_size, image_size), np.uint8)
    without = {part: np.empty_like(images) for part in PARTS}
    regions = {part: np.empty((len(images), *images.shape[2:]), bool) for part in PARTS}
    for block, scenes in _blocks(split, seed, int(positions.max(initial=-1)) + 1):
        here = np.flatnonzero((positions >= block.start) & (positions < block.stop))
        chosen = positions[here] - block.start
        images[here], shares = render(scenes, image_size, chosen=chosen)
        most = np.stack([shares[part] for part in PARTS]).argmax(axis=0)
        for place, part in enumerate(PARTS):
            without[part][here], _ = render(scenes, image_size, part, chosen)
            regions[part][here] = most == place
    return DrawnParts(images, without, regions)


def sample_scenes(rng: np.random.Generator, count: int) -> Scenes:
    """Draw at random what `count` pictures show. Only `targets` depends on the class.

    Classes come in shuffled runs of all ten, so that they are balanced wherever a list is cut.
    """
    rounds = -(-count // len(CLASSES))
    targets = rng.permuted(np.tile(np.arange(len(CLASSES)), (rounds, 1)), axis=1).ravel()[:count]
    # Uniform in length rather than area, or most objects would be large.
    low, high = np.sqrt(OBJECT_AREA)
    size = 2 * rng.uniform(low, high, count)
    # The centre keeps a distance from the border that fits the size; pointed objects may be cut.
    centre = rng.uniform(-1, 1, (count, 2)) * (1 - 0.65 * size)[:, None]
    background = rng.uniform(0.1, 0.5, (count, 3))
    return Scenes(
        targets=targets.astype(np.int64),
        centre=centre,
        size=size,
        angle=rng.uniform(0, 2 * math.pi, count),
        colour=_lighter_colour(rng, background),
        background=background,
        object_texture=_sample_texture(rng, count),
        background_texture=_sample_texture(rng, count),
        grain=rng.uniform(*GRAIN, count),
        grain_seed=int(rng.integers(2**32)),
        clutter=_sample_clutter(rng, background),
        occluders=_sample_occluders(rng, background, centre, size),
    )


def _lighter_colour(rng, background):
    """Return N×3 colours lighter than N backgrounds in all channels, by a distance in CONTRAST."""
    direction = np.abs(rng.normal(size=background.shape))
    direction /= np.sqrt((direction**2).sum(axis=1, keepdims=True))
    return np.clip(background + rng.uniform(*CONTRAST, (len(background), 1)) * direction, 0, 1)


def _sample_texture(rng, count):
    amplitude = rng.uniform(*TEXTURE, (count, 1, 1, 1))
    return amplitude * rng.uniform(-1, 1, (count, 3, _TEXTURE_CELLS, _TEXTURE_CELLS))


def _sample_clutter(rng, background):
    shape = (len(background), CLUTTER_COUNT)
    return Sticks(
        centre=rng.uniform(-1, 1, (*shape, 2)),
        angle=rng.uniform(0, math.pi, shape),
        half_length=rng.uniform(0.1, 0.35, shape),
        radius=rng.uniform(0.03, 0.08, shape),
        colour=rng.uniform(0, 0.6, (*shape, 3)),
    )


def _sample_occluders(rng, background, centre, size):
    shape = (len(size), 1)
    size = size[:, None]
    offset = size[..., None] * rng.uniform(-OCCLUDER_OFFSET, OCCLUDER_OFFSET, (*shape, 2))
    radius = size * rng.uniform(*OCCLUDER_RADIUS, shape)
    return Sticks(
        centre=centre[:, None] + offset,
        angle=rng.uniform(0, math.pi, shape),
        half_length=size * rng.uniform(0.5, 1.5, shape),
        radius=np.where(rng.random(shape) < OCCLUDED_SHARE, radius, -1.0),
        colour=rng.uniform(0, 0.6, (*shape, 3)),
    )


def render(
    scenes: Scenes,
    image_size: int,
    without: str | None = None,
    chosen: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw scenes as images: uint8, N×3×S×S.

    Args:
        scenes: what there is to draw.
        image_size: pixels on a side.
        without: a part to leave out (`PARTS`; for another background, see `draw_parts`), or None.
        chosen: int64, N, which of the scenes; None: all. Each looks as it does among all.

    Returns:
        the images, and which share of each pixel shows each part: float32, N×S×S in [0, 1], by
        part. The shares of a pixel add up to 1.
    """
    if without == "background":
        scenes = _on_other_background(scenes)
    count = len(scenes.targets)
    chosen = np.arange(count) if chosen is None else chosen
    noise = np.random.Generator(np.random.PCG64(scenes.grain_seed))
    # Uniform noise has a standard deviation of 1/√12; it is faster to draw than normal noise.
    grain = noise.random((count, 3, image_size, image_size), np.float32)
    images = np.empty((len(chosen), *grain.shape[1:]), np.uint8)
    shape = len(chosen), image_size, image_size
    shares = {part: np.empty(shape, np.float32) for part in PARTS}
    few = max(1, _CACHED // grain[:1].nbytes)
    for start in range(0, len(chosen), few):
        here = slice(start, start + few)
        some = scenes.at(chosen[here])
        painted, covered = _painted(some, image_size, without)
        each = grain[chosen[here]] - np.float32(0.5)
        painted += each * _per_picture(some.grain * math.sqrt(12))[..., None]
        images[here] = np.clip(painted, 0, 1) * 255 + 0.5
        for part, share in covered.items():
            shares[part][here] = share
    return images, shares


def _painted(
    scenes: Scenes, image_size: int, without: str | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return pictures without their grain, float32 N×3×S×S, and the shares as in `render`."""
    images = _flat_colour(scenes.background) + _interpolate(scenes.background_texture, image_size)
    shares = {part: np.zeros((len(images), image_size, image_size), np.float32) for part in PARTS}
    shares["background"] += 1
    if without != "clutter":
        _paint_sticks(images, shares, "clutter", scenes.clutter)
    if without != "object":
        surface = _flat_colour(scenes.colour) + _interpolate(scenes.object_texture, image_size)
        _paint(images, shares, "object", surface, _object_coverage(scenes, image_size))
    if without != "occluder":
        _paint_sticks(images, shares, "occluder", scenes.occluders)
    return images, shares


def _on_other_background(scenes: Scenes) -> Scenes:
    """Return scenes of which each has the background of the next, nowhere lighter than its own."""
    return replace(
        scenes,
        background=np.minimum(scenes.background, np.roll(scenes.background, -1, axis=0)),
        background_texture=np.roll(scenes.background_texture, -1, axis=0),
    )


def _object_coverage(scenes, image_size):
    """Return the share of each pixel within the object's outline, N×S×S."""
    coverage = np.empty((len(scenes.targets), image_size, image_size), np.float32)
    x, y = _local_frame(scenes.centre, scenes.angle, image_size)
    for target, (signed_distance, area) in enumerate(_OUTLINES.values()):
        chosen = scenes.targets == target
        scale = _per_picture(scenes.size[chosen] / math.sqrt(area))
        distance = scale * signed_distance(x[chosen] / scale, y[chosen] / scale)
        coverage[chosen] = _coverage(distance)
    return coverage


def _paint_sticks(images, shares, part, sticks):
    """Paint the sticks of every picture, one on the other."""
    for k in range(sticks.radius.shape[1]):
        x, y = _local_frame(sticks.centre[:, k], sticks.angle[:, k], images.shape[-1])
        beyond_ends = np.abs(x) - _per_picture(sticks.half_length[:, k])
        beyond_sides = np.abs(y) - _per_picture(sticks.radius[:, k])
        coverage = _coverage(np.maximum(beyond_ends, beyond_sides))
        _paint(images, shares, part, _flat_colour(sticks.colour[:, k]), coverage)


def _paint(images, shares, part, surface, coverage):
    """Paint a surface where it covers (N×S×S in 0…1), and keep which share shows which part."""
    images += (surface - images) * coverage[:, None]
    beside = 1 - coverage
    for share in shares.values():
        share *= beside
    shares[part] += coverage


def _coverage(distance):
    """Return the share of each pixel on the negative side of an edge this far from its middle."""
    pixel = 2 / distance.shape[-1]
    return np.clip(0.5 - distance / pixel, 0, 1)


def _local_frame(centre, angle, image_size):
    """Return the pixels' coordinates seen from a centre, turned by an angle: two arrays N×S×S."""
    position = (2 * np.arange(image_size, dtype=np.float32) + 1) / image_size - 1
    dx = position[None, None, :] - _per_picture(centre[:, 0])
    dy = position[None, :, None] - _per_picture(centre[:, 1])
    cos, sin = _per_picture(np.cos(angle)), _per_picture(np.sin(angle))
    return dx * cos + dy * sin, dy * cos - dx * sin


def _interpolate(knots, image_size):
    """Stretch N×C×G×G knots over the picture, linearly between them: N×C×S×S."""
    at = np.linspace(0, knots.shape[-1] - 1, image_size)
    left = np.minimum(at.astype(int), knots.shape[-1] - 2)
    share = (at - left).astype(np.float32)
    knots = knots.astype(np.float32)
    # `take` leaves pixels in the order of the picture, where an index would turn it in memory
    rows = knots.take(left, 2) * (1 - share[:, None]) + knots.take(left + 1, 2) * share[:, None]
    return rows.take(left, 3) * (1 - share) + rows.take(left + 1, 3) * share


def _per_picture(values):
    """Return N values as float32, in a shape that broadcasts with N×S×S."""
    return values.astype(np.float32)[:, None, None]


def _flat_colour(colour):
    """Return N×3 colours as float32, in a shape that broadcasts with N×3×S×S."""
    return colour.astype(np.float32)[:, :, None, None]
