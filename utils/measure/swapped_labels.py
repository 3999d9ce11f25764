"""How many of the labels that chapter 5 doubts are wrong, where it is known which are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import as_percent, check_number, counted
from utils.data.picture_set import PictureSet, Split
from utils.explain.evidence import nearest_training
from utils.explain.labels import doubted_labels
from utils.explain.mistakes import misclassified
from utils.intervals import share_in_words
from utils.settings import derive_run_name
from utils.training.fit import fit
from utils.training.plan import plan_training
from utils.training.predictions import predict_test

#: Share of the labels that are swapped, and how many of the doubted ones are looked at.
SWAPPED, FIRST = 0.03, 100
#: Share of the training pictures that are judged, with the test pictures, and not trained on: of
#: the test pictures of the drawn shapes alone, too few labels would be swapped to fill the first
#: hundred.
JUDGED = 0.25


@dataclass(frozen=True)
class Found:
    """What was found of the labels that were swapped.

    Attributes:
        pictures, swapped, mistakes: how many pictures were judged, how many of these had their
            label swapped, and how many the network got wrong, by the labels as they then were.
        mistakes_swapped: how many of the mistakes are swapped labels.
        first, first_alone: how many of the ``FIRST`` most doubtful labels are, by the network and
            the nearest training pictures, and by the network alone.
        shown: how many these are: ``FIRST``, or all mistakes where they are fewer.
        likely: how many labels cleanlab takes for wrong.
    """

    pictures: int
    swapped: int
    mistakes: int
    mistakes_swapped: int
    first: int
    first_alone: int
    shown: int
    likely: int | None

    def __str__(self) -> str:
        return (
            f"{self.swapped:,} of {self.pictures:,} labels swapped; "
            f"{counted(self.mistakes, 'mistake')}, "
            f"{as_percent(self.mistakes_swapped / max(self.mistakes, 1), 0)} of them swapped "
            f"labels; cleanlab's estimate: {self.likely} labels\n"
            f"precision of the first {self.shown}: {_precision(self.first, self.shown)}; by the "
            f"network alone {_precision(self.first_alone, self.shown)}"
        )


def _precision(right: int, shown: int) -> str:
    return share_in_words(right, shown) if shown else "none shown"


def print_found(
    picture_set: PictureSet, seeds: int = 1, output_dir: str | Path = "outputs/swapped", **options
) -> None:
    """Swap labels, train, and print how many of them come first among those in doubt.

    Args:
        picture_set: whose labels are all right: the drawn shapes.
        seeds: how often, each with other labels swapped and from another seed.
        output_dir: where the runs are kept.
        options: further arguments of `utils.training.plan.plan_training`.

    Raises:
        InputError: a number that cannot be used.
    """
    check_number("--seeds", seeds, 1, 1_000, whole=True)
    for seed, found in enumerate(find_swapped(picture_set, seeds, output_dir, **options)):
        print(f"seed {seed}: {found}\n", flush=True)


def find_swapped(
    picture_set: PictureSet, seeds: int, output_dir: str | Path, **options
) -> Iterator[Found]:
    """Yield what is found of the labels that are swapped, seed by seed; see `print_found`."""
    for seed in range(seeds):
        swapped, is_swapped = with_swapped_labels(picture_set, seed)
        run = fit(
            plan_training(
                swapped,
                run_name=derive_run_name("swapped", None, seed),
                output_dir=output_dir,
                seed=seed,
                **options,
            )
        )
        predictions = predict_test(run, swapped)
        wrong = misclassified(predictions)
        near = nearest_training(run, swapped, wrong)
        doubts = doubted_labels(predictions, wrong, near.targets)
        alone = doubted_labels(predictions, wrong)
        first, first_alone = (
            int(is_swapped[ranked.positions[:FIRST]].sum()) for ranked in (doubts, alone)
        )
        yield Found(
            pictures=len(is_swapped),
            swapped=int(is_swapped.sum()),
            mistakes=len(wrong),
            mistakes_swapped=int(is_swapped[wrong].sum()),
            first=first,
            first_alone=first_alone,
            shown=min(FIRST, len(wrong)),
            likely=doubts.likely,
        )


def with_swapped_labels(picture_set: PictureSet, seed: int) -> tuple[PictureSet, np.ndarray]:
    """Return pictures of whose labels ``SWAPPED`` are wrong, and which of the test split's are.

    Its test split is the given one after the last ``JUDGED`` of the training split.

    Args:
        picture_set: all of whose labels are right.
        seed: of the choice of labels, and of what they become: any other class.

    Returns:
        the pictures, and bool, N.
    """
    train, test = picture_set.train, picture_set.test
    kept = len(train) - round(JUDGED * len(train))
    images = torch.cat([train.images[kept:], test.images[:]])
    targets = torch.cat([train.targets[kept:], test.targets])
    generator = torch.Generator().manual_seed(seed)
    trained_on, judged = (
        _swap(labels, len(picture_set.classes), generator)
        for labels in (train.targets[:kept], targets)
    )
    changed = replace(
        picture_set,
        train=Split(train.images[:kept], trained_on),
        test=Split(images, judged),
        fingerprint=f"{picture_set.fingerprint}-swapped-{SWAPPED}-{seed}",
    )
    return changed, (judged != targets).numpy()


def _swap(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(targets), generator=generator)[: round(SWAPPED * len(targets))]
    shift = torch.randint(1, classes, (len(chosen),), generator=generator)
    swapped = targets.clone()
    swapped[chosen] = (targets[chosen] + shift) % classes
    return swapped
