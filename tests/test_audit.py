"""What an audit says of a folder that was made to be difficult, and of one that was not."""

import os
import shutil

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from helpers.notebooks import code_cells
from helpers.pictures import load, made_set, scene
from utils.data import audit
from utils.data.audit import BRIGHT, DARK, SHOWN, audit_in_words
from utils.pipeline.sequence import NOTEBOOKS
from utils.plots import exploration
from utils.runs import Run

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def drawn():
    """Pictures of 96 pixels a side, none like another."""
    return [scene(seed) for seed in range(80)]


def kept(root, drawn, per_class=12, classes=("ant", "bee"), parts=("",)):
    """Write so many of them into each class folder, PNG all."""
    left = iter(drawn)
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(per_class):
                next(left).save(root / part / name / f"{number:02}.png")
    return root


def notes_of(loaded, beginning):
    return [note for note in loaded.notes if note.startswith(beginning)]


def test_of_a_sound_folder_nothing_is_said(drawn, tmp_path):
    loaded = load(kept(tmp_path / "pets", drawn), tmp_path)
    assert len(loaded.notes) == 1 and loaded.notes[0].startswith("No test folder")
    assert loaded.audit.rows == () and len(loaded.audit.images) == 0
    first, *others = audit_in_words(loaded.audit).splitlines()
    assert first.startswith("No near-copies, no mark of one class, and no picture that is dark")
    assert others[1].startswith("brightness: ") and "where guessing is right in 50.0%" in others[1]
    assert others[-1].startswith("None is 5 points better than guessing, beyond chance")


def test_a_known_data_set_is_not_audited():
    assert audit_in_words(None).startswith("Only a person's own pictures are audited")


def test_near_copies_of_every_kind_are_named_and_stay_on_one_side(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn)
    one = Image.open(root / "ant/00.png")
    one.save(root / "ant/again.jpg", quality=50)
    one.resize((41, 41)).save(root / "ant/small.png")
    one.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "ant/mirrored.jpg")
    shutil.copy(root / "bee/03.png", root / "bee/same.png")
    loaded = load(root, tmp_path)
    (told,) = notes_of(loaded, "Near-copies: 4 of 28 pictures are nearly the same as another")
    for name in ("again.jpg", "mirrored.jpg", "small.png"):
        assert f"ant/00.png ≈ ant/{name}" in told
    assert notes_of(loaded, "Near-copies: none lies on both sides of the split")
    assert notes_of(loaded, "The very same pixels, by name: bee/03.png = bee/same.png.")
    train, test = (set(s.groups.tolist()) for s in (loaded.train, loaded.test))
    assert not train & test and len(train | test) == 24
    ((what, names),) = loaded.audit.rows
    assert what == "near-copies" and len(names) == SHOWN == len(loaded.audit.images)


def test_near_copies_under_two_labels_are_named_and_never_tested_on(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn)
    Image.open(root / "ant/00.png").save(root / "bee/again.jpg", quality=50)
    loaded = load(root, tmp_path)
    (told,) = notes_of(loaded, "Near-copies: 1 pair")
    assert "right, and not tested on: ant/00.png ≈ bee/again.jpg." in told
    groups = loaded.train.groups.tolist()
    assert sum(groups.count(group) == 2 for group in groups) == 2
    assert loaded.audit.rows == (("two labels", ("ant/00.png", "bee/again.jpg")),)
    assert loaded.audit.targets.tolist() == [0, 1]


def test_near_copies_across_a_split_that_was_given_are_counted(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn, 6, parts=("train", "test"))
    Image.open(root / "train/ant/00.png").save(root / "test/ant/again.jpg", quality=50)
    shutil.copy(root / "train/bee/03.png", root / "test/bee/same.png")
    loaded = load(root, tmp_path)
    (told,) = notes_of(loaded, "Near-copies: 2 of 14 test pictures")
    assert "Chapters 3 and 5 also give the accuracy without them." in told
    assert notes_of(loaded, "Copies: 1 of 14 test pictures are also among the training pictures")
    ((what, names),) = loaded.audit.rows
    assert what == "both splits"
    assert names == ("train/bee/03.png", "test/bee/same.png", "train/ant/00.png",
                     "test/ant/again.jpg")  # fmt: skip


def test_a_class_of_nothing_but_near_copies_is_split_all_the_same_and_that_is_said(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn, 8)
    one = Image.open(root / "bee/00.png")
    for number in range(8):
        one.resize((60 + number, 60 + number)).save(root / f"bee/0{number}.png")
    loaded = load(root, tmp_path)
    (told,) = notes_of(loaded, "All pictures of these classes are near-copies of one another")
    assert told.endswith("on both sides of the split all the same: bee.")
    assert loaded.test.targets.tolist() == [0, 0, 1, 1]
    assert notes_of(loaded, "Near-copies: 2 of 4 test pictures are nearly the same")


def test_pictures_that_show_little_are_named(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn)
    spoilt = {
        "dark": drawn[70].point(lambda v: v * DARK * 0.9),
        "light": drawn[71].point(lambda v: 255 * BRIGHT + v * 0.05 + 1),
        "blurred": drawn[72].filter(ImageFilter.GaussianBlur(3)),
        "tiny": drawn[73].resize((31, 60)),
        "plain": Image.new("RGB", (96, 96), "black"),
    }
    for name, picture in spoilt.items():
        picture.save(root / f"ant/{name}.png")
    loaded = load(root, tmp_path)
    told = loaded.notes[1:]
    for note, about in zip(told, ("all of nearly one colour: ant/plain.png.",
                                  "below 32% of white: ant/dark.png.",
                                  "above 95% of white: ant/light.png.",
                                  "blurred, or enlarged from less: ant/blurred.png.",
                                  "the network is given: ant/tiny.png."), strict=True):  # fmt: skip
        assert note.startswith("1 file is") and note.endswith(about)
    assert [what for what, _ in loaded.audit.rows] == [
        "one colour", "very dark", "very bright", "blurred", "tiny",
    ]  # fmt: skip


