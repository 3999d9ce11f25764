"""A run's network to take away: an ONNX file with its map inside, the classes and a model card."""

import copy
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch

from utils import InputError, as_markdown, counted, first_line
from utils.data.augment import normalise
from utils.data.picture_set import PictureSet, spread
from utils.data.sources import pictures_of
from utils.explain.exported import (
    BATCH_SIZE,
    CARD,
    LABELS,
    LOGITS,
    MAP,
    MODEL,
    PIXELS,
    Description,
    ExportedModel,
    check_libraries,
)
from utils.explain.gradcam import class_activation_maps, first_choice
from utils.explain.map_in_graph import NetworkWithMap
from utils.explain.promise import kept_thresholds
from utils.files import replacing_folder, write_text
from utils.intervals import share_in_words
from utils.models.convolution import plain_convolutions
from utils.models.network import Network
from utils.models.registry import MODELS
from utils.progress import progress_bar
from utils.runs import EXPORTED, MEASURED, Run
from utils.training.trained import load_network

#: The version of ONNX's operators that is written: that of torch's exporter, which translates none
#: of them then. ONNX Runtime reads it since 1.14 (2023).
OPSET = 18
#: How far ONNX Runtime may be from PyTorch: at any logit, and at any pixel of a map.
LOGITS_WITHIN, MAPS_WITHIN = 1e-4, 1e-3
#: The share of maps that may be further away.
MOST_BEYOND = 0.01
#: What each method multiplies a block's output with.
FACTORS = {
    "gradcam": "the mean over each channel of the gradient",
    "hirescam": "the gradient",
    "layercam": "what is positive in the gradient",
}


@dataclass(frozen=True)
class Agreement:
    """How far ONNX Runtime is from PyTorch on the same pictures.

    Attributes:
        logits, maps: float, N each: a picture's largest difference at any class, and any pixel.
        doubtful: for how many pictures PyTorch has two maps, of which the nearer counts. Where a
            ReLU's input is zero but for rounding, or two values under a maximum are the same, the
            gradient may be one or another, and convolutions computed in another way round apart.
    """

    logits: np.ndarray
    maps: np.ndarray
    doubtful: int

    def in_words(self) -> str:
        """Return the largest differences, on how many pictures, and what is in doubt."""
        beyond = int((self.maps > MAPS_WITHIN).sum())
        told = (
            f"On {counted(len(self.logits), 'test picture')} the logits that ONNX Runtime gives "
            f"are within {self.logits.max():.1e} of PyTorch's, and the maps within "
            f"{self.maps.max():.1e} (median {np.median(self.maps):.0e}, {beyond} beyond "
            f"{MAPS_WITHIN:g})."
        )
        if self.doubtful:
            told += (
                f" For {self.doubtful} of them PyTorch itself has two maps, by how pictures lie in "
                "memory, since rounding decides at a ReLU or under a maximum: the nearer counts."
            )
        return told


def export_run(
    run: Run,
    folder: Path | None = None,
    method: str | None = None,
    block: str | None = None,
    check: int = 1000,
    data_dir: str | None = None,
    dataset: str | None = None,
) -> str:
    """Write a run's network as ``model.onnx``, ``labels.json`` and a model card, ``README.md``.

    Args:
        run: trained.
        folder: where to; None writes into the run's own ``export/``. An earlier export there is
            replaced.
        method, block: of the map, as `utils.explain.map_in_graph.NetworkWithMap` takes them.
        check: on how many test pictures ONNX Runtime is compared with PyTorch; 0: on none.
        data_dir: where the run's data are kept now; None means where they were.
        dataset: what it was trained on, where that lies now; None means where it lay.

    Returns:
        what was written, as lines of text.

    Raises:
        InputError: a library is missing, the map cannot be exported, the folder holds other files,
            the pictures are gone or have changed, or the two do not agree.
    """
    check_libraries("onnx", "onnxscript", "onnxruntime")
    target = run.path(EXPORTED) if folder is None else folder
    _check_free(target)
    network, data = load_network(run), run.record["data"]
    asked = first_choice(network, method, block, drawn=data["name"] == "shapes")
    with_map = NetworkWithMap(network, data["mean"], data["std"], *asked)
    pictures = _pictures(run, data_dir, dataset) if check else None
    description = _describe(run, with_map)
    with replacing_folder(target) as beside:
        content = as_onnx(with_map, run.settings["image_size"], description)
        (beside / MODEL).write_bytes(content)
        agreement = None
        if pictures is not None:
            agreement = compare(beside / MODEL, network, pictures, check)
            _check_agreement(agreement)
        classes = json.dumps(description.classes, indent=1, ensure_ascii=False)
        write_text(beside / LABELS, classes + "\n")
        write_text(beside / CARD, model_card(run, description, agreement))
    side = run.settings["image_size"]
    lines = [
        f"{MODEL}: {len(content) / 1e6:,.1f} MB, ONNX opset {OPSET}. It takes {PIXELS} (uint8, "
        f"N×3×{side}×{side}) and gives {LOGITS} and {MAP} ({with_map.method} at {with_map.block}).",
        f"{LABELS}: the {len(description.classes)} classes. {CARD}: the model card.",
        *([] if agreement is None else [agreement.in_words()]),
        f"Exported: {target}",
    ]
    return "\n".join(lines)


