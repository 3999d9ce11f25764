"""Classify picture files with a trained run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utils import InputError, counted
from utils.data.augment import normalise
from utils.data.folders import files_below
from utils.data.pictures import EXTENSIONS, read_pictures
from utils.devices import choose_device
from utils.explain.gradcam import class_activation_maps, first_choice
from utils.files import replacing
from utils.plots.gradcam import overlay
from utils.plots.style import channels_last
from utils.runs import Run
from utils.training.trained import load_network

#: By how much a picture is enlarged beside its map.
ENLARGED = 6


def find_pictures(given: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Return the picture files meant by files and folders, and what else the folders hold.

    Raises:
        InputError: something that does not exist, or a folder without pictures.
    """
    found, others = [], []
    for path in given:
        if path == "":
            raise InputError("A picture's name is empty. Give a file or a folder.")
        path = Path(path)
        if path.is_dir():
            inside, unread = (list(map(Path, paths)) for paths in files_below(path))
            if not inside:
                raise InputError(f"{path} holds no pictures ({', '.join(EXTENSIONS)}).")
            found += inside
            others += unread
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist.")
    return found, others


def predict_pictures(
    run: Run, paths: Sequence[Path], batch_size: int = 256
) -> tuple[tuple[str, ...], np.ndarray, dict[int, str]]:
    """Return a run's predictions for picture files, read as its training pictures were.

    Returns:
        class names; float32 probabilities N×C of the readable files, in order; and for each
        unreadable file its position and what was wrong.
    """
    data = run.record["data"]
    device, _ = choose_device()
    network = load_network(run, device)
    images, failures = _read(run, paths)
    probabilities = np.zeros((len(images), len(data["classes"])), np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size].to(device)
            logits = network(normalise(part, data["mean"], data["std"]))
            probabilities[start : start + batch_size] = logits.softmax(1).cpu().numpy()
    return tuple(data["classes"]), probabilities, failures


def write_maps(run: Run, paths: Sequence[Path], folder: Path) -> str:
    """Write each picture as the network saw it, beside the map for the class that it predicts.

    The map is the one shown first (`utils.explain.gradcam.first_choice`). The files are PNGs, named
    after the pictures and numbered in their order; what stands in the folder under another name
    stays.

    Args:
        run: a trained run.
        paths: pictures; those that cannot be read are passed over.
        folder: where to write; it is made where it is missing.

    Returns:
        how many maps were written, and which, as a sentence.
    """
    device, _ = choose_device()
    network = load_network(run, device)
    images, failures = _read(run, paths)
    data, readable = run.record["data"], [p for n, p in enumerate(paths) if n not in failures]
    pixels = normalise(images.to(device), data["mean"], data["std"])
    method, block = first_choice(network)
    maps = class_activation_maps(network, pixels, None, method, block, progress=True)
    folder.mkdir(parents=True, exist_ok=True)
    for number, (path, image, found) in enumerate(zip(readable, images, maps, strict=True), 1):
        pair = np.concatenate([channels_last(image.numpy()), overlay(image.numpy(), found)], axis=1)
        larger = pair.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
        with replacing(folder / f"{number:04}_{path.stem}.png") as beside:
            Image.fromarray(larger).save(beside, format="PNG")
    return f"{counted(len(readable), 'map')} by {method} at {block}: {folder}"


def _read(run: Run, paths: Sequence[Path]) -> tuple[torch.Tensor, dict[int, str]]:
    """Return the readable pictures, uint8 N×3×S×S, and what is wrong with the others, by place."""
    bits = run.record["data"].get("bits", 16)
    files = [str(path) for path in paths]
    decoded = read_pictures(files, run.settings["image_size"], "Reading", bits)
    readable = [place for place in range(len(paths)) if place not in decoded.failures]
    return torch.from_numpy(decoded.images[readable]), decoded.failures
