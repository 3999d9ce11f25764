"""What training logged: reading it, and the few numbers that sum it up. Needs no torch."""

from collections.abc import Mapping, Sequence

import pandas as pd

from utils import as_markdown, as_percent, counted
from utils.intervals import share_in_words
from utils.runs import HISTORY_COLUMNS, STEP_COLUMNS, Run
from utils.training.recipes import Recipe


def read_history(run: Run) -> pd.DataFrame:
    """Return ``metrics.csv``: a row an epoch, epochs counted from 1, accuracies in [0, 1].

    Raises:
        InputError: the file is missing or damaged.
    """
    return pd.DataFrame(run.read_csv("metrics.csv", HISTORY_COLUMNS), columns=HISTORY_COLUMNS)


def read_steps(run: Run) -> pd.DataFrame:
    """Return ``steps.csv``: a row every few steps, counted from 0; epochs from 1.

    Raises:
        InputError: the file is missing or damaged.
    """
    return pd.DataFrame(run.read_csv("steps.csv", STEP_COLUMNS), columns=STEP_COLUMNS)


def summarise(history: pd.DataFrame) -> dict[str, float]:
    """Return final and best figures, and where the watched split stopped improving.

    Args:
        history: at least one epoch, as `read_history` gives it.

    Returns:
        ``epochs``, ``seconds`` (all of training), ``final_*`` for every loss and accuracy,
        ``best_acc`` and ``best_epoch`` (the first with the highest watched accuracy),
        ``lowest_loss`` and ``lowest_loss_epoch`` (of the watched split), ``epochs_since_best``.
    """
    last = history.iloc[-1]
    best = history.loc[history["val_acc"].idxmax()]
    lowest = history.loc[history["val_loss"].idxmin()]
    measured = ("train_loss", "train_acc", "val_loss", "val_acc")
    return {
        "epochs": int(last["epoch"]),
        "seconds": float(history["seconds"].sum()),
        **{f"final_{name}": float(last[name]) for name in measured},
        "best_acc": float(best["val_acc"]),
        "best_epoch": int(best["epoch"]),
        "lowest_loss": float(lowest["val_loss"]),
        "lowest_loss_epoch": int(lowest["epoch"]),
        "epochs_since_best": int(last["epoch"] - best["epoch"]),
    }


def gap_by_epoch(history: pd.DataFrame) -> pd.DataFrame:
    """Return how far training accuracy is ahead of the watched one in the middle of each epoch.

    Training accuracy is a mean over the epoch, and watched accuracy is of its end: side by side,
    they would differ by half an epoch of learning. So it is compared with the mean of what was
    watched before and after the epoch, which the first epoch lacks.

    Args:
        history: as `read_history` gives it.

    Returns:
        a row an epoch but the first: ``epoch`` (completed ones, at its middle), ``gap`` in [-1, 1].
    """
    watched = history["val_acc"].rolling(2).mean()
    gap = history["train_acc"] - watched
    return pd.DataFrame({"epoch": history["epoch"] - 0.5, "gap": gap})[1:]


def picture_sides(run: Run) -> list[int]:
    """Return the pictures' side in pixels in each epoch planned; empty where they do not grow."""
    recipe = Recipe.from_settings(run.settings)
    return recipe.picture_sides(run.settings["image_size"]) if recipe.growth else []


def pooled_accuracy(history: pd.DataFrame, shown: int, watched: int) -> pd.Series:
    """Return the accuracy over training and watched pictures together, after each epoch.

    The original logged this as its validation accuracy: one metric collected both, and was reset
    only after validation. Training pictures count as they were seen, augmented and while the
    network learned.

    Args:
        history: as `read_history` gives it.
        shown: how many training pictures an epoch shows.
        watched: how many pictures are watched after it.

    Returns:
        float, a value an epoch, in [0, 1].
    """
    right = history["train_acc"] * shown + history["val_acc"] * watched
    return right / (shown + watched)


#: What `training_seconds` returns, wherever a figure of it is shown.
TRAINING_TIME = (
    "Training time is that of all epochs without watching after each, and with the averaged test "
    "if there is one."
)


def training_seconds(epochs: float, record: Mapping, metrics: Mapping) -> float:
    """Return the training time of a run, as ``TRAINING_TIME`` says.

    Args:
        epochs: seconds that all epochs took, watching included; writing checkpoints is not in it.
        record, metrics: ``run.json`` and ``metrics.json``.
    """
    averaged = metrics.get("averaged", {}).get("seconds", 0.0)
    return epochs - record["seconds"].get("watching", 0.0) + averaged


