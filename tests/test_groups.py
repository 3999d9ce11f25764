"""What belongs together stays on one side of every split that is drawn."""

import re
import shutil

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from helpers.pictures import load, make_folder, scene
from utils import InputError
from utils.data import groups
from utils.data.batches import hold_out
from utils.data.groups import grouped_part, named_groups, series_in_words, united

pytestmark = pytest.mark.usefixtures("no_network")


def shares_of(targets, part):
    """What a part holds of each class."""
    return torch.stack([part[targets == target].float().mean() for target in targets.unique()])


def layout(seed):
    """Pictures in groups, of which some split has every class within 5 points of a fifth.

    That split is laid down first, and each of its sides cut into groups apart: of one class each,
    or of whatever comes. It is not told.
    """
    rng = np.random.default_rng(seed)
    totals = rng.integers(20, 80, rng.integers(2, 6))
    tested = np.rint(totals * rng.uniform(0.15, 0.25, len(totals)))
    tested = np.clip(tested, np.ceil(totals * 0.15), totals // 4).astype(int)
    is_mixed, largest = rng.random() < 0.5, rng.integers(3, 16)
    targets, together = [], []
    for counts in (tested, totals - tested):
        pool = np.repeat(np.arange(len(totals)), counts)
        if is_mixed:
            rng.shuffle(pool)
        while len(pool):
            group = pool[: rng.integers(1, largest)]
            group = group if is_mixed else group[group == group[0]]
            targets.append(group)
            together.append(np.full(len(group), len(together)))
            pool = pool[len(group) :]
    order = rng.permutation(totals.sum())
    numbers = rng.permutation(len(together))  # so that no number tells the side
    flat = (np.concatenate(targets)[order], numbers[np.concatenate(together)][order])
    return tuple(map(torch.from_numpy, flat))


@pytest.mark.slow
def test_of_a_hundred_layouts_none_shares_a_group_and_all_have_the_shares_that_are_possible():
    for seed in range(100):
        targets, together = layout(seed)
        part = grouped_part(targets, 0.2, seed, together)
        assert not torch.isin(together[part], together[~part]).any()
        assert (shares_of(targets, part) - 0.2).abs().max() <= groups.NEAR_ENOUGH + 1e-6


def test_a_large_group_is_left_where_a_fold_of_scikit_learn_takes_it():
    sizes = [30, 4, 4, 4, 4, 4]
    targets = torch.arange(100) // 50
    together = torch.arange(12).repeat_interleave(torch.tensor(sizes * 2))
    fold = next(StratifiedGroupKFold(5).split(targets, targets, together))[1]
    theirs = torch.zeros(100, dtype=torch.bool).scatter_(0, torch.tensor(fold), True)
    assert sorted(shares_of(targets, theirs).tolist()) == pytest.approx([0.08, 0.6])
    ours = grouped_part(targets, 0.2, 0, together)
    assert shares_of(targets, ours).tolist() == pytest.approx([0.16, 0.16])


def test_a_part_is_chosen_by_its_seed_and_any_group_may_be_in_it():
    targets, together = torch.arange(200) % 2, torch.arange(200) // 4
    part = grouped_part(targets, 0.25, 0, together)
    assert part.sum() in range(48, 53)
    assert torch.equal(part, grouped_part(targets, 0.25, 0, together))
    assert torch.equal(part, grouped_part(targets, 0.25, 0, 900 + 7 * together))
    chances = sum(grouped_part(targets, 0.25, seed, together).float() for seed in range(100)) / 100
    assert chances.min() > 0.05 and chances.max() < 0.5


def test_a_class_of_few_large_groups_is_on_both_sides():
    targets = torch.tensor([0] * 40 + [1] * 40)
    together = torch.tensor([*range(40), *[50] * 20, *[51] * 20])
    part = grouped_part(targets, 0.2, 0, together)
    assert shares_of(targets, part).tolist() == pytest.approx([0.2, 0.5])
    shares = groups.shares_of_classes(targets, part, ("ant", "bee"))
    assert (
        groups.shares_in_words(shares, 0.2)
        == "20% to 50% of each class; whole groups came no nearer to 20% of: bee 50%"
    )


def test_a_class_in_one_group_is_on_one_side():
    targets, together = torch.tensor([0] * 8 + [1] * 8), torch.tensor([*range(8), *[9] * 8])
    shares = shares_of(targets, grouped_part(targets, 0.2, 0, together))
    assert 0 < shares[0] < 1 and shares[1] in (0, 1)


def test_a_group_that_holds_one_picture_under_two_labels_is_not_chosen():
    targets, together = torch.arange(80) % 2, torch.arange(80) // 4
    copies = torch.arange(80)
    copies[1] = 0
    chosen = [grouped_part(targets, 0.25, seed, together, copies) for seed in range(30)]
    assert all(part.any() and not part[:4].any() for part in chosen)


# Rules


def numbers(names, rule):
    found, _ = named_groups(names, rule)
    return [found.tolist().index(number) for number in found.tolist()]


NAMES = ["p1_a.jpg", "p1_b.jpg", "p2_a.jpg", "day 1/x.jpg", "day 1/deep/y.jpg", "day 2/x.jpg"]


def test_rules_tell_what_belongs_together():
    assert numbers(NAMES, "folder") == [0, 1, 2, 3, 3, 5]
    assert numbers(NAMES, r"^(p\d)_") == [0, 0, 2, 3, 4, 5]
    assert numbers(NAMES, r"^p\d|\w\.jpg$") == [0, 0, 2, 3, 4, 3]
    assert named_groups(NAMES, "copies") == (None, [])
    (note,) = named_groups(NAMES, r"^(p\d)_")[1]
    assert "tells nothing of 3 of 6 pictures, and each of them counts for itself: day 1/" in note
    assert named_groups(NAMES[3:], "folder")[1] == []


@pytest.mark.parametrize(
    ("rule", "names", "message"),
    [
        ("(", NAMES, r"'\(' is no regular expression .*Put a backslash"),
        ("(a)(b)", NAMES, r"has 2 groups in brackets.*Write \(\?:…\)"),
        ("q", NAMES, "'q' puts no pictures together. Their names match nowhere .*: day 1/deep"),
        ("x*", NAMES[:2], "puts no pictures together"),
        ("folder", NAMES[:3], "They lie in no folder below their class: p1_a.jpg, p1_b.jpg"),
        ("a|b|p", NAMES[:3], r"puts all pictures into one group \('p'\)"),
    ],
)
def test_rules_that_tell_nothing_are_refused(rule, names, message):
    with pytest.raises(InputError, match=message):
        named_groups(names, rule)


def test_what_either_relation_joins_is_one_group():
    first = torch.tensor([7, 7, 3, 3, 1, 1])
    second = torch.tensor([0, 1, 1, 3, 4, 5])
    assert united(first, second).tolist() == [0, 0, 0, 0, 4, 4]
    assert united(second, first).tolist() == [0, 0, 0, 0, 4, 4]


# Folders


def bursts(root, classes=("ant", "bee"), number=8, size=3):
    """Each class in bursts, each in a folder of its own, of scenes none like another."""
    seed = 0
    for name in classes:
        for burst in range(number):
            folder = root / name / f"{name} {burst}"
            folder.mkdir(parents=True)
            for picture in range(size):
                seed += 1
                scene(seed).save(folder / f"{burst}-{picture}.png")
    return root


def together_of(*splits):
    return [set(split.together.tolist()) for split in splits]


@pytest.mark.parametrize("rule", ["folder", r"/(\d+)-"])
def test_groups_and_copies_stay_on_one_side_of_all_that_is_drawn(rule, tmp_path):
    root = bursts(tmp_path / "pets")
    shutil.copy(root / "ant/ant 0/0-0.png", root / "ant/ant 5/5-9.png")  # joins two bursts
    loaded = load(root, tmp_path, keep_together=rule)
    (told,) = [note for note in loaded.notes if note.startswith("No test folder")]
    assert f"groups by keep_together {rule!r}: " in told
    train, watched = hold_out(loaded, 0.2)
    sides = together_of(train, watched, loaded.test)
    number = 15 if rule == "folder" else 7
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides)) == number
    assert loaded.test.targets.bincount(minlength=2).min() > 0
    again = load(root, tmp_path, keep_together=rule)  # from the cache
    assert torch.equal(again.test.together, loaded.test.together)
    assert load(root, tmp_path).test.together is None  # beside it


