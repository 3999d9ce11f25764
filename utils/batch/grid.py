"""What a batch is made of: the product of its grids, typed in a shell or read from a file."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path

import yaml

from utils import InputError, brief, check_choice, first_line
from utils.settings import SETTINGS, WHOLE, derive_run_name, from_shell

#: So many runs are planned at most: more are a slip of the keyboard.
MOST_RUNS = 10_000
#: What a batch sees to itself.
NOT_IN_A_BATCH = ("run_name", "output_dir", "overwrite")
_RANGE = re.compile(r"(-?\d{1,12}):(-?\d{1,12})(?::(\d{1,12}))?")


@dataclass(frozen=True)
class Asked:
    """A batch as a person asked for it.

    Attributes:
        name: of its folder.
        output_dir: where that folder lies.
        grid: the values of each parameter that varies.
        parameters: the value of each that does not.
        kinds: of parameters that vary together, the values of each kind of run; none: one kind.
    """

    name: str | None = None
    output_dir: str | None = None
    grid: dict[str, list] = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    kinds: tuple[dict, ...] = ()

    @property
    def varying(self) -> list[str]:
        """The parameters that tell its runs apart."""
        return list(dict.fromkeys([*(name for kind in self.kinds for name in kind), *self.grid]))

    def joined(self, other: "Asked") -> "Asked":
        """Return both as one.

        Raises:
            InputError: both say something about the same.
        """
        for name in ("name", "output_dir"):
            if getattr(self, name) is not None and getattr(other, name) is not None:
                raise InputError(f"{name} is given in the file and beside it. Give it once.")
        given = [*self.varying, *self.parameters, *other.varying, *other.parameters]
        _check_once(given)
        return Asked(
            other.name if self.name is None else self.name,
            other.output_dir if self.output_dir is None else self.output_dir,
            self.grid | other.grid,
            self.parameters | other.parameters,
            self.kinds + other.kinds,
        )


def _check_once(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is given more than once. Give it once, as a grid or not.")


def read_grid(texts: Iterable[str]) -> dict[str, list]:
    """Return a grid from what was typed for it.

    >>> read_grid(["recipe=original,speed", "seed=1:3"])
    {'recipe': ['original', 'speed'], 'seed': [1, 2, 3]}

    Raises:
        InputError: a text that is no grid, or a parameter that is unknown or given twice.
    """
    split = [text.partition("=") for text in texts]
    for name, mark, values in split:
        if not mark or not values.strip():
            raise InputError(
                f"--grid {brief(name + mark)} gives no values. Write it as NAME=VALUE,VALUE or, "
                "for whole numbers, NAME=FIRST:LAST."
            )
    names = [name.strip() for name, _, _ in split]
    _check_once(names)
    return {name: axis(name, split[i][2].split(",")) for i, name in enumerate(names)}


def axis(name: str, texts: Iterable[str]) -> list:
    """Return the values of one parameter of a grid, each read by the parameter's kind.

    Args:
        name: of a parameter.
        texts: its values; of a whole number also ranges, both ends included, with a step if given.

    >>> axis("epochs", ["5", "10:30:10"])
    [5, 10, 20, 30]

    Raises:
        InputError: the parameter is unknown, a range holds nothing or too much, or a value occurs
            twice.
    """
    check_choice("Parameter", name, tuple(SETTINGS))
    values: list = []
    for text in texts:
        values += _values(name, text.strip())
    counts = Counter(map(repr, values))
    twice = next((written for written, count in counts.items() if count > 1), None)
    if twice is not None:
        raise InputError(f"The grid of {name} holds {twice[:200]} twice. Give it once.")
    return values


def _values(name: str, text: str) -> Sequence:
    found = _RANGE.fullmatch(text) if SETTINGS[name].kind is WHOLE else None
    if found is None:
        return [from_shell(name, text)]
    first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
    numbers = range(first, last + 1, step) if step else range(0)
    if not 0 < len(numbers) <= MOST_RUNS:
        raise InputError(
            f"The grid of {name} is {brief(text)}, which holds "
            f"{'no number' if not numbers else f'more than {MOST_RUNS:,} numbers'}. A range is "
            "FIRST:LAST or FIRST:LAST:STEP, upwards, and holds both its ends."
        )
    return numbers


def read_file(path: str | Path) -> Asked:
    """Return the batch that a small YAML file asks for.

    Every value is read as it would be from a shell, whatever YAML would make of it: YAML 1.1 takes
    ``1:10`` for 70 and ``no`` for False.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML ({first_line(error)}).") from error
    parts = _mapping(path, "It", content)
    for part in parts:
        check_choice(f"{path}: the entry", part, [field.name for field in fields(Asked)])
    grid = _mapping(path, "grid", parts.get("grid", {}))
    kinds = parts.get("kinds", [])
    if not isinstance(kinds, list):
        raise InputError(f"{path} gives kinds as {brief(kinds)}; it must be a list.")
    return Asked(
        _text(path, "name", parts.get("name")),
        _text(path, "output_dir", parts.get("output_dir")),
        {name: axis(name, _texts(path, name, value)) for name, value in grid.items()},
        _parameters(path, "parameters", parts.get("parameters", {})),
        tuple(_parameters(path, "each of kinds", kind) for kind in kinds),
    )


