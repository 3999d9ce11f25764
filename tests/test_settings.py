"""Parameters mean the same whichever way they come: a shell, papermill, YAML, or by hand."""

import ast
from itertools import permutations
from pathlib import Path

import nbformat
import pytest
import yaml
from papermill.cli import _resolve_type

from utils import InputError
from utils.files import ROOT
from utils.pipeline.kernel import parameters_of
from utils.pipeline.sequence import CHAPTERS
from utils.runs import Run, check_folder_name
from utils.settings import (
    FLAG,
    NUMBER,
    PICTURES,
    RECIPE,
    SETTINGS,
    TEXT,
    TRAINING,
    WHOLE,
    as_meant,
    derive_run_name,
    from_shell,
    names_of,
    of_chapter,
    parse_value,
    schema,
    take_parameters,
    with_defaults,
    without_ending,
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
    taken = take_parameters(namespace, chapter="3")
    meant = {"run_name": "7", "seed": 1, "epochs": None, "recipe": "quick"}
    assert taken.items() >= meant.items() and namespace.items() >= {**meant, "other": 5}.items()
    assert list(taken) == [setting.name for setting in of_chapter("3")]
    assert taken["val_fraction"] == namespace["val_fraction"] == 0.0  # as nothing else was said
    said = capsys.readouterr().out
    assert said.startswith("run_name came as the number 7, and is read as the text '7'.")
    assert len(said.splitlines()) == 1


def test_what_may_be_chosen_is_what_there_is():
    import torch

    from utils.data.augment import several_views
    from utils.devices import DEVICES, PRECISIONS
    from utils.explain.gradcam import METHODS
    from utils.models.registry import MODELS
    from utils.training.recipes import RECIPES

    there = {"model": MODELS, "recipe": RECIPES, "method": METHODS, "precision": PRECISIONS}
    for name, names in {**there, "devices": DEVICES}.items():
        assert SETTINGS[name].choices == tuple(names)
    for count in SETTINGS["views"].choices:
        assert len(several_views(torch.zeros(1, 3, 16, 16), count)) == count


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_default_is_a_value_that_may_be(setting):
    setting.check(setting.default)
    assert len(f"{setting.name} = {setting.default!r}  # {setting.meaning}") <= 100
    assert setting.kind in (TEXT, WHOLE, NUMBER, FLAG)


@pytest.mark.parametrize("path", sorted((ROOT / "utils").rglob("*.py")), ids=lambda p: p.stem)
def test_what_a_parameter_may_be_is_declared_once(path):
    """Elsewhere it is `SETTINGS[name].check` that is asked; a range of its own would drift."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("check_number", "check_flag"):
            assert ast.unparse(node.args[0]).strip("'") not in SETTINGS, ast.unparse(node)


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


@pytest.mark.parametrize("name", ["pets", "pets.zip", "pets.tar", "pets.tar.bz2", "pets.TGZ"])
def test_an_archive_is_called_what_it_holds(name):
    assert derive_run_name(f"/data/{name}", "original", 0) == "pets-original-seed0"


def test_a_dot_in_a_name_does_not_end_it():
    assert without_ending("pets.v2.tar.gz") == without_ending("pets.v2") == "pets.v2"
    assert derive_run_name("pets.v2.zip", "original", 0) == "pets.v2-original-seed0"


def test_each_part_takes_its_own_parameters_and_fills_in_the_rest():
    given = {"epochs": 5, "image_size": 16, "lr_steps": 10, "data_dir": Path("here")}
    pictures = with_defaults(PICTURES, **given)
    assert set(pictures) == set(names_of(PICTURES))
    assert (pictures["image_size"], pictures["data_dir"]) == (16, "here")
    assert pictures["dataset"] == SETTINGS["dataset"].default
    training = with_defaults(RECIPE, TRAINING, **given)
    assert (training["epochs"], training["seed"]) == (5, 0) and "image_size" not in training


def test_the_side_of_pictures_follows_the_recipe_unless_it_is_given():
    for recipe, side in ((None, 32), ("speed", 32), ("finetune", 128)):
        assert with_defaults(PICTURES, recipe=recipe)["image_size"] == side
        assert with_defaults(PICTURES, recipe=recipe, image_size=64)["image_size"] == 64
        named = derive_run_name("shapes", recipe, 0)
        assert derive_run_name("shapes", recipe, 0, image_size=side) == named
        assert derive_run_name("shapes", recipe, 0, image_size=64).endswith("image_size=64")


def test_what_no_parameter_is_called_is_refused_with_what_there_is():
    with pytest.raises(InputError, match=r"'epoch' is unknown\. Choose one of: dataset, recipe"):
        with_defaults(PICTURES, epoch=5)
    with pytest.raises(InputError, match="data_dir is None"):
        with_defaults(PICTURES, data_dir=None)
    with_defaults(PICTURES, epochs="of another part, whose business it is")


def test_what_is_resolved_is_neither_left_open_nor_a_word():
    SETTINGS["max_lr"].check("found")
    SETTINGS["max_lr"].check(None)
    for value in ("found", None):
        with pytest.raises(InputError, match="max_lr is"):
            SETTINGS["max_lr"].check(value, is_resolved=True)


def test_every_parameter_of_every_notebook_is_of_a_kind_and_taken_as_meant():
    for path in CHAPTERS.values():
        assert set(parameters_of(path)) <= set(SETTINGS)
        cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert f'take_parameters(globals(), chapter="{path.stem[1]}")' in cells[3]
    taken = {name for path in CHAPTERS.values() for name in parameters_of(path)}
    assert taken == set(SETTINGS)


@pytest.mark.parametrize("path", CHAPTERS.values(), ids=CHAPTERS)
def test_no_cell_gives_a_parameter_another_meaning(path):
    """A cell that is run again would take what a later one left under the name."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    others = [c.source for c in cells if "parameters" not in c.metadata.get("tags", [])]
    code = ast.parse("\n".join(others).replace("    !git", "    pass  #"))
    names = [node for node in ast.walk(code) if isinstance(node, ast.Name)]
    stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    assert not stored & set(parameters_of(path))


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("1e-3", 1e-3), ("true", True), ("None", None), ("found", "found"), ("a b", "a b")],
)
def test_values_are_read_as_literals(text, value):
    assert parse_value(text) == value