def test_the_same_subfolders_of_all_classes_are_groups_where_that_is_said(tmp_path):
    folders = [f"{name}/day{day}" for name in ("ant", "bee") for day in range(6)]
    root = make_folder(tmp_path / "pets", dict.fromkeys(folders, 2))
    with pytest.raises(InputError, match=r'subfolders are groups.*keep_together="folder"'):
        load(root, tmp_path)
    loaded = load(root, tmp_path, keep_together="folder")
    assert len(set.union(*together_of(loaded.train, loaded.test))) == 6


@pytest.mark.parametrize(
    ("rule", "are_groups"),
    [
        ("copies", False), (r"(bird\d+)_", False), (groups.SERIES_BELOW, False), (r"\d+", False),
        ("folder", True), (r"^(\w+) \d/", True), (r"^[^/]*/", True), (r"^(\w+) \d.*_", True),
    ],
)  # fmt: skip
def test_only_a_rule_that_goes_by_folders_lets_the_same_subfolders_be(rule, are_groups, tmp_path):
    inside = [f"fold{fold}/{name}" for fold in "12" for name in ("heron 1", "wren 2", "owl 3")]
    root = make_folder(tmp_path / "birds", dict.fromkeys(inside, 2))
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(f"bird{path.stem}_1.png"))
    if are_groups:
        assert load(root, tmp_path, keep_together=rule).classes == ("fold1", "fold2")
        return
    with pytest.raises(InputError, match=r"fold1, fold2, which have the same subfolders"):
        load(root, tmp_path, keep_together=rule)


