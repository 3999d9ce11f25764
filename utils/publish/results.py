"""The results: several runs beside each other and beside the system this project reproduces."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from utils import InputError, as_markdown, brief, check_choice, first_line
from utils.explain.many_runs import differing_settings
from utils.files import ROOT, brief_path
from utils.measure.trials import Trial, mean_and_spread, pooled_by_epoch, read_trial
from utils.models.registry import MODELS
from utils.publish.book import DOCS
from utils.publish.safe_outputs import MOST_OF_A_PICTURE, smaller_picture
from utils.runs import Run
from utils.training.history import TRAINING_TIME

#: Figures of the reference run that the results show, each with what it says to who cannot see it:
#: first what came out, then how it got there.
FIGURES = {
    "06_misclassified": "The most confident mistakes, each beside its class activation maps",
    "05_misclassified": "The most confident mistakes, each with its actual and its predicted class",
    "04_accuracies": "Train and test accuracy after each epoch",
    "04_losses": "Train and test loss after each epoch",
    "04_schedule": "Learning rate and epoch at each step of training",
}
#: The system that is reproduced, as its own log and text show it.
ORIGINAL = {
    "": "the original, as it logged",
    "data set": "CIFAR-10",
    "hardware": "one T4-class GPU, 16 bit",
    "network": "DavidNet, 6,573,130 parameters (6.9 M by its log)",
    "epochs": "20",
    "training time": "about 220 s",
    "accuracy on test pictures": "not logged: its 0.932 pools them with training pictures",
    "averaged over views": "–",
    "as the original logged it, pooled": "93.2 %",
    "loss on test pictures": "0.232",
    "n": "1",
}
#: Where the columns of earlier runs are kept, beside the figures.
COLUMNS = "columns.json"
#: Between these lines of a page stand the results.
BEGIN, END = "<!-- results: written by `python -m utils results` -->", "<!-- end of results -->"


def results_of(
    reference: Run,
    others: Sequence[Run] = (),
    pages: Sequence[Path] = (ROOT / "README.md", DOCS / "results.md"),
    pictures: Path = DOCS / "results",
) -> dict[Path, str | bytes]:
    """Return the results of runs as the contents of files, so that nothing is written if one fails.

    The columns are kept beside the figures, by pictures and recipe: those of recipes that are not
    among these runs stay as they were.

    Args:
        reference: whose figures are shown.
        others: complete runs to compare with it; those of one recipe share a column. One that is
            given twice counts once.
        pages: Markdown files with the lines ``BEGIN`` and ``END``.
        pictures: folder for the figures, and ``columns.json``.

    Raises:
        InputError: a run is not complete, lacks a figure or has another file in its place, or was
            trained on other pictures; two of one recipe differ in more than the seed, as in
            hardware; or a page has no place for results.
    """
    mine = {runs[0].settings["recipe"]: _column(runs) for runs in _by_recipe([reference, *others])}
    kept = _kept_columns(pictures / COLUMNS)
    fingerprint = reference.record["data"]["fingerprint"]
    columns = mine | {n: c for n, c in kept.get(fingerprint, {}).items() if n not in mine}
    found: dict[Path, str | bytes] = {
        pictures / f"{name}.png": _figure(reference, name) for name in FIGURES
    }
    text = json.dumps({**kept, fingerprint: columns}, indent=1, ensure_ascii=False)
    found[pictures / COLUMNS] = text + "\n"
    for page in pages:
        folder = pictures.relative_to(page.parent).as_posix()
        text = "\n".join(
            [*_table(list(columns.values())), "", *_remarks(reference), "", *_shown(folder)]
        )
        found[page] = _with_results(page, text)
    return found


def _kept_columns(file: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return the columns of earlier runs, by the pictures' fingerprint and by recipe."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise InputError(
            f"{brief_path(file)} does not hold the columns of earlier runs ({first_line(error)}). "
            "Bring it back, or remove it."
        ) from error


def _figure(run: Run, name: str) -> bytes:
    path = run.existing(f"figures/{name}.png")
    try:
        with path.open("rb") as file:
            return smaller_picture(file.read(MOST_OF_A_PICTURE + 1))
    except Exception as error:  # damage can make a decoder raise nearly anything
        raise InputError(
            f"{path} is not a PNG picture that can be shown ({first_line(error)}). Run chapter "
            f"{name[:2]} again."
        ) from error


def _by_recipe(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in {run.folder.resolve(): run for run in runs}.values():
        if not run.is_trained:
            raise InputError(f"Run {run.name!r} in {brief_path(run.folder.parent)} is not trained.")
        if run.record["data"]["fingerprint"] != runs[0].record["data"]["fingerprint"]:
            raise InputError(
                f"Runs {runs[0].name!r} and {run.name!r} were trained on different pictures, so "
                "their figures cannot be compared."
            )
        group = groups.setdefault(run.settings["recipe"], [])
        group.append(run)
        _check_alike(group[0], run)
    return list(groups.values())


def _check_alike(first: Run, other: Run) -> None:
    """Refuse to average over runs that differ in more than the seed."""
    differing = differing_settings({"first": first.record, "other": other.record})
    allowed = {"seed"}
    if {run.settings.get("max_lr_source") for run in (first, other)} == {"found"}:
        allowed.add("max_lr")  # each seed finds its own
    unlike = [
        f"{name} is {brief(differing[name]['first'])} and {brief(differing[name]['other'])}"
        for name in differing
        if name not in allowed
    ]
    hardware = [run.record["device"]["name"] for run in (first, other)]
    if hardware[0] != hardware[1]:
        unlike.append(f"hardware is {brief(hardware[0])} and {brief(hardware[1])}")
    if unlike:
        raise InputError(
            f"Runs {first.name!r} and {other.name!r} of recipe {first.settings['recipe']!r} differ "
            f"in more than the seed ({'; '.join(unlike)}), so their mean would say nothing. Give "
            "runs that agree."
        )


def _column(runs: list[Run]) -> dict[str, str]:
    """Return the results of one recipe's runs, by the table's rows."""
    trials = [read_trial(run.settings["recipe"], run) for run in runs]
    record, settings = runs[0].record, runs[0].settings
    check_choice("model", record["model"]["name"], MODELS)

    def over_runs(value: Callable[[Trial], float | None], digits: int, unit: str) -> str:
        values = [v for v in map(value, trials) if v is not None]
        return f"{mean_and_spread(values, digits)}{unit}" if values else "–"

    views = ""
    if settings.get("views", 1) > 1:
        views = f" ({settings['views']} views, {record['precision']})"
    return {
        "": f"`{settings['recipe']}`, here",
        "data set": as_markdown(record["data"]["title"]),
        "hardware": f"{as_markdown(record['device']['name'])}, {record['precision']}",
        "network": f"{MODELS[record['model']['name']].__name__}, "
        f"{record['model']['parameters']:,} parameters",
        "epochs": str(settings["epochs"]),
        "training time": over_runs(lambda trial: trial.seconds, 0, " s"),
        "accuracy on test pictures": over_runs(lambda trial: 100 * trial.accuracy, 2, " %"),
        "averaged over views": over_runs(
            lambda trial: None if trial.averaged is None else 100 * trial.averaged, 2, " %" + views
        ),
        "as the original logged it, pooled": over_runs(_pooled, 2, " %"),
        "loss on test pictures": over_runs(
            lambda trial: trial.run.read_json("metrics.json")["test_loss"], 3, ""
        ),
        "n": str(len(runs)),
    }


def _pooled(trial: Trial) -> float | None:
    """Return the last accuracy over training and test pictures together, in percent, or None."""
    if trial.run.record["data"]["watched"] != "test":
        return None
    return 100 * float(pooled_by_epoch(trial.run).iloc[-1])


def _table(columns: list[dict[str, str]]) -> list[str]:
    columns = [ORIGINAL, *columns]
    rows = [[row, *(column.get(row, "–") for column in columns)] for row in ORIGINAL]
    rows.insert(1, ["---"] * len(rows[0]))
    return [f"| {' | '.join(row)} |" for row in rows]


def _remarks(reference: Run) -> list[str]:
    record = reference.record
    versions = ", ".join(
        f"{name} {version}" for name, version in record.get("versions", {}).items()
    )
    return [
        f"This project's numbers are of {record['data']['test_size']:,} test pictures in float32 "
        f"after the last epoch, one view each, but where the table says otherwise. {TRAINING_TIME} "
        "With several runs, mean ± standard deviation over seeds. The pictures below are of one "
        f"run, `{reference.name}` (recipe `{record['settings']['recipe']}`, seed "
        f"{record['settings']['seed']}; {versions}).",
    ]


def _shown(folder: str) -> list[str]:
    return [f"![{alt}]({folder}/{name}.png)\n" for name, alt in FIGURES.items()]


def _with_results(page: Path, text: str) -> str:
    """Return a page with this text in the place of earlier results."""
    before = page.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(before)) != 1:
        raise InputError(
            f"{brief_path(page)} has no place for results: the lines {BEGIN} and {END}."
        )
    return pattern.sub(lambda _: f"{BEGIN}\n\n{text}\n{END}", before)
