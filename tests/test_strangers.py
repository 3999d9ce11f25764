"""Files from strangers: a pickle bomb in each place where one could be put never goes off."""

import io
import os
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from utils import InputError
from utils.archives import unpack
from utils.callbacks import RunCheckpointIO
from utils.data import load_pictures
from utils.errors import load_predictions
from utils.pictures import EXTENSIONS, read_picture
from utils.runs import Run
from utils.training import load_network


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    """A bomb that has not gone off, checked again at the end."""
    path = tmp_path / "it went off"
    pickle.loads(pickle.dumps(Bomb(path)))
    assert path.is_dir()  # a live one
    path.rmdir()
    yield Bomb(path)
    assert not path.exists()


@pytest.fixture
def run(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "out" / "tiny")
    return Run("tiny", tmp_path / "out")


def as_pickle(bomb):
    return pickle.dumps({"state_dict": bomb})


def as_torch_file(bomb):
    content = io.BytesIO()
    torch.save({"state_dict": bomb, "epoch": 0}, content)
    return content.getvalue()


def as_old_torch_file(bomb):
    content = io.BytesIO()
    torch.save({"state_dict": bomb}, content, _use_new_zipfile_serialization=False)
    return content.getvalue()


def as_arrays(bomb):
    content = io.BytesIO()
    objects = np.array([bomb], dtype=object)
    np.savez(content, index=objects, target=objects, predicted=objects, logits=objects)
    return content.getvalue()


KINDS = [as_pickle, as_torch_file, as_old_torch_file, as_arrays]


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_checkpoint(kind, bomb, run):
    path = run.path("checkpoints", "last.ckpt")
    path.write_bytes(kind(bomb))
    with pytest.raises(InputError, match="damaged or no checkpoint"):
        RunCheckpointIO({}).load_checkpoint(path)


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_weights(kind, bomb, run):
    run.path("model.safetensors").write_bytes(kind(bomb))
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        load_network(run)


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_predictions(kind, bomb, run):
    run.path("predictions.npz").write_bytes(kind(bomb))
    with pytest.raises(InputError, match=r"predictions\.npz is damaged"):
        load_predictions(run)


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_decoded_copy(kind, bomb, tmp_path, capsys):
    for green, name in enumerate(("ant", "bee")):
        for number in range(2):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (40 * number, green, 9)).save(path)
    first = load_pictures(str(tmp_path / "pets"), tmp_path / "data", 16)
    (cache,) = (tmp_path / "data" / "cache").iterdir()
    cache.write_bytes(kind(bomb))
    assert load_pictures(str(tmp_path / "pets"), tmp_path / "data", 16).fingerprint == (
        first.fingerprint
    )
    assert "is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run.json", "metrics.json", "lr_finder.json"])
def test_in_a_json_file(kind, name, bomb, run):
    run.path(name).write_bytes(kind(bomb))
    with pytest.raises(InputError, match="is damaged"):
        run.read_json(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", EXTENSIONS)
def test_in_a_picture(kind, ending, bomb, tmp_path):
    (tmp_path / f"a{ending}").write_bytes(kind(bomb))
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_picture(tmp_path / f"a{ending}", 32)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_in_the_folder_that_cifar10_was_unpacked_into(name, bomb, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(pickle.dumps(bomb))
    # all but this one file are what they are expected to be
    if name != "batches.meta":
        from hashlib import md5

        meta = pickle.dumps({"label_names": ["a", "b"]})
        (folder / "batches.meta").write_bytes(meta)
        monkeypatch.setitem(CIFAR10.meta, "md5", md5(meta).hexdigest())
        if name == "test_batch":
            batch = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]})
            (folder / "data_batch_1").write_bytes(batch)
            listed = [["data_batch_1", md5(batch).hexdigest()]]
            monkeypatch.setattr(CIFAR10, "train_list", listed)
    with pytest.raises(InputError, match=f"file {name} is not the official one"):
        load_pictures("cifar10", tmp_path / "data")


def test_in_an_archive_that_calls_itself_cifar10(bomb, tmp_path):
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in ("batches.meta", "data_batch_1", "test_batch"):
            content = pickle.dumps(bomb)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match="not the official archive"):
        load_pictures("cifar10", tmp_path / "data")


def test_in_an_archive_of_pictures(bomb, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("ant/1.png", "bee/1.png", "ant/model.pkl", "conftest.py", "last.ckpt"):
            archive.writestr(name, pickle.dumps(bomb))
    folder = unpack(tmp_path / "pets.zip", tmp_path / "place", EXTENSIONS)
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*"))
    assert found == ["ant/1.png", "bee/1.png"]
    with pytest.raises(InputError, match="2 of 2 files cannot be read"):
        load_pictures(str(tmp_path / "pets.zip"), tmp_path / "data", 16)


def test_settings_that_tensorboard_keeps_beside_the_run_are_not_read(bomb, run, tmp_path, capsys):
    """Lightning writes hparams.yaml; a YAML file can call functions, too."""
    from utils.training import fit, plan_training

    order = f"!!python/object/apply:os.mkdir ['{bomb.path}']\n"
    run.path("tensorboard", "hparams.yaml").write_text(order)
    run.path("metrics.json").unlink()  # so that the run is taken up again
    settings = run.settings
    picture_set = load_pictures("shapes", settings["data_dir"], 16, 160, 80)
    fit(plan_training(picture_set, run_name=run.name, output_dir=run.folder.parent, epochs=1))
    assert "resumed" in capsys.readouterr().out
    assert run.status == "complete"
