"""What a batch is made of: grids from a shell and from a file, and what each cell is called."""

import pytest

from utils import InputError
from utils.batch.grid import (
    MOST_RUNS,
    Asked,
    axis,
    cells,
    label,
    read_file,
    read_grid,
    run_name,
)
from utils.settings import SETTINGS


def test_values_have_the_kind_of_their_parameter():
    grid = read_grid(["recipe = original, speed", "max_lr=1e-3,found,none", "epochs=5.0,1:3"])
    assert grid == {
        "recipe": ["original", "speed"],
        "max_lr": [0.001, "found", None],
        "epochs": [5, 1, 2, 3],
    }
    assert read_grid(["dataset=1:3"]) == {"dataset": ["1:3"]}  # a path, and no range


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed", "NAME=VALUE"),
        ("seed=", "NAME=VALUE"),
        ("epoch=1,2", "'epoch' is unknown.*epochs"),
        ("seed=3:1", "holds no number"),
        ("seed=1:3:0", "holds no number"),
        ("seed=1:999999999999", "more than 10,000"),
        ("seed=1,2,1", "holds 1 twice"),
        ("seed=1:3,2", "holds 2 twice"),
    ],
)
def test_a_grid_that_is_none_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        read_grid([text])


def test_a_parameter_is_given_once():
    with pytest.raises(InputError, match="seed is given more than once"):
        read_grid(["seed=1", "seed=2"])
    with pytest.raises(InputError, match="seed is given more than once"):
        Asked(grid={"seed": [1]}, parameters={"seed": 2}).joined(Asked())
    with pytest.raises(InputError, match="name is given in the file and beside it"):
        Asked("a").joined(Asked("b"))


def test_a_file_says_what_a_shell_can(tmp_path):
    (tmp_path / "batch.yaml").write_text(
        "name: b\n"
        "grid:\n  recipe: [original, speed]\n  seed: 1:10\n  max_lr:\n    - 1e-3\n    - found\n"
        "parameters:\n  epochs: 5\n  skip_unreadable: no\n  dataset: 007\n"
    )
    asked = read_file(tmp_path / "batch.yaml").joined(Asked(output_dir="here"))
    assert asked == Asked(
        "b",
        "here",
        read_grid(["recipe=original,speed", "seed=1:10", "max_lr=1e-3,found"]),
        {"epochs": 5, "skip_unreadable": False, "dataset": "007"},
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- 1", "must be names with values"),
        ("", "must be names with values"),
        ("a: [", "cannot be read as YAML"),
        ("girds: {}", "'girds' is unknown.*grid"),
        ("grid: [1, 2]", "grid must be names with values"),
        ("kinds: {recipe: fast}", "kinds as .* must be a list"),
        ("kinds: [fast]", "each of kinds must be names with values"),
        ("kinds: [{epochs: [1, 2]}]", "gives epochs as .* one value"),
        ("grid: {seed: {from: 1}}", "the grid of seed .* must be a list"),
        ("grid: {seed: [[1]]}", "the grid of seed .* must be a list"),
        ("grid: {seeds: [1]}", "'seeds' is unknown"),
        ("parameters: {seed: [1]}", "gives seed as .* one value"),
        ("name: [a]", "gives name as .* one value"),
        ("grid: !!python/object/apply:os.getcwd []", "must be names with values"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, content, said):
    (tmp_path / "batch.yaml").write_text(content)
    with pytest.raises(InputError, match=said):
        read_file(tmp_path / "batch.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path / "none.yaml")


def test_every_combination_is_a_run_and_the_seed_changes_last():
    made = cells(Asked(grid={"recipe": ["a", "b"], "seed": [1, 2]}, parameters={"epochs": 5}))
    assert [(cell["seed"], cell["recipe"], cell["epochs"]) for cell in made] == [
        (1, "a", 5),
        (1, "b", 5),
        (2, "a", 5),
        (2, "b", 5),
    ]
    assert cells(Asked(parameters={"epochs": 5})) == [{"epochs": 5}]


def test_parameters_that_vary_together_are_kinds(tmp_path):
    (tmp_path / "batch.yaml").write_text(
        "kinds:\n  - {recipe: original, epochs: 4}\n  - {recipe: fast, epochs: 10}\n"
        "grid: {seed: 1:2}\n"
    )
    asked = read_file(tmp_path / "batch.yaml").joined(Asked("b", grid={"batch_size": [32]}))
    made = cells(asked)
    assert [(cell["seed"], cell["recipe"], cell["epochs"]) for cell in made] == [
        (1, "original", 4),
        (1, "fast", 10),
        (2, "original", 4),
        (2, "fast", 10),
    ]
    assert {cell["batch_size"] for cell in made} == {32}
    assert label(made[1], asked.varying) == "recipe=fast epochs=10 seed=1 batch_size=32"
    for beside in (Asked(grid={"epochs": [5]}), Asked(parameters={"recipe": "fast"})):
        with pytest.raises(InputError, match="is given more than once"):
            asked.joined(beside)


def test_what_a_batch_sees_to_itself_is_refused_and_so_are_too_many_runs():
    for name in ("run_name", "output_dir", "overwrite"):
        with pytest.raises(InputError, match=f"{name} cannot be given to a batch"):
            cells(Asked(parameters={name: "x"}))
    many = list(range(MOST_RUNS))
    with pytest.raises(InputError, match="20,000 runs"):
        cells(Asked(grid={"seed": many, "recipe": ["a", "b"]}))


def test_another_value_of_any_parameter_is_another_run():
    usual = {"dataset": "shapes", "recipe": "quick", "seed": 0}
    others = {
        **{name: "other" for name, setting in SETTINGS.items() if setting.kind == "text"},
        **{name: 17 for name, setting in SETTINGS.items() if "number" in setting.kind},
        **{name: True for name, setting in SETTINGS.items() if setting.kind == "True or False"},
    }
    assert others.keys() == SETTINGS.keys()
    names = [run_name({**usual, name: value}) for name, value in others.items()]
    assert len({run_name(usual), *names}) == len(others) + 1


def test_a_name_does_not_change_with_what_is_as_usual():
    usual = {"recipe": "quick", "seed": 1}
    as_usual = {name: setting.default for name, setting in SETTINGS.items()}
    assert run_name({**as_usual, **usual}) == run_name(usual)


def test_a_name_is_a_folder_s_however_long_the_values():
    names = [run_name({"dataset": f"/{'long' * 90}/{n}", "dataset_title": "t" * 90}) for n in "ab"]
    assert len(set(names)) == 2 and max(map(len, names)) <= 120


def test_ranges_have_both_ends():
    assert axis("seed", ["1:10"]) == list(range(1, 11))
    assert axis("seed", ["0:10:5"]) == [0, 5, 10]