def _check_free(folder: Path) -> None:
    """Refuse a folder that an export would replace and that holds something else."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is no folder. Choose another place to export to.")
    inside = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := sorted(inside - {MODEL, LABELS, CARD}):
        raise InputError(
            f"{folder} holds other files than an export ({others[0]}), and would be replaced. "
            "Choose a folder that is new, empty, or an earlier export."
        )


def _pictures(run: Run, data_dir: str | None, dataset: str | None) -> PictureSet:
    try:
        return pictures_of(run, data_dir, dataset)
    except InputError as error:
        raise InputError(f"{error} Or export without a comparison: --check 0.") from error


def _describe(run: Run, with_map: NetworkWithMap) -> Description:
    data, has_sets = run.record["data"], "prediction_sets" in run.read_json("metrics.json")
    return Description(
        classes=tuple(data["classes"]),
        bits=data.get("bits", 16),
        method=with_map.method,
        block=with_map.block,
        thresholds=tuple(kept_thresholds(run).tolist()) if has_sets else (),
    )


# The ONNX file


def as_onnx(with_map: NetworkWithMap, image_size: int, description: Description) -> bytes:
    """Return the ONNX file of a network with its map.

    Its one input is ``pixels`` (uint8, N×3×S×S, RGB, any N), its outputs are ``logits`` (float32,
    N×C) and ``map`` (float32 in [0, 1], N×S×S). Names of modules and paths of this machine, which
    the exporter notes at every operation, are left out.

    Args:
        with_map: the network.
        image_size: S, in pixels.
        description: goes into the file's metadata.
    """
    import onnx

    two = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)  # one would be fixed
    program: Any = torch.onnx.export(
        with_map,
        (two,),
        input_names=[PIXELS],
        output_names=[LOGITS, MAP],
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    _strip(model)
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.helper.set_model_props(model, description.as_metadata())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _strip(model) -> None:
    """Remove from an ONNX model what is no part of its computation."""
    graph = model.graph
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


# Whether it is right


def compare(file: Path, network: Network, pictures: PictureSet, count: int) -> Agreement:
    """Compare an exported network with the one it came from, on test pictures.

    Args:
        file: the ONNX file.
        network: float32, on the CPU, in evaluation mode.
        pictures: what it was trained on.
        count: on how many; all test pictures where there are fewer.
    """
    exported, images = ExportedModel(file), spread(pictures.test, count).images
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    plain_convolutions(plain)
    logits, maps, doubtful = [], [], 0
    for part in progress_bar(images.split(BATCH_SIZE), description="Comparing", unit="batches"):
        pixels = normalise(part, pictures.mean, pictures.std)
        found, found_maps = exported.logits_and_maps(part.numpy())
        with torch.inference_mode():
            logits.append(np.abs(found - network(pixels).numpy()).max(axis=1))
        away = _away(found_maps, network, pixels, exported)
        if (unlike := away > MAPS_WITHIN).any():
            few = pixels[torch.from_numpy(unlike)].contiguous()
            nearer = _away(found_maps[unlike], plain, few, exported)
            doubtful += int((nearer < away[unlike]).sum())
            away[unlike] = np.minimum(away[unlike], nearer)
        maps.append(away)
    return Agreement(np.concatenate(logits), np.concatenate(maps), doubtful)


def _away(
    maps: np.ndarray, network: Network, pixels: torch.Tensor, exported: ExportedModel
) -> np.ndarray:
    """Return how far exported maps are from a network's own, at any pixel: float32, N."""
    own = class_activation_maps(network, pixels, None, exported.method, exported.block)
    return np.abs(maps - own).max(axis=(1, 2))


def _check_agreement(agreement: Agreement) -> None:
    beyond = (agreement.maps > MAPS_WITHIN).mean()
    if agreement.logits.max() > LOGITS_WITHIN or beyond > MOST_BEYOND:
        raise InputError(
            f"Nothing was exported, since ONNX Runtime and PyTorch do not agree. "
            f"{agreement.in_words()} Try other versions of torch, onnxscript and onnxruntime."
        )


# The model card


