"""An exported network, asked through ONNX Runtime. Needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np

from utils import InputError, first_line
from utils.data.pictures import DEPTHS
from utils.progress import progress_bar
from utils.settings import SETTINGS

#: The files of an exported network, and what its graph takes and gives.
MODEL, LABELS, CARD = "model.onnx", "labels.json", "README.md"
PIXELS, LOGITS, MAP = "pixels", "logits", "map"
BATCH_SIZE = 128


@dataclass(frozen=True)
class Description:
    """What an exported network says of itself beyond its graph, in the file's metadata.

    Attributes:
        classes: names, in the order of the logits.
        bits: how many a deep greyscale picture uses, as `utils.data.pictures.to_rgb` takes them.
        method, block: of the map.
        thresholds: of prediction sets, a class each; empty where the run had none.
    """

    classes: tuple[str, ...]
    bits: int
    method: str
    block: str
    thresholds: tuple[float, ...]

    def as_metadata(self) -> dict[str, str]:
        """Return every attribute as JSON, by name."""
        return {name: json.dumps(value, ensure_ascii=False) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Description":
        """Return what `as_metadata` gave.

        Raises:
            ValueError: something is missing or cannot be right.
        """
        names = [field.name for field in fields(cls)]
        known: dict[str, Any] = {n: json.loads(metadata[n]) for n in names if n in metadata}
        _validate(known)
        known |= {n: tuple(value) for n, value in known.items() if isinstance(value, list)}
        return cls(**known)


_KINDS = {
    "classes": {
        "type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True,
    },
    "bits": {"enum": list(DEPTHS)},
    "method": {"enum": list(SETTINGS["method"].choices)},
    "block": {"type": "string", "pattern": r"^\w+$"},
    "thresholds": {"type": "array", "items": {"type": "number"}},
}  # fmt: skip
_validate = fastjsonschema.compile(
    {"type": "object", "properties": _KINDS, "required": list(_KINDS)}, use_default=False
)


class ExportedModel:
    """A network that `python -m utils export` wrote; it answers as `utils.explain.predict.Model`.

    Args:
        place: its folder, or its ONNX file.

    Attributes:
        description: what the file says.
        classes, bits, method, block: of `description`.
        image_size: side in pixels of what the network sees.

    Raises:
        InputError: there is no such file, it is none that was exported here, or ONNX Runtime is not
            installed.
    """

    def __init__(self, place: str | Path):
        check_libraries("onnxruntime")
        self.path = Path(place) / MODEL if Path(place).is_dir() else Path(place)
        if not self.path.is_file():
            raise InputError(
                f"{self.path} does not exist as a file. Give the folder that an export wrote: "
                "python -m utils export --run NAME"
            )
        try:
            self._session = _session(self.path)
            self.image_size = _image_size(self._session)
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.description = Description.from_metadata(metadata)
            _check_classes(self._session, self.description)
        except Exception as error:  # damage can make the runtime raise nearly anything
            raise InputError(
                f"{self.path} is not a network that was exported here, or it is damaged "
                f"({first_line(error)}). Export it again: python -m utils export --run NAME"
            ) from error
        self.classes, self.bits = self.description.classes, self.description.bits
        self.method, self.block = self.description.method, self.description.block

    def thresholds(self) -> np.ndarray:
        """Return the thresholds of prediction sets: float64, C.

        Raises:
            InputError: it was exported without.
        """
        if not self.description.thresholds:
            raise InputError(
                f"{self.path} has no prediction sets: its run had none when it was exported. Run "
                "chapter 5 of that run, and export it again."
            )
        return np.array(self.description.thresholds)

    def logits_and_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (float32, N×C) and maps (float32, N×S×S) of one batch: uint8, N×3×S×S."""
        return self._session.run([LOGITS, MAP], {PIXELS: images})

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return the probability of each class, float32, N×C, of one batch: uint8, N×3×S×S."""
        logits, _ = self.logits_and_maps(images)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Return the map for each picture's predicted class: float32 in [0, 1], N×S×S.

        Args:
            images: uint8, N×3×S×S, any number of them.
        """
        found = np.zeros((len(images), self.image_size, self.image_size), np.float32)
        starts = range(0, len(images), BATCH_SIZE)
        for start in progress_bar(starts, description=f"Maps by {self.method}", unit="batches"):
            part = slice(start, start + BATCH_SIZE)
            _, found[part] = self.logits_and_maps(images[part])
        return found


def check_libraries(*names: str) -> None:
    """Refuse to go on where a library that exporting needs is not installed.

    Raises:
        InputError: with the extra that brings it.
    """
    if missing := [name for name in names if find_spec(name) is None]:
        raise InputError(
            f"{' and '.join(missing)} must be installed for exported networks. The extra `export` "
            "brings what they need, where this project lies: python -m pip install '.[export]'"
        )


def _session(path: Path):
    import onnxruntime

    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def _image_size(session) -> int:
    """Return the side of the pictures that a graph takes, if it takes and gives what it should."""
    (pixels,) = session.get_inputs()
    _, channels, height, width = pixels.shape
    allowed = SETTINGS["image_size"]
    if (pixels.name, pixels.type, channels) != (PIXELS, "tensor(uint8)", 3) or height != width:
        raise ValueError(f"it takes {pixels.name}, {pixels.type}, {pixels.shape}")
    if not isinstance(height, int) or not allowed.low <= height <= allowed.high:
        raise ValueError(f"it takes pictures of {height} pixels a side")
    return height


def _check_classes(session, description: Description) -> None:
    """Raise ValueError where classes, thresholds and logits differ in number."""
    shapes = {output.name: output.shape for output in session.get_outputs()}
    if {LOGITS, MAP} - shapes.keys():
        raise ValueError(f"it gives {', '.join(shapes)}, not {LOGITS} and {MAP}")
    number = len(description.classes)
    if shapes[LOGITS][-1] != number or len(description.thresholds) not in (0, number):
        raise ValueError(f"it has {number} classes, and logits or thresholds for others")
