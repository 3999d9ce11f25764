"""Whether the rate that a range test finds trains as well as the recipe's: judged by training."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from utils import InputError, as_markdown, check_number, counted
from utils.data.picture_set import PictureSet
from utils.intervals import mean_and_spread
from utils.measure.trials import (
    Trial,
    print_and_write,
    print_each,
    read_trial,
    train_one,
)
from utils.training.lr_finder import sweep
from utils.training.plan import plan_training
from utils.training.recipes import Recipe, choose_recipe

#: What is compared, as the trials are named.
RECIPES_RATE, FOUND_RATE = "rate of the recipe", "rate found"


def print_rates(
    picture_set: PictureSet,
    recipe: str | None = None,
    epochs: int = 5,
    seeds: int = 3,
    output_dir: str | Path = "outputs/rates",
    table_file: str | Path | None = None,
    **options,
) -> None:
    """Train with the recipe's rate and with the one that a range test finds, and compare.

    Args:
        picture_set: from `utils.data.sources.load_pictures`.
        recipe: a name of `utils.training.recipes.RECIPES`; None takes the data set's default.
        epochs: of each training.
        seeds: how many pairs; the range test of each sees the batches of its seed.
        output_dir: where the runs are kept; what is complete is read, what was stopped goes on.
        table_file: where to write the table too; None for nowhere.
        options: further arguments of `utils.training.plan.plan_training`.

    Raises:
        InputError: a name or number that cannot be used, or a range test that suggests nothing.
    """
    check_number("--seeds", seeds, 1, 1_000, whole=True)
    chosen = choose_recipe(recipe, picture_set.options["dataset"], epochs=epochs)
    made = print_each(train_pairs(picture_set, chosen, seeds, output_dir, **options))
    print_and_write(table(made), table_file)


def train_pairs(
    picture_set: PictureSet, recipe: Recipe, seeds: int, output_dir: str | Path, **options
) -> Iterator[Trial]:
    """Yield the trials of both rates, seed by seed; see `print_rates`."""
    for seed in range(seeds):
        rates = {RECIPES_RATE: recipe.max_lr}
        plan = plan_training(
            picture_set, recipe=recipe, seed=seed, output_dir=output_dir, **options
        )
        found = sweep(plan)
        if found.suggestion is None:
            raise InputError(f"With seed {seed} the range test suggested nothing: {found.reason}.")
        rates[FOUND_RATE] = found.suggestion
        for variant, rate in rates.items():
            tried = replace(recipe, max_lr=rate)
            run = train_one(picture_set, variant, tried, seed, output_dir, **options)
            yield read_trial(variant, run)


def table(made: list[Trial]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a row a rate, and how they differ.

    Args:
        made: of `train_pairs`, of both rates for each seed.
    """
    record, pairs = made[0].run.record, list(zip(made[::2], made[1::2], strict=True))
    data, settings = record["data"], made[0].run.settings
    yield (
        f"{as_markdown(data['title'])}, {data['train_size']:,} training and {data['test_size']:,} "
        f"test pictures; `{settings['recipe']}` for "
        f"{counted(settings['epochs'], 'epoch')}, n = "
        f"{counted(len(pairs), 'seed')}; {as_markdown(record['device']['name'])}, "
        f"{record['precision']}, torch {record['versions']['torch']}"
    )
    yield ""
    yield "| | peak of the rate | one view, % |"
    yield "| --- | --- | --- |"
    for trials in zip(*pairs, strict=True):
        rates = ", ".join(f"{trial.run.settings['max_lr']:.2g}" for trial in trials)
        accuracies = mean_and_spread([100 * trial.accuracy for trial in trials], 2)
        yield f"| {trials[0].variant} | {rates} | {accuracies} |"
    gained = [100 * (found.accuracy - usual.accuracy) for usual, found in pairs]
    yield f"| difference, points | | {mean_and_spread(gained, 2)} |"
