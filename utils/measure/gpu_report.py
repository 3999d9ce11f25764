"""What a GPU makes of this project: one command for whoever has one, and a report to paste.

Each part of the report is made by itself. One that fails, or finds no time left, says so, and the
others are made all the same; the file is written anew after each.
"""

import platform
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from pytorch_lightning import Callback

from utils import InputError, counted
from utils.data.picture_set import PictureSet
from utils.files import ROOT, write_text
from utils.measure import bench, trials
from utils.training.callbacks import NoteLosses, TrainingLog
from utils.training.plan import plan_training
from utils.training.recipes import RECIPES
from utils.training.trainer import build_trainer

REPORT = "report.md"
#: Seconds for all of it.
LIMIT = 480.0
#: What is trained, how often, and in how many epochs waiting is looked for.
RECIPE, SEEDS, EPOCHS = "speed", 5, 2
STARTS = 2
#: What a process that tests may take of it, in bytes.
GPU_MEMORY_OF_A_TEST = 4 * 2**30


@dataclass(frozen=True)
class Part:
    """A part of the report: its heading, and what yields its lines of Markdown."""

    title: str
    lines: Callable[[], Iterable[str]]


class Clock:
    """How much of the time for the report is left."""

    def __init__(self, limit: float = LIMIT):
        self.ends = time.monotonic() + limit

    def left(self) -> float:
        """Return how many seconds are left.

        Raises:
            TimeoutError: none are.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time was left for it")
        return left


def check_gpu_report(beside: str | Path | None = None) -> None:
    """Check what a report needs, before pictures are fetched for it.

    Raises:
        InputError: there is no GPU, or no such script.
    """
    if not torch.cuda.is_available():
        raise InputError("--gpu-report needs a GPU, and torch finds none here.")
    if beside is not None and not Path(beside).is_file():
        raise InputError(f"--beside {beside}: there is no such file.")


def write_report(
    folder: str | Path,
    picture_set: PictureSet,
    dataset: str,
    beside: str | Path | None = None,
    limit: float = LIMIT,
) -> Path:
    """Measure what there is to measure on a GPU, and write it as Markdown.

    Args:
        folder: where the report and all runs go; it is made where it is missing.
        picture_set: what is trained on, from `utils.data.sources.load_pictures`.
        dataset: its ``dataset``, to be given to other processes.
        beside: a Python script that trains something to be compared with, once each time that it is
            started; its last lines are quoted. None for none.
        limit: seconds for all of it.

    Returns:
        the report's file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file, clock = folder.absolute() / REPORT, Clock(limit)
    written = ["# On a GPU", ""]
    for part in _parts(folder.absolute(), picture_set, dataset, beside, clock):
        print(f"{part.title} …", flush=True)
        started = time.monotonic()
        written += [f"## {part.title}", "", *_made(part, clock)]
        written += ["", f"*{time.monotonic() - started:.0f} s*", ""]
        write_text(file, "\n".join(written))
    return file


def _made(part: Part, clock: Clock) -> list[str]:
    """Return the lines of a part; where it fails, those that it had, and why."""
    lines: list[str] = []
    try:
        clock.left()
        for line in part.lines():
            lines.append(line)
    except Exception as error:  # whatever it is, it is a finding
        told = "".join(traceback.format_exception(error)[-3:]).rstrip()
        lines += ["", f"**Not finished: {type(error).__name__}**", "", "```", told, "```"]
    return lines


def _parts(
    folder: Path, picture_set: PictureSet, dataset: str, beside, clock: Clock
) -> Iterator[Part]:
    yield Part("The machine", _machine)
    yield Part("What waits for the GPU within an epoch", lambda: waiting_lines(folder, picture_set))
    yield Part("The parts of training", lambda: _code(bench.table(bench.benchmark(512, 3))))
    yield Part(
        f"`{RECIPE}`, one after another in one process",
        lambda: _trainings(folder, picture_set, clock),
    )
    yield Part(
        f"`{RECIPE}`, from the start of a process", lambda: _starts(folder, dataset, beside, clock)
    )
    yield Part("The six chapters", lambda: _chapters(folder, clock))
    yield Part("The quick tests", lambda: _tests(clock))


def _code(lines: Iterable[str]) -> Iterator[str]:
    yield "```"
    yield from lines
    yield "```"


def _machine() -> Iterator[str]:
    gpu = torch.cuda.get_device_properties(0)
    yield (
        f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}."
        f"{gpu.minor}; {psutil.cpu_count()} CPU cores; Python {platform.python_version()}, torch "
        f"{torch.__version__}"
    )


# Waiting


