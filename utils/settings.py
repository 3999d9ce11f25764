"""Every parameter, once: what it is called, may be and means, and what it is part of.

From here come the parameter cells of the chapters, the command line's help, what is refused, a
run's name and identity, what ``run.json`` must hold, and the book's table. Needs no torch.
"""

import ast
import json
import math
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import InputError, brief, check_choice, check_flag, check_number, check_text

TEXT, WHOLE, NUMBER, FLAG = "text", "a whole number", "a number", "True or False"
#: What a parameter is part of: where things are kept; the pictures; the recipe, which has a value
#: of its own for each; the rest of a training; or what a chapter shows.
PLACE, PICTURES, RECIPE, TRAINING, SHOWN = "place", "pictures", "recipe", "training", "shown"
#: Data sets that are not named by their path.
SOURCES = ("shapes", "cifar10", "folder")
#: How the names of archives end, each after those that it ends with.
ARCHIVES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar", ".tgz", ".txz", ".zip")
#: How the names of tables end that labels are read from.
LABEL_TABLES = (".csv", ".tsv")
#: What a network begins from that begins from no file.
RANDOM = "random"
#: What a learner changes first; these stand on top of a chapter's parameters.
FIRST = ("dataset", "recipe", "epochs", "run_name", "seed")


@dataclass(frozen=True)
class Setting:
    """A parameter.

    Attributes:
        name: the same in chapters, on the command line and in ``run.json``.
        kind: one of ``TEXT``, ``WHOLE``, ``NUMBER``, ``FLAG``.
        part: one of ``PLACE``, ``PICTURES``, ``RECIPE``, ``TRAINING``, ``SHOWN``.
        meaning: a line, as it stands behind the parameter in a chapter.
        default: in the chapters up to training; None has the meaning that the line says.
        chapters: their digits.
        low, high: of a number, both allowed.
        choices: all that it may be; empty for any.
        words: what a number may be instead.
        is_counted: whether a choice may say how many, as "gpu:2" does.
        later: the default, and the line, in the chapters after training, where these differ.
        is_identity: whether a run with another value is another training.
        is_late: whether runs of an earlier version do not name it.
    """

    name: str
    kind: str
    part: str
    meaning: str
    default: Any = None
    chapters: str = "123"
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] | tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    is_counted: bool = False
    later: tuple[str | float | bool | None, str] | None = None
    is_identity: bool = True
    is_late: bool = False

    def check(self, value, is_resolved: bool = False) -> None:
        """Refuse a value that this parameter cannot have.

        Args:
            value: None is allowed where it is the default.
            is_resolved: whether None, and words for a number, have been replaced by what they mean.

        Raises:
            InputError: naming the parameter, its value and what is allowed.
        """
        is_word = isinstance(value, str) and value in self.words
        if not is_resolved and (is_word or (value is None and self.default is None)):
            return
        if self.choices:
            one, listed = value, self.choices
            if self.is_counted:
                one, listed = split_count(value)[0], (*self.choices, f"{self.choices[-1]}:2")
            check_choice(self.name, one, listed)
        if self.kind is FLAG:
            check_flag(self.name, value)
        elif self.kind is TEXT:
            check_text(self.name, value)
        elif isinstance(value, str) and self.words and not is_resolved:
            listed = ", ".join(map(repr, self.words))
            raise InputError(f"{self.name} is {value!r}; it must be a number, {listed} or None.")
        else:
            check_number(self.name, value, self.low, self.high, whole=self.kind is WHOLE)

    def in_chapter(self, chapter: str) -> tuple[str | float | bool | None, str]:
        """Return its default and its line in a chapter, by that chapter's digit."""
        return self.later if self.later and chapter > "3" else (self.default, self.meaning)


def split_count(value: Any) -> tuple[Any, int | None]:
    """Return a choice, and how many of it are asked for; None where it does not say.

    >>> split_count("gpu:2"), split_count("gpu"), split_count("gpu:0")
    (('gpu', 2), ('gpu', None), ('gpu:0', None))
    """
    found = isinstance(value, str) and re.fullmatch(r"(\w+):([1-9][0-9]{0,3})", value, re.ASCII)
    return (found[1], int(found[2])) if found else (value, None)


