"""Parameters mean the same whichever way they come: a shell, papermill, YAML, or by hand."""

import nbformat
import pytest
import yaml
from papermill.cli import _resolve_type

from utils.parameters import KINDS, as_meant, from_shell, take_as_meant
from utils.pipeline.kernel import parameters_of
from utils.pipeline.sequence import NOTEBOOKS

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


def test_every_parameter_of_every_notebook_is_of_a_kind_and_taken_as_meant():
    for path in NOTEBOOKS.values():
        assert set(parameters_of(path)) <= set(KINDS)
        cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert "take_as_meant(globals())" in cells[2]
    taken = {name for path in NOTEBOOKS.values() for name in parameters_of(path)}
    assert taken == set(KINDS)
