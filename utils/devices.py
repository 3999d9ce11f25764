"""Which hardware to compute on, in which number format, and why."""

import ctypes
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from utils import InputError, check_choice, counted
from utils.progress import in_notebook
from utils.settings import SETTINGS, split_count

PRECISIONS, DEVICES = SETTINGS["precision"].choices, SETTINGS["devices"].choices
CONTROL_GROUP, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class _GroupFiles(NamedTuple):
    """What a version of control groups calls a limit, what is taken, and what can be dropped."""

    limit: str
    used: str
    reclaimable: str


VERSION_1 = _GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = _GroupFiles("memory.max", "memory.current", "inactive_file")
#: Names of malloc.h for how many blocks come straight from the system; from how many free bytes at
#: its end on the heap is shortened.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def choose_device(devices: str = "auto") -> tuple[str, str]:
    """Choose where to compute.

    Args:
        devices: the parameter of this name. Of several the kind counts here, and that there are so
            many.

    Returns:
        torch's name of the device (``"cpu"``, ``"cuda"``, ``"mps"``) and the hardware's name.

    Raises:
        InputError: an unknown choice, a GPU where there is none, or more than there are.
    """
    SETTINGS["devices"].check(devices)
    kind, count = split_count(devices)
    gpus = 0 if kind == "cpu" else _count_gpus()
    if not gpus and kind == "gpu":
        raise InputError(
            f"devices is {devices!r}, but torch finds no GPU here. Use 'auto' or 'cpu'."
        )
    if not gpus:
        return "cpu", f"{_cpu_name()}, {torch.get_num_threads()} threads"
    if count is not None and count > gpus:
        raise InputError(
            f"devices is {devices!r}, but torch finds {counted(gpus, 'GPU')} here. Give no more."
        )
    if torch.cuda.is_available():
        return "cuda", _of_gpu("name")
    return "mps", f"{platform.processor() or 'Apple'} GPU"


def _count_gpus() -> int:
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return int(torch.backends.mps.is_available())


def _of_gpu(what: str) -> Any:
    """Return the GPU's ``"name"``, or its CUDA compute ``"capability"``: two numbers.

    A notebook's process that has looked at a GPU itself can no longer be forked into several that
    use GPUs; where there are several, another process looks.
    """
    if in_notebook() and torch.cuda.device_count() > 1 and not torch.cuda.is_initialized():
        return _gpu_as_another_sees_it()[what]
    return getattr(torch.cuda, f"get_device_{what}")()


@cache
def _gpu_as_another_sees_it() -> dict[str, Any]:
    looks = "from torch import cuda; print(cuda.get_device_name(), *cuda.get_device_capability())"
    told = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, check=True)
    name, major, minor = told.stdout.strip().rsplit(" ", 2)
    return {"name": name, "capability": (int(major), int(minor))}


def available_memory() -> int:
    """Return how many more bytes the machine and its control groups let this process take."""
    return min([psutil.virtual_memory().available, *_rooms_in_groups()])


def _rooms_in_groups() -> Iterator[int]:
    """Yield how many bytes each control group of this process has left."""
    for group, names in _groups():
        try:
            limit, used = (int((group / name).read_text()) for name in (names.limit, names.used))
        except (OSError, ValueError):  # no such group, or no limit
            continue
        yield max(0, limit - used) + min(
            used, _reclaimable(group / "memory.stat", names.reclaimable)
        )


def _groups() -> Iterator[tuple[Path, "_GroupFiles"]]:
    """Yield the folders of this process's control groups: its own, and all that those lie in.

    Within a container the mounted folder itself may be the group, whatever path is named.
    """
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", *lines]:  # the first for where there is no such list
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = CONTROL_GROUP, VERSION_2
        elif "memory" in controllers.split(","):
            root, names = CONTROL_GROUP / "memory", VERSION_1
        else:
            continue
        group = root / path.lstrip("/")
        yield from ((g, names) for g in (group, *group.parents) if g.is_relative_to(root))


def _reclaimable(statistics: Path, name: str) -> int:
    """Return how much of what a group takes is copies of files that nobody has used lately."""
    try:
        figures = dict(line.split() for line in statistics.read_text().splitlines())
        return int(figures[name])
    except (OSError, ValueError, KeyError):
        return 0


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step; may be called again and again.

    By default it gives every large block back to the system, which clears it before the next
    tensor may use it: a fourth of a training step on two cores. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def choose_precision(precision: str, device: str, depthwise: bool = False) -> tuple[str, str]:
    """Choose the number format of training.

    Args:
        precision: one of ``PRECISIONS``; ``"auto"`` takes the fastest the hardware does well.
        device: torch's name of the device.
        depthwise: as `utils.models.network.Network` says of itself.

    Returns:
        Lightning's name of the precision, and why it was chosen.

    Raises:
        InputError: an unknown name, or 16-mixed on a CPU, which Lightning does not offer.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision == "16-mixed" and device == "cpu":
        raise InputError("precision '16-mixed' needs a GPU. Use 'auto', 'bf16-mixed' or '32-true'.")
    if precision != "auto":
        return precision, "as asked"
    if device == "cuda":
        capability = _of_gpu("capability")
        version = f"CUDA compute capability {capability[0]}.{capability[1]}"
        if capability >= (8, 0):
            return "bf16-mixed", f"{version} computes in bfloat16"
        return "16-mixed", f"{version} has no bfloat16 units, but float16"
    if device == "cpu" and depthwise:
        return "32-true", "convolutions of one channel each are slower in bfloat16 on a CPU"
    if device == "cpu" and (feature := _cpu_bfloat16()):
        return "bf16-mixed", f"this CPU has {feature}"
    return "32-true", f"this {device.upper()} has no fast bfloat16"


def dtype_of(precision: str) -> torch.dtype:
    """Return the number format in which a precision of ``PRECISIONS`` computes most."""
    return {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision, torch.float32)


def autocast(device: str, precision: str) -> torch.autocast:
    """Return a context in which a network computes in a precision, other than ``"auto"``."""
    return torch.autocast(device, dtype_of(precision), enabled=precision != "32-true")


def computes_in(precision: str, device: str) -> bool:
    """Tell whether a device has units for a number format; slower ways may do as well."""
    if precision == "32-true":
        return True
    if precision == "16-mixed":
        return device != "cpu"
    if device == "cuda":
        return _of_gpu("capability") >= (8, 0)
    return device == "cpu" and _cpu_bfloat16() is not None


def _cpu_bfloat16() -> str | None:
    """Return the name of the CPU's bfloat16 instructions, or None."""
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        amx, avx512 = has.get("amx_bf16"), has.get("avx512_bf16")
    else:  # torch 2.8 and 2.9 know, but say it only here
        amx, avx512 = torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()
    return "AMX" if amx else "AVX-512 BF16" if avx512 else None
