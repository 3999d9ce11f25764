"""Nearest training pictures against brute force, and what is said of them and of near-copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.predictions import of_classes
from helpers.training import SmallDavidNet, SmallSpeedNet, make_pictures, make_plan
from utils.data.batches import hold_out
from utils.data.picture_set import Split
from utils.explain import evidence
from utils.explain.evidence import (
    Neighbours,
    copies_in_words,
    features,
    nearest,
    nearest_training,
    neighbours_in_words,
    search_in_words,
)
from utils.training.fit import fit
from utils.training.trained import load_network

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def noise(size, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)


# Features and neighbours


@pytest.mark.parametrize("network", [SmallDavidNet, SmallSpeedNet])
def test_features_are_what_the_last_layer_makes_logits_of(network, monkeypatch):
    monkeypatch.setattr(evidence, "BATCH_SIZE", 8)
    network = network(num_classes=3, image_size=16).eval()
    images = noise(19)
    found = features(network, images, MEAN, STD)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        logits = network((images.float() / 255 - mean) / std)
        remade = network.head.linear(torch.from_numpy(found))
    torch.testing.assert_close(remade, logits, rtol=1e-4, atol=1e-4)
    assert found.dtype == np.float32 and np.ptp(found, axis=0).max() > 0.01
    assert not network.head.linear._forward_pre_hooks


def test_a_lower_precision_changes_features_by_rounding_alone():
    network = SmallDavidNet(num_classes=3, image_size=16).eval()
    full, rounded = (features(network, noise(9), MEAN, STD, p) for p in ("32-true", "bf16-mixed"))
    assert 0 < np.abs(full - rounded).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize("count", [1, 5, 90])
def test_the_nearest_are_those_of_brute_force(count, monkeypatch):
    monkeypatch.setattr(evidence, "ROWS", 7)
    random = np.random.default_rng(0)
    queries, references = (random.normal(size=(n, 12)).astype(np.float32) for n in (20, 40))
    places, cosines = nearest(queries, references, count)
    for query, found, cosine in zip(queries, places, cosines, strict=True):
        direct = references @ query / np.linalg.norm(references, axis=1) / np.linalg.norm(query)
        expected = np.argsort(-direct)[:count]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(cosine, direct[expected], atol=1e-5)


def test_the_length_of_a_vector_does_not_count():
    places, _ = nearest(np.float32([[1, 1]]), np.float32([[0.1, 0.1], [50, 0], [9, 8]]), 3)
    assert places.tolist() == [[0, 2, 1]]


def test_nothing_asked_for_is_nothing_found():
    places, cosines = nearest(np.empty((0, 3), np.float32), np.ones((4, 3), np.float32), 2)
    assert places.shape == cosines.shape == (0, 2)


@pytest.mark.parametrize("val_fraction", [0.0, 0.4])
def test_neighbours_are_training_pictures_with_their_classes(
    small_network, tmp_path, monkeypatch, val_fraction
):
    monkeypatch.setattr(evidence, "choose_precision", lambda *_: ("32-true", "as the test wants"))
    pictures = make_pictures()
    run = fit(make_plan(tmp_path, pictures, epochs=1, val_fraction=val_fraction))
    train, _ = hold_out(pictures, val_fraction)
    wanted = np.array([4, 0, 7])
    test = pictures.test.images.clone()
    test[wanted] = train.images[[9, 2, 11]]
    pictures = replace(pictures, test=Split(test, pictures.test.targets))
    found = nearest_training(run, pictures, wanted, "cpu", count=3)
    assert found.images.shape == (3, 3, 3, 16, 16)
    np.testing.assert_array_equal(found.images[:, 0], train.images[[9, 2, 11]])
    np.testing.assert_array_equal(found.targets[:, 0], train.targets[[9, 2, 11]])
    np.testing.assert_allclose(found.similarity[:, 0], 1, atol=1e-5)
    assert found.searched == found.available == len(train)
    of_test, of_train = (
        features(load_network(run), images, pictures.mean, pictures.std)
        for images in (test[wanted], train.images)
    )
    places, _ = nearest(of_test, of_train, 3)
    np.testing.assert_array_equal(found.targets, train.targets.numpy()[places])
    monkeypatch.setitem(evidence.MOST_ON_CPU, "32-true", 6)
    few = nearest_training(run, pictures, wanted, "cpu")
    assert (few.searched, few.available) == (6, len(train))
    assert nearest_training(run, pictures, wanted[:0], "cpu").images.shape == (0, 5, 3, 16, 16)
    assert "Searched: 6 of " in search_in_words(few) and "float32" in search_in_words(few)


# In words


def of_neighbours(targets):
    targets = np.array(targets)
    images = np.zeros((*targets.shape, 3, 2, 2), np.uint8)
    return Neighbours(images, targets, targets.astype(np.float32), 40, 40, "bf16-mixed")


def test_what_the_nearest_are_is_said():
    found = of_neighbours([[1, 0], [1, 1], [0, 2], [2, 1]])
    actual, predicted = np.zeros(4, int), np.ones(4, int)
    assert neighbours_in_words(found, actual, predicted) == (
        "The nearest training picture has the class that was predicted in 2 of 4 mistakes, 50.0% "
        "(95% interval 15.0% to 85.0%); the actual class in 1, and another in 1."
    )
    assert neighbours_in_words(found, actual[:0], predicted[:0]) == (
        "There are no mistakes to explain."
    )
    assert search_in_words(found) == (
        "Searched: 40 training pictures, every class in proportion; features computed in bfloat16."
    )


def test_near_copies_are_counted_and_accuracy_is_said_without_them():
    predictions = of_classes([0] * 10, [0] * 8 + [1] * 2)
    none = np.full(10, -1)
    assert copies_in_words(predictions, none) == (
        "None of 10 test pictures is nearly the same as a training picture."
    )
    one = np.where(np.arange(10) == 0, 4, none)
    first, second = copies_in_words(predictions, one).splitlines()
    assert first == "1 of 10 test pictures (10.0%) is nearly the same as a training picture."
    assert second.startswith("Accuracy without them: 77.78% (95% interval 45.26% to 93.68%); with")
    assert "with them: 80.00% (" in second
    everything = copies_in_words(predictions, np.zeros(10, int))
    assert everything.endswith("None is new, so the accuracy says nothing about new ones.")