def _parameters(path, called: str, content) -> dict:
    values = _mapping(path, called, content)
    return {
        name: from_shell(name, _text(path, name, value) or "") for name, value in values.items()
    }


def _mapping(path, called: str, content) -> Mapping[str, object]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(
            f"{path} is no batch: {called} must be names with values, not {brief(content)}."
        )
    return content


def _text(path, name: str, value) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{path} gives {name} as {brief(value)}; it must be one value.")
    return value


def _texts(path, name: str, value) -> list[str]:
    """Return the values of a grid: a list of them, or a text as it is typed in a shell."""
    texts = value.split(",") if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise InputError(f"{path} gives the grid of {name} as {brief(value)}; it must be a list.")
    return texts


def cells(asked: Asked) -> list[dict]:
    """Return the parameters of every run of a batch, by name.

    The seed changes last: after the first part of the runs there is one of every kind, and a slow
    hour of the machine falls on all kinds alike.

    Raises:
        InputError: a parameter that a batch sees to itself, or too many runs.
    """
    for name in (*asked.varying, *asked.parameters):
        if name in NOT_IN_A_BATCH:
            raise InputError(
                f"{name} cannot be given to a batch: it names its runs itself, and never replaces "
                "one. To have a run again, delete its folder."
            )
    kinds = asked.kinds or ({},)
    count = len(kinds) * math.prod(map(len, asked.grid.values()))
    if count > MOST_RUNS:
        raise InputError(f"These grids make {count:,} runs; {MOST_RUNS:,} are planned at most.")
    seeds = [{"seed": seed} for seed in asked.grid.get("seed", [])] or [{}]
    others = [name for name in asked.grid if name != "seed"]
    rest = [
        dict(zip(others, values, strict=True))
        for values in product(*(asked.grid[name] for name in others))
    ]
    return [asked.parameters | kind | of | seed for seed, kind, of in product(seeds, kinds, rest)]


def run_name(parameters: Mapping) -> str:
    """Return the name of a run of a batch: what can be read of it, and a digest of all of it.

    What `derive_run_name` does not tell (a precision, a path, how many pictures chapter 6 shows) is
    in the digest, so that another value of any parameter is another run. What is as usual is not:
    a parameter that is declared later changes no name.

    >>> run_name({"recipe": "speed", "seed": 1}), run_name({"seed": 1, "recipe": "speed"})
    ('shapes-speed-seed1-631dfc00', 'shapes-speed-seed1-631dfc00')
    """
    told = {
        name: value
        for name, value in sorted(parameters.items())
        if value is not None and value != SETTINGS[name].default
    }
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
    return f"{derive_run_name(**parameters)[:111]}-{digest}"


def label(parameters: Mapping, varying: Iterable[str]) -> str:
    """Return what sets a run apart from the others of its batch.

    >>> label({"recipe": "speed", "seed": 1, "epochs": 5}, ["recipe", "seed"])
    'recipe=speed seed=1'
    """
    told = (f"{name}={parameters[name]}" for name in varying if name in parameters)
    return " ".join(told) or "the only run"
