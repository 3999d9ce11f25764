"""A run's folder: where everything is written and read.

Every file is written beside its target, flushed, and moved into place, so that a reader never
sees half a file. Needs no torch: the notebook that only reads curves stays quick.
"""

import csv
import io
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np

from utils import InputError

ROOT = Path(__file__).resolve().parent.parent
DPI = 130
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "grad-cam", "matplotlib")
HISTORY_COLUMNS = (
    "epoch", "step", "lr", "train_loss", "train_acc", "val_loss", "val_acc", "seconds",
)  # fmt: skip
STEP_COLUMNS = ("step", "epoch", "lr", "train_loss")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,119}")


def resolve_path(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one counts from the repository's root."""
    return (ROOT / Path(path).expanduser()).resolve()


def shown_path(path: Path) -> str:
    """Return a path as people should see it: from the repository's root where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it takes the target's place if all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.stem}-{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries whose behaviour shows in results."""
    return {name: metadata.version(name) for name in LIBRARIES}


def describe_versions() -> str:
    """Return one line with the versions this notebook ran with."""
    return " · ".join(f"{name} {version}" for name, version in library_versions().items())


def derive_run_name(dataset: str, recipe: str, seed: int, **overrides) -> str:
    """Return the name of a run that was given none.

    Overrides that are None are what the recipe says, so they are left out of the name.
    """
    parts = [Path(dataset).name[:40], recipe, f"seed{seed}"]
    parts += [f"{key}={value}" for key, value in overrides.items() if value is not None]
    return re.sub(r"[^A-Za-z0-9._=+-]+", "_", "-".join(parts)).strip("._-+=")[:120]


class Run:
    """One training and what came of it, in the folder ``<output_dir>/<name>``.

    Raises:
        InputError: the name is not one plain folder name.
    """

    def __init__(self, name: str, output_dir: str | Path = "outputs"):
        if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
            raise InputError(
                f"run_name {name!r} cannot name a folder. Use letters, digits and . _ - = + only, "
                "beginning with a letter or a digit, at most 120 characters."
            )
        self.name = name
        self.folder = resolve_path(output_dir) / name

    def __repr__(self) -> str:
        return f"Run({self.name!r} in {self.folder.parent})"

    def path(self, *parts: str) -> Path:
        """Return the path of a file in this run's folder."""
        return self.folder.joinpath(*parts)

    # run.json

    @property
    def record(self) -> dict:
        """The contents of ``run.json``; an empty dict where there is none yet."""
        return self.read_json("run.json") if self.path("run.json").exists() else {}

    @property
    def settings(self) -> dict:
        """The resolved settings this run was trained with; empty before training starts."""
        return self.record.get("settings", {})

    @property
    def status(self) -> str | None:
        """``"running"``, ``"complete"`` or ``"failed"``; None for a run that never started."""
        return self.record.get("status")

    @property
    def is_trained(self) -> bool:
        """Whether training finished, whatever happened to later notebooks."""
        return self.path("model.safetensors").exists() and self.path("metrics.json").exists()

    def update_record(self, **changes) -> None:
        """Replace these entries of ``run.json``; an entry given as None is taken out."""
        record = {"name": self.name, **self.record, **changes}
        self.write_json("run.json", {k: v for k, v in record.items() if v is not None})

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Record how long a stage (a notebook, the training) took, in seconds."""
        self.update_record(
            seconds={**self.record.get("seconds", {}), stage: round(float(seconds), 2)}
        )

    # files of any stage

    def read_json(self, name: str) -> dict:
        """Read a JSON file of this run.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = self.existing(name)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}). Delete it and run again.") from error
        if not isinstance(content, dict):
            raise InputError(f"{path} is damaged (no JSON object). Delete it and run again.")
        return content

    def write_json(self, name: str, content: Mapping) -> None:
        """Write a JSON file of this run, atomically."""
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        with replacing(self.path(name)) as beside:
            beside.write_text(text + "\n", encoding="utf-8")

    def update_metrics(self, **figures) -> None:
        """Add these entries to ``metrics.json``, replacing those of the same name."""
        known = self.read_json("metrics.json") if self.path("metrics.json").exists() else {}
        self.write_json("metrics.json", {**known, **figures})

    def write_csv(self, name: str, columns: Iterable[str], rows: Iterable[Mapping]) -> None:
        """Write a table of this run, atomically."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self.path(name)) as beside:
            beside.write_text(text.getvalue(), encoding="utf-8")

    def read_csv(self, name: str, columns: Iterable[str]) -> list[dict[str, float]]:
        """Read a table of numbers with these columns: a dict a row, whole numbers as int.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = self.existing(name)
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return [
                    {key: _number(text) for key, text in row.items()}
                    for row in _rows(file, columns)
                ]
        except (ValueError, TypeError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}). Train again to replace it.") from error

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write arrays as a compressed ``.npz`` file, atomically."""
        with replacing(self.path(name)) as beside:
            np.savez_compressed(beside, **arrays)

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read a ``.npz`` file without running any code in it.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = self.existing(name)
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return dict(file)
        except Exception as error:
            raise InputError(f"{path} is damaged ({error}). Delete it and run again.") from error

    def figure(self, name: str, figure):
        """Save `figure` as ``figures/<name>.png`` and return that very picture for display."""
        from IPython.display import Image

        path = self.path("figures", f"{name}.png")
        with replacing(path) as beside:
            figure.savefig(beside, dpi=DPI, metadata={"Software": None})
        width = round(figure.get_figwidth() * 100)
        return Image(data=path.read_bytes(), width=width, alt=name.replace("_", " "))

    def existing(self, name: str) -> Path:
        """Return the path of a file that must be there.

        Raises:
            InputError: it is not; the message says which notebook makes it.
        """
        path = self.path(name)
        if not path.exists():
            raise InputError(
                f"{path} does not exist. {_MADE_BY.get(name, 'Run 03_training first.')}"
            )
        return path


_MADE_BY = {
    "lr_finder.json": "Run 02_lr_finder with the same run_name first.",
    "predictions.npz": "Run 05_misclassified with the same run_name first.",
}


def _rows(file, columns: Iterable[str]) -> Iterator[dict]:
    reader = csv.DictReader(file)
    if list(reader.fieldnames or ()) != list(columns):
        raise ValueError(f"its columns are {reader.fieldnames}, not {list(columns)}")
    for row in reader:
        if None in row or None in row.values():
            raise ValueError("a row has the wrong number of columns")
        yield row


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def list_runs(output_dir: str | Path = "outputs") -> list[Run]:
    """Return the runs in `output_dir`, the one that was changed last first."""
    folder = resolve_path(output_dir)
    records = sorted(folder.glob("*/run.json"), key=lambda path: -path.stat().st_mtime)
    names = [path.parent.name for path in records]
    return [Run(name, output_dir) for name in names if _SAFE_NAME.fullmatch(name)]


def find_run(run_name: str | None = None, output_dir: str | Path = "outputs") -> Run | None:
    """Return the trained run of that name, or the newest complete one when no name is given.

    Returns:
        None when no name is given and there is no complete run.

    Raises:
        InputError: the run asked for does not exist or was never trained to the end.
    """
    if run_name is None:
        return next((run for run in list_runs(output_dir) if run.status == "complete"), None)
    run = Run(run_name, output_dir)
    if not run.is_trained:
        known = ", ".join(other.name for other in list_runs(output_dir) if other.is_trained)
        state = "has not finished training" if run.record else "does not exist"
        raise InputError(
            f"Run {run_name!r} {state} in {run.folder.parent}. "
            f"Trained runs there: {known or 'none'}. Run 03_training with this run_name first."
        )
    return run


def now() -> str:
    """Return the time as ``run.json`` states it (UTC, ISO 8601)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
