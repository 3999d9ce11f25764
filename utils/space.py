"""The Space: a folder with the page, a run's network and pictures, ready to be uploaded."""

import json
import re
import shutil
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd
from PIL import Image

from utils import InputError, first_line, shown
from utils.bundle import DESCRIPTION, WEIGHTS, BundledPicture
from utils.data import PictureSet, pictures_of
from utils.errors import Predictions, misclassified, predict_test
from utils.models import MODELS
from utils.runs import ROOT, Run, replacing_folder, shown_path, write_text
from utils.training import load_network

SOURCE = ROOT / "space"
#: The modules that the page uses, below ``utils/``.
MODULES = (
    "__init__.py", "augment.py", "bundle.py", "gradcam.py", "models/__init__.py",
    "models/convolution.py", "models/davidnet.py", "models/sizes.py", "models/speednet.py",
    "pictures.py",
    "plots/__init__.py", "plots/gradcam.py", "plots/style.py", "progress.py", "weights.py",
)  # fmt: skip
MOST_EXAMPLES, MOST_MISTAKES, MOST_MISTAKES_OF_A_CLASS = 10, 500, 25
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
    if run.status != "complete":
        what = "is not complete" if run.record else "does not exist"
        raise InputError(
            f"Run {run.name!r} {what} in {shown_path(run.folder.parent)}. Train it first: "
            "python -m utils run, with this run name."
        )
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


def _copy_page(folder: Path) -> None:
    for path in SOURCE.iterdir():
        if path.is_file() and path.name != "README.md":
            shutil.copyfile(path, folder / path.name)
    for name in MODULES:
        (folder / "utils" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "utils" / name, folder / "utils" / name)


def _about(run: Run) -> dict:
    """Return what the page has to know of a run."""
    settings, data, metrics = run.settings, run.record["data"], run.read_json("metrics.json")
    return {
        "network": MODELS[settings["model"]].__name__,
        "model": settings["model"],
        "parameters": run.record["model"]["parameters"],
        "sha256": run.record["model"]["sha256"],
        "recipe": settings["recipe"],
        "epochs": settings["epochs"],
        "title": data["title"],
        "classes": data["classes"],
        "image_size": settings["image_size"],
        "mean": data["mean"],
        "std": data["std"],
        "test_acc": metrics["test_acc"],
        "test_size": metrics["test_size"],
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
            Image.fromarray(images[position].permute(1, 2, 0).numpy()).save(folder / name)
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
        pictures=about["title"],
        side=about["image_size"],
        count=len(about["classes"]),
        accuracy=f"{about['test_acc']:.2%}",
        test_size=f"{about['test_size']:,}",
        examples=len(about["examples"]),
        mistakes=len(about["mistakes"]),
        wrong=f"{sum(about['wrong']):,}",
    )


def built_space(run: Run) -> Path:
    """Return the folder that `build_space` wrote for a run.

    Raises:
        InputError: there is none.
    """
    folder = run.path("space")
    if not (folder / DESCRIPTION).is_file():
        raise InputError(
            f"Run {run.name!r} has no Space yet. Build it first: "
            f"python -m utils space build --run {run.name}"
        )
    return folder


def describe_space(folder: Path) -> str:
    """Return the files of a built folder with their sizes, as lines of text."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    lines = [
        f"{size / 1e3:9,.1f} kB  {path.relative_to(folder)}"
        for path, size in zip(files, sizes, strict=True)
        if path.parent.name not in ("examples", "mistakes")
    ]
    for kind in ("examples", "mistakes"):
        inside = [s for p, s in zip(files, sizes, strict=True) if p.parent.name == kind]
        lines.append(f"{sum(inside) / 1e3:9,.1f} kB  {kind}/, {len(inside)} pictures")
    return "\n".join((*lines, f"{sum(sizes) / 1e6:9,.1f} MB  in all"))


def push_space(folder: Path, repository: str) -> str:
    """Upload a built folder as a Space; who is logged in with `huggingface_hub` must own it.

    Args:
        folder: what `build_space` wrote.
        repository: OWNER/NAME.

    Returns:
        the Space's address.

    Raises:
        InputError: the name is none, or the upload fails.
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
            delete_patterns=["*"],
        )
    except Exception as error:  # no network, no login, no right: the library has one for each
        raise InputError(
            f"{repository} could not be uploaded ({first_line(error)}). Check the network, and log "
            "in once: hf auth login."
        ) from error
    return f"https://huggingface.co/spaces/{repository}"


def check_repository(repository: str) -> None:
    """Refuse what is no name of a Space.

    Raises:
        InputError: naming it.
    """
    if not REPOSITORY.fullmatch(repository):
        raise InputError(f"--repo is {shown(repository)}; it must be OWNER/NAME.")
