"""Class activation maps, over the `grad-cam` package: batched, cheap, and without side effects.

A copy of the network over the same weights does the work, so the network that was passed in stays
exactly as it was. In the copy all parameters are frozen and the gradient begins at the shallowest
block asked for, so nothing below it is differentiated.
"""

import copy
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytorch_grad_cam as grad_cam
import torch
from pytorch_grad_cam import ablation_cam, eigen_cam, eigen_grad_cam, score_cam
from pytorch_grad_cam.ablation_layer import AblationLayer
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from utils import InputError, as_percent, check_choice, counted
from utils.models.davidnet import DavidNet
from utils.models.network import Network
from utils.models.registry import check_block
from utils.models.speednet import SpeedNet
from utils.progress import progress_bar

#: The methods, by the name that parameters use.
METHODS: dict[str, type[BaseCAM]] = {
    "gradcam": grad_cam.GradCAM,
    "gradcam++": grad_cam.GradCAMPlusPlus,
    "hirescam": grad_cam.HiResCAM,
    "layercam": grad_cam.LayerCAM,
    "xgradcam": grad_cam.XGradCAM,
    "eigencam": grad_cam.EigenCAM,
    "scorecam": grad_cam.ScoreCAM,
    "ablationcam": grad_cam.AblationCAM,
}
#: Further methods of the package that are measured beside these, and not offered. Not among them:
#: GradCAMElementWise, which is LayerCAM where no channel is negative; ShapleyCAM, which needs
#: second derivatives down to the picture (for ReLUs and maxima they are 0, and it is Grad-CAM);
#: FinerCAM, which is Grad-CAM of another score; FullGrad, which has no block; KPCA-CAM, which takes
#: minutes for a hundred pictures; and SegEigenCAM, which is Eigen-CAM cut to segments.
OTHER_METHODS: dict[str, type[BaseCAM]] = {
    "eigengradcam": grad_cam.EigenGradCAM,
    "fem": grad_cam.FEM,
}
#: Which map of a network is shown first, by what `python -m utils trust` measured (docs/trust.md).
SHOWN_FIRST = {
    DavidNet: {"drawn shapes": ("hirescam", "layer1"), "photographs": ("hirescam", "layer2")},
    SpeedNet: {"drawn shapes": ("hirescam", "block2"), "photographs": ("gradcam", "block3")},
}
#: What each does, and what was measured of it (docs/trust.md). A layer's output is a stack of
#: channels, each a small picture.
METHOD_NOTES = {
    "gradcam": "Adds up a block's channels, each weighed by its mean gradient: the usual choice. "
    "Measured: coarse in the last block, and unsteady before it.",
    "gradcam++": "Weighs by positive gradients only; meant for several objects in one picture. "
    "Measured: in DavidNet nearly the same map for any class.",
    "hirescam": "Gradient times channel, point by point: in the last block, what each point added. "
    "Measured: worth most in DavidNet, before the last block; in SpeedNet on drawn shapes alone.",
    "layercam": "Positive gradients only, point by point; made for early layers. Measured: finds "
    "the object there; on drawn shapes with nearly the same map for any class.",
    "xgradcam": "Grad-CAM with weights scaled by how active a channel is. Measured: steadier than "
    "Grad-CAM before the last block.",
    "eigencam": "What most of the channels have in common; it does not look at the class at all, "
    "and its sign is arbitrary, so a map may come out inverted.",
    "scorecam": "No gradient: tries every channel as a mask, so it takes the longest. Measured, on "
    "few pictures: worth most in SpeedNet on photographs, and in DavidNet slow to follow weights.",
    "ablationcam": "No gradient: switches off every channel in turn, so it takes long. Measured, "
    "on few pictures: in DavidNet nearly the same map for any class.",
}
#: These make a forward pass for every channel of a block,
CHANNEL_METHODS = ("scorecam", "ablationcam")
#: so many of them at a time; fewer where somebody waits for the end of each pass.
CHANNELS_AT_ONCE, CHANNELS_IN_A_STEP = 128, 32
#: These do not look at the class: their maps are the same for every one.
CLASSLESS_METHODS = ("eigencam",)

for _module in (score_cam, ablation_cam):  # each opens a progress bar for every picture
    vars(_module)["tqdm"] = SimpleNamespace(tqdm=iter)


