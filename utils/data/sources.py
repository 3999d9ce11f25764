"""Where pictures come from: CIFAR-10, drawn shapes, a folder or an archive."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import InputError, brief, counted, printable
from utils.data import (
    audit,
    copies,
    drawn_shapes,
    folders,
    given_labels,
    groups,
    marks,
    metadata,
    near_copies,
    pictures,
    tells,
    traits,
)
from utils.data.archives import is_archive, left_packed, unpack, unpacked_size, whole_of
from utils.data.cache import (
    Contents,
    Source,
    cache_name,
    cached_pictures,
    code_key,
    kept_elsewhere,
    known_place,
)
from utils.data.picture_set import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    SPLIT_SEED,
    TEST_SHARE,
    PictureSet,
    Split,
    limited,
    parted,
    stratified_part,
)
from utils.files import ROOT, resolve_path
from utils.runs import Run
from utils.settings import (
    ARCHIVES,
    PICTURES,
    SETTINGS,
    SOURCES,
    names_of,
    with_defaults,
    without_ending,
)

CIFAR10_SIZE = 60_000


def load_pictures(*, known_dir: str | Path | None = None, **given) -> PictureSet:
    """Load a data set, decoding it only the first time.

    Args:
        known_dir: another such folder as ``data_dir``, of which what is there is read too, but
            nothing is ever written to it.
        given: parameters by name, of which those count that `utils.settings` declares as part of
            the pictures.

    Raises:
        InputError: an unknown data set or parameter, a value out of range, pictures that cannot be
            read, or more of them than either the disk or the memory has room for.
    """
    options = with_defaults(PICTURES, **given)
    size = options["image_size"]
    check_dataset(options["dataset"])
    source = _find_source(options, known_dir)
    picture_set = kept_elsewhere(source, size, known_dir) or cached_pictures(
        source, size, _cache_folder(options["dataset"], options["data_dir"])
    )
    title = options["dataset_title"] or picture_set.title
    return replace(
        picture_set,
        title=title,
        notes=tuple(map(_one_line, (*source.notes, *picture_set.notes))),
        train=limited(picture_set.train, options["limit_train"], "limit_train"),
        test=limited(picture_set.test, options["limit_test"], "limit_test"),
        options={**options, "dataset_title": title},
    )


def _one_line(text: str) -> str:
    """Return text as it may be printed anywhere: a file's name may hold what acts on a terminal."""
    return printable(text).replace("\n", "\\n")


def check_dataset(dataset: str) -> None:
    """Refuse a data set that is neither a known name nor an existing place, before reading it.

    Raises:
        InputError: naming it, and what there is to choose from.
    """
    if dataset in SOURCES:
        return
    place = resolve_path(dataset)
    if not (os.path.isdir(place) or is_archive(place)):
        raise InputError(
            f"dataset {brief(dataset)} is unknown. Choose shapes, cifar10, or the path of a folder "
            f"of pictures or of an archive of it ({', '.join(ARCHIVES)}); {place} is neither."
        )


def pictures_of(
    run: Run, data_dir: str | Path | None = None, dataset: str | None = None
) -> PictureSet:
    """Load the data set that a run was trained on, from any place where it is the same.

    What a run says of places is read, never written to: a run may come from elsewhere. What is
    decoded, unpacked or downloaded goes to `data_dir`, or else to the repository's own ``data/``.

    Args:
        run: a run whose training has started.
        data_dir: where its data are kept now; None means where they were.
        dataset: what it was trained on, where that lies now; None means where it lay.

    Raises:
        InputError: the pictures are gone, or are not those the run was trained on.
    """
    settings = run.settings
    options = {name: settings.get(name, SETTINGS[name].default) for name in names_of(PICTURES)}
    if dataset is not None:
        options["dataset"] = dataset
    known_dir = None
    if data_dir is not None:
        options["data_dir"] = str(data_dir)
    elif options["dataset"] != "folder":  # which data_dir names; else it is a place to write to
        known_dir, options["data_dir"] = options["data_dir"], SETTINGS["data_dir"].default
    _check_there(run, options)
    picture_set = load_pictures(known_dir=known_dir, **options)
    if picture_set.fingerprint != settings["data_fingerprint"]:
        raise InputError(_other_pictures(run, options, data_dir is None and dataset is None))
    mean, std = (tuple(run.record["data"][name]) for name in ("mean", "std"))
    return replace(picture_set, mean=mean, std=std)


