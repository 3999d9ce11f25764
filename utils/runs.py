"""A run's folder: where everything is written and read.

Every file is written beside its target, flushed, and moved into place, so that a reader never
sees half a file. What is read back is checked first: a run's folder may come from anywhere.
Needs no torch: the notebook that only reads curves stays quick.
"""

import csv
import io
import json
import os
import re
import stat
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np

from utils import InputError, as_cell, brief, first_line, printable
from utils.files import (
    check_growth,
    remove_leftovers,
    replacing,
    resolve_path,
    unwritable,
    write_text,
)
from utils.locks import HeldError, held_alone
from utils.settings import schema

DPI = 130
LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "grad-cam", "matplotlib")
HISTORY_COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "seconds",
)
#: Folder of what was measured of the maps of the network that was trained.
MEASURED = "trust"
#: Folder of that network as an ONNX file, with what belongs to it.
EXPORTED = "export"
STEP_COLUMNS = ("step", "epoch", "lr", "train_loss")
#: Bytes that an ``.npz`` file may take in memory, or so many times its own size if that is more.
#: Logits hardly shrink when packed: predictions of two classes to a fifth, of more to less.
MAX_ARRAYS, MAX_ARRAYS_RATIO = 2**26, 20
#: Set while this process holds a run, so that the notebooks it starts may write to that run too.
HELD_RUN = "DAVIDNET_HELD_RUN"
_SAFE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._=+-]{0,118}[A-Za-z0-9_=+-])?")
#: What Windows takes for a device, whatever follows the dot.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries whose behaviour shows in results."""
    return {name: metadata.version(name) for name in LIBRARIES}


def describe_versions() -> str:
    """Return one line with the versions this notebook ran with."""
    return " · ".join(f"{name} {version}" for name, version in library_versions().items())


def check_folder_name(parameter: str, name) -> None:
    """Refuse what is not one plain folder name on every system.

    Args:
        parameter: what the name was given as, in the words of the message.
        name: of a folder to be.

    Raises:
        InputError: naming the parameter and its value.
    """
    if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
        raise InputError(
            f"{parameter} {brief(name)} cannot name a folder. Use letters, digits and . _ - = + "
            "only, beginning with a letter or a digit and not ending with a dot, at most 120 "
            "characters."
        )
    if _RESERVED.fullmatch(name):
        raise InputError(
            f"{parameter} {name!r} is the name of a device on Windows. Choose another."
        )


