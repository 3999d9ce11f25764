"""A training with every setting resolved, before anything is computed."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from utils import InputError, as_percent, counted, printable
from utils.data.augment import normalise
from utils.data.batches import PictureDataModule, evaluation_batch_size
from utils.data.picture_set import PictureSet, spread
from utils.devices import PRECISIONS, choose_device, choose_precision, computes_in
from utils.files import brief_path
from utils.models.backbones import BACKBONES, Backbone
from utils.models.network import Network
from utils.models.pretrained import (
    begin,
    checksum,
    normalisation,
    start_of,
    weights_file,
)
from utils.models.registry import MODELS, check_model, create_model
from utils.runs import Run
from utils.settings import (
    NOT_IDENTITY,
    PLACE,
    RANDOM,
    RECIPE,
    TRAINING,
    derive_run_name,
    of_chapter,
    split_count,
    with_defaults,
)
from utils.training.callbacks import finished_epochs
from utils.training.classifier import ImageClassifier
from utils.training.processes import Processes, by_torchrun, choose_processes, smallest_batch
from utils.training.recipes import UNSAID, Recipe, choose_recipe, limit_batch_size, overrides

#: Settings that follow the machine, unless they are given.
HARDWARE = ("precision", "devices")
#: Where a run keeps what it resumes from.
CHECKPOINT = ("checkpoints", "last.ckpt")
#: So many training pictures tell a network's first layer what pictures are like.
PICTURES_TO_WHITEN = 5_000


@dataclass(frozen=True)
class TrainingPlan:
    """A training with every setting resolved.

    Attributes:
        run: where it goes.
        picture_set: what it learns from.
        recipe: how; with all overrides applied.
        rest: the settings that neither of these has: ``val_fraction``, ``balanced``,
            ``precision``, ``devices``, ``num_nodes``, ``strategy`` and ``seed``, and in
            ``max_lr_source`` who chose the peak learning rate.
        notes: what was chosen or changed, and why: one line each.
        asked: what was asked of the hardware, as `choose_device` and `choose_precision` take it.
        elsewhere: whether another machine will train; its settings of the hardware are then as
            they were asked for, since only that machine can tell what they come to.
    """

    run: Run
    picture_set: PictureSet
    recipe: Recipe
    rest: dict
    notes: tuple[str, ...]
    asked: dict
    elsewhere: bool = False

    @property
    def settings(self) -> dict:
        """Every setting, as ``run.json`` keeps it."""
        return {
            **self.picture_set.options,
            "data_fingerprint": self.picture_set.fingerprint,
            **self.recipe.as_settings(),
            **self.rest,
            "weights": start_of(self.recipe.model, self.rest["weights"]),
            "weights_sha256": self._weights_sha256(),
        }

    def _weights_sha256(self) -> str | None:
        """Return the checksum of the file that the network begins from; None: of none.

        What is trained needs the file no longer, and may be asked for where it is gone.
        """
        model, weights = self.recipe.model, self.rest["weights"]
        if start_of(model, weights) == RANDOM:
            return None
        try:
            return checksum(weights_file(model, weights))
        except InputError:
            before = self.run.settings
            if self.run.is_trained and before.get("weights") == start_of(model, weights):
                return before["weights_sha256"]
            raise

    @property
    def identity(self) -> dict:
        """The settings that make this training what it is."""
        return {name: v for name, v in self.settings.items() if name not in NOT_IDENTITY}

    @property
    def device(self) -> str:
        """torch's name of the device; each process has one of these."""
        return split_count(self.rest["devices"])[0]

    @property
    def processes(self) -> Processes:
        """Those that share the training."""
        count = split_count(self.rest["devices"])[1] or 1
        return Processes(count, self.rest["num_nodes"], self.rest["strategy"])

    def network(self) -> Network:
        """Return the network with the fresh weights of this seed, and of these pictures."""
        network = create_model(
            self.recipe.model,
            num_classes=len(self.picture_set.classes),
            image_size=self.picture_set.image_size,
            seed=self.rest["seed"],
        )
        if isinstance(network, Backbone):
            begin(network, self.rest["weights"])
        if self.recipe.whitening and network.begins_from_pictures:
            network.init_from_pictures(self._pictures_to_whiten())
        return network

    def _pictures_to_whiten(self) -> Iterator[Tensor]:
        """Yield training pictures, normalised, in batches of a few megabytes."""
        pictures = spread(self.data_module().train, PICTURES_TO_WHITEN).images
        mean, std = self.picture_set.mean, self.picture_set.std
        for batch in pictures.split(evaluation_batch_size("cpu", self.picture_set.image_size)):
            yield normalise(batch, mean, std)

    def classifier(self) -> ImageClassifier:
        """Return the LightningModule around a fresh network."""
        classes = len(self.picture_set.classes)
        return ImageClassifier(self.network(), classes, self.recipe, self.class_counts())

    def class_counts(self) -> Tensor | None:
        """Return what `ImageClassifier` is to know of the training pictures; None: nothing."""
        if not self.rest["balanced"]:
            return None
        targets = self.data_module().train.targets
        return targets.bincount(minlength=len(self.picture_set.classes))

    def data_module(self) -> PictureDataModule:
        """Return the batches this plan trains on."""
        recipe = self.recipe
        return PictureDataModule(
            self.picture_set,
            recipe.batch_size,
            recipe.augmentation,
            self.rest["seed"],
            self.rest["val_fraction"],
            recipe.picture_sides(self.picture_set.image_size),
            recipe.skipped,
        )

    def __str__(self) -> str:
        place = brief_path(self.run.folder.parent)
        first = (
            f"run        {self.run.name} in {place}",
            f"recipe     {self.recipe.name}: {self.recipe.in_words()}",
        )
        return printable("\n".join((*first, *self.notes)))


