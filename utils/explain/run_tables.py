"""Tables of many runs, for a chapter and for files: runs, groups, epochs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils import as_percent, counted
from utils.data.epochs import pictures_per_epoch
from utils.explain.many_runs import MOST_NAMES, Gathered, Outcome, few, telling
from utils.intervals import mean_and_spread, share_in_words, wilson_interval
from utils.training.history import TRAINING_TIME, pictures_a_second, training_seconds
from utils.training.recipes import UNSAID

#: Rows that a chapter shows of a table.
MOST_ROWS = 40


def run_table(gathered: Gathered) -> pd.DataFrame:
    """Return a row a run: its group, what it was trained with, and what came of it.

    Returns:
        columns ``run``, ``group`` (empty where it cannot be compared), each of
        `differing_settings`, ``accuracy`` with the ends ``low`` and ``high`` of its interval (in
        [0, 1]), ``loss``, ``averaged`` (accuracy over several views), ``test_pictures``,
        ``epochs_run``, ``training_seconds``, ``pictures_a_second`` and ``device``.
    """
    outcomes = [*gathered.outcomes, *gathered.repeats, *gathered.others]
    rows = pd.DataFrame([_figures(outcome) for outcome in outcomes])
    names = rows["run"]
    settings = gathered.settings.loc[names].reset_index(drop=True).convert_dtypes()
    rows.insert(1, "group", gathered.labels.reindex(names).fillna("").to_numpy())
    right = (rows["accuracy"] * rows["test_pictures"]).round()
    rows["accuracy"] = right / rows["test_pictures"]  # which 32 bits hold in seven digits
    low, high = wilson_interval(right, rows["test_pictures"])
    rows.insert(3, "low", low)
    rows.insert(4, "high", high)
    return pd.concat([rows.iloc[:, :2], settings, rows.iloc[:, 2:]], axis=1)


def _figures(outcome: Outcome) -> dict:
    """Return what a run reached, and what that took."""
    record, metrics = outcome.record, outcome.metrics
    shown = pictures_per_epoch(
        record["data"]["train_size"], record["settings"].get("skipped", UNSAID["skipped"])
    )
    seconds = training_seconds(float(outcome.history["seconds"].sum()), record, metrics)
    return {
        "run": outcome.run.name,
        "accuracy": metrics["test_acc"],
        "loss": metrics["test_loss"],
        "averaged": metrics.get("averaged", {}).get("test_acc", np.nan),
        "test_pictures": metrics["test_size"],
        "epochs_run": len(outcome.history),
        "training_seconds": seconds,
        "pictures_a_second": pictures_a_second(record, shown),
        "device": f"{record['device']['name']}, {record['precision']}",
    }


def shown_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the first rows of `run_table` as a chapter shows them, figures in words.

    Of the settings, it has the few that tell all runs apart that others would tell apart, too, but
    for one that says what the group says.
    """
    some = table[:MOST_ROWS]
    settings = table.loc[:, "group":"accuracy"].iloc[:, 1:-1].drop(columns="seed")
    told = some[telling(settings)].astype(str)
    rights = zip(some["accuracy"] * some["test_pictures"], some["test_pictures"], strict=True)
    return pd.DataFrame(
        {
            "run": some["run"],
            "group": some["group"],
            **{
                name: column for name, column in told.items() if not _is_told(column, some["group"])
            },
            "seed": some["seed"],
            "right": [share_in_words(round(right), count) for right, count in rights],
            "averaged": ["–" if s != s else as_percent(s, 2) for s in some["averaged"]],
            "training, s": some["training_seconds"].map("{:.1f}".format),
            "pictures/s": some["pictures_a_second"].map("{:,.0f}".format),
        }
    )


def _is_told(column: pd.Series, group: pd.Series) -> bool:
    """Tell whether the groups' names say nothing but this setting's values."""
    return any((words == group).all() for words in (column, f"{column.name}=" + column))