def _check_there(run: Run, options: dict) -> None:
    """Refuse a place that is gone: unmounted, moved, or of another machine."""
    if options["dataset"] in ("shapes", "cifar10"):
        return
    name = "data_dir" if options["dataset"] == "folder" else "dataset"
    place = options[name]
    if place == run.settings[name] and not os.path.exists(resolve_path(place)):
        raise InputError(
            f"The pictures of run {run.name!r} were in {brief(str(place))}, which no longer "
            'exists. Say where they are: dataset="…" takes any place that holds the same pictures.'
        )


def _other_pictures(run: Run, options: dict, unasked: bool) -> str:
    """Return what to say of pictures that are not those of a run."""
    was = run.settings["dataset"]
    if unasked:
        return (
            f"The pictures of {was!r} have changed since run {run.name!r} was trained. Say where "
            'those that it was trained on are (dataset="…"), or train again under another '
            "run_name."
        )
    place = options["data_dir"] if options["dataset"] == "folder" else options["dataset"]
    return (
        f"{brief(str(place))} does not hold the pictures run {run.name!r} was trained on, which "
        f"were {brief(was)}. Give the place of those, or leave it at None."
    )


def _cache_folder(dataset: str, data_dir: str | Path) -> Path:
    """Return where decoded pictures are kept: in `data_dir`, but never among a user's own."""
    place, own = resolve_path(data_dir), resolve_path(dataset)
    if dataset == "folder" or (own.is_dir() and place.is_relative_to(own) and own != ROOT):
        place = resolve_path("data")
    return place / "cache"


def _find_source(options: Mapping, known_dir: str | Path | None = None) -> Source:
    dataset, data_dir = options["dataset"], options["data_dir"]
    groups.check_rule(options["keep_together"])
    if dataset in ("shapes", "cifar10"):
        _check_own_labels(options)
    if dataset == "shapes":
        key = code_key(drawn_shapes, copies)
        size = drawn_shapes.TRAIN_SIZE + drawn_shapes.TEST_SIZE
        return Source("shapes", "drawn shapes", "shapes", key, size, _draw_shapes)
    if dataset == "cifar10":
        decode = partial(_read_cifar10, resolve_path(data_dir), known_place(known_dir))
        key = f"cifar-10-python {code_key(pictures, copies)}"
        statistics = (CIFAR10_MEAN, CIFAR10_STD)
        return Source("cifar10", "CIFAR-10", "cifar10", key, CIFAR10_SIZE, decode, statistics)
    place = resolve_path(data_dir if dataset == "folder" else dataset)
    if place.is_dir():
        return _folder_source(place, place.name, options)
    kept = resolve_path(data_dir) / "unpacked"
    unpacked = unpack(place, kept, pictures.EXTENSIONS, known_place(known_dir, "unpacked"))
    if options["labels_from"] is not None:  # a table may lie beside what alone holds pictures
        unpacked = whole_of(unpacked)
    name = without_ending(place.name)
    try:
        source = _folder_source(unpacked, name, options, left_packed(unpacked))
    except InputError as error:  # a person knows the archive, not where it was unpacked
        raise InputError(str(error).replace(str(unpacked), str(place))) from error
    return replace(source, notes=[n.replace(str(unpacked), str(place)) for n in source.notes])


def _check_own_labels(options: Mapping) -> None:
    """Refuse what is said of the labels or groups of pictures that have their own, or none."""
    for name in ("labels_from", "keep_together"):
        if options[name] != SETTINGS[name].default:
            raise InputError(
                f"{name} is {brief(options[name])}, which is for a folder of pictures or an "
                f"archive of it; {options['dataset']} has no names to go by. Leave it out."
            )


