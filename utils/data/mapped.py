"""Decoded pictures in a file that is mapped, not loaded: the system reads what is looked at.

It is a safetensors file, which cannot run code (https://github.com/huggingface/safetensors,
"Format"): the length of a header, the header as JSON, and the bytes of all tensors. As its own
library writes only what is all in memory, the file is made here: room for the header is left at its
beginning, pictures are decoded into what follows, and the header is written last.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

#: Bytes before the first tensor: the header's length, the header, and blanks.
HEADER = 4_096
#: What the format calls the types of tensors that are kept.
TYPES = {torch.uint8: "U8", torch.bool: "BOOL", torch.int64: "I64"}
ARRAYS = {"U8": np.uint8, "BOOL": np.bool_, "I64": np.int64}


class TensorFile:
    """A file of tensors in the making, of which the large ones are filled where they lie.

    Args:
        path: where to write.
        expected: how many bytes of pictures are to come; room for them is taken at once, since
            mapped memory that the disk has no room for would end the process.

    Raises:
        OSError: there is no such room, or the file cannot be written or mapped.
    """

    def __init__(self, path: Path, expected: int):
        self.path = path
        self.end = HEADER
        self._arrays: list[tuple[int, np.memmap]] = []
        path.touch()
        self._take(HEADER + expected)
        np.memmap(path, np.uint8, "r+", 0, (HEADER,))  # some drives of a network cannot

    def _take(self, size: int) -> None:
        with open(self.path, "r+b") as file:
            if size > os.fstat(file.fileno()).st_size:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)

    def new(self, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
        """Return an array of zeros that lies in the file after the others."""
        start, size = self.end, int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._take(start + size)
        self.end += size
        array = np.memmap(self.path, dtype, "r+", start, shape)
        self._arrays.append((start, array))
        return array

    def finish(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write all tensors that do not lie in the file, and the header, and let go of the arrays.

        Args:
            tensors: by name; those that are parts of the arrays must fill them from their start.
            metadata: small.
        """
        placed = {name: self._place(tensor) for name, tensor in tensors.items()}
        inside = {name: place for name, place in placed.items() if place is not None}
        end = max((p + tensors[name].nbytes for name, p in inside.items()), default=HEADER)
        for _, array in self._arrays:
            array.flush()
        self._arrays.clear()
        header: dict = {"__metadata__": dict(metadata)}
        with open(self.path, "r+b") as file:
            file.truncate(end)
            file.seek(end)
            for name, tensor in tensors.items():
                place = inside.get(name)
                if place is None:
                    place = file.tell()
                    file.write(tensor.contiguous().numpy().tobytes())
                begin = place - HEADER
                header[name] = {
                    "dtype": TYPES[tensor.dtype],
                    "shape": list(tensor.shape),
                    "data_offsets": [begin, begin + tensor.nbytes],
                }
            text = json.dumps(header).encode().ljust(HEADER - 8)
            assert len(text) == HEADER - 8, "the header is longer than the room that was left"
            file.seek(0)
            file.write(len(text).to_bytes(8, "little") + text)

    def _place(self, tensor: Tensor) -> int | None:
        """Return where in the file a tensor lies; None where it does not."""
        for start, array in self._arrays:
            offset = tensor.data_ptr() - array.ctypes.data
            if tensor.nbytes and 0 <= offset < array.nbytes:
                return start + offset
        return None


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a file says beside its tensors, after comparing its header with its size."""
    with safe_open(path, "np") as file:
        return file.metadata()


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors by name, mapped: they take no memory, and cannot be written to."""
    read_metadata(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    content = np.memmap(path, np.uint8, "r", 8 + length)
    header.pop("__metadata__", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return {name: _tensor(content, **about) for name, about in header.items()}


def _tensor(content: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    part = np.asarray(content[slice(*data_offsets)])
    return torch.from_numpy(part.view(ARRAYS[dtype]).reshape(shape))


def rearrange(rows: np.ndarray, order: np.ndarray) -> None:
    """Put the rows of an array into another order, in place.

    Args:
        rows: of any shape, N long.
        order: int64, N: of each row that is to be, where it is now.

    >>> rows = np.array([10, 11, 12, 13])
    >>> rearrange(rows, np.array([2, 0, 1, 3]))
    >>> rows.tolist()
    [12, 10, 11, 13]
    """
    is_right = order == np.arange(len(order))
    for start in range(len(order)):
        if is_right[start]:
            continue
        first, place = rows[start].copy(), start
        while order[place] != start:
            rows[place] = rows[order[place]]
            is_right[place] = True
            place = order[place]
        rows[place] = first
        is_right[place] = True