def plan_training(
    picture_set: PictureSet,
    *,
    recipe: str | Recipe | None = None,
    elsewhere: bool = False,
    **given,
) -> TrainingPlan:
    """Resolve every setting of a training.

    Args:
        picture_set: from `utils.data.sources.load_pictures`.
        recipe: a name of `utils.training.recipes.RECIPES`, or a recipe; None takes the data set's
            default.
        elsewhere: whether another machine will train, whose hardware is not known here. Such a plan
            only serves to hold a run against it.
        given: further parameters by name, of which those count that `utils.settings` declares as
            part of places, of the recipe (these replace its own) or of training. ``"auto"`` keeps
            the precision and the device that a run was begun with, where this machine has them;
            ``overwrite`` tells that what there is of the run will be replaced, and counts for
            nothing.

    Raises:
        InputError: a name, number or device that cannot be used.
    """
    asked = with_defaults(PLACE, RECIPE, TRAINING, **given)
    options, found = picture_set.options, asked["max_lr"] == "found"
    chosen = choose_recipe(recipe, options["dataset"], **overrides(asked))
    check_model(chosen.model, picture_set.image_size)
    start = start_of(chosen.model, asked["weights"])
    if chosen.model in BACKBONES:
        mean, std = normalisation(chosen.model)
        picture_set = replace(picture_set, mean=mean, std=std)
    told: dict[str, Any] = asked | options | {"recipe": chosen.name}
    name = asked["run_name"]
    run = Run(derive_run_name(**told) if name is None else name, asked["output_dir"])
    notes = list(picture_set.notes)
    if found:
        tested = run if name is not None else _range_tested(run, told)
        suggestion, weakness = suggested_lr(tested)
        chosen = replace(chosen, max_lr=suggestion)
        where = "" if tested is run else f" of run {tested.name}"
        remark = f"; {weakness}" if weakness else ""
        notes.append(f"max_lr     {suggestion:.3g}, found by the range test{where}{remark}")
    val_fraction = asked["val_fraction"]
    if asked["batch_size"] is None:
        chosen = _lowered_batch_size(chosen, len(picture_set.train), val_fraction, notes)
    if chosen.model in BACKBONES:
        notes.append(f"weights    {_start_in_words(chosen, start)}")
    notes += _recipe_notes(chosen, picture_set.image_size)
    notes.append(f"watched    {_watched_in_words(val_fraction)}")
    if asked["balanced"]:
        notes.append("balanced   every class is learned as if all had equally many pictures")
    before = {} if asked["overwrite"] else _held_settings(run)
    hardware = {name: asked[name] for name in HARDWARE}
    if elsewhere:
        resolved, remarks = {n: asked[n] for n in (*HARDWARE, "num_nodes", "strategy")}, []
    else:
        resolved, remarks = _resolve_hardware(asked, before, MODELS[chosen.model].depthwise)
    rest = {
        "weights": asked["weights"],
        "val_fraction": val_fraction,
        "balanced": asked["balanced"],
        "max_lr_source": "found" if found else "recipe" if asked["max_lr"] is None else "given",
        **resolved,
        "seed": asked["seed"],
    }
    notes += remarks
    plan = TrainingPlan(run, picture_set, chosen, rest, tuple(notes), hardware, elsewhere)
    if elsewhere or not before:
        return plan
    return replace(plan, notes=(*notes, *_changes(plan)))


