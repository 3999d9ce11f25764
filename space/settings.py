"""The settings of a view, and how a link tells them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from utils.explain.gradcam import METHODS, first_choice
from utils.explain.portable import Bundle

#: Values beside the class names in the two choices of a class.
FIRST_CHOICE, SECOND_CHOICE, NOTHING = "(first choice)", "(second choice)", "(nothing)"
#: The true class where the network is known to be wrong, and else its second choice.
RIVAL = "(rival)"
MOST_CLASSES, MOST_MISTAKES = 10, 25
#: How many visitors' views are remembered, half a megabyte each; the longest idle goes first.
MOST_REMEMBERED = 50
#: What the page calls the settings that a link tells.
LINK_NAMES = {
    "source": "picture",
    "top_n": "classes to list",
    "method": "method",
    "blocks": "layers",
    "explained": "class to explain",
    "beside": "compare with",
    "weight": "weight of the picture",
    "count": "mistakes to show",
    "actual": "true class",
}


@dataclass(frozen=True)
class Settings:
    """What a visitor has chosen.

    Attributes:
        source: "example-N" or "mistake-N", counted from 1; "" for a picture of their own.
        top_n: how many classes are listed.
        method: of the maps.
        blocks: whose maps are shown.
        explained, beside: the class of the first row of maps, and of the second: a name, or one
            of the values above.
        weight: share of the picture against the map, in [0, 1].
        count: how many mistakes are shown.
        actual: the true class of the mistakes that are shown; "" for all.
    """

    source: str
    top_n: int
    method: str
    blocks: tuple[str, ...]
    explained: str
    beside: str
    weight: float
    count: int
    actual: str


def default_settings(bundle: Bundle) -> Settings:
    """Return what a first visit begins with."""
    method, block = first_choice(bundle.network, drawn=bundle.about["drawn"])
    return Settings(
        source=_surest_example(bundle),
        top_n=min(5, len(bundle.classes)),
        method=method,
        blocks=tuple(dict.fromkeys((block, bundle.blocks[-1]))),
        explained=FIRST_CHOICE,
        beside=RIVAL,
        weight=0.6,
        count=7,
        actual="",
    )


def _surest_example(bundle: Bundle) -> str:
    """Return the example of which the network is rightly most sure; "" where there is none."""
    sure = [(p.predicted == p.target, p.probability) for p in bundle.examples]
    return f"example-{sure.index(max(sure)) + 1}" if sure else ""


def settings_from_link(query: Mapping[str, str], bundle: Bundle) -> tuple[Settings, list[str]]:
    """Return the settings that a link tells, and the names of those that this model cannot follow.

    What the link leaves out, or tells wrongly, is as on a first visit.
    """
    settings, refused = default_settings(bundle), []
    for name, read in _readers(bundle).items():
        if name not in query:
            continue
        try:
            settings = replace(settings, **{name: read(query[name])})
        except ValueError:
            refused.append(name)
    return settings, refused


def _readers(bundle: Bundle) -> dict:
    """Return what makes a setting of a link's text, by name, or raises ValueError."""
    pictures = [f"example-{n}" for n in range(1, len(bundle.examples) + 1)]
    pictures += [f"mistake-{n}" for n in range(1, len(bundle.mistakes) + 1)]
    classes = list(bundle.classes)
    return {
        "source": _one_of(["", *pictures]),
        "top_n": _number(int, 1, min(MOST_CLASSES, len(classes))),
        "method": _one_of(list(METHODS)),
        "blocks": _some_of(bundle.blocks),
        "explained": _one_of([FIRST_CHOICE, *classes]),
        "beside": _one_of([RIVAL, SECOND_CHOICE, NOTHING, *classes]),
        "weight": _number(float, 0, 1),
        "count": _number(int, 1, MOST_MISTAKES),
        "actual": _one_of(["", *classes]),
    }


def _one_of(allowed):
    return lambda text: allowed[allowed.index(text)]


def _some_of(allowed):
    def read(text: str) -> tuple[str, ...]:
        asked = text.split(",")
        if not set(asked) <= set(allowed):
            raise ValueError(text)
        return tuple(name for name in allowed if name in asked)

    return read


def _number(kind, low, high):
    def read(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read
