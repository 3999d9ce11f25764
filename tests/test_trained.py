"""The weights of a trained run are those that training left, or are refused."""

import pytest
import torch
from safetensors.torch import save_file

from helpers.training import SmallDavidNet, copy_of, direct_logits
from utils import InputError
from utils.data.augment import normalise
from utils.runs import Run
from utils.training.trained import load_network

pytestmark = pytest.mark.usefixtures("small_network")


def test_loaded_network_is_the_trained_one(trained):
    network = load_network(trained.run)
    assert not any(module.training for module in network.modules())
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert network.layer2.conv.weight.is_contiguous(memory_format=torch.channels_last)
    pictures = trained.picture_set
    with torch.no_grad():
        logits = network(normalise(pictures.test.images, pictures.mean, pictures.std))
    direct = direct_logits(trained.run, pictures.test, pictures)
    torch.testing.assert_close(logits, direct, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("damage", ["missing", "cut short", "no safetensors", "other network"])
def test_weights_that_are_not_this_runs_are_refused(trained, tmp_path, damage):
    run = copy_of(trained, tmp_path).run
    path = run.path("model.safetensors")
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "no safetensors":
        path.write_bytes(b"weights")
    else:
        save_file(SmallDavidNet(3, 16, width=5).state_dict(), path)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_network(run)


def test_network_of_a_run_that_never_was_is_refused(tmp_path):
    with pytest.raises(InputError):
        load_network(Run("never", tmp_path))
