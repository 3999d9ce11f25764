"""What names of folders and files tell: a split, pictures beside annotations, or a label."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePath

#: What the words of a folder's name say of its part in a split.
ROLES = {
    "train": "train", "training": "train", "trn": "train",
    "test": "test", "testing": "test", "tst": "test",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val",
    "eval": "val", "evaluation": "val",
}  # fmt: skip
#: Words that say no more than that a folder is one.
FILLERS = (
    "set", "sets", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures",
    "photo", "photos", "split", "folder", "files",
)  # fmt: skip
#: Words that a folder of pictures has beside one of annotations, and that name no class either.
ORIGINALS = ("jpg", "jpeg", "png", "rgb", "raw", "original", "originals", "input", "inputs")
#: Words of a folder that may hold annotations, drawn as pictures.
ANNOTATIONS = (
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation",
    "segmentations", "trimap", "trimaps", "gt", "truth", "groundtruth",
)  # fmt: skip
#: What separates a label from the number after it, and that number's first digit.
_TO_NUMBER = r"[ ._-]*[(]?\d"
#: The name of a picture file that begins with a label and goes on with a number: cat.17, dog_3.
_LABELLED = re.compile(rf"([^\W\d_]+(?:[ _-][^\W\d_]+)*){_TO_NUMBER}+[)]?$")


# Splits


def split_roles(names: Iterable[str]) -> dict[str, str]:
    """Return the part in a split of those names that plainly tell of one.

    A name with a word of its own, such as "seg_train", counts only beside another that has the same
    word; "test tube" alone is a class like others.
    """
    told = {name: role for name in names if (role := split_role(name))}
    parts: dict[str, set[str]] = {}
    for role, rest in told.values():
        parts.setdefault(rest, set()).add(role)
    return {name: role for name, (role, rest) in told.items() if not rest or len(parts[rest]) > 1}


def split_role(name: str) -> tuple[str, str] | None:
    """Return which split a folder's name tells of, and the rest of that name; None for none.

    >>> split_role("Training_set"), split_role("data/seg_test"), split_role("contest")
    (('train', ''), ('test', 'seg'), None)
    """
    words = [word for part in _words(name) if (word := _without_fillers(part))]
    roles = [word for word in words if word in ROLES]
    if len(roles) != 1:
        return None
    return ROLES[roles[0]], " ".join(word for word in words if word not in ROLES)


def _words(name: str) -> list[str]:
    """Return the words of a folder's name in lower case, without its numbers."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", PurePath(name).name)
    return re.findall(r"[^\W\d_]+", spaced.lower())


def _without_fillers(word: str) -> str:
    """Return a word without what only says that it names a folder: "trainset" is "train"."""
    if word in FILLERS:
        return ""
    return next((stem for stem in _stems(word) if stem in ROLES), word)


def _stems(word: str) -> list[str]:
    return [word.removesuffix(filler) for filler in FILLERS if word.endswith(filler)]


# Names that tell of no class


def annotation_folders(names: Iterable[str], has_pictures: bool = False) -> list[str]:
    """Return which folders hold annotations, where all others hold the pictures these belong to.

    Names alone tell it: files of one name in two folders may as well be pictures of two classes,
    numbered alike.

    Args:
        names: of all folders in one.
        has_pictures: whether their pictures may lie right beside them, so that there need be no
            other folders.

    >>> annotation_folders(["JPEGImages", "SegmentationClass"]), annotation_folders(["mask", "cat"])
    (['SegmentationClass'], [])
    """
    of_each = {name: _words(name) for name in names}
    annotations = [
        name for name, words in of_each.items() if any(_is_one_of(w, ANNOTATIONS) for w in words)
    ]
    others = [words for name, words in of_each.items() if name not in annotations]
    plain = (*FILLERS, *ORIGINALS, *ROLES)
    is_beside = bool(others) or has_pictures
    return annotations if is_beside and all(_are_all_of(words, plain) for words in others) else []


def tell_of_no_class(names: Iterable[str]) -> bool:
    """Tell whether names say no more than that folders are some, as "images" and "data 2" do."""
    return all(_are_all_of(_words(name), FILLERS) for name in names)


def _are_all_of(words: Collection[str], vocabulary: Collection[str]) -> bool:
    """Tell whether a name has words, and none but some; a number alone may well be a class."""
    return bool(words) and all(_is_one_of(word, vocabulary) for word in words)


def _is_one_of(word: str, vocabulary: Collection[str]) -> bool:
    """Tell whether a word is one of some, "jpegimages" being "jpeg"."""
    return word in vocabulary or any(stem in vocabulary for stem in _stems(word))


# Labels in the names of files


def labels_in_names(paths: Iterable[str]) -> list[str]:
    """Return the labels that file names seem to begin with, as they are spelt there.

    Empty where there are fewer than two, or about as many as there are files, upper and lower case
    taken as one.

    >>> labels_in_names(["Cat.1.jpg", "Cat.2.jpg", "dog (1).jpg", "dog (2).jpg"])
    ['Cat', 'dog']
    """
    stems = [unicodedata.normalize("NFC", PurePath(path).stem) for path in paths]
    found = Counter(match[1] for stem in stems if (match := _LABELLED.match(stem)))
    different = len({label.casefold() for label in found})
    enough = 2 <= different <= found.total() / 2 and found.total() > len(stems) / 2
    return sorted(found) if enough else []


def pattern_of_labels(labels: Iterable[str]) -> str:
    r"""Return the pattern that finds these labels, of `labels_in_names`, in the names of files.

    >>> print(pattern_of_labels(["owl", "owl_eagle"]))
    ^(owl|owl_eagle)[ ._-]*[(]?\d
    """
    # Without the number "owl" would be found in owl_eagle_1, too. Labels are letters, spaces, lines
    # and dashes, so that there is nothing to escape.
    return f"^({'|'.join(labels)}){_TO_NUMBER}"