def _recipe_notes(recipe: Recipe, image_size: int) -> list[str]:
    """Return lines on what a recipe shows of the pictures, where that is not simply all."""
    notes = []
    if recipe.growth:
        notes.append(f"pictures   {_growth_in_words(recipe.picture_sides(image_size))}")
    if recipe.skipped:
        chosen = "at random"
        if recipe.skipped <= 0.5:
            chosen = f"left out is half of the {2 * recipe.skipped:.0%} that had the lowest losses"
        notes.append(
            f"shown      {1 - recipe.skipped:.0%} of the training pictures in each epoch; {chosen}"
        )
    return notes


def _start_in_words(recipe: Recipe, start: str) -> str:
    if start == RANDOM:
        return "random; nothing that was learned before"
    told = f"{start}, but for the head, which begins anew for these classes"
    if alone := round(recipe.head_share * recipe.epochs):
        told += f" and learns alone for {counted(alone, 'epoch')}"
    return told


def _watched_in_words(val_fraction: float) -> str:
    if val_fraction:
        return f"{as_percent(val_fraction, 0)} of the training split, held out"
    return "the test split, since val_fraction is 0; the program chooses nothing by it"


def _resolve_hardware(asked: dict, before: dict, depthwise: bool) -> tuple[dict, list[str]]:
    """Return device and precision by their parameters' names, and lines on why they are these."""
    devices = _kept_device(asked["devices"], before)
    processes = choose_processes(devices, asked["num_nodes"], asked["strategy"])
    if processes.count > 1:
        devices = f"{split_count(devices)[0]}:{processes.count}"
    device, hardware = choose_device(devices)
    precision, reason = _kept_precision(asked["precision"], device, before, depthwise)
    notes = [f"device     {device}: {hardware}"]
    if asked["devices"] == "auto" and device != choose_device()[0]:
        notes.append('           as this run was begun; devices="gpu" goes on on the GPU')
    notes.append(f"precision  {precision}: {reason}; channels-last")
    if processes.total > 1:
        notes.append(
            f"shared     each batch by {processes.total} processes ({processes.strategy}); the "
            "batches, the schedule and all draws are those of one"
        )
    return {
        "precision": precision,
        "devices": f"{device}:{processes.count}" if processes.count > 1 else device,
        "num_nodes": processes.num_nodes,
        "strategy": processes.strategy,
    }, notes


def _changes(plan: TrainingPlan) -> list[str]:
    """Return a line on each change of the hardware that a run has seen, or will see."""
    change = hardware_change(plan.run, plan.settings)
    asked_for = [change] if change is not None and _is_asked_for(change, plan.asked) else []
    return [_change_in_words(c) for c in (*plan.run.record.get("changes", ()), *asked_for)]


def _held_settings(run: Run) -> dict:
    """Return the settings of a run of which something is there: weights, or a checkpoint."""
    return run.settings if run.is_trained or run.has(*CHECKPOINT) else {}


def _kept_device(devices: str, before: dict) -> str:
    """Return what to ask for: with ``"auto"`` what a run was begun on, if this machine has it.

    How many share it is not kept where torchrun has started so many, or where GPUs are too few.
    """
    kind, count = split_count(before.get("devices"))
    if devices != "auto" or kind not in ("cpu", choose_device()[0]):
        return devices
    kept = "cpu" if kind == "cpu" else "gpu"
    if count is None or by_torchrun():
        return kept
    are_there = kind != "cuda" or count <= torch.cuda.device_count()
    return f"{kept}:{count}" if are_there else devices