def test_values_that_look_like_code_stay_text():
    assert parse_value("__import__('os').getcwd()") == "__import__('os').getcwd()"


@pytest.mark.parametrize(
    "dataset",
    ["shapes", "/data/My Pictures (2)/", "/data/..", ".", "", "日本", "-rf", "a\nb", "C:\\pics",
     "/", "x" * 300, "~/katzen & hunde", "..."],
)  # fmt: skip
def test_a_derived_name_is_always_a_name_a_run_can_have(dataset, tmp_path):
    name = derive_run_name(dataset, "original", 3, epochs=5, max_lr=None, model="davidnet")
    assert Run(name, tmp_path).folder.parent == tmp_path.resolve()
    assert "max_lr" not in name


def test_a_derived_name_tells_settings_apart():
    names = {
        derive_run_name(dataset, recipe, seed, epochs=epochs)
        for dataset in ("shapes", "cifar10")
        for recipe in ("quick", "original")
        for seed in (0, 1, 10)
        for epochs in (None, 1, 10)
    }
    assert len(names) == 2 * 2 * 3 * 3


def test_a_derived_name_keeps_the_seed_however_long_the_folder_is_called():
    names = {derive_run_name("/data/" + "x" * 200, "original", seed) for seed in range(3)}
    assert len(names) == 3


@pytest.mark.parametrize("length", range(1, 41))
def test_a_derived_name_that_is_cut_is_still_a_name_a_run_can_have(length):
    settings = {"model": "efficientnet_lite0", "epochs": 100, "batch_size": 64, "max_lr": 0.001}
    settings |= {"val_fraction": 0.15, "balanced": True, "limit_train": 1000, "image_size": 64}
    check_folder_name("run_name", derive_run_name("x" * length, "original", 0, **settings))


def test_an_earlier_run_need_not_name_what_came_later():
    late = {name for name, setting in SETTINGS.items() if setting.is_late}
    assert "views" in late
    assert set(schema(is_late=True)) == late
    assert set(schema()) == set(names_of(PICTURES, RECIPE, TRAINING)) - late