def test_in_a_split_that_was_given_groups_on_both_sides_are_counted(tmp_path):
    root = make_folder(tmp_path / "pets", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 3})
    loaded = load(root, tmp_path, keep_together=r"^\d+")
    (told,) = [note for note in loaded.notes if "on both sides of the split" in note]
    assert "3 groups lie on both sides of the split that was given, with 5 of 5 test" in told
    assert len(loaded.train) == 8 and len(loaded.test) == 5


def test_a_class_that_cannot_be_parted_is_named(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 8, "bee/burst": 8})
    with pytest.raises(InputError, match=r"every class on both sides of the split: bee\."):
        load(root, tmp_path, keep_together="folder")


@pytest.mark.parametrize("dataset", ["shapes", "cifar10"])
def test_a_known_data_set_has_no_groups(dataset, tmp_path):
    with pytest.raises(InputError, match=re.escape("keep_together is 'folder', which is for a")):
        load(dataset, tmp_path, keep_together="folder")


def test_names_that_look_like_series_are_told_where_a_drawn_split_parts_them(tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 12, "bee": 12})
    for burst in (1, 2):
        for shot in range(4):
            scene(10 * burst + shot).save(root / f"ant/burst_{burst}_{shot}.png")
    (told,) = [n for n in load(root, tmp_path).notes if n.startswith("Series? ")]
    rule = re.search('keep_together="(.*)"', told)[1]
    kept = load(root, tmp_path, keep_together=rule)
    assert not [note for note in kept.notes if note.startswith("Series? ")]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a/b_1_1.jpg", "a/b_1_2.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg"], "1 of 2 test pictures"),
        (
            ["a/2024-05-31 (1).jpg", "a/2024-05-31 (2).jpg", *["a/x.jpg"] * 3],
            "names a/2024-05-31 (",
        ),
        (["a/IMG_0412.jpg", "a/IMG_0413.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg"], None),
        (["a/n02_1.jpg", "a/n02_2.jpg", "a/n02_3.jpg", "b/n03_1.jpg", "b/n03_2.jpg"], None),
    ],
)
def test_what_a_series_is(names, told):
    notes = series_in_words(names, np.array([True, False, False, True, False]))
    assert (notes == []) if told is None else (told in notes[0])