def _draw_shapes(image_size: int, new: pictures.NewArray) -> Contents:
    sizes = {"train": drawn_shapes.TRAIN_SIZE, "test": drawn_shapes.TEST_SIZE}
    images, masks = (
        [new((size, *shape, image_size, image_size), kind) for size in sizes.values()]
        for shape, kind in (((3,), np.uint8), ((), np.bool_))
    )
    drawn = (
        drawn_shapes.draw_split(name, image_size=image_size, into=into)
        for name, into in zip(sizes, zip(images, masks, strict=True), strict=True)
    )
    train, test = (
        Split(torch.from_numpy(d.images), torch.from_numpy(d.targets), torch.from_numpy(d.masks))
        for d in drawn
    )
    return Contents(drawn_shapes.CLASSES, train, test)


def _read_cifar10(
    data_dir: Path, known_dir: Path | None, image_size: int, new: pictures.NewArray
) -> Contents:
    from utils.data.cifar10 import is_there, read_cifar10  # torchvision takes a second to import

    is_known = known_dir is not None and is_there(known_dir)
    classes, *arrays = read_cifar10(known_dir if is_known else data_dir)
    sized = ((pictures.resized(images, image_size, new), targets) for images, targets in arrays)
    train, test = (
        Split(torch.from_numpy(images), torch.from_numpy(targets)) for images, targets in sized
    )
    return Contents(classes, train, test)


def _folder_source(root: Path, name: str, options: Mapping, absent: Sequence[str] = ()) -> Source:
    rule, labels_from = options["keep_together"], options["labels_from"]
    if labels_from is None:
        folder = folders.scan_folder(root, absent, partial(groups.goes_by_folder, rule))
    else:
        folder = given_labels.scan_labelled(root, labels_from, absent)
    name = _one_line(name)
    named, notes = groups.named_groups(folder.below, rule)
    size = len(folder.train) + len(folder.test or [])
    code = code_key(pictures, metadata, copies, near_copies, groups, traits, tells, marks, audit)
    key = f"{folder.key} {code} {options['skip_unreadable']} {rule}"
    usual = (labels_from, rule) == (None, groups.COPIES)
    told = str(root) if usual else f"{root}\0{labels_from}\0{rule}"
    identity = f"folder-{hashlib.sha256(os.fsencode(told)).hexdigest()[:12]}"
    decode = partial(_read_folder, folder, named, options)
    return Source(name, name, identity, key, size, decode, notes=(*folder.notes, *notes))


def _read_folder(
    folder: folders.PictureFolder,
    named: Tensor | None,
    options: Mapping,
    image_size: int,
    new: pictures.NewArray,
) -> Contents:
    """Decode a folder's pictures, audit them, and split them where they are not.

    Args:
        folder: what was found.
        named: int64, one for each of its pictures, from `groups.named_groups`; or None.
        options: parameters by name.
        image_size: side in pixels.
        new: makes the array to decode into.
    """
    listed = folder.train + (folder.test or [])
    paths = [path for path, _ in listed]
    images = new((len(paths), 3, image_size, image_size), np.uint8)
    decoded = pictures.read_pictures(paths, image_size, images=images)
    notes = _unreadable_notes(decoded.failures, len(listed), options["skip_unreadable"])
    notes += _remarks(folder, decoded, paths)
    everything, kept = _readable(decoded, torch.tensor([target for _, target in listed]))
    in_test = kept >= len(folder.train)
    _check_trainable(everything.targets[~in_test], folder)
    near, pairs = near_copies.near_groups(everything.images)
    together = None if named is None else groups.united(named[kept], near)
    files = [paths[position] for position in kept]
    names = tuple(_one_line(os.path.relpath(path, folder.root)) for path in files)
    everything = replace(everything, groups=near, together=together, names=names)
    rule = options["keep_together"]
    if folder.test is not None:
        notes += _untested_notes(everything.targets[in_test], folder)
        notes += [] if named is None else groups.parted_in_words(named[kept], in_test, rule)
    elif together is None:
        in_test, told = _drawn_test(everything, folder)
        notes += told
    else:
        in_test, told = _grouped_test(everything, folder, rule)
        notes += told
    audited = audit.Audited(
        everything.images, everything.targets, near, near if together is None else together,
        pairs, in_test, folder.test is None, names,
        traits.read_traits(files, decoded.bits), folder.classes,
    )  # fmt: skip
    told, found = audit.audit(audited)
    train, test = parted(everything, in_test)
    return Contents(folder.classes, train, test, [*notes, *told], decoded.bits, found)


