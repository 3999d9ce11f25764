"""Labels from elsewhere than folders: a table of files and labels, or a pattern of file names."""

import csv
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from utils import InputError, brief, counted, first_line, printable
from utils.data.folder_names import ROLES, split_roles
from utils.data.folders import (
    Folder,
    PictureFolder,
    count_endings,
    few,
    folder_of_roles,
    listing_key,
    name_below,
    nearly_alike,
    read_tree,
    unreadable,
)
from utils.data.groups import check_rule, told_by
from utils.data.pictures import EXTENSIONS, MAX_FILE_SIZE
from utils.files import resolve_path
from utils.settings import LABEL_TABLES

#: Columns of a table of labels; the last may be missing.
FILE, LABEL, SPLIT = "file", "label", "split"
#: What may stand between them.
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class _Row:
    """A row of a table: its line, the file that it names, that file's label and part in a split."""

    line: int
    file: str
    label: str
    role: str | None


@dataclass(frozen=True)
class _Labels:
    """The label of each picture that has one, and its part in a split where that is told, by name.

    `notes` are what there is to say of where they come from; `table` is that, if it is one.
    """

    labels: dict[str, str]
    roles: dict[str, str]
    notes: list[str]
    table: Path | None = None


def is_table(labels_from: str) -> bool:
    """Tell whether labels are to come from a table: no picture's name ends as a table's does."""
    return labels_from.lower().endswith(LABEL_TABLES)


def scan_labelled(root: Path, labels_from: str, absent: Iterable[str] = ()) -> PictureFolder:
    """Find the pictures below `root`, at any depth, that a table or their names give labels to.

    The split is what the table's column says, or else that of folders at the top called like one
    (`utils.data.folder_names.ROLES`); where there is none, a part is held out as of any folder.

    Args:
        root: the folder.
        labels_from: the path of a table, below `root` or in full; or a regular expression, whose
            one group, or else all that it matches, is the label in a file's name.
        absent: as for `utils.data.folders.scan_folder`.

    Raises:
        InputError: the table cannot be read as one, names a file twice or one that is not there; or
            there are fewer than two classes to train on.
    """
    try:
        tree = read_tree(root, absent)
    except OSError as error:
        raise unreadable(root, error) from error
    pictures = _by_name(root, tree)
    if is_table(labels_from):
        found = _in_table(root, tree, pictures, labels_from)
    else:
        pictures, apart = _without_annotations(tree, pictures)
        found = _in_names(root, pictures, labels_from, apart)
    labels, notes, roles, tops = found.labels, list(found.notes), found.roles, ()
    if not roles:
        roles, tops = _roles_of_folders(root, tree, labels, notes)
    splits = _splits(labels, roles, labels_from, notes)
    classes = _classes(labels, splits, labels_from)
    used = {
        split: sorted(names, key=lambda name: (labels[name], name))
        for split, names in splits.items()
    }
    everything = [name for names in used.values() for name in names]
    notes += nearly_alike(classes) + _not_used(root, tree, pictures, found, everything)
    index = {label: position for position, label in enumerate(classes)}
    listed = {
        split: [(pictures[name][0], index[labels[name]]) for name in names]
        for split, names in used.items()
    }
    by_class = {
        split: {c: [pictures[name] for name in names if labels[name] == c] for c in classes}
        for split, names in used.items()
    }
    return PictureFolder(
        root, classes, listed["train"], listed.get("test"), listing_key(root, by_class),
        tuple(notes), _below(everything, tops),
    )  # fmt: skip


def _by_name(root: Path, tree: Folder) -> dict[str, tuple[str, str]]:
    """Return path, and size and time, of each picture by its name, of which there is but one."""
    by_name: dict[str, tuple[str, str]] = {}
    twice = []
    for path, stamp in tree.all_pictures():
        name = name_below(root, path)
        if name in by_name:
            twice.append(printable(name))
        by_name[name] = path, stamp
    if twice:
        raise InputError(
            f"{root} holds two files called {few(twice)}, their letters with accents written in "
            "Unicode's two ways, so that labels_from cannot tell them apart. Rename one of each, "
            "or delete it."
        )
    return by_name