def first_component(channels: np.ndarray) -> np.ndarray:
    """Return each picture's points, projected on the first principal component of its channels.

    It stands in for the package's own, which also computes the components that nobody asks for:
    ten times as long at DavidNet's first and last blocks. The sign is as it falls out, in both.

    Args:
        channels: float, N×C×H×W.

    Returns:
        float32, N×H×W.
    """
    points = np.nan_to_num(channels.reshape(*channels.shape[:2], -1).transpose(0, 2, 1), nan=0.0)
    points = points - points.mean(axis=1, keepdims=True)
    components = np.linalg.svd(points, full_matrices=False).Vh[:, 0]
    projected = np.einsum("npc,nc->np", points, components)
    return projected.reshape(len(channels), *channels.shape[2:]).astype(np.float32)


for _module in (eigen_cam, eigen_grad_cam):
    vars(_module)["get_2d_projection"] = first_component


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises:
        InputError: with the names that are known.
    """
    if method not in OTHER_METHODS:
        check_choice("method", method, tuple(METHODS))


def first_choice(
    network: Network, method: str | None = None, block: str | None = None, *, drawn: bool = False
) -> tuple[str, str]:
    """Return the method and block whose map is shown first, unless they are chosen.

    Args:
        network: a network of the registry.
        method, block: None for what was measured to show best what this network used. For a
            network that was not measured it is HiResCAM at the last block, whose points add up to
            the score where a linear layer follows the largest value or the mean of each channel.
        drawn: whether it learned drawn shapes; else what was measured on photographs counts.

    Raises:
        InputError: a method or block that there is none of.
    """
    kind = "drawn shapes" if drawn else "photographs"
    measured = (chosen[kind] for of, chosen in SHOWN_FIRST.items() if isinstance(network, of))
    default = next(measured, ("hirescam", network.blocks[-1]))
    method, block = method or default[0], block or default[1]
    check_method(method)
    check_block(network, block)
    return method, block


def class_activation_maps(
    network: Network,
    images: Tensor,
    targets: Tensor | np.ndarray | Sequence[int] | None = None,
    method: str = "gradcam",
    blocks: str | Sequence[str] | None = None,
    batch_size: int = 128,
    progress: bool = False,
    before_pass: Callable[[], None] | None = None,
) -> np.ndarray:
    """Compute where in each picture a network finds evidence for a class.

    Each map is rectified and scaled to [0, 1] on its own, by the `grad-cam` package: maps show
    where, not how much, and two maps cannot be compared in strength.

    Args:
        network: a network of the registry; neither its mode, gradients nor weights change.
        images: float, N×3×S×S, normalised.
        targets: the class to explain for each picture, N; None explains the predicted class.
        method: one of ``METHODS``. EigenCAM looks at no class; ScoreCAM and AblationCAM make
            one forward pass for every channel of the block, which takes hundreds of times longer.
        blocks: a name of ``network.blocks``, or several; None takes the last.
        batch_size: pictures at once; memory does not grow with their number beyond the maps.
            ScoreCAM and AblationCAM take one at a time.
        progress: show a progress bar.
        before_pass: called before every forward pass, which are small then; what it raises ends
            the work.

    Returns:
        float32 N×S×S for one block (or None), N×B×S×S for several, in the order asked for.

    Raises:
        InputError: an unknown method or block, or targets that do not fit the pictures.
    """
    several = not (blocks is None or isinstance(blocks, str))
    names = [network.blocks[-1]] if blocks is None else list(blocks) if several else [blocks]
    options = batch_size, progress, before_pass
    maps = maps_by_method(network, images, targets, [method], names, *options)[method]
    return maps if several else maps[:, 0]


def maps_by_method(
    network: Network,
    images: Tensor,
    targets: Tensor | np.ndarray | Sequence[int] | None,
    methods: Sequence[str],
    blocks: Sequence[str],
    batch_size: int = 128,
    progress: bool = False,
    before_pass: Callable[[], None] | None = None,
) -> dict[str, np.ndarray]:
    """Compute maps by several methods, of which all but ScoreCAM and AblationCAM share one pass.

    Args:
        methods: names of ``METHODS``.
        blocks: names of ``network.blocks``.
        network, images, targets, batch_size, progress, before_pass: as `class_activation_maps`
            takes them.

    Returns:
        float32 N×B×S×S by method, the blocks in the order asked for.

    Raises:
        InputError: as `class_activation_maps` does.
    """
    for method in methods:
        check_method(method)
    for name in blocks:
        check_block(network, name)
    if targets is not None and len(targets) != len(images):
        raise InputError(f"There are {len(images)} pictures, but {len(targets)} targets.")
    shape = len(images), len(blocks), *images.shape[-2:]
    maps = {method: np.zeros(shape, np.float32) for method in methods}
    rounds = _rounds(methods, blocks, batch_size)
    with (
        torch.inference_mode(False),  # a caller may hold any of these three
        torch.enable_grad(),
        torch.autocast(images.device.type, enabled=False),
        _progress(progress, len(images) * len(rounds), methods) as advance,
    ):
        for together, group, size in rounds:
            columns = [blocks.index(name) for name in group]
            with _explainer(network, together, group, before_pass) as explainer:
                for start in range(0, len(images), size):
                    part = slice(start, start + size)
                    chosen = None if targets is None else _as_targets(targets[part])
                    for method, found in explainer(images[part].float(), chosen).items():
                        maps[method][part][:, columns] = found
                    advance(len(images[part]))
    return maps


def _rounds(
    methods: Sequence[str], blocks: Sequence[str], batch_size: int
) -> list[tuple[list[str], list[str], int]]:
    """Return which methods look at which blocks together, and at how many pictures at once."""
    sharing = [method for method in methods if method not in CHANNEL_METHODS]
    alone = [method for method in methods if method in CHANNEL_METHODS]
    together = [(sharing, list(blocks), batch_size)] if sharing else []
    # the package keeps the activations of every forward pass
    return together + [([method], [block], 1) for method in alone for block in blocks]


@contextmanager
def _progress(is_visible: bool, total: int, methods: Sequence[str]) -> Generator:
    if not is_visible:
        yield lambda count: None
        return
    what, unit = "Maps", "passes"
    if len(methods) == 1:
        what, unit = f"Maps by {methods[0]}", "maps"
    with progress_bar(description=what, total=total, unit=unit) as bar:
        yield bar.update


def _as_targets(targets: Tensor | np.ndarray | Sequence[int]) -> list[ClassifierOutputTarget]:
    return [ClassifierOutputTarget(int(target)) for target in targets]


@contextmanager
def _explainer(
    network: Network, methods: Sequence[str], names: list[str], before_pass=None
) -> Generator:
    """Yield a callable (images, targets) → N×B×S×S by method, in the order of `names`."""
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    copied = copy.deepcopy(network, shared).float().eval()  # modules of its own, the same weights
    if before_pass is not None:
        copied.register_forward_pre_hook(lambda *_: before_pass())
    # the package hands out activations in forward order, whatever order the blocks were asked in
    in_order = [block for block in network.blocks if block in names]
    layers = [copied.get_submodule(block) for block in in_order]
    handle = layers[0].register_forward_hook(_begin_gradient)
    channels = CHANNELS_AT_ONCE if before_pass is None else CHANNELS_IN_A_STEP
    cams = {method: _cam(method, copied, layers, channels) for method in methods}
    leading = max(cams, key=lambda method: cams[method].uses_gradients)
    leader = cams.pop(leading)  # whose pass serves the others, too
    for cam in cams.values():
        cam.activations_and_grads.release()
        cam.activations_and_grads = leader.activations_and_grads
    places = {in_order.index(name): network.lag(name) for name in names}

    def explain(images, targets):
        maps = {leading: leader(images, targets)}
        for method, cam in cams.items():
            per_layer = cam.compute_cam_per_layer(images, targets, False)
            maps[method] = cam.aggregate_multi_layers(per_layer)
        return {method: _in_place(each, places) for method, each in maps.items()}

    try:
        yield explain
    finally:
        handle.remove()
        leader.activations_and_grads.release()


def _in_place(maps: np.ndarray, places: dict[int, int]) -> np.ndarray:
    """Return some of the maps (float, N×B×S×S) where their cells look, by their places and lags."""
    looks = (moved_back(torch.from_numpy(maps[:, place]), lag) for place, lag in places.items())
    return np.stack([each.numpy() for each in looks], axis=1)


def _cam(method: str, network: Network, layers: list[nn.Module], channels: int) -> Any:
    """Return the package's object for a method; the package has no types."""
    options: Any = {"ablation_layer": AblationLayer()} if method == "ablationcam" else {}
    kind: Any = {**METHODS, **OTHER_METHODS}[method]
    cam = kind(network, layers, **options)
    cam.batch_size = channels
    cam.aggregate_multi_layers = lambda per_layer: np.concatenate(per_layer, axis=1)
    return cam


