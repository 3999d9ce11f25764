"""What a run's folder says, for tests that do not train."""

#: What a tiny run of the whole sequence is trained with.
TINY = {"epochs": 1, "limit_train": 160, "limit_test": 80, "image_size": 16, "lr_steps": 10}


def valid_record(**settings):
    """Return what training writes into run.json."""
    return {
        "settings": {
            "dataset": "shapes", "data_dir": "data", "dataset_title": "drawn", "image_size": 16,
            "limit_train": None, "limit_test": None, "skip_unreadable": False,
            "data_fingerprint": "f", "val_fraction": 0.0, "model": "davidnet", "recipe": "quick",
            "epochs": 1, "batch_size": 8, "max_lr": 0.01, "precision": "32-true",
            "devices": "cpu", "seed": 0, **settings,
        },
        "data": {
            "name": "shapes", "title": "drawn", "classes": ["ant", "bee"], "train_size": 8,
            "watched": "test", "watched_size": 4, "test_size": 4, "mean": [0.5] * 3,
            "std": [0.2] * 3, "fingerprint": "f", "notes": [],
        },
        "model": {"name": "davidnet", "parameters": 5, "blocks": ["prep", "layer3"]},
        "device": {"type": "cpu", "name": "a CPU"},
        "precision": "32-true",
    }  # fmt: skip