def test_the_worst_are_shown_first_and_few_of_them(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn)
    for number in range(8):
        white = Image.new("RGB", (40, 40), 3 * (80 - 7 * number,))
        picture = drawn[60 + number].point(lambda v, share=0.2 - 0.02 * number: v * share)
        picture.paste(white)
        picture.save(root / f"ant/dark{number}.png")
    ((_, names),) = load(root, tmp_path).audit.rows
    assert names == tuple(f"ant/dark{number}.png" for number in (7, 6, 5, 4, 3, 2))


def test_a_property_that_gives_the_class_away_is_told_with_an_interval(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn, 30)
    for path in (root / "bee").iterdir():
        taken = Image.Exif()
        taken[0x0110] = "D90"
        Image.open(path).save(path.with_suffix(".webp"), exif=taken)
        path.unlink()
    told = notes_of(load(root, tmp_path), "A shortcut: ")
    for name, value in (("camera", "'D90'"), ("file type", "'WEBP'")):
        (note,) = [note for note in told if note.startswith(f"A shortcut: {name} alone")]
        assert "in 100.0% (99% interval 90.0% to 100.0%), where guessing is right in 50.0%" in note
        assert f"of 30 with {name}" in note and (value in note or "are ant" in note)
    assert len(told) == 2


def test_a_mark_is_told_and_shown_and_what_is_kept_together_counts_as_one(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn, 40)
    for number, path in enumerate(sorted((root / "ant").iterdir())):
        picture = Image.open(path)
        picture.paste((230, 40, 60), (84, 3, 93, 12))
        picture.save(root / f"ant/b{number // 2}_{number % 2}.png")
        path.unlink()
    for rule, count in (("copies", 40), (r"^(b\d+_)", 20)):
        loaded = load(root, tmp_path, keep_together=rule)
        (told,) = notes_of(loaded, "A mark? ")
        assert f"At the top right, {count} of {count} pictures of ant that were looked at" in told
        ((what, names),) = loaded.audit.rows
        assert what == "a mark?" and len(names) == SHOWN and names[0].startswith("ant/b")


def test_pictures_that_cannot_be_read_are_not_audited(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn)
    for name in ("ant", "bee"):
        (root / name / "05.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 40)).save(root / "bee" / "99.png")
    loaded = load(root, tmp_path, skip_unreadable=True)
    assert len(loaded.train) + len(loaded.test) == 23
    assert loaded.audit.rows == (("one colour", ("bee/99.png",)),)
    assert not notes_of(loaded, "Near-copies") and not notes_of(loaded, "Copies")


def test_names_that_are_no_unicode_or_act_on_a_terminal_can_be_printed(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn)
    for name in (b"caf\xe9", b"x\x1b[2J"):
        black = os.fsencode(root) + b"/ant/" + name + b".png"
        try:
            os.rename(shutil.copy(root / "ant/00.png", root / "ant/new.png"), black)
        except OSError:
            pytest.skip("this file system takes Unicode names only")
    (told,) = notes_of(load(root, tmp_path), "The very same pixels")
    assert "caf\\udce9.png" in told and "x\\x1b[2J.png" in told and told.isprintable()


def test_an_audit_is_kept_with_the_pictures(drawn, tmp_path):
    root = kept(tmp_path / "pets", drawn)
    Image.open(root / "ant/00.png").save(root / "bee/again.jpg", quality=50)
    first, again = load(root, tmp_path), load(root, tmp_path)
    limited = load(root, tmp_path, limit_train=6)
    for loaded in (again, limited):
        assert loaded.audit.rows == first.audit.rows and loaded.audit.tells == first.audit.tells
        assert torch.equal(loaded.audit.images, first.audit.images)
        assert torch.equal(loaded.audit.targets, first.audit.targets)
        assert torch.equal(loaded.test.groups, first.test.groups)
    assert torch.equal(again.train.groups, first.train.groups)
    assert len(limited.train.groups) == 6
    assert np.isin(limited.train.groups, first.train.groups).all()


def test_chapter_1_shows_the_worst_and_says_the_rest(drawn, tmp_path, capsys):
    """Its cells of the audit alone, since a kernel takes longer to begin than they do."""
    root = kept(tmp_path / "pets", drawn)
    Image.open(root / "ant/00.png").save(root / "bee/again.jpg", quality=50)
    notebook = nbformat.read(NOTEBOOKS["01_data_exploration"], as_version=4)
    sources = [cell.source for cell in code_cells(notebook)]
    place = next(n for n, source in enumerate(sources) if "picture_set.audit" in source)
    for picture_set, shown in ((load(root, tmp_path), True), (made_set([0, 1, 2]), False)):
        run = Run(f"shown-{shown}", tmp_path / "outputs")
        names = {"picture_set": picture_set, "run": run, "title": "pets", "plots": exploration}
        exec("\n".join(sources[place : place + 2]), {**names, "audit": audit})
        assert run.path("figures", "01_audit.png").is_file() == shown
        said = capsys.readouterr().out
        assert ("Image object" in said) == shown  # what `display` prints where there is no kernel
        assert ("How often one property of the files alone names the class" in said) == shown
    assert said.endswith("Only a person's own pictures are audited: these are a known data set.\n")
