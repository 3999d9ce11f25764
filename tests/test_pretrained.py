"""Weights to begin from: which file, that it is safe, and what is said of one that is not."""

import pickle

import huggingface_hub
import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from utils import InputError
from utils.models.backbones import ResNet18
from utils.models.pretrained import begin, fetched, start_of, weights_file


@pytest.fixture(scope="module")
def network():
    return ResNet18(num_classes=3, image_size=64)


@pytest.fixture(scope="module")
def weights():
    other = ResNet18(num_classes=7, image_size=64)
    state = other.state_dict()
    return {there: state[here].contiguous() for there, here in other.library_names.items()}


def begins(network, weights) -> bool:
    return torch.equal(network.stem[0].weight, weights["conv1.weight"])


def test_safetensors_and_what_torch_saves_are_read(network, weights, tmp_path):
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "b.pth")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "c.pt")
    for name in ("a.safetensors", "b.pth", "c.pt"):
        torch.nn.init.zeros_(network.stem[0].weight)
        begin(network, str(tmp_path / name))
        assert begins(network, weights), name


class RanError(Exception):
    """Code of a file was run."""


class Bomb:
    def __reduce__(self):
        return exec, ("raise RanError",)


def test_a_file_that_would_run_code_runs_none(network, tmp_path):
    torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name in ("bomb.pth", "plain.pt"):
        with pytest.raises(InputError, match=rf"{name} is damaged, or holds more than weights"):
            begin(network, str(tmp_path / name))


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_damaged_file_is_named(network, weights, tmp_path, ending):
    path = tmp_path / f"cut.{ending}"
    if ending == "pth":
        torch.save(weights, path)
    else:
        safetensors.torch.save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=rf"cut\.{ending} is damaged"):
        begin(network, str(path))


def test_what_is_no_file_of_weights_is_refused(network, tmp_path):
    (tmp_path / "weights.txt").write_text("0.5")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "number.pt")
    for name, told in {
        "none.pth": "there is no file",
        "weights.txt": "by its name: .safetensors, .pth, .pt, .bin",
        "list.pt": "holds no weights",
        "number.pt": "epoch is no tensor",
    }.items():
        with pytest.raises(InputError, match=told):
            begin(network, str(tmp_path / name))


def test_only_a_backbone_begins_from_weights():
    assert start_of("davidnet", None) == start_of("davidnet", "random") == "random"
    assert start_of("resnet18", None).startswith("timm/resnet18")
    assert start_of("resnet18", "random") == "random"
    with pytest.raises(InputError, match=r"davidnet begins from random.*resnet18"):
        start_of("davidnet", "weights.pth")


def test_random_weights_stay_as_they_were_drawn(network):
    before = network.head.linear.weight.clone()
    begin(network, "random")
    assert torch.equal(network.head.linear.weight, before)


def test_the_librarys_own_are_fetched_once_and_never_as_a_pickle(monkeypatch, tmp_path, capsys):
    asked = []

    def hub(repository, file, local_files_only=False):
        asked.append((repository, file, local_files_only))
        if local_files_only and len(asked) == 1:
            raise LocalEntryNotFoundError("not there")
        path = tmp_path / file
        path.touch()
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    path = weights_file("resnet18", None)
    assert weights_file("resnet18", None) == path == tmp_path / "model.safetensors"
    assert [local for *_, local in asked] == [True, False, True]
    assert all(a[:2] == ("timm/resnet18.a1_in1k", "model.safetensors") for a in asked)
    assert capsys.readouterr().out.count("Fetching the weights of resnet18") == 1


def test_without_a_network_it_says_what_to_do(monkeypatch):
    def hub(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    with pytest.raises(InputError) as refused:
        fetched("resnet18")
    told = str(refused.value)
    assert "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors" in told
    assert 'weights="path/to/model.safetensors"' in told and 'weights="random"' in told
