"""A network that begins from trained weights: what waits, what learns how fast, and which file."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.nn import functional

from helpers.training import GoneError, interrupt, make_pictures, make_plan, same_weights, weights
from utils import InputError
from utils.data.picture_set import Split
from utils.models.backbones import BACKBONES, ResNet18
from utils.models.registry import MODELS, create_model
from utils.training.classifier import build_optimizer, one_cycle
from utils.training.fit import fit
from utils.training.recipes import RECIPES

FINETUNE = RECIPES["finetune"].changed(model="resnet18", batch_size=8)


class TinyResNet(ResNet18):
    """As ResNet-18, and fast enough to be trained many times."""

    library_name = "test_resnet"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    for networks in (BACKBONES, MODELS):
        monkeypatch.setitem(networks, "resnet18", TinyResNet)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of weights by timm's names."""
    folder, paths = tmp_path_factory.mktemp("weights"), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = TinyResNet(num_classes=7, image_size=64)
        state = network.state_dict()
        named = {there: state[here] for there, here in network.library_names.items()}
        paths.append(str(folder / f"{seed}.safetensors"))
        safetensors.torch.save_file(named, paths[-1])
    return paths


def plan_of(folder, weights, recipe=FINETUNE, epochs=3, **changes):
    pictures = make_pictures(image_size=64)
    splits = {
        name: Split(functional.interpolate(split.images, 64), split.targets)
        for name, split in (("train", pictures.train), ("test", pictures.test))
    }
    given = {"recipe": recipe, "weights": weights, "epochs": epochs, **changes}
    return make_plan(folder, replace(pictures, **splits), batch_size=None, max_lr=None, **given)


def test_each_part_learns_more_slowly_than_the_one_after_it():
    network = create_model("resnet18", num_classes=3, image_size=64)
    optimizer = build_optimizer(network, FINETUNE)
    parts = [network.head, *(network.get_submodule(b) for b in reversed(network.blocks))]
    for group, part in zip(optimizer.param_groups, [*parts, network.stem], strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in part.parameters()}
    schedule, rates = one_cycle(optimizer, FINETUNE, 10), []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert max(rate[0] for rate in rates) == pytest.approx(FINETUNE.max_lr)
    for rate in rates:
        expected = [rate[0] * FINETUNE.depth_decay**place for place in range(6)]
        assert rate == pytest.approx(expected)


def test_at_first_the_head_learns_alone_and_then_all(tmp_path, files):
    begun = plan_of(tmp_path, files[0]).network().state_dict()
    alone = fit(plan_of(tmp_path / "a", files[0], FINETUNE.changed(head_share=1.0), epochs=1))
    for name, tensor in weights(alone).items():
        changed = not torch.equal(tensor, begun[name])
        assert changed == name.startswith("head."), name  # norms do not look at pictures either
    for name, fixed in (("b", True), ("c", False)):
        recipe = FINETUNE.changed(head_share=0.5, fixed_statistics=fixed)
        together = weights(fit(plan_of(tmp_path / name, files[0], recipe, epochs=2)))
        same = {name for name, tensor in together.items() if torch.equal(tensor, begun[name])}
        kept = "running_mean", "running_var", "num_batches_tracked"
        assert same == {name for name in begun if fixed and name.endswith(kept)}


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 9])
def test_stopped_at_any_time_it_resumes_bit_for_bit(tmp_path, files, step):
    """While the head learns alone, and after."""
    recipe = FINETUNE.changed(head_share=0.34)
    whole = fit(plan_of(tmp_path / "whole", files[0], recipe))
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "on_train_batch_end", GoneError(), lambda t: t.global_step == step)
        with pytest.raises(GoneError):
            fit(plan_of(tmp_path / "stopped", files[0], recipe))
    resumed = fit(plan_of(tmp_path / "stopped", files[0], recipe))
    assert same_weights(resumed, whole)
    assert resumed.read_json("metrics.json") == whole.read_json("metrics.json")


def test_the_files_content_is_the_runs_identity_and_a_trained_run_needs_it_no_longer(
    tmp_path, files
):
    path = tmp_path / "weights.safetensors"
    content, other = (Path(file).read_bytes() for file in files)
    path.write_bytes(content)
    plan = plan_of(tmp_path, str(path), epochs=1)
    assert any(str(path) in note and "head" in note for note in plan.notes)
    run = fit(plan)
    assert len(run.settings["weights_sha256"]) == 64 and run.settings["weights"] == str(path)
    fit(plan_of(tmp_path, files[0], epochs=1))  # the same content in another place
    with pytest.raises(InputError, match="weights_sha256 was"):
        fit(plan_of(tmp_path, files[1], epochs=1))
    with pytest.raises(InputError, match="weights_sha256 was"):
        fit(plan_of(tmp_path, "random", epochs=1))
    path.write_bytes(other)
    with pytest.raises(InputError, match="weights_sha256 was"):
        fit(plan_of(tmp_path, str(path), epochs=1))
    path.unlink()
    fit(plan_of(tmp_path, str(path), epochs=1))
    with pytest.raises(InputError, match="there is no file"):
        fit(plan_of(tmp_path, str(path), epochs=1), overwrite=True)


def test_pictures_are_normalised_as_the_weights_expect(tmp_path, files):
    run = fit(plan_of(tmp_path, files[0], epochs=1))
    assert run.record["data"]["mean"] == run.record["data"]["std"] == [0.5, 0.5, 0.5]
    assert run.record["settings"]["image_size"] == 64
