"""Does a class activation map show what the network used? Measures, and what they are held against.

Every measure gives one number for each picture and candidate, and higher is better. A candidate is
a method at a block, or a baseline: maps that know nothing of the network, and the object's mask.
What a part of a picture was worth is known for the drawn shapes alone, where each picture is drawn
again without it; that judges the maps, and it judges the other measures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from utils import InputError, as_percent, counted, listed
from utils.data import drawn_shapes
from utils.data.augment import hole_colour, normalise, shift_and_flip
from utils.data.augmentation import Augmentation
from utils.data.picture_set import PictureSet
from utils.explain.gradcam import CHANNEL_METHODS, maps_by_method
from utils.explain.map_measures import (
    FILLS,
    LOCALISATION,
    logits_of,
    part_shares,
    patch_agreement,
    rank_correlation,
    removal_curves,
    removal_score,
    structural_similarity,
    worth,
)
from utils.intervals import student_half
from utils.models.network import Network
from utils.models.randomised import parts_with_weights, randomised_from_the_head
from utils.progress import progress_bar
from utils.training.predictions import Predictions

Candidate = tuple[str, str]
Maps = Mapping[Candidate, np.ndarray]
#: Maps that know nothing of the network; a measure by which one of them wins says nothing.
KNOWS_NOTHING: tuple[Candidate, ...] = (("noise", ""), ("centre blob", ""), ("edges", ""))
MASK: Candidate = ("object's mask", "")
#: Those of `sanity` of which more is better.
STEADINESS = ("flip", "shift")
#: A map passes if, on average, another class and other weights each leave it at most so alike.
MOST_ALIKE = 0.5


@dataclass(frozen=True)
class Subjects:
    """Test pictures whose maps are judged, and what is known of them.

    Attributes:
        network: a network of the registry, in evaluation mode.
        index: int64, N: positions in the test split.
        raw: uint8, N×3×S×S.
        images: float32, N×3×S×S, normalised, on the network's device.
        targets: int64, N: the predicted class, which is the true one if ``is_right``.
        unlikely: int64, N: the class with the lowest logit.
        masks: bool, N×S×S, true on the object; None where the source has none.
        regions: bool, N×P×S×S, where each part of a drawn picture (`drawn_shapes.PARTS`) is seen;
            None for other pictures.
        drops: float32, N×P: by how much the target's logit falls where a picture is drawn again
            without each of its parts; None for other pictures.
        is_right: whether the network is right about them.
        hole: what holes in training pictures are filled with, float32, 3×1×1; None where they had
            none.
    """

    network: Network
    index: np.ndarray
    raw: np.ndarray
    images: Tensor
    targets: np.ndarray
    unlikely: np.ndarray
    is_right: bool = True
    hole: Tensor | None = None
    masks: np.ndarray | None = None
    regions: np.ndarray | None = None
    drops: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def first(self, count: int) -> "Subjects":
        """Return the first `count` of them."""
        each = ("index", "raw", "images", "targets", "unlikely", "masks", "regions", "drops")
        values = {name: getattr(self, name) for name in each}
        return replace(self, **{n: v[:count] for n, v in values.items() if v is not None})


def choose_subjects(
    network: Network,
    picture_set: PictureSet,
    predictions: Predictions,
    augmentation: Augmentation,
    count: int,
    seed: int = 0,
    mistakes: bool = False,
) -> Subjects:
    """Draw pictures of the test split that the network is right about; others if there are none.

    Args:
        network: on the device to compute on, in evaluation mode.
        picture_set: what it was trained on.
        predictions: its, of the test split.
        augmentation: of its training pictures.
        count: how many, at most.
        seed: draws them.
        mistakes: draw of those that the network is wrong about instead.

    Raises:
        InputError: mistakes are asked for, and there are none.
    """
    is_right = predictions.predicted == predictions.target
    if mistakes and is_right.all():
        raise InputError("The run makes no mistake on its test pictures, so none can be judged.")
    wanted = np.flatnonzero(is_right != mistakes)
    chosen = wanted if len(wanted) else predictions.index
    index = np.random.default_rng(seed).permutation(chosen)[:count]
    device = next(network.parameters()).device
    test = picture_set.test.subset(torch.from_numpy(index))
    images = normalise(test.images.to(device), picture_set.mean, picture_set.std)
    subjects = Subjects(
        network,
        index,
        raw=test.images[:].numpy(),
        images=images,
        targets=predictions.predicted[index],
        unlikely=predictions.logits[index].argmin(axis=1),
        is_right=bool(is_right[chosen].all()),
        hole=hole_colour(augmentation, picture_set.mean, picture_set.std, device),
        masks=None if test.masks is None else test.masks.numpy(),
    )
    return _with_parts(subjects, picture_set) if picture_set.name == "shapes" else subjects


def _with_parts(subjects: Subjects, picture_set: PictureSet) -> Subjects:
    """Return them with what each part of their pictures was worth."""
    size = picture_set.image_size
    whole = drawn_shapes.draw_split("test", image_size=size).images
    places = {picture.tobytes(): place for place, picture in enumerate(whole)}
    positions = np.array([places[picture.tobytes()] for picture in subjects.raw], np.int64)
    drawn = drawn_shapes.draw_parts(positions, image_size=size)
    regions = np.stack([drawn.regions[part] for part in drawn_shapes.PARTS], axis=1)
    logits = logits_of(subjects.network, subjects.images, subjects.targets)
    device, drops = subjects.images.device, []
    for part in drawn_shapes.PARTS:
        pixels = torch.from_numpy(drawn.without[part]).to(device)
        images = normalise(pixels, picture_set.mean, picture_set.std)
        drops.append(logits - logits_of(subjects.network, images, subjects.targets))
    return replace(subjects, regions=regions, drops=np.stack(drops, axis=1))


# Maps to be judged, and baselines


def baselines(subjects: Subjects, seed: int = 0) -> dict[Candidate, np.ndarray]:
    """Return maps that know nothing of the network, and the object's mask where there is one.

    Noise in every pixel, drawn from `seed`; a Gaussian at the picture's centre, whose standard
    deviation is a quarter of the side; and the strength of edges (Sobel's filter on luminance).

    Returns:
        float32, N×S×S each, in [0, 1].
    """
    side = subjects.raw.shape[-1]
    noise = np.random.default_rng(seed).random(subjects.raw[:, 0].shape, np.float32)
    position = np.arange(side) - (side - 1) / 2
    bell = np.exp(-((position / (side / 4)) ** 2) / 2)
    blob = np.broadcast_to(np.outer(bell, bell), noise.shape).astype(np.float32)
    maps = dict(zip(KNOWS_NOTHING, (noise, blob, _edges(subjects.raw)), strict=True))
    if subjects.masks is not None:
        maps[MASK] = subjects.masks.astype(np.float32)
    return maps


def _edges(raw: np.ndarray) -> np.ndarray:
    grey = np.pad(raw.mean(axis=1, dtype=np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = grey[..., 2:] - grey[..., :-2]
    down = grey[:, 2:] - grey[:, :-2]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    strength = np.hypot(across, down)
    return strength / strength.max(axis=(1, 2), keepdims=True).clip(1e-9)


def maps_by_candidate(
    subjects: Subjects, methods: Sequence[str], blocks: Sequence[str]
) -> dict[Candidate, np.ndarray]:
    """Return the maps of every method at every block for the predicted class, N×S×S each."""
    maps = maps_by_method(
        subjects.network, subjects.images, subjects.targets, methods, blocks, progress=True
    )
    return {
        (method, block): maps[method][:, place]
        for method in methods
        for place, block in enumerate(blocks)
    }


def patch_drops(subjects: Subjects, colour: Tensor, side: int, stride: int) -> np.ndarray:
    """Return by how much the target's logit falls without each patch (Zeiler & Fergus 2014,
    "Visualizing and Understanding Convolutional Networks", section 4.2).

    Args:
        subjects: the pictures.
        colour: what is put there, float, 3×1×1.
        side, stride: of the square patches, in pixels.

    Returns:
        float32, N×G×G.
    """
    whole = logits_of(subjects.network, subjects.images, subjects.targets)
    starts = range(0, subjects.images.shape[-1] - side + 1, stride)
    drops = np.empty((len(subjects), len(starts), len(starts)), np.float32)
    for row, top in enumerate(starts):
        for column, left in enumerate(starts):
            images = subjects.images.clone()
            images[:, :, top : top + side, left : left + side] = colour
            drops[:, row, column] = whole - logits_of(subjects.network, images, subjects.targets)
    return drops


# Sanity


def sanity(
    subjects: Subjects, methods: Sequence[str], blocks: Sequence[str], own: np.ndarray
) -> dict[str, np.ndarray]:
    """Return whether maps follow the class, the weights and the picture.

    - ``class``: 1 less the rank correlation with the map for the least likely class.
    - ``weights``, ``weights, SSIM``: 1 less the likeness to maps of the network whose layers are
      made random from the head down, the mean over all of these (Adebayo et al. 2018, "Sanity
      Checks for Saliency Maps", section 3.1).
    - ``flip``, ``shift``: the rank correlation with the map of the flipped picture, flipped back,
      and of the picture moved by an eighth of its side, where both show the same.

    Args:
        subjects: the pictures.
        methods, blocks: whose maps.
        own: their maps for the target, float32, M×N×B×S×S.

    Returns:
        by name, float64, M×N×B.
    """

    def maps(network=subjects.network, images=subjects.images, targets=subjects.targets):
        found = maps_by_method(network, images, targets, methods, blocks)
        bar.update()
        return np.stack([found[method] for method in methods])

    def by_map(measure, others, mine=own):
        values = [
            [measure(first[:, place], second[:, place]) for place in range(len(blocks))]
            for first, second in zip(mine, others, strict=True)
        ]
        return np.array(values).transpose(0, 2, 1)

    ranks, likenesses = [], []
    step = subjects.images.shape[-1] // 8
    still = torch.zeros(len(subjects), dtype=torch.int64, device=subjects.images.device)
    moved = shift_and_flip(subjects.images, still, still + step, still > 0)
    passes = len(parts_with_weights(subjects.network)) + 3  # for class, flip and shift
    with progress_bar(description="Checking sanity", total=passes, unit="passes") as bar:
        for network in randomised_from_the_head(subjects.network):
            random = maps(network)
            ranks.append(np.abs(by_map(rank_correlation, random)))
            likenesses.append(by_map(structural_similarity, random))
        return {
            "class": 1 - by_map(rank_correlation, maps(targets=subjects.unlikely)),
            "weights": 1 - np.mean(ranks, axis=0),
            "weights, SSIM": 1 - np.mean(likenesses, axis=0),
            "flip": by_map(rank_correlation, maps(images=subjects.images.flip(-1))[..., ::-1]),
            "shift": by_map(rank_correlation, maps(images=moved)[..., :-step], own[..., step:]),
        }


# All of it


@dataclass(frozen=True)
class Judgement:
    """What the measures say of the candidates.

    Attributes:
        candidates: method and block of each; baselines have no block.
        scores: by measure, float64, candidates×N; NaN where it was not measured.
    """

    candidates: tuple[Candidate, ...]
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    def joined(self, other: "Judgement") -> "Judgement":
        """Return both, of which `other` is of some of the same pictures, the first of them.

        What is in both, such as the baselines, stays as it is here.
        """
        new = [place for place, c in enumerate(other.candidates) if c not in self.candidates]
        scores = {}
        for name, mine in self.scores.items():
            more = np.full((len(new), mine.shape[1]), np.nan)
            more[:, : other.scores[name].shape[1]] = other.scores[name][new]
            scores[name] = np.concatenate([mine, more])
        return Judgement((*self.candidates, *(other.candidates[place] for place in new)), scores)

    def means(self, measure: str) -> np.ndarray:
        """Return each candidate's mean: float64, NaN where it was not measured."""
        scores = self.scores[measure]
        means, is_measured = np.full(len(scores), np.nan), ~np.isnan(scores).all(axis=1)
        means[is_measured] = np.nanmean(scores[is_measured], axis=1)
        return means

    def table(self) -> pd.DataFrame:
        """Return a row for each candidate and measure: mean, low and high end of its 95 % interval
        (Student's), and n.
        """
        rows = []
        for measure, scores in self.scores.items():
            each = zip(self.candidates, scores, self.means(measure), strict=True)
            for (method, block), values, mean in each:
                values = values[~np.isnan(values)]
                if not len(values):
                    continue
                error = _half_interval(values)
                rows.append((method, block, measure, mean, mean - error, mean + error, len(values)))
        columns = ["method", "block", "measure", "mean", "low", "high", "n"]
        return pd.DataFrame(rows, columns=columns)


def _half_interval(values: np.ndarray) -> float:
    """Return half of the 95 % interval of a mean, Student's; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    return student_half([(values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1)])


def fills_for(subjects: Subjects) -> list[str]:
    """Return which of `FILLS` a look at a run's maps needs: deletion where it is what decides."""
    return ["removal"] if subjects.regions is not None else ["removal", "deletion"]


def judge(
    subjects: Subjects,
    methods: Sequence[str],
    blocks: Sequence[str] | None = None,
    fills: Sequence[str] = tuple(FILLS),
    sane: int = 200,
    further: Maps | None = None,
) -> Judgement:
    """Measure all candidates.

    Args:
        subjects: the pictures.
        methods, blocks: which maps; None for all blocks of the network.
        fills: which of `FILLS` to measure with.
        sane: on how many of the pictures `sanity` is measured.
        further: other maps to judge, by the names to give them.
    """
    blocks = subjects.network.blocks if blocks is None else blocks
    maps = baselines(subjects) | maps_by_candidate(subjects, methods, blocks) | dict(further or {})
    scores = {}
    if subjects.masks is not None:
        for name, measure in LOCALISATION.items():
            scores[name] = np.stack([measure(m, subjects.masks) for m in maps.values()])
    if subjects.regions is not None and subjects.drops is not None:
        scores["intervention"] = np.stack(
            [worth(each, subjects.regions, subjects.drops) for each in maps.values()]
        )
    asked = subjects.network, subjects.images, subjects.targets
    for name in fills:
        each_map = progress_bar(maps.values(), description=f"Measuring {name}", unit="maps")
        curves = (removal_curves(*asked, each, FILLS[name]) for each in each_map)
        scores[name] = np.stack([removal_score(pair) for pair in curves])
    if subjects.hole is not None:
        side = subjects.images.shape[-1] // 4
        cut = side, side // 2
        drops = patch_drops(subjects, subjects.hole, *cut)
        scores["patches"] = np.stack([patch_agreement(m, drops, *cut) for m in maps.values()])
    scores |= _sanity_of_all(subjects.first(sane), len(subjects), methods, blocks, maps)
    return Judgement(tuple(maps), scores)


def _sanity_of_all(few: Subjects, count: int, methods, blocks, maps: Maps) -> dict:
    """Return what `sanity` says of all methods; baselines, which have no network, are not asked."""
    scores: dict[str, np.ndarray] = {}
    places = {candidate: place for place, candidate in enumerate(maps)}
    own = [np.stack([maps[m, block][: len(few)] for block in blocks], axis=1) for m in methods]
    for name, values in sanity(few, methods, blocks, np.stack(own)).items():
        table = scores[name] = np.full((len(maps), count), np.nan)
        for method, of_method in zip(methods, values, strict=True):
            for column, block in enumerate(blocks):
                table[places[method, block], : len(few)] = of_method[:, column]
    return scores


def coarsened(maps: np.ndarray, cells: int) -> np.ndarray:
    """Return maps as a block of fewer cells would give them: averaged, and interpolated again.

    Args:
        maps: float32, N×S×S.
        cells: on a side.
    """
    means = adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(maps))[:, None], cells)
    return interpolate(means, maps.shape[-2:], mode="bilinear")[:, 0].numpy()