def _settings(*settings: Setting) -> dict[str, Setting]:
    return {setting.name: setting for setting in settings}


SETTINGS = _settings(
    Setting(
        "dataset", TEXT, PICTURES,
        "shapes, cifar10, or the path of a folder or archive of pictures", default="shapes",
        chapters="1234567", is_identity=False,  # the pictures count, not the place
        later=(None, "the run's pictures, where they lie now; None: where they lay"),
    ),
    Setting(
        "recipe", TEXT, RECIPE,
        "quick, original, fast, speed or finetune; None: quick on shapes, original elsewhere",
        choices=("original", "quick", "fast", "speed", "finetune"),
    ),
    Setting(
        "seed", WHOLE, TRAINING, "of weights, order and augmentation", default=0, low=0,
        high=2**31 - 1, chapters="123456",
        later=(None, "the seed it must have been trained with; None: whatever it was"),
    ),
    Setting(
        "run_name", TEXT, PLACE, "folder below output_dir; None makes one from the settings",
        chapters="123456", is_identity=False,
        later=(None, "the run to look at; None: the newest complete one"),
    ),
    Setting(
        "runs", TEXT, PLACE, 'the folder of the runs to compare, or a pattern: "outputs/speed*"',
        default="outputs", chapters="7", is_identity=False,
    ),
    Setting(
        "comparison", TEXT, PLACE,
        "folder below output_dir to write to; None: named after the folder of the runs",
        chapters="7", is_identity=False,
    ),
    Setting(
        "overwrite", FLAG, PLACE, "replace a run of this name", default=False, chapters="3",
        is_identity=False,
    ),
    Setting(
        "output_dir", TEXT, PLACE,
        "where runs are kept; relative paths count from the repository's root", default="outputs",
        chapters="1234567", is_identity=False,
    ),
    Setting(
        "data_dir", TEXT, PICTURES, "where downloads and decoded pictures are kept",
        default="data", chapters="1234567", is_identity=False,
        later=(None, "where its pictures are kept now; None: what the run says"),
    ),
    Setting(
        "dataset_title", TEXT, PICTURES, "how figures name the data; None: the source's own name",
        is_identity=False,
    ),
    Setting(
        "model", TEXT, RECIPE,
        "davidnet, speednet, or one trained before: resnet18 …; None: what the recipe says",
        chapters="23",
        choices=("davidnet", "speednet", "efficientnet_lite0", "resnet18", "resnet34", "resnet50"),
    ),
    Setting(
        "weights", TEXT, TRAINING,
        "what one trained before begins from: a file, or random; None: its own, fetched",
        chapters="23", is_identity=False, is_late=True,  # the file's content counts, not its place
    ),
    Setting(
        "epochs", WHOLE, RECIPE, "passes over the pictures; None: what the recipe says",
        chapters="3", low=1, high=100_000,
    ),
    Setting(
        "batch_size", WHOLE, RECIPE, "pictures a step; None: what the recipe says", chapters="23",
        low=2, high=1_000_000,
    ),
    Setting(
        "max_lr", NUMBER, RECIPE,
        'peak learning rate; None: what the recipe says; "found": what notebook 02 found',
        chapters="3", low=1e-10, high=100.0, words=("found",),
    ),
    Setting(
        "views", WHOLE, RECIPE,
        "1, 2 or 6: also average the final test over so many; None: what the recipe says",
        chapters="3", low=1, high=6, choices=(1, 2, 6), is_late=True,
    ),
    Setting(
        "val_fraction", NUMBER, TRAINING,
        "share of the training split to hold out and watch; 0 watches the test split", default=0.0,
        chapters="23", low=0.0, high=0.9,
    ),
    Setting(
        "balanced", FLAG, TRAINING,
        "learn every class as if it had as many pictures as the others", default=False,
        chapters="23", is_late=True,
    ),
    Setting(
        "limit_train", WHOLE, PICTURES,
        "use only the first N training pictures, stratified; None: all", low=2, high=100_000_000,
    ),
    Setting(
        "limit_test", WHOLE, PICTURES, "the same for the test pictures", low=2, high=100_000_000
    ),
    Setting(
        "image_size", WHOLE, PICTURES,
        "side in pixels of what the network sees; None: 32, or 128 with recipe finetune", low=16,
        high=384,
    ),
    Setting(
        "skip_unreadable", FLAG, PICTURES, "go on without files that cannot be read, and name them",
        default=False, is_identity=False,
    ),
    Setting(
        "labels_from", TEXT, PICTURES,
        "a table (.csv) or a pattern of file names; None: the names of the folders", is_late=True,
    ),
    Setting(
        "keep_together", TEXT, PICTURES,
        "what no split drawn here may part: copies, folder, or a pattern of names",
        default="copies", is_late=True,
    ),
    Setting(
        "precision", TEXT, TRAINING, "auto (a run keeps its own), bf16-mixed, 16-mixed or 32-true",
        default="auto", chapters="23", choices=("auto", "bf16-mixed", "16-mixed", "32-true"),
    ),
    Setting(
        "devices", TEXT, TRAINING,
        "auto (a run keeps its own), cpu or gpu; gpu:2 or cpu:4 share a training",
        default="auto", chapters="2356", choices=("auto", "cpu", "gpu"), is_counted=True,
        is_identity=False, later=("auto", "auto, cpu or gpu; of several, one computes here"),
    ),
    Setting(  # who computes what part of a batch changes the last digits of sums, no more
        "num_nodes", WHOLE, TRAINING, "how many machines torchrun started the training on",
        default=1, chapters="3", low=1, high=1_000, is_identity=False, is_late=True,
    ),
    Setting(
        "strategy", TEXT, TRAINING,
        "how Lightning shares a training: ddp or ddp_notebook; None: what fits", chapters="3",
        choices=("ddp", "ddp_notebook"), is_identity=False, is_late=True,
    ),
    Setting(
        "lr_steps", WHOLE, SHOWN, "how many learning rates to try", default=100, chapters="2",
        low=10, high=1_000, is_identity=False,
    ),
    Setting(
        "show_misclassified", WHOLE, SHOWN, "how many wrong predictions to show", default=25,
        chapters="5", low=1, high=1_000, is_identity=False,
    ),
    Setting(
        "method", TEXT, SHOWN,
        "gradcam, hirescam, layercam … (all are listed below); None: the one measured best",
        chapters="6", is_identity=False,
        choices=("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam", "scorecam",
                 "ablationcam"),
    ),
    Setting(
        "block", TEXT, SHOWN,
        "e.g. layer1 (DavidNet) or block2 (SpeedNet); None: the one measured best",
        chapters="6", is_identity=False,
    ),
    Setting(
        "show_pictures", WHOLE, SHOWN, "how many wrong predictions to explain", default=10,
        chapters="6", low=1, high=1_000, is_identity=False,
    ),
    Setting(
        "judged_pictures", WHOLE, SHOWN, "on how many right predictions maps are measured",
        default=50, chapters="6", low=5, high=100_000, is_identity=False,
    ),
    Setting(
        "group_by", TEXT, SHOWN,
        'the setting that tells groups apart, or "name"; None: all but the seed', chapters="7",
        is_identity=False,
    ),
    Setting(
        "groups", TEXT, SHOWN, 'the two to compare, e.g. "original,speed"; None: the first two',
        chapters="7", is_identity=False,
    ),
    Setting(
        "show_wrong", WHOLE, SHOWN, "how many pictures to show of each kind",
        default=6, chapters="7", low=1, high=100, is_identity=False,
    ),
)  # fmt: skip


