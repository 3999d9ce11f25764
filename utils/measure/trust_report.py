"""What the maps of a trained run are worth: measured, kept as tables, drawn, said."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from utils import as_markdown, check_number
from utils.data.picture_set import PictureSet
from utils.devices import choose_device
from utils.explain.gradcam import CHANNEL_METHODS, METHODS, OTHER_METHODS, first_choice
from utils.explain.trust import (
    Candidate,
    Judgement,
    Subjects,
    agreement_with_intervention,
    choice_in_words,
    choose_subjects,
    coarsened,
    judge,
    maps_by_candidate,
    summary,
)
from utils.files import replacing, write_text
from utils.models.registry import MODELS
from utils.models.summary import stages
from utils.plots.trust import scores_by_measure
from utils.runs import MEASURED, Run
from utils.training.predictions import predict_test
from utils.training.recipes import Recipe
from utils.training.trained import load_network

#: On how many pictures it is measured whether maps follow class, weights and picture.
SANE, SANE_BY_CHANNEL = 200, 5


def print_trust(
    run: Run,
    picture_set: PictureSet,
    count: int = 1000,
    channel_count: int = 100,
    folder: str | Path | None = None,
    mistakes: bool = False,
    devices: str = "auto",
) -> None:
    """Measure the maps of a run by every method at every block, print the table, and keep it.

    Args:
        run: a trained run.
        picture_set: what it was trained on.
        count: on how many test pictures, at most.
        channel_count: on how many of these for methods with a forward pass for each channel;
            0 leaves them out.
        folder: where to write ``RUN.csv``, ``RUN.md`` and ``RUN.png`` (what every map is worth) and
            ``RUN-measures.md`` (what the measures are); None writes into the run's own ``trust/``.
        mistakes: whether these are pictures that the network is wrong about, for the class that it
            takes them for, and not such as it is right about; files are then ``RUN-mistakes``.
        devices: as `utils.devices.choose_device` takes it.

    Raises:
        InputError: a number out of range, or no mistake to judge.
    """
    check_number("--count", count, 2, 1_000_000, whole=True)
    check_number("--channel-count", channel_count, 0, 1_000_000, whole=True)
    device, hardware = choose_device(devices)
    recipe = Recipe.from_settings(run.settings)
    network = load_network(run, device)
    predictions = predict_test(run, picture_set, devices)
    subjects = choose_subjects(
        network, picture_set, predictions, recipe.augmentation, count, mistakes=mistakes
    )
    judgement = judge_all(subjects, channel_count)
    about = (
        f"{as_markdown(picture_set.title)}, {run.settings['model']}, recipe {recipe.name}, seed "
        f"{run.settings['seed']} (training pictures {recipe.augmentation.in_words()}); "
        f"{as_markdown(hardware)}; n = {len(subjects):,} test pictures predicted "
        f"{'wrongly, for the predicted class' if mistakes else 'correctly'}, "
        f"{min(SANE, len(subjects))} for class, weights, flip and shift"
    )
    if channel_count:
        few = min(channel_count, len(subjects))
        about += f"; for {' and '.join(CHANNEL_METHODS)} {few:,} and {min(SANE_BY_CHANNEL, few)}"
    scores = [about, "", *table(judgement)]
    measures = [choice_in_words(judgement, shown_for(subjects))]
    if "intervention" in judgement.scores:
        measures = [*agreement_table(agreement_with_intervention(judgement)), "", *measures]
    print("\n".join([*scores, "", *measures]))
    place = Path(folder) if folder else run.path(MEASURED)
    name = f"{run.name}-mistakes" if mistakes else run.name
    write_text(place / f"{name}.md", "\n".join(scores) + "\n")
    write_text(place / f"{name}-measures.md", "\n".join(measures) + "\n")
    title = f"{picture_set.title}: mistakes" if mistakes else picture_set.title
    keep(place / name, judgement, title, MODELS[run.settings["model"]].__name__)


def judge_all(subjects: Subjects, channel_count: int) -> Judgement:
    """Return what all measures say of all methods, those by channel on fewer pictures."""
    by_map = [name for name in (*METHODS, *OTHER_METHODS) if name not in CHANNEL_METHODS]
    judgement = judge(subjects, by_map, sane=SANE, further=_coarse(subjects))
    if channel_count:
        few = judge(subjects.first(channel_count), CHANNEL_METHODS, sane=SANE_BY_CHANNEL)
        judgement = judgement.joined(few)
    return judgement


def shown_for(subjects: Subjects) -> Candidate:
    """Return the map that is shown first for such pictures."""
    return first_choice(subjects.network, drawn=subjects.regions is not None)


def _coarse(subjects: Subjects) -> dict[Candidate, np.ndarray]:
    """Return the maps shown first with as few cells as the last block's: is it the method?"""
    method, block = shown_for(subjects)
    maps = maps_by_candidate(subjects, [method], [block])[method, block]
    found = stages(subjects.network, maps.shape[-1])
    sides = {stage.name: stage.side for stage in found if stage.side is not None}
    cells = sides[subjects.network.blocks[-1]]
    return {(f"{method}, {cells}×{cells} cells", block): coarsened(maps, cells)}


def table(judgement: Judgement) -> Iterator[str]:
    """Yield the lines of a Markdown table: a row a candidate, a column a measure."""
    rows = summary(judgement, judgement.candidates)
    yield f"| {' | '.join(rows.columns)} |"
    yield "|" + " --- |" * len(rows.columns)
    for row in rows.to_numpy():
        cells = (cell.replace(" ± ", "\u00a0±\u00a0") for cell in row)  # on one line in a page
        yield f"| {' | '.join(cells)} |"


def agreement_table(agreement: pd.DataFrame) -> Iterator[str]:
    """Yield the lines of a Markdown table, of `agreement_with_intervention`."""
    yield "| measure | Kendall's τ with the intervention | 95 % interval | highest | verdict |"
    yield "| --- | --- | --- | --- | --- |"
    for row in agreement.to_dict("records"):
        verdict = "broken" if row["is_broken"] else "stands"
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        yield f"| {row['measure']} | {row['tau']:.2f} | {interval} | {row['winner']} | {verdict} |"


def keep(place: Path, judgement: Judgement, dataset_title: str, model_name: str) -> None:
    """Write what every map is worth as CSV, and as a figure: `place` less the endings."""
    rows = judgement.table()
    write_text(place.with_name(f"{place.name}.csv"), rows.round(4).to_csv(index=False))
    figure = scores_by_measure(rows, dataset_title, model_name)
    with replacing(place.with_name(f"{place.name}.png")) as beside:
        figure.savefig(beside, format="png")
