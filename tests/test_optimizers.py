"""Muon and Adam in one optimiser, each against a plain reference."""

import copy

import pytest
import torch
from torch import nn

from utils.training import optimizers
from utils.training.optimizers import ADAM_MEMORY, QUINTIC, Muon, orthogonalised


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 4 * 4, 3),
    )  # fmt: skip


def gradients(network, step):
    """Give every parameter a gradient that depends on the step alone."""
    generator = torch.Generator().manual_seed(step)
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=generator).to(p.device)


def groups_of(network):
    everything = list(network.parameters())
    return {n: [p for p in everything if p.ndim == n] for n in (4, 2, 1)}


def test_every_trainable_parameter_is_in_one_group_and_frozen_ones_in_none():
    network = small_network()
    network[0].weight.requires_grad = False
    grouped = [p for group in Muon(network, 0.1).param_groups for p in group["params"]]
    trainable = [p for p in network.parameters() if p.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trainable))


def test_biases_and_head_follow_adam_of_torch_with_their_own_rate():
    network, reference = small_network(), small_network()
    ours = Muon(network, lr=0.1, momentum=0.7, head_scale=0.5, bias_scale=0.2)
    theirs = torch.optim.Adam(
        [{"params": groups_of(reference)[2], "lr": 0.05},
         {"params": groups_of(reference)[1], "lr": 0.02}],
        betas=(0.7, ADAM_MEMORY), eps=1e-10,
    )  # fmt: skip
    for step in range(5):
        for side, optimizer in ((network, ours), (reference, theirs)):
            gradients(side, step)
            optimizer.step()
    for ndim in (1, 2):
        for mine, other in zip(groups_of(network)[ndim], groups_of(reference)[ndim], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_convolutions_turn_along_the_orthogonal_matrix_at_their_own_norm():
    network = small_network()
    weights = [p.detach().clone() for p in groups_of(network)[4]]
    averages = [torch.zeros_like(w) for w in weights]
    optimizer = Muon(network, lr=0.1, momentum=0.6)
    for step in range(3):
        gradients(network, step)
        for i, p in enumerate(groups_of(network)[4]):
            averages[i] = 0.6 * averages[i] + p.grad
            ahead = (p.grad + 0.6 * averages[i]).reshape(len(p), -1)
            turned = orthogonalised(ahead).reshape(p.shape)
            weights[i] = weights[i] * len(p) ** 0.5 / weights[i].norm() - 0.1 * turned
        optimizer.step()
    for mine, expected in zip(groups_of(network)[4], weights, strict=True):
        torch.testing.assert_close(mine.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_recorded_update_of_a_gpu_is_the_one_that_was_recorded(monkeypatch):
    def after(steps):
        network = small_network().cuda()
        optimizer = Muon(network, lr=0.1, momentum=0.6)
        for step in range(steps):
            gradients(network, step)
            for group in optimizer.param_groups:
                group["lr"], group["momentum"] = 0.1 / (1 + step), 0.6 + 0.01 * step
            optimizer.step()
        return [p.detach() for p in network.parameters()]

    recorded = after(8)
    replayed = optimizers._Recorded.turn

    def one_by_one(self, *asked):
        self.made = 0
        replayed(self, *asked)

    monkeypatch.setattr(optimizers._Recorded, "turn", one_by_one)
    assert all(torch.equal(a, b) for a, b in zip(recorded, after(8), strict=True))


def test_matrices_are_orthogonalised_alone_as_together():
    torch.manual_seed(2)
    matrices = torch.randn(3, 8, 40)
    alone = torch.stack([orthogonalised(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalised(matrices), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_an_orthogonalised_matrix_keeps_its_directions_and_evens_out_their_sizes(shape):
    torch.manual_seed(1)
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape)))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape)))
    sizes = torch.logspace(0, -1, min(shape))  # a tenth between the largest and the smallest
    result = orthogonalised(left @ torch.diag(sizes) @ right.T, iterations=5)
    inside = left.T @ result @ right
    assert result.dtype == torch.float32
    assert inside.diag().min() > 0.5 and inside.diag().max() < 1.4
    assert (inside - torch.diag(inside.diag())).abs().max() < 0.1


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (3, 16, 16), (2, 5, 90)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_what_is_iterated_is_the_polynomial_of_newton_and_schulz(shape, iterations):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    exact = matrices.double()
    (a, b, c), exact = QUINTIC, exact / exact.norm(dim=(-2, -1), keepdim=True)
    for _ in range(iterations):
        square = exact @ exact.mT
        exact = a * exact + b * square @ exact + c * square @ square @ exact
    result = orthogonalised(matrices, iterations)
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("falls", [0.0, 0.5, 1.0])
def test_in_bfloat16_the_shorter_way_is_about_as_exact_as_that_of_the_authors(falls):
    torch.manual_seed(3)
    left, _ = torch.linalg.qr(torch.randn(128, 128))
    right, _ = torch.linalg.qr(torch.randn(1152, 128))
    matrix = left @ torch.diag(torch.arange(1.0, 129.0) ** -falls) @ right.T
    exact = orthogonalised(matrix).double()

    def error(result):
        assert result.dtype == torch.bfloat16
        return float((result.double() - exact).norm() / exact.norm())

    (a, b, c), step_by_step = QUINTIC, matrix.bfloat16() / matrix.norm()
    for _ in range(3):
        square = step_by_step @ step_by_step.mT
        step_by_step = a * step_by_step + (b * square + c * square @ square) @ step_by_step
    ours, theirs = error(orthogonalised(matrix.bfloat16())), error(step_by_step)
    assert 0 < ours < 0.05  # where singular values end is not exact either: from 0.7 to 1.2
    assert ours < 2.5 * theirs


