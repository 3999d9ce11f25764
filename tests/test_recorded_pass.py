"""Passes recorded for a GPU: when they are, and that they are the passes that they stand for."""

import gc
import warnings
from copy import deepcopy

import pytest
import torch
from torch import nn

from utils.devices import autocast
from utils.models.davidnet import DavidNet
from utils.training import recorded_pass
from utils.training.recorded_pass import RecordedPass, uncollected

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class OnGpu(torch.Tensor):
    """A tensor that passes for one on a GPU."""

    is_cuda = True


def pictures(count: int, side: int = 16) -> torch.Tensor:
    return torch.zeros(count, 3, side, side).as_subclass(OnGpu)


@pytest.fixture(autouse=True)
def in_bfloat16(monkeypatch):
    """Passes happen in 16 bits on a GPU."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: device == ("cuda",))


@pytest.fixture
def passed(monkeypatch):
    """How batches passed, one after another: whether by a recording, and how many pictures."""
    told = []

    def note(how: str):
        return lambda images: told.append((how, len(images)))

    monkeypatch.setattr(recorded_pass, "_record", lambda network, images: note("recorded"))
    passes = RecordedPass(note("plain"))
    return lambda *batches: [passes(batch) for batch in batches] and told


def test_a_pass_is_recorded_as_soon_as_a_shape_comes_twice_in_a_row(passed):
    told = passed(*[pictures(8)] * 3, pictures(5), pictures(8), pictures(5))
    how = ["plain", "recorded", "recorded", "plain", "recorded", "plain"]
    assert told == list(zip(how, [8, 8, 8, 5, 8, 5], strict=True))


def test_larger_pictures_are_recorded_anew(passed):
    told = passed(*[pictures(8)] * 2, *[pictures(8, 24)] * 2, pictures(8))
    assert [how for how, _ in told] == ["plain", "recorded", "plain", "recorded", "plain"]


def test_without_a_gpu_nothing_is_recorded(monkeypatch):
    monkeypatch.setattr(recorded_pass, "_record", lambda *_: pytest.fail("it was recorded"))
    network = nn.Flatten()
    passes, images = RecordedPass(network), torch.rand(4, 3, 8, 8)
    for _ in range(3):
        assert torch.equal(passes(images), network(images))


def test_in_float32_nothing_is_recorded(passed, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    assert [how for how, _ in passed(*[pictures(8)] * 3)] == ["plain"] * 3


def test_nothing_is_collected_while_work_is_recorded():
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="while recording"), uncollected():
        raise ValueError("while recording")
    assert gc.isenabled()


@needs_gpu
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_a_recorded_pass_gives_what_a_plain_one_does(precision, monkeypatch):
    monkeypatch.undo()
    torch.manual_seed(0)
    network = DavidNet(width=8).cuda()
    other = deepcopy(network)
    passes = RecordedPass(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as of a stream that has to wait for another
        for number in range(4):
            images = torch.rand(16, 3, 32, 32, device="cuda")
            given = [_learn(network, network, images, precision)]
            given.append(_learn(other, passes, images, precision))
            torch.testing.assert_close(*given, rtol=1e-2, atol=1e-2)
            assert (passes.recorded is None) == (number == 0)
    for mine, its in zip(network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(its, mine, rtol=1e-2, atol=1e-2)
    assert int(other.prep.norm.num_batches_tracked) == 4


def _learn(network, passes, images, precision) -> list[torch.Tensor]:
    """Make a step of plain descent, and return logits and gradients."""
    network.zero_grad()
    with autocast("cuda", precision):
        logits = passes(images)
    logits.float().square().mean().backward()
    gradients = [weight.grad.clone() for weight in network.parameters()]
    for weight, gradient in zip(network.parameters(), gradients, strict=True):
        weight.data -= 0.01 * gradient
    return [logits.float(), *gradients]
