"""Optimisers beyond torch's own."""

import torch
from torch import Tensor, nn

#: Coefficients of the polynomial that brings singular values near 1 (Jordan 2024, "Muon").
QUINTIC = (3.4445, -4.7750, 2.0315)
#: How much of the averaged squares Adam keeps in a step. A short training wants little.
ADAM_MEMORY = 0.95


class Muon(torch.optim.Optimizer):
    """Muon for convolutions, Adam for everything else, in one optimiser with one learning rate.

    Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers") moves a weight, taken as a
    matrix of one row a filter, along the orthogonal matrix nearest to its averaged gradient: every
    direction is learned at the same pace. Weights keep the norm that such a matrix would have, so
    the learning rate is the share of itself that a filter is turned by in a step. Biases and the
    head are no such matrices; they get Adam (Kingma & Ba 2015), whose steps do not depend on the
    gradient's size either. torch's own Muon takes matrices alone, and Lightning's automatic loop
    one optimiser, hence this one.

    Args:
        network: whose trainable parameters are to be learned.
        lr: learning rate of all groups; a group's own is this times its ``lr_scale``.
        momentum: of the averaged gradients: Muon's, and Adam's first beta.
        head_scale, bias_scale: ``lr_scale`` of the weights and of the biases that get Adam.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        momentum: float = 0.6,
        head_scale: float = 1 / 600,
        bias_scale: float = 0.15,
    ):
        trainable = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim == 4], "lr_scale": 1.0, "turns": True},
            {"params": [p for p in trainable if p.ndim == 2], "lr_scale": head_scale},
            {"params": [p for p in trainable if p.ndim == 1], "lr_scale": bias_scale},
        ]
        defaults = {"lr": lr, "momentum": momentum, "turns": False}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """Make one step; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = _turn if group["turns"] else _adam
            for p in group["params"]:
                if p.grad is not None:
                    lr = group["lr"] * group["lr_scale"]
                    update(p, p.grad, self.state[p], lr, group["momentum"])
        return loss


def _turn(weight: Tensor, gradient: Tensor, state: dict, lr: float, momentum: float) -> None:
    if not state:
        state["average"] = torch.zeros_like(weight)
    average = state["average"]
    average.mul_(momentum).add_(gradient)
    ahead = gradient.add(average, alpha=momentum)  # Nesterov's
    weight.mul_(len(weight) ** 0.5 / weight.norm())
    weight.sub_(orthogonalised(ahead.flatten(1)).view_as(weight), alpha=lr)


def _adam(weight: Tensor, gradient: Tensor, state: dict, lr: float, momentum: float) -> None:
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
    state["step"] += 1
    state["mean"].lerp_(gradient, 1 - momentum)
    state["square"].lerp_(gradient.square(), 1 - ADAM_MEMORY)
    mean = state["mean"] / (1 - momentum ** state["step"])
    square = state["square"] / (1 - ADAM_MEMORY ** state["step"])
    weight.sub_(lr * mean / (square.sqrt() + 1e-10))


def orthogonalised(matrix: Tensor, iterations: int = 3) -> Tensor:
    """Return roughly the nearest matrix with orthonormal rows or columns, in few products.

    Newton–Schulz iteration, whose coefficients bring singular values somewhere near 1 fast rather
    than to 1 exactly; Muon needs no more, nor more digits than bfloat16 has.

    Args:
        matrix: float, N×M.
        iterations: of the polynomial.

    Returns:
        like `matrix`.
    """
    a, b, c = QUINTIC
    x = matrix.bfloat16() if _multiplies_bfloat16(matrix.device) else matrix
    x = x / (x.norm() + 1e-7)
    if len(matrix) > matrix.shape[1]:
        x = x.T
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if len(matrix) > matrix.shape[1] else x).to(matrix.dtype)


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices of bfloat16 by kernels made for it.

    A CPU without AVX-512 falls back on plain loops, many times slower than float32.
    """
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