def _kept_precision(precision: str, device: str, before: dict, depthwise: bool) -> tuple[str, str]:
    """Return the precision, and why: with ``"auto"``, a run's own where the device has units."""
    was = before.get("precision")
    if precision == "auto" and was in PRECISIONS[1:] and computes_in(was, device):
        return was, "as this run was begun"
    return choose_precision(precision, device, depthwise)


def _change_in_words(change: dict) -> str:
    """Return a line on a change of the hardware that a run has seen."""
    told = [
        f"{name} {was} until then, {new} since" for name, (was, new) in change["settings"].items()
    ]
    return f"changed    at epoch {change['epoch']}: {'; '.join(told)}"


def _range_tested(run: Run, told: dict[str, Any]) -> Run:
    """Return the run whose range test counts for one that was given no name.

    Chapter 2 knows fewer parameters than chapter 3, so its run may have another name.

    Args:
        run: its own range test comes first.
        told: all parameters of `run`, by name.
    """
    if run.has("lr_finder.json"):
        return run
    known = {setting.name for setting in of_chapter("2")}
    name = derive_run_name(**{n: value for n, value in told.items() if n in known})
    return Run(name, run.folder.parent)


def suggested_lr(run: Run) -> tuple[float, str]:
    """Return the learning rate that the run's range test suggested, and what is weak about it.

    Raises:
        InputError: there was no range test, or it came to no suggestion.
    """
    found = run.read_json("lr_finder.json")
    if found.get("suggestion") is None:
        raise InputError(
            f"The range test of run {run.name!r} suggested nothing ({found.get('reason')}); "
            "give max_lr a number."
        )
    return found["suggestion"], found.get("reason", "")


def _lowered_batch_size(recipe: Recipe, size: int, val_fraction: float, notes: list[str]) -> Recipe:
    lowered = limit_batch_size(recipe, round(size * (1 - val_fraction)))
    if lowered.batch_size < recipe.batch_size:
        notes.append(
            f"batch_size {lowered.batch_size} instead of the recipe's {recipe.batch_size}, "
            f"since there are only {size} pictures to train on"
        )
    return lowered


def _growth_in_words(sides: list[int]) -> str:
    """Return which size the pictures have from which epoch on.

    >>> _growth_in_words([16, 16, 24, 32])
    '16 pixels from epoch 1, 24 pixels from epoch 3, 32 pixels from epoch 4'
    """
    first = {side: sides.index(side) + 1 for side in dict.fromkeys(sides)}
    return ", ".join(f"{side} pixels from epoch {epoch}" for side, epoch in first.items())


def check_smallest_batch(
    plan: TrainingPlan,
    network: Network,
    data: PictureDataModule,
    processes: Processes | None = None,
) -> None:
    """Refuse to begin what ends at a batch that the network's normalisation cannot take.

    Of one picture whose last map is one pixel, each channel has one value, which has no spread.

    Args:
        plan: the training.
        network: of the plan.
        data: its batches.
        processes: those that share each batch; None: one has it alone.

    Raises:
        InputError: with what to give.
    """
    # GPUs normalise the whole batch together
    sharing = processes.total if processes and plan.device == "cpu" else 1

    def has_spread(batch_size: int) -> bool:
        return smallest_batch(batch_size, data.per_epoch) >= 2 * sharing

    size = plan.recipe.batch_size
    if has_spread(size) or plan.recipe.fixed_statistics:
        return
    side = min(data.sides, default=plan.picture_set.image_size)
    if _takes_one_picture(network, side):
        return
    larger = next(filter(has_spread, range(size + 1, data.per_epoch + 1)), None)
    advice = "Use more pictures" if larger is None else f"Give batch_size {larger}"
    raise InputError(
        f"With batch_size {size}, the last of the {data.per_epoch:,} pictures of an epoch is "
        f"normalised alone, which {type(network).__name__} cannot at {side} pixels: its last map "
        f"has only one. {advice}, or a larger image_size."
    )