def _begin_gradient(module: nn.Module, inputs, output: Tensor) -> Tensor:
    return output.detach().requires_grad_(torch.is_grad_enabled())


def grad_cam(network: Network, images: Tensor, targets: Sequence[int], block: str) -> Tensor:
    """Grad-CAM by its definition (Selvaraju et al. 2017, equations 1 and 2), in plain torch.

    Args:
        network: in evaluation mode, where pictures do not influence each other.
        images: float, N×3×S×S, normalised; at least one.
        targets: the class to explain for each picture, N.
        block: whose channels are weighed.

    Returns:
        float, N×H×W, of the block's size, not negative.
    """
    kept = []
    layer = network.get_submodule(block)
    handle = layer.register_forward_hook(lambda layer, inputs, output: kept.append(output))
    scores = network(images)[range(len(images)), targets]
    handle.remove()
    channels = kept[0]
    (gradients,) = torch.autograd.grad(scores.sum(), channels)
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * channels).sum(dim=1).relu().detach()


def completeness(network: Network, images: Tensor, targets: Sequence[int]) -> dict[str, np.ndarray]:
    """Return what the points of a map add up to at the last block, beside the score to explain.

    Before the negative part is cut off. Where only a maximum or a mean of each channel and a linear
    layer follow, HiResCAM's points add up to the score (Draelos & Carin 2020, "Use HiResCAM instead
    of Grad-CAM", section 3.4).

    Args:
        network: in evaluation mode.
        images: float, N×3×S×S, normalised; at least one.
        targets: the class to explain for each picture, N.

    Returns:
        float, N each: ``score``, less the bias of its class, and the sums by ``gradcam`` and
        ``hirescam``.
    """
    kept = []
    layer = network.get_submodule(network.blocks[-1])
    handle = layer.register_forward_hook(lambda layer, inputs, output: kept.append(output))
    scores = network(images)[range(len(images)), targets]
    handle.remove()
    (gradients,) = torch.autograd.grad(scores.sum(), kept[0])
    biases = dict(network.named_parameters()).get("head.linear.bias")
    sums = {
        "score": scores if biases is None else scores - biases[torch.as_tensor(targets)],
        "gradcam": (gradients.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=(1, 2, 3)),
        "hirescam": (gradients * kept[0]).sum(dim=(1, 2, 3)),
    }
    return {name: values.detach().cpu().numpy() for name, values in sums.items()}


