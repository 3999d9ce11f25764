"""Networks of the timm library, which can begin from weights that were trained on ImageNet.

Those four, and not any of its thousand: after their last block comes a mean and a linear layer and
nothing else, as a map's points then add up to the score; their layers are such whose gradient an
export can write out; and they train on a processor.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from utils import InputError
from utils.models.network import Head, Network

#: Says how many batches a norm has seen, which nothing here asks; older files have none.
UNASKED = "num_batches_tracked"


class Backbone(Network):
    """A network of timm, taken apart into a stem, four layers and a head.

    Each layer's maps have half the side of those before it; the last have a 32nd of the picture's.

    Args:
        num_classes: length of the logits, at least 2.
        image_size: side of the input in pixels, a multiple of 32, at least 64.

    Attributes:
        library_name: what timm calls the network.
        library_names: of its weights, in timm: these here by those there.

    Raises:
        InputError: a size the network cannot take.
    """

    blocks = ("layer1", "layer2", "layer3", "layer4")
    size_step, smallest, usual, halvings = 32, 64, "128, 160 or 224", "five"
    library_name: ClassVar[str]

    def __init__(self, num_classes: int = 10, image_size: int = 128):
        super().__init__(num_classes, image_size=image_size)
        import timm  # takes a second, and only these networks need it

        whole: Any = timm.create_model(self.library_name, num_classes=num_classes)
        there = {name: id(t) for name, t in whole.state_dict(keep_vars=True).items()}
        self.stem, self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(*part) for part in self.parts(whole)
        )
        self.head = Head(whole.get_classifier(), nn.AdaptiveAvgPool2d(1))
        _plain_norms(self)
        here = {id(t): name for name, t in self.state_dict(keep_vars=True).items()}
        self.library_names = {name: here[tensor] for name, tensor in there.items()}

    def lag(self, block: str) -> int:
        """Half a cell: a strided convolution padded alike on all sides sees around its first pixel.

        So the cells of a stride s see around 0, s, 2s … (Araujo et al. 2019, "Computing Receptive
        Fields of Convolutional Neural Networks"), and not around their middles.
        """
        return 2 << self.blocks.index(block)

    @staticmethod
    def parts(whole: Any) -> Sequence[Sequence[nn.Module]]:
        """Return the modules of timm's network up to its head: the stem's, and each layer's."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N×3×S×S, float) to logits (N×num_classes)."""
        x = self.stem(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return self.head(x)

    def begin_from(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Take over trained weights, but for the head, whose classes are others.

        The head begins without an opinion, as a random one would first have to be unlearned, and
        what came before it with it.

        Args:
            weights: by their names in timm, or by those that they have here.
            source: where they are from, for errors.

        Raises:
            InputError: some are missing, unknown or of another shape; with the first of them.
        """
        given = {self.library_names.get(name, name): tensor for name, tensor in weights.items()}
        own = {name: t for name, t in self.state_dict().items() if not name.startswith("head.")}
        faults = [
            f"{name} is missing" for name in own if name not in given and not name.endswith(UNASKED)
        ]
        faults += [f"{name} is unknown" for name in given if name not in self.state_dict()]
        faults += [
            f"{name} is {_shape(given[name])}, not {_shape(tensor)}"
            for name, tensor in own.items()
            if name in given and given[name].shape != tensor.shape
        ]
        if faults:
            more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise InputError(
                f"{source} holds no weights for {self.library_name}: "
                f"{'; '.join(faults[:3])}{more}. Give the file that belongs to this model."
            )
        self.load_state_dict({name: given[name] for name in own if name in given}, strict=False)
        for weight in self.head.parameters():
            nn.init.zeros_(weight)


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite").

    An EfficientNet (Tan & Le 2019) without what slows it down outside of data centres.
    """

    library_name, depthwise = "efficientnet_lite0", True

    @staticmethod
    def parts(whole: Any) -> Sequence[Sequence[nn.Module]]:
        stages, last = whole.blocks, (whole.conv_head, whole.bn2)
        return (
            (whole.conv_stem, whole.bn1, stages[0]),
            (stages[1],),
            (stages[2],),
            (stages[3], stages[4]),
            (stages[5], stages[6], *last),
        )


class ResNet18(Backbone):
    """ResNet-18 (He et al. 2016, "Deep Residual Learning for Image Recognition")."""

    library_name = "resnet18"

    @staticmethod
    def parts(whole: Any) -> Sequence[Sequence[nn.Module]]:
        stem = whole.conv1, whole.bn1, whole.act1, whole.maxpool
        return stem, whole.layer1, whole.layer2, whole.layer3, whole.layer4


class ResNet34(ResNet18):
    """ResNet-34: twice the blocks of ResNet-18."""

    library_name = "resnet34"


class ResNet50(ResNet18):
    """ResNet-50: as many blocks as ResNet-34, each a bottleneck of three convolutions."""

    library_name = "resnet50"


BACKBONES: dict[str, type[Backbone]] = {
    kind.library_name: kind for kind in (EfficientNetLite0, ResNet18, ResNet34, ResNet50)
}


def _plain_norms(network: nn.Module) -> None:
    """Put a norm and an activation in the place of timm's modules that are both.

    Over the very same weights; so each layer of the network is one of torch's own.
    """
    from timm.layers import BatchNormAct2d

    for parent in list(network.modules()):
        for name, both in list(parent.named_children()):
            if isinstance(both, BatchNormAct2d):
                norm = nn.BatchNorm2d(both.num_features, both.eps, both.momentum)
                vars(norm).update(_parameters=both._parameters, _buffers=both._buffers)
                is_active = not isinstance(both.act, nn.Identity)
                setattr(parent, name, nn.Sequential(norm, both.act) if is_active else norm)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
