"""Folders of labelled pictures: which of their subfolders are classes, and which are splits.

What is plainly a split is read as one; what only looks like one is refused, since a class called
"Test" would be learnt without a word. What is not used is counted and named.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from utils import InputError, brief
from utils.data.folder_names import (
    annotation_folders,
    labels_in_names,
    pattern_of_labels,
    split_role,
    split_roles,
    tell_of_no_class,
)
from utils.data.pictures import EXTENSIONS, how_to_read
from utils.settings import LABEL_TABLES

#: Files in which labels are often kept.
TABLES = (".csv", ".tsv", ".json", ".xml", ".xlsx", ".parquet", ".txt")
#: How many names a message lists.
FEW = 5


@dataclass(frozen=True)
class PictureFolder:
    """What was found below a folder of labelled pictures.

    Attributes:
        root: the folder.
        classes: sorted class names, in Unicode's composed form (NFC).
        train, test: (path, class index) of every picture; `test` is None where there is no
            separate test folder and a part of `train` is to be held out.
        key: changes when a file's name, size or time changes.
        notes: what a person should know about how the folder was read, and what was not used.
        below: the name of every picture below its class folder, in composed form and with ``/``
            throughout: those of `train`, then those of `test`.
    """

    root: Path
    classes: tuple[str, ...]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]] | None
    key: str
    notes: tuple[str, ...]
    below: tuple[str, ...]


@dataclass(eq=False)
class Folder:
    """A folder and what is in it.

    Attributes:
        name: from the root, in composed form; "" for the root.
        folders: those in it, by their names in composed form.
        pictures: (path, size and time) of the picture files in it.
        others: names of the other files in it.
    """

    name: str
    folders: dict[str, "Folder"] = field(default_factory=dict)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def below(self) -> Iterator["Folder"]:
        """Yield this folder and all below it."""
        waiting: list[Folder] = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += folder.folders.values()

    def all_pictures(self) -> list[tuple[str, str]]:
        """Return the pictures in it and below, sorted by path."""
        return sorted(picture for folder in self.below() for picture in folder.pictures)

    def filled(self) -> dict[str, "Folder"]:
        """Return the folders in it that hold pictures, at any depth."""
        return {name: f for name, f in self.folders.items() if any(g.pictures for g in f.below())}

    def annotations(self) -> list["Folder"]:
        """Return the folders in it, at any depth, that hold annotations of the pictures beside."""
        found = []
        for folder in self.below():
            filled = folder.filled()
            most = max((len(f.all_pictures()) for f in filled.values()), default=0)
            # A stray picture beside folders called mask and no_mask makes no annotations of them.
            are_as_many = 0 < most <= 2 * len(folder.pictures)
            found += [folder.folders[name] for name in annotation_folders(filled, are_as_many)]
        return found

    def child(self, name: str) -> "Folder":
        """Return the folder of that name in it, made where there is none yet."""
        name = unicodedata.normalize("NFC", name)
        return self.folders.setdefault(name, Folder(f"{self.name}/{name}".lstrip("/")))


#: Which folder holds which class, for each split that is read.
_Splits = dict[str, dict[str, Folder]]


def scan_folder(
    root: Path, absent: Iterable[str] = (), is_in_group: Callable[[str], bool] | None = None
) -> PictureFolder:
    """Find the labelled pictures below `root`, without opening any.

    Layouts: ``root/train/<class>/*`` with ``root/test/<class>/*``, ``root/<class>/train/*`` with
    ``root/<class>/test/*``, or just ``root/<class>/*``; splits go by any of the names of
    `utils.data.folder_names.ROLES`, in any case. A validation folder stands in for a missing test
    folder.

    Args:
        root: the folder.
        absent: names from `root` of files that belong to it and were left where it came from, such
            as the files of an archive that are not pictures.
        is_in_group: tells of a picture, by its name below its class, whether the first folder in
            that name is known to be a group of pictures; None where that is known of none.

    Raises:
        InputError: the folder is missing; it holds fewer than two classes with pictures; or its
            folders look like splits and cannot be read as such, or tell of no class.
    """
    if not root.is_dir():
        raise InputError(
            f"The folder {root} does not exist. Give the one that holds your pictures."
        )
    try:
        return _scan(root, read_tree(root, absent), is_in_group)
    except OSError as error:
        raise unreadable(root, error) from error


def unreadable(root: Path, error: OSError) -> InputError:
    """Return what to tell of a folder, or something below it, that the system will not read."""
    return InputError(
        f"{error.filename or root} cannot be read: {error.strerror}. Change its permissions, or "
        "leave it out."
    )


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """Return the paths of all picture files below a folder, and of all other files."""
    found = list(read_tree(folder, ()).below())
    pictures = [path for inside in found for path, _ in inside.pictures]
    others = [str(folder / inside.name / name) for inside in found for name in inside.others]
    return sorted(pictures), sorted(others)


def count_endings(names: Iterable[str]) -> str:
    """Return how many files there are of each kind, such as "12 .heic, 1 .txt".

    >>> count_endings(["a.HEIC", "b.heic", "notes.txt", "README"])
    '2 .heic, 1 .txt, 1 without an ending'
    """
    counts = Counter(PurePath(name).suffix.lower() or "without an ending" for name in names)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} {ending}" for ending, count in ordered)


def few(names: Iterable[str]) -> str:
    """Return names as a message lists them: the first few in order, and how many more there are.

    >>> few(f"{number}.png" for number in range(8))
    '0.png, 1.png, 2.png, 3.png, 4.png and 3 more'
    """
    names = sorted(names)
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW:,} more" if names[FEW:] else "")


# What is there


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is nobody's picture: hidden, or made by macOS's archiver."""
    return name.startswith(".") or name == "__MACOSX"


def read_tree(root: Path, absent: Iterable[str]) -> Folder:
    """Return all that is below a folder but what is hidden; links are followed, but no circle."""
    top = Folder("")
    waiting = [(str(root), top, frozenset())]
    while waiting:
        place, folder, above = waiting.pop()
        above = above | {_identity(place)}
        with os.scandir(place) as entries:
            visible = sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: e.name)
        for entry in visible:
            if entry.is_dir():
                if not entry.is_symlink() or _identity(entry.path) not in above:
                    waiting.append((entry.path, folder.child(entry.name), above))
            elif entry.name.lower().endswith(EXTENSIONS):
                folder.pictures.append((entry.path, _size_and_time(entry)))
            else:
                folder.others.append(entry.name)
    for name in absent:
        *folders, file = PurePath(name).parts
        folder = top
        for part in folders:
            folder = folder.child(part)
        folder.others.append(file)
    return top


def _identity(folder: str) -> tuple[int, int]:
    """Return what tells a folder from all others, whatever the way to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _size_and_time(item: os.DirEntry) -> str:
    try:
        stat = item.stat()
    except OSError:  # a link to nowhere; reading it will fail, and say so
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


# What it means


def _scan(root: Path, tree: Folder, is_in_group: Callable[[str], bool] | None) -> PictureFolder:
    notes: list[str] = []
    top = _inner(tree)
    if top is not tree:
        notes.append(f"Read: {root / top.name}, which alone holds pictures.")
    told = _splits_at_top(root, top, notes) or _splits_below(root, top, notes)
    splits = told or {"train": top.folders}
    _refuse_no_classes(root, [Folder("", split) for split in told.values()] if told else [top])
    if not told:
        _refuse_repeated(root, top, is_in_group)
    found = {
        split: {name: folder.all_pictures() for name, folder in folders.items()}
        for split, folders in splits.items()
    }
    classes = _agreed_classes(root, top, found)
    vanished = {name: f for name, f in splits["train"].items() if name not in classes}
    notes += [_vanished(name, folder) for name, folder in vanished.items()]
    notes += _pooled(splits["train"]) + nearly_alike(classes)
    notes += _left_out(root, tree, found, list(vanished.values()))
    index = {name: position for position, name in enumerate(classes)}
    listed = {
        split: [(path, index[name]) for name, files in by_class.items() for path, _ in files]
        for split, by_class in found.items()
    }
    below = [
        inside
        for split, by_class in found.items()
        for name in by_class
        for inside in _names_below(root, splits[split][name])
    ]
    return PictureFolder(
        root, classes, listed["train"], listed.get("test"), listing_key(root, found), tuple(notes),
        tuple(below),
    )  # fmt: skip


def name_below(root: Path, path: str, depth: int = 0) -> str:
    """Return the name of a file from a folder so many levels below `root`, in composed form.

    >>> name_below(Path("birds"), "birds/heron/day 1/a.jpg", 1)
    'day 1/a.jpg'
    """
    parts = PurePath(os.path.relpath(path, root)).parts[depth:]
    return unicodedata.normalize("NFC", "/".join(parts))


def _inner(top: Folder) -> Folder:
    """Step into a folder that alone holds pictures, if classes or splits can be in it."""
    filled = top.filled()
    while len(filled) == 1 and not top.pictures:
        (inner,) = filled.values()
        if inner.pictures or split_role(inner.name) or not inner.filled():
            break
        top, filled = inner, inner.filled()
    return top


def _splits_at_top(root: Path, top: Folder, notes: list[str]) -> _Splits | None:
    """Return the splits that folders at the top are, or None where they are classes."""
    roles = split_roles(top.folders)
    others = [name for name in top.filled() if name not in roles]
    if not roles:
        return None
    if list(roles) == ["train"] and top.folders["train"].pictures and len(others) > 1:
        notes.append(f"Read as a class, not as a split: train, beside {few(others)}.")
        return None
    named = folder_of_roles(root, roles)
    if "train" not in named:
        raise InputError(
            f"{root} holds {few(roles)}, which looks like a split, but no folder of training "
            f"pictures beside it. {_both_remedies(roles)}"
        )
    inside = {role: _class_folders(top.folders[name]) for role, name in named.items()}
    if not inside["train"]:
        raise InputError(_labels_elsewhere(root, top, top.folders[named["train"]]))
    if len(named) == 1 and others:
        raise InputError(
            f"{root} holds {named['train']}, which looks like a split, beside {few(others)}, "
            f"which may be classes. {_both_remedies(roles)}"
        )
    return _with_test(root, named, inside, notes)


def folder_of_roles(root: Path, roles: Mapping[str, str]) -> dict[str, str]:
    """Return the one folder of each role, and refuse two of them."""
    named: dict[str, str] = {}
    for name, role in roles.items():
        if role in named:
            raise InputError(
                f"{root} holds {brief(named[role])} and {brief(name)}, which both look like the "
                f"{role} split. Put their pictures together, or move one of them elsewhere."
            )
        named[role] = name
    return named


def _both_remedies(roles: Iterable[str]) -> str:
    return (
        "If these are splits, name them train and test, with a folder for each class in both. If "
        f"{few(roles)} is a class, give it a name that says so, such as {next(iter(roles))}_class."
    )


def _class_folders(split: Folder) -> dict[str, Folder]:
    """Return the class folders of a split; empty where its pictures lie in none."""
    inner = split
    while not inner.pictures and len(inner.folders) == 1:
        (alone,) = inner.folders.values()
        if not alone.filled():
            break
        inner = alone
    return inner.folders if inner.filled() else {}


def _with_test(root: Path, named: dict[str, str], inside: _Splits, notes: list[str]) -> _Splits:
    """Return the training split, and the one to test on if there is any."""
    role = next((role for role in ("test", "val") if role in named), None)
    if role == "test" and not inside["test"] and inside.get("val"):
        notes.append(f"{named['test']} has no class folders, so its pictures have no labels.")
        role = "val"
    if role is None:
        return {"train": inside["train"]}
    if not inside[role]:
        raise InputError(
            f"{root / named[role]} holds no pictures in class folders. Add some, or remove it "
            f"to hold out a part of {root / named['train']}."
        )
    if role == "val":
        notes.append(f"{root / named['val']} is used as the test split.")
    elif {named["train"], named["test"]} != {"train", "test"}:
        notes.append(f"Read as a split: {named['train']} to train on, {named['test']} to test on.")
    return {"train": inside["train"], "test": inside[role]}


def _splits_below(root: Path, top: Folder, notes: list[str]) -> _Splits | None:
    """Return the splits that lie below each class, or None where there are none."""
    classes = top.filled()
    roles = {name: split_roles(folder.filled()) for name, folder in classes.items()}
    if not any(len(set(found.values())) > 1 for found in roles.values()):
        return None
    seen = ", ".join(f"{name}/{split}" for name, found in roles.items() for split in found)
    for name, folder in classes.items():
        if folder.pictures or set(folder.filled()) != set(roles[name]):
            raise InputError(
                f"{root} holds folders below its classes that look like splits ({seen}), and "
                f"pictures of {name} in none of them. Put all pictures of a class into its splits, "
                "or none."
            )
    named = {name: folder_of_roles(root / name, found) for name, found in roles.items()}
    if lacking := [name for name, by_role in named.items() if "train" not in by_role]:
        raise InputError(
            f"{root} holds a split below each class ({seen}), and no training pictures of: "
            f"{', '.join(lacking)}. Add some, or remove these classes."
        )
    test = "test" if any("test" in by_role for by_role in named.values()) else "val"
    notes.append(f"Read as a split below each class: {seen}.")
    return {
        split: {
            name: classes[name].folders[by_role[role]]
            for name, by_role in named.items()
            if role in by_role
        }
        for split, role in (("train", "train"), ("test", test))
    }


def _refuse_no_classes(root: Path, holders: Iterable[Folder]) -> None:
    """Refuse folders that would be learnt as classes, or as their pictures, and are neither.

    Args:
        root: the folder.
        holders: those whose folders are the classes.
    """
    for holder in holders:
        if annotations := holder.annotations():
            raise InputError(_beside_annotations(root, holder, annotations))
        filled = list(holder.filled().values())
        if len(filled) > 1 and tell_of_no_class(folder.name for folder in filled):
            seen = _seen_in_names(_labels_of(filled))
            raise InputError(
                f"{root} holds {few(folder.name for folder in filled)}, whose names tell of no "
                "class. Put the pictures of each class into a folder of its name, or give "
                f"{root / filled[0].name} alone if the folders in it are classes. labels_from "
                f"reads labels from a table or from the names of files.{seen} "
                "If these are classes, name them after what they show."
            )


def _beside_annotations(root: Path, holder: Folder, annotations: list[Folder]) -> str:
    """Return what to tell of annotations that lie beside the pictures they belong to."""
    inside = next(f for f in holder.below() if annotations[0] in f.folders.values())
    annotated = [f for f in inside.filled().values() if f not in annotations]
    apart = few(folder.name for folder in annotations)
    alone, seen = "", _seen_in_names(_labels_of(annotated or [inside]))
    if annotated:
        alone = f", or give {root / annotated[0].name} alone if the folders in it are classes"
    return (
        f"{root} holds {apart} beside {few(f.name for f in annotated) or 'pictures'}, which look "
        f"like annotations of these and would be learnt as pictures. Move {apart} elsewhere"
        f"{alone}. labels_from reads labels from a table or from the names of files, and leaves "
        f"annotations out.{seen} If these are classes, name them after what they show."
    )


def _refuse_repeated(
    root: Path, top: Folder, is_in_group: Callable[[str], bool] | None = None
) -> None:
    """Refuse folders without pictures of their own that hold subfolders of the same names.

    They may be splits by names that nobody knows here, such as fold1 and fold2, unless the
    subfolders are known to be groups.
    """
    filled = list(top.filled().values())
    inner = [set(folder.filled()) for folder in filled]
    if len(filled) < 2 or any(folder.pictures for folder in filled):
        return
    shared, every = set.intersection(*inner), set.union(*inner)
    if len(shared) > 1 and 2 * len(shared) >= len(every):
        if is_in_group and all(is_in_group(n) for f in filled for n in _names_below(root, f)):
            return
        names = [PurePath(folder.name).name for folder in filled]
        raise InputError(
            f"{root} holds {few(names)}, which have the same subfolders ({few(shared)}). If they "
            "are splits, name them train and test, or give one of them alone. If they are classes, "
            "put their pictures right into them, or say that their subfolders are groups, such as "
            'bursts: keep_together="folder", or a pattern that matches the whole name of each.'
        )


def _names_below(root: Path, folder: Folder) -> list[str]:
    """Return the names from a folder on of all pictures in it."""
    depth = len(PurePath(folder.name).parts)
    return [name_below(root, path, depth) for path, _ in folder.all_pictures()]


def _labels_elsewhere(root: Path, top: Folder, split: Folder) -> str:
    """Return what to tell of pictures in no class folders, by where their labels seem to be."""
    places = dict.fromkeys((top, *split.below()))
    tables = [
        f"{f.name}/{n}".lstrip("/") for f in places for n in f.others if n.lower().endswith(TABLES)
    ]
    labels = _labels_of([split])
    where = _seen_in_names(labels)
    if tables:
        where = f" Their labels seem to be in a table ({few(tables)})."
        if readable := [name for name in tables if name.lower().endswith(LABEL_TABLES)]:
            where += f' labels_from="{readable[0]}" reads it, if it has columns file and label.'
    example = root / split.name / next(iter(labels), "CLASS")
    return (
        f"{root / split.name} holds no pictures in class folders.{where} Or put the pictures of "
        f"each class into a folder of its name, such as {example}."
    )


def _labels_of(folders: Iterable[Folder]) -> list[str]:
    """Return the labels that the names of all pictures in some folders seem to begin with."""
    return labels_in_names(path for folder in folders for path, _ in folder.all_pictures())


def _seen_in_names(labels: list[str]) -> str:
    """Return what reads labels, of `_labels_of`, in the names of files; "" where there are none."""
    if not labels:
        return ""
    told = (
        f" Labels seem to be in the names of the files ({few(labels)}): "
        f'labels_from="{pattern_of_labels(labels)}" reads them.'
    )
    alike = nearly_alike(labels)
    return " ".join([told, *alike, *(["Rename those of one class alike."] if alike else [])])


def _agreed_classes(root: Path, top: Folder, found: dict[str, dict[str, list]]) -> tuple[str, ...]:
    """Return the class names all splits share, or say what is wrong."""
    filled = {
        split: {c for c, files in by_class.items() if files} for split, by_class in found.items()
    }
    classes = filled["train"]
    if odd := [name for name in sorted(classes) if not name.isprintable()]:
        raise InputError(
            f"The class folder {odd[0]!r} in {root} has a name that cannot be printed. Rename it."
        )
    if len(classes) < 2:
        names = ", ".join(sorted(classes)) or "none"
        loose = [folder for folder in (top, *top.folders.values()) if folder.pictures]
        hint = f" {_labels_elsewhere(root, top, loose[0])}" if len(loose) == 1 else ""
        raise InputError(
            f"{root} needs at least two class folders with pictures in them; found: {names}. "
            f"Expected {root}/<class>/*.jpg or {root}/train/<class>/*.jpg "
            f"(also {', '.join(EXTENSIONS[1:])}).{hint}"
        )
    if unseen := filled.get("test", set()) - classes:
        raise InputError(
            f"These classes have test pictures but none to train on: {', '.join(sorted(unseen))}. "
            f"Those to train on are: {few(sorted(classes))}. Add pictures to {root}/train, or "
            "remove or rename the folders."
        )
    return tuple(sorted(classes))


# What is not used


def _vanished(name: str, folder: Folder) -> str:
    """Return a note on a folder that would be a class, had it any picture that can be read."""
    others = [other for inside in folder.below() for other in inside.others]
    reason = f"none of its files can be read ({count_endings(others)})" if others else "it is empty"
    return f"Class {brief(name)} is left out: {reason}.{how_to_read(others)}"


def _pooled(classes: Mapping[str, Folder]) -> list[str]:
    """Return a note on classes of several subfolders, which might have been meant as classes."""
    inner = {name: list(folder.filled()) for name, folder in classes.items()}
    several = [f"{name} ({few(names)})" for name, names in inner.items() if len(names) > 1]
    return [f"Pictures in subfolders count as their class: {few(several)}."] if several else []


def nearly_alike(classes: Iterable[str]) -> list[str]:
    """Return a note on classes whose names differ in case and spaces alone."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(name.split()).casefold(), []).append(brief(name))
    return [
        f"{' and '.join(names)} are read as different classes, though only case or spaces differ."
        for names in alike.values()
        if len(names) > 1
    ]


def _left_out(
    root: Path, tree: Folder, found: dict[str, dict[str, list]], vanished: list[Folder]
) -> list[str]:
    """Return notes on folders that were not read, and on single files by their endings."""
    used = {path for by_class in found.values() for files in by_class.values() for path, _ in files}
    unread, single, waiting = [], [], [tree]
    while waiting:
        folder = waiting.pop()
        if folder in vanished:
            continue
        pictures = [path for path, _ in folder.all_pictures()]
        if pictures and used.isdisjoint(pictures):
            unread.append(f"{root / folder.name} ({count_endings(pictures)})")
            continue
        single += [path for path, _ in folder.pictures if path not in used] + folder.others
        waiting += folder.folders.values()
    notes = [f"Not read: {place}." for place in sorted(unread)]
    if single:
        notes.append(
            f"Left out below {root}, as not pictures in a class folder: {len(single):,} "
            f"({count_endings(single)}).{how_to_read(single)}"
        )
    return notes


def listing_key(root: Path, found: dict[str, dict[str, list[tuple[str, str]]]]) -> str:
    digest = hashlib.sha256()
    for by_class in found.values():
        for name, files in by_class.items():
            digest.update(os.fsencode(f"{name}\0"))
            for path, size_and_time in files:
                digest.update(os.fsencode(f"{os.path.relpath(path, root)}\0{size_and_time}\n"))
        digest.update(b"end of split\n")
    return digest.hexdigest()
