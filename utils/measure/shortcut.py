"""A planted shortcut: would a map have warned that the network looks at a mark, not at the object?

Every drawn shape gets a small mark. For one network its place tells the class; for another, of the
same pictures, it is drawn without looking at the class. Whoever sees a map should tell the two
networks apart by whether it points at the mark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from utils import as_percent, check_number
from utils.data.augment import normalise
from utils.data.picture_set import PictureSet, Split
from utils.explain.gradcam import CHANNEL_METHODS, METHODS, maps_by_method
from utils.explain.map_measures import all_logits, energy_on_object
from utils.measure import trials
from utils.models.network import Network
from utils.training.recipes import RECIPES
from utils.training.trained import load_network

#: Side of the mark in pixels, its colour, and how far from the picture's middle it lies, as a share
#: of the side.
SIDE, COLOUR, RADIUS = 3, (255, 0, 255), 0.36
CLEAN, MARKED = "mark anywhere", "mark by class"


@dataclass(frozen=True)
class Outcome:
    """What a pair of networks of one seed showed.

    Attributes:
        accuracy: of the marked network, with each mark at its class's place, and of the clean one.
        flipped: how many of the marked network's right predictions follow their mark to the place
            of another class, and how many of the clean one's change.
        auroc: by method and block: how well "this map points at the mark" tells the networks apart.
    """

    accuracy: tuple[float, float]
    flipped: tuple[float, float]
    auroc: dict[tuple[str, str], float]


def mark_places(places: Tensor, image_size: int, number: int = 10) -> Tensor:
    """Return where marks lie: bool, N×S×S. There are `number` places on a circle.

    Args:
        places: int64, N, each in 0 … number - 1.
        image_size: side of the pictures in pixels.
    """
    angle = 2 * torch.pi * places / number
    middle = (image_size - 1) / 2
    centre = middle + RADIUS * image_size * torch.stack([angle.sin(), angle.cos()])
    position = torch.arange(image_size)
    near = (position - centre[..., None].round()).abs() <= SIDE // 2
    return near[0][:, :, None] & near[1][:, None, :]


def mark(images: Tensor, places: Tensor) -> Tensor:
    """Return pictures (uint8, N×3×S×S) with a mark each, at these places (int64, N)."""
    where = mark_places(places, images.shape[-1])
    colour = torch.tensor(COLOUR, dtype=torch.uint8).view(3, 1, 1)
    return torch.where(where[:, None], colour, images)


def marked_sets(picture_set: PictureSet, seed: int = 0) -> dict[str, PictureSet]:
    """Return the same pictures with marks that tell nothing, and with marks that tell the class."""
    generator = torch.Generator().manual_seed(seed)

    def anywhere(split: Split) -> Split:
        places = torch.randint(
            0, len(picture_set.classes), split.targets.shape, generator=generator
        )
        return replace(split, images=mark(split.images[:], places))

    def by_class(split: Split) -> Split:
        return replace(split, images=mark(split.images[:], split.targets))

    made = {}
    for name, change in ((CLEAN, anywhere), (MARKED, by_class)):
        made[name] = replace(
            picture_set,
            train=change(picture_set.train),
            test=change(picture_set.test),
            fingerprint=f"{picture_set.fingerprint}, {name}, seed {seed}",
        )
    return made


def print_shortcut(
    picture_set: PictureSet,
    seeds: int = 5,
    count: int = 500,
    output_dir: str | Path = "outputs/shortcut",
    table_file: str | Path | None = None,
    **options,
) -> None:
    """Train a clean and a marked network for each seed, and print which maps tell them apart.

    Args:
        picture_set: of drawn shapes.
        seeds: how many pairs of networks.
        count: how many test pictures are explained.
        output_dir: where the runs are kept; what is complete is read.
        table_file: where to write the table too; None for nowhere.
        options: further arguments of `utils.training.plan.plan_training`.
    """
    check_number("--seeds", seeds, 1, 1_000, whole=True)
    check_number("--count", count, 2, 1_000_000, whole=True)
    outcomes = []
    for seed in range(seeds):
        networks = _trained_pair(picture_set, seed, output_dir, **options)
        outcomes.append(ask(networks, picture_set, count))
        print(f"seed {seed}: {_in_words(outcomes[-1])}", flush=True)
    print()
    trials.print_and_write(table(outcomes, min(count, len(picture_set.test))), table_file)


def _trained_pair(picture_set, seed: int, output_dir, **options) -> dict[str, Network]:
    """Return both networks of a seed; no flips, which would move marks to another class's place."""
    recipe = RECIPES["quick"].changed(flip_probability=0.0, epochs=4)
    networks = {}
    for name, pictures in marked_sets(picture_set, seed).items():
        run = trials.train_one(pictures, name, recipe, seed, output_dir, **options)
        networks[name] = load_network(run, "cpu")
    return networks