def _without_annotations(
    tree: Folder, pictures: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return the pictures that are no annotations of others, and a note on the folders of those.

    A pattern would find the same labels in the names of masks, and a network learn masks.
    """
    apart = [folder.name for folder in tree.annotations()]
    tops = tuple(f"{name}/" for name in apart)
    kept = {name: where for name, where in pictures.items() if not name.startswith(tops)}
    notes = [f"Not read, as annotations of the pictures beside them: {few(apart)}."]
    return kept, notes if apart else []


def _below(names: Iterable[str], tops: Iterable[str]) -> tuple[str, ...]:
    """Return names of pictures without the folder of their split, or one that all lie in.

    >>> _below(["a/train/p1/1.jpg", "a/test/p2/1.jpg"], ["a/train", "a/test"])
    ('p1/1.jpg', 'p2/1.jpg')
    """
    stripped = []
    for name in names:
        top = next((top for top in tops if name.startswith(f"{top}/")), "")
        stripped.append(name[len(top) :].lstrip("/"))
    shared = os.path.commonpath([os.path.dirname(name) for name in stripped])
    return tuple(name[len(shared) :].lstrip("/") for name in stripped)


# What a table says


def _in_table(root: Path, tree: Folder, pictures: Mapping, labels_from: str) -> _Labels:
    """Return what a table says of pictures, and refuse what it cannot mean."""
    table = _find_table(root, tree, labels_from)
    rows, notes = _read_table(table)
    known, unknown = _finder(pictures), []
    labels: dict[str, str] = {}
    roles: dict[str, str] = {}
    lines: dict[str, _Row] = {}
    repeated = 0
    for row in rows:
        name = known(_checked_name(table, row), f"{table}, line {row.line},")
        if name is None:
            unknown.append(row.file)
            continue
        if (other := lines.setdefault(name, row)) is not row:
            _check_same(table, other, row)
            repeated += 1
        labels[name] = row.label
        if row.role is not None:
            roles[name] = row.role
    if unknown:
        raise InputError(
            f"{table} names {counted(len(unknown), 'file')} of which no picture is there that can "
            f"be read ({', '.join(EXTENSIONS)}): {few(unknown)}. Files are named with their "
            "endings, from the folder of the pictures on. Mend the names, or delete these rows."
        )
    if repeated:
        notes.append(f"{table.name}: {counted(repeated, 'row')} repeated what another had said.")
    return _Labels(labels, roles, notes, table)


def _find_table(root: Path, tree: Folder, labels_from: str) -> Path:
    """Return where a table lies: below the pictures' folder, or where its full path says."""
    given = Path(labels_from).expanduser()
    if given.is_absolute():
        return resolve_path(labels_from)
    if ".." in given.parts:
        raise InputError(
            f"labels_from {brief(labels_from)} leads out of {root}. Give the full path of a table "
            "that lies elsewhere."
        )
    tables = [
        f"{folder.name}/{name}".lstrip("/")
        for folder in tree.below()
        for name in folder.others
        if is_table(name)
    ]
    name = _finder(tables)(given.as_posix(), "labels_from")
    if name is None:
        raise InputError(
            f"{root} holds no table {brief(labels_from)}, which labels_from names. Tables there: "
            f"{few(tables) or 'none'}. Give the full path of one that lies elsewhere."
        )
    return root / name


def _finder(names: Iterable[str]) -> Callable[[str, str], str | None]:
    """Return a function that finds the one of some names that is, or ends with, what is asked for.

    It takes that and who asks, and returns None where there is none.
    """
    names = set(names)
    by_last: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_last[name.rpartition("/")[2]].append(name)

    def find(asked: str, asker: str) -> str | None:
        if asked in names:
            return asked
        fitting = [n for n in by_last[asked.rpartition("/")[2]] if n.endswith(f"/{asked}")]
        if len(fitting) > 1:
            raise InputError(
                f"{asker} names {brief(asked)}, and there are several: {few(fitting)}. Name it "
                "with the folders that it lies in."
            )
        return fitting[0] if fitting else None

    return find


def _checked_name(table: Path, row: _Row) -> str:
    """Return the file that a row names, as `name_below` does, if that is below the folder."""
    name = unicodedata.normalize("NFC", row.file.replace("\\", "/"))
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise InputError(
            f"{table}, line {row.line}, names {brief(row.file)}, which leads out of the folder of "
            "the pictures. Name files from there on."
        )
    return path.as_posix()


def _check_same(table: Path, first: _Row, second: _Row) -> None:
    """Refuse two rows that say different things of one file."""
    for what, one, other in (
        ("labels", first.label, second.label),
        ("splits", first.role, second.role),
    ):
        if one != other:
            raise InputError(
                f"{table} gives {brief(second.file)} two {what}: {brief(one)} in line "
                f"{first.line}, {brief(other)} in line {second.line}. At most one is right; delete "
                "the other."
            )


def _read_table(table: Path) -> tuple[list[_Row], list[str]]:
    """Return the rows of a table, each with a file and a label, and notes on what is not read."""
    lines = csv.reader(io.StringIO(text := _text(table)), delimiter=_delimiter(text), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        columns = _columns(table, header)
        rows = [
            _row(table, lines.line_num, cells, columns, len(header))
            for cells in lines
            if any(cells)
        ]
    except csv.Error as error:
        raise InputError(
            f"{table} cannot be read as a table: line {lines.line_num}: {error}. Save it as CSV "
            "again."
        ) from error
    if not rows:
        raise InputError(f"{table} has no rows below its header.")
    others = [name for name in header if name.lower() not in columns]
    notes = [f"{table.name}: columns that are not read: {few(map(printable, others))}."]
    return rows, notes if others else []


def _text(table: Path) -> str:
    """Return what a table holds, UTF-8 with or without a mark at its beginning."""
    if not table.is_file():
        raise InputError(f"labels_from: {table} is not there, or is no file.")
    if table.stat().st_size > MAX_FILE_SIZE:
        raise InputError(
            f"{table} is larger than {MAX_FILE_SIZE / 1e6:,.0f} MB, which no labels are."
        )
    try:
        return table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{table} is not in UTF-8 ({first_line(error)}). Save it as CSV in UTF-8."
        ) from error
    except OSError as error:
        raise unreadable(table, error) from error


def _delimiter(text: str) -> str:
    """Return what stands between the columns: whichever there is most of in the header.

    >>> _delimiter("file;label\\na,b.jpg;cat"), _delimiter("file")
    (';', ',')
    """
    header = text.partition("\n")[0]
    return max(DELIMITERS, key=header.count)


def _columns(table: Path, header: list[str]) -> dict[str, int]:
    """Return where the columns stand that are read; they may be called so in any case."""
    lower = [name.lower() for name in header]
    counts = Counter(lower)
    lacking = [name for name in (FILE, LABEL) if not counts[name]]
    twice = [name for name in (FILE, LABEL, SPLIT) if counts[name] > 1]
    if lacking or twice:
        what = f"no column {lacking[0]}" if lacking else f"two columns {twice[0]}"
        raise InputError(
            f"{table} has {what}. Its first line names these: {few(map(brief, header)) or 'none'}. "
            f"It must name {FILE} and {LABEL}, and may name {SPLIT}."
        )
    return {name: lower.index(name) for name in (FILE, LABEL, SPLIT) if counts[name]}


def _row(table: Path, line: int, cells: list[str], columns: dict[str, int], width: int) -> _Row:
    """Return what a line says, and refuse one that says too little or too much."""
    if len(cells) != width:
        raise InputError(
            f"{table}, line {line}, has {counted(len(cells), 'cell')} where its first line has "
            f"{width}. Put quotes around what holds a delimiter."
        )
    said = {name: cells[place].strip() for name, place in columns.items()}
    if empty := [name for name, cell in said.items() if not cell]:
        raise InputError(
            f"{table}, line {line}, has no {empty[0]}. Fill it in, or delete the line."
        )
    role = ROLES.get(said[SPLIT].casefold()) if SPLIT in said else None
    if SPLIT in said and role is None:
        raise InputError(
            f"{table}, line {line}, has the split {brief(said[SPLIT])}, which is unknown. Write "
            f"one of: {', '.join(ROLES)}."
        )
    return _Row(line, said[FILE], unicodedata.normalize("NFC", said[LABEL]), role)


# What names say


def _in_names(root: Path, pictures: Mapping, labels_from: str, notes: list[str]) -> _Labels:
    """Return the labels that a pattern finds in the names of files, without their folders."""
    pattern = check_rule(labels_from, "labels_from")
    if pattern is None:
        raise InputError(
            f"labels_from is {brief(labels_from)}; it must be a table ({', '.join(LABEL_TABLES)}) "
            "or a pattern of file names. Labels come from folders where it is left out."
        )
    told = {name: told_by(pattern, name.rpartition("/")[2]) for name in pictures}
    labels = {name: label for name, label in told.items() if label}
    if not labels:
        raise InputError(
            f"labels_from {brief(labels_from)} matches no name of the {len(pictures):,} pictures "
            f"below {root}: {few(map(printable, pictures)) or 'there are none'}."
        )
    return _Labels(labels, {}, notes)


# The split


def _roles_of_folders(
    root: Path, tree: Folder, labels: Mapping[str, str], notes: list[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the part in a split of each labelled picture by its folder, and the folders' names.

    Both are empty where no folders look like a split.
    """
    top = tree
    while not top.pictures and len(top.filled()) == 1:
        (top,) = top.filled().values()
    roles = split_roles(top.filled())
    if not roles:
        return {}, ()
    tops = {
        role: f"{top.name}/{name}".lstrip("/")
        for role, name in folder_of_roles(root, roles).items()
    }
    found = {
        name: role
        for role, folder in tops.items()
        for name in labels
        if name.startswith(f"{folder}/")
    }
    if set(found.values()) <= {"train"}:  # of the others, no picture has a label
        return {}, tuple(tops.values())
    notes.append(f"Read as a split: {few(f'{folder} ({role})' for role, folder in tops.items())}.")
    return found, tuple(tops.values())


def _splits(
    labels: Mapping[str, str], roles: Mapping[str, str], labels_from: str, notes: list[str]
) -> dict[str, list[str]]:
    """Return the names of the labelled pictures to train on, and of those to test on, if any."""
    splits: dict[str, list[str]] = {"train": [], "test": [], "val": [], "in neither": []}
    for name in labels:
        splits[roles.get(name, "in neither" if roles else "train")].append(name)
    if not splits["train"]:
        raise InputError(
            f"By labels_from {brief(labels_from)}, no picture is to train on: "
            f"{few(f'{len(names):,} {split}' for split, names in splits.items() if names)}."
        )
    if splits["val"] and not splits["test"]:
        splits["test"] = splits["val"]
        notes.append("The validation split is used as the test split.")
    return {split: splits[split] for split in ("train", "test") if splits[split]}


def _classes(
    labels: Mapping[str, str], splits: Mapping[str, Iterable[str]], labels_from: str
) -> tuple[str, ...]:
    """Return the sorted labels of the training pictures, or say what is wrong with them."""
    of_split = {split: {labels[name] for name in names} for split, names in splits.items()}
    classes = sorted(of_split["train"])
    if odd := [label for label in classes if not label.isprintable()]:
        raise InputError(f"The label {odd[0]!r} cannot be printed. Rename it.")
    if len(classes) < 2:
        raise InputError(
            f"labels_from {brief(labels_from)} gives one class alone to train on, and two are the "
            f"least: {', '.join(classes)}."
        )
    if unseen := of_split.get("test", set()) - of_split["train"]:
        raise InputError(
            f"By labels_from {brief(labels_from)}, these classes have test pictures but none to "
            f"train on: {few(map(printable, unseen))}. Those to train on are: {few(classes)}. "
            "Leave them out, or train on some."
        )
    return tuple(classes)


# What is not used


def _not_used(
    root: Path, tree: Folder, pictures: Iterable[str], found: _Labels, used: Iterable[str]
) -> list[str]:
    """Return notes on the pictures, and the other files, that are left out."""
    used, notes = set(used), []
    unlabelled = [printable(name) for name in pictures if name not in found.labels]
    if unlabelled:
        notes.append(
            f"Left out, as without a label: {counted(len(unlabelled), 'picture')}: "
            f"{few(unlabelled)}."
        )
    if idle := [printable(name) for name in found.labels if name not in used]:
        notes.append(
            f"Left out, as neither to train nor to test on: {counted(len(idle), 'picture')}: "
            f"{few(idle)}."
        )
    table = None if found.table is None else name_below(root, str(found.table))
    others = [
        name
        for folder in tree.below()
        for name in folder.others
        if unicodedata.normalize("NFC", f"{folder.name}/{name}".lstrip("/")) != table
    ]
    if others:
        notes.append(
            f"Left out below {root}, as not pictures: {len(others):,} ({count_endings(others)})."
        )
    return notes