def names_of(*parts: str) -> list[str]:
    """Return the names of the parameters that are part of these."""
    return [name for name, setting in SETTINGS.items() if setting.part in parts]


def with_defaults(*parts: str, **given) -> dict[str, Any]:
    """Return all parameters of some parts, by name: those that were given, the others by default.

    Args:
        parts: such as ``PICTURES``.
        given: values by name; those of other parts are left out.

    Raises:
        InputError: a name that no parameter has, or a value of these parts that its parameter
            cannot have.
    """
    for name in given:
        check_choice("Parameter", name, tuple(SETTINGS))
    values = {name: given.get(name, SETTINGS[name].default) for name in names_of(*parts)}
    values = {n: str(value) if isinstance(value, Path) else value for n, value in values.items()}
    if "image_size" in values and values["image_size"] is None:
        values["image_size"] = default_image_size(given.get("recipe"))
    for name, value in values.items():
        SETTINGS[name].check(value)
    return values


def default_recipe(dataset: str) -> str:
    """Return the recipe's name for ``recipe=None``: quick on the drawn shapes, else original."""
    return "quick" if dataset == "shapes" else "original"


def default_image_size(recipe: str | None) -> int:
    """Return the side in pixels for ``image_size=None``: what the recipe's network began with."""
    return 128 if recipe == "finetune" else 32


