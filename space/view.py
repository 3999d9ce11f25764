"""What the page shows of an answer, as HTML; pictures travel inside it, so none is kept on disk."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from utils import counted
from utils.explain.gradcam import blank
from utils.explain.prediction_sets import PROMISE
from utils.plots.gradcam import overlay
from utils.plots.style import percent

METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "xgradcam": "XGrad-CAM",
    "eigencam": "EigenCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}
CAN_AND_CANNOT = """\
- A map is **coarse**: the last layer sees the picture as a few cells, so the bright patch is \
right to within some pixels at best. Earlier layers are sharper, and closer to mere edges.
- Each map is **scaled to its own brightest point**. Two maps cannot be compared in strength, \
and a class that the network hardly believes in gets as bright a map as its first choice.
- It shows **where** evidence was found, never **what** that evidence was, nor that it was the \
reason: other pixels may have counted as much.
- **Methods disagree.** Where they do, trust none of them alone. EigenCAM does not look at the \
class, so it is the same for every class.
- The network **always answers** with one of the classes it knows, and may be sure of it, \
whatever the picture shows.
"""
NO_PICTURE = (
    "<p>There is no picture here. A link never carries a visitor's own, only the settings: upload "
    "one, or choose an example.</p>"
)
FORGOTTEN = (
    "<p>There is no picture to explain: none has been chosen, or the page has forgotten it, "
    "because many others came, it was left for an hour, or it was restarted. Choose one again.</p>"
)


@dataclass(frozen=True)
class Seen:
    """A picture under question.

    Attributes:
        name: what it is, for people.
        pixels: what the network sees: uint8, S×S×3.
        preview: the picture itself as a data address; None where it is those pixels.
        probabilities: float32, C.
        truth: the true class; None where nobody knows.
        is_mistake: whether it is one of the mistakes that come with the network.
        members: its set of classes in words; empty where there are no sets.
    """

    name: str
    pixels: np.ndarray
    preview: str | None
    probabilities: np.ndarray
    truth: int | None = None
    is_mistake: bool = False
    members: str = ""

    @property
    def ranking(self) -> np.ndarray:
        """Class indices, the most probable first."""
        return np.argsort(-self.probabilities, kind="stable")


def as_address(pixels: np.ndarray | Image.Image, kind: str = "png") -> str:
    """Return a picture (uint8, H×W×3) as a data address."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    content = BytesIO()
    image.save(content, kind)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def answer(seen: Seen, classes: Sequence[str], top_n: int) -> str:
    """Return the picture, what the network sees of it, and its most probable classes."""
    side = len(seen.pixels)
    what = "seen" if seen.preview is None else "its centre, seen"
    pictures = [_figure(as_address(seen.pixels), "pixelated", f"{what} at {side}×{side}")]
    if seen.preview is not None:
        pictures.insert(0, _figure(seen.preview, "", "your picture"))
    best = seen.ranking[:top_n]
    rows = "".join(_bar(classes[i], seen.probabilities[i], i == seen.truth) for i in best)
    return (
        "<section class='answer' aria-label='What the network says'>"
        f"<div class='pictures'>{''.join(pictures)}</div>"
        f"<div class='says'><p>{_verdict(seen, classes)}</p>{_set(seen)}{_steps(seen)}"
        "<table class='classes'><thead><tr><th scope='col'>class</th>"
        "<th scope='col'>probability</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _verdict(seen: Seen, classes: Sequence[str]) -> str:
    first = seen.ranking[0]
    says = (
        f"<strong>{escape(classes[first])}</strong>, {percent(seen.probabilities[first], 1)} sure."
    )
    if seen.truth is None:
        return f"{escape(seen.name)}: {says}"
    verdict = (
        "That is right."
        if first == seen.truth
        else f"In truth it is <strong>{escape(classes[seen.truth])}</strong>."
    )
    return f"{escape(seen.name)}: {says} {verdict}"


def _set(seen: Seen) -> str:
    if not seen.members:
        return ""
    return (
        f"<p>Asked for a set of classes that holds the right one in {percent(PROMISE)} of pictures "
        f"like those it was tested on, it says: <strong>{escape(seen.members)}</strong>.</p>"
    )


def _steps(seen: Seen) -> str:
    if not seen.is_mistake:
        return ""
    buttons = "".join(
        f"<button type='button' data-step='{step}'>{words}</button>"
        for step, words in ((-1, "‹ Mistake before"), (1, "Next mistake ›"))
    )
    return f"<div class='steps'>{buttons}</div>"


def _bar(name: str, probability: float, is_true: bool) -> str:
    mark = " <span class='truth'>true class</span>" if is_true else ""
    bar = f"<span class='bar' style='--share:{probability:.4f}'></span>"
    share = percent(probability, 1)
    if share == percent(0, 1):
        bar = ""
    return (
        f"<tr><th scope='row'>{escape(name)}{mark}</th><td><div>{bar}<span>{share}</span></div>"
        "</td></tr>"
    )


def _figure(address: str, kind: str, caption: str) -> str:
    return (
        f'<figure><img class="{kind}" src="{address}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def maps(
    seen: Seen,
    class_maps: np.ndarray,
    targets: Sequence[int],
    blocks: Sequence[str],
    classes: Sequence[str] | None,
) -> str:
    """Return the maps of one picture: a group a class, a tile a block.

    The map lies over the picture as a picture of its own, and the page's slider sets how much of
    it shows; nothing has to be computed for that.

    Args:
        class_maps: float32 in [0, 1], T×B×S×S.
        targets: T class indices.
        blocks: B names.
        classes: C names; None where the maps are of no class.
    """
    picture = as_address(seen.pixels)
    rows = []
    for target, row in zip(targets, class_maps, strict=True):
        name = escape(classes[target]) if classes else "any class"
        empty = blank(row)
        tiles = "".join(
            _tile(picture, seen.pixels, class_map, block, name, is_blank)
            for class_map, block, is_blank in zip(row, blocks, empty, strict=True)
        )
        heading = (
            f"Where it found “{name}” ({percent(seen.probabilities[target], 1)})"
            if classes
            else "What stands out to it, whatever the class"
        )
        rows.append(f"<div><h2>{heading}</h2><div class='tiles'>{tiles}</div></div>")
    bright = "most evidence for the class" if classes else "what stands out most"
    key = f"<p>Bright: {bright}. Dark: none. Each map has a scale of its own.</p>"
    return (
        f"<section class='maps' aria-label='Class activation maps'>{key}"
        f"<div class='groups'>{''.join(rows)}</div></section>"
    )


def waiting(method: str, seconds: float) -> str:
    """Return what stands in for maps that take long, while they are computed."""
    return (
        "<section class='maps' aria-label='Class activation maps'>"
        f"<p>{METHOD_NAMES[method]} tries every channel: the maps come in {about(seconds)}, or "
        "later where others wait for theirs. Any other choice stops it.</p></section>"
    )


def about(seconds: float) -> str:
    """Return a time in words, no finer than it is known."""
    rounded = max(1, round(seconds)) if seconds < 8 else 5 * round(seconds / 5)
    return f"about {rounded} s"


def _tile(
    picture: str, pixels: np.ndarray, class_map: np.ndarray, block: str, name: str, is_blank: bool
) -> str:
    colours = as_address(overlay(pixels.transpose(2, 0, 1), class_map, map_weight=1.0))
    caption = f"{block}: blank, nothing here spoke for it" if is_blank else block
    return (
        f"<figure><div class='stack'><img class='pixelated' src='{picture}' alt=''>"
        f"<img class='map' src='{colours}' alt='Map for {name} at {escape(block)}'></div>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def refused(reason: str) -> str:
    """Return why there is no answer, where it would stand."""
    return f"<section class='answer'><p role='alert'>{escape(reason)}</p></section>"


def not_followed(settings: Sequence[str]) -> str:
    """Return what of a link's settings the page could not follow."""
    return (
        "<p role='alert'>This page lacks some of what the link asks for; the usual "
        f"settings are used for: {', '.join(settings)}.</p>"
    )


def mistakes_in_words(shown: int, total: int, actual: str) -> str:
    """Return how many mistakes are shown of how many there are, on a class ("" for all)."""
    on = f" on “{escape(actual)}”" if actual else ""
    if not total:
        return f"<p>It made no mistakes{on} in its test.</p>"
    if not shown:
        held = "this page holds only the most confident of all"
        return f"<p>None of {counted(total, 'mistake')}{on} is here: {held}.</p>"
    return f"<p>{shown} of {counted(total, 'mistake')}{on}, the most confident first.</p>"


def buttons(pictures: Sequence[tuple[str, np.ndarray, str]], about: str) -> str:
    """Return pictures to choose from: a name for the page, uint8 S×S×3, and a caption each."""
    shown = "".join(
        f"<button type='button' data-name='{escape(name)}'>"
        f"<img class='pixelated' src='{as_address(pixels)}' alt=''>"
        f"<span>{escape(caption).replace(' %', '&nbsp;%')}</span></button>"
        for name, pixels, caption in pictures
    )
    return f"<section class='choices' aria-label='{escape(about)}'>{shown}</section>"
