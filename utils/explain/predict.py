"""Classify picture files with a trained run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils import InputError
from utils.data.augment import normalise
from utils.data.folders import files_below
from utils.data.pictures import EXTENSIONS, read_pictures
from utils.devices import choose_device
from utils.runs import Run
from utils.training.trained import load_network


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
    decoded = read_pictures(
        [str(p) for p in paths], run.settings["image_size"], "Reading", data.get("bits", 16)
    )
    readable = [position for position in range(len(paths)) if position not in decoded.failures]
    probabilities = np.zeros((len(readable), len(data["classes"])), np.float32)
    with torch.inference_mode():
        for start in range(0, len(readable), batch_size):
            part = torch.from_numpy(decoded.images[readable[start : start + batch_size]]).to(device)
            logits = network(normalise(part, data["mean"], data["std"]))
            probabilities[start : start + batch_size] = logits.softmax(1).cpu().numpy()
    return tuple(data["classes"]), probabilities, decoded.failures
