"""What the Space's page says, and the settings that a link brings."""

import numpy as np
import pytest
from settings import default_settings, settings_from_link
from view import METHOD_NAMES, Seen, answer, maps, mistakes_in_words

from utils.explain.gradcam import METHOD_NOTES, METHODS


def test_every_method_has_its_line():
    assert list(METHOD_NOTES) == list(METHOD_NAMES) == list(METHODS)


def test_names_are_shown_as_they_are(bundle):
    classes = ["<b>ant</b>", *bundle.classes[1:]]
    pixels = bundle.read(bundle.examples[0])
    seen = Seen("<i>", pixels, None, np.eye(10, dtype=np.float32)[0], truth=0)
    text = answer(seen, classes, 2)
    assert "<b>ant" not in text
    assert "<i>" not in text
    assert text.count("<tr>") == 3
    found = np.zeros((1, 1, 16, 16), np.float32)
    text = maps(seen, found, [0], ["prep"], classes)
    assert "<b>ant" not in text
    assert "blank" in text


def test_nothing_is_drawn_where_nothing_is_said(bundle):
    probabilities = np.array([0.9998, 0.0002, 0.0], np.float32)
    text = answer(Seen("a", bundle.read(bundle.examples[0]), None, probabilities), "abc", 3)
    assert text.count("<span>99.98 %</span>") == text.count("<span>0.02 %</span>") == 1
    assert text.count("<span>0.0 %</span>") == 1
    assert text.count("class='bar'") == 2


def test_the_set_is_said_as_it_is_where_there_is_one(bundle):
    pixels = bundle.read(bundle.examples[0])
    probabilities = np.eye(10, dtype=np.float32)[0]
    text = answer(
        Seen("a", pixels, None, probabilities, members="<b>ant or bee"), bundle.classes, 1
    )
    assert "like those it was tested on, it says: <strong>&lt;b&gt;ant or bee" in text
    assert "a set of classes" not in answer(
        Seen("a", pixels, None, probabilities), bundle.classes, 1
    )


@pytest.mark.parametrize(
    ("shown", "total", "actual", "words"),
    [
        (7, 1_200, "", "7 of 1,200 mistakes, the most confident first."),
        (1, 1, "<b>", "1 of 1 mistake on “&lt;b&gt;”, the most confident first."),
        (0, 0, "", "It made no mistakes in its test."),
        (0, 0, "ant", "It made no mistakes on “ant” in its test."),
        (0, 3, "ant", "None of 3 mistakes on “ant” is here: this page holds only the most "
         "confident of all."),
    ],
)  # fmt: skip
def test_mistakes_are_counted_also_where_there_are_none(shown, total, actual, words):
    assert mistakes_in_words(shown, total, actual) == f"<p>{words}</p>"


def test_a_link_brings_its_settings(bundle):
    query = {
        "source": "mistake-2", "top_n": "3", "method": "layercam", "blocks": "layer3,prep",
        "explained": "circle" if "circle" in bundle.classes else bundle.classes[1],
        "beside": "(nothing)", "weight": "0.25", "count": "4", "actual": bundle.classes[0],
        "utm_source": "elsewhere",
    }  # fmt: skip
    settings, refused = settings_from_link(query, bundle)
    assert refused == []
    assert settings.source == "mistake-2"
    assert (settings.top_n, settings.weight, settings.count) == (3, 0.25, 4)
    assert settings.blocks == ("prep", "layer3")
    assert settings.explained == query["explained"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "mistake-9999"), ("source", "../etc"), ("top_n", "11"), ("top_n", "x"),
        ("method", "gradcam2"), ("blocks", ""), ("blocks", "layer9"), ("explained", "dragon"),
        ("beside", "<script>"), ("weight", "nan"), ("weight", "2"), ("count", "26"),
        ("actual", "dragon"),
    ],
)  # fmt: skip
def test_a_link_that_cannot_be_followed_is_named_and_left(bundle, name, value):
    settings, refused = settings_from_link({name: value}, bundle)
    assert settings == default_settings(bundle)
    assert refused == [name]
