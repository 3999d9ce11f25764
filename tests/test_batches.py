"""Batches: what is held out, in which order pictures come, and what a network is given."""

from dataclasses import replace

import pytest
import torch
from pytorch_lightning import Trainer

from helpers.pictures import MEAN, STD, counts_of, made_set
from utils import InputError
from utils.data import batches
from utils.data.augment import Augmentation, augment, normalise, resize
from utils.data.batches import (
    ROOM,
    EpochShuffle,
    InOrder,
    PictureDataModule,
    evaluation_batch_size,
)
from utils.data.picture_set import Split
from utils.models.registry import create_model
from utils.training.classifier import ImageClassifier
from utils.training.recipes import choose_recipe

# Hold-out


def test_a_hold_out_is_stratified_and_apart_from_what_is_trained_on():
    picture_set = made_set([0, 1, 1, 2] * 15)
    module = PictureDataModule(picture_set, 8, Augmentation(), seed=0, val_fraction=0.2)
    assert counts_of(module.watched, 3) == [3, 6, 3]
    assert counts_of(module.train, 3) == [12, 24, 12]
    train, watched, whole = (
        {image.numpy().tobytes() for image in split.images}
        for split in (module.train, module.watched, picture_set.train)
    )
    assert not train & watched
    assert train | watched == whole
    again = PictureDataModule(picture_set, 8, Augmentation(), seed=99, val_fraction=0.2)
    assert torch.equal(again.watched.images, module.watched.images)


def test_no_hold_out_watches_the_test_split():
    picture_set = made_set([0, 1, 2] * 5)
    module = PictureDataModule(picture_set, 8, Augmentation())
    assert torch.equal(module.watched.images, picture_set.test.images)
    assert torch.equal(module.train.images, picture_set.train.images)


def test_a_hold_out_leaves_every_class_something_to_train_on():
    module = PictureDataModule(made_set([0] * 10 + [1] * 10 + [2]), 8, val_fraction=0.2)
    assert min(counts_of(module.train, 3)) >= 1


def test_a_hold_out_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"val_fraction 0\.9 holds nothing out"):
        PictureDataModule(made_set([0, 1, 2]), 8, val_fraction=0.9)