def _readable(decoded: pictures.Decoded, targets: Tensor) -> tuple[Split, Tensor]:
    """Return the pictures that could be read, and their positions among all: int64, N."""
    is_unreadable = torch.zeros(len(targets), dtype=torch.bool)
    is_unreadable[list(decoded.failures)] = True
    everything, _ = parted(Split(torch.from_numpy(decoded.images), targets), is_unreadable)
    return everything, (~is_unreadable).nonzero()[:, 0]


def _remarks(
    folder: folders.PictureFolder, decoded: pictures.Decoded, paths: Sequence[str]
) -> list[str]:
    """Return what a person should know about how single pictures were read."""
    notes = []
    if decoded.deep:
        notes.append(
            f"Of {counted(len(decoded.deep), 'greyscale picture')} of more than 8 bits, "
            f"{decoded.bits} bits are used: "
            f"{2**decoded.bits - 1:,} is shown white."
        )
    if decoded.several:
        named = folders.few(os.path.relpath(paths[i], folder.root) for i in decoded.several)
        one = len(decoded.several) == 1
        notes.append(
            f"{counted(len(decoded.several), 'file')} {'holds' if one else 'hold'} several "
            f"pictures, of which the first is read: {named}."
        )
    return notes


def _grouped_test(
    everything: Split, folder: folders.PictureFolder, rule: str
) -> tuple[Tensor, list[str]]:
    """Return which pictures to hold out to test, bool, N, whole groups all, and notes on it."""
    targets, together = everything.targets, everything.together
    assert together is not None
    _check_splittable(targets, folder)
    in_test = groups.held_out_part(everything, TEST_SHARE)
    lacking = {
        *_classes_with_fewer_than(1, targets[in_test], folder.classes),
        *_classes_with_fewer_than(1, targets[~in_test], folder.classes),
    }
    if lacking:
        raise InputError(
            f"keep_together {brief(rule)} leaves no way to have every class on both sides of the "
            f"split: {folders.few(lacking)}. All of a class may be in one group, which copies "
            "join, or in one that holds a picture under two labels. Add others, give a rule that "
            "tells more groups apart, or give separate train and test folders."
        )
    number, whole = len(together[in_test].unique()), len(together.unique())
    shares = groups.shares_of_classes(targets, in_test, folder.classes)
    return in_test, [
        f"No test folder: {in_test.sum()} pictures are held out to test, {number:,} of {whole:,} "
        f"groups by keep_together {brief(rule)}: {groups.shares_in_words(shares, TEST_SHARE)}."
    ]


def _drawn_test(everything: Split, folder: folders.PictureFolder) -> tuple[Tensor, list[str]]:
    """Return which pictures to hold out to test, bool, N, and what there is to say of it.

    Copies and near-copies stay on one side. Only where a class could then not be tested at all, as
    all of it are near-copies of one picture, do its near-copies not.
    """
    targets, classes = everything.targets, folder.classes
    _check_splittable(targets, folder)
    in_test, notes = groups.held_out_part(everything, TEST_SHARE), []
    if alike := _classes_with_fewer_than(1, targets[in_test], classes):
        first = copies.first_copies(everything.images)
        of_them = torch.isin(targets, torch.tensor([classes.index(name) for name in alike]))
        in_test |= of_them & stratified_part(targets, TEST_SHARE, SPLIT_SEED, first=first)
        notes.append(
            "All pictures of these classes are near-copies of one another, or of another class's, "
            f"and lie on both sides of the split all the same: {folders.few(alike)}."
        )
    if untested := _classes_with_fewer_than(1, targets[in_test], classes):
        raise InputError(
            f"No picture can be held out to test of: {', '.join(untested)}. All that are there are "
            "copies of one picture, or lie under another class as well. Add others, or give "
            "separate train and test folders."
        )
    shares = groups.shares_of_classes(targets, in_test, classes)
    told = f"{TEST_SHARE:.0%} of each class"
    if any(groups.is_far(held, TEST_SHARE) for held in shares.values()):
        told = groups.shares_in_words(shares, TEST_SHARE, "pictures, with their copies,")
    notes.append(f"No test folder: {in_test.sum()} pictures ({told}) are held out to test.")
    return in_test, notes


