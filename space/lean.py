"""Saves memory: imports the maps' package without what its other parts need, which is a lot.

`grad-cam` imports all its methods and metrics at once, and with them scikit-learn, SciPy and
torchvision. The maps of this page call none of them, so the package gets placeholders that refuse
to be used.
Import this module before anything that imports `pytorch_grad_cam`.
"""

import ctypes
import sys
from types import ModuleType

#: glibc's number of the setting for how many heaps it keeps. By default each of a server's threads
#: may have one, and each heap stays as large as it once was.
M_ARENA_MAX = -8
#: What grad-cam 1.5 imports from libraries that its class activation maps never call.
UNUSED = {
    "scipy": (),
    "scipy.ndimage": ("zoom",),
    "scipy.sparse": ("csc_matrix", "lil_matrix"),
    "scipy.sparse.linalg": ("spsolve",),
    "sklearn": (),
    "sklearn.decomposition": ("KernelPCA", "NMF"),
    "torchvision": (),
    "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
    "torchvision.transforms.functional": ("resize",),
}


def _refusing(name: str):
    def refuse(*_, **__):
        raise ImportError(f"{name} is left out of this page; see lean.py.")

    return refuse


def _placeholder(name: str, members: tuple[str, ...]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update({member: _refusing(f"{name}.{member}") for member in members})
    return module


def import_grad_cam() -> None:
    """Import `pytorch_grad_cam`; what other modules import from those libraries stays real."""
    absent = {name: _placeholder(name, UNUSED[name]) for name in UNUSED if name not in sys.modules}
    sys.modules.update(absent)
    try:
        import pytorch_grad_cam  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]


def share_heap() -> None:
    """Have all threads share one heap, where the C library is glibc."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


share_heap()
import_grad_cam()
