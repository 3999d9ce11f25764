"""Time to accuracy: whole trainings over several seeds, of one recipe or of several in turn.

Each training is an ordinary run in a folder of its own, so what was stopped goes on, and what is
complete is read instead of being trained again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils import as_markdown, as_percent, check_number
from utils.data.epochs import pictures_per_epoch
from utils.data.picture_set import PictureSet
from utils.files import write_text
from utils.intervals import mean_and_spread
from utils.runs import HISTORY_COLUMNS, Run
from utils.settings import derive_run_name
from utils.training.fit import fit
from utils.training.history import pooled_accuracy, read_history, training_seconds
from utils.training.plan import plan_training
from utils.training.recipes import Recipe, choose_recipe, without_each_part


@dataclass(frozen=True)
class Trial:
    """One training and what came of it.

    Attributes:
        variant: what was trained.
        run: where it is kept, complete.
        seconds: the training time (`utils.training.history.TRAINING_TIME`).
        watching: seconds that watching after each epoch took beside that.
        accuracy: on the test split, one view, float32.
        averaged: on the test split, averaged over the recipe's views; None where it has one view.
    """

    variant: str
    run: Run
    seconds: float
    watching: float
    accuracy: float
    averaged: float | None

    def __str__(self) -> str:
        views = self.run.settings["views"]
        more = ""
        if self.averaged is not None:
            more = f", {as_percent(self.averaged, 2)} averaged over {views} views"
        return (
            f"{self.variant}, seed {self.run.settings['seed']}: {self.seconds:.1f} s "
            f"and {self.watching:.1f} s of watching, "
            f"{as_percent(self.accuracy, 2)} (one view){more}"
        )


def print_trials(
    picture_set: PictureSet,
    recipe: str,
    seeds: int = 3,
    leave_one_out: bool = False,
    output_dir: str | Path = "outputs/trials",
    table_file: str | Path | None = None,
    **options,
) -> None:
    """Train a recipe with several seeds and print time and accuracy, each and on average.

    Args:
        picture_set: from `utils.data.sources.load_pictures`.
        recipe: a name of `utils.training.recipes.RECIPES`.
        seeds: how many; they are 0, 1, 2 and so on.
        leave_one_out: also train it without each of its parts.
        output_dir: where the runs are kept.
        table_file: where to write the table too; None for nowhere.
        options: further arguments of `utils.training.plan.plan_training`.

    Raises:
        InputError: a name or number that cannot be used.
    """
    check_number("--seeds", seeds, 1, 1_000, whole=True)
    whole = choose_recipe(recipe, picture_set.options["dataset"])
    variants = {whole.name: whole}
    if leave_one_out:
        variants |= without_each_part(whole)
    made = print_each(train_in_turn(picture_set, variants, seeds, output_dir, **options))
    print_and_write(table(made), table_file)


def print_each(trials: Iterable[Trial]) -> list[Trial]:
    """Print each trial as soon as it is made, and return them all."""
    made = []
    for trial in trials:
        made.append(trial)
        print(f"{trial}\n", flush=True)
    return made


def print_and_write(lines: Iterable[str], file: str | Path | None) -> None:
    """Print lines, and write them to a file unless it is None."""
    text = "\n".join(lines)
    print(text)
    if file is not None:
        write_text(Path(file), text + "\n")


def train_in_turn(
    picture_set: PictureSet,
    variants: Mapping[str, Recipe],
    seeds: int,
    output_dir: str | Path,
    **options,
) -> Iterator[Trial]:
    """Train every variant with the first seed, then every one with the next.

    Machines are shared: in turn, a slow hour falls on all.
    """
    for seed in range(seeds):
        for variant, recipe in variants.items():
            run = train_one(picture_set, variant, recipe, seed, output_dir, **options)
            yield read_trial(variant, run)


def train_one(
    picture_set: PictureSet,
    variant: str,
    recipe: Recipe,
    seed: int,
    output_dir: str | Path,
    **options,
) -> Run:
    """Return a complete run, named by variant and seed: trained, gone on with, or only read."""
    plan = plan_training(
        picture_set,
        run_name=derive_run_name(variant, picture_set.name, seed),
        output_dir=output_dir,
        recipe=recipe,
        seed=seed,
        **options,
    )
    return fit(plan)


def read_trial(variant: str, run: Run) -> Trial:
    """Return what a complete run says of its training."""
    metrics = run.read_json("metrics.json")
    averaged = metrics.get("averaged", {})
    epochs = run.read_csv("metrics.csv", HISTORY_COLUMNS)
    watching = run.record["seconds"].get("watching", 0.0)
    seconds = training_seconds(sum(row["seconds"] for row in epochs), run.record, metrics)
    return Trial(variant, run, seconds, watching, metrics["test_acc"], averaged.get("test_acc"))


def pooled_by_epoch(run: Run) -> pd.Series:
    """Return a complete run's `pooled_accuracy`, of the pictures that its epochs showed."""
    data, skipped = run.record["data"], run.settings.get("skipped", 0.0)
    shown = pictures_per_epoch(data["train_size"], skipped)
    return pooled_accuracy(read_history(run), shown, data["watched_size"])


def table(trials: list[Trial]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a row a variant, mean ± standard deviation over seeds.

    Args:
        trials: of all variants, on the same pictures and hardware.
    """
    record, variants = trials[0].run.record, dict.fromkeys(trial.variant for trial in trials)
    yield (
        f"{as_markdown(record['data']['title'])}, {record['data']['test_size']:,} test pictures, "
        f"n = {len(trials) // len(variants)} seeds; {as_markdown(record['device']['name'])}, "
        f"{record['precision']}, torch {record['versions']['torch']}"
    )
    yield ""
    yield "| variant | training, s | watching, s | one view, % | averaged, % |"
    yield "| --- | --- | --- | --- | --- |"
    for variant in variants:
        mine = [trial for trial in trials if trial.variant == variant]
        cells = [
            mean_and_spread([trial.seconds for trial in mine], 1),
            mean_and_spread([trial.watching for trial in mine], 1),
            mean_and_spread([100 * trial.accuracy for trial in mine], 2),
            mean_and_spread([100 * t.averaged for t in mine if t.averaged is not None], 2),
        ]
        yield f"| {variant} | {' | '.join(cells)} |"
