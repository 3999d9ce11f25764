"""The drawn data set: repeatable, correctly masked, and told apart by outline alone."""

import dataclasses

import numpy as np
import pytest

from utils.data import drawn_shapes


@pytest.fixture(scope="module")
def train():
    return drawn_shapes.draw_split("train")


@pytest.fixture(scope="module")
def test():
    return drawn_shapes.draw_split("test")


@pytest.fixture(scope="module")
def scenes():
    return drawn_shapes.sample_scenes(np.random.default_rng(7), 300)


def grown(masks, pixels):
    """Masks with every true pixel's neighbours added, `pixels` times."""
    for _ in range(pixels):
        padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
        size = masks.shape[-1]
        masks = np.any(
            [padded[:, y : y + size, x : x + size] for y in range(3) for x in range(3)], axis=0
        )
    return masks


def without_occluders(scenes):
    radius = np.full_like(scenes.occluders.radius, -1)
    return dataclasses.replace(
        scenes, occluders=dataclasses.replace(scenes.occluders, radius=radius)
    )


def linear_accuracy(features, targets, test_features, test_targets, ridge):
    """Test accuracy of the linear classifier fitted by regularised least squares."""
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    features, test_features = (features - mean) / std, (test_features - mean) / std
    gram = features.T @ features / len(features) + ridge * np.eye(features.shape[1], dtype="f4")
    one_hot = np.eye(len(drawn_shapes.CLASSES), dtype=np.float32)[targets] - 1 / len(
        drawn_shapes.CLASSES
    )
    weights = np.linalg.solve(gram, features.T @ one_hot / len(features))
    return np.mean((test_features @ weights).argmax(axis=1) == test_targets)


@pytest.mark.slow
def test_shapes_dtypes_and_value_range(train, test):
    for pictures, count in ((train, drawn_shapes.TRAIN_SIZE), (test, drawn_shapes.TEST_SIZE)):
        assert pictures.images.shape == (count, 3, 32, 32)
        assert pictures.images.dtype == np.uint8
        assert pictures.targets.shape == (count,)
        assert pictures.targets.dtype == np.int64
        assert pictures.masks.shape == (count, 32, 32)
        assert pictures.masks.dtype == np.bool_
        assert pictures.images.min() < 20 and pictures.images.max() > 235


@pytest.mark.slow
def test_same_arguments_give_the_same_bytes(test):
    again = drawn_shapes.draw_split("test")
    assert again.images.tobytes() == test.images.tobytes()
    assert again.targets.tobytes() == test.targets.tobytes()
    assert again.masks.tobytes() == test.masks.tobytes()


@pytest.mark.slow
def test_seeds_and_splits_give_different_pictures():
    first = drawn_shapes.draw_split("train", seed=0, count=100)
    for other in (
        drawn_shapes.draw_split("train", seed=1, count=100),
        drawn_shapes.draw_split("test", seed=0, count=100),
    ):
        assert not np.any(np.all(first.images == other.images, axis=(1, 2, 3)))
        assert not np.array_equal(first.targets, other.targets)


@pytest.mark.parametrize("count", [1, 23, 501])
def test_a_smaller_count_is_the_beginning_of_a_larger_one(test, count):
    few = drawn_shapes.draw_split("test", count=count)
    assert np.array_equal(few.images, test.images[:count])
    assert np.array_equal(few.targets, test.targets[:count])
    assert np.array_equal(few.masks, test.masks[:count])


@pytest.mark.slow
def test_no_picture_is_drawn_twice(train, test):
    images = np.concatenate([train.images, test.images])
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("count", [7, 100, 505])
def test_classes_are_balanced_and_shuffled(count):
    targets = drawn_shapes.draw_split("train", count=count).targets
    occurrences = np.bincount(targets, minlength=len(drawn_shapes.CLASSES))
    assert occurrences.max() - occurrences.min() <= 1
    assert np.any(np.diff(targets) < 0)


