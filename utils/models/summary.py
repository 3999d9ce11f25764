"""A network layer by layer: shapes and parameters, and its source."""

import copy
from dataclasses import dataclass

import pandas as pd
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.model_summary import ModelSummary
from torch import Tensor, nn

from utils.models.davidnet import Residual
from utils.models.network import Network

#: How a drawing calls a layer, by its class or one that this extends.
LAYER_NAMES = {
    nn.Linear: "linear",
    nn.BatchNorm2d: "batch norm",
    nn.AdaptiveMaxPool2d: "max of each map",
    nn.AdaptiveAvgPool2d: "mean of each map",
    nn.Flatten: "flatten",
    nn.ReLU: "ReLU",
    nn.SiLU: "SiLU",
}
#: How it calls what timm makes of several layers and draws as one, by the name of its class.
BLOCK_NAMES = {
    "BasicBlock": "residual block",
    "Bottleneck": "residual block",
    "InvertedResidual": "residual block",
    "DepthwiseSeparableConv": "separable conv",
}


def layer_table(network: nn.Module, image_size: int, batch_size: int = 1) -> pd.DataFrame:
    """Return every layer in forward order: name, type, input and output shape, parameters.

    Made from Lightning's `ModelSummary`, whose own print rounds the parameter counts.

    Args:
        network: any network on N×3×S×S pictures.
        image_size, batch_size: of the pictures whose shapes are shown.
    """
    summary = ModelSummary(_Summarised(network, image_size, batch_size), max_depth=-1)
    table = pd.DataFrame(
        {
            "layer": [name.removeprefix("network.") for name in summary.layer_names],
            "type": summary.layer_types,
            "input": ["×".join(map(str, size)) for size in summary.in_sizes],
            "output": ["×".join(map(str, size)) for size in summary.out_sizes],
            "parameters": summary.param_nums,
        }
    )
    modules = dict(network.named_modules())
    is_layer = [name in modules and not any(modules[name].children()) for name in table["layer"]]
    return table[is_layer].reset_index(drop=True)


class _Summarised(LightningModule):
    """The network alone: an `ImageClassifier` would list its metrics as layers too."""

    def __init__(self, network: nn.Module, image_size: int, batch_size: int):
        super().__init__()
        self.network = network
        self.example_input_array = torch.zeros(batch_size, 3, image_size, image_size)

    def forward(self, images):
        return self.network(images)


def size_in_words(network: nn.Module) -> str:
    """Return how many parameters a network has, how many of them are learned, and their size."""
    total = sum(p.numel() for p in network.parameters())
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    of_them = "all" if learned == total else f"{learned:,}"
    return (
        f"{total:,} parameters, {of_them} of them learned: {4 * total / 2**20:.2f} MiB in float32"
    )


@dataclass(frozen=True)
class Stage:
    """A block of a network, as a drawing shows it.

    Attributes:
        name: of the block.
        layers: what each of its layers is, in forward order.
        skips: pairs of positions in `layers`: the first layer of those that an input bypasses, and
            the last, to whose output it is added.
        channels, side: of the map that it hands on; `side` is None where that is plain numbers.
        parameters: how many it has.
    """

    name: str
    layers: tuple[str, ...]
    skips: tuple[tuple[int, int], ...]
    channels: int
    side: int | None
    parameters: int


@torch.no_grad()
def stages(network: nn.Module, image_size: int) -> list[Stage]:
    """Return a network's blocks in forward order, for a drawing.

    An activation between two blocks counts to the first of them.

    Args:
        network: one of the registry; it is left as it was.
        image_size: side of the pictures in pixels.
    """
    outputs: dict[str, Tensor] = {}
    copied = copy.deepcopy(network).float().eval()
    for name, block in copied.named_children():
        block.register_forward_hook(lambda *given, name=name: outputs.update({name: given[-1]}))
    copied(torch.zeros(1, 3, image_size, image_size, device=next(copied.parameters()).device))
    groups: list[list[str]] = []
    for name, block in copied.named_children():
        if not groups or any(True for _ in block.parameters()):
            groups.append([name])
        else:
            groups[-1].append(name)
    return [_stage(copied, group, outputs[group[-1]]) for group in groups]


def _stage(network: nn.Module, names: list[str], output: Tensor) -> Stage:
    modules = [module for name in names for module in network.get_submodule(name).modules()]
    leaves = [layer for name in names for layer in _drawn(network.get_submodule(name))]
    skips = []
    for module in modules:
        if isinstance(module, Residual):
            within = [leaves.index(leaf) for leaf in module.modules() if leaf in leaves]
            skips.append((min(within), max(within)))
    return Stage(
        name=names[0],
        layers=tuple(map(_layer_name, leaves)),
        skips=tuple(skips),
        channels=output.shape[1],
        side=output.shape[-1] if output.ndim == 4 else None,
        parameters=sum(p.numel() for leaf in leaves for p in leaf.parameters()),
    )


def _drawn(module: nn.Module) -> list[nn.Module]:
    """Return what is drawn of a module, in order: each layer, and each of timm's blocks."""
    if type(module).__name__ in BLOCK_NAMES or not any(module.children()):
        return [module]
    return [layer for child in module.children() for layer in _drawn(child)]


def _layer_name(layer: nn.Module) -> str:
    if block := BLOCK_NAMES.get(type(layer).__name__):
        return block
    if isinstance(layer, nn.Conv2d):
        return "conv {}×{}".format(*layer.kernel_size)
    if isinstance(layer, nn.MaxPool2d):
        return f"max-pool {layer.kernel_size}×{layer.kernel_size}"
    kinds = (name for kind, name in LAYER_NAMES.items() if isinstance(layer, kind))
    return next(kinds, type(layer).__name__)


def classes_of(network: Network) -> list[type]:
    """Return the classes that this project made for a network: its parts', then its own."""
    homes = {one.__module__ for one in type(network).mro() if issubclass(one, Network)}
    modules = reversed(list(network.modules()))
    kinds = dict.fromkeys(kind for module in modules for kind in reversed(type(module).mro()))
    return [kind for kind in kinds if kind.__module__ in homes and kind is not Network]