# Chapters


def of_chapter(chapter: str) -> list[Setting]:
    """Return the parameters of a chapter, by its digit, in the order in which they stand there."""
    taken = [setting for setting in SETTINGS.values() if chapter in setting.chapters]
    return sorted(taken, key=lambda s: FIRST.index(s.name) if s.name in FIRST else len(FIRST))


def parameters_cell(chapter: str) -> str:
    """Return the source of the cell in which a chapter declares its parameters."""
    lines = []
    for setting in of_chapter(chapter):
        default, meaning = setting.in_chapter(chapter)
        written = json.dumps(default) if isinstance(default, str) else repr(default)
        lines.append(f"{setting.name} = {written}  # {meaning}")
    return "\n".join(lines)


# Runs


def derive_run_name(
    dataset: str | None = None, recipe: str | None = None, seed: int | None = None, **others
) -> str:
    """Return the name of a run that was given none.

    It is made of what changes training and is not as usual, in one order whatever that of the
    arguments; an archive is called what it holds, and None is as usual. What ``"auto"`` leaves to
    the machine stays out: the same command has one name everywhere.

    >>> derive_run_name("data/pets.zip", "quick", 0, batch_size=64, epochs=5, model=None)
    'pets-quick-seed0-epochs=5-batch_size=64'
    """
    dataset = dataset or SETTINGS["dataset"].default
    seed = SETTINGS["seed"].default if seed is None else seed
    place = others.get("data_dir") or SETTINGS["data_dir"].default
    name = without_ending(Path(place if dataset == "folder" else dataset).name)
    parts = [name[:40], recipe or default_recipe(dataset), f"seed{seed}"]
    for name, setting in SETTINGS.items():
        value = others.get(name)
        is_told = setting.is_identity and setting.default != "auto"
        usual = default_image_size(recipe) if name == "image_size" else setting.default
        if is_told and value is not None and value != usual:
            parts.append(f"{name}={value}")
    name = re.sub(r"[^A-Za-z0-9._=+-]+", "_", "-".join(parts)).strip("._-+=")
    return name[:120].rstrip(".")  # a number may be cut at its point