def first_and_mean(maps: np.ndarray) -> np.ndarray:
    """Return the first of some maps, and their mean stretched to 0…1.

    Args:
        maps: float32, N×S×S, N at least 1.

    Returns:
        float32, 2×S×S.
    """
    mean = maps.mean(axis=0)
    return np.stack((maps[0], mean / max(mean.max(), np.finfo(np.float32).tiny)))


def as_drawn(maps: Tensor, side: int, lag: int = 0) -> np.ndarray:
    """Return maps of a block (float, N×H×W) as figures show them: float, N×S×S, in [0, 1]."""
    return scaled_to(maps, side, lag).cpu().numpy()


def moved_back(maps: Tensor, lag: int) -> Tensor:
    """Return maps in the picture's size (float, N×S×S) where their cells look.

    Args:
        maps: each of whose cells was drawn around its own middle.
        lag: from `utils.models.network.Network.lag`; the last rows and columns are repeated.
    """
    if not lag:
        return maps
    return pad(maps[:, None, lag:, lag:], (0, lag, 0, lag), mode="replicate")[:, 0]


def scaled_to(maps: Tensor, side: int, lag: int = 0) -> Tensor:
    """Return maps of a block, each scaled to [0, 1] and then resized, as `grad-cam` does it.

    Args:
        maps: float, N×H×W.
        side: S, in pixels.
        lag: as `moved_back` takes it.

    Returns:
        float, N×S×S.
    """
    maps = maps - maps.amin((1, 2), keepdim=True)
    maps = maps / (1e-7 + maps.amax((1, 2), keepdim=True))
    return moved_back(interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0], lag)


def compare_methods(network: Network, image: Tensor, target: Sequence[int]) -> np.ndarray:
    """Return the maps of one picture by every method at every block.

    Args:
        network: a network of the registry.
        image: float, 1×3×S×S, normalised.
        target: the class to explain, as a sequence of one.

    Returns:
        float32, methods × blocks × S × S, in the order of ``METHODS`` and ``network.blocks``.
    """
    methods = list(METHODS)
    maps = maps_by_method(network, image, target, methods, network.blocks, progress=True)
    return np.concatenate([maps[method] for method in methods])