# Batches


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, batch_size=32):
        sampler = EpochShuffle(1_000, batch_size, seed)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler))

    orders = {(seed, epoch): order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert len({o.numpy().tobytes() for o in orders.values()}) == 9
    for (seed, epoch), first in orders.items():
        assert torch.equal(first.sort().values, torch.arange(1_000))
        torch.manual_seed(epoch)
        assert torch.equal(order(seed, epoch), first)
        assert torch.equal(order(seed, epoch, batch_size=7), first)


def test_what_an_epoch_leaves_out_is_a_random_half_of_the_easiest():
    losses = torch.randperm(1_000, generator=torch.Generator().manual_seed(0)).float()
    easy = set(losses.argsort()[:600].tolist())

    def order(epoch, seed=0):
        sampler = EpochShuffle(1_000, 32, seed, 700, lambda: losses)
        sampler.set_epoch(epoch)
        assert len(sampler) == 22
        return torch.cat(list(sampler)).tolist()

    left_out = [set(range(1_000)) - set(order(epoch)) for epoch in range(20)]
    assert all(len(set(order(epoch))) == len(order(epoch)) == 700 for epoch in (0, 1))
    assert all(len(out) == 300 and out <= easy for out in left_out)
    assert set.union(*left_out) == easy  # none is left out for good
    assert not set.intersection(*left_out)
    assert order(3) == order(3) != order(4)
    assert order(3) != order(3, seed=1)


def test_pictures_whose_loss_is_not_known_are_left_out_by_chance_and_then_shown_first():
    losses = torch.full((1_000,), torch.inf)
    sampler = EpochShuffle(1_000, 32, 0, 700, lambda: losses)
    first = torch.cat(list(sampler))
    assert abs(first.float().mean() - 499.5) < 40  # neither end is preferred
    losses[first] = 1.0
    sampler.set_epoch(1)
    unseen = set(range(1_000)) - set(first.tolist())
    assert unseen <= set(torch.cat(list(sampler)).tolist())


def test_where_less_than_half_is_shown_chance_alone_decides():
    losses = torch.arange(1_000.0)
    sampler = EpochShuffle(1_000, 32, 0, 250, lambda: losses)
    shown = torch.zeros(1_000)
    for epoch in range(200):
        sampler.set_epoch(epoch)
        order = sampler.order()
        assert len(set(order.tolist())) == len(order) == 250
        shown[order] += 1
    easy, hard = shown[:500].mean(), shown[500:].mean()
    assert abs(easy - hard) < 1.5  # of 50; the standard deviation of the difference is 0.4
    assert shown.min() > 20 and shown.max() < 80


def test_losses_are_kept_with_a_checkpoint_only_where_the_next_epoch_depends_on_them():
    everything = PictureDataModule(made_set([0, 1, 2] * 4), 4, Augmentation(), skipped=0.0)
    everything.note_losses(torch.tensor([1]), torch.tensor([0.5]))
    assert everything.state_dict() == {}
    part = PictureDataModule(made_set([0, 1, 2] * 4), 4, Augmentation(), skipped=0.25)
    assert part.per_epoch == 9
    part.note_losses(torch.tensor([2, 5]), torch.tensor([0.5, 2.0]))
    again = PictureDataModule(made_set([0, 1, 2] * 4), 4, Augmentation(), skipped=0.25)
    again.load_state_dict(part.state_dict())
    assert again.losses[[2, 5]].tolist() == [0.5, 2.0]
    assert torch.isinf(again.losses).sum() == 10
    orders = [module.train_dataloader().sampler.order() for module in (part, again)]
    assert torch.equal(*orders)


@pytest.mark.parametrize("kind", ["shuffled", "in order"])
def test_the_last_smaller_batch_is_kept(kind):
    sampler = EpochShuffle(20, 8, seed=0) if kind == "shuffled" else InOrder(20, 8)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert len(sampler) == 3
    assert torch.cat(batches).sort().values.tolist() == list(range(20))
    assert len(InOrder(16, 8)) == len(list(InOrder(16, 8))) == 2


def test_a_batch_holds_the_pictures_targets_and_positions_of_its_indices():
    picture_set = made_set([0, 1, 2] * 7)
    module = PictureDataModule(picture_set, 8, Augmentation(), seed=3)
    sizes = []
    for images, targets, indices in module.train_dataloader():
        assert torch.equal(images, picture_set.train.images[indices])
        assert torch.equal(targets, picture_set.train.targets[indices])
        sizes.append(len(indices))
    assert sizes == [8, 8, 5]


class Recorder:
    """What a network was really given, by stage, with the targets of each step."""

    def __init__(self, module, epochs, folder):
        recipe = choose_recipe("original", "x", epochs=epochs, batch_size=module.batch_size)
        network = create_model("davidnet", 3, image_size=16, seed=0, width=2)
        self.inputs = {"train": [], "other": []}
        network.register_forward_pre_hook(self._keep)
        self.classifier = ImageClassifier(network, 3, recipe)
        self.trainer = Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=2,
            default_root_dir=folder,
        )  # fmt: skip
        self.trainer.fit(self.classifier, datamodule=module)

    def _keep(self, network, inputs):
        self.inputs["train" if network.training else "other"].append(inputs[0].clone())


def test_training_sees_each_epoch_in_its_own_order_and_augmentation(tmp_path):
    picture_set, augmentation = made_set([0, 1, 2] * 7), Augmentation(3, 0.5, 6)
    module = PictureDataModule(picture_set, 8, augmentation, seed=5)
    recorder = Recorder(module, epochs=2, folder=tmp_path)
    batches = recorder.inputs["train"]
    assert [len(batch) for batch in batches] == [8, 8, 5] * 2
    orders = []
    for epoch in range(2):
        seen = torch.cat(batches[3 * epoch : 3 * epoch + 3])
        everything = augment(
            picture_set.train.images, torch.arange(21), augmentation, MEAN, STD, 5, epoch
        )
        equal = (seen[:, None] == everything[None]).flatten(2).all(dim=2)
        assert (equal.sum(dim=0) == 1).all()  # each picture exactly once
        assert (equal.sum(dim=1) == 1).all()
        orders.append(equal.float().argmax(dim=1))
        sampler = EpochShuffle(21, 8, seed=5)
        sampler.set_epoch(epoch)
        assert torch.equal(orders[-1], sampler.order())
    assert not torch.equal(*orders)


