"""A trained network with what it takes to question it, in a folder that needs no run."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils import InputError
from utils.data.augment import normalise
from utils.data.pictures import (
    holds_several,
    open_picture,
    prepare_draft,
    resize_and_crop,
    to_rgb,
    upright,
)
from utils.explain.gradcam import CHANNEL_METHODS, CHANNELS_IN_A_STEP, class_activation_maps
from utils.explain.prediction_sets import sets_in_words
from utils.models.weights import read_network

DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"
#: What strangers send may fill less memory than one's own pictures.
MAX_PIXELS = 25_000_000
#: Side in pixels of the largest square that holds the preview of a picture.
PREVIEW = 320


@dataclass(frozen=True)
class BundledPicture:
    """A test picture that comes with the network.

    Attributes:
        file: its path below the bundle's folder.
        target, predicted: class indices.
        probability: of the predicted class.
    """

    file: str
    target: int
    predicted: int
    probability: float


class NoLongerWantedError(Exception):
    """Whoever asked for long work has left, or asked for something else."""


class Worker:
    """One thread for all work: what is short goes first, between the steps of what is long."""

    def __init__(self):
        self._thread, self._short = ThreadPoolExecutor(1, "network"), SimpleQueue()

    def do_short(self, work: Callable, *arguments):
        """Return what short work gives; it waits for no more than a step of long work."""
        done = Future()
        self._short.put((done, work, arguments))
        self._thread.submit(self.let_pass)
        return done.result()

    def do_long(self, work: Callable, *arguments):
        """Return what long work gives, which must call `let_pass` at each of its steps."""
        return self._thread.submit(work, *arguments).result()

    def let_pass(self) -> None:
        """Do the short work that waits; to be called on the worker's own thread."""
        while True:
            try:
                done, work, arguments = self._short.get_nowait()
            except Empty:
                return
            try:
                done.set_result(work(*arguments))
            except BaseException as error:  # it belongs to whoever waits for it
                done.set_exception(error)