def agreement(maps: np.ndarray) -> pd.DataFrame:
    """Return how alike the maps of one picture are by each two methods, the least alike first.

    Blank maps are left out.

    Args:
        maps: float, methods×S×S, in the order of ``METHODS``.

    Returns:
        a row a pair: first, second, correlation (`similarity`).
    """
    pairs = list(combinations(np.flatnonzero(~blank(maps)), 2))
    first, second = (maps[[pair[side] for pair in pairs]] for side in (0, 1))
    names = list(METHODS)
    table = pd.DataFrame([(names[i], names[j]) for i, j in pairs], columns=["first", "second"])
    table["correlation"] = similarity(first, second)
    return table.sort_values("correlation", ignore_index=True)


def extents(maps: np.ndarray, blocks: Sequence[str]) -> pd.DataFrame:
    """Return how far maps reach at each block.

    Args:
        maps: float in [0, 1], N×blocks×S×S.
        blocks: their names.

    Returns:
        a row a block: block, the mean share of a map that is brighter than 0.5, and how many
        maps are blank; no row without maps.
    """
    rows = [
        {
            "block": block,
            "bright": float((maps[:, place] > 0.5).mean()),
            "blank": int(blank(maps[:, place]).sum()),
        }
        for place, block in enumerate(blocks)
        if len(maps)
    ]
    return pd.DataFrame(rows, columns=["block", "bright", "blank"])


def blank(maps: np.ndarray) -> np.ndarray:
    """Return which maps (float, N×S×S) are zero everywhere, as bool, N: nothing spoke there."""
    return np.asarray((maps == 0).all(axis=(1, 2)))


