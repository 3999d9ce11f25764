"""The Space: a folder with the page, a run's network and pictures, ready to be uploaded.

A run's folder may come from anywhere, and ``space/`` in it. So what is started or uploaded is
looked at first: the page must be this repository's own, the rest what the run says, and whatever
else lies there stays there.
"""

import filecmp
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
from PIL import Image

from utils import InputError, as_markdown, as_percent, brief, check_choice, first_line
from utils.data.picture_set import PictureSet
from utils.data.sources import pictures_of
from utils.explain.mistakes import misclassified
from utils.explain.portable import DESCRIPTION, WEIGHTS, BundledPicture
from utils.files import ROOT, brief_path, replacing_folder, write_text
from utils.models.registry import MODELS
from utils.runs import Run
from utils.training.predictions import Predictions, predict_test
from utils.training.trained import load_network

SOURCE = ROOT / "space"
#: The modules that the page uses, below ``utils/``.
MODULES = (
    "__init__.py", "data/__init__.py", "data/augment.py", "data/augmentation.py",
    "data/copies.py", "data/mapped.py", "data/metadata.py", "data/picture_set.py",
    "data/pictures.py", "data/views.py", "explain/__init__.py", "explain/gradcam.py",
    "explain/portable.py", "explain/prediction_sets.py", "models/__init__.py",
    "models/backbones.py", "models/convolution.py", "models/davidnet.py", "models/network.py",
    "models/registry.py", "models/speednet.py", "models/weights.py", "models/winograd.py",
    "plots/__init__.py", "plots/gradcam.py", "plots/style.py", "progress.py",
)  # fmt: skip
MOST_EXAMPLES, MOST_MISTAKES, MOST_MISTAKES_OF_A_CLASS = 10, 500, 25
#: Names that are listed of what is left out.
MOST_NAMES = 5
#: What the page is told of its pictures.
_PICTURES = {"examples", "mistakes", "wrong"}
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def build_space(run: Run, data_dir: str | None = None, dataset: str | None = None) -> Path:
    """Write ``space/`` into a run's folder, complete and ready to be uploaded.

    It holds the page, its modules, the weights, and pictures of the test split: the first of each
    class, at most ``MOST_EXAMPLES``, and of each class the ``MOST_MISTAKES_OF_A_CLASS`` most
    confident mistakes; of these the most confident, at most ``MOST_MISTAKES``.

    Args:
        run: complete.
        data_dir: where its data are kept now; None means where they were.
        dataset: what it was trained on, where that lies now; None means where it lay.

    Returns:
        the folder.

    Raises:
        InputError: the run is missing or not complete, its weights are damaged, or its pictures
            are gone or have changed.
    """
    _check_complete(run)
    load_network(run)  # says so now, not on the page, where its weights are not the run's own
    pictures = pictures_of(run, data_dir, dataset)
    predictions = predict_test(run, pictures)
    with replacing_folder(run.path("space")) as folder:
        _copy_page(folder)
        shutil.copyfile(run.existing("model.safetensors"), folder / WEIGHTS)
        about = _about(run) | _save_pictures(folder, pictures, predictions)
        write_text(folder / DESCRIPTION, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        write_text(folder / "README.md", _readme(about))
    return run.path("space")


def _check_complete(run: Run) -> None:
    if run.status != "complete" or not run.settings:
        what = "is not complete" if run.record else "does not exist"
        raise InputError(
            f"Run {run.name!r} {what} in {brief_path(run.folder.parent)}. Train it first: "
            "python -m utils run, with this run name."
        )


def _own_files() -> dict[str, Path]:
    """Return the page's files and modules by their names in a built folder."""
    pages = {path.name: path for path in SOURCE.iterdir() if path.is_file()}
    del pages["README.md"]  # the template of another
    return pages | {f"utils/{name}": ROOT / "utils" / name for name in MODULES}


def _copy_page(folder: Path) -> None:
    for name, path in _own_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)


