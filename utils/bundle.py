"""A trained network with what it takes to question it, in a folder that needs no run."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils import InputError
from utils.augment import normalise
from utils.gradcam import class_activation_maps
from utils.pictures import fit_picture, holds_several, open_picture, prepare_draft, to_rgb, upright
from utils.weights import read_network

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


class Bundle:
    """A trained network in a folder of its own, as `utils.space.build_space` writes it.

    Args:
        folder: with ``model.json``, ``model.safetensors`` and the pictures that these name.

    Attributes:
        about: what ``model.json`` says.
        classes, blocks: names.
        image_size: side in pixels of what the network sees.
        bits: how many a deep greyscale picture uses, as `utils.pictures.to_rgb` takes them.
        examples, mistakes: pictures of the test split; the most confident mistakes first.

    Raises:
        InputError: the weights are damaged, or are others than those the description tells of.
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
        self._thread = ThreadPoolExecutor(1, "network")

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
            InputError: it is no picture that can be read.
        """
        try:
            with open_picture(BytesIO(content), MAX_PIXELS) as image:
                moves = holds_several(image)
                pixels = fit_picture(image, self.image_size, self.bits)
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
        return self._thread.submit(self._classify, pixels).result()

    @torch.inference_mode()
    def _classify(self, pixels: np.ndarray) -> np.ndarray:
        return self.network(self._as_input(pixels)).softmax(1)[0].numpy()

    def maps(
        self,
        pixels: np.ndarray,
        targets: Sequence[int],
        method: str = "gradcam",
        blocks: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Return class activation maps of one picture.

        Args:
            pixels: uint8, S×S×3.
            targets: the classes to explain, T.
            method, blocks: as `utils.gradcam.class_activation_maps` takes them; None takes all
                blocks.

        Returns:
            float32 in [0, 1], T×B×S×S.
        """
        images = self._as_input(pixels).expand(len(targets), -1, -1, -1)
        chosen = self.blocks if blocks is None else blocks
        return self._thread.submit(
            class_activation_maps, self.network, images, targets, method, chosen
        ).result()

    def _as_input(self, pixels: np.ndarray) -> Tensor:
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        return normalise(image, self.about["mean"], self.about["std"])


def _preview(image: Image.Image, bits: int) -> Image.Image:
    prepare_draft(image, PREVIEW)
    image = to_rgb(upright(image), bits)
    image.thumbnail((PREVIEW, PREVIEW))
    return image
