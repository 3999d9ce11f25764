"""Which test pictures are wrong in all runs, in some and in none, by hand-worked cases."""

import numpy as np
import pandas as pd
import pytest

from helpers.pictures import made_set
from helpers.runs import make_run, rights
from utils import InputError
from utils.explain.hard_pictures import (
    ALWAYS,
    NEVER,
    SOMETIMES,
    agreement_in_words,
    by_chance,
    examples,
    kinds_in_words,
    picture_table,
    pictures_to_show,
)
from utils.explain.many_runs import gather

RIGHT = np.array([[1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1], [1, 0, 0, 1, 1, 1]], bool)


@pytest.fixture
def gathered(tmp_path):
    """Three runs of one group, two right where the first is wrong or the other way round."""
    for seed, right in enumerate(RIGHT):
        make_run(tmp_path, f"run-seed{seed}", right, seed)
    return gather(tmp_path)


def test_a_picture_is_wrong_in_so_many_runs(gathered):
    table = picture_table(gathered)
    assert table["wrong"].tolist() == [0, 3, 2, 2, 0, 0]
    assert table["kind"].tolist() == [NEVER, ALWAYS, SOMETIMES, SOMETIMES, NEVER, NEVER]
    assert table["actual"].tolist() == ["ant", "bee", "cat"] * 2
    assert table["taken_for"].tolist() == ["", "cat", "ant", "bee", "", ""]
    assert table["agreeing"].tolist() == [0, 3, 2, 2, 0, 0]
    assert table["right: quick"].tolist() == pytest.approx([1, 0, 1 / 3, 1 / 3, 1, 1])


def test_runs_need_not_agree_on_what_a_picture_is_taken_for(gathered):
    gathered.predicted[0, 1] = 0
    table = picture_table(gathered)
    assert (table["taken_for"][1], table["agreeing"][1]) == ("cat", 2)
    assert "get wrong, all take none for the same class." in agreement_in_words(table, 3)


def test_what_chance_would_make_is_what_drawing_lots_makes(gathered):
    expected, random = by_chance(gathered), np.random.default_rng(0)
    accuracies = RIGHT.mean(axis=1, keepdims=True)
    drawn = (random.random((3, 100_000)) >= accuracies).sum(axis=0)
    assert expected == pytest.approx(6 * np.bincount(drawn) / 100_000, abs=0.05)
    assert expected.sum() == pytest.approx(6)


def test_examples_are_of_each_kind_the_most_telling_first(tmp_path):
    for seed, right in enumerate(rights(6, 200, 0.6)):
        make_run(tmp_path, f"run-seed{seed}", right, seed)
    table = picture_table(gather(tmp_path))
    shown = examples(table, 6, 4)
    assert list(shown) == [ALWAYS, SOMETIMES, NEVER]
    for kind, some in shown.items():
        assert len(some) <= 4 and (some["kind"] == kind).all()
        assert some["index"].max() > 100  # not the first ones alone
    assert (shown[SOMETIMES]["wrong"] == 3).all()


def test_half_of_the_runs_is_meant_where_no_picture_is_wrong_in_all():
    table = pd.DataFrame({"wrong": [1, 1, 2, 3, 1], "kind": SOMETIMES, "agreeing": 1})
    shown = examples(table.assign(index=range(5)), 9, 2)[SOMETIMES]
    assert shown["wrong"].tolist() == [3, 2]


def test_it_is_said_in_words(gathered):
    said = kinds_in_words(gathered)
    assert "Of 6 test pictures, over 3 runs: 1 always wrong (16.7%); 2 sometimes wrong" in said
    assert "would be always wrong and" in said
    assert "Of 1 picture that all runs get wrong, all take 1" in agreement_in_words(
        picture_table(gathered), 3
    )
    # of two classes, any two mistakes agree, which says nothing
    assert "same class" not in agreement_in_words(picture_table(gathered), 2)
    none = picture_table(gathered).assign(kind=NEVER)
    assert agreement_in_words(none, 3) == "No picture is wrong in all runs."


def test_pictures_that_are_gone_are_told_unless_their_place_was_given(gathered, monkeypatch):
    def gone(*_):
        raise InputError("they are gone")

    monkeypatch.setattr("utils.data.sources.pictures_of", gone)
    kinds = examples(picture_table(gathered), 3, 2)
    assert pictures_to_show(gathered, kinds) == ({}, "they are gone")
    with pytest.raises(InputError, match="they are gone"):
        pictures_to_show(gathered, kinds, dataset="shapes")


def test_pictures_are_those_of_the_examples_and_a_kind_may_have_none(gathered, monkeypatch):
    pictures = made_set((0, 1, 2), (0, 1, 2, 0, 1, 2))
    monkeypatch.setattr("utils.data.sources.pictures_of", lambda *_: pictures)
    kinds = examples(picture_table(gathered).replace({"kind": {ALWAYS: SOMETIMES}}), 3, 6)
    images, reason = pictures_to_show(gathered, kinds)
    assert reason == "" and images[ALWAYS].shape == (0, 3, 16, 16)
    expected = pictures.test.images.numpy()[kinds[NEVER]["index"]]
    np.testing.assert_array_equal(images[NEVER], expected)
    assert len(images[SOMETIMES]) == 3