def group_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a group of `run_table`: how many runs, and mean and spread of their figures.

    Returns:
        columns ``group``, ``n``, and for ``accuracy`` (in [0, 1]) and ``training_seconds`` each the
        mean and, as ``…_spread``, the standard deviation, which a single run does not have; and
        ``is_front``, whether no other group is as accurate on average in less time.
    """
    grouped = table[table["group"] != ""].groupby("group", sort=False)
    made = pd.DataFrame({"n": grouped.size()})
    for name in ("accuracy", "training_seconds"):
        made[name], made[f"{name}_spread"] = grouped[name].mean(), grouped[name].std()
    made["is_front"] = pareto_front(made["training_seconds"], made["accuracy"])
    return made.reset_index()


def shown_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return the groups of `run_table` as a chapter shows them: mean ± standard deviation."""
    grouped = table[table["group"] != ""].groupby("group", sort=False)
    rows = [
        {
            "group": name,
            "n": len(runs),
            "right, %": mean_and_spread((100 * runs["accuracy"]).tolist(), 2),
            "training, s": mean_and_spread(runs["training_seconds"].tolist(), 1),
            "pictures/s": mean_and_spread(runs["pictures_a_second"].tolist(), 0),
        }
        for name, runs in grouped
    ]
    return pd.DataFrame(rows[:MOST_ROWS])


def pareto_front(seconds: Sequence[float], accuracy: Sequence[float]) -> np.ndarray:
    """Return which are on the Pareto front: bool.

    No other is at least as good in both and better in one, so that of equal ones all are on it.

    >>> pareto_front([10, 20, 30, 10, 10], [0.90, 0.89, 0.95, 0.85, 0.90]).tolist()
    [True, False, True, False, True]
    """
    front, best = np.zeros(len(seconds), bool), (-np.inf, -np.inf)
    points = list(zip(seconds, accuracy, strict=True))
    for place in sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1])):
        front[place] = points[place] == best or points[place][1] > best[1]
        best = points[place] if front[place] else best
    return front


def curves(gathered: Gathered) -> pd.DataFrame:
    """Return what was watched after each epoch: mean and spread over the runs of each group.

    Returns:
        a row for each group and epoch: ``group``, ``epoch``, ``n``, whether that is every run of
        the group (``is_whole``), and ``val_acc`` (in [0, 1]) and ``val_loss`` each with
        ``…_spread``, the standard deviation, which a single run has not.
    """
    histories = [
        outcome.history.assign(group=label)
        for outcome, label in zip(gathered.outcomes, gathered.labels, strict=True)
    ]
    grouped = pd.concat(histories).groupby(["group", "epoch"], sort=False)
    made = pd.DataFrame({"n": grouped.size()})
    for name in ("val_acc", "val_loss"):
        made[name], made[f"{name}_spread"] = grouped[name].mean(), grouped[name].std()
    made["is_whole"] = made["n"] == made.groupby("group")["n"].transform("max")
    return made.reset_index()


# In words


def table_in_words(table: pd.DataFrame) -> str:
    """Return what the table of runs leaves out, and whether times can be compared."""
    lines = [TRAINING_TIME]
    if len(table) > MOST_ROWS:
        lines.insert(0, f"{MOST_ROWS} of {len(table):,} runs are shown; the files have all.")
    devices = table["device"].unique()
    if len(devices) > 1:
        lines.append(f"Times were taken on different hardware: {few(devices, '; ')}.")
    return "\n".join(lines)


def curves_in_words(bands: pd.DataFrame) -> str:
    """Return where the runs of a group lay furthest apart, and how far at the end."""
    told = []
    for name, rows in bands.groupby("group", sort=False):
        whole = rows[rows["is_whole"]]
        spread = whole["val_acc_spread"]
        if spread.isna().all():
            told.append(f"{name}: one run, which shows no spread.")
            continue
        widest, last = whole.loc[spread.idxmax()], whole.iloc[-1]
        end = "at the end"
        if len(whole) < len(rows):
            end = f"after epoch {last['epoch']:.0f}, the last that all of them have"
        told.append(
            f"{name}: the accuracy of its {counted(int(last['n']), 'run')} scattered most after "
            f"epoch {widest['epoch']:.0f}, by {100 * widest['val_acc_spread']:.1f} points, and by "
            f"{100 * last['val_acc_spread']:.1f} {end} (standard deviation)."
        )
    return "\n".join(told[:MOST_NAMES])


def front_in_words(groups: pd.DataFrame) -> str:
    """Return which groups are on the Pareto front, and which can be passed over."""
    front = groups[groups["is_front"]].sort_values("training_seconds")
    told = [
        f"{row.group} ({as_percent(row.accuracy, 2)} in {row.training_seconds:.1f} s)"
        for row in front.itertuples()
    ]
    beaten = list(groups.loc[~groups["is_front"], "group"])
    if not beaten:
        return f"On the front, by their means: {few(told)}. That is every group."
    return (
        f"On the front, by their means: {few(told)}. For each of the others, one of these is "
        f"at least as accurate in no more time: {few(beaten)}."
    )
