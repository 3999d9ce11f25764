"""A network layer by layer: shapes and parameters."""

import pandas as pd
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.model_summary import ModelSummary
from torch import nn


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