def model_card(run: Run, description: Description, agreement: Agreement | None) -> str:
    """Return the model card of an exported run, as Markdown.

    Args:
        run: trained.
        description: of the exported network.
        agreement: with PyTorch; None where that was not looked at.
    """
    settings, data, metrics = run.settings, run.record["data"], run.read_json("metrics.json")
    right, size = round(metrics["test_acc"] * metrics["test_size"]), metrics["test_size"]
    watched = (
        "They were also watched after every epoch; the program chose nothing by them."
        if data["watched"] == "test"
        else "They were not looked at before training was over."
    )
    return _CARD.substitute(
        run=as_markdown(run.name),
        network=MODELS[settings["model"]].__name__,
        parameters=f"{run.record['model']['parameters']:,}",
        recipe=as_markdown(settings["recipe"]),
        epochs=counted(settings["epochs"], "epoch"),
        seed=settings["seed"],
        pictures=as_markdown(data["title"]),
        train_size=f"{data['train_size']:,}",
        count=len(description.classes),
        classes=", ".join(f"{n} {as_markdown(c)}" for n, c in enumerate(description.classes)),
        notes="".join(f"- {as_markdown(note)}\n" for note in data["notes"]),
        accuracy=share_in_words(right, size, 2),
        test_size=f"{size:,}",
        watched=watched,
        side=settings["image_size"],
        opset=OPSET,
        agreement="" if agreement is None else f"\n{agreement.in_words()}\n",
        method=description.method,
        block=description.block,
        factor=FACTORS[description.method],
        worth=_worth(run, description),
        model=MODEL,
        labels=LABELS,
        pixels=PIXELS,
        logits=LOGITS,
        map=MAP,
    )


def _worth(run: Run, description: Description) -> str:
    """Return what was measured of this map of this run, as Markdown, or that nothing was."""
    name = f"{MEASURED}/{run.name}.csv"
    if not run.has(name):
        return (
            "What this map is worth has not been measured for this network: `python -m utils trust "
            f"--run {run.name}` measures it. What such maps were worth for the project's own "
            "networks stands in its `docs/trust.md`. Until then, take it for a hint."
        )
    try:
        rows = list(csv.DictReader(io.StringIO(run.path(name).read_text(encoding="utf-8"))))
        map_ = description.method, description.block
        lines = [
            f"| {as_markdown(row['measure'])} | {float(row['mean']):.2f} | "
            f"{float(row['low']):.2f} to {float(row['high']):.2f} | {int(row['n']):,} |"
            for row in rows
            if (row["method"], row["block"]) == map_
        ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{run.path(name)} is damaged ({first_line(error)}). Delete it, or measure again: "
            f"python -m utils trust --run {run.name}"
        ) from error
    if not lines:
        return "What this map is worth has not been measured; of other maps of this run, it has."
    head = [
        "Measured on test pictures that the network gets right (`python -m utils trust`; what is "
        "asked stands in the project's `docs/trust.md`). More is better, except for class and "
        "weights, where 0.5 passes and 1 means unrelated:",
        "",
        "| measure | mean | 95 % interval | n |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *lines])


_CARD = Template(
    """# $run: $count classes, with a map of where it looked

`$model` tells pictures of $count classes apart and says where in the picture it found the class
that it names. It is a $network ($parameters parameters), trained with recipe `$recipe` for $epochs
from seed $seed.

## What it was trained on

$train_size training pictures of $side × $side pixels: $pictures.
$notes
Classes, in the order of the logits (also in `$labels`): $classes.

## How often it is right

$accuracy of $test_size test pictures, one view each, in float32; one training. $watched That says
nothing about pictures of another kind, by another camera or from another place.

## What goes in and what comes out

| | | |
| --- | --- | --- |
| in | `$pixels` | uint8, N×3×$side×$side: red, green and blue, 0 to 255, not normalised |
| out | `$logits` | float32, N×$count; their softmax is how sure the network is of each class |
| out | `$map` | float32 from 0 to 1, N×$side×$side, for the class with the largest logit |

ONNX, opset $opset; N is any number. A picture is turned upright and laid on white where it is
transparent, its shorter side is resized to $side pixels (bicubic), and its middle cropped. These
lines do so with pictures of 8 bits. Greyscale of more would come out white; the command below
scales it:

```python
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

picture = Image.open("picture.png")
picture.draft("RGB", (2 * $side, 2 * $side))  # has a large JPEG decoded smaller
picture = ImageOps.exif_transpose(picture).convert("RGBA")
white = Image.new("RGBA", picture.size, "white")
picture = Image.alpha_composite(white, picture).convert("RGB")
picture = ImageOps.fit(picture, ($side, $side), Image.Resampling.BICUBIC)
pixels = np.asarray(picture).transpose(2, 0, 1)[None]
network = onnxruntime.InferenceSession("$model")
logits, maps = network.run(["$logits", "$map"], {"$pixels": pixels})
print(json.loads(Path("$labels").read_text("utf-8"))[logits[0].argmax()])
```

Or, with the project and without torch: `python -m utils predict --model FOLDER picture.png`.
$agreement
## What the map is

A class activation map by the method `$method` at the network's block `$block`: $factor of the
predicted class's logit, times the block's output, added up over the channels. What is negative is
cut off, and each map is scaled to its own maximum and enlarged. So it shows where, not how much and
not why, and two maps cannot be compared in strength.

$worth

## What it must not be used for

- Decisions about people, or anything where a wrong answer does harm. Nobody has tested it for that.
- Pictures of anything else: it answers with one of its $count classes whatever it is shown, and may
  be sure of it.
- The map as a proof of why: a map on the right place does not show that the network is right, nor
  that it uses what a person sees there.

## Licence

The project's code is under the MIT licence. The weights were made from the pictures named above:
what their licence, and the people in them, do not allow, it does not allow for the weights either.
"""
)
