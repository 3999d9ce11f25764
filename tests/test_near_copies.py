"""Near-copies that were planted are found, and nothing else is."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from utils.data import near_copies as module
from utils.data.drawn_shapes import draw_split
from utils.data.near_copies import near_copies, near_groups, near_pairs, perceptual_hashes
from utils.data.picture_set import Split


def as_split(images, groups=None):
    return Split(images, torch.zeros(len(images), dtype=torch.int64), groups=groups)


@pytest.fixture(scope="module")
def shapes():
    """Drawn shapes as a training split and a test split, none of them alike."""
    return [torch.from_numpy(draw_split(name, count=300).images) for name in ("train", "test")]


def change(image, kind):
    """A picture as a near-copy of it comes about."""
    image = image[None].float()
    shifted = torch.nn.functional.pad(image, (1, 0, 0, 0), "replicate")[..., :-1]
    grain = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    made = {
        "the same": image,
        "mirrored": image.flip(3),
        "brighter": image * 1.04 + 3,
        "noisy": image + 6 * grain,
        "shifted": shifted,
        "smaller and back": interpolate(interpolate(image, 24, mode="area"), 32, mode="bilinear"),
    }[kind]
    return made.clamp(0, 255).round().byte()[0]


@pytest.mark.parametrize(
    "kind", ["the same", "mirrored", "brighter", "noisy", "shifted", "smaller and back"]
)
def test_near_copies_are_found_and_nothing_else_is(shapes, kind, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 90)
    train, test = shapes
    planted = test.clone()
    places, sources = np.array([3, 100, 299]), np.array([250, 0, 17])
    for place, source in zip(places, sources, strict=True):
        planted[place] = change(train[source], kind)
    found = near_copies(as_split(planted), as_split(train))
    np.testing.assert_array_equal(found[places], sources)
    assert (np.delete(found, places) == -1).all()


def test_the_same_scene_as_a_negative_or_upside_down_is_another_picture(shapes):
    train, _ = shapes
    for other in (train.flip(2), 255 - train):
        assert (near_copies(as_split(other[:50]), as_split(train)) == -1).all()


def test_pictures_of_one_colour_are_the_same_where_the_colour_is():
    grey, lighter = (torch.full((1, 3, 16, 16), value, dtype=torch.uint8) for value in (90, 160))
    both = as_split(torch.cat([lighter, grey]))
    assert near_copies(as_split(grey), both).tolist() == [1]
    assert near_copies(as_split(grey), as_split(lighter)).tolist() == [-1]


def test_the_most_alike_of_several_is_named(shapes):
    train, _ = shapes
    copies = [change(train[5], kind) for kind in ("noisy", "the same", "smaller and back")]
    assert near_copies(as_split(train[5:6]), as_split(torch.stack(copies))).tolist() == [1]


# In a folder


def saved(image, kind):
    """A picture as it comes back from a file: re-encoded at quality 50, resized, or mirrored."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    side, way = picture.width, Image.Resampling.BICUBIC
    if kind == "mirrored":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind == "resized":
        picture = picture.resize((3 * side // 4,) * 2, way).resize((side, side), way)
    written = BytesIO()
    picture.save(written, "JPEG", quality=50 if kind == "quality 50" else 90)
    return torch.from_numpy(np.array(Image.open(written)).transpose(2, 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quality 50", "resized", "mirrored"])
def test_of_planted_copies_nearly_all_are_found_and_little_else(shapes, kind):
    originals = torch.cat(shapes)
    sources = torch.arange(0, len(originals), 3)
    copies = torch.stack([saved(originals[source], kind) for source in sources])
    _, pairs = near_groups(torch.cat([originals, copies]))
    planted = {(int(s), len(originals) + place) for place, s in enumerate(sources)}
    found = set(map(tuple, pairs.tolist()))
    recall, precision = (len(planted & found) / len(some) for some in (planted, found))
    print(f"{kind}: recall {recall:.3f}, precision {precision:.3f}, n = {len(planted)}")
    assert recall >= 0.95 and precision >= 0.95


def test_a_group_is_all_that_copies_connect(shapes):
    train, _ = shapes
    images = train[:6].clone()
    images[2], images[5] = images[0], change(images[0], "mirrored")
    images[4] = change(change(images[0], "mirrored"), "noisy")
    group, pairs = near_groups(images)
    assert group.tolist() == [0, 1, 0, 3, 0, 0]
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == {(0, 4), (0, 5), (4, 5)}
    assert pairs[0].tolist() == [0, 5]  # the most alike first, and of the same pixels the first


def test_a_group_goes_on_where_two_of_it_are_not_alike():
    assert module.connected(6, torch.tensor([[4, 5], [0, 1], [1, 4]])).tolist() == [
        0,
        0,
        2,
        3,
        0,
        0,
    ]
    chain = torch.stack((torch.arange(999), torch.arange(1, 1000)), 1).flip(0)
    assert (module.connected(1000, chain) == 0).all()


def test_pairs_among_pictures_are_those_between_them_and_themselves(shapes, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)
    train, _ = shapes
    images = torch.cat([train[:20], train[5:10].flip(3), train[:2]])
    among, alike = near_pairs(images)
    between, _ = near_pairs(images, images)
    assert among.tolist() == [[i, j] for i, j in between.tolist() if i < j]
    assert among.tolist() == [[0, 25], [1, 26], *([5 + n, 20 + n] for n in range(5))]
    assert (alike > 0.999).all()


def test_larger_pictures_are_compared_as_smaller_ones_are(shapes):
    train, _ = shapes
    images = torch.cat([train[:30], train[10:11].flip(3)])
    larger = interpolate(images.float(), scale_factor=3, mode="nearest").byte()
    assert near_pairs(larger)[0].tolist() == near_pairs(images)[0].tolist() == [[10, 30]]


def test_where_all_look_alike_a_few_are_compared(shapes, monkeypatch):
    train, _ = shapes
    images = torch.stack([change(train[0], "the same")] * 40)
    images[:, 0, 0, 0] += torch.arange(40, dtype=torch.uint8)  # no two are the same
    monkeypatch.setattr(module, "MOST_PROPOSED", 3)
    pairs, _ = near_pairs(images)
    assert len(pairs) <= 3 * 40 and pairs[:, 0].unique().tolist() == list(range(39))
    group, _ = near_groups(images)
    assert not group.any()


def test_no_picture_has_no_copy():
    nothing = torch.empty(0, 3, 16, 16, dtype=torch.uint8)
    assert near_pairs(nothing)[0].shape == (0, 2)
    assert perceptual_hashes(nothing).shape == (0, 64)


def test_after_an_audit_near_copies_are_of_the_same_group(shapes):
    train, test = shapes
    known = as_split(train[:4], torch.tensor([7, 8, 8, 9]))
    asked = as_split(torch.stack([test[0], change(train[2], "mirrored"), train[0]]),
                     torch.tensor([5, 8, 6]))  # fmt: skip
    assert near_copies(asked, known).tolist() == [-1, 2, -1]
