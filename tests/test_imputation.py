"""Imputed pixels against a sparse solve of the same equations, and what is left alone."""

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix, lil_matrix
from scipy.sparse.linalg import spsolve

from utils.explain.imputation import blurred, impute, mean_colour

SIDE = 24


def some_removed(kind):
    """Which pixels are removed: bool, 2×S×S."""
    random = np.random.default_rng(3)
    removed = np.zeros((2, SIDE, SIDE), bool)
    if kind == "a block":
        removed[:, 5:18, 3:20] = True
    elif kind == "all but a corner":
        removed[:] = True
        removed[:, :4, :4] = False
    elif kind == "the border":
        removed[:] = True
        removed[:, 2:-2, 2:-2] = False
    else:
        removed = random.random(removed.shape) < kind
    return torch.from_numpy(removed)


def solved_by_scipy(picture, removed):
    """Return a picture (C×H×W) whose removed pixels solve the equations written one by one."""
    place = np.full(removed.shape, -1)
    place[removed] = np.arange(removed.sum())
    matrix, wanted = lil_matrix((removed.sum(),) * 2), np.zeros((removed.sum(), len(picture)))
    for y, x in zip(*np.nonzero(removed), strict=True):
        row = place[y, x]
        for down, right in np.ndindex(3, 3):
            near = y + down - 1, x + right - 1
            if near == (y, x) or not all(0 <= at < SIDE for at in near):
                continue
            weight = 1 / 6 if 1 in (down, right) else 1 / 12
            matrix[row, row] += weight
            if removed[near]:
                matrix[row, place[near]] -= weight
            else:
                wanted[row] += weight * picture[:, near[0], near[1]]
    filled = picture.copy()
    filled[:, removed] = spsolve(csc_matrix(matrix), wanted).T
    return filled


@pytest.mark.parametrize("kind", ["a block", "all but a corner", "the border", 0.1, 0.5, 0.9])
def test_imputed_pixels_solve_the_equations(kind):
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    removed = some_removed(kind)
    filled = impute(images, removed, noise=0)
    for found, picture, gone in zip(filled, images, removed, strict=True):
        expected = solved_by_scipy(picture.double().numpy(), gone.numpy())
        assert np.abs(found.numpy() - expected).max() < 1e-4
        assert torch.equal(found[:, ~gone], picture[:, ~gone])


def test_a_plane_is_found_again():
    row = torch.arange(SIDE, dtype=torch.float32)
    plane = (0.1 * row[:, None] - 0.05 * row).expand(1, 3, SIDE, SIDE)
    removed = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    removed[:, 4:12, 6:19] = True
    torch.testing.assert_close(impute(plane, removed, noise=0), plane, atol=1e-4, rtol=0)


def test_noise_is_small_drawn_from_the_seed_and_only_where_pixels_were_removed():
    images, removed = torch.zeros(4, 3, SIDE, SIDE), some_removed(0.5)[[0, 1, 0, 1]]
    filled = impute(images, removed, noise=0.1, seed=5)
    assert torch.equal(filled, impute(images, removed, noise=0.1, seed=5))
    assert not torch.equal(filled, impute(images, removed, noise=0.1, seed=6))
    gone = removed[:, None].expand_as(images)
    assert (filled[~gone] == 0).all()
    assert filled[gone].std() == pytest.approx(0.1, rel=0.05)


def test_without_any_pixel_left_a_picture_is_the_mean_colour():
    everything = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    assert (impute(torch.ones(1, 3, SIDE, SIDE), everything, noise=0) == 0).all()


@pytest.mark.parametrize("fill", [mean_colour, blurred])
def test_other_fills_change_nothing_but_the_removed_pixels(fill):
    images, removed = torch.rand(2, 3, SIDE, SIDE), some_removed(0.3)
    filled, gone = fill(images, removed), removed[:, None].expand_as(images)
    assert torch.equal(filled[~gone], images[~gone])
    assert (filled[gone] != images[gone]).all()


def test_a_blurred_picture_keeps_its_colour_and_loses_its_outlines():
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[:, :, ::2] = 1.0
    everything = torch.ones(1, SIDE, SIDE, dtype=torch.bool)
    assert torch.allclose(blurred(images, everything), torch.full_like(images, 0.5), atol=0.05)
