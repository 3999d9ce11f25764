"""Parameters mean the same whichever way they come: a shell, papermill, YAML, or by hand."""

from itertools import permutations

import nbformat
import pytest
import yaml
from papermill.cli import _resolve_type

from utils.pipeline.kernel import parameters_of
from utils.pipeline.sequence import NOTEBOOKS
from utils.settings import (
    FLAG,
    NUMBER,
    SETTINGS,
    TEXT,
    WHOLE,
    as_meant,
    derive_run_name,
    from_shell,
    take_as_meant,
)

#: name, as typed, as it is meant
TYPED = [
    ("run_name", "007", "007"),
    ("dataset_title", "2024", "2024"),
    ("dataset", "2024", "2024"),
    ("dataset_title", "True", "True"),
    ("dataset_title", "(1, 2)", "(1, 2)"),
    ("dataset_title", "'in quotes'", "in quotes"),
    ("block", "1", "1"),
    ("dataset_title", "none", None),
    ("seed", "1.0", 1),
    ("seed", "007", 7),
    ("epochs", "5.0", 5),
    ("epochs", "1_0", 10),
    ("epochs", "1e1", 10),
    ("epochs", "None", None),
    ("epochs", "1.5", 1.5),
    ("epochs", "[1, 2]", [1, 2]),
    ("epochs", "many", "many"),
    ("val_fraction", ".1", 0.1),
    ("val_fraction", "1", 1),
    ("max_lr", "1e-3", 0.001),
    ("max_lr", '"1e-2"', 0.01),
    ("max_lr", "found", "found"),
    ("max_lr", "nan", "nan"),
    ("overwrite", "yes", True),
    ("overwrite", "true", True),
    ("overwrite", "FALSE", False),
    ("overwrite", "0", 0),
    ("overwrite", "maybe", "maybe"),
    ("no_such_name", "5", 5),
]


def alike(value, other):
    return value == other and type(value) is type(other)


@pytest.mark.parametrize(("name", "text", "meant"), TYPED)
def test_what_a_person_types_is_read_by_the_parameters_kind(name, text, meant):
    assert alike(from_shell(name, text), meant)


#: Where the way itself has lost what was typed.
LOST = {("run_name", "007"): "7", ("dataset_title", "True"): True}


@pytest.mark.parametrize(("name", "text", "meant"), TYPED)
def test_papermill_comes_to_the_same(name, text, meant):
    if text[0] in "'\"[(" or text == "nan":  # text to papermill; and to us, what is no number
        return
    assert alike(as_meant(name, _resolve_type(text)), LOST.get((name, text), meant))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("max_lr: 1e-3", 0.001),
        ("max_lr: 1.0e-3", 0.001),
        ("epochs: 1_0", 10),
        ("seed: 1.0", 1),
        ("overwrite: yes", True),
        ("overwrite: 'yes'", True),
        ("dataset_title: 2024", "2024"),
        ("dataset_title: '2024'", "2024"),
        ("val_fraction: .1", 0.1),
        ("dataset_title: null", None),
    ],
)
def test_yaml_comes_to_the_same(written, meant):
    ((name, value),) = yaml.safe_load(written).items()
    assert alike(as_meant(name, value), meant)


def test_a_notebook_says_what_was_read_where_text_was_lost(capsys):
    namespace = {"run_name": 7, "seed": 1.0, "epochs": None, "recipe": "quick", "other": 5}
    take_as_meant(namespace)
    assert namespace == {
        "run_name": "7", "seed": 1, "epochs": None, "recipe": "quick", "other": 5,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert said.startswith("run_name came as the number 7, and is read as the text '7'.")
    assert len(said.splitlines()) == 1


def test_what_may_be_chosen_is_what_there_is():
    from utils.devices import DEVICES, PRECISIONS
    from utils.explain.gradcam import METHODS
    from utils.models.registry import MODELS
    from utils.training.recipes import RECIPES, VIEWS

    there = {"model": MODELS, "recipe": RECIPES, "method": METHODS, "precision": PRECISIONS}
    for name, names in {**there, "devices": DEVICES}.items():
        assert SETTINGS[name].choices == tuple(names)
    assert (SETTINGS["views"].low, SETTINGS["views"].high) == (min(VIEWS), max(VIEWS))


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_default_is_a_value_that_may_be(setting):
    setting.check(setting.default)
    assert len(f"{setting.name} = {setting.default!r}  # {setting.meaning}") <= 100
    assert setting.kind in (TEXT, WHOLE, NUMBER, FLAG)


def test_a_run_has_one_name_whatever_the_order_of_what_was_given():
    given = {"epochs": 5, "batch_size": 64, "val_fraction": 0.1, "limit_train": 100}
    orders = map(dict, permutations(given.items()))
    names = {derive_run_name("pets", "original", 0, **order) for order in orders}
    assert names == {"pets-original-seed0-epochs=5-batch_size=64-val_fraction=0.1-limit_train=100"}


def test_what_changes_no_training_is_not_in_a_runs_name():
    usual = derive_run_name("pets", "original", 0)
    for name, setting in SETTINGS.items():
        if name in ("dataset", "recipe", "seed"):
            continue
        value = setting.choices[-1] if setting.choices else 7
        assert (derive_run_name("pets", "original", 0, **{name: value}) != usual) == (
            setting.is_identity and name != "precision"
        ), name
        assert derive_run_name("pets", "original", 0, **{name: setting.default}) == usual


@pytest.mark.parametrize("name", ["pets", "pets.zip", "pets.tar", "pets.tar.gz", "pets.TGZ"])
def test_an_archive_is_called_what_it_holds(name):
    assert derive_run_name(f"/data/{name}", "original", 0) == "pets-original-seed0"


def test_every_parameter_of_every_notebook_is_of_a_kind_and_taken_as_meant():
    for path in NOTEBOOKS.values():
        assert set(parameters_of(path)) <= set(SETTINGS)
        cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert "take_as_meant(globals())" in cells[2]
    taken = {name for path in NOTEBOOKS.values() for name in parameters_of(path)}
    assert taken == set(SETTINGS)