def _takes_one_picture(network: Network, side: int) -> bool:
    """Tell whether a network can be trained on a single picture with sides of so many pixels."""
    tried = deepcopy(network).train()  # a copy: normalisation remembers what it has seen
    try:
        with torch.no_grad():
            tried(torch.zeros(1, 3, side, side))
    except ValueError:  # of torch's batch normalisation
        return False
    return True


class OtherRunError(InputError):
    """A run of this name was begun with other settings."""


def as_begun(plan: TrainingPlan) -> TrainingPlan:
    """Return the plan as its run was begun with, if it was.

    A learning rate that was found may differ: a new sweep may suggest a slightly other one, and
    the run keeps the first. So may the hardware, where the run is complete, or where it was asked
    to go on in another way.

    Raises:
        OtherRunError: the run was begun with other settings; with the differences.
        InputError: it cannot go on here as it was begun; with what to give.
    """
    before = plan.run.settings
    if not before:
        return plan
    # a run of an earlier version did not name what it did not have
    before = {**UNSAID, **before}
    if before.get("max_lr_source") == plan.settings["max_lr_source"] == "found":
        plan = replace(plan, recipe=replace(plan.recipe, max_lr=before["max_lr"]))
    if plan.run.is_trained:  # whatever hardware is here, nothing will be computed
        kept = {name: before[name] for name in HARDWARE if plan.asked[name] == "auto"}
        plan = replace(plan, rest={**plan.rest, **kept})
    names = [n for n in {**before, **plan.settings} if n not in NOT_IDENTITY]
    if not plan.run.is_trained:  # it may go on in another precision, where that is asked for
        names.remove("precision")
    changed = {n: (before.get(n), plan.settings.get(n)) for n in names}
    changed = {n: (was, new) for n, (was, new) in changed.items() if was != new}
    if changed:
        others = []
        if changed.pop("data_fingerprint", None):
            places = before["dataset"], plan.settings["dataset"]
            others = ["it was trained on different pictures: {!r}, now {!r}".format(*places)]
        listed = [f"{n} was {was!r}, now {new!r}" for n, (was, new) in changed.items()]
        listed = "; ".join(others + listed)
        raise OtherRunError(
            f"Run {plan.run.name!r} exists with other settings ({listed}). "
            "Give another run_name, or overwrite=True to replace it."
        )
    if not plan.elsewhere:
        _check_hardware(plan, before)
    return plan


def _check_hardware(plan: TrainingPlan, before: dict) -> None:
    """Refuse to go on with a run in another way than it was begun, unless that is asked for.

    Raises:
        InputError: with what to give.
    """
    change = hardware_change(plan.run, plan.settings)
    if change is None or _is_asked_for(change, plan.asked):
        return
    epoch, device = change["epoch"], plan.settings["devices"]
    if "precision" in change["settings"]:
        give = 'precision="32-true"'
        if before["precision"] == "bf16-mixed":
            give += ', or precision="bf16-mixed" as before, which is slow here'
    else:
        kind, count = split_count(device)
        give = f'devices="{"cpu" if kind == "cpu" else "gpu"}{f":{count}" if count else ""}"'
    raise InputError(
        f"Run {plan.run.name!r} was trained in {before['precision']} on {before['devices']} until "
        f"epoch {epoch - 1}, for which this machine has no units. To go on from epoch {epoch} on "
        f"{device}, give {give}. What was trained is kept."
    )


def _is_asked_for(change: dict, asked: dict) -> bool:
    """Tell whether a person said how to go on. Another device alone asks for less than a format."""
    given = {name for name in HARDWARE if asked[name] != "auto"}
    return "precision" in given or (bool(given) and "precision" not in change["settings"])


def hardware_change(run: Run, settings: dict) -> dict | None:
    """Return how an unfinished run would go on otherwise than it was begun, if it would.

    Returns:
        the epoch from which on, and for each setting that changes what it was and what it will be;
        None where nothing changes or nothing is trained yet.
    """
    if not run.has(*CHECKPOINT) or run.is_trained:
        return None
    before = run.settings
    changed = {n: [before[n], settings[n]] for n in HARDWARE if before.get(n) != settings[n]}
    if not changed:
        return None
    return {"epoch": finished_epochs(run.path(*CHECKPOINT)) + 1, "settings": changed}