def test_every_object_is_visible(train, test):
    for pictures in (train, test):
        assert pictures.masks.sum(axis=(1, 2)).min() >= 10


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [16, 48, 64])
def test_other_sizes_show_the_same_scenes(test, image_size):
    pictures = drawn_shapes.draw_split("test", image_size=image_size, count=200)
    assert pictures.images.shape == (200, 3, image_size, image_size)
    assert pictures.masks.shape == (200, image_size, image_size)
    assert pictures.masks.any(axis=(1, 2)).all()
    assert np.array_equal(pictures.targets, test.targets[:200])
    covered, expected = pictures.masks.mean(axis=(1, 2)), test.masks[:200].mean(axis=(1, 2))
    assert np.corrcoef(covered, expected)[0, 1] > 0.97


def with_masks(scenes, image_size=32, without=None):
    """The images of scenes, and where each shows mostly its object."""
    images, shares = drawn_shapes.render(scenes, image_size, without)
    return images, shares["object"] > 0.5


@pytest.mark.parametrize("part", drawn_shapes.PARTS)
def test_without_a_part_a_picture_changes_where_that_part_shows_alone(scenes, part):
    images, shares = drawn_shapes.render(scenes, 32)
    without, others = drawn_shapes.render(scenes, 32, part)
    changed = (images != without).any(axis=1)
    assert changed.any()
    assert not changed[shares[part] == 0].any()
    np.testing.assert_allclose(sum(shares.values()), 1, rtol=0, atol=1e-5)
    if part != "background":
        assert (others[part] == 0).all()


def test_on_another_background_an_object_stays_the_lighter(scenes):
    other = drawn_shapes._on_other_background(scenes)
    assert (other.background <= scenes.background).all()
    assert (other.background != scenes.background).any(axis=1).mean() > 0.8
    assert (other.colour - other.background >= scenes.colour - scenes.background).all()


@pytest.mark.slow
def test_parts_are_of_the_split_they_are_asked_for(test):
    parts = drawn_shapes.draw_parts(np.arange(drawn_shapes.TEST_SIZE))
    assert np.array_equal(parts.images, test.images)
    regions = np.stack([parts.regions[part] for part in drawn_shapes.PARTS])
    assert (regions.sum(axis=0) == 1).all()
    assert (parts.regions["object"] >= test.masks).all()
    assert parts.regions["occluder"].any(axis=(1, 2)).mean() == pytest.approx(
        drawn_shapes.OCCLUDED_SHARE, abs=0.03
    )


def test_some_pictures_have_the_parts_that_they_have_among_all(test):
    positions = np.array([503, 7, 499, 500, 7])  # of two blocks, in no order
    few, whole = (drawn_shapes.draw_parts(p) for p in (positions, np.arange(504)))
    assert np.array_equal(few.images, test.images[positions])
    for part in drawn_shapes.PARTS:
        assert np.array_equal(few.without[part], whole.without[part][positions])
        assert np.array_equal(few.regions[part], whole.regions[part][positions])
    none = drawn_shapes.draw_parts(np.array([], np.int64))
    assert none.images.shape == (0, 3, 32, 32)


def test_how_many_are_painted_at_once_changes_nothing(scenes, monkeypatch):
    images, shares = drawn_shapes.render(scenes, 32)
    monkeypatch.setattr(drawn_shapes, "_CACHED", 1)
    one_by_one, others = drawn_shapes.render(scenes, 32)
    assert np.array_equal(images, one_by_one)
    for part in drawn_shapes.PARTS:
        assert np.array_equal(shares[part], others[part])


def test_the_object_changes_the_picture_only_where_it_is(scenes):
    images, masks = with_masks(scenes)
    empty, no_masks = with_masks(scenes, without="object")
    assert not no_masks.any()
    changed = np.abs(images.astype(int) - empty).max(axis=1)
    # The whole outline, occluded parts included: thin slivers beside an occluder are in no mask.
    outline = with_masks(without_occluders(scenes))[1]
    assert np.all(masks <= outline)
    assert not changed[~grown(outline, 3)].any()  # soft edges reach past the tips of stars
    assert (changed[masks] > 10).mean() > 0.97


