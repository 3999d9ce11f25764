"""Optimisers beyond torch's own."""

import torch
from torch import Tensor, nn

from utils.training.recorded_pass import uncollected

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
        dtype: in which matrices are multiplied: float32, or bfloat16, which takes half the time
            where a processor has it, and is about as exact as the method's authors have it.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        momentum: float = 0.6,
        head_scale: float = 1 / 600,
        bias_scale: float = 0.15,
        dtype: torch.dtype = torch.float32,
    ):
        trainable = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim == 4], "lr_scale": 1.0, "turns": True},
            {"params": [p for p in trainable if p.ndim == 2], "lr_scale": head_scale},
            {"params": [p for p in trainable if p.ndim == 1], "lr_scale": bias_scale},
        ]
        defaults = {"lr": lr, "momentum": momentum, "turns": False}
        super().__init__([group for group in groups if group["params"]], defaults)
        self.dtype = dtype
        self._turn_on_gpu: _Recorded | None = None

    @torch.no_grad()
    def step(self, closure=None):
        """Make one step; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in weights]
            lr, momentum = group["lr"] * group["lr_scale"], group["momentum"]
            states = [self.state[p] for p in weights]
            if weights and group["turns"]:
                averages = _kept("average", weights, states)
                self._turn(weights, averages, gradients, lr, momentum)
            elif weights:
                _adam(weights, states, gradients, lr, momentum)
        return loss

    def _turn(
        self, weights: list, averages: list, gradients: list, lr: float, momentum: float
    ) -> None:
        if weights[0].device.type != "cuda":
            _turn(weights, averages, gradients, lr, momentum, self.dtype)
            return
        recorded = self._turn_on_gpu
        if recorded is None or not recorded.is_of(weights, averages):
            recorded = self._turn_on_gpu = _Recorded(weights, averages, self.dtype)
        recorded.turn(gradients, lr, momentum)


class _Recorded:
    """The update of convolutions on a GPU, recorded as a CUDA graph once it has been made twice.

    It is some two hundred short pieces of work, which take a GPU less time than Python takes to
    ask for them one by one.
    """

    def __init__(self, weights: list[Tensor], averages: list[Tensor], dtype: torch.dtype):
        self.weights, self.averages, self.dtype = weights, averages, dtype
        self.gradients = [torch.empty_like(weight) for weight in weights]
        self.lr, self.momentum = (torch.empty((), device=weights[0].device) for _ in range(2))
        self.made, self.graph = 0, torch.cuda.CUDAGraph()

    def is_of(self, weights: list[Tensor], averages: list[Tensor]) -> bool:
        """Tell whether it changes these very tensors."""
        mine, others = (*self.weights, *self.averages), (*weights, *averages)
        return [id(tensor) for tensor in mine] == [id(tensor) for tensor in others]

    def turn(self, gradients: list[Tensor], lr: float, momentum: float) -> None:
        """Make the update."""
        torch._foreach_copy_(self.gradients, gradients)
        self.lr.fill_(lr)
        self.momentum.fill_(momentum)
        self.made += 1
        if self.made == 3:
            with uncollected(), torch.cuda.graph(self.graph):
                self._turn()
        if self.made < 3:
            self._turn()
        else:
            self.graph.replay()

    def _turn(self) -> None:
        _turn(self.weights, self.averages, self.gradients, self.lr, self.momentum, self.dtype)


# Each takes all parameters of a group at once, with few calls for a GPU to begin.


def _turn(
    weights: list[Tensor],
    averages: list[Tensor],
    gradients: list[Tensor],
    lr: float | Tensor,
    momentum: float | Tensor,
    dtype: torch.dtype,
) -> None:
    torch._foreach_mul_(averages, momentum)
    torch._foreach_add_(averages, gradients)
    ahead = torch._foreach_mul(averages, momentum)  # Nesterov's
    torch._foreach_add_(ahead, gradients)
    scales = torch._foreach_reciprocal(torch._foreach_norm(weights))
    torch._foreach_mul_(scales, [len(weight) ** 0.5 for weight in weights])
    torch._foreach_mul_(weights, scales)
    for shape in dict.fromkeys(weight.shape for weight in weights):
        alike = [number for number, weight in enumerate(weights) if weight.shape == shape]
        # in the order of channels-last memory, so that rows need no copy of their own
        rows = [ahead[number].to(dtype).permute(0, 2, 3, 1).flatten(1) for number in alike]
        turned = orthogonalised(torch.stack(rows)) * lr
        for number, direction in zip(alike, turned, strict=True):
            by_place = weights[number].permute(0, 2, 3, 1)
            by_place.sub_(direction.view(by_place.shape))


def _adam(
    weights: list[Tensor], states: list[dict], gradients: list[Tensor], lr: float, momentum: float
) -> None:
    means, squares = (_kept(name, weights, states) for name in ("mean", "square"))
    for state in states:
        state["step"] = state.get("step", 0) + 1
    torch._foreach_lerp_(means, gradients, weight=1 - momentum)
    torch._foreach_mul_(squares, ADAM_MEMORY)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - ADAM_MEMORY)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [(1 - ADAM_MEMORY ** state["step"]) ** 0.5 for state in states])
    torch._foreach_add_(roots, 1e-10)
    lengths = [-lr / (1 - momentum ** state["step"]) for state in states]
    torch._foreach_addcdiv_(weights, means, roots, lengths)


def _kept(name: str, weights: list[Tensor], states: list[dict]) -> list[Tensor]:
    """Return what is kept of each weight under a name; zeros at first."""
    for weight, state in zip(weights, states, strict=True):
        if name not in state:
            state[name] = torch.zeros_like(weight)
    return [state[name] for state in states]


def orthogonalised(matrices: Tensor, iterations: int = 3) -> Tensor:
    """Return roughly the nearest matrices with orthonormal rows or columns, in few products.

    Newton–Schulz iteration, whose coefficients bring singular values somewhere near 1 fast rather
    than to 1 exactly; Muon needs no more. Each iteration multiplies the matrix by a polynomial of
    its product with its transpose. All of these polynomials commute, so they are multiplied with
    each other first, and the matrix, which is several times as long as it is high, once at the
    end: half the work for DavidNet's.

    Args:
        matrices: float32 or bfloat16, N×M, or K×N×M.
        iterations: of the polynomial, at least 1.

    Returns:
        like `matrices`.
    """
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    square = x @ x.mT
    factor = product = _polynomial(square)
    for _ in range(iterations - 1):
        square = factor @ square @ factor
        factor = _polynomial(square)
        product = factor @ product
    x = product @ x
    return x.mT if is_tall else x


def _polynomial(square: Tensor) -> Tensor:
    """Return what an iteration multiplies a matrix by, given its product with its transpose."""
    a, b, c = QUINTIC
    result = b * square + c * square @ square
    result.diagonal(dim1=-2, dim2=-1).add_(a)
    return result