class Bundle:
    """A trained network in a folder of its own, as `utils.publish.space.build_space` writes it.

    Args:
        folder: with ``model.json``, ``model.safetensors`` and the pictures that these name.

    Attributes:
        about: what ``model.json`` says.
        classes, blocks: names.
        image_size: side in pixels of what the network sees.
        bits: how many a deep greyscale picture uses, as `utils.data.pictures.to_rgb` takes them.
        examples, mistakes: pictures of the test split; the most confident mistakes first.

    Raises:
        InputError: the weights are damaged, or are not those of the description.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.about = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        self.classes = tuple(self.about["classes"])
        self.image_size, self.bits = self.about["image_size"], self.about["bits"]
        self.network = read_network(
            folder / WEIGHTS,
            self.about["model"],
            len(self.classes),
            self.image_size,
            self.about["sha256"],
            "Build the folder again.",
        )
        self.blocks = self.network.blocks
        self.examples, self.mistakes = (
            tuple(BundledPicture(**picture) for picture in self.about[kind])
            for kind in ("examples", "mistakes")
        )
        # one thread for all who ask: the maps' package is patched while it works, and torch and
        # malloc keep memory for every thread that ever computed
        self._worker = Worker()

    def set_in_words(self, probabilities: np.ndarray) -> str:
        """Return the set of classes for a picture's probabilities (float32, C).

        Empty where the run has no prediction sets, as one that chapter 5 has not looked at.
        """
        thresholds = self.about.get("thresholds")
        if thresholds is None:
            return ""
        (told,) = sets_in_words(probabilities[None], np.array(thresholds), self.classes)
        return told

    def read(self, picture: BundledPicture) -> np.ndarray:
        """Return a picture of the bundle: uint8, S×S×3."""
        with Image.open(self.folder / picture.file) as image:
            return np.asarray(image.convert("RGB"))

    def read_upload(self, content: bytes) -> tuple[np.ndarray, Image.Image, bool]:
        """Read a stranger's picture file.

        Returns:
            what the network sees: uint8, S×S×3; the picture itself, RGB, at most ``PREVIEW``
            pixels wide and high; and whether it is the first of an animation.

        Raises:
            InputError: it is not a picture that can be read.
        """
        try:
            with open_picture(BytesIO(content), MAX_PIXELS) as image:
                moves = holds_several(image)
                pixels = resize_and_crop(image, self.image_size, self.bits)
            with open_picture(BytesIO(content), MAX_PIXELS) as image:
                preview = _preview(image, self.bits)
        except ValueError as error:
            raise InputError(f"This file cannot be used: {error}.") from error
        except Exception as error:  # a damaged file can raise nearly anything inside a decoder
            raise InputError(
                "This file cannot be read as a picture: it is damaged or cut short."
            ) from error
        return pixels, preview, moves

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of each class, float32, C, for a picture (uint8, S×S×3)."""
        return self._worker.do_short(self._classify, pixels)

    @torch.inference_mode()
    def _classify(self, pixels: np.ndarray) -> np.ndarray:
        return self.network(self._as_input(pixels)).softmax(1)[0].numpy()

    def maps(
        self,
        pixels: np.ndarray,
        targets: Sequence[int],
        method: str = "gradcam",
        blocks: Sequence[str] | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> np.ndarray:
        """Return class activation maps of one picture.

        Args:
            pixels: uint8, S×S×3.
            targets: the classes to explain, T.
            method, blocks: as `utils.explain.gradcam.class_activation_maps` takes them;
                None takes all blocks.
            is_wanted: asked between the steps of a method that takes long.

        Returns:
            float32 in [0, 1], T×B×S×S.

        Raises:
            NoLongerWantedError: `is_wanted` said no.
        """
        images = self._as_input(pixels).expand(len(targets), -1, -1, -1)
        chosen = self.blocks if blocks is None else blocks
        asked = self.network, images, targets, method, chosen
        if method not in CHANNEL_METHODS:
            return self._worker.do_short(class_activation_maps, *asked)

        def before_pass() -> None:
            if not is_wanted():
                raise NoLongerWantedError
            self._worker.let_pass()

        slow = partial(class_activation_maps, before_pass=before_pass)
        return self._worker.do_long(slow, *asked)

    def seconds(self, blocks: Sequence[str], classes: int) -> float:
        """Return about how long a method of ``CHANNEL_METHODS`` takes, for so many classes.

        It is scaled from one timed step: these methods make a forward pass for every channel.
        """
        channels, seconds_each = self._pace
        return classes * seconds_each * sum(channels[block] for block in blocks)

    @cached_property
    def _pace(self) -> tuple[dict[str, int], float]:
        """Channels of each block, and seconds of a picture's forward pass among others."""
        return self._worker.do_short(self._timed_pass)

    @torch.inference_mode()
    def _timed_pass(self) -> tuple[dict[str, int], float]:
        channels = {}

        def note(name: str) -> Callable:
            return lambda module, inputs, output: channels.update({name: output.shape[1]})

        hooks = [self.network.get_submodule(b).register_forward_hook(note(b)) for b in self.blocks]
        images = torch.zeros(CHANNELS_IN_A_STEP, 3, self.image_size, self.image_size)
        self.network(images)  # the first pass of a process takes longer
        for hook in hooks:
            hook.remove()
        began = time.perf_counter()
        self.network(images)
        return channels, (time.perf_counter() - began) / len(images)

    def _as_input(self, pixels: np.ndarray) -> Tensor:
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        return normalise(image, self.about["mean"], self.about["std"])


def _preview(image: Image.Image, bits: int) -> Image.Image:
    prepare_draft(image, PREVIEW)
    image = to_rgb(upright(image), bits)
    image.thumbnail((PREVIEW, PREVIEW))
    return image
