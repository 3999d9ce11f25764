"""A trained run's network, as `utils.explain.predict` asks it."""

import numpy as np
import torch
from torch import Tensor

from utils.data.augment import normalise
from utils.devices import choose_device
from utils.explain.gradcam import class_activation_maps, first_choice
from utils.explain.promise import kept_thresholds
from utils.runs import Run
from utils.training.trained import load_network


class TrainedModel:
    """The network of a trained run, on the best device; it is a `utils.explain.predict.Model`.

    Args:
        run: trained.

    Attributes:
        classes, image_size, bits: of the pictures that it was trained on.
        method, block: of its maps: those that are shown first.

    Raises:
        InputError: the weights are missing, damaged, or of another network.
    """

    def __init__(self, run: Run):
        data = run.record["data"]
        self.run = run
        self.classes, self.bits = tuple(data["classes"]), data.get("bits", 16)
        self.image_size = run.settings["image_size"]
        self._scale = data["mean"], data["std"]
        self._device, _ = choose_device()
        self._network = load_network(run, self._device)
        self.method, self.block = first_choice(self._network, drawn=data["name"] == "shapes")

    def thresholds(self) -> np.ndarray:
        """Return the thresholds of prediction sets: float64, C; refused where there are none."""
        return kept_thresholds(self.run)

    def logits(self, images: np.ndarray) -> Tensor:
        """Return the logits of one batch (uint8, N×3×S×S): float32, N×C."""
        with torch.inference_mode():
            return self._network(self._as_input(images))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class, float32, N×C, of one batch: uint8, N×3×S×S."""
        return self.logits(images).softmax(1).cpu().numpy()

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Return the map for each picture's predicted class: float32 in [0, 1], N×S×S.

        Args:
            images: uint8, N×3×S×S, any number of them.
        """
        pixels = self._as_input(images)
        return class_activation_maps(
            self._network, pixels, None, self.method, self.block, progress=True
        )

    def _as_input(self, images: np.ndarray) -> Tensor:
        return normalise(torch.from_numpy(images).to(self._device), *self._scale)
