"""How near a training comes to the one that this project reproduces, as that one's log shows it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from utils import InputError, as_markdown, brief, check_choice, check_number
from utils.data.picture_set import PictureSet
from utils.files import brief_path, write_text
from utils.intervals import mean_and_spread
from utils.measure import trials
from utils.measure.trials import Trial
from utils.runs import Run
from utils.training.history import read_history
from utils.training.recipes import CANDIDATES, RECIPES

#: After these epochs curves are compared that the original's log shows at single points only.
EPOCHS = (5, 10, 15, 20)
#: What is compared: the training loss (of a run the epoch's mean, of the log a batch near its end),
#: the accuracy over training and test pictures together, and the loss on test pictures.
CURVES = {"train_loss": "training loss", "pooled": "pooled accuracy", "test_loss": "test loss"}
#: The original's, read from a picture of its TensorBoard, to within 0.02: a row an epoch, with NaN
#: where it was not read.
LOGGED = pd.DataFrame(
    {
        "train_loss": pd.Series((0.77, 0.37, 0.29, 0.19), EPOCHS),
        "pooled": pd.Series((0.71, 0.845, 0.895, 0.932), EPOCHS),
        "test_loss": pd.Series(
            (
                *(1.25, 1.03, 1.17, 1.16, 0.85, 1.00, 0.50, 0.70, 0.39, 0.43),
                *(0.365, 0.44, 0.365, 0.37, 0.305, 0.295, 0.275, 0.25, 0.24, 0.232),
            ),
            range(1, 21),
        ),
    }
)


def print_candidates(
    picture_set: PictureSet,
    letters: Sequence[str],
    output_dir: str | Path,
    kept_file: str | Path,
    table_file: str | Path | None = None,
    seeds: int = 1,
    **options,
) -> None:
    """Train as the original did, with augmentations that it may have had, and compare the logs.

    Args:
        picture_set: from `utils.data.sources.load_pictures`.
        letters: of `utils.training.recipes.CANDIDATES`.
        output_dir: where the runs are kept; what is complete is read, what was stopped goes on.
        kept_file: JSON with the curves of candidates that were trained before, here or elsewhere,
            which are compared too. Those that are trained now are written into it.
        table_file: where to write the table too; None for nowhere.
        seeds: how many trainings of each; their seeds are 0, 1, 2 and so on.
        options: further arguments of `utils.training.plan.plan_training`.

    Raises:
        InputError: an unknown letter, a number out of range, or a file that is not such a JSON.
    """
    check_number("--seeds", seeds, 1, 1_000, whole=True)
    for letter in letters:
        check_choice("--only", letter, tuple(CANDIDATES))
    kept = read_kept(kept_file)
    variants = {
        f"augmentation {letter}": replace(RECIPES["original"], augmentation=CANDIDATES[letter])
        for letter in letters
    }
    made: dict[str, list[Trial]] = {}
    for trial in trials.train_in_turn(picture_set, variants, seeds, output_dir, **options):
        print(f"{trial}\n", flush=True)
        made.setdefault(trial.variant, []).append(trial)
        kept[trial.variant] = summary_of(made[trial.variant])
        write_text(Path(kept_file), json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
    trials.print_and_write(table(dict(sorted(kept.items()))), table_file)


def summary_of(made: Sequence[Trial]) -> dict:
    """Return what is kept of complete runs of one candidate: their curves, and what made them."""
    record = made[0].run.record
    return {
        "pictures": record["data"]["title"],
        "hardware": f"{record['device']['name']}, {record['precision']}",
        "versions": f"torch {record['versions']['torch']}",
        "runs": [{"accuracy": trial.accuracy, "curves": _curves(trial.run)} for trial in made],
    }


def _curves(run: Run) -> dict[str, list[float]]:
    history = read_history(run)
    curves = {
        "train_loss": history["train_loss"],
        "pooled": trials.pooled_by_epoch(run),
        "test_loss": history["val_loss"],
    }
    return {name: [round(float(v), 5) for v in values] for name, values in curves.items()}


def read_kept(file: str | Path) -> dict[str, dict]:
    """Return what a file keeps of each candidate, by its name; nothing if there is no file.

    Raises:
        InputError: it holds something else.
    """
    if not Path(file).exists():
        return {}
    try:
        kept = json.loads(Path(file).read_text(encoding="utf-8"))
        for summary in kept.values():
            curves_of(summary)
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{brief_path(Path(file))} does not hold the curves of candidates "
            f"({brief(str(error))}). Give another file to --kept, or remove it."
        ) from error
    return kept


def curves_of(summary: dict) -> list[pd.DataFrame]:
    """Return the curves of `summary_of`, of each run: a row an epoch, a column each of `CURVES`."""
    curves = [pd.DataFrame({n: run["curves"][n] for n in CURVES}) for run in summary["runs"]]
    return [c.astype(float).set_index(pd.RangeIndex(1, len(c) + 1, name="epoch")) for c in curves]


def distances(curves: pd.DataFrame) -> pd.Series:
    """Return how far each curve lies from the original's, on average where its log was read."""
    return (curves - LOGGED).abs().mean()


def table(kept: dict[str, dict]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a column for the log and for each candidate.

    Curves are means over a candidate's runs; distances are of each run, mean ± standard deviation.

    Args:
        kept: of `summary_of`, by name, each of twenty epochs.
    """
    curves = [curves_of(summary) for summary in kept.values()]
    yield _row("", "the original's log", *(as_markdown(name) for name in kept))
    yield "|" + " --- |" * (2 + len(kept))
    for column, what in CURVES.items():
        means = (sum(runs[1:], runs[0]) / len(runs) for runs in curves)
        values = (_listed(each.loc[list(EPOCHS), column]) for each in (LOGGED, *means))
        yield _row(f"{what} after epochs {', '.join(map(str, EPOCHS))}", *values)
    for column, what in CURVES.items():
        far = (mean_and_spread([distances(run)[column] for run in runs], 3) for runs in curves)
        span = f"{LOGGED[column].count()} points"
        yield _row(f"mean distance in {what}, {span}", "–", *far)
    accuracies = ([100 * run["accuracy"] for run in each["runs"]] for each in kept.values())
    reached = (f"{mean_and_spread(each, 2)} %" for each in accuracies)
    yield _row("accuracy on test pictures, float32", "not logged", *reached)
    yield _row("n", "1", *(str(len(summary["runs"])) for summary in kept.values()))
    for name in ("pictures", "hardware", "versions"):
        yield _row(name, "", *(as_markdown(summary[name]) for summary in kept.values()))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
