"""A network and its class activation map in one graph of forward operations, to be exported.

A map needs a gradient, and an exporter writes what is computed forwards. So the chain rule is
written out here, from the logit back to the block: for each kind of layer, the forward operation
that its gradient amounts to. In evaluation mode that is exact, and it needs no second copy of a
weight.
"""

import copy
import operator
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import conv_transpose2d, pad, pixel_shuffle, pixel_unshuffle

from utils import InputError
from utils.data.augment import scale_and_shift
from utils.explain.gradcam import first_choice, scaled_to
from utils.models.convolution import halves, plain_convolutions
from utils.models.network import Network

#: What each method adds up over the channels, of a block's output and the logit's gradient there
#: (N×C×H×W each). Not among them: Grad-CAM++ and XGrad-CAM, which divide by what may be next to
#: nothing, where two runtimes round apart; EigenCAM, which decomposes a matrix; ScoreCAM and
#: AblationCAM, which pass through the network for every channel.
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": lambda channels, gradient: gradient.mean((2, 3), keepdim=True) * channels,
    "hirescam": lambda channels, gradient: gradient * channels,
    "layercam": lambda channels, gradient: gradient.relu() * channels,
}


class NetworkWithMap(nn.Module):
    """A network in evaluation mode that also says where it found the class it predicts.

    Args:
        network: of the registry; it stays as it is.
        mean, std: of its training pictures, as `utils.data.augment.normalise` takes them.
        method: one of ``PRODUCTS``; None takes the one that is shown first.
        block: of the network; None likewise.

    Attributes:
        method, block: of the map.
        lag: from `utils.models.network.Network.lag`.

    Raises:
        InputError: a block or method that there is not, a method that cannot be exported, or a
            layer after the block whose gradient is not written out here.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: Network,
        mean: Sequence[float],
        std: Sequence[float],
        method: str | None = None,
        block: str | None = None,
    ):
        super().__init__()
        self.method, self.block = first_choice(network, method, block)
        check_exportable(self.method)
        self.lag = network.lag(self.block)
        scale, shift = scale_and_shift(tuple(mean), tuple(std), torch.device("cpu"))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        plain = copy.deepcopy(network).cpu().float().eval()
        plain_convolutions(plain)
        plain.to(memory_format=torch.contiguous_format)
        self.network = fx.GraphModule(plain, _Tracer(self.block).trace(plain))
        graph = self.network.graph
        graph.eliminate_dead_code()
        self.start = next(node for node in graph.nodes if node.target == self.block)
        self.back = {node: self._way_back(node) for node in _depending_on(self.start)}
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pictures (uint8, N×3×S×S, RGB) to logits and maps.

        Returns:
            float32, N×C; and float32 in [0, 1], N×S×S, for the class of the largest logit, as
            `utils.explain.gradcam.class_activation_maps` has it.
        """
        images = pixels.to(torch.float32) * self.scale - self.shift
        passed = fx.Interpreter(self.network, garbage_collect_values=False)
        logits = passed.run(images)
        channels = passed.env[self.start]
        gradient = self._gradient(passed.env, _is_largest(logits).to(logits.dtype))
        maps = PRODUCTS[self.method](channels, gradient).sum(1).relu()
        return logits, scaled_to(maps, pixels.shape[-1], self.lag)

    def _gradient(self, outputs: dict[fx.Node, Tensor], chosen: Tensor) -> Tensor:
        """Return the gradient of the chosen logits (float, N×C, ones and zeros) at the block.

        Args:
            outputs: of every node of the graph.
        """
        gradients = {list(self.back)[-1]: chosen}
        for node, back in reversed(self.back.items()):
            for source in node.all_input_nodes:
                share = back(outputs[source], gradients[node])
                gradients[source] = gradients[source] + share if source in gradients else share
        return gradients[self.start]

    def _way_back(self, node: fx.Node) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what makes the gradient at a node's input of that input and the node's gradient.

        Raises:
            InputError: that is not written out here.
        """
        if node.target in (operator.add, operator.iadd) and len(node.all_input_nodes) == 2:
            return lambda x, gradient: gradient
        told = str(node.target)
        if node.op == "call_module":
            layer = self.network.get_submodule(told)
            if (rule := _rule(layer)) is not None:
                return partial(rule, layer)
            told = f"{told}: {layer}"
        raise InputError(
            f"A map at block {self.block!r} cannot be exported: the gradient of a layer after it "
            f"({told}) is not written out in utils/explain/map_in_graph.py. Choose a later block."
        )


def check_exportable(method: str) -> None:
    """Refuse a method whose map cannot be part of an exported network.

    Raises:
        InputError: with those whose map can.
    """
    if method not in PRODUCTS:
        raise InputError(
            f"method is {method!r}, and only maps by {', '.join(PRODUCTS)} can be exported. The "
            "others divide by what may be next to nothing, decompose a matrix, or pass through the "
            "network for every channel."
        )


class _Tracer(fx.Tracer):
    """Traces a network down to the layers whose gradients are known, and one block as a whole."""

    def __init__(self, block: str):
        super().__init__()
        self.block = block

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_leaf = super().is_leaf_module(m, module_qualified_name)
        return is_leaf or module_qualified_name == self.block or _rule(m) is not None


def _depending_on(start: fx.Node) -> list[fx.Node]:
    """Return the nodes that are computed from one, in forward order, the logits last."""
    found = {start: None}
    for node in start.graph.nodes:
        if node.op != "output" and any(source in found for source in node.all_input_nodes):
            found[node] = None
    return list(found)[1:]


# What the gradient at a layer's output is at its input: (layer, input, gradient) → gradient


def _is_largest(values: Tensor, dim: int = -1) -> Tensor:
    """Return where the first of the largest values lies: bool, as `values`.

    A maximum hands its gradient to one of equal values, and torch takes the first.
    """
    places = torch.arange(values.shape[dim], device=values.device)
    shape = [1] * values.ndim
    shape[dim] = -1
    return places.view(shape) == values.argmax(dim, keepdim=True)


def _through_convolution(layer: nn.Conv2d, x: Tensor, gradient: Tensor) -> Tensor:
    padding = [int(pixels) for pixels in layer.padding]
    left = [
        size - ((count - 1) * step - 2 * added + apart * (kernel - 1) + 1)
        for size, count, kernel, step, added, apart in zip(
            x.shape[2:],
            gradient.shape[2:],
            layer.kernel_size,
            layer.stride,
            padding,
            layer.dilation,
            strict=True,
        )
    ]
    return conv_transpose2d(
        gradient,
        layer.weight,
        stride=layer.stride,
        padding=padding,
        output_padding=left,  # rows and columns at the end, at which no whole window fits
        groups=layer.groups,
        dilation=layer.dilation,
    )


def _through_norm(layer: nn.BatchNorm2d, x: Tensor, gradient: Tensor) -> Tensor:
    scale = layer.weight * (layer.get_buffer("running_var") + layer.eps).rsqrt()
    return gradient * scale.view(-1, 1, 1)


def _through_relu(layer: nn.ReLU, x: Tensor, gradient: Tensor) -> Tensor:
    return gradient * (x > 0)


def _through_clipped(layer: nn.ReLU6, x: Tensor, gradient: Tensor) -> Tensor:
    return gradient * ((x > 0) & (x < 6))


def _through_silu(layer: nn.SiLU, x: Tensor, gradient: Tensor) -> Tensor:
    share = x.sigmoid()
    return gradient * share * (1 + x * (1 - share))


def _through_pool(layer: nn.MaxPool2d, x: Tensor, gradient: Tensor) -> Tensor:
    height, width = gradient.shape[-2:]
    # the four pixels of a window become four channels, in the order in which they are compared
    windows = pixel_unshuffle(x[..., : 2 * height, : 2 * width], 2).unflatten(1, (-1, 4))
    back = pixel_shuffle((_is_largest(windows, 2) * gradient.unsqueeze(2)).flatten(1, 2), 2)
    return pad(back, (0, x.shape[-1] - 2 * width, 0, x.shape[-2] - 2 * height))


def _through_maximum(layer: nn.AdaptiveMaxPool2d, x: Tensor, gradient: Tensor) -> Tensor:
    return (_is_largest(x.flatten(2)) * gradient.flatten(2)).unflatten(2, x.shape[2:])


def _through_mean(layer: nn.AdaptiveAvgPool2d, x: Tensor, gradient: Tensor) -> Tensor:
    return (gradient / x[0, 0].numel()).expand_as(x)


def _through_nothing(layer: nn.Identity, x: Tensor, gradient: Tensor) -> Tensor:
    return gradient


def _through_flatten(layer: nn.Flatten, x: Tensor, gradient: Tensor) -> Tensor:
    return gradient.unflatten(1, x.shape[1:])


def _through_linear(layer: nn.Linear, x: Tensor, gradient: Tensor) -> Tensor:
    return gradient @ layer.weight


_RULES: dict[type[nn.Module], Callable] = {
    nn.Conv2d: _through_convolution,
    nn.BatchNorm2d: _through_norm,
    nn.ReLU: _through_relu,
    nn.ReLU6: _through_clipped,
    nn.SiLU: _through_silu,
    nn.MaxPool2d: _through_pool,
    nn.AdaptiveMaxPool2d: _through_maximum,
    nn.AdaptiveAvgPool2d: _through_mean,
    nn.Identity: _through_nothing,
    nn.Flatten: _through_flatten,
    nn.Linear: _through_linear,
}


def _rule(layer: nn.Module) -> Callable | None:
    """Return the rule of a layer's kind, or of one that it extends, if it has the usual form."""
    rules = (rule for kind, rule in _RULES.items() if isinstance(layer, kind))
    return next(rules, None) if _is_usual(layer) else None


def _is_usual(layer: nn.Module) -> bool:
    """Tell whether a layer has the form that its rule is written for."""
    match layer:
        case nn.Conv2d():
            return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        case nn.BatchNorm2d():
            return layer.affine and layer.track_running_stats
        case nn.MaxPool2d():
            return halves(layer)
        case nn.AdaptiveMaxPool2d() | nn.AdaptiveAvgPool2d():
            return layer.output_size in (1, (1, 1))
        case nn.Flatten():
            return (layer.start_dim, layer.end_dim) == (1, -1)
    return True