def test_masks_leave_out_occluders_and_only_them(scenes):
    def with_occluders(level):
        colour = np.full_like(scenes.occluders.colour, level)
        occluders = dataclasses.replace(scenes.occluders, colour=colour)
        return with_masks(dataclasses.replace(scenes, occluders=occluders, grain=no_grain))

    no_grain = np.zeros_like(scenes.grain)
    black, masks = with_occluders(0.0)
    white, same_masks = with_occluders(1.0)
    assert np.array_equal(masks, same_masks)
    occluder_share = (white.astype(float) - black)[:, 0] / 255
    assert occluder_share[masks].max() < 0.51
    hidden = occluder_share.max(axis=(1, 2)) > 0
    assert abs(hidden.mean() - drawn_shapes.OCCLUDED_SHARE) < 0.1

    outline = with_masks(without_occluders(scenes))[1]
    assert np.array_equal(masks[occluder_share == 0], outline[occluder_share == 0])
    assert (outline & ~masks).any()


def centred(rng, targets):
    """Scenes with objects of these classes, whole, in the middle, all of one size."""
    scenes = drawn_shapes.sample_scenes(rng, len(targets))
    return dataclasses.replace(
        without_occluders(scenes),
        targets=targets,
        centre=np.zeros((len(targets), 2)),
        size=np.full(len(targets), 0.8),
    )


def test_the_holes_of_ring_and_frame_are_not_the_object():
    targets = np.arange(len(drawn_shapes.CLASSES))
    masks = with_masks(centred(np.random.default_rng(0), targets), 33)[1]
    hollow = {drawn_shapes.CLASSES[k] for k in targets[~masks[:, 16, 16]]}
    assert hollow == {"ring", "frame"}


def test_every_class_is_drawn_with_the_same_area():
    targets = np.repeat(np.arange(len(drawn_shapes.CLASSES)), 40)
    masks = with_masks(centred(np.random.default_rng(1), targets), 64)[1]
    areas = masks.reshape(len(drawn_shapes.CLASSES), -1).mean(axis=1)
    assert areas == pytest.approx(np.full(len(areas), 0.8**2 / 4), rel=0.03)


@pytest.mark.slow
def test_a_linear_classifier_on_pixels_stays_under_30_percent(train, test):
    pixels, test_pixels = (
        p.images.reshape(len(p.images), -1) / np.float32(255) for p in (train, test)
    )
    accuracy = linear_accuracy(pixels, train.targets, test_pixels, test.targets, ridge=0.3)
    assert accuracy < 0.30


def test_place_size_and_colour_do_not_tell_the_class(train, test):
    def statistics(pictures):
        at = np.arange(32)
        area = pictures.masks.sum(axis=(1, 2))
        x = (pictures.masks * at).sum(axis=(1, 2)) / area
        y = (pictures.masks * at[:, None]).sum(axis=(1, 2)) / area
        colour = (pictures.images * pictures.masks[:, None]).sum(axis=(2, 3)) / area[:, None]
        mean, std = pictures.images.mean(axis=(2, 3)), pictures.images.std(axis=(2, 3))
        return np.column_stack([x, y, area, colour, mean, std])

    features, test_features = statistics(train), statistics(test)
    accuracy = linear_accuracy(features, train.targets, test_features, test.targets, 1e-3)
    assert accuracy < 0.15  # chance is 0.10, with a standard error of 0.007

    # The classes' means differ no more than chance has them differ: F would average 1.
    for column in features.T:
        groups = [column[train.targets == k] for k in range(len(drawn_shapes.CLASSES))]
        between = np.var([group.mean() for group in groups], ddof=1) * len(groups[0])
        within = np.mean([group.var(ddof=1) for group in groups])
        assert between / within < 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "unknown split 'valid'.*'train', 'test'"),
        ({"split": "train", "image_size": 15}, "image_size is 15.*16"),
        ({"split": "train", "count": 0}, "count is 0"),
        ({"split": "train", "seed": -1}, "seed is -1"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        drawn_shapes.draw_split(**arguments)
