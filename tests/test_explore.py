"""What is in a data set: counts and means by hand, and views as training would see them."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

from utils.data import drawn_shapes
from utils.data.augment import Augmentation, augment
from utils.data.batches import PictureDataModule
from utils.data.explore import (
    augmented_views,
    balance_in_words,
    class_counts,
    each_class_in_words,
    in_short,
    mean_pictures,
    nearest_mean_accuracy,
    nearest_mean_in_words,
    origin_in_words,
)
from utils.data.picture_set import PictureSet, Split
from utils.models.registry import create_model
from utils.training.classifier import ImageClassifier
from utils.training.recipes import choose_recipe

MEAN, STD = (0.5, 0.45, 0.4), (0.3, 0.25, 0.2)


@pytest.fixture(scope="module")
def picture_set():
    rng = np.random.default_rng(0)
    train, test = (
        Split(
            torch.from_numpy(rng.integers(0, 256, (len(targets), 3, 16, 16), dtype=np.uint8)),
            torch.tensor(targets),
        )
        for targets in ([0, 0, 0, 2, 2, 1, 0, 1, 2, 0, 0, 2], [2, 2, 0])
    )
    return PictureSet("made", "made", ("a", "b", "c"), train, test, MEAN, STD, "x", (), {})


def test_counts_are_of_every_class_even_one_without_pictures(picture_set):
    counts = class_counts(picture_set)
    assert {name: list(c) for name, c in counts.items()} == {"train": [6, 2, 4], "test": [1, 0, 2]}


def counts_of(train, test):
    return {"train": np.array(train), "test": np.array(test)}


def test_how_many_pictures_a_class_has_is_said():
    assert each_class_in_words(counts_of([5_000, 5_000], [1, 1])) == "5,000 training pictures"
    assert (
        each_class_in_words(counts_of([9, 1_200, 30], [1, 1, 1])) == "9 to 1,200 training pictures"
    )
    assert each_class_in_words(counts_of([1, 1], [1, 1])) == "1 training picture"
    assert each_class_in_words(counts_of([0, 1], [1, 1])) == "0 to 1 training picture"


def test_the_balance_of_classes_is_said_with_what_guessing_gives():
    assert balance_in_words(counts_of([6, 2, 4], [1, 0, 3])) == (
        "Each class has 2 to 6 training pictures. Always naming the most frequent one would be "
        "right in 75.0% of the test pictures."
    )


def test_the_chapter_in_short_holds_its_figures(picture_set):
    text = in_short(picture_set, class_counts(picture_set), 0.456)
    assert "**made**: 12 pictures to train on and 3 to test with, 3 classes with 2 to 6 " in text
    assert "16×16 pixels" in text
    assert "would be right in 66.7% of the test pictures" in text
    assert "mean picture is nearest in 45.6%;" in text


def test_where_drawn_shapes_come_from_is_what_draws_them(picture_set):
    said = origin_in_words(replace(picture_set, options={"dataset": "shapes"}))
    assert "10 outlines (disc, ring, square, frame, triangle, pentagon, star, cross," in said
    assert all(name in said for name in drawn_shapes.CLASSES)
    assert "4 loose sticks" in said and "about 40% of them another stick" in said
    assert len(re.findall(r"\.( |$)", said)) == 2


def test_where_cifar10_comes_from_is_said_with_its_faults(picture_set):
    own = origin_in_words(replace(picture_set, options={"dataset": "cifar10"}))
    for told in ("80 Million Tiny Images", "Krizhevsky 2009", "0.54%", "3.3%", "Northcutt", "Barz"):
        assert told in own
    folder = replace(picture_set, options={"dataset": "/data/x"})
    for title in ("CIFAR-10 (JPEG copy)", "cifar10", "My CIFAR 10"):
        copy = origin_in_words(replace(folder, title=title))
        assert copy == f"By its title, this is a copy of CIFAR-10. {own}"
    for title in ("CIFAR-100", "cifar100", "cats", "CIFAR-10C"):
        assert "Krizhevsky" not in origin_in_words(replace(folder, title=title))


def test_of_a_folder_nothing_is_said_but_what_was_counted(picture_set):
    folder = replace(picture_set, options={"dataset": "/data/cifar10"}, title="shapes")
    assert origin_in_words(folder) == (
        "These pictures are your own: 15 pictures in 3 classes, and each folder's name is the "
        "label. Nothing else is known of them here: what was counted stands in this chapter, and "
        "whether the labels are right only you can tell."
    )


@pytest.mark.parametrize(
    ("labels_from", "told"),
    [
        (None, "each folder's name is the label"),
        ("/home/me/my_labels.CSV", "the table my\\_labels.CSV gives the labels"),
        ("^(ant|bee)_", r"the label is what ^\(ant\|bee\)\_ finds in each file's name"),
    ],
)
def test_where_the_labels_come_from_is_said(labels_from, told, picture_set):
    folder = replace(picture_set, options={"dataset": "/data/x", "labels_from": labels_from})
    assert f"15 pictures in 3 classes, and {told}. Nothing else" in origin_in_words(folder)


def test_what_the_nearest_mean_picture_finds_is_said():
    assert nearest_mean_in_words(0.117, 10) == (
        "Naming the class of the nearest mean picture is right in 11.7% of the test pictures; "
        "guessing among 10 classes, in 10.0%."
    )


def test_mean_pictures_are_exact_and_black_for_an_empty_class(picture_set):
    means = mean_pictures(picture_set.test, 3)
    images = picture_set.test.images.double().numpy() / 255
    assert means.dtype == np.float32
    assert means.shape == (3, 3, 16, 16)
    np.testing.assert_allclose(means[0], images[2], atol=1e-7)
    np.testing.assert_array_equal(means[1], 0)
    np.testing.assert_allclose(means[2], images[:2].mean(axis=0), atol=1e-7)


def test_the_mean_of_many_bright_pictures_does_not_overflow():
    white = Split(
        torch.full((70_000, 3, 2, 2), 255, dtype=torch.uint8), torch.zeros(70_000, dtype=int)
    )
    np.testing.assert_array_equal(mean_pictures(white, 1), 1.0)


def test_naming_the_nearest_mean_picture_is_right_where_colour_tells_the_class():
    targets = torch.tensor([0, 1] * 50)
    noise = torch.randint(0, 50, (100, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    told = Split((noise + 200 * targets.view(-1, 1, 1, 1)).to(torch.uint8), targets)
    assert nearest_mean_accuracy(mean_pictures(told, 2), told) == 1.0
    swapped = Split(told.images, 1 - targets)
    assert nearest_mean_accuracy(mean_pictures(told, 2), swapped) == 0.0
    same = Split(noise.to(torch.uint8), targets)
    more = torch.randint(0, 50, (100, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    other = Split(more.to(torch.uint8), targets)
    assert 0.3 < nearest_mean_accuracy(mean_pictures(same, 2), other) < 0.7


def test_views_are_of_as_many_classes_as_there_are(picture_set):
    data = PictureDataModule(picture_set, 4, Augmentation(), seed=0)
    train = picture_set.train.images.numpy()
    for asked, positions in ((2, [0, 3]), (3, [0, 3, 5]), (5, [0, 1, 3, 4, 5]), (99, range(12))):
        images, views = augmented_views(data, pictures=asked, epochs=2)
        np.testing.assert_array_equal(images, train[list(positions)])
        assert views.shape == (len(positions), 2, 3, 16, 16)
        assert views.dtype == np.uint8


def test_views_without_augmentation_are_the_pictures_themselves(picture_set):
    data = PictureDataModule(picture_set, 4, Augmentation(0, 0.0, 0), seed=0)
    images, views = augmented_views(data, pictures=12, epochs=3)
    for epoch in range(3):
        np.testing.assert_array_equal(views[:, epoch], images)


def as_pixels(normalised):
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (MEAN, STD))
    return np.round((normalised.double().numpy() * std + mean) * 255).clip(0, 255)


def test_views_are_what_augmentation_gives_in_each_epoch(picture_set):
    augmentation = Augmentation(3, 0.5, 6)
    data = PictureDataModule(picture_set, 4, augmentation, seed=9)
    _, views = augmented_views(data, pictures=12, epochs=4)
    for epoch in range(4):
        seen = augment(
            picture_set.train.images, torch.arange(12), augmentation, MEAN, STD, 9, epoch
        )
        assert np.abs(views[:, epoch] - as_pixels(seen)).max() <= 1  # rounding of x.5
    assert len({view.tobytes() for view in views[0]}) > 1


@pytest.mark.parametrize("val_fraction", [0.0, 0.3])
def test_views_are_what_the_network_is_really_given(picture_set, val_fraction, tmp_path):
    data = PictureDataModule(picture_set, 5, Augmentation(3, 0.5, 6), 2, val_fraction)
    images, views = augmented_views(data, pictures=3, epochs=2)
    recipe = choose_recipe("original", "shapes", epochs=2, batch_size=5)
    network = create_model("davidnet", 3, image_size=16, seed=0, width=4)
    given = []
    network.register_forward_pre_hook(
        lambda module, inputs: given.append(as_pixels(inputs[0])) if module.training else None
    )
    Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    ).fit(ImageClassifier(network, 3, recipe), datamodule=data)  # fmt: skip
    steps = -(-len(data.train) // 5)
    for epoch in range(2):
        seen = np.concatenate(given[epoch * steps : (epoch + 1) * steps])
        assert len(seen) == len(data.train)
        for view in views[:, epoch]:
            distance = np.abs(seen - view).max(axis=(1, 2, 3))
            assert (distance <= 1).sum() == 1
    assert images.shape == (3, 3, 16, 16)
