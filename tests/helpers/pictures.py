"""Pictures on the disk and in memory, made where a test needs them."""

import numpy as np
import torch
from PIL import Image

from utils.data.picture_set import PictureSet, Split
from utils.data.sources import load_pictures

MEAN, STD = (0.5, 0.45, 0.4), (0.3, 0.25, 0.2)


def coloured(colour, size=(20, 24), seed=0):
    """A picture of about this colour, none like another."""
    rng = np.random.default_rng(seed)
    return (np.array(colour) + rng.integers(0, 30, (size[1], size[0], 3))).astype(np.uint8)


def scene(seed=0, side=96):
    """Edges and surfaces, all sharp: rectangles over one another, none like another seed's."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3), np.uint8)
    for _ in range(60):
        (top, left), (height, width) = rng.integers(0, side, 2), rng.integers(5, side // 2, 2)
        pixels[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


def make_folder(root, counts, ending="png"):
    """Write so many pictures into each folder; the last part of a folder's name is its class."""
    seed = 0
    for position, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed += 1
            image = Image.fromarray(coloured((20 * position, 100, 200 - 20 * position), seed=seed))
            image.save(root / folder / f"{number:03}.{ending}")
    return root


def load(root, tmp_path, **options):
    """Read a folder or archive; its decoded copy goes below `tmp_path`."""
    return load_pictures(dataset=str(root), data_dir=tmp_path / "data", **options)


def listing(root):
    """Every file below a folder with its size, time and contents."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    } | {str(path.relative_to(root)): None for path in root.rglob("*") if path.is_dir()}


def counts_of(split, num_classes):
    """How many pictures of each class a split holds."""
    return split.targets.bincount(minlength=num_classes).tolist()


def same(first, second):
    """Whether two data sets hold the same pictures and targets in the same order."""
    return all(
        torch.equal(getattr(first, s).images, getattr(second, s).images)
        and torch.equal(getattr(first, s).targets, getattr(second, s).targets)
        for s in ("train", "test")
    )


def made_split(targets, seed=0, size=16):
    """A split of noise with these targets."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(targets), 3, size, size), dtype=np.uint8)
    return Split(torch.from_numpy(images), torch.tensor(targets))


def made_set(train_targets, test_targets=(0, 1, 2)):
    """A data set of noise in three classes."""
    return PictureSet(
        "made", "made", ("a", "b", "c"), made_split(train_targets), made_split(test_targets, 1),
        MEAN, STD, "x", (), {},
    )  # fmt: skip
