"""Many runs: what they were trained with, what came of each, and which form a group."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from utils import InputError, counted
from utils.explain.compare import Group
from utils.files import brief_path, resolve_path
from utils.runs import Run, list_runs
from utils.settings import NOT_IDENTITY, SETTINGS, TEXT
from utils.training.answers import load_answers
from utils.training.history import WATCHED, read_history
from utils.training.recipes import UNSAID

#: `group_by` for the runs' names without their seeds.
BY_NAME = "name"
#: Which pictures, by number, stand for a setting that tells runs apart.
BY_PICTURES = "pictures"
#: Names that a sentence shows of a list.
MOST_NAMES = 8


@dataclass(frozen=True)
class Outcome:
    """A trained run and what its files say.

    Attributes:
        run: where it is kept.
        record, metrics: ``run.json`` and ``metrics.json``.
        history: a row an epoch, as `utils.training.history.read_history` gives it.
        answers: the true and the predicted classes of its test pictures, int16, N each; None where
            it has no ``predictions.npz``.
    """

    run: Run
    record: Mapping
    metrics: Mapping
    history: pd.DataFrame
    answers: tuple[np.ndarray, np.ndarray] | None

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.record["settings"]["seed"]

    def tested_on(self, is_changed: bool = False) -> tuple | None:
        """Return what two runs have in common that were tested on the same pictures.

        Args:
            is_changed: whether these may be the same pictures in another form, with other
                fingerprints; then their labels alone have to be the same, one after the other.

        Returns:
            None where the run has no predictions.
        """
        if self.answers is None:
            return None
        data = self.record["data"]
        pixels = "" if is_changed else data["fingerprint"]
        return tuple(data["classes"]), pixels, self.answers[0].tobytes()


@dataclass(frozen=True)
class Gathered:
    """The runs of a folder, those that can be compared with each other in groups.

    Attributes:
        outcomes: runs that were tested on the same pictures, by group and then by seed.
        others: trained runs that were tested on other pictures, or have no predictions.
        repeats: trained runs of the same settings and seed as one of `outcomes`, which is newer.
        unfinished: names of runs that are not trained.
        unreadable: of each run that is, and has a damaged file, what is wrong.
        settings: a row a run, by its name, of all trained ones: what they differ in, and the seed.
        labels: the group of each run of `outcomes`, by its name.
        mixed: settings in which runs of one group differ, beside the seed.
    """

    outcomes: tuple[Outcome, ...]
    others: tuple[Outcome, ...]
    repeats: tuple[Outcome, ...]
    unfinished: tuple[str, ...]
    unreadable: tuple[str, ...]
    settings: pd.DataFrame
    labels: pd.Series
    mixed: tuple[str, ...]

    @property
    def title(self) -> str:
        """How figures name the data."""
        return self.outcomes[0].record["data"]["title"]

    @property
    def classes(self) -> list[str]:
        """Names of all classes."""
        return self.outcomes[0].record["data"]["classes"]

    @property
    def watched(self) -> str:
        """What was watched during training, as figures call it."""
        watched = {outcome.record["data"]["watched"] for outcome in self.outcomes}
        return WATCHED[watched.pop()] if len(watched) == 1 else "watched split (not the same)"

    @property
    def names(self) -> list[str]:
        """The groups, in the order of the runs."""
        return list(dict.fromkeys(self.labels))

    @cached_property
    def target(self) -> np.ndarray:
        """The true class of each test picture: int16, N."""
        return _answers(self.outcomes[0])[0]

    @cached_property
    def predicted(self) -> np.ndarray:
        """What each run takes each test picture for: int16, runs × N."""
        return np.stack([_answers(outcome)[1] for outcome in self.outcomes])

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each run is right on each test picture: bool, runs × N."""
        return self.predicted == self.target

    def group(self, name: str) -> Group:
        """Return the runs of a group, ready to be compared."""
        places = np.flatnonzero(self.labels == name)
        paired_by = ("seed", *(setting for setting in self.mixed if setting != BY_PICTURES))
        rows = self.settings.loc[self.labels.index[places], list(paired_by)]
        keys = tuple(rows["seed"]) if len(paired_by) == 1 else tuple(map(tuple, rows.to_numpy()))
        return Group(name, keys, self.right[places], paired_by)

    def pair(self, groups: str | None = None) -> tuple[Group, Group] | None:
        """Return the two groups to compare.

        Args:
            groups: their names with a comma between, the second to be held against the first; None
                takes the first two.

        Returns:
            None where there is one group only, and none was asked for.

        Raises:
            InputError: these are not two of the groups.
        """
        if groups is None and len(self.names) < 2:
            return None
        if groups is None:
            return self.group(self.names[0]), self.group(self.names[1])
        asked = re.sub(r"\s*,\s*", ",", groups.strip())
        for first, second in permutations(self.names, 2):
            if f"{first},{second}" == asked:
                return self.group(first), self.group(second)
        raise InputError(
            f"groups is {groups!r}; it must name two of these, with a comma between: "
            f"{few(self.names, ' | ')}."
        )