def test_a_step_in_bfloat16_is_that_in_float32_but_for_rounding():
    networks = small_network(), small_network()
    for network, dtype in zip(networks, (torch.float32, torch.bfloat16), strict=True):
        optimizer = Muon(network, 0.1, dtype=dtype)
        for step in range(3):
            gradients(network, step)
            optimizer.step()
    for ndim, rounding in ((4, 0.01), (2, 0), (1, 0)):
        for exact, rounded in zip(*(groups_of(n)[ndim] for n in networks), strict=True):
            assert rounded.dtype == torch.float32
            torch.testing.assert_close(rounded, exact, rtol=0, atol=rounding)
            assert torch.equal(rounded, exact) is (rounding == 0)


def test_a_step_is_the_same_whatever_order_a_weight_has_in_memory():
    plain, last = small_network(), small_network().to(memory_format=torch.channels_last)
    for network in (plain, last):
        optimizer = Muon(network, 0.1)
        gradients(network, 0)
        optimizer.step()
    for one, other in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_size_of_the_gradient_does_not_matter():
    networks = small_network(), small_network()
    for network, size in zip(networks, (1.0, 1000.0), strict=True):
        optimizer = Muon(network, 0.1)
        gradients(network, 0)
        for p in network.parameters():
            p.grad *= size
        optimizer.step()
    for one, other in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-2 * 0.1)


def test_its_state_goes_through_a_file_and_continues_bit_for_bit(tmp_path):
    network = small_network()
    optimizer = Muon(network, 0.1)
    for step in range(3):
        gradients(network, step)
        optimizer.step()
    kept = copy.deepcopy(network.state_dict())
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    again = small_network(seed=5)
    again.load_state_dict(kept)
    resumed = Muon(again, 0.5)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for side, chosen in ((network, optimizer), (again, resumed)):
        gradients(side, 3)
        chosen.step()
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_one_learning_rate_moves_every_group():
    network = small_network()
    optimizer = Muon(network, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in (*groups_of(network)[2], *groups_of(network)[1])]
    gradients(network, 0)
    optimizer.step()
    after = (*groups_of(network)[2], *groups_of(network)[1])
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