class _Watch(Callback):
    """Notes each call that waits for the GPU, from an epoch's second step to its last."""

    def __init__(self):
        self.calls: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.steps = 0

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        torch.cuda.synchronize()
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self.steps += 1
        if batch_idx == 0:
            self.caught = warnings.catch_warnings(record=True)
            self.found = self.caught.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        if batch_idx == trainer.num_training_batches - 1:
            torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            self.calls.update(
                f"{Path(w.filename).name}:{w.lineno}"
                for w in self.found
                if "synchronizing CUDA operation" in str(w.message)
            )
            torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self.started)


def waiting_lines(folder: Path, picture_set: PictureSet) -> Iterator[str]:
    """Yield, for each network, what waits for the GPU within an epoch, and what an epoch takes.

    Training does all that it does in `utils.training.fit.fit` after a step, and keeps nothing.
    """
    for name in ("original", RECIPE):
        plan = plan_training(
            picture_set, recipe=name, epochs=EPOCHS, run_name=f"waiting-{name}", output_dir=folder
        )
        classifier, data = plan.classifier(), plan.data_module()
        log, watch = TrainingLog(plan.run, "test", data.per_epoch, EPOCHS), _Watch()
        build_trainer(
            plan.device,
            plan.settings["precision"],
            max_epochs=EPOCHS,
            callbacks=[log, NoteLosses(), watch],
        ).fit(classifier, datamodule=data)
        waits = ", ".join(f"{place} ({n} times)" for place, n in watch.calls.most_common(10))
        yield (
            f"`{name}`: {waits or 'nothing'}, in {counted(watch.steps, 'step')}; the steps of the "
            f"last epoch took {watch.seconds[-1]:.2f} s."
        )
        yield ""


# Trainings


def _trainings(folder: Path, picture_set: PictureSet, clock: Clock) -> Iterator[str]:
    made = []
    variants = {RECIPE: RECIPES[RECIPE]}
    for trial in trials.train_in_turn(picture_set, variants, SEEDS, folder / "trials"):
        made.append(trial)
        yield f"{trial}\n"
        clock.left()
    yield from trials.table(made)


def _starts(folder: Path, dataset: str, beside, clock: Clock) -> Iterator[str]:
    """Yield what a whole process takes, in turn with the script beside it."""
    ours = ["-m", "utils", "bench", "--rounds", "0", "--train", RECIPE, "--seeds", "1"]
    seconds: dict[str, list[float]] = {"this project": []}
    for number in range(STARTS):
        place = str(folder / f"start-{number}")
        asked = [*ours, "--dataset", dataset, "--output-dir", place]
        seconds["this project"].append(_timed_process(asked, ROOT, clock)[0])
        if beside is not None:
            script = Path(beside).absolute()
            taken, told = _timed_process([script.name], script.parent, clock)
            seconds.setdefault(script.name, []).append(taken)
            yield f"{script.name}: {told[-1] if told else 'said nothing'}\n"
    for name, taken in seconds.items():
        yield f"{name}: {trials.mean_and_spread(taken, 1)} s from start to end, n = {len(taken)}\n"
    if beside is not None:
        medians = [statistics.median(taken) for taken in seconds.values()]
        yield f"ratio of medians: {medians[0] / medians[1]:.2f}"


def _timed_process(arguments: Sequence[str], folder: Path, clock: Clock) -> tuple[float, list[str]]:
    """Return the seconds that a Python process took, and the lines that it printed.

    Raises:
        RuntimeError: it failed.
        subprocess.TimeoutExpired: it took more time than was left.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=clock.left(),
        check=False,
    )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        last = [*lines[-15:], *done.stderr.splitlines()[-15:]]
        raise RuntimeError("\n".join([f"exit status {done.returncode}", *last]))
    return time.perf_counter() - started, lines


def _chapters(folder: Path, clock: Clock) -> Iterator[str]:
    asked = ["-m", "utils", "run", "--run-name", "quickstart", "--output-dir", str(folder)]
    _, lines = _timed_process(asked, ROOT, clock)
    start = next(number for number, line in enumerate(lines) if line.startswith("notebook"))
    yield from _code(lines[start : start + 8])


def _tests(clock: Clock) -> Iterator[str]:
    free = torch.cuda.mem_get_info()[0]
    several = max(1, min((psutil.cpu_count() or 1) // 2, free // GPU_MEMORY_OF_A_TEST))
    asked = ["-m", "not slow", "--numprocesses", str(several), "--dist", "loadfile"]
    _, lines = _timed_process(["-m", "pytest", *asked], ROOT, clock)
    yield from _code(lines[-1:])
