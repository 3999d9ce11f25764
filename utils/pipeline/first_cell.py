"""What the first cell of every chapter runs once it has found this file, or fetched it.

The cell looks around the chapter, where Python looks for packages, and beside the chapter. It
takes no other ``utils`` for this one. Standard library alone: nothing may be installed yet.
"""

import sys
from pathlib import Path


def make_importable(place: Path) -> None:
    """Have ``import utils`` find the package in `place`, and forget any other of that name."""
    if sys.path[:1] != [str(place)]:
        sys.path.insert(0, str(place))
    known = getattr(sys.modules.get("utils"), "__file__", None)
    if known is None or Path(known).resolve() != place / "utils" / "__init__.py":
        for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
            del sys.modules[name]


if files := globals().get("files"):  # in a chapter, whose cell knows where this file may lie
    make_importable(next(filter(Path.exists, files)).resolve().parents[2])
    from utils.pipeline.install import install_missing

    install_missing(only_in=files[-1].resolve().parents[2])