def similarity(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how alike two maps of the same picture are: Pearson's correlation over its pixels.

    Args:
        maps, others: float, N×S×S.

    Returns:
        float64, N, in [-1, 1]; 0 where a map is the same everywhere and so points nowhere.
    """
    if not len(maps):
        return np.zeros(0)
    first, second = (m.reshape(len(m), -1).astype(np.float64) for m in (maps, others))
    first, second = (m - m.mean(axis=1, keepdims=True) for m in (first, second))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.divide((first * second).sum(axis=1), norms, out=np.zeros(len(first)), where=norms > 0)


def compare_pairs(
    blame: np.ndarray, missed: np.ndarray, third: np.ndarray
) -> dict[str, int | float]:
    """Compare the maps for the predicted and for the true class of the same mistakes.

    Args:
        blame, missed: float in [0, 1], N×S×S.
        third: maps of the same pictures for a class that is neither, such as the least likely one.

    Returns:
        how many pairs there are (``pictures``), and in how many a map is ``blank``; where more than
        one is left, also the ``mean_correlation`` of their two maps, that of the first with the map
        for the ``third_class``, and that of the maps for the predicted class
        ``of_other_pictures``, each with the next mistake's.
    """
    unlit = blank(blame) | blank(missed)
    figures: dict[str, int | float] = {"pictures": len(blame), "blank": int(unlit.sum())}
    lit = blame[~unlit]
    if len(lit) > 1:
        figures["mean_correlation"] = float(similarity(lit, missed[~unlit]).mean())
        figures["third_class"] = float(similarity(lit, third[~unlit]).mean())
        figures["of_other_pictures"] = float(similarity(lit, np.roll(lit, 1, axis=0)).mean())
    return figures


# In words


def difference_in_words(maps: np.ndarray, others: np.ndarray) -> str:
    """Return how far two ways to the same maps (float in [0, 1], N×S×S) are apart at most."""
    largest = np.abs(maps - others).max()
    return (
        f"Largest difference at any pixel: {largest:.1e} of the full range, "
        f"n = {counted(len(maps), 'map')} of {maps[0].size:,} pixels each."
    )


def completeness_in_words(sums: dict[str, np.ndarray]) -> str:
    """Return how far the maps' sums are from the scores, of `completeness`."""
    size = np.abs(sums["score"]).mean()
    far = {n: np.abs(sums[n] - sums["score"]).mean() / size for n in ("gradcam", "hirescam")}
    return (
        f"HiResCAM's points and the bias add up to the score, to within {far['hirescam']:.1e} of "
        f"its size; Grad-CAM's miss it by {as_percent(far['gradcam'], 0)} of its size (mean of "
        f"{counted(len(sums['score']), 'picture')})."
    )


def maps_in_words(blame: np.ndarray, missed: np.ndarray, labels: Sequence[str]) -> str:
    """Return how many maps for the true class are blank, and how alike the first three pairs are.

    Args:
        blame, missed: maps for the predicted and for the true class, float, N×S×S.
        labels: what each picture is and was taken for.
    """
    if not len(missed):
        return "There are no mistakes to explain."
    empty = int(blank(missed).sum())
    whole = f"Of the {counted(len(missed), 'map')} for the true class, {empty:,}"
    lines = [f"{whole} {'is' if empty == 1 else 'are'} blank. The first of the pictures above:"]
    alike = similarity(blame, missed)
    for place, label in enumerate(labels[:3]):
        told = f"its two maps correlate at {alike[place]:+.2f}"
        if blank(missed)[place]:
            told = "the true class's map is blank"
        lines.append(f"{label}: {told}")
    return "\n".join(lines)


def agreement_in_words(pairs: pd.DataFrame, block: str) -> str:
    """Return how far the methods agree about one picture at a block, of `agreement`."""
    if pairs.empty:
        return f"At {block} there are no two maps to compare: the others are blank."
    worst, best = (
        f"{pair['first']} and {pair['second']} ({pair['correlation']:+.2f})"
        for _, pair in pairs.iloc[[0, -1]].iterrows()
    )
    mean, lowest = pairs["correlation"].mean(), pairs["correlation"].min()
    verdict = "they agree only in part"
    if mean > 0.85:
        number = "all" if lowest > 0.85 else "most"
        verdict = f"{number} of them point to the same place"
    elif mean < 0.3:
        verdict = "they scatter, and none of them is the explanation"
    return (
        f"At {block} the {counted(len(pairs), 'pair')} of methods correlate at {mean:.2f} on "
        f"average, best {best}, worst {worst}: {verdict} (n = 1 picture)."
    )


def agreement_by_block_in_words(maps: np.ndarray, blocks: Sequence[str]) -> str:
    """Return how far the methods agree about one picture at each block.

    Args:
        maps: of `compare_methods`.
        blocks: their names.
    """
    parts = []
    for place, block in enumerate(blocks):
        pairs, unlit = agreement(maps[:, place]), int(blank(maps[:, place]).sum())
        told = (
            f"{pairs['correlation'].mean():+.2f} at {block}" if len(pairs) else f"none at {block}"
        )
        parts.append(f"{told} ({counted(unlit, 'map')} blank)" if unlit else told)
    return f"Mean correlation of two methods: {', '.join(parts)}."


def pairs_in_words(figures: dict) -> str:
    """Return how alike maps are, of `compare_pairs`."""
    if "mean_correlation" not in figures:
        return "There are too few pairs of maps to compare."
    return (
        f"Same picture, map for the predicted and for the true class: correlation "
        f"{figures['mean_correlation']:+.2f} on average. Same picture, map for the predicted and "
        f"for the least likely class: {figures['third_class']:+.2f}. Two different mistakes, each "
        f"the map for its predicted class: {figures['of_other_pictures']:+.2f}."
    )


def blanks_in_words(blame: np.ndarray, missed: np.ndarray) -> str:
    """Return how many maps for the predicted and for the true class (float, N×S×S) are blank."""
    either = int((blank(blame) | blank(missed)).sum())
    return (
        f"Blank: {counted(int(blank(blame).sum()), 'map')} for the predicted class and "
        f"{blank(missed).sum():,} for the true one. Left out for that: {either:,} of "
        f"{counted(len(blame), 'pair')}."
    )


def in_short(figures: dict, method: str, block: str, run_name: str) -> str:
    """Return what the maps of a run's mistakes told, of `compare_pairs`, as Markdown."""
    mistakes = figures["pictures"]
    told = f"{method} at {block}, {counted(mistakes, 'mistake')} of run **{run_name}**: "
    if "mean_correlation" not in figures:
        return f"{told}there were too few pairs of maps to compare."
    blanks = "no map is blank. The"
    if figures["blank"]:
        left = counted(mistakes - figures["blank"], "pair")
        blanks = f"a map is blank in {figures['blank']:,}. In the {left} left, the"
    return (
        f"{told}{blanks} maps for the predicted and for the true class correlate at "
        f"**{figures['mean_correlation']:.2f}** on average, those for the predicted "
        f"and the least likely class at {figures['third_class']:.2f}, and the maps for the "
        f"predicted class of two different mistakes at {figures['of_other_pictures']:.2f}."
    )
