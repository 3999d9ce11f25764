"""A network's pass forward and back on a GPU, as CUDA graphs."""

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class RecordedPass:
    """Passes batches through a network that learns; on a GPU by a recording of the same work.

    A pass is some hundreds of short pieces of work, for which Python takes longer to ask one by one
    than a GPU takes to do them; recorded as two CUDA graphs, forward and back, they are asked for
    at once (Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs"). It is recorded when two
    batches of one shape follow each other, so the last of an epoch, if it is smaller, passes as
    ever, and it is recorded anew where the pictures have grown. On other devices, and in float32,
    batches pass as ever, too.

    Args:
        network: maps N×3×S×S pictures to N×num_classes logits. Which of its weights are learned,
            and which of its parts are in evaluation mode, must stay as they are.
    """

    def __init__(self, network: nn.Module):
        self.network = network
        self.last: torch.Size | None = None
        self.shape: torch.Size | None = None
        self.recorded: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits of normalised pictures; gradients reach the network's weights."""
        if not images.is_cuda or not torch.is_autocast_enabled("cuda"):
            return self.network(images)
        again, self.last = images.shape == self.last, images.shape
        if again and images.shape != self.shape:
            self.recorded = None  # its memory is free for the next
            self.recorded, self.shape = _record(self.network, images), images.shape
        if self.recorded is None or images.shape != self.shape:
            return self.network(images)
        return self.recorded(images)


class _Whole(nn.Module):
    """The network within another module, whose `forward` alone is exchanged by a recording."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.logits: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.let_go()
        self.logits = self.network(images)
        return self.logits

    def let_go(self) -> None:
        """Forget where the last logits came from.

        Whoever keeps that sums gradients on the stream where they were made first: another than
        that of the training, which would wait for it.
        """
        if self.logits is not None:
            self.logits.detach_()


def _record(network: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what passes pictures of this shape through the network by replaying graphs.

    Recording passes some batches through it: averages that its norms keep are put back.
    """
    kept, whole = [buffer.clone() for buffer in network.buffers()], _Whole(network)
    # a weight that autocast had turned before would be turned no more in the recording
    autocast = torch.autocast("cuda", torch.get_autocast_dtype("cuda"), cache_enabled=False)
    with autocast, uncollected():
        recorded: Any = torch.cuda.make_graphed_callables(whole, (images.clone(),))
    whole.let_go()
    for buffer, value in zip(network.buffers(), kept, strict=True):
        buffer.copy_(value)
    return recorded


@contextmanager
def uncollected() -> Generator[None]:
    """Keep Python from looking for what nothing refers to any more while CUDA work is recorded.

    It could be an earlier recording, and to free one spoils the one that is being made.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