def pictures_a_second(record: Mapping, pictures: int) -> float:
    """Return how many pictures a complete training learned from in a second, without watching.

    Args:
        record: ``run.json``.
        pictures: how many an epoch shows.
    """
    seconds = record["seconds"]
    spent = seconds["training"] - seconds.get("watching", 0.0)
    return record["settings"]["epochs"] * pictures / max(spent, 0.01)  # kept in hundredths


# In words


#: What `data.watched` of ``run.json`` is called, wherever a figure of it is shown.
WATCHED = {"test": "test split (watched)", "validation": "held-out part (watched)"}


def result_in_words(record: Mapping, metrics: Mapping, pictures: int) -> str:
    """Return the final figures of a training and what they cost, in lines.

    Args:
        record, metrics: ``run.json`` and ``metrics.json``.
        pictures: how many an epoch shows.
    """
    tested = counted(metrics["test_size"], "test picture")
    lines = [
        f"test accuracy {as_percent(metrics['test_acc'], 2)}, test loss {metrics['test_loss']:.3f}",
        f"on {tested}, float32, one view each; n = 1 run",
    ]
    if new := metrics.get("new"):
        lines.append(_without_copies(metrics["test_size"] - new["size"], **new))
    if averaged := metrics.get("averaged"):
        lines.append(
            f"averaged over {averaged['views']} views: "
            f"accuracy {as_percent(averaged['test_acc'], 2)}, loss {averaged['test_loss']:.3f} "
            f"({averaged['precision']})"
        )
    epochs, watching = record["settings"]["epochs"], record["seconds"].get("watching", 0.0)
    took = record["seconds"]["training"]
    test = f" and with {averaged['seconds']:.1f} s of averaged test" if averaged else ""
    rate = pictures_a_second(record, pictures)
    lines.append(
        f"training time {training_seconds(took, record, metrics):.1f} s on "
        f"{record['device']['name']} ({record['precision']}), without {watching:.1f} s of watching"
        f"{test}: {counted(epochs, 'epoch')} of {counted(pictures, 'picture')}, "
        f"{rate:.{0 if rate >= 10 else 1}f} pictures a second"
    )
    return "\n".join(lines)


def _without_copies(copies: int, size: int, right: int) -> str:
    """Return the accuracy on test pictures that are no copies or near-copies of training ones."""
    are = f"{counted(copies, 'test picture')} {'is' if copies == 1 else 'are'} nearly the same as"
    without = share_in_words(right, size, 2) if size else "there are no others"
    return f"{are} training pictures; accuracy without: {without}"


def training_in_short(record: Mapping, metrics: Mapping) -> str:
    """Return what became of a training, of ``run.json`` and ``metrics.json``, as Markdown."""
    data = record["data"]
    return (
        f"Run **{record['name']}**: {record['model']['parameters']:,} parameters, trained on "
        f"{as_markdown(data['title'])} with the recipe `{record['settings']['recipe']}`, right on "
        f"**{as_percent(metrics['test_acc'], 2)}** of "
        f"{counted(metrics['test_size'], 'test picture')}. "
        f"The {WATCHED[data['watched']]} decided nothing that the program does."
    )


def schedule_in_words(steps: pd.DataFrame) -> str:
    """Return how the learning rate went, as `read_steps` gives it."""
    rates = steps["lr"]
    highest = int(steps["step"][rates.idxmax()])
    when = f"after {counted(highest, 'step')}" if highest else "at its first step"
    logged = "step was" if len(rates) == 1 else "steps were"
    return (
        f"{len(rates):,} {logged} logged. The rate began at {rates.iloc[0]:.2g}, was highest "
        f"{when} ({rates.max():.2g}) and ended at {rates.iloc[-1]:.2g}."
    )


def losses_in_words(history: pd.DataFrame, watched: str) -> str:
    """Return where the watched loss was lowest, and how the train loss went.

    Args:
        history: as `read_history` gives it.
        watched: the split's name in ``run.json``.
    """
    found, first, last = summarise(history), history.iloc[0], history.iloc[-1]
    lowest = f"in epoch {found['lowest_loss_epoch']} ({found['lowest_loss']:.3f}), and"
    if found["lowest_loss_epoch"] == last["epoch"]:
        lowest = "at the end:"
    return (
        f"The loss of the {WATCHED[watched]} was lowest {lowest} {found['final_val_loss']:.3f} "
        f"after the last epoch; the train loss went from {first['train_loss']:.3f} to "
        f"{found['final_train_loss']:.3f}."
    )


