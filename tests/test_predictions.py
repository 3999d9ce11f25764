"""Predictions of the whole test split: as a direct pass gives them, kept, and read back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

from helpers.records import valid_record
from helpers.training import SmallDavidNet
from utils import InputError
from utils.data.batches import EVAL_BATCH_SIZE, hold_out
from utils.data.picture_set import PictureSet, Split
from utils.models.registry import MODELS, create_model
from utils.runs import Run
from utils.training import predictions
from utils.training.predictions import (
    load_predictions,
    predict_held_out,
    predict_test,
    right_on_new,
)
from utils.training.recipes import RECIPES
from utils.training.trained import save_network

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run whose network has random weights, and its pictures: more than one batch of them."""
    monkeypatch.setitem(MODELS, "davidnet", SmallDavidNet)
    generator = torch.Generator().manual_seed(1)

    def split(size):
        images = torch.randint(0, 256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator)
        return Split(images, torch.randint(0, 6, (size,), generator=generator))

    pictures = PictureSet(
        "noise", "noise", CLASSES, split(12), split(EVAL_BATCH_SIZE + 44),
        (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "fingerprint", (), {},
    )  # fmt: skip
    run = Run("run", tmp_path)
    network = create_model("davidnet", num_classes=6, image_size=16, seed=3)
    with torch.no_grad():  # batch normalisation must use what it learned, not this batch
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
        network.head.linear.weight.mul_(50)  # logits that differ from picture to picture
    record = valid_record(**RECIPES["quick"].as_settings())
    record["data"]["classes"] = list(CLASSES)
    run.update_record(**record)
    save_network(run, network)
    return run, pictures, network.eval()


def test_predictions_are_those_of_a_direct_pass_in_the_order_of_the_split(trained):
    run, pictures, network = trained
    predictions = predict_test(run, pictures, devices="cpu")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pictures.mean, pictures.std))
    with torch.no_grad():
        expected = network((pictures.test.images.float() / 255 - mean) / std).numpy()
    np.testing.assert_allclose(predictions.logits, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(predictions.predicted, expected.argmax(1))
    np.testing.assert_array_equal(predictions.target, pictures.test.targets)
    np.testing.assert_array_equal(predictions.index, np.arange(300))
    assert predictions.logits.dtype == np.float32
    assert expected.std(axis=0).max() > 0.1  # another order would show


def test_predictions_are_written_and_reused(trained, monkeypatch):
    run, pictures, _ = trained
    first = predict_test(run, pictures, devices="cpu")
    assert run.path("predictions.npz").exists()

    def never(*_, **__):
        raise AssertionError("the network ran again")

    monkeypatch.setattr(Trainer, "predict", never)
    monkeypatch.setattr(predictions, "load_network", never)
    again = predict_test(run, pictures, devices="cpu")
    for name in ("index", "target", "predicted", "logits"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_held_out_pictures_are_predicted_where_there_are_any(trained):
    run, pictures, network = trained
    assert predict_held_out(run, pictures, devices="cpu") is None
    run.update_record(settings={**run.settings, "val_fraction": 0.5})
    more = Split(
        *(torch.cat([values] * 3) for values in (pictures.test.images, pictures.test.targets))
    )
    copies_apart = more.images.clone()
    copies_apart[:, 0, 0, 0] = torch.arange(len(more)) % 251
    copies_apart[:, 0, 0, 1] = torch.arange(len(more)) // 251
    pictures = replace(pictures, train=Split(copies_apart, more.targets))
    _, held_out = hold_out(pictures, 0.5)
    assert 2 * EVAL_BATCH_SIZE > len(held_out) > EVAL_BATCH_SIZE
    found = predict_held_out(run, pictures, devices="cpu")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pictures.mean, pictures.std))
    with torch.no_grad():
        expected = network((held_out.images.float() / 255 - mean) / std).numpy()
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found.target, held_out.targets)
    np.testing.assert_array_equal(found.predicted, found.logits.argmax(1))
    assert not run.path("predictions.npz").exists()


def test_damaged_predictions_are_refused(trained):
    run, pictures, _ = trained
    with pytest.raises(InputError, match="05_misclassified"):
        load_predictions(run)
    run.write_arrays("predictions.npz", target=np.arange(3))
    with pytest.raises(InputError, match="damaged"):
        load_predictions(run)
    run.path("predictions.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="damaged"):
        predict_test(run, pictures, devices="cpu")


def test_test_pictures_without_a_copy_to_train_on_are_counted_apart(trained):
    _, pictures, _ = trained
    size = len(pictures.test)
    logits = torch.nn.functional.one_hot(pictures.test.targets, len(CLASSES)).float()
    logits[:9] = logits[:9].roll(1, dims=1)  # the first nine are wrong

    def counted(train_groups, test_groups):
        train = replace(pictures.train, groups=train_groups)
        test = replace(pictures.test, groups=test_groups)
        return right_on_new(replace(pictures, train=train, test=test), logits)

    apart = torch.arange(len(pictures.train)), torch.arange(1_000, 1_000 + size)
    assert right_on_new(pictures, logits) is None  # nobody looked
    assert counted(*apart) is None
    leaked = apart[1].clone()
    leaked[[0, 1, size - 1]] = torch.tensor([7, 7, 0])
    assert counted(apart[0], leaked) == {"size": size - 3, "right": size - 9 - 1}
    assert counted(apart[0], apart[0][[0] * size]) == {"size": 0, "right": 0}
