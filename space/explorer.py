"""What the page asks of a bundle: a picture, its classes and maps, the mistakes to choose from."""

from collections.abc import Callable, Sequence

from settings import FIRST_CHOICE, NOTHING, RIVAL, SECOND_CHOICE
from view import FORGOTTEN, Seen, answer, as_address, buttons, maps, mistakes_in_words, waiting

from utils import InputError
from utils.explain.gradcam import CHANNEL_METHODS, CLASSLESS_METHODS
from utils.explain.portable import Bundle, BundledPicture
from utils.plots.gradcam import overlay
from utils.plots.style import percent


class Explorer:
    """Answers about one picture at a time, as HTML.

    Args:
        bundle: the network and its pictures.

    Attributes:
        pictures: those of the bundle, by the name that a link gives them.
    """

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.pictures = {
            f"{kind}-{number}": picture
            for kind, pictures in (("example", bundle.examples), ("mistake", bundle.mistakes))
            for number, picture in enumerate(pictures, 1)
        }

    # pictures

    def uploaded(self, content: bytes | None) -> Seen:
        """Return the picture that a stranger's file holds.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        if content is None:
            raise InputError("There is no picture. Choose one, or drop one here.")
        pixels, preview, moves = self.bundle.read_upload(content)
        name = "Your animation's first picture" if moves else "Your picture"
        probabilities = self.bundle.probabilities(pixels)
        members = self.bundle.set_in_words(probabilities)
        return Seen(name, pixels, as_address(preview, "jpeg"), probabilities, members=members)

    def bundled(self, name: str) -> Seen | None:
        """Return an example or a mistake; None where there is none of that name."""
        picture = self.pictures.get(name)
        if picture is None:
            return None
        pixels, title = self.bundle.read(picture), name.replace("-", " ").capitalize()
        probabilities = self.bundle.probabilities(pixels)
        is_mistake = name.startswith("mistake")
        members = self.bundle.set_in_words(probabilities)
        return Seen(title, pixels, None, probabilities, picture.target, is_mistake, members)

    # what is shown

    def examples(self) -> str:
        """Return the examples to choose from."""
        chosen = {name: p for name, p in self.pictures.items() if name.startswith("example")}
        captions = [self.bundle.classes[picture.target] for picture in chosen.values()]
        return self._buttons(chosen, captions, "Examples")

    def mistakes(self, count: int, actual: str) -> str:
        """Return the most confident mistakes on a class ("" for all) to choose from."""
        classes = self.bundle.classes
        matching = {
            name: picture
            for name, picture in self.pictures.items()
            if name.startswith("mistake") and actual in ("", classes[picture.target])
        }
        chosen = dict(list(matching.items())[: int(count)])
        captions = [
            f"{name.removeprefix('mistake-')}: {classes[p.target]}, taken for "
            f"{classes[p.predicted]} ({percent(p.probability)})"
            for name, p in chosen.items()
        ]
        wrong = self.bundle.about["wrong"]
        total = wrong[classes.index(actual)] if actual else sum(wrong)
        words = mistakes_in_words(len(chosen), total, actual)
        return words + self._buttons(chosen, captions, "Mistakes")

    def _buttons(self, pictures: dict[str, BundledPicture], captions: list, about: str) -> str:
        shown = zip(pictures.items(), captions, strict=True)
        return buttons([(n, self.bundle.read(p), caption) for (n, p), caption in shown], about)

    def answer(self, seen: Seen | None, top_n: int) -> str:
        """Return the most probable classes of a picture."""
        return FORGOTTEN if seen is None else answer(seen, self.bundle.classes, int(top_n))

    def takes_long(self, seen: Seen | None, method: str, blocks: Sequence[str], *_) -> bool:
        """Return whether these maps take so long that nobody else shall wait for them."""
        return seen is not None and bool(blocks) and method in CHANNEL_METHODS

    def waiting(
        self, seen: Seen, method: str, blocks: Sequence[str], explained: str, beside: str
    ) -> str:
        """Return what stands in for maps that take long."""
        classes = len(self._targets(seen, explained, beside))
        return waiting(method, self.bundle.seconds(blocks, classes))

    def maps(
        self,
        seen: Seen | None,
        method: str,
        blocks: Sequence[str],
        explained: str,
        beside: str,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> str:
        """Return its maps for two classes, or for one where both are the same.

        Raises:
            NoLongerWantedError: they take long, and `is_wanted` said no meanwhile.
        """
        if seen is None:
            return FORGOTTEN
        if not blocks:
            return "<p>Choose a layer to see its map.</p>"
        chosen = [block for block in self.bundle.blocks if block in blocks]
        targets, names = self._targets(seen, explained, beside), self.bundle.classes
        if method in CLASSLESS_METHODS:
            targets, names = targets[:1], None
        found = self.bundle.maps(seen.pixels, targets, method, chosen, is_wanted)
        return maps(seen, found, targets, chosen, names)

    def _targets(self, seen: Seen, *names: str) -> list[int]:
        """Return the classes that are asked for, none of them twice."""
        first, second = seen.ranking[:2]
        rival = second if seen.truth in (None, first) else seen.truth
        special = {FIRST_CHOICE: int(first), SECOND_CHOICE: int(second), RIVAL: int(rival)}
        chosen = [
            special[name] if name in special else self.bundle.classes.index(name)
            for name in names
            if name != NOTHING
        ]
        return list(dict.fromkeys(chosen))

    # for programs

    def classify(self, content: bytes | None, top_n: int) -> dict[str, float]:
        """Return the most probable classes of a picture with their probabilities."""
        seen = self.uploaded(content)
        best = seen.ranking[: int(top_n)]
        return {self.bundle.classes[i]: float(seen.probabilities[i]) for i in best}

    def explain(
        self,
        content: bytes | None,
        class_name: str,
        method: str,
        blocks: list[str],
        weight: float,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> dict:
        """Return overlays of a picture and its maps for a class ("" for the predicted one).

        Args:
            content: of the picture file.
            class_name, method, blocks: what to explain, how, and at which blocks.
            weight: share of the picture in an overlay, from 0 to 1.
            is_wanted: as `maps` takes it.

        Raises:
            InputError: there is no such class or block, or the picture cannot be read.
        """
        if class_name and class_name not in self.bundle.classes:
            known = ", ".join(self.bundle.classes)
            raise InputError(f"This class is unknown. Known: {known}.")
        if not blocks:
            raise InputError(f"No block was given. Known: {', '.join(self.bundle.blocks)}.")
        seen = self.uploaded(content)
        (target,) = self._targets(seen, class_name or FIRST_CHOICE)
        blocks = list(dict.fromkeys(blocks))  # a program may ask for one a thousand times
        found = self.bundle.maps(seen.pixels, [target], method, blocks, is_wanted)[0]
        image = seen.pixels.transpose(2, 0, 1)
        return {
            "class": self.bundle.classes[target],
            "probability": float(seen.probabilities[target]),
            "overlays": {
                block: as_address(overlay(image, class_map, 1 - weight))
                for block, class_map in zip(blocks, found, strict=True)
            },
        }