def _about(run: Run) -> dict:
    """Return what the page has to know of a run."""
    settings, data, metrics = run.settings, run.record["data"], run.read_json("metrics.json")
    check_choice("model", settings["model"], MODELS)
    return {
        "network": MODELS[settings["model"]].__name__,
        "model": settings["model"],
        "parameters": run.record["model"]["parameters"],
        "sha256": run.record["model"].get("sha256"),
        "recipe": settings["recipe"],
        "epochs": settings["epochs"],
        "title": data["title"],
        "classes": data["classes"],
        "image_size": settings["image_size"],
        "bits": data.get("bits", 16),
        "drawn": data["name"] == "shapes",
        "mean": data["mean"],
        "std": data["std"],
        "test_acc": metrics["test_acc"],
        "test_size": metrics["test_size"],
        "thresholds": metrics.get("prediction_sets", {}).get("thresholds"),
    }


def _save_pictures(folder: Path, pictures: PictureSet, predictions: Predictions) -> dict:
    """Write example pictures and mistakes, and return what the page has to know of them."""
    wrong = misclassified(predictions)
    wrong_of_class = np.bincount(predictions.target[wrong], minlength=len(pictures.classes))
    _, first = np.unique(predictions.target, return_index=True)
    chosen = {
        "examples": first[:MOST_EXAMPLES],
        "mistakes": _chosen_mistakes(wrong, predictions.target),
    }
    described = {"wrong": wrong_of_class.tolist()}
    images, probabilities = pictures.test.images, predictions.confidence
    for kind, positions in chosen.items():
        (folder / kind).mkdir()
        described[kind] = []
        for number, position in enumerate(positions.tolist(), 1):
            name = f"{kind}/{number:03}.png"
            (folder / name).write_bytes(_as_png(images[position].permute(1, 2, 0).numpy()))
            described[kind].append(
                vars(
                    BundledPicture(
                        name,
                        int(predictions.target[position]),
                        int(predictions.predicted[position]),
                        round(float(probabilities[position]), 4),
                    )
                )
            )
    return described


def _as_png(pixels: np.ndarray) -> bytes:
    made = BytesIO()
    Image.fromarray(pixels).save(made, "PNG")
    return made.getvalue()


def _chosen_mistakes(wrong: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the first mistakes of each class, in their order."""
    before = pd.Series(target[wrong]).groupby(target[wrong]).cumcount().to_numpy()
    return wrong[before < MOST_MISTAKES_OF_A_CLASS][:MOST_MISTAKES]


def _readme(about: dict) -> str:
    versions = dict(re.findall(r"^(\S+)==(\S+)$", (SOURCE / "requirements.txt").read_text(), re.M))
    return Template((SOURCE / "README.md").read_text("utf-8")).substitute(
        title=f"What {about['network']} sees",
        gradio=versions["gradio"],
        network=about["network"],
        parameters=f"{about['parameters']:,}",
        recipe=about["recipe"],
        pictures=as_markdown(about["title"]),
        side=about["image_size"],
        count=len(about["classes"]),
        accuracy=as_percent(about["test_acc"], 2),
        test_size=f"{about['test_size']:,}",
        examples=len(about["examples"]),
        mistakes=len(about["mistakes"]),
        wrong=f"{sum(about['wrong']):,}",
    )


def built_space(run: Run) -> Path:
    """Return the folder that `build_space` wrote for a run, and that is still as it wrote it.

    Raises:
        InputError: there is none; or something in it was added as a link, or is not what this
            version builds.
    """
    folder, build = run.path("space"), f"python -m utils space build --run {run.name}"
    if not (folder / DESCRIPTION).is_file():
        raise InputError(f"Run {run.name!r} has no Space yet. Build it first: {build}")
    _check_complete(run)
    if changed := _changed(run, folder):
        raise InputError(
            f"{brief_path(folder / changed)} is not what this version builds of run {run.name!r}, "
            f"so it is neither started nor uploaded. Build the Space again: {build}"
        )
    return folder


def _changed(run: Run, folder: Path) -> str | None:
    """Return the first file of a built folder that is not as `build_space` wrote it, if any."""
    there = _names_in(folder)
    if odd := [name for name, is_file in there.items() if not is_file]:
        return odd[0]
    about = run.read_json(f"space/{DESCRIPTION}")
    if about != about | _about(run) or about.keys() - _about(run).keys() != _PICTURES:
        return DESCRIPTION
    names = _names_of(about)
    return next((n for n in names if n not in there or not _as_built(folder, n, about)), None)


def _as_built(folder: Path, name: str, about: dict) -> bool:
    """Tell whether a file says what `build_space` writes, given what the page is told."""
    path, own = folder / name, _own_files()
    if name in own:
        return filecmp.cmp(path, own[name], shallow=False)
    if name == "README.md":
        return path.read_text("utf-8", errors="replace") == _readme(about)
    if name == WEIGHTS:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == about["sha256"]
    return name == DESCRIPTION or _is_picture(path, about["image_size"])


def _names_in(folder: Path) -> dict[str, bool]:
    """Return what lies in a folder and below, by name: whether it is a file, and no link to one."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if name in files or path.is_symlink():
                regular = path.is_file() and not path.is_symlink()
                found[path.relative_to(folder).as_posix()] = regular
    return found


def _names_of(about: dict) -> list[str]:
    """Return the names of all files that `build_space` writes, given what the page is told."""
    pictures = [picture["file"] for kind in ("examples", "mistakes") for picture in about[kind]]
    return [DESCRIPTION, WEIGHTS, "README.md", *_own_files(), *pictures]


def _is_picture(path: Path, side: int) -> bool:
    """Tell whether a file is a picture of this size as `_as_png` writes it."""
    if path.stat().st_size > 4 * side**2 + 4_096:  # more than its pixels can take
        return False
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content), formats=("PNG",)) as picture:
            return picture.size == (side, side) and _as_png(np.asarray(picture)) == content
    except Exception:  # damage can make a decoder raise nearly anything
        return False


