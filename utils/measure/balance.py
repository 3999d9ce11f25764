"""What it brings to learn every class alike, where one has many times the pictures of another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utils import check_number
from utils.data.picture_set import PictureSet
from utils.explain.mistakes import recalls
from utils.intervals import gain_in_words, mean_and_spread
from utils.measure.trials import train_one
from utils.training.predictions import predict_test
from utils.training.recipes import choose_recipe


def print_balance(
    picture_set: PictureSet,
    ratio: float = 100.0,
    seeds: int = 5,
    output_dir: str | Path = "outputs/balance",
    **options,
) -> None:
    """Train on classes of unequal size with and without `balanced`, and print what it gained.

    The test pictures stay as they are: each class has its equal part of them.

    Args:
        picture_set: of classes of about the same size.
        ratio: between the most and the least frequent class.
        seeds: how many pairs.
        output_dir: where the runs are kept.
        options: further arguments of `utils.training.plan.plan_training`.

    Raises:
        InputError: a number that cannot be used.
    """
    check_number("--seeds", seeds, 2, 1_000, whole=True)
    check_number("--ratio", ratio, 1.0, 100_000.0)
    unequal = long_tailed(picture_set, ratio)
    counts = ", ".join(map(str, unequal.train.targets.bincount().tolist()))
    print(f"{picture_set.title}: {counts} training pictures of each class\n")
    recipe = choose_recipe(None, picture_set.options["dataset"])
    accuracies: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(seeds):
        for balanced, reached in accuracies.items():
            name = "balanced" if balanced else "unequal"
            run = train_one(unequal, name, recipe, seed, output_dir, balanced=balanced, **options)
            found, tested = recalls(predict_test(run, unequal))
            reached.append(100 * float((found / tested).mean()))
            print(f"balanced={balanced}, seed {seed}: {reached[-1]:.2f} %\n", flush=True)
    for balanced, reached in accuracies.items():
        print(f"balanced accuracy with balanced={balanced}: {mean_and_spread(reached, 2)} %")
    print(gain_in_words(np.subtract(accuracies[True], accuracies[False]).tolist(), "pairs"))


def long_tailed(picture_set: PictureSet, ratio: float) -> PictureSet:
    """Return pictures of whose classes the first keeps all of its training pictures, the last few.

    The numbers between fall by the same factor from class to class (Cui et al. 2019,
    "Class-balanced loss", section 5.1).

    Args:
        picture_set: of classes of about the same size.
        ratio: between the first and the last.
    """
    train, classes = picture_set.train, len(picture_set.classes)
    kept = []
    for number in range(classes):
        positions = torch.nonzero(train.targets == number).flatten()
        share = ratio ** (-number / max(classes - 1, 1))
        kept.append(positions[: max(1, round(share * len(positions)))])
    return replace(
        picture_set,
        train=train.subset(torch.cat(kept).sort().values),
        fingerprint=f"{picture_set.fingerprint}-unequal-{ratio:g}",
    )
