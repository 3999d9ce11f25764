"""What this machine can do, and how much of that training uses.

First the ceilings: a matrix product, a 3×3 convolution and a copy of memory. Then each network's
training step, bare and through Lightning's Trainer, its loader, its evaluation and its maps, as
shares of those. Machines are shared and noisy, so all are measured in turn, round by round, and
compared as ratios of medians.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from pytorch_lightning import Callback
from torch.nn.functional import conv2d, cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from utils import InputError, check_number
from utils.data.augment import augment
from utils.data.augmentation import Augmentation
from utils.data.batches import (
    EVAL_BATCH_SIZE,
    EpochShuffle,
    PictureDataModule,
    batch_loader,
    evaluation_batch_size,
)
from utils.data.mapped import TensorFile, map_tensors
from utils.data.picture_set import PictureSet, Split
from utils.devices import (
    autocast,
    available_memory,
    choose_device,
    choose_precision,
    dtype_of,
    keep_freed_memory,
)
from utils.explain.gradcam import class_activation_maps, first_choice
from utils.explain.imputation import impute
from utils.explain.map_measures import removal_curves
from utils.files import write_text
from utils.models.convolution import plain_convolutions
from utils.models.network import Network
from utils.models.registry import OWN, create_model
from utils.models.winograd import convolve
from utils.progress import progress_bar
from utils.training.classifier import ImageClassifier, build_optimizer
from utils.training.recipes import CANDIDATES, RECIPES, Recipe
from utils.training.recorded_pass import RecordedPass
from utils.training.trainer import build_trainer

#: What a training step takes of memory for each picture of its batch.
BYTES_A_PICTURE = 5_000_000
MEAN_STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
EVALUATED = 8 * EVAL_BATCH_SIZE
NINE_SHARES = tuple(tenths / 10 for tenths in range(1, 10))
CONVOLUTION, CONVOLUTION_FORWARD = "3×3 convolution, both ways", "3×3 convolution, forward"
IN_FLOAT32 = f"{CONVOLUTION}, float32"
#: Two ways to compute the convolution that is measured, of 16×16 pixels.
PLAIN, BY_WINOGRAD = partial(conv2d, padding=1), partial(convolve, rows=16, columns=16)
WINOGRAD = "3×3 convolution, Winograd, float32"
#: How many steps a measurement makes in a row, and the Trainer makes before. A GPU is asked for the
#: next step while it is at this one, and records the first few.
STEPS = {"cuda": (16, 5)}
FEW_STEPS = (2, 1)
#: A batch in which a step's fixed costs weigh more.
SMALL_BATCH = 64


@dataclass(frozen=True)
class Part:
    """One thing to measure.

    Attributes:
        name: in the table.
        unit: what is counted.
        amount: how many of these one measurement does.
        measure: does it, and returns the seconds it took.
        of: the part whose rate bounds this one, or None.
        amount_of: how much of that part's unit one measurement does.
        is_cost: the share is of that part's time, and better low.
    """

    name: str
    unit: str
    amount: float
    measure: Callable[[], float]
    of: str | None = None
    amount_of: float = 0.0
    is_cost: bool = False


def print_benchmark(
    batch_size: int = 512,
    rounds: int = 3,
    json_path: str | None = None,
    precision: str = "auto",
) -> None:
    """Measure, print a table, and write the figures as JSON if asked.

    Raises:
        InputError: a number out of range, too little memory, a precision that is unknown or not
            for this device, or nowhere to write to.
    """
    check_number("--batch-size", batch_size, 2, 100_000, whole=True)
    check_number("--rounds", rounds, 1, 1_000, whole=True)
    if (needed := batch_size * BYTES_A_PICTURE) > (free := available_memory()):
        raise InputError(
            f"--batch-size {batch_size} needs about {needed / 1e9:.1f} GB of memory, but only "
            f"{free / 1e9:.1f} GB are free. Lower it."
        )
    if json_path and not Path(json_path).resolve().parent.is_dir():
        raise InputError(f"--json {json_path}: the folder {Path(json_path).parent} does not exist.")
    report = benchmark(batch_size, rounds, precision)
    print("\n".join(table(report)))
    if json_path:
        write_text(Path(json_path), json.dumps(report, indent=2) + "\n")


def table(report: dict) -> Iterator[str]:
    """Yield the lines of a report, to be pasted anywhere."""
    yield (
        f"{report['hardware']}, {report['precision']}, channels-last, batch {report['batch_size']}"
        f", torch {report['torch']}, n = {report['rounds']} rounds in turn"
    )
    for name, row in report["parts"].items():
        rates = [row["amount"] / seconds for seconds in row["seconds"]]
        mean, spread = statistics.mean(rates), statistics.pstdev(rates)
        line = f"  {name:36}{mean:11,.0f} ± {spread:<8,.0f}{row['unit'] + '/s':12}"
        if row["of"]:
            what = "the time of " if row["is_cost"] else ""
            line += f"  {row['share']:6.1%} of {what}{row['of']}"
        yield line
    yield from _warning(report)


def _warning(report: dict) -> Iterator[str]:
    """Yield a line where convolutions in 16 bits are slower than in float32."""
    parts = report["parts"]
    if IN_FLOAT32 not in parts:
        return
    low, plain = (statistics.median(parts[n]["seconds"]) for n in (CONVOLUTION, IN_FLOAT32))
    if low > plain:
        yield (
            f"Convolutions take {low / plain:.1f} times as long in {report['precision']} as in "
            f"float32 here: a fault of torch {report['torch']}, or no units for it. Train with "
            "precision=32-true, or with another version of torch."
        )


def benchmark(batch_size: int, rounds: int, precision: str = "auto") -> dict:
    """Return the seconds of each part in each round, and its share (of medians)."""
    device, hardware = choose_device()
    precision, _ = choose_precision(precision, device)
    keep_freed_memory()
    parts = list(_ceilings(device, precision))
    for model in OWN:
        parts += _network_parts(model, batch_size, device, precision)
    seconds: dict[str, list[float]] = {part.name: [] for part in parts}
    with progress_bar(
        description="Benchmark", total=(rounds + 1) * len(parts), unit="measurements"
    ) as bar:
        for number in range(rounds + 1):
            for part in parts:
                bar.set_description(part.name)
                taken = part.measure()
                if number:  # the first round warms up
                    seconds[part.name].append(taken)
                bar.update()
    return {
        "hardware": hardware,
        "precision": precision,
        "batch_size": batch_size,
        "torch": torch.__version__,
        "rounds": rounds,
        "parts": {part.name: _row(part, parts, seconds) for part in parts},
    }


def _row(part: Part, parts: list[Part], seconds: dict[str, list[float]]) -> dict:
    row = {
        "unit": part.unit,
        "amount": part.amount,
        "seconds": seconds[part.name],
        "of": part.of,
        "is_cost": part.is_cost,
    }
    if part.of:
        bound = next(other for other in parts if other.name == part.of)
        rate = part.amount_of / statistics.median(seconds[part.name])
        share = rate / (bound.amount / statistics.median(seconds[part.of]))
        row["share"] = 1 / share if part.is_cost else share
    return row


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _timed(device: str, work: Callable, times: int = 1) -> Callable[[], float]:
    def measure() -> float:
        started = _clock(device)
        for _ in range(times):
            work()
        return _clock(device) - started

    return measure


# Ceilings


def _ceilings(device: str, precision: str, times: int = 10) -> Iterator[Part]:
    low = dtype_of(precision)
    for dtype in dict.fromkeys((torch.float32, low)):
        name = f"matrix product, {str(dtype).removeprefix('torch.')}"
        flops, work = _matrix_product(device, dtype)
        yield Part(name, "GFLOP", times * flops / 1e9, _timed(device, work, times))
    convolutions = [(CONVOLUTION_FORWARD, low, False), (CONVOLUTION, low, True)]
    if low != torch.float32:
        convolutions.append((IN_FLOAT32, torch.float32, True))
    for name, dtype, backward in convolutions:
        flops, work = _convolution(device, dtype, backward)
        yield Part(name, "GFLOP", times * flops / 1e9, _timed(device, work, times))
    if device == "cpu":  # counted as plain ones, so that the share is how much faster they are
        flops, work = _convolution(device, torch.float32, True, BY_WINOGRAD)
        plain, amount = convolutions[-1][0], times * flops / 1e9
        yield Part(WINOGRAD, "GFLOP", amount, _timed(device, work, times), plain, amount)
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / 1e9  # read once, written once
    yield Part("copy of memory", "GB", copied, _timed(device, lambda: target.copy_(source)))
    yield from _picking_parts()


def _picking_parts(count: int = 2_000, side: int = 128) -> Iterator[Part]:
    """Yield batches cut from pictures in memory, and from the same mapped from a file.

    The file was just written, so that the system's cache of the disk holds it.
    """
    in_memory = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # what is mapped stays
        path = Path(folder) / "pictures.safetensors"
        file = TensorFile(path, 0)
        file.finish({"images": in_memory}, {})
        mapped = map_tensors(path)["images"]
    targets, plain = torch.zeros(count, dtype=torch.int64), "batches from memory"
    for name, images in ((plain, in_memory), ("batches from a mapped file", mapped)):
        work = _epochs(Split(images, targets), batch_size=64)
        of = None if name == plain else plain
        yield Part(name, "pictures", count, _timed("cpu", work), of, count)


def _epochs(split: Split, batch_size: int) -> Callable[[], None]:
    """Return what passes through a split once, in another order each time."""
    order = EpochShuffle(len(split), batch_size, seed=0)

    def work() -> None:
        order.set_epoch(order.epoch + 1)
        for _ in batch_loader(split, order):
            pass

    return work


def _matrix_product(device: str, dtype: torch.dtype, size: int = 2048) -> tuple[float, Callable]:
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3, lambda: first @ second


def _convolution(
    device: str,
    dtype: torch.dtype,
    backward: bool,
    convolution: Callable = PLAIN,
    batch_size: int = 128,
) -> tuple[float, Callable]:
    """Return a 3×3 convolution 128→128 at 16×16, batch 128: a shape that suits the hardware."""

    def tensor(*shape):
        made = torch.randn(*shape, device=device).to(dtype, memory_format=torch.channels_last)
        return made.requires_grad_(backward)

    images, weights, gradient = tensor(batch_size, 128, 16, 16), tensor(128, 128, 3, 3), None
    flops = 2 * batch_size * 16 * 16 * 128 * 128 * 9

    def work():
        nonlocal gradient
        output = convolution(images, weights)
        if backward:
            gradient = torch.ones_like(output) if gradient is None else gradient
            output.backward(gradient)

    return (3 if backward else 1) * flops, work


# A network


def _network_parts(model: str, batch_size: int, device: str, precision: str) -> Iterator[Part]:
    steps, before = STEPS.get(device, FEW_STEPS)
    data = _random_data(batch_size, batches=steps + before)
    forward, both = (flops / 1e9 for flops in picture_flops(model))
    step, evaluation = f"{model}: training step", f"{model}: evaluation"
    batch, several_batches = ("pictures", batch_size), ("pictures", steps * batch_size)
    bare = _bare_step(_recipe_of(model), batch_size, device, precision, steps)
    yield Part(step, *several_batches, bare, CONVOLUTION, both * steps * batch_size)
    if batch_size > SMALL_BATCH:
        times, recipe = steps * batch_size // SMALL_BATCH, _of_small_batches(model)
        bare = _bare_step(recipe, SMALL_BATCH, device, precision, times)
        amount = times * SMALL_BATCH
        yield Part(f"{step}, batch {SMALL_BATCH}", "pictures", amount, bare, step, amount)
    for what, augmentation in _augmentations(model).items():
        loading = _loader(data, augmentation, device)
        yield Part(f"{model}: loading, {what}", *batch, loading, step, batch_size, True)
    trainer = _trainer_steps(model, data, device, precision, before, steps)
    yield Part(f"{step} in Trainer", *several_batches, trainer, step, steps * batch_size)
    several = ("pictures", EVALUATED)
    size = min(EVALUATED, evaluation_batch_size(device, 32))
    low = _forward(model, device, precision, EVALUATED, size)
    yield Part(evaluation, *several, low, CONVOLUTION_FORWARD, forward * EVALUATED)
    trainer = _evaluation(model, device, precision)
    yield Part(f"{evaluation} in Trainer", *several, trainer, evaluation, EVALUATED)
    plain = f"{model}: forward pass, float32"
    bare = _forward(model, device, "32-true", EVAL_BATCH_SIZE, EVAL_BATCH_SIZE)
    yield Part(plain, "pictures", EVAL_BATCH_SIZE, bare)
    yield from _map_parts(model, device, plain)


def _map_parts(model: str, device: str, plain: str) -> Iterator[Part]:
    """Yield maps of the last block, those shown first, and removal, beside bare passes."""
    network = create_model(model, seed=0).to(device).eval().requires_grad_(False)
    images, batch = _pictures(EVAL_BATCH_SIZE, device), ("pictures", EVAL_BATCH_SIZE)
    last = _timed(device, lambda: class_activation_maps(network, images))
    yield Part(f"{model}: Grad-CAM, last block", *batch, last, plain, EVAL_BATCH_SIZE)
    method, block = first_choice(network)
    both = f"{model}: forward and gradient to {block}, float32"
    bare = _timed(device, lambda: _gradient(network, block, images))
    yield Part(both, *batch, bare)
    shown = _timed(device, lambda: class_activation_maps(network, images, None, method, block))
    yield Part(f"{model}: {method} at {block}", *batch, shown, both, EVAL_BATCH_SIZE)
    maps, targets = np.random.default_rng(0).random(images[:, 0].shape), np.zeros(len(images), int)
    asked = network, images, targets, maps, impute, NINE_SHARES
    removal = _timed(device, lambda: removal_curves(*asked, precision="32-true"))
    name = f"{model}: removal, nine shares in both orders, float32"
    yield Part(name, *batch, removal, plain, 2 * len(NINE_SHARES) * EVAL_BATCH_SIZE)


def _gradient(network: Network, block: str, images: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the highest logits with respect to a block's output."""
    kept = []

    def begin(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[0]

    handle = network.get_submodule(block).register_forward_hook(begin)
    logits = network(images)
    handle.remove()
    return torch.autograd.grad(logits.amax(dim=1).sum(), kept[0])[0]


def picture_flops(model: str) -> tuple[int, int]:
    """Return the floating-point operations for one picture: forward, and forward and backward.

    They are those of plain convolutions, however these are computed.
    """
    network, counted = create_model(model, seed=0), []
    plain_convolutions(network)
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            logits = network(torch.zeros(2, 3, 32, 32))
            if backward:
                logits.sum().backward()
        counted.append(counter.get_total_flops() // 2)
    return tuple(counted)


def _recipe_of(model: str) -> Recipe:
    return next(recipe for recipe in RECIPES.values() if recipe.model == model)


def _of_small_batches(model: str) -> Recipe:
    """Return that recipe of a network whose optimiser's share of a step weighs most."""
    recipes = (recipe for recipe in RECIPES.values() if recipe.model == model)
    return min(recipes, key=lambda recipe: recipe.batch_size)


def _augmentations(model: str) -> dict[str, Augmentation]:
    """Return what is measured by name: the recipe's, or all that the original may have had."""
    recipe = _recipe_of(model)
    if recipe.name != "original":
        return {"augmenting": recipe.augmentation}
    return {f"augmentation {letter}": augmentation for letter, augmentation in CANDIDATES.items()}


def _random_data(size: int, batches: int = 1) -> PictureDataModule:
    """Return batches of noise: `size` pictures each to train on, `EVALUATED` to evaluate."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return Split(images, torch.randint(0, 10, (count,), generator=generator))

    classes = tuple("0123456789")
    splits = split(size * batches), split(EVALUATED)
    picture_set = PictureSet("random", "random", classes, *splits, *MEAN_STD, "", (), {})
    return PictureDataModule(picture_set, size, Augmentation())


def _pictures(count: int, device: str) -> torch.Tensor:
    images = torch.randn(count, 3, 32, 32, device=device)
    return images.to(memory_format=torch.channels_last)


def _bare_step(
    recipe: Recipe, batch_size: int, device: str, precision: str, times: int = 1
) -> Callable[[], float]:
    """Return a measurement of a recipe's steps without Lightning, loader, augmentation or metrics.

    One step goes before them: in training, each comes after another, and finds its memory there.
    """
    network = create_model(recipe.model, seed=0).to(device)
    optimizer, passes = build_optimizer(network, recipe, precision), RecordedPass(network)
    images = _pictures(batch_size, device)
    targets = torch.randint(0, 10, (batch_size,), device=device)

    def step():
        with autocast(device, precision):
            logits = passes(images)
        cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    timed = _timed(device, step, times)

    def measure() -> float:
        step()
        return timed()

    return measure


def _loader(
    data: PictureDataModule, augmentation: Augmentation, device: str
) -> Callable[[], float]:
    """Return a measurement of one batch from memory to augmented tensors on the device."""

    def measure() -> float:
        batches = iter(data.train_dataloader())
        next(batches)
        started = _clock(device)
        images, _, indices = (tensor.to(device) for tensor in next(batches))
        augment(images, indices, augmentation, *MEAN_STD, seed=0, epoch=0)
        return _clock(device) - started

    return measure


def _trainer_steps(
    model: str, data: PictureDataModule, device: str, precision: str, before: int, steps: int
) -> Callable[[], float]:
    """Return a measurement of steps through Lightning, with everything that training does.

    So many are made before those that count.
    """
    recipe = replace(_recipe_of(model), epochs=1)

    def measure() -> float:
        clock = _StepClock(device, before)
        trainer = build_trainer(
            device,
            precision,
            max_epochs=1,
            limit_train_batches=before + steps,
            limit_val_batches=0,
            callbacks=[clock],
        )
        trainer.fit(ImageClassifier(create_model(model, seed=0), 10, recipe), datamodule=data)
        return clock.ended - clock.started

    return measure


class _StepClock(Callback):
    """Notes when the steps before those that count have ended, and when all have.

    The time between holds loading, transfer and step.
    """

    def __init__(self, device: str, before: int):
        self.device, self.before = device, before

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if batch_idx == self.before - 1:
            self.started = _clock(self.device)
        if batch_idx == trainer.num_training_batches - 1:
            self.ended = _clock(self.device)


def _forward(
    model: str, device: str, precision: str, count: int, batch_size: int
) -> Callable[[], float]:
    """Return a measurement of bare forward passes of so many pictures, without gradients."""
    network = create_model(model, seed=0).to(device).eval()
    images = _pictures(batch_size, device)

    def work():
        with torch.inference_mode(), autocast(device, precision):
            network(images)

    return _timed(device, work, count // batch_size)


def _evaluation(model: str, device: str, precision: str) -> Callable[[], float]:
    """Return a measurement of a whole evaluation through Lightning, loading and metrics too."""
    data = _random_data(2)
    classifier = ImageClassifier(create_model(model, seed=0), 10, _recipe_of(model))
    trainer = build_trainer(device, precision)
    return _timed(device, lambda: trainer.validate(classifier, datamodule=data, verbose=False))
