"""Classifying picture files with a trained run."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.training import SmallDavidNet
from utils import InputError
from utils.cli import main
from utils.data.augment import normalise
from utils.data.sources import load_pictures
from utils.explain.gradcam import class_activation_maps, first_choice
from utils.explain.predict import ENLARGED, find_pictures, predict_pictures, write_maps
from utils.explain.trained_model import TrainedModel
from utils.models.registry import MODELS
from utils.plots.gradcam import overlay
from utils.training.fit import fit
from utils.training.plan import plan_training
from utils.training.predictions import predict_test
from utils.training.trained import load_network


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a few drawn shapes, its pictures, and its test pictures as PNG files."""
    folder = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "davidnet", SmallDavidNet)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        pictures = load_pictures(
            dataset="shapes", data_dir=folder / "data", image_size=16, limit_train=60, limit_test=25
        )
        plan = plan_training(
            pictures, run_name="run", output_dir=folder, epochs=2, max_lr=0.01,
            precision="32-true", devices="cpu",
        )  # fmt: skip
        run = fit(plan)
        files = []
        for position, image in enumerate(pictures.test.images):
            files.append(folder / f"{position:03}.png")
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(files[-1])
        yield run, pictures, files


def test_files_are_predicted_as_the_same_pictures_of_the_test_split(trained):
    run, pictures, files = trained
    classes, probabilities, failures = predict_pictures(TrainedModel(run), files)
    expected = predict_test(run, pictures, devices="cpu")
    assert classes == pictures.classes
    assert failures == {}
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)
    assert np.ptp(probabilities, axis=0).max() > 0.01  # another order would show


def test_batches_and_order_do_not_matter(trained):
    run, _, files = trained
    _, together, _ = predict_pictures(TrainedModel(run), files)
    _, parts, _ = predict_pictures(TrainedModel(run), files[::-1], batch_size=7)
    np.testing.assert_allclose(parts[::-1], together, atol=1e-5)


def test_any_kind_of_picture_file_is_read_as_training_pictures_are(trained, tmp_path):
    run, pictures, files = trained
    square = pictures.test.images[0].permute(1, 2, 0).numpy()
    opaque = np.dstack([square, np.full(square.shape[:2], 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "a.webp", lossless=True)
    Image.fromarray(square).save(tmp_path / "b.bmp")
    _, found, failures = predict_pictures(TrainedModel(run), find_pictures([tmp_path])[0])
    _, (expected, other), _ = predict_pictures(TrainedModel(run), files[:2])
    assert not failures
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    np.testing.assert_allclose(found[1], expected, atol=1e-5)
    assert np.abs(other - expected).max() > 1e-3  # another picture would show


def test_maps_are_written_beside_their_pictures_and_nothing_else_is_touched(trained, tmp_path):
    run, pictures, files = trained
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.txt").write_text("mine")
    (tmp_path / "text.png").write_text("no picture")
    given = [files[4], tmp_path / "text.png", files[2]]
    told = write_maps(TrainedModel(run), given, tmp_path / "maps")
    network = load_network(run)
    method, block = first_choice(network, drawn=True)
    assert told == f"2 maps by {method} at {block}: {tmp_path / 'maps'}"
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["0001_004.png", "0002_002.png", "mine.txt"]
    image = pictures.test.images[[2]]
    found = class_activation_maps(
        network, normalise(image, pictures.mean, pictures.std), None, method, block
    )
    written = np.asarray(Image.open(tmp_path / "maps" / names[1]))
    assert written.shape == (16 * ENLARGED, 32 * ENLARGED, 3)
    small = written[ENLARGED // 2 :: ENLARGED, ENLARGED // 2 :: ENLARGED]
    assert np.array_equal(small[:, :16], image[0].permute(1, 2, 0).numpy())
    assert np.array_equal(small[:, 16:], overlay(image[0].numpy(), found[0]))


def test_unreadable_files_are_told_by_position_and_the_others_classified(trained, tmp_path):
    run, _, files = trained
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(files[0].read_bytes()[:60])
    given = [files[3], tmp_path / "text.png", files[1], tmp_path / "cut.png", files[2]]
    _, probabilities, failures = predict_pictures(TrainedModel(run), given)
    assert list(failures) == [1, 3]
    assert "text.png" in failures[1] and "cut.png" in failures[3]
    _, expected, _ = predict_pictures(TrainedModel(run), [files[3], files[1], files[2]])
    np.testing.assert_array_equal(probabilities, expected)


def test_nothing_readable_gives_no_rows(trained, tmp_path):
    run, pictures, _ = trained
    (tmp_path / "text.png").write_text("no picture")
    _, probabilities, failures = predict_pictures(TrainedModel(run), [tmp_path / "text.png"])
    assert probabilities.shape == (0, len(pictures.classes))
    assert list(failures) == [0]


def test_folders_stand_for_the_pictures_in_them_sorted(tmp_path):
    names = ["b/2.JPG", "b/1.png", "b/deeper/3.webp", "b/notes.txt", "a.dat"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found, others = find_pictures([str(tmp_path / "a.dat"), tmp_path / "b"])
    relative = [str(path.relative_to(tmp_path)) for path in found]
    assert relative == ["a.dat", "b/1.png", "b/2.JPG", "b/deeper/3.webp"]
    assert others == [tmp_path / "b" / "notes.txt"]


def test_missing_files_and_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        find_pictures([tmp_path / "gone.png"])
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"holds no pictures .*\.jpg"):
        find_pictures([tmp_path])


def test_what_a_folder_holds_beside_pictures_is_named_and_shows_in_the_exit_status(
    trained, tmp_path, capsys
):
    run, _, files = trained
    (tmp_path / "new").mkdir()
    Image.open(files[0]).save(tmp_path / "new" / "a.gif")
    for number in range(7):
        (tmp_path / "new" / f"{number}.CR2").write_bytes(b"x")
    arguments = ["predict", "--run", run.name, "--output-dir", str(run.folder.parent)]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, str(tmp_path / "new")])
    assert len(capsys.readouterr().out.splitlines()) == 1
    told = stopped.value.code
    assert "7 files of kinds that are not read (7 .cr2)" in told
    assert str(tmp_path / "new" / "0.CR2") in told
    main([*arguments, str(tmp_path / "new" / "a.gif")])


def test_deep_pictures_are_scaled_as_those_of_training_were(trained, tmp_path):
    run, _, _ = trained
    ramp = np.linspace(0, 4_095, 1_024).astype(np.uint16).reshape(32, 32)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray((ramp >> 4).astype(np.uint8)).save(tmp_path / "plain.png")
    run.update_record(data={**run.record["data"], "bits": 12})
    deep, plain = (
        predict_pictures(TrainedModel(run), [tmp_path / n])[1] for n in ("deep.png", "plain.png")
    )
    np.testing.assert_array_equal(deep, plain)