def _answers(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    assert outcome.answers is not None  # those without are among `Gathered.others`
    return outcome.answers


# Gathering


def gather(runs: str | Path, group_by: str | None = None) -> Gathered:
    """Read all trained runs of a folder, and put those that can be compared into groups.

    Args:
        runs: the folder, or a pattern for the names of runs at the end of it.
        group_by: None for groups that differ in the seed alone; a setting, for groups that have
            one value of it each; `BY_NAME` for the runs' names without their seeds. Runs on other
            pictures are left out, but with `BY_PICTURES` or `BY_NAME`: those say that they are the
            same pictures in another form, such as a compressed copy.

    Raises:
        InputError: fewer than two runs can be compared, or no run differs in that setting; the
            message says what was found.
    """
    found, unfinished = list_trained(runs)
    trained, unreadable = _read_all(found)
    if len(trained) < 2:
        names = [outcome.run.name for outcome in trained]
        raise InputError(_too_few(runs, names, unfinished, unreadable))
    comparable = _most_alike(trained, group_by in (BY_PICTURES, BY_NAME))
    if len(comparable) < 2:
        raise InputError(
            f"The {len(trained)} trained runs in {runs} were tested on different pictures, or have "
            "no predictions.npz, so no two can be compared. Train with the same dataset and "
            "limit_test, or run chapter 5 on those without predictions. If they are the same "
            f'pictures in another form, give group_by="{BY_PICTURES}" or "{BY_NAME}".'
        )
    settings = differing_settings({outcome.run.name: outcome.record for outcome in trained})
    by_name = {outcome.run.name: outcome for outcome in comparable}
    is_repeat = settings.loc[list(by_name)].duplicated()
    names = [name for name in by_name if not is_repeat[name]]
    if len(names) < 2:
        raise InputError(_too_few(runs, names, unfinished, ["The others repeat it, seed and all."]))
    labels = group_labels(settings.loc[names], group_by, _recipe(comparable[0]))
    order = sorted(names, key=lambda name: (_by_numbers(labels[name]), by_name[name].seed, name))
    return Gathered(
        tuple(by_name[name] for name in order),
        tuple(outcome for outcome in trained if outcome.run.name not in by_name),
        tuple(by_name[name] for name in by_name if is_repeat[name]),
        tuple(unfinished),
        tuple(unreadable),
        settings,
        labels[order],
        _mixed(settings.loc[order], labels[order]),
    )


def list_trained(runs: str | Path) -> tuple[list[Run], list[str]]:
    """Return the trained runs of a folder, and the names of those that are not trained.

    Args:
        runs: as for `gather`.

    Raises:
        InputError: there is no such folder, or fewer than two runs in it are trained.
    """
    trained, unfinished = [], []
    for run in list_runs(*_place(runs)):
        if run.is_trained:
            trained.append(run)
        else:
            unfinished.append(run.name)
    if len(trained) < 2:
        raise InputError(_too_few(runs, [run.name for run in trained], unfinished))
    return trained, unfinished


def _place(runs: str | Path) -> tuple[Path, str]:
    """Return a folder of runs, and the pattern of the names that are meant."""
    path = Path(runs)
    is_pattern = any(sign in path.name for sign in "*?[")
    folder = resolve_path(path.parent if is_pattern else path)
    if not folder.is_dir():
        raise InputError(
            f"runs is {str(runs)!r}, but there is no folder {brief_path(folder)}. Give the folder "
            "that holds the folders of the runs."
        )
    if (folder / "run.json").exists():
        raise InputError(
            f"runs is {str(runs)!r}, which is one run. Give the folder that it lies in, or a "
            f"pattern of several: {brief_path(folder.parent)}/*"
        )
    return folder, path.name if is_pattern else "*"


def _read_all(runs: Sequence[Run]) -> tuple[list[Outcome], list[str]]:
    """Return what can be read, and of what cannot the reason."""
    read, unreadable = [], []
    for run in runs:
        try:
            read.append(_read(run))
        except InputError as error:
            unreadable.append(str(error))
    return read, unreadable


def _read(run: Run) -> Outcome:
    record, answers = run.record, None
    if "training" not in record.get("seconds", {}):
        raise InputError(
            f"{run.path('run.json')} does not say how long training took. Train again."
        )
    if run.has("predictions.npz"):
        target, predicted = load_answers(run, len(record["data"]["classes"]))
        answers = target.astype(np.int16), predicted.astype(np.int16)
    return Outcome(run, record, run.read_json("metrics.json"), read_history(run), answers)


def _too_few(
    runs: str | Path,
    trained: Sequence[str],
    unfinished: Sequence[str],
    unreadable: Sequence[str] = (),
) -> str:
    there = f"one trained run, {trained[0]}" if trained else "no trained run"
    more = f", and unfinished: {few(unfinished)}" if unfinished else ""
    damaged = f" {unreadable[0]}" if unreadable else ""
    return (
        f"runs is {str(runs)!r}, where there is {there}{more}.{damaged} A comparison needs at "
        "least two. Train another: python -m utils run, with another --run-name and -p seed 1."
    )


def _most_alike(trained: Sequence[Outcome], is_changed: bool) -> list[Outcome]:
    """Return the most runs that were tested on the same pictures; the newest of equally many."""
    alike: dict[tuple, list[Outcome]] = {}
    for outcome in trained:
        tested_on = outcome.tested_on(is_changed)
        if tested_on is not None:
            alike.setdefault(tested_on, []).append(outcome)
    return max(alike.values(), key=len, default=[])


def _recipe(outcome: Outcome) -> str:
    return outcome.record["settings"]["recipe"]


# Settings and groups


def differing_settings(records: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return in which settings runs differ: a row a run, by its name, and always the seed.

    Args:
        records: of each run its ``run.json``, by a name that no other has.

    Returns:
        a table without what changes no training. What an earlier version did not name yet has the
        value that it had then. Pictures that differ are numbered, in the column ``pictures``; lists
        are written as JSON.
    """
    rows = {name: _identity(record["settings"]) for name, record in records.items()}
    given = dict.fromkeys(name for row in rows.values() for name in row)
    names = [*filter(given.__contains__, SETTINGS), *(n for n in given if n not in SETTINGS)]
    # column by column as objects: pandas would take None for NaN, and 1 beside it for 1.0
    columns = {name: [row.get(name) for row in rows.values()] for name in names}
    table = pd.DataFrame(columns, index=list(rows), dtype=object)
    fingerprints = [record["data"]["fingerprint"] for record in records.values()]
    table[BY_PICTURES] = pd.factorize(pd.Series(fingerprints))[0] + 1
    return table[[n for n in table if n == "seed" or table[n].nunique(dropna=False) > 1]]


def _identity(settings: Mapping) -> dict:
    """Return the settings that make a training another one, each as a value that can be counted."""
    whole = UNSAID | dict(settings)
    return {
        name: json.dumps(value) if isinstance(value, list | dict) else value
        for name, value in whole.items()
        if name not in (*NOT_IDENTITY, "data_fingerprint")
    }


def group_labels(settings: pd.DataFrame, group_by: str | None, alone: str) -> pd.Series:
    """Return the name of each run's group, by the run's name.

    Args:
        settings: of `differing_settings`.
        group_by: as for `gather`.
        alone: what to call the group where there is one.

    Raises:
        InputError: the runs do not differ in that setting.
    """
    if group_by == BY_NAME:
        return pd.Series({name: without_seed(name) for name in settings.index})
    if group_by is None:
        keys = telling(settings.drop(columns="seed"))
    elif group_by in settings:
        keys = [group_by]
    else:
        raise InputError(
            f"group_by is {group_by!r}, in which these runs do not differ. They differ in: "
            f"{', '.join(settings)}. Choose one of these, or {BY_NAME!r}."
        )
    if not keys:
        return pd.Series(alone, index=settings.index)
    labels = [
        " ".join(_label(key, value) for key, value in zip(keys, row, strict=True))
        for row in settings[keys].itertuples(index=False)
    ]
    return pd.Series(labels, index=settings.index)


def without_seed(name: str) -> str:
    """Return a run's name without what says its seed.

    >>> without_seed("cifar10-speed-seed12-epochs=5"), without_seed("seed=3"), without_seed("a_1")
    ('cifar10-speed-epochs=5', 'seed=3', 'a_1')
    """
    return re.sub(r"[-_.]?seed[-_=]?\d+", "", name).strip("-_.") or name


def telling(settings: pd.DataFrame) -> list[str]:
    """Return few columns that tell apart all rows that are told apart by all columns together.

    A recipe sets much at once: where it differs, it alone says what its many numbers would say.
    """
    keys, wanted = [], len(settings.drop_duplicates())
    for name in settings:
        before = len(settings[keys].drop_duplicates()) if keys else 1
        if before == wanted:
            break
        if len(settings[[*keys, name]].drop_duplicates()) > before:
            keys.append(name)
    return keys


def _label(key: str, value) -> str:
    """Return a setting and its value, or the value alone where that says what it is."""
    setting = SETTINGS.get(key)
    if setting is not None and setting.kind is TEXT and setting.choices:
        return str(value)
    short = f"{value:g}" if isinstance(value, float) else str(value)
    is_same = not isinstance(value, float) or float(short) == value
    return f"{key}={short if is_same else value}"


def _by_numbers(text: str) -> list:
    """Return a key that sorts texts as a person would: by the numbers in them, 5 before 10."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [float(part) if n % 2 else part for n, part in enumerate(parts)]


def _mixed(settings: pd.DataFrame, labels: pd.Series) -> tuple[str, ...]:
    """Return the settings that differ within a group, beside the seed."""
    others = settings.drop(columns="seed")
    return tuple(
        name for name in others if (others[name].groupby(labels).nunique(dropna=False) > 1).any()
    )


# What is written


def comparison_folder(
    comparison: str | None, runs: str | Path, output_dir: str | Path = "outputs"
) -> Run:
    """Return the folder that a comparison is written to, which no training has.

    Args:
        comparison: its name; None makes one from that of the folder of the runs.
        runs: as for `gather`.
        output_dir: what it lies in.

    Raises:
        InputError: the name is none that a folder can have, or that of a run.
    """
    if comparison is None:
        path = Path(runs)
        parts = (path.parent.name, path.name) if set("*?[") & set(path.name) else (path.name,)
        words = re.sub(r"[^A-Za-z0-9._=+-]+", "_", "-".join(("comparison", *filter(None, parts))))
        comparison = words[:120].rstrip("._-")
    folder = Run(comparison, output_dir)
    if folder.has("run.json"):
        raise InputError(
            f"comparison is {comparison!r}, which is the name of a run in {folder.folder.parent}. "
            "Choose another."
        )
    return folder


# In words


def few(names: Sequence[str], between: str = ", ") -> str:
    """Return the first `MOST_NAMES` of a list, and how many more there are."""
    more = len(names) - MOST_NAMES
    listed = between.join(names[:MOST_NAMES])
    return f"{listed} and {more:,} more" if more > 0 else listed


def gathered_in_words(gathered: Gathered) -> str:
    """Return which runs there are, which of them form groups, and what was left out and why."""
    size = gathered.target.size
    lines = [
        f"{counted(len(gathered.outcomes), 'run')} on {gathered.title}, tested on the same "
        f"{counted(size, 'picture')}, in {counted(len(gathered.names), 'group')}: "
        f"{few(gathered.names)}"
    ]
    if gathered.others:
        names = [outcome.run.name for outcome in gathered.others]
        lines.append(f"Not compared, as tested on other pictures or unknown ones: {few(names)}")
    if gathered.repeats:
        names = [outcome.run.name for outcome in gathered.repeats]
        lines.append(f"Not compared, as repeats of a newer run, seed and all: {few(names)}")
    if gathered.unfinished:
        lines.append(f"Left out, as not trained to the end: {few(gathered.unfinished)}")
    lines += [f"Left out: {reason}" for reason in gathered.unreadable[:MOST_NAMES]]
    if (
        len(gathered.names)
        == len(gathered.outcomes)
        > len(set(map(without_seed, gathered.labels.index)))
    ):
        lines.append('Every group has one run; group_by="name" would make fewer and larger ones.')
    if len({o.record["data"]["fingerprint"] for o in gathered.outcomes}) > 1:
        lines.append(
            "The pictures have the same labels in the same order, and do not all look the same: "
            "what differs between runs may be their pictures, too."
        )
    lines += _conditions_in_words(gathered.outcomes)
    if gathered.mixed:
        lines.append(f"Runs of one group differ in more than the seed: {few(gathered.mixed)}")
    return "\n".join(lines)


def _conditions_in_words(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what runs were trained with that is no setting, where it is not the same for all."""
    conditions = {
        "hardware": [outcome.record["device"]["name"] for outcome in outcomes],
        "commits of this project": [_commit(outcome) for outcome in outcomes],
        "versions of torch": [_torch(outcome) for outcome in outcomes],
    }
    lines = []
    for name, values in conditions.items():
        counts = Counter(values)
        if len(counts) > 1:
            told = few([f"{value} ({counted(n, 'run')})" for value, n in counts.items()])
            lines.append(f"Trained with different {name}, which may be what differs: {told}")
    return lines


def _commit(outcome: Outcome) -> str:
    return (outcome.record.get("git_commit") or "unknown")[:7]


def _torch(outcome: Outcome) -> str:
    return outcome.record.get("versions", {}).get("torch", "unknown")