def test_validation_and_test_see_the_pictures_normalised_and_not_augmented(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "EVAL_BATCH_SIZE", 4)
    picture_set = made_set([0, 1, 2] * 3, [0, 1, 2] * 2)
    module = PictureDataModule(picture_set, 8, Augmentation(4, 1.0, 8), seed=5)
    recorder = Recorder(module, epochs=2, folder=tmp_path)
    seen = recorder.inputs["other"]
    expected = normalise(picture_set.test.images, MEAN, STD)
    assert [len(batch) for batch in seen] == [4, 2] * 3  # the sanity check, then two epochs
    for start in (0, 2, 4):
        assert torch.equal(torch.cat(seen[start : start + 2]), expected)
    seen.clear()
    recorder.trainer.test(recorder.classifier, datamodule=module, verbose=False)
    assert torch.equal(torch.cat(seen), expected)


def test_pictures_are_kept_once_on_a_gpu_that_has_room_and_else_stay_where_they_are(
    monkeypatch, capsys
):
    moved = []

    def to(split, device):
        moved.append(device)
        return replace(split)

    module = PictureDataModule(made_set([0, 1, 2] * 3), 8)
    assert module.near(module.train) is module.train  # on a CPU
    gpu = torch.device("cuda")
    monkeypatch.setattr(PictureDataModule, "device", gpu)
    monkeypatch.setattr(Split, "to", to)
    monkeypatch.setattr(batches, "_free", lambda device: ROOM * module.train.images.nbytes - 1)
    assert module.near(module.train) is module.near(module.train) is module.train
    assert capsys.readouterr().out.count("9 pictures (0.00 GB) go to the GPU batch by batch") == 1
    module = PictureDataModule(module.picture_set, 8)
    monkeypatch.setattr(batches, "_free", lambda device: ROOM * module.train.images.nbytes)
    assert module.near(module.train) is module.near(module.train) is not module.train
    assert moved == [gpu]


def test_batches_of_evaluation_are_larger_on_a_gpu_and_hold_fewer_of_larger_pictures():
    sizes = [evaluation_batch_size("cuda", side) for side in (16, 32, 64, 256)]
    assert sizes == [8192, 2048, 512, 256]
    assert evaluation_batch_size("cpu", 16) == evaluation_batch_size("mps", 32) == 256
    assert [evaluation_batch_size("cpu", side) for side in (64, 128, 384)] == [256, 64, 7]


def test_pictures_grow_from_epoch_to_epoch_and_are_tested_at_full_size(tmp_path):
    picture_set, augmentation = made_set([0, 1, 2] * 3, [0, 1, 2] * 2), Augmentation(3, 0.5, 0)
    module = PictureDataModule(picture_set, 16, augmentation, seed=5, sides=[8, 16, 16])
    recorder = Recorder(module, epochs=3, folder=tmp_path)
    assert [images.shape[-1] for images in recorder.inputs["train"]] == [8, 16, 16]
    assert [images.shape[-1] for images in recorder.inputs["other"]] == [8, 8, 16, 16]
    order = EpochShuffle(9, 16, seed=5).order()
    full = augment(picture_set.train.images, torch.arange(9), augmentation, MEAN, STD, 5, 0)
    torch.testing.assert_close(recorder.inputs["train"][0], resize(full, 8)[order])
    recorder.inputs["other"].clear()
    recorder.trainer.test(recorder.classifier, datamodule=module, verbose=False)
    assert [images.shape[-1] for images in recorder.inputs["other"]] == [16]