# In tables and in words


def summary(judgement: Judgement, candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Return some candidates' means with half of their 95 % intervals, as text to be read.

    Returns:
        a row a candidate that was judged, a column a measure; a dash where it was not measured.
    """
    cells = judgement.table()
    half = (cells["high"] - cells["low"]) / 2
    # z: no minus before a zero
    cells["told"] = [f"{m:z.2f} ± {h:.2f}" for m, h in zip(cells["mean"], half, strict=True)]
    told = cells.set_index(["method", "block", "measure"])["told"]
    rows = {
        named(candidate): {m: told.get((*candidate, m), "–") for m in judgement.scores}
        for candidate in candidates
        if candidate in judgement.candidates
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("map").reset_index()


def named(candidate: Candidate) -> str:
    """Return what a candidate is called: "gradcam at layer3", or a baseline's name."""
    return " at ".join(filter(None, candidate))


def subjects_in_words(subjects: Subjects, sane: int) -> str:
    """Return on how many pictures maps are judged, and on how many of them `sanity`."""
    told = f"{counted(len(subjects), 'test picture')}, of which {min(sane, len(subjects)):,} for "
    told += "class, weights, flip and shift"
    if subjects.is_right:
        return f"Measured on {told}; all are predicted correctly."
    return f"No test picture is predicted correctly. Measured, for the predicted class, on {told}."


def judged_in_words(judgement: Judgement) -> str:
    """Return, by each measure that baselines take part in, which map wins and what it beats."""
    means = {name: judgement.means(name) for name in _measured_of(judgement)}
    is_known = np.array([candidate in KNOWS_NOTHING for candidate in judgement.candidates])
    is_mask = np.array([candidate == MASK for candidate in judgement.candidates])
    lines = []
    for name, mean in means.items():
        best, known = (
            int(np.where(allowed, mean, -np.inf).argmax())
            for allowed in (~is_known & ~is_mask, is_known)
        )
        winner, other = (named(judgement.candidates[place]) for place in (best, known))
        told = f"{name}: {winner} ({mean[best]:.2f}{_failing(judgement, best)}); of what knows "
        told += f"nothing, {other} ({mean[known]:.2f})"
        if mean[known] >= mean[best]:
            told += ", which wins: this measure says nothing here"
        lines.append(told)
    return "\n".join(lines)


def _failing(judgement: Judgement, place: int) -> str:
    """Return what a map does not follow, of class and weights."""
    checks = [name for name in ("class", "weights") if name in judgement.scores]
    failed = [name for name in checks if judgement.means(name)[place] < 1 - MOST_ALIKE]
    return f", but it does not follow the {' and '.join(failed)}" if failed else ""


def standing_in_words(judgement: Judgement, candidate: Candidate) -> str:
    """Return by which measures a map beats all that know nothing, beyond chance, and by which not.

    Picture by picture: by a measure, the mean difference to the best of them has a 95 % interval.
    """
    known = [at for at, each in enumerate(judgement.candidates) if each in KNOWS_NOTHING]
    told = _verdicts(judgement, candidate, known, _measured_of(judgement))
    return f"{named(candidate)}, against the best of what knows nothing: {told}."


def compared_in_words(judgement: Judgement, candidate: Candidate, other: Candidate) -> str:
    """Return by which measures a map beats another, beyond chance, and by which not.

    Of class and weights more is not better, so they take no part.
    """
    pair = [judgement.candidates.index(one) for one in (candidate, other)]
    both = _measured_of(judgement, pair)
    compared = _measured_of(judgement) | {n: both[n] for n in STEADINESS if n in both}
    told = _verdicts(judgement, candidate, pair[1:], compared)
    return f"{named(candidate)}, against {named(other)}: {told}."


def _verdicts(
    judgement: Judgement,
    candidate: Candidate,
    rivals: list[int],
    compared: Mapping[str, np.ndarray],
) -> str:
    """Return by which measures a candidate beats, or loses to, the best of some, by their places.

    A rival is named where there are several.
    """
    place = judgement.candidates.index(candidate)
    told: dict[str, dict[str, list[str]]] = {}
    for name, scores in compared.items():
        best = max(rivals, key=lambda at: np.nanmean(scores[at]))
        gain, error = _gain(scores[place], scores[best])
        verdict = "beats" if gain > error else "loses to"
        verdict = verdict if abs(gain) > error else "cannot be told from"
        rival = named(judgement.candidates[best]) if len(rivals) > 1 else "it"
        told.setdefault(verdict, {}).setdefault(rival, []).append(name)
    parts = (
        f"{verdict} {rival} by {listed(told[verdict][rival])}"
        for verdict in ("beats", "cannot be told from", "loses to")
        for rival in told.get(verdict, {})
    )
    return "; ".join(parts)


def _gain(scores: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return by how much a map is ahead on the same pictures, and half of its 95 % interval."""
    gain = scores - others
    gain = gain[~np.isnan(gain)]
    return gain.mean(), _half_interval(gain)


def _measured_of(
    judgement: Judgement, places: Sequence[int] | slice = slice(None)
) -> dict[str, np.ndarray]:
    """Return the scores of those measures that the candidates at these places, or all, have."""
    return {
        name: scores
        for name, scores in judgement.scores.items()
        if not np.isnan(scores[places]).all(axis=1).any()
    }


def choice_in_words(judgement: Judgement, shown: Candidate) -> str:
    """Return whether the map that is shown first is the one that these pictures would choose."""
    measure = deciding_measure(judgement)
    mean = judgement.means(measure)
    try:
        chosen = best_candidate(judgement, measure)
    except InputError as nothing:
        return str(nothing)
    worths = dict(zip(judgement.candidates, mean, strict=True))
    known = max(KNOWS_NOTHING, key=worths.__getitem__)
    if worths[known] >= worths[chosen]:
        return (
            f"By {measure}, {named(known)} comes first ({worths[known]:.2f}; {named(chosen)} "
            f"{worths[chosen]:.2f}), which knows nothing of the network. So it decides nothing "
            f"here; {named(shown)} is shown first."
        )
    told = f"By {measure}, the rule chooses {named(chosen)} on these pictures"
    if chosen == shown:
        return f"{told}, the map that is shown first."
    if shown not in judgement.candidates:
        return f"{told}; {named(shown)}, which is shown first, was not judged."
    gain, error = _gain(
        *(judgement.scores[measure][judgement.candidates.index(one)] for one in (chosen, shown))
    )
    return (
        f"{told}, not {named(shown)}, which is shown first ({worths[chosen]:.2f} against "
        f"{worths[shown]:.2f}, ahead by {gain:.2f} ± {error:.2f})."
    )


def worst_of(judgement: Judgement, shown: Candidate, count: int) -> np.ndarray:
    """Return the pictures on which a map is worth least, by what decides: int64, the worst first.

    Args:
        judgement: of `judge`.
        shown: the map.
        count: how many, at most.
    """
    scores = judgement.scores[deciding_measure(judgement)][judgement.candidates.index(shown)]
    return np.argsort(scores)[: min(count, int((~np.isnan(scores)).sum()))]


def worst_in_words(judgement: Judgement, shown: Candidate, worst: np.ndarray) -> str:
    """Return what `worst_of` goes by, and what the map gets there and on average."""
    measure = deciding_measure(judgement)
    scores = judgement.scores[measure][judgement.candidates.index(shown)]
    got = listed([f"{score:.2f}" for score in scores[worst]])
    return (
        f"By {measure}, {named(shown)} gets {got} there, and {np.nanmean(scores):.2f} on average."
    )


def parts_in_words(
    subjects: Subjects, chosen: np.ndarray, maps: np.ndarray, classes: Sequence[str]
) -> list[str]:
    """Return, a line a picture, what a map lies on, and what each part's absence does to the logit.

    Args:
        subjects: of `choose_subjects`.
        chosen: int64, M: which of them.
        maps: float, M×S×S.
        classes: names of all classes.

    Returns:
        no lines for pictures whose parts are not known.
    """
    if subjects.regions is None or subjects.drops is None:
        return []
    lines = []
    shares = part_shares(maps, subjects.regions[chosen])
    for row, place in enumerate(chosen):
        drops = zip(drawn_shapes.PARTS, shares[row], subjects.drops[place], strict=True)
        parts = (
            f"{part} {as_percent(round(share, 4), 0)} ({round(-drop, 1) + 0.0:+.1f})"
            for part, share, drop in drops
        )
        told = ", ".join(parts)
        lines.append(f"{classes[subjects.targets[place]]}: {told}")
    return lines


# What the measures are worth, and what follows


def deciding_measure(judgement: Judgement) -> str:
    """Return by what maps are chosen: the intervention where there is one, else deletion.

    Of the measures that any pictures allow, deletion agreed with the intervention best, though not
    well: away from drawn shapes the choice is the weaker one (docs/trust.md).
    """
    return "intervention" if "intervention" in judgement.scores else "deletion"


def agreement_with_intervention(
    judgement: Judgement, seed: int = 0, samples: int = 1000
) -> pd.DataFrame:
    """Return how each measure's ranking of maps agrees with what the picture's parts were worth.

    Kendall's τ between the candidates' means, with a 95 % interval over `samples` samples of the
    pictures with replacement. The mask takes no part, and no map that was
    measured on fewer pictures than others. A measure is ``broken`` where a map that
    knows nothing has the highest mean.

    Args:
        judgement: of drawn shapes.
        seed: draws the samples.

    Returns:
        a row a measure: measure, tau, low, high, winner, is_broken, n.
    """
    worths = judgement.scores["intervention"]
    is_whole = np.isnan(worths).sum(axis=1) == np.isnan(worths).sum(axis=1).min()
    rated = [p for p, known in enumerate(judgement.candidates) if known != MASK and is_whole[p]]
    reference = worths[rated]
    whole = ~np.isnan(reference).any(axis=0)
    count, random = int(whole.sum()), np.random.default_rng(seed)
    weights = random.multinomial(count, np.full(count, 1 / count), size=samples) / count
    weights = np.vstack([np.full(count, 1 / count), weights])  # the sample itself comes first
    worths, rows = weights @ reference[:, whole].T, []
    for name, scores in judgement.scores.items():
        mine = scores[rated][:, whole]
        if name == "intervention" or np.isnan(mine).any():
            continue  # baselines have no sanity to be ranked by
        means = weights @ mine.T
        taus = [kendalltau(*pair).statistic for pair in zip(means, worths, strict=True)]
        low, high = np.quantile(taus[1:], [0.025, 0.975])
        winner = judgement.candidates[rated[int(means[0].argmax())]]
        is_broken = winner in KNOWS_NOTHING
        rows.append((name, taus[0], low, high, named(winner), is_broken, count))
    columns = ["measure", "tau", "low", "high", "winner", "is_broken", "n"]
    return pd.DataFrame(rows, columns=columns).sort_values("tau", ascending=False)


def best_candidate(judgement: Judgement, measure: str) -> Candidate:
    """Return the map to show first, by a rule that was written before anything was measured.

    1. It must follow class and weights: `sanity`'s ``class`` and ``weights`` are at least
       1 - `MOST_ALIKE` on average.
    2. It must not take a forward pass for every channel, as `CHANNEL_METHODS` do: hundreds for a
       picture.
    3. Of these, it has the highest mean by `measure`: `deciding_measure`.

    Raises:
        InputError: no candidate follows class and weights.
    """
    passed = np.ones(len(judgement.candidates), bool)
    for name in ("class", "weights"):  # what was not measured does not pass
        passed &= judgement.means(name) >= 1 - MOST_ALIKE
    passed &= [method not in CHANNEL_METHODS for method, _ in judgement.candidates]
    if not passed.any():
        raise InputError("No method follows both class and weights; no map should be shown first.")
    values = np.where(passed, judgement.means(measure), -np.inf)
    return judgement.candidates[int(values.argmax())]
