"""Folders of complete runs that nobody trained."""

import shutil

import numpy as np

from helpers.records import valid_record
from utils.runs import HISTORY_COLUMNS, Run

CLASSES = ("ant", "bee", "cat")


def targets_of(pictures):
    """The classes of so many test pictures, one after the other."""
    return np.arange(pictures) % len(CLASSES)


def rights(count, pictures, accuracy=0.8, seed=0):
    """Which pictures so many runs are right on: some pictures are hard, whichever run."""
    random = np.random.default_rng(seed)
    chance = random.beta(10 * accuracy, 10 * (1 - accuracy), pictures)
    return random.random((count, pictures)) < chance


def make_run(folder, name, right, seed=0, epochs=3, seconds=30.0, fingerprint="f", **settings):
    """A complete run that is right on these pictures (bool, N), and calls the others the next."""
    record = valid_record(seed=seed, epochs=epochs, **settings)
    target, right = targets_of(len(right)), np.asarray(right, bool)
    record["settings"]["data_fingerprint"] = fingerprint
    record["data"] |= {
        "title": "drawn", "classes": list(CLASSES), "fingerprint": fingerprint,
        "train_size": 600, "test_size": len(right), "watched_size": len(right),
    }  # fmt: skip
    run = Run(name, folder)
    spent = {"training": seconds, "watching": 3.0}
    run.update_record(status="complete", seconds=spent, **record)
    run.path("model.safetensors").write_bytes(b"weights")
    accuracy = float(right.mean())
    metrics = {"test_acc": accuracy, "test_loss": 1 - accuracy, "test_size": len(right)}
    run.write_json("metrics.json", metrics)
    rows = [
        (n, 10 * n, 0.01, 2 / n, 0.2 * n, 1.5 / n, accuracy * n / epochs, seconds / epochs)
        for n in range(1, epochs + 1)
    ]
    run.write_csv(
        "metrics.csv", HISTORY_COLUMNS, [dict(zip(HISTORY_COLUMNS, r, strict=True)) for r in rows]
    )
    predicted = np.where(right, target, (target + 1) % len(CLASSES))
    logits = np.eye(len(CLASSES), dtype=np.float32)[predicted]
    run.write_arrays(
        "predictions.npz", index=np.arange(len(right)), target=target, predicted=predicted,
        logits=logits,
    )  # fmt: skip
    return run


def make_groups(folder, first="original", second="speed", seeds=4, pictures=60, gain=0.1):
    """Two recipes from the same seeds, the second more accurate and in half the time."""
    both = [rights(seeds, pictures, 0.7, 1), rights(seeds, pictures, 0.7 + gain, 2)]
    for recipe, right, seconds in zip((first, second), both, (60.0, 30.0), strict=True):
        for seed in range(seeds):
            given = {"recipe": recipe, "max_lr": 0.01 if recipe == first else 0.17}
            make_run(folder, f"{recipe}-seed{seed}", right[seed], seed, seconds=seconds, **given)
    return both


def copies_of(run, count):
    """Copies of a run beside it, quick to make, each with another seed."""
    text = run.path("run.json").read_text()
    for number in range(1, count):
        name = f"{run.name}-{number}"
        folder = run.folder.with_name(name)
        shutil.copytree(run.folder, folder)
        changed = text.replace(f'"name": "{run.name}"', f'"name": "{name}"')
        (folder / "run.json").write_text(changed.replace('"seed": 0', f'"seed": {number}'))
    return run.folder.parent
