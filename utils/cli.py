"""The command line: ``python -m utils run | train | batch | data | predict | bench | docs …``."""

import argparse
import csv
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils import InputError, as_cell, as_percent, check_number, counted, printable
from utils.settings import FLAG, SETTINGS, SOURCES, WHOLE, derive_run_name, from_shell, of_chapter

QUICKSTART = "quickstart"
INTERRUPTED = 130  # what a shell reports of a program stopped by Ctrl+C
READER_GONE = 141  # and of one whose output nobody reads to its end, as by `| head`
OWN_WORKERS = 60.0  # seconds in which one must be there: nobody else will start any
SHORTCUTS = ("dataset", "recipe", "data_dir")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command given by `arguments` (None: the process's own) and exit with its status."""
    for stream in (sys.stdout, sys.stderr):  # what its encoding has no letters for is escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            _command(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still unsaid
        sys.exit(READER_GONE)


def _command(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except BrokenPipeError:
        raise
    except (InputError, OSError) as error:
        sys.exit(f"error: {_for_shell(str(error), options.command)}")
    except KeyboardInterrupt as stopped:
        print(f"\n{str(stopped) or 'Stopped.'}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _for_shell(message: str, command) -> str:
    """Return a message with its advice as one types it on the command line."""
    option = "--skip-unreadable" if command is _data else r"-p \1 true"
    message = re.sub(r"\b(overwrite|skip_unreadable)=True\b", option, message)
    message = re.sub(r'\b(dataset|data_dir)="([^"]*)"', _as_option, message)
    option = _as_option if command is _data else r"-p \1 \2"
    message = re.sub(r'\b(labels_from|keep_together)=("[^"]*")', option, message)
    return re.sub(r'\b(precision|devices)="([^"]*)"', r"-p \1 \2", message)


def _as_option(written: re.Match) -> str:
    """Return an assignment as the option of a command."""
    return f"--{written[1].replace('_', '-')} {written[2]}"


def _program() -> str:
    """Return what this program was called as."""
    return "davidnet" if Path(sys.argv[0]).stem == "davidnet" else "python -m utils"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program(),
        description="DavidNet trained with PyTorch Lightning and explained with Grad-CAM.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_run,
        _add_train,
        _add_batch,
        _add_data,
        _add_predict,
        _add_bench,
        _add_reproduce,
        _add_trust,
        _add_shortcut,
        _add_rates,
        _add_balance,
        _add_few,
        _add_labels,
        _add_averaging,
        _add_difficult,
        _add_compare,
        _add_docs,
        _add_results,
        _add_badges,
        _add_space,
        _add_export,
        _add_chapters,
    ):
        add(commands)
    return parser


def _add_command(commands, name: str, command, about: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(command=command)
    return parser


def _add_setting(parser, name: str, **changes) -> None:
    """Add an option for a parameter, with its kind, default and meaning."""
    setting = SETTINGS[name]
    kind: dict[str, Any] = {"default": setting.default, "help": setting.meaning}
    if setting.kind is FLAG:
        kind = {"action": "store_true", "help": setting.meaning}
    elif setting.kind is WHOLE:
        kind["type"] = int
    option = f"--{name.replace('_', '-')}"
    parser.add_argument(option, **{**kind, **changes})


# run


def _add_run(commands) -> None:
    about = "Run the notebooks through papermill into outputs/<run name>/."
    parser = _add_command(commands, "run", _run, about)
    _add_run_and_place(parser)
    _add_part_and_parameters(parser)


def _add_run_and_place(parser) -> None:
    """Add the options that say which run, of what, and where."""
    for name in ("run_name", *SHORTCUTS):  # None: not given
        _add_setting(parser, name, default=None)
    _add_setting(parser, "output_dir")


def _add_part_and_parameters(parser) -> None:
    """Add the options that say which notebooks to run, and with what parameters."""
    parser.add_argument("--only", metavar="05,06", help="run only these notebooks")
    parser.add_argument(
        "--from", dest="start", metavar="04", help="run this notebook and those after it"
    )
    _add_parameters(parser)


def _add_parameters(parser) -> None:
    """Add the option that sets any parameter."""
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set any notebook parameter; may be repeated",
    )


def _run(options) -> None:
    from utils.locks import end_with_starter
    from utils.pipeline.sequence import PipelineError, run_notebooks, select_notebooks
    from utils.runs import Run
    from utils.training.preflight import check_asked, check_run

    _refuse_torchrun("a notebook, which starts the processes itself")
    end_with_starter()
    names = select_notebooks(options.only, options.start)
    parameters = _run_parameters(options)
    check_asked(parameters, names)
    usual_name = derive_run_name(**parameters) if parameters else QUICKSTART
    name = usual_name if options.run_name is None else options.run_name
    run = Run(name, options.output_dir)
    check_run(run, parameters, names)
    try:
        finished = run_notebooks(run, parameters, names)
    except PipelineError as error:
        sys.exit(f"error: {_for_shell(str(error), _run)}")
    print(f"\n{'notebook':24}{'seconds':>8}")
    for notebook in finished:
        print(f"{notebook.notebook:24}{notebook.seconds:8.1f}")
    print(f"{'all':24}{sum(notebook.seconds for notebook in finished):8.1f}")
    if run.failure:
        print(f"\nStill to be fixed: {run.failure}")
    folder = printable(str(run.folder))
    print(f"\nExecuted notebooks, figures and the trained network: {folder}")


def _run_parameters(options) -> dict:
    """Return the parameters that were given, by name."""
    given = [(name, from_shell(name, text)) for name, text in options.parameter]
    given += [(n, getattr(options, n)) for n in SHORTCUTS if getattr(options, n) is not None]
    parameters = dict(given)
    for name in parameters:
        if [other for other, _ in given].count(name) > 1:
            raise InputError(f"{name} is given more than once. Give it once.")
    if "run_name" in parameters or "output_dir" in parameters:
        raise InputError(
            "Give the run's name and place as --run-name and --output-dir, not with -p."
        )
    if isinstance(parameters.get("dataset"), str):
        parameters["dataset"] = _dataset_from_shell(parameters["dataset"])
    return parameters


def _dataset_from_shell(dataset: str) -> str:
    """Return a folder's path in full: a shell user means it from the current directory."""
    is_path = dataset not in ("", *SOURCES) and os.path.exists(dataset)
    return os.path.realpath(dataset) if is_path else dataset


def _refuse_torchrun(what: str) -> None:
    """Refuse to do once for each process of torchrun what is to be done once."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError(f"torchrun is for `-m utils train`; this starts {what}. Leave it out.")


# train


def _add_train(commands) -> None:
    about = (
        "Train as chapter 3 does, without a notebook: what torchrun starts once for each device."
    )
    parser = _add_command(commands, "train", _train, about)
    _add_run_and_place(parser)
    _add_parameters(parser)


def _train(options) -> None:
    from utils.data.sources import load_pictures
    from utils.training.fit import fit
    from utils.training.plan import plan_training
    from utils.training.preflight import check_asked
    from utils.training.processes import only_first_speaks

    parameters = _run_parameters(options)
    with only_first_speaks():
        check_asked(parameters, ["03_training"])
        place = {"run_name": options.run_name, "output_dir": options.output_dir}
        plan = plan_training(load_pictures(**parameters), **parameters, **place)
        print(plan)
        run = fit(plan, overwrite=parameters.get("overwrite", False))
        if run.is_trained:
            print(f"\nThe trained network and its figures: {printable(str(run.folder))}")


# batch


def _add_batch(commands) -> None:
    about = (
        "Run the notebooks for every combination of some parameters' values, several at a time, "
        "into outputs/<name>/; the same command again goes on."
    )
    parser = _add_command(commands, "batch", _batch, about)
    parser.add_argument(
        "file", nargs="?", help="a YAML file with name, output_dir, grid, parameters and kinds"
    )
    parser.add_argument("--name", help="of the batch: a folder below output_dir")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a parameter's values: a,b,c or, for whole numbers, FIRST:LAST or FIRST:LAST:STEP; "
        "may be repeated",
    )
    for name in SHORTCUTS:
        _add_setting(parser, name, default=None)
    _add_setting(parser, "output_dir", default=None)
    _add_part_and_parameters(parser)
    parser.add_argument("--workers", type=int, help="how many runs at once (default: what fits)")
    parser.add_argument(
        "--scheduler",
        metavar="tcp://HOST:8786",
        help="a Dask scheduler whose workers do the runs (default: workers on this machine)",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="try runs again that failed before"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be run, and how long it takes"
    )


def _batch(options) -> None:
    from utils.batch.batch import plan_batch, print_plan, run_batch
    from utils.batch.workers import local_workers, plan_workers, visible_gpus, workers_of
    from utils.pipeline.sequence import select_notebooks

    asked, names = _asked_for(options), select_notebooks(options.only, options.start)
    environments, threads = None, None
    if options.scheduler is None:
        gpus = visible_gpus(asked.parameters.get("devices"))
        environments, threads = plan_workers(options.workers, gpus)
    elif options.workers is not None:
        raise InputError("--workers are those of this machine; a --scheduler has its own.")
    batch = plan_batch(asked, names, threads, elsewhere=options.scheduler is not None)
    if options.dry_run:
        at_once = None if environments is None else len(environments)
        print_plan(batch, at_once, options.retry_failed)
        return

    def workers():
        if environments is None:
            return workers_of(options.scheduler)
        return local_workers(environments)

    patience = None if environments is None else OWN_WORKERS
    if run_batch(batch, workers, options.retry_failed, patience=patience):
        sys.exit(1)


def _asked_for(options):
    """Return the batch that a file and what stands beside it ask for."""
    from utils.batch.grid import Asked, read_file, read_grid

    grid, parameters = read_grid(options.grid), _run_parameters(options)
    asked = Asked(options.name, options.output_dir, grid, parameters)
    if options.file is not None:
        asked = read_file(options.file).joined(asked)
    asked.joined(Asked())  # refuses what is both a grid and not
    for values in (asked.parameters, asked.grid, *asked.kinds):
        if "dataset" in values:
            values["dataset"] = _each_dataset_from_shell(values["dataset"])
    return asked


def _each_dataset_from_shell(dataset):
    """Return the same of a grid's values, or of one."""
    if isinstance(dataset, list):
        return [_each_dataset_from_shell(each) for each in dataset]
    return _dataset_from_shell(dataset) if isinstance(dataset, str) else dataset


# data


def _add_data(commands) -> None:
    about = "Fetch or check a data set, and say what is there."
    parser = _add_command(commands, "data", _data, about)
    for name in (
        "dataset",
        "data_dir",
        "image_size",
        "skip_unreadable",
        "labels_from",
        "keep_together",
    ):
        _add_setting(parser, name)


def _data(options) -> None:
    from utils.data.audit import audit_in_words
    from utils.data.sources import load_pictures

    picture_set = load_pictures(
        dataset=_dataset_from_shell(options.dataset),
        data_dir=options.data_dir,
        image_size=options.image_size,
        skip_unreadable=options.skip_unreadable,
        labels_from=options.labels_from,
        keep_together=options.keep_together,
    )
    print(
        f"{picture_set.title}: {len(picture_set.classes)} classes, "
        f"{picture_set.image_size} pixels a side"
    )
    width = max(map(len, picture_set.classes))
    splits = (picture_set.train.targets, picture_set.test.targets)
    counts = [targets.bincount(minlength=len(picture_set.classes)) for targets in splits]
    for name, train, test in zip(picture_set.classes, *counts, strict=True):
        print(f"  {name:{width}}  {train:6} train  {test:6} test")
    print(f"  {'all':{width}}  {len(picture_set.train):6} train  {len(picture_set.test):6} test")
    print(f"mean {picture_set.mean}, std {picture_set.std} per channel")
    print(f"fingerprint {picture_set.fingerprint[:16]}")
    print("\n".join(picture_set.notes))
    if picture_set.audit is not None:
        print(audit_in_words(picture_set.audit))


# predict


def _add_predict(commands) -> None:
    about = "Classify any pictures with a trained run, or with a network exported from one."
    parser = _add_command(commands, "predict", _predict, about)
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--run", help="name of the run (default: the newest complete one)")
    asked.add_argument(
        "--model", metavar="FOLDER", help="what `export` wrote, in place of a run; needs no torch"
    )
    parser.add_argument("--output-dir", default="outputs", help="where runs are kept")
    parser.add_argument("--top", type=int, default=3, help="how many classes to show (default: 3)")
    parser.add_argument("--csv", action="store_true", help="print every class's probability as CSV")
    parser.add_argument(
        "--sets",
        action="store_true",
        help="also print a set of classes that holds the right one as often as chapter 5 promised, "
        "or that the network does not know",
    )
    parser.add_argument(
        "--maps",
        metavar="FOLDER",
        help="also write each picture beside the map for the class it is predicted to be",
    )
    parser.add_argument("pictures", nargs="+", help="picture files, or folders of them")


def _model_to_ask(options):
    """Return the network that was meant: of a run, or exported from one."""
    if options.model is not None:
        from utils.explain.exported import ExportedModel

        return ExportedModel(options.model)
    from utils.explain.trained_model import TrainedModel

    return TrainedModel(_trained_run(options))


def _trained_run(options):
    """Return the run that was named, or the newest complete one."""
    from utils.runs import find_run

    run = find_run(options.run, options.output_dir)
    if run is None:
        raise InputError(
            f"There is no trained run in {options.output_dir}. Train one with: python -m utils run"
        )
    if options.run is None:
        print(f"Run {run.name!r}, the newest complete one.", file=sys.stderr)
    return run


def _predict(options) -> None:
    from utils.data.folders import count_endings, few
    from utils.explain.predict import find_pictures, predict_pictures, write_maps
    from utils.explain.prediction_sets import sets_in_words

    check_number("--top", options.top, 1, 1_000, whole=True)
    paths, others = find_pictures(options.pictures)
    model = _model_to_ask(options)
    thresholds = model.thresholds() if options.sets else None
    classes, probabilities, failures = predict_pictures(model, paths)
    classes = [printable(name) for name in classes]
    readable = [printable(str(p)) for position, p in enumerate(paths) if position not in failures]
    sets = None if thresholds is None else sets_in_words(probabilities, thresholds, classes)
    if options.csv:
        _print_csv(readable, classes, probabilities, sets)
    else:
        _print_table(readable, classes, probabilities, sets, options.top)
    if options.maps:
        print(printable(write_maps(model, paths, Path(options.maps))), file=sys.stderr)
    problems = list(failures.values())
    if others:
        problems.append(
            f"{counted(len(others), 'file')} of kinds that are not read "
            f"({count_endings(map(str, others))}): {few(map(str, others))}"
        )
    if problems:
        sys.exit("\n".join(printable(f"error: {problem}") for problem in problems))


def _print_csv(paths, classes, probabilities, sets) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    paths, classes = map(as_cell, paths), [as_cell(name) for name in classes]
    sets = None if sets is None else [as_cell(told) for told in sets]
    writer.writerow(["picture", "predicted", *classes, *(["set"] if sets is not None else [])])
    for number, (path, row) in enumerate(zip(paths, probabilities, strict=True)):
        told = [sets[number]] if sets is not None else []
        writer.writerow([path, classes[row.argmax()], *(f"{p:.6f}" for p in row), *told])


def _print_table(paths, classes, probabilities, sets, top) -> None:
    width = max((len(path) for path in paths), default=0)
    wide = max((len(told) for told in sets or ()), default=0)
    for number, (path, row) in enumerate(zip(paths, probabilities, strict=True)):
        best = row.argsort()[::-1][:top]
        told = f"{sets[number]:{wide}}  " if sets is not None else ""
        shown = "   ".join(f"{classes[i]} {as_percent(row[i])}" for i in best)
        print(f"{path:{width}}  {told}{shown}")


# bench


def _add_bench(commands) -> None:
    about = "Measure this machine, and what training makes of it: step, loader, evaluation, maps."
    parser = _add_command(commands, "bench", _bench, about)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often to measure each, in turn; 0: not at all"
    )
    _add_setting(parser, "precision")
    parser.add_argument("--json", help="also write the figures to this file")
    gpu = parser.add_argument_group("on a GPU")
    gpu.add_argument(
        "--gpu-report",
        metavar="FOLDER",
        help="measure all that a GPU can tell, in eight minutes, and write FOLDER/report.md",
    )
    gpu.add_argument(
        "--beside",
        metavar="SCRIPT",
        help="a Python script that trains once, to be timed beside ours for that report",
    )
    training = parser.add_argument_group("time to accuracy")
    training.add_argument("--train", metavar="RECIPE", help="also train with this recipe")
    training.add_argument("--seeds", type=int, default=3, help="how often, each from another seed")
    training.add_argument(
        "--leave-one-out", action="store_true", help="and also without each of the recipe's parts"
    )
    training.add_argument("--table", metavar="FILE", help="also write the table to this file")
    training.add_argument(
        "--dataset", default="cifar10", help="as for the command run (default: cifar10)"
    )
    training.add_argument("--data-dir", default="data", help="as for the command run")
    training.add_argument("--dataset-title", help="how to name the data, e.g. where it is a copy")
    training.add_argument(
        "--output-dir", default="outputs/trials", help="where these runs are kept"
    )


def _bench(options) -> None:
    from utils.measure.bench import print_benchmark

    if options.gpu_report:
        _gpu_report(options)
        return
    check_number("--rounds", options.rounds, 0 if options.train else 1, 1_000, whole=True)
    picture_set = None
    if options.train:
        from utils.training.recipes import choose_recipe

        check_number("--seeds", options.seeds, 1, 1_000, whole=True)
        choose_recipe(options.train, options.dataset)
        picture_set = _pictures_to_train_on(options)
    if options.rounds:
        print_benchmark(options.batch_size, options.rounds, options.json, options.precision)
    if picture_set is not None:
        from utils.measure.trials import print_trials

        print_trials(
            picture_set,
            options.train,
            options.seeds,
            options.leave_one_out,
            options.output_dir,
            options.table,
        )


def _gpu_report(options) -> None:
    from utils.measure.gpu_report import check_gpu_report, write_report

    check_gpu_report(options.beside)
    dataset = _dataset_from_shell(options.dataset)
    file = write_report(options.gpu_report, _pictures_to_train_on(options), dataset, options.beside)
    print(f"The report: {printable(str(file))}")


def _pictures_to_train_on(options):
    from utils.data.sources import load_pictures

    return load_pictures(
        dataset=_dataset_from_shell(options.dataset),
        data_dir=options.data_dir,
        dataset_title=options.dataset_title,
        limit_train=getattr(options, "limit_train", None),
        limit_test=getattr(options, "limit_test", None),
    )


# reproduce


def _add_reproduce(commands) -> None:
    about = "Train as the original did, with each augmentation it may have had; compare the logs."
    parser = _add_command(commands, "reproduce", _reproduce, about)
    for name, default in (("dataset", "cifar10"), ("data_dir", "data"), ("dataset_title", None)):
        _add_setting(parser, name, default=default)
    parser.add_argument(
        "--output-dir", default="outputs/reproduction", help="where these runs are kept"
    )
    parser.add_argument(
        "--only", metavar="a,b", default="a,b,c", help="train with these (default: a,b,c)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="how often with each (default: once)")
    parser.add_argument(
        "--kept",
        metavar="FILE",
        default="outputs/reproduction/candidates.json",
        help="where the curves are kept; those it has already are compared too",
    )
    parser.add_argument("--table", metavar="FILE", help="also write the table to this file")


def _reproduce(options) -> None:
    from utils.measure.reproduction import print_candidates

    print_candidates(
        _pictures_to_train_on(options),
        options.only.split(","),
        options.output_dir,
        options.kept,
        options.table,
        options.seeds,
    )


# trust


def _add_trust(commands) -> None:
    about = "Measure whether the maps of a run show what its network used, and keep the tables."
    parser = _add_command(commands, "trust", _trust, about)
    parser.add_argument("--run", required=True, help="a complete run")
    _add_setting(parser, "output_dir")
    for name in ("data_dir", "dataset"):
        _add_setting(parser, name, default=None)
    parser.add_argument("--count", type=int, default=1000, help="on how many test pictures")
    parser.add_argument(
        "--mistakes", action="store_true", help="on pictures that the network is wrong about"
    )
    parser.add_argument(
        "--channel-count",
        type=int,
        default=100,
        help="on how many for ScoreCAM and AblationCAM, which take long; 0: without them",
    )
    parser.add_argument(
        "--keep", metavar="FOLDER", help="where to write the tables (default: the run's trust/)"
    )


def _trust(options) -> None:
    from utils.data.sources import pictures_of
    from utils.measure.trust_report import print_trust
    from utils.runs import Run

    run = Run(options.run, options.output_dir)
    dataset = None if options.dataset is None else _dataset_from_shell(options.dataset)
    picture_set = pictures_of(run, options.data_dir, dataset)
    counts = options.count, options.channel_count
    print_trust(run, picture_set, *counts, options.keep, mistakes=options.mistakes)


# shortcut


def _add_shortcut(commands) -> None:
    about = "Plant a mark that tells the class, and measure which maps would have warned of it."
    parser = _add_command(commands, "shortcut", _shortcut, about)
    _add_setting(parser, "data_dir")
    parser.add_argument("--seeds", type=int, default=5, help="how many pairs of networks")
    parser.add_argument("--count", type=int, default=500, help="on how many test pictures")
    parser.add_argument(
        "--output-dir", default="outputs/shortcut", help="where these runs are kept"
    )
    parser.add_argument("--table", metavar="FILE", help="also write the table to this file")


def _shortcut(options) -> None:
    from utils.data.sources import load_pictures
    from utils.measure.shortcut import print_shortcut

    picture_set = load_pictures(dataset="shapes", data_dir=options.data_dir)
    print_shortcut(picture_set, options.seeds, options.count, options.output_dir, options.table)


# rates


def _add_rates(commands) -> None:
    about = "Train with the recipe's learning rate and with the one that a range test finds."
    parser = _add_command(commands, "rates", _rates, about)
    for name in ("dataset", "data_dir", "dataset_title", "limit_train", "recipe"):
        _add_setting(parser, name)
    parser.add_argument("--epochs", type=int, default=5, help="of each training (default: 5)")
    parser.add_argument("--seeds", type=int, default=3, help="how many pairs (default: 3)")
    parser.add_argument("--output-dir", default="outputs/rates", help="where these runs are kept")
    parser.add_argument("--table", metavar="FILE", help="also write the table to this file")


def _rates(options) -> None:
    from utils.measure.found_rate import print_rates

    check_number("--seeds", options.seeds, 1, 1_000, whole=True)
    print_rates(
        _pictures_to_train_on(options),
        options.recipe,
        options.epochs,
        options.seeds,
        options.output_dir,
        options.table,
    )


# balance


def _add_balance(commands) -> None:
    about = "Train on drawn shapes of unequal frequency, with and without balanced."
    parser = _add_command(commands, "balance", _balance, about)
    parser.add_argument("--ratio", type=float, default=100.0, help="of most to least frequent")
    parser.add_argument("--seeds", type=int, default=5, help="how many pairs (default: 5)")
    for name in ("epochs", "data_dir"):
        _add_setting(parser, name)
    parser.add_argument("--output-dir", default="outputs/balance", help="where these runs are kept")


def _balance(options) -> None:
    from utils.data.sources import load_pictures
    from utils.measure.balance import print_balance

    check_number("--seeds", options.seeds, 2, 1_000, whole=True)
    picture_set = load_pictures(dataset="shapes", data_dir=options.data_dir)
    print_balance(
        picture_set, options.ratio, options.seeds, options.output_dir, epochs=options.epochs
    )


# few


def _add_few(commands) -> None:
    about = "Train on few pictures of each class: a network that has seen many, and a fresh one."
    parser = _add_command(commands, "few", _few, about)
    for name in ("dataset", "data_dir", "dataset_title", "weights", "precision"):
        _add_setting(parser, name)
    about = "use only the first N test pictures, stratified (default: all)"
    _add_setting(parser, "limit_test", help=about)
    parser.add_argument("--per-class", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--seeds", type=int, default=5, help="how many draws (default: 5)")
    parser.add_argument("--output-dir", default="outputs/few", help="where these runs are kept")


def _few(options) -> None:
    from utils.measure.few import print_few

    check_number("--seeds", options.seeds, 2, 1_000, whole=True)
    pictures = _pictures_to_train_on(options)
    many = options.per_class, options.seeds
    print_few(pictures, *many, options.weights, options.output_dir, precision=options.precision)


# labels


def _add_labels(commands) -> None:
    about = "Swap labels of the drawn shapes on purpose; say how many of them chapter 5 would find."
    parser = _add_command(commands, "labels", _labels, about)
    parser.add_argument("--seeds", type=int, default=1, help="how often, each from another seed")
    _add_setting(parser, "data_dir")
    parser.add_argument("--output-dir", default="outputs/swapped", help="where these runs are kept")


def _labels(options) -> None:
    from utils.data.sources import load_pictures
    from utils.measure.swapped_labels import print_found

    check_number("--seeds", options.seeds, 1, 1_000, whole=True)
    picture_set = load_pictures(dataset="shapes", data_dir=options.data_dir)
    print_found(picture_set, options.seeds, options.output_dir)


# averaging


def _add_averaging(commands) -> None:
    about = "Test a run with one view of each picture, and averaged over several in two ways."
    parser = _add_command(commands, "averaging", _averaging, about)
    parser.add_argument("--run", help="a trained run (default: the newest complete one)")
    _add_setting(parser, "output_dir")
    parser.add_argument("--rounds", type=int, default=3, help="how often, in turn (default: 3)")


def _averaging(options) -> None:
    from utils.measure.averaging import print_averaging

    check_number("--rounds", options.rounds, 1, 1_000, whole=True)
    print_averaging(_trained_run(options), options.rounds)


# difficult


def _add_difficult(commands) -> None:
    about = "Write a folder of pictures with planted faults, to take through the chapters."
    parser = _add_command(commands, "difficult", _difficult, about)
    parser.add_argument("folder", help="to be made")
    about = "a folder of five or more classes, some of whose pictures are enlarged"
    parser.add_argument("--dataset", required=True, help=about)
    _add_setting(parser, "seed", help="of the draw")


def _difficult(options) -> None:
    from utils.measure.difficult import make_difficult

    SETTINGS["seed"].check(options.seed)
    for fault, files in make_difficult(
        Path(options.folder), Path(options.dataset), options.seed
    ).items():
        print(printable(f"{fault}: {', '.join(files)}" if files else fault))


# compare


def _add_compare(commands) -> None:
    about = "Compare many runs: chapter 7, through papermill into a folder of its own."
    parser = _add_command(commands, "compare", _compare, about)
    for setting in of_chapter("7"):
        default, meaning = setting.in_chapter("7")
        _add_setting(parser, setting.name, default=default, help=meaning)


def _compare(options) -> None:
    from utils.explain.many_runs import comparison_folder, list_trained
    from utils.pipeline.sequence import PipelineError, run_comparison

    parameters = {setting.name: getattr(options, setting.name) for setting in of_chapter("7")}
    for name, value in parameters.items():
        if value is not None:
            SETTINGS[name].check(value)
    if parameters["dataset"] is not None:
        parameters["dataset"] = _dataset_from_shell(parameters["dataset"])
    folder = comparison_folder(options.comparison, options.runs, options.output_dir)
    list_trained(options.runs)
    try:
        finished = run_comparison(folder, parameters)
    except PipelineError as error:
        sys.exit(f"error: {error}")
    print(f"\n{finished.notebook} took {finished.seconds:.1f} s.")
    print(f"Executed notebook, figures and tables: {printable(str(folder.folder))}")


# docs, results, badges


def _add_docs(commands) -> None:
    about = "Render the executed chapters as a site, in build/docs/."
    parser = _add_command(commands, "docs", _docs, about)
    parser.add_argument(
        "--run", help="whose chapters to show (default: the reference run's, in docs/rendered/)"
    )
    parser.add_argument("--output-dir", default="outputs", help="where runs are kept")


def _docs(options) -> None:
    from utils.publish.book import build_site
    from utils.runs import Run

    run = None if options.run is None else Run(options.run, options.output_dir)
    print(f"The book: {printable(str(build_site(run)))}")


def _add_results(commands) -> None:
    about = (
        "Keep a run as the reference: its chapters in docs/rendered/, its results in the README."
    )
    parser = _add_command(commands, "results", _results, about)
    parser.add_argument("run", help="folder of the reference run, e.g. outputs/original")
    parser.add_argument("others", nargs="*", help="folders of runs to compare with it")


def _results(options) -> None:
    from utils.files import write_files
    from utils.publish.book import RENDERED, chapters_to_keep
    from utils.publish.results import results_of
    from utils.runs import Run

    folders = [Path(folder) for folder in (options.run, *options.others)]
    reference, *others = (Run(folder.name, folder.parent.absolute()) for folder in folders)
    kept = chapters_to_keep(reference)
    write_files({**kept, **results_of(reference, others)})
    print(f"{len(kept)} chapters in {RENDERED}; results in README.md and docs/results.md")


def _add_badges(commands) -> None:
    about = "Write the repository's public address, and the Colab badges, wherever they belong."
    parser = _add_command(commands, "badges", _badges, about)
    parser.add_argument(
        "--repo",
        metavar="OWNER/NAME",
        help="as on GitHub (default, in a workflow there: the repository that it runs in)",
    )


def _badges(options) -> None:
    from utils.publish.badges import address_to_write, write_badges

    repo = address_to_write(options.repo)
    changed = write_badges(repo)
    unchanged = f"Nothing to change: the address is {repo} already."
    print("\n".join(f"written: {path}" for path in changed) or unchanged)


def _add_chapters(commands) -> None:
    about = "Write the chapters' first cells and parameters as they are declared; fold plumbing."
    _add_command(commands, "chapters", _chapters, about)


def _chapters(options) -> None:
    from utils.pipeline.cells import write_cells

    changed = write_cells()
    print("\n".join(f"written: {path}" for path in changed) or "Nothing to change.")


# space


def _add_space(commands) -> None:
    about = "Make a run into a Hugging Face Space: a page on which people question its network."
    actions = _add_command(commands, "space", None, about).add_subparsers(
        required=True, metavar="ACTION"
    )
    about = "Write OUTPUT_DIR/RUN/space/, complete and ready to be started or uploaded."
    build = _add_command(actions, "build", _space_build, about)
    build.add_argument("--run", required=True, help="a complete run")
    build.add_argument("--output-dir", default="outputs", help="where runs are kept")
    build.add_argument("--data-dir", help="where its data are kept now (default: where they were)")
    build.add_argument(
        "--dataset", help="what it was trained on, where that lies now (default: where it lay)"
    )
    about = "Start what was built and measure it: start, one visitor, many at once, memory."
    measure = _add_command(actions, "measure", _space_measure, about)
    measure.add_argument("--run", required=True, help="whose space/ to measure")
    measure.add_argument("--output-dir", default="outputs", help="where runs are kept")
    measure.add_argument("--python", default=sys.executable, help="of the Space's environment")
    measure.add_argument("--people", type=int, default=20, help="how many at once")
    measure.add_argument("--requests", type=int, default=10, help="how many each makes")
    push = _add_command(actions, "push", _space_push, "Upload what was built.")
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help="as on Hugging Face")
    push.add_argument("--run", required=True, help="whose space/ to upload")
    push.add_argument("--output-dir", default="outputs", help="where runs are kept")
    push.add_argument("--dry-run", action="store_true", help="only say what would be uploaded")


def _space_build(options) -> None:
    from utils.publish.space import build_space, describe_space
    from utils.runs import Run

    dataset = None if options.dataset is None else _dataset_from_shell(options.dataset)
    folder = build_space(Run(options.run, options.output_dir), options.data_dir, dataset)
    print(printable(f"{describe_space(folder)}\n\nThe Space: {folder}\nStart it: python app.py"))


def _space_measure(options) -> None:
    from utils.measure.load_test import print_waiting
    from utils.publish.space import built_space, clean_copy
    from utils.runs import Run

    with clean_copy(built_space(Run(options.run, options.output_dir))) as folder:
        print_waiting(folder, options.python, options.people, options.requests)


def _space_push(options) -> None:
    from utils.publish.space import built_space, check_repository, describe_space, push_space
    from utils.runs import Run

    check_repository(options.repo)
    folder = built_space(Run(options.run, options.output_dir))
    print(printable(describe_space(folder)))
    if options.dry_run:
        print(f"\nwould go to {options.repo}")
        return
    print(f"The Space: {push_space(folder, options.repo)}")


# export


def _add_export(commands) -> None:
    about = (
        "Write a run's network as ONNX, with its map, classes and model card: for programs of your "
        "own, and for `predict --model` without torch."
    )
    parser = _add_command(commands, "export", _export, about)
    parser.add_argument("--run", help="name of the run (default: the newest complete one)")
    _add_setting(parser, "output_dir")
    parser.add_argument("--to", metavar="FOLDER", help="where to (default: the run's export/)")
    for name in ("method", "block"):
        parser.add_argument(f"--{name}", help="of the map (default: the one measured best)")
    parser.add_argument(
        "--check",
        type=int,
        default=1000,
        help="on how many test pictures to compare ONNX Runtime with PyTorch (default: 1000); 0: "
        "on none, where the pictures are gone",
    )
    for name in ("data_dir", "dataset"):
        _add_setting(parser, name, default=None)


def _export(options) -> None:
    from utils.publish.export import export_run

    check_number("--check", options.check, 0, 1_000_000, whole=True)
    told = export_run(
        _trained_run(options),
        None if options.to is None else Path(options.to).absolute(),
        options.method,
        options.block,
        options.check,
        options.data_dir,
        None if options.dataset is None else _dataset_from_shell(options.dataset),
    )
    print(printable(told))
