"""What is refused before the first notebook starts, instead of in the middle of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils import check_choice, counted
from utils.pipeline.sequence import check_names, check_needed
from utils.runs import Run, find_run
from utils.settings import PICTURES, PLACE, RECIPE, SHOWN, TRAINING, with_defaults
from utils.training.recipes import Recipe, choose_recipe, overrides


def check_asked(parameters: Mapping, names: Sequence[str], elsewhere: bool = False) -> None:
    """Refuse unknown names and impossible values.

    The checks are those the notebooks themselves make; a library is imported only for a
    parameter that needs it.

    Args:
        parameters: those that were given, by name.
        names: of the notebooks that will run.
        elsewhere: whether on another machine; whether it has the hardware is then left to it.

    Raises:
        InputError: naming the parameter, its value and what is allowed.
    """
    check_names(parameters, names)
    check_needed(parameters, names)
    given = {name for name, value in parameters.items() if value is not None}
    values, recipe = _resolved(parameters)
    if "dataset" in given:
        from utils.data.sources import check_dataset

        check_dataset(values["dataset"])
    if given & {"model", "image_size", "precision", "devices", "num_nodes", "strategy"}:
        from utils.devices import choose_device, choose_precision
        from utils.models.registry import check_model
        from utils.training.processes import choose_processes

        check_model(recipe.model, values["image_size"])
        if not elsewhere or values["devices"] == "cpu":  # which every machine has
            device, _ = choose_device(values["devices"])
            choose_precision(values["precision"], device)
        choose_processes(*(values[name] for name in ("devices", "num_nodes", "strategy")))
    if "block" in given:
        from utils.models.registry import MODELS

        # without a training, the network is the run's, and chapter 6 compares with that
        models = [recipe.model] if "03_training" in names else MODELS
        blocks = dict.fromkeys(block for model in models for block in MODELS[model].blocks)
        check_choice("block", values["block"], tuple(blocks))


def check_run(run: Run, parameters: Mapping, names: Sequence[str]) -> None:
    """Refuse a run in which these notebooks cannot do what is asked.

    Raises:
        InputError: its training was begun with other settings, with the differences; the disks
            have no room; its network cannot begin from the weights that were given; or what a
            notebook needs of it does not exist.
    """
    if "03_training" not in names:
        if names[-1] > "03_training":  # a chapter about a run: it must be there
            find_run(run.name, run.folder.parent)
        return
    if parameters.get("max_lr") == "found" and "02_lr_finder" not in names:
        run.existing("lr_finder.json")
    check_begun(run, parameters)
    if run.is_trained and not parameters.get("overwrite"):
        return
    _check_room(run, parameters)
    _check_weights(parameters)


def check_begun(
    run: Run, parameters: Mapping[str, Any], pictures=None, elsewhere: bool = False
) -> None:
    """Refuse a run that was begun with other settings, or on other pictures.

    Args:
        run: may have no folder yet.
        parameters: those that were given, by name.
        pictures: from `utils.data.sources.load_pictures`, with these parameters; None reads them
            where they are needed.
        elsewhere: whether another machine will go on with it; that its hardware is other than the
            run was begun with is then left to it.

    Raises:
        OtherRunError: with the differences.
        InputError: it cannot go on here as it was begun, or its pictures cannot be read.
    """
    sweep_to_come = parameters.get("max_lr") == "found" and not run.path("lr_finder.json").exists()
    if not run.settings or parameters.get("overwrite") or sweep_to_come:
        return
    from utils.data.sources import load_pictures
    from utils.training.plan import as_begun, plan_training

    options: dict[str, Any] = {**parameters, "run_name": run.name, "output_dir": run.folder.parent}
    pictures = pictures or load_pictures(**parameters)
    as_begun(plan_training(pictures, elsewhere=elsewhere, **options))


def check_room_for_all(folder: Path, parameters: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to begin trainings whose weights and checkpoints the disk has no room for.

    Args:
        folder: where their runs are kept; may not exist yet.
        parameters: of each training.

    Raises:
        InputError: with what is needed and what is free.
    """
    from utils.files import check_space
    from utils.models.registry import create_model
    from utils.training.fit import bytes_kept

    counts: Counter[tuple[str, int]] = Counter()
    for given in parameters:
        values, recipe = _resolved(given)
        counts[recipe.model, values["image_size"]] += 1
    needed = sum(
        count * bytes_kept(create_model(model, num_classes=10, image_size=image_size))
        for (model, image_size), count in counts.items()
    )
    check_space(folder, needed, f"Keeping {counted(len(parameters), 'training')}")


def resolved_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting that these parameters come to before pictures or hardware are known.

    Raises:
        InputError: a value that its parameter cannot have.
    """
    values, recipe = _resolved(parameters)
    return values | recipe.as_settings()


def _check_weights(parameters: Mapping[str, Any]) -> None:
    """Refuse weights that the network cannot begin from; they are fetched now if they have to be.

    Raises:
        InputError: with what to do.
    """
    from utils.models.backbones import BACKBONES
    from utils.models.pretrained import begin, start_of

    values, recipe = _resolved(parameters)
    start_of(recipe.model, values["weights"])
    if recipe.model in BACKBONES:
        begin(BACKBONES[recipe.model](), values["weights"])


def _check_room(run: Run, parameters: Mapping[str, Any]) -> None:
    from utils.data.sources import bytes_to_keep
    from utils.files import check_space, existing_part
    from utils.models.registry import create_model
    from utils.training.fit import bytes_to_train

    values, recipe = _resolved(parameters)
    image_size = values["image_size"]
    train = bytes_to_train(create_model(recipe.model, num_classes=10, image_size=image_size))
    cache, keep = bytes_to_keep(**values)
    devices = {existing_part(folder).stat().st_dev for folder in (run.folder, cache)}
    if len(devices) == 1:
        check_space(run.folder, train + keep, "Training, with a decoded copy of the pictures,")
    else:
        check_space(run.folder, train, "Training")
        check_space(cache, keep, "A decoded copy of the pictures")


def _resolved(parameters: Mapping[str, Any]) -> tuple[dict, Recipe]:
    """Return every parameter, those that were given and the others by default, and the recipe."""
    given = {name: value for name, value in parameters.items() if value is not None}
    values = with_defaults(PLACE, PICTURES, RECIPE, TRAINING, SHOWN, **given)
    return values, choose_recipe(values["recipe"], values["dataset"], **overrides(values))
