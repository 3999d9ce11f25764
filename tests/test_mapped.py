"""The file that pictures are decoded into gives them back, mapped; rows move without a copy."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from utils.data.mapped import HEADER, TensorFile, map_tensors, read_metadata, rearrange


def test_a_file_gives_back_what_was_decoded_into_it_and_what_stands_beside(tmp_path):
    path = tmp_path / "kept.safetensors"
    file = TensorFile(path, 1_000)
    images = file.new((10, 3, 8, 8), np.uint8)
    masks = file.new((4, 8, 8), np.bool_)
    assert not images.any() and path.stat().st_size == HEADER + 10 * 192 + 4 * 64
    images[:], masks[:] = np.arange(10).reshape(10, 1, 1, 1), True
    pictures = torch.from_numpy(images)
    beside = torch.tensor([5, 2**40])
    tensors = {"a": pictures[:4], "b": pictures[4:], "beside": beside}
    tensors |= {"masks": torch.from_numpy(masks), "none": torch.empty(0, dtype=torch.int64)}
    file.finish(tensors, {"key": "known"})
    assert read_metadata(path) == {"key": "known"}
    found = map_tensors(path)
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name].clone(), tensor) for name, tensor in tensors.items())
    others = load_file(path)  # any other program can read it, too
    assert all(torch.equal(others[name], tensor) for name, tensor in tensors.items())


def test_what_was_not_used_at_the_end_is_cut_off(tmp_path):
    path = tmp_path / "kept.safetensors"
    file = TensorFile(path, 0)
    images = torch.from_numpy(file.new((10, 3, 8, 8), np.uint8))
    file.finish({"a": images[:6]}, {})
    assert path.stat().st_size == HEADER + 6 * 192


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_put_into_any_order_in_place(seed):
    rng = np.random.default_rng(seed)
    rows, order = rng.integers(0, 99, (50, 2, 3)), rng.permutation(50)
    expected = rows[order]
    rearrange(rows, order)
    np.testing.assert_array_equal(rows, expected)
