"""What it brings, with few pictures, to begin from a network that has seen many."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utils import check_number
from utils.data.picture_set import PictureSet, Split, channel_statistics
from utils.data.pictures import resized
from utils.intervals import gain_in_words, mean_and_spread
from utils.measure.trials import Trial, read_trial, train_one
from utils.models.backbones import BACKBONES
from utils.settings import default_image_size
from utils.training.recipes import RECIPES

#: Epochs of DavidNet, twice as many as its recipe has: an epoch of few pictures is few steps.
SCRATCH_EPOCHS = 40
#: Share of the training pictures that is watched.
WATCHED = 0.1


def print_few(
    picture_set: PictureSet,
    per_class: int = 20,
    seeds: int = 5,
    weights: str | None = None,
    output_dir: str | Path = "outputs/few",
    **options,
) -> None:
    """Train on few pictures of each class: a network that has seen many, and a fresh one.

    Each seed draws its pictures anew. The recipe `finetune` sees them enlarged; DavidNet sees them
    as they are, for as many epochs as suit it. A tenth of them is watched instead of the test
    pictures, which are looked at once, at the end.

    Args:
        picture_set: of pictures to draw from.
        per_class: how many training pictures of each class.
        seeds: how many draws.
        weights: a file for the network of `finetune` to begin from; None fetches its own.
        output_dir: where the runs are kept.
        options: further arguments of `utils.training.plan.plan_training`.

    Raises:
        InputError: a number or file that cannot be used.
    """
    check_number("--seeds", seeds, 2, 1_000, whole=True)
    check_number("--per-class", per_class, 2, 100_000, whole=True)
    recipes = (RECIPES["finetune"], RECIPES["original"].changed(epochs=SCRATCH_EPOCHS))
    made: dict[str, list[Trial]] = {recipe.name: [] for recipe in recipes}
    for seed in range(seeds):
        few = few_pictures(picture_set, per_class, seed)
        for recipe in recipes:
            is_finetune = recipe.model in BACKBONES
            pictures = enlarged(few, default_image_size(recipe.name)) if is_finetune else few
            given = {"val_fraction": WATCHED, **options}
            if is_finetune:
                given["weights"] = weights
            run = train_one(pictures, recipe.name, recipe, seed, output_dir, **given)
            made[recipe.name].append(read_trial(recipe.name, run))
            print(f"{made[recipe.name][-1]}\n", flush=True)
    print("\n".join(table(made, per_class)))


def table(made: Mapping[str, list[Trial]], per_class: int) -> Iterator[str]:
    """Yield a line a recipe, with mean ± standard deviation over draws, and the difference.

    Args:
        made: the trials of two recipes, draw by draw; the first is to be the better one.
        per_class: how many training pictures of each class.
    """
    for name, trials in made.items():
        record = trials[0].run.record
        accuracy = mean_and_spread([100 * trial.accuracy for trial in trials], 2)
        seconds = mean_and_spread([trial.seconds for trial in trials], 0)
        yield (
            f"{name}: {record['model']['name']}, {record['data']['title']}, {per_class} training "
            f"pictures a class: {accuracy} % of {record['data']['test_size']:,} test pictures, "
            f"{seconds} s of training ({record['device']['name']}, {record['precision']})"
        )
    first, second = ([100 * t.accuracy for t in trials] for trials in made.values())
    yield gain_in_words(np.subtract(first, second).tolist(), "draws")


def few_pictures(picture_set: PictureSet, per_class: int, seed: int) -> PictureSet:
    """Return the pictures with only so many of each class to train on, drawn from a seed."""
    train = picture_set.train
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    kept = [
        order[train.targets[order] == target][:per_class]
        for target in range(len(picture_set.classes))
    ]
    drawn = train.subset(torch.cat(kept).sort().values)
    mean, std = channel_statistics(drawn.images)
    return replace(
        picture_set,
        train=drawn,
        mean=mean,
        std=std,
        fingerprint=f"{picture_set.fingerprint}-{per_class}-of-each-{seed}",
    )


def enlarged(picture_set: PictureSet, side: int) -> PictureSet:
    """Return the pictures resized to a side in pixels, as a picture file would be."""
    return replace(
        picture_set,
        title=f"{picture_set.title}, enlarged to {side} pixels",
        train=_resized(picture_set.train, side),
        test=_resized(picture_set.test, side),
        fingerprint=f"{picture_set.fingerprint}-{side}",
        options={**picture_set.options, "image_size": side},
    )


def _resized(split: Split, side: int) -> Split:
    images = split.images[:].permute(0, 2, 3, 1).numpy()
    return Split(torch.from_numpy(resized(images, side)), split.targets)
