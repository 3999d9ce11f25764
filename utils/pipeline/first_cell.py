"""What the first cell of every notebook runs, by its path: it makes this very package importable.

Another ``utils`` may lie beside the notebook, be installed, or be imported already. Standard
library alone: nothing may be installed yet.
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


if fetched := globals().get("FETCHED"):  # run by a notebook
    make_importable(Path(__file__).resolve().parent.parent.parent)
    from utils.pipeline.install import install_missing

    install_missing(only_in=fetched)