def files_of_space(folder: Path) -> list[str]:
    """Return the names of the files that make up a built folder, from it on."""
    return _names_of(json.loads((folder / DESCRIPTION).read_text("utf-8")))


def describe_space(folder: Path) -> str:
    """Return the files of a built folder with their sizes, as lines of text, and what is not."""
    names = sorted(files_of_space(folder))
    sizes = {name: (folder / name).stat().st_size for name in names}
    lines = [
        f"{size / 1e3:9,.1f} kB  {name}"
        for name, size in sizes.items()
        if not name.startswith(("examples/", "mistakes/"))
    ]
    for kind in ("examples", "mistakes"):
        inside = [size for name, size in sizes.items() if name.startswith(f"{kind}/")]
        lines.append(f"{sum(inside) / 1e3:9,.1f} kB  {kind}/, {len(inside)} pictures")
    lines.append(f"{sum(sizes.values()) / 1e6:9,.1f} MB  in all")
    if others := sorted(_names_in(folder).keys() - set(names)):
        more = ", …" if len(others) > MOST_NAMES else ""
        listed = ", ".join(others[:MOST_NAMES])
        lines.append(f"left out, as not part of it ({len(others)}): {listed}{more}")
    return "\n".join(lines)


@contextmanager
def clean_copy(folder: Path) -> Generator[Path]:
    """Yield a copy of a built folder without anything that was added: Python would import it."""
    with tempfile.TemporaryDirectory(prefix="space-") as copy:
        for name in files_of_space(folder):
            Path(copy, name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, Path(copy, name))
        yield Path(copy)


def push_space(folder: Path, repository: str) -> str:
    """Upload a built folder as a Space; who is logged in with `huggingface_hub` must own it.

    Args:
        folder: what `build_space` wrote, as `built_space` returns it; nothing else that lies in
            it is uploaded.
        repository: OWNER/NAME.

    Returns:
        the Space's address.

    Raises:
        InputError: the name is not valid, or the upload fails.
    """
    check_repository(repository)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, repo_type="space", space_sdk="gradio", exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type="space",
            commit_message="Built from a run",
            allow_patterns=files_of_space(folder),
            delete_patterns=["*"],
        )
    except Exception as error:  # no network, no login, no right: the library has one for each
        raise InputError(
            f"{repository} could not be uploaded ({first_line(error)}). Check the network, and log "
            "in once: hf auth login."
        ) from error
    return f"https://huggingface.co/spaces/{repository}"


def check_repository(repository: str) -> None:
    """Refuse what is not the name of a Space.

    Raises:
        InputError: naming it.
    """
    if not REPOSITORY.fullmatch(repository):
        raise InputError(f"--repo is {brief(repository)}; it must be OWNER/NAME.")