def rise_in_words(history: pd.DataFrame, watched: str, sides: Sequence[int] = ()) -> str:
    """Return where the watched loss rose most from one epoch to the next, and between which values.

    Args:
        history, watched: as `losses_in_words` takes them.
        sides: from `picture_sides`.
    """
    if len(history) < 2:
        return "One epoch alone cannot tell whether the loss ever rises."
    rises = history["val_loss"].diff().reset_index(drop=True)
    if not rises.max() > 0:
        return f"The loss of the {WATCHED[watched]} never rose from one epoch to the next."
    place = int(rises.idxmax())
    before, after = history.iloc[place - 1], history.iloc[place]
    grew = ", as the pictures grew" if len(set(sides[place - 1 : place + 1])) > 1 else ""
    return (
        f"The loss of the {WATCHED[watched]} rose most in epoch {after['epoch']:.0f}, "
        f"from {before['val_loss']:.3f} to {after['val_loss']:.3f}{grew}."
    )


def gain_in_words(history: pd.DataFrame, watched: str, sides: Sequence[int] = ()) -> str:
    """Return what the epochs from the middle on gained; arguments as of `rise_in_words`."""
    last = history["val_acc"].iloc[-1]
    if len(history) < 2:
        told = as_percent(last, 2)
        return f"After its one epoch the accuracy of the {WATCHED[watched]} is {told}."
    half = len(history) // 2 - 1
    gained = 100 * (last - history["val_acc"].iloc[half])
    grown = ", part of it because the pictures grew" if len(set(sides[half:])) > 1 else ""
    return (
        f"From epoch {history['epoch'].iloc[half]} to {history['epoch'].iloc[-1]} the accuracy of "
        f"the {WATCHED[watched]} changed by {gained:+.1f} points, to {as_percent(last, 2)}{grown}."
    )


def stopped_in_words(history: pd.DataFrame, watched: str) -> str:
    """Return whether any of the last epochs was better than all before, and by how much.

    The last epochs are a quarter of all, and at least two.

    Args:
        history, watched: as `losses_in_words` takes them.
    """
    split, total = WATCHED[watched], len(history)
    if total < 4:
        few = f"{counted(total, 'epoch')} {'is' if total == 1 else 'are'} too few"
        return f"{few} to tell whether it had stopped improving."
    last = max(2, round(total / 4))
    before, late = history[:-last], history[-last:]
    best, of_late = before["val_acc"].max(), late["val_acc"].max()
    if of_late > best:
        return (
            f"In the last {last} of {total} epochs the best accuracy of the {split} rose from "
            f"{as_percent(best, 2)} to {as_percent(of_late, 2)}: it had not stopped improving. "
            "(The falling rate alone can do that.)"
        )
    epoch = before.loc[before["val_acc"].idxmax(), "epoch"]
    return (
        f"None of the last {last} of {total} epochs was more accurate on the {split} than epoch "
        f"{epoch:.0f}, with {as_percent(best, 2)}: it had stopped improving."
    )


def gap_in_words(history: pd.DataFrame, watched: str) -> str:
    """Return how far train accuracy is ahead in the end; arguments as of `losses_in_words`."""
    gaps = gap_by_epoch(history)["gap"]
    if gaps.empty:
        return "One epoch alone has no gap: nothing was watched before it."
    trained = as_percent(history["train_acc"].iloc[-1], 2)
    before, after = (as_percent(share, 2) for share in history["val_acc"].iloc[-2:])
    return (
        f"In the last epoch train accuracy was {trained}, and that of the {WATCHED[watched]} "
        f"{before} before it and {after} after it: by the mean of these, the gap is "
        f"{100 * gaps.iloc[-1]:+.1f} points."
    )


def curves_in_short(run: Run, history: pd.DataFrame) -> str:
    """Return what the curves of a run told, as Markdown."""
    data, found = run.record["data"], summarise(history)
    trend = "the last" if found["epochs_since_best"] == 0 else "not the last"
    return (
        f"Run **{run.name}** on {as_markdown(data['title'])}, {counted(len(history), 'epoch')}, "
        f"figures of the {WATCHED[data['watched']]} in {run.record['precision']}: accuracy "
        f"{as_percent(found['final_val_acc'], 2)} at the end and "
        f"{as_percent(found['best_acc'], 2)} at "
        f"its best, in epoch {found['best_epoch']} ({trend}); lowest loss "
        f"{found['lowest_loss']:.3f} in epoch {found['lowest_loss_epoch']}. "
        f"{gap_in_words(history, data['watched'])}"
    )