def _links_in(folder: str | os.PathLike[str], depth: int = 2) -> list[str]:
    """Return the links in a folder, and in those in it: what they are called, from it on."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # there is no such folder yet
        return []
    links = [entry.name for entry in entries if entry.is_symlink()]
    if depth > 1:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                links += [f"{entry.name}/{name}" for name in _links_in(entry, depth - 1)]
    return links


class Run:
    """One training and what came of it, in the folder ``<output_dir>/<name>``.

    Raises:
        InputError: the name is not one plain folder name, or its folder holds a link.
    """

    def __init__(self, name: str, output_dir: str | Path = "outputs"):
        check_folder_name("run_name", name)
        self.name = name
        self.folder = resolve_path(output_dir) / name
        if os.path.exists(self.folder) and not self.folder.is_dir():
            raise InputError(
                f"run_name {name!r} is taken: {self.folder} is a file. Choose another name."
            )
        self._check_links()

    def __repr__(self) -> str:
        return f"Run({self.name!r} in {self.folder.parent})"

    def _check_links(self) -> None:
        """Refuse a folder that came with links: what is written into it would land elsewhere."""
        links = _links_in(self.folder)
        if links:
            raise InputError(
                f"Run {self.name!r} in {self.folder.parent} holds a link ({links[0]}), and what is "
                "written there would land elsewhere. Remove the link."
            )

    def path(self, *parts: str) -> Path:
        """Return the path of a file in this run's folder."""
        return self.folder.joinpath(*parts)

    def has(self, *parts: str) -> bool:
        """Tell whether this file is there.

        Raises:
            InputError: something else has its name, such as a pipe, which would be waited for
                without end.
        """
        path = self.path(*parts)
        try:
            mode = path.lstat().st_mode
        except OSError:
            return False
        if stat.S_ISREG(mode):
            return True
        kinds = {stat.S_ISDIR: "a folder", stat.S_ISLNK: "a link", stat.S_ISFIFO: "a pipe"}
        kind = next((name for is_one, name in kinds.items() if is_one(mode)), "a device")
        raise InputError(
            f"{path} does not exist as a file: {kind} has its name. Remove that, and run again."
        )

    # run.json

    @property
    def record(self) -> dict:
        """The contents of ``run.json``; an empty dict where there is none yet."""
        return self.read_json("run.json") if os.path.lexists(self.path("run.json")) else {}

    @property
    def settings(self) -> dict:
        """The resolved settings this run was trained with; empty before training starts."""
        return self.record.get("settings", {})

    @property
    def status(self) -> str | None:
        """Of the training: ``"running"``, ``"complete"`` or ``"failed"``; None before it starts.

        A chapter that fails later is noted as ``failure``, and the run stays complete.
        """
        return self.record.get("status")

    @property
    def failure(self) -> str:
        """What is noted of the last failure of a notebook or of training; empty if nothing is."""
        noted = self.record.get("failure")
        if not isinstance(noted, Mapping):
            return "" if noted is None else printable(str(noted))
        return ", ".join(printable(str(noted[n])) for n in ("notebook", "error") if n in noted)

    @property
    def failed_notebook(self) -> str | None:
        """The name of the notebook that failed last and was not run to its end since."""
        noted = self.record.get("failure")
        return noted.get("notebook") if isinstance(noted, Mapping) else None

    @property
    def is_trained(self) -> bool:
        """Whether training finished, whatever happened to later notebooks."""
        made = ("model.safetensors", "metrics.json")
        return all(self.has(name) for name in made) and bool(self.settings)

    def update_record(self, **changes) -> None:
        """Replace these entries of ``run.json``; an entry given as None is taken out."""
        record = {"name": self.name, **self.record, **changes}
        self.write_json("run.json", {k: v for k, v in record.items() if v is not None})

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Record how long a stage (a notebook, the training) took, in seconds."""
        self.update_record(
            seconds={**self.record.get("seconds", {}), stage: round(float(seconds), 2)}
        )

    # one process at a time

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold this run: no other process can. The system lets go of it when this process ends.

        Within, this process and the notebooks it starts may hold the run again.

        Raises:
            InputError: another process holds it, which the message names; or the folder cannot
                be written to.
        """
        if os.environ.get(HELD_RUN) == str(self.folder):
            yield
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(held_alone(self.folder))
            except HeldError as held:
                raise InputError(
                    f"Run {self.name!r} in {self.folder.parent} is being written by {held}. Wait "
                    "for it, stop it, or choose another run_name."
                ) from None
            except OSError as error:
                raise unwritable(self.folder, error) from error
            stack.callback(_set_held, os.environ.get(HELD_RUN))
            self._remove_leftovers()
            _set_held(str(self.folder))
            yield

    def _remove_leftovers(self) -> None:
        for name in ("checkpoints", "notebooks"):  # only the holder of a run writes there
            remove_leftovers(self.path(name))
        for name in (".", "figures"):
            remove_leftovers(self.path(name), older_than=3600)

    # files of any stage

    def read_json(self, name: str) -> dict:
        """Read a JSON file of this run, and check that it holds what it should.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = self.existing(name)
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
            return _validator(name)(content)
        except (OSError, ValueError, RecursionError) as error:
            reason = re.sub(r"^data\.?", "", first_line(error))  # how the validator names the whole
            raise InputError(f"{path} is damaged ({reason}). Delete it and run again.") from error

    def write_json(self, name: str, content: Mapping) -> None:
        """Write a JSON file of this run, atomically."""
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        with replacing(self.path(name)) as beside:
            # a file name that is no text stays readable as an escape of JSON's own
            beside.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")

    def update_metrics(self, **figures) -> None:
        """Add these entries to ``metrics.json``, replacing those of the same name."""
        known = self.read_json("metrics.json") if self.has("metrics.json") else {}
        self.write_json("metrics.json", {**known, **figures})

    def write_csv(self, name: str, columns: Iterable[str], rows: Iterable[Mapping]) -> None:
        """Write a table of this run, atomically."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path(name), text.getvalue())

    def read_csv(self, name: str, columns: Iterable[str]) -> list[dict[str, float]]:
        """Read a table of numbers with these columns: a dict a row, whole numbers as int.

        Raises:
            InputError: the file is missing, damaged or without a row.
        """
        path = self.existing(name)
        try:
            with open(path, encoding="utf-8", newline="") as file:
                rows = [
                    {key: _number(text) for key, text in row.items()}
                    for row in _rows(file, columns)
                ]
            if not rows:
                raise ValueError("it has no rows")
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise InputError(
                f"{path} is damaged ({error}). Train again with overwrite=True to replace it."
            ) from error
        return rows

    def write_table(self, name: str, table) -> None:
        """Write a table of pandas as ``<name>.csv`` and ``<name>.parquet``, each atomically."""
        cells = table.map(lambda value: as_cell(value) if isinstance(value, str) else value)
        write_text(self.path(f"{name}.csv"), cells.rename(columns=as_cell).to_csv(index=False))
        with replacing(self.path(f"{name}.parquet")) as beside:
            table.to_parquet(beside, engine="pyarrow", index=False)

    def write_arrays(self, name: str, **arrays: Any) -> None:
        """Write arrays as a compressed ``.npz`` file, atomically."""
        with replacing(self.path(name)) as beside:
            np.savez_compressed(beside, **arrays)

    def read_arrays(self, name: str, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Read a ``.npz`` file without running any code in it.

        Args:
            name: of the file.
            only: names of arrays, of which the others are not unpacked; None for all.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = self.existing(name)
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                check_growth(file.zip, max(MAX_ARRAYS, MAX_ARRAYS_RATIO * path.stat().st_size))
                return {key: file[key] for key in (file.files if only is None else only)}
        except Exception as error:  # NumPy would advise to load it unsafely
            reason = (
                "it does not hold plain arrays" if "pickle" in str(error) else first_line(error)
            )
            raise InputError(f"{path} is damaged ({reason}). Delete it and run again.") from error

    def figure(self, name: str, figure):
        """Save `figure` as ``figures/<name>.png`` and return that very picture for display.

        What it shows is said, to those who cannot see it, by the figure's label, if it has one.
        """
        from IPython.display import Image

        path = self.path("figures", f"{name}.png")
        with replacing(path) as beside:
            figure.savefig(beside, dpi=DPI, metadata={"Software": None})
        width = round(figure.get_figwidth() * 100)
        alt = figure.get_label() or name.replace("_", " ")
        return Image(data=path.read_bytes(), width=width, alt=alt)

    def existing(self, name: str) -> Path:
        """Return the path of a file that must be there.

        Raises:
            InputError: it is not; the message says which notebook makes it.
        """
        if not self.has(name):
            raise InputError(
                f"{self.path(name)} does not exist. {_MADE_BY.get(name, 'Run 03_training first.')}"
            )
        return self.path(name)


_MADE_BY = {
    "lr_finder.json": (
        "Run 02_lr_finder first, with the same run_name or, without one, the same settings."
    ),
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
    value = float(text)
    if not abs(value) < 2**53:  # neither NaN nor infinite, and exact where it is whole
        raise ValueError(f"{text[:40]!r} is not a number that training writes")
    return int(value) if re.fullmatch(r"-?[0-9]+", text) else value


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _object(optional: Mapping | None = None, **properties) -> dict:
    known = {**properties, **(optional or {})}
    return {"type": "object", "properties": known, "required": list(properties)}


def _some(kind: str, least: int = 0, **more) -> dict:
    return {"type": "array", "items": {"type": kind}, "minItems": least, **more}


_TEXT = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"}  # no control characters
_WORDS = {"type": "string", "pattern": r"^[\w .,=+-]*$"}  # no markup: pages show it as it is
_NUMBER = {"type": "number", "minimum": -(2**53), "maximum": 2**53}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**53}
_CLASSES = {"type": "array", "items": _TEXT, "minItems": 2, "uniqueItems": True}
_CHANNELS = {"type": "array", "items": _NUMBER, "minItems": 3, "maxItems": 3}
_SPREADS = {**_CHANNELS, "items": {**_NUMBER, "minimum": 1e-4}}
_RECORD = {
    "name": _TEXT,
    "status": {"enum": ["running", "complete", "failed"]},
    "seconds": {"type": "object", "additionalProperties": _NUMBER},
    "changes": {
        "type": "array",
        "items": _object(
            epoch=_COUNT,
            settings={"type": "object", "additionalProperties": _some("string", 2, maxItems=2)},
        ),
    },
    "settings": _object(optional=schema(is_late=True), data_fingerprint=_TEXT, **schema()),
    "data": _object(
        name=_TEXT,
        title=_TEXT,
        classes=_CLASSES,
        train_size=_COUNT,
        watched={"enum": ["test", "validation"]},
        watched_size=_COUNT,
        test_size=_COUNT,
        mean=_CHANNELS,
        std=_SPREADS,
        fingerprint=_TEXT,
        notes=_some("string"),
        optional={"bits": {"enum": [8, 10, 12, 14, 16]}},
    ),
    "model": _object(
        name=_WORDS,
        parameters=_COUNT,
        blocks=_some("string", 1),
        optional={"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
    ),
    "device": _object(type=_TEXT, name=_TEXT),
    "precision": _WORDS,
    "versions": {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {r"^[\w.-]+$": _WORDS},
    },
}


#: Pictures that come with a Space.
_PICTURES = {
    "type": "array",
    "items": {
        **_object(
            file={"type": "string", "pattern": r"^(examples|mistakes)/[0-9]{3}\.png$"},
            target=_COUNT,
            predicted=_COUNT,
            probability=_NUMBER,
        ),
        "additionalProperties": False,
    },
}


#: Training writes these together.
_TOGETHER = ["settings", "data", "model", "device", "precision"]
_SCHEMAS = {
    "run.json": {"properties": _RECORD, "dependencies": {"settings": _TOGETHER}},
    "metrics.json": _object(
        test_acc=_NUMBER,
        test_loss=_NUMBER,
        test_size=_COUNT,
        optional={
            "averaged": _object(test_acc=_NUMBER, seconds=_NUMBER),
            "new": {**_object(size=_COUNT, right=_COUNT), "additionalProperties": False},
            "prediction_sets": _object(
                promise=_NUMBER,
                pictures=_COUNT,
                thresholds={"type": "array", "items": _NUMBER, "minItems": 2},
            ),
        },
    ),
    "space/model.json": _object(
        examples=_PICTURES, mistakes=_PICTURES, wrong={"type": "array", "items": _COUNT}
    ),
    "lr_finder.json": _object(suggestion={**_NUMBER, "type": ["number", "null"]}),
}


@cache
def _validator(name: str):
    """Return a function that raises where a JSON file is not as the table above says."""
    # the draft in which 16.0 is no integer
    draft = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "object"}
    schema = {**draft, **_SCHEMAS.get(name, {})}
    return fastjsonschema.compile(schema, use_default=False)


def list_runs(output_dir: str | Path = "outputs", pattern: str = "*") -> list[Run]:
    """Return the runs in `output_dir`, the one that was trained last first.

    A folder that holds a link, or whose ``run.json`` is damaged, is left out and named.

    Args:
        output_dir: where runs are.
        pattern: of their names, as a shell has it.
    """
    folder = resolve_path(output_dir)
    names = [path.parent.name for path in folder.glob("*/run.json")]
    names = [name for name in names if fnmatchcase(name, pattern)]
    usable = [n for n in names if _SAFE_NAME.fullmatch(n) and not _RESERVED.fullmatch(n)]
    found = [_readable_run(name, output_dir) for name in usable]
    return sorted((run for run in found if run is not None), key=_trained_at, reverse=True)


def _trained_at(run: Run) -> tuple[float, float]:
    """Return when a run was trained, or else begun, and when its record was last written.

    Chapters that look at a run, and copies of it, write the record too, and train nothing.
    """
    written = run.path("run.json").stat().st_mtime
    try:
        told = str(run.record.get("finished") or run.record.get("started"))
        return datetime.fromisoformat(told).timestamp(), written
    except (ValueError, OverflowError):
        return written, written


def _readable_run(name: str, output_dir: str | Path) -> Run | None:
    try:
        run = Run(name, output_dir)
        record, _ = run.record, run.is_trained  # either may find what cannot be read
        return run if record else None
    except InputError as error:
        print(f"Left out: {error}")
        return None


def _set_held(folder: str | None) -> None:
    """Say to this process and those it starts which run they hold; None: none."""
    os.environ.pop(HELD_RUN, None)
    if folder is not None:
        os.environ[HELD_RUN] = folder


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
    return as_stated(time.time())


def as_stated(seconds: float) -> str:
    """Return a time, in seconds since 1970, as `now` does: the later, the larger as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