def _unreadable_notes(failures: dict[int, str], total: int, skip_unreadable: bool) -> list[str]:
    if not failures:
        return []
    few = [*list(failures.values())[:5], *(["…"] if len(failures) > 5 else [])]
    message = f"{len(failures)} of {total} files cannot be read: {' '.join(few)}"
    if not skip_unreadable:
        remedy = "Repair or remove them, or go on without them by skip_unreadable=True."
        raise InputError(f"{message} {remedy}")
    return [f"Left out, since skip_unreadable is set: {message}"]


def _check_trainable(targets: Tensor, folder: folders.PictureFolder) -> None:
    if empty := _classes_with_fewer_than(1, targets, folder.classes):
        raise InputError(
            f"No training picture can be read of: {', '.join(empty)}. Repair some, or remove the "
            "class folders."
        )


def _untested_notes(targets: Tensor, folder: folders.PictureFolder) -> list[str]:
    """Return a note on classes without a picture in a test split that was given, if any.

    Args:
        targets: int64, N: of the test pictures that could be read.
        folder: where they lie.

    Raises:
        InputError: there are none at all.
    """
    if not len(targets):
        raise InputError(
            f"None of the {counted(len(folder.test or []), 'test picture')} in {folder.root} can "
            "be read. Repair some, or give no test split, so that a part is held out to test."
        )
    untested = _classes_with_fewer_than(1, targets, folder.classes)
    return [f"Without test pictures: {', '.join(untested)}."] if untested else []


def _check_splittable(targets: Tensor, folder: folders.PictureFolder) -> None:
    if short := _classes_with_fewer_than(2, targets, folder.classes):
        raise InputError(
            f"Each class needs at least two readable pictures, one to train and one to test on; "
            f"these have fewer: {', '.join(short)}. Add some, or give separate train and test "
            "folders."
        )


def _classes_with_fewer_than(least: int, targets: Tensor, classes: tuple[str, ...]) -> list[str]:
    counts = torch.bincount(targets, minlength=len(classes))
    return [name for name, count in zip(classes, counts, strict=True) if count < least]


def bytes_to_keep(**given) -> tuple[Path, int]:
    """Return where a data set's decoded copy would be kept, and what it takes there, in bytes.

    With what is downloaded and unpacked before, as far as that can be known without doing it:
    nothing for what is there, and of a tar its own size.

    Args:
        given: parameters by name, as for `load_pictures`.
    """
    options = with_defaults(PICTURES, **given)
    dataset, data_dir, image_size = (options[n] for n in ("dataset", "data_dir", "image_size"))
    place = resolve_path(data_dir if dataset == "folder" else dataset)
    folder = _cache_folder(dataset, data_dir)
    packed = dataset not in SOURCES and is_archive(place)
    if packed and (size := unpacked_size(place, resolve_path(data_dir) / "unpacked")):
        return folder, size
    source = _find_source(options)
    if (folder / cache_name(source, image_size)).is_file():
        return folder, 0
    fetched = 0
    if dataset == "cifar10":
        from utils.data.cifar10 import bytes_to_fetch

        fetched = bytes_to_fetch(resolve_path(data_dir))
    return folder, fetched + source.size * 3 * image_size**2