def _predicted(network: Network, images: Tensor, picture_set: PictureSet) -> Tensor:
    normalised = normalise(images, picture_set.mean, picture_set.std)
    return all_logits(network, normalised).argmax(1)


def ask(networks: dict[str, Network], picture_set: PictureSet, count: int) -> Outcome:
    """Return what moving the marks does, and which maps tell the networks apart.

    Args:
        networks: by `CLEAN` and `MARKED`.
        picture_set: without marks.
        count: how many test pictures.
    """
    test, number = picture_set.test, len(picture_set.classes)
    targets = test.targets[:count]
    own, other = (mark(test.images[:count], (targets + turn) % number) for turn in (0, 3))
    methods = [method for method in METHODS if method not in CHANNEL_METHODS]
    accuracy, flipped, energies = {}, {}, {}
    where = mark_places(targets, picture_set.image_size).numpy()
    images = normalise(own, picture_set.mean, picture_set.std)
    for name, network in networks.items():
        before, after = (_predicted(network, each, picture_set) for each in (own, other))
        right = before == targets
        accuracy[name] = float(right.float().mean())
        followed = after == (targets + 3) % number
        flipped[name] = float(followed[right].float().mean())
        maps = maps_by_method(network, images, before, methods, network.blocks)
        energies[name] = {
            (method, block): energy_on_object(maps[method][:, place], where)
            for method in methods
            for place, block in enumerate(network.blocks)
        }
    is_marked = torch.tensor([1, 0]).repeat_interleave(len(targets))
    auroc = {
        key: float(
            binary_auroc(torch.from_numpy(np.append(found, energies[CLEAN][key])), is_marked)
        )
        for key, found in energies[MARKED].items()
    }
    return Outcome((accuracy[MARKED], accuracy[CLEAN]), (flipped[MARKED], flipped[CLEAN]), auroc)


def _in_words(outcome: Outcome) -> str:
    marked, clean = (as_percent(accuracy) for accuracy in outcome.accuracy)
    followed, not_followed = (as_percent(share) for share in outcome.flipped)
    best = max(outcome.auroc, key=lambda key: outcome.auroc[key])
    return (
        f"the marked network is right in {marked}, the clean one in {clean}; {followed} and "
        f"{not_followed} of their right predictions follow a mark that is moved; the networks are "
        f"told apart best by {best[0]} at {best[1]} (AUROC {outcome.auroc[best]:.3f})"
    )


def table(outcomes: Sequence[Outcome], count: int):
    """Yield the lines of a Markdown table: AUROC by method and block, mean ± deviation."""
    seeds = len(outcomes)
    for what, place in ((MARKED, 0), (CLEAN, 1)):
        values = [
            trials.mean_and_spread([100 * getattr(each, name)[place] for each in outcomes], 1)
            for name in ("accuracy", "flipped")
        ]
        yield (
            f"{what}: {values[0]} % right; {values[1]} % of the right predictions follow a mark "
            "that is moved to another class's place."
        )
    yield ""
    yield f"AUROC over {count:,} pictures of each network, n = {seeds} seeds."
    yield ""
    auroc = pd.DataFrame([outcome.auroc for outcome in outcomes])
    blocks = list(dict.fromkeys(block for _, block in auroc.columns))
    yield f"| | {' | '.join(blocks)} |"
    yield "|" + " --- |" * (1 + len(blocks))
    for method in dict.fromkeys(method for method, _ in auroc.columns):
        cells = (trials.mean_and_spread(list(auroc[method, block]), 3) for block in blocks)
        yield f"| {method} | {' | '.join(cells)} |"
