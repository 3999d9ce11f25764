"""Trainings on few pictures: how these are drawn, and what is said of them."""

import pytest
import torch

from helpers.training import make_pictures
from utils.measure import few
from utils.measure.few import enlarged, few_pictures
from utils.training.recipes import RECIPES


def test_each_seed_draws_as_many_of_each_class_and_others():
    pictures = make_pictures(train_size=300)
    drawn = [few_pictures(pictures, 5, seed) for seed in (0, 0, 1)]
    for each in drawn:
        assert each.train.targets.bincount().tolist() == [5, 5, 5]
        assert each.test is pictures.test
    assert torch.equal(drawn[0].train.images, drawn[1].train.images)
    assert not torch.equal(drawn[0].train.images, drawn[2].train.images)
    assert len({pictures.fingerprint, *(each.fingerprint for each in drawn)}) == 3


def test_enlarged_pictures_say_so_and_show_the_same():
    pictures = make_pictures()
    large = enlarged(pictures, 64)
    assert large.train.images.shape == (44, 3, 64, 64) and large.train.images.dtype == torch.uint8
    assert large.title == "drawn, enlarged to 64 pixels" and large.image_size == 64
    assert large.fingerprint != pictures.fingerprint
    back = torch.nn.functional.avg_pool2d(large.train.images.float(), 4)
    assert (back - pictures.train.images.float()).abs().mean() < 15


@pytest.mark.slow
def test_both_are_trained_on_the_same_draws_and_compared(tmp_path, monkeypatch, capsys):
    tiny = RECIPES["finetune"].changed(model="davidnet", epochs=1)
    monkeypatch.setitem(RECIPES, "finetune", tiny)
    monkeypatch.setattr(few, "SCRATCH_EPOCHS", 1)
    monkeypatch.setattr(few, "default_image_size", lambda recipe: 24)
    pictures = make_pictures(train_size=100)
    few.print_few(pictures, 8, 2, output_dir=tmp_path, precision="32-true", devices="cpu")
    told = capsys.readouterr().out
    assert "finetune: davidnet, drawn, 8 training pictures a class" in told
    assert "original: davidnet, drawn, 8 training pictures a class" in told
    assert "gained: " in told and "n = 2 draws" in told