def without_ending(name: str) -> str:
    """Return an archive's name without what says that it is one; any other name as it is."""
    ending = next((end for end in ARCHIVES if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


#: Settings that stand in ``run.json`` and do not make a training another one. The pictures count by
#: their fingerprint.
NOT_IDENTITY = {
    "max_lr_source",
    *(name for name in names_of(PICTURES, TRAINING) if not SETTINGS[name].is_identity),
}


def schema(is_late: bool = False) -> dict[str, dict]:
    """Return what JSON Schema asks of each parameter that a ``run.json`` holds, by name.

    Args:
        is_late: of those that runs of an earlier version do not name, or of all others.
    """
    whole = {"type": "integer", "minimum": 0, "maximum": 2**53}
    kinds = {
        TEXT: {"type": "string", "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"},  # no control characters
        WHOLE: whole,
        NUMBER: {"type": "number", "minimum": -(2**53), "maximum": 2**53},
        FLAG: {"type": "boolean"},
    }
    words = {"type": "string", "pattern": r"^[\w .,=+-]*$"}  # no markup: pages show it as it is
    described = {}
    for name in names_of(PICTURES, RECIPE, TRAINING):
        setting = SETTINGS[name]
        if setting.is_late != is_late:
            continue
        is_word = setting.kind is TEXT and setting.choices
        described[name] = words if is_word else kinds[setting.kind]
        if setting.is_counted:
            described[name] = {"type": "string", "pattern": r"^\w+(:[0-9]{1,4})?$"}
        if name == "image_size":
            described[name] = {"type": "integer", "minimum": setting.low, "maximum": setting.high}
        if name in ("limit_train", "limit_test"):
            described[name] = {**whole, "type": ["integer", "null"]}
        if name == "labels_from":
            described[name] = {**kinds[TEXT], "type": ["string", "null"]}
    return described


# Values as they were meant. Three ways lead to a chapter's parameters, and each reads text in its
# own manner: papermill makes 007 a number, YAML leaves 1e-3 a text, and a shell knows text alone.

_WORDS = {"none": None, "null": None}
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parse_value(text: str):
    """Read a value as a Python literal (numbers, True, None …), or else as text.

    >>> [parse_value(text) for text in ("5", "1e-3", "true", "None", "found")]
    [5, 0.001, True, None, 'found']
    """
    word = text.strip().lower()
    if word in ("true", "false"):
        return _FLAGS[word]
    if word in _WORDS:
        return _WORDS[word]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def from_shell(name: str, text: str):
    """Return the value of a parameter that was typed in a shell: text, to be read by its kind.

    >>> from_shell("run_name", "007"), from_shell("epochs", "5.0"), from_shell("overwrite", "no")
    ('007', 5, False)
    """
    value = parse_value(text)
    if _kind(name) is TEXT:  # quotes within are what a person put around text
        return value if value is None or isinstance(value, str) else text
    return as_meant(name, value)


def as_meant(name: str, value):
    """Return a parameter's value in its kind where its meaning is plain, or else as it is.

    >>> as_meant("max_lr", "1e-3"), as_meant("max_lr", "found"), as_meant("dataset", 2024)
    (0.001, 'found', '2024')
    """
    kind = _kind(name)
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return None
    if kind is TEXT:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return str(value) if is_number else value
    if kind is FLAG and isinstance(value, str):
        return _FLAGS.get(value.strip().lower(), value)
    if kind in (WHOLE, NUMBER):
        number = _number(value) if isinstance(value, str) else value
        is_whole = isinstance(number, float) and number.is_integer()
        return int(number) if kind is WHOLE and is_whole else number
    return value


def _number(text: str) -> int | float | str:
    """Return the number that a text is, in tens; words that stand for one are none."""
    if not any(character.isdigit() for character in text):
        return text
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def take_parameters(namespace: MutableMapping, chapter: str) -> dict:
    """Put each parameter of a chapter in its kind, and say where text was lost.

    Args:
        namespace: the notebook's, which holds them by name; one that was deleted is as usual.
        chapter: its digit.

    Returns:
        the parameters, by name.

    Raises:
        InputError: one has a value that it cannot have.
    """
    taken = {}
    for setting in of_chapter(chapter):
        name = setting.name
        before = namespace.get(name, setting.in_chapter(chapter)[0])
        value = taken[name] = namespace[name] = as_meant(name, before)
        if setting.kind is TEXT and before is not None and value not in (before, None):
            print(
                f"{name} came as the number {brief(before)}, and is read as the text {value!r}. If "
                "another was meant: papermill keeps text with -r."
            )
        if value is not None:
            setting.check(value)
    return taken


def _kind(name: str) -> str | None:
    return SETTINGS[name].kind if name in SETTINGS else None


# The book


def table() -> str:
    """Return all parameters as a Markdown table, and the choices of those whose line cuts them."""
    lines = ["| parameter | is | by default | chapters |", "| --- | --- | --- | --- |"]
    for setting in SETTINGS.values():
        chapters = ", ".join(f"0{digit}" for digit in setting.chapters)
        meaning = setting.meaning.replace("|", r"\|")
        lines.append(f"| `{setting.name}` | {meaning} | `{setting.default!r}` | {chapters} |")
    for setting in SETTINGS.values():
        if "…" in setting.meaning and setting.choices:
            choices = ", ".join(f"`{choice}`" for choice in setting.choices)
            lines += ["", f"`{setting.name}` is one of {choices}."]
    return "\n".join(lines)
