"""The network of a Space: what it says, draws and refuses, away from the run it came from."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from view import about

from helpers.uploads import READABLE, UNREADABLE
from utils import InputError
from utils.explain.gradcam import CHANNEL_METHODS
from utils.explain.mistakes import misclassified
from utils.explain.portable import Bundle, NoLongerWantedError
from utils.explain.prediction_sets import sets_in_words
from utils.explain.promise import kept_thresholds
from utils.training.predictions import load_predictions


def test_the_network_says_what_the_run_said(bundle, tiny_run):
    predictions = load_predictions(tiny_run)
    wrong = misclassified(predictions)
    for number, mistake in enumerate(bundle.mistakes[:5]):
        position = wrong[number]
        found = bundle.probabilities(bundle.read(mistake))
        np.testing.assert_allclose(found, predictions.probabilities[position], atol=1e-4)
        assert (mistake.target, mistake.predicted) == (
            predictions.target[position], predictions.predicted[position],
        )  # fmt: skip


def test_the_network_says_the_set_that_predict_says(bundle, tiny_run, monkeypatch):
    probabilities = bundle.probabilities(bundle.read(bundle.examples[0]))
    (expected,) = sets_in_words(probabilities[None], kept_thresholds(tiny_run), bundle.classes)
    assert bundle.set_in_words(probabilities) == expected
    only_first = [2.0, *[-2.0] * 9]
    monkeypatch.setitem(bundle.about, "thresholds", only_first)
    assert bundle.set_in_words(probabilities) == bundle.classes[0]
    monkeypatch.setitem(bundle.about, "thresholds", None)
    assert bundle.set_in_words(probabilities) == ""


def test_maps_come_for_each_class_and_block(bundle):
    pixels = bundle.read(bundle.examples[0])
    found = bundle.maps(pixels, [3, 0], "gradcam", ["layer3", "prep"])
    assert found.shape == (2, 2, 16, 16)
    alone = bundle.maps(pixels, [0], "gradcam", ["prep"])
    np.testing.assert_allclose(found[1, 1], alone[0, 0], atol=1e-5)
    assert bundle.maps(pixels, [1]).shape == (1, len(bundle.blocks), 16, 16)


def test_short_work_goes_between_the_steps_of_long_work(bundle):
    pixels, steps = bundle.read(bundle.examples[0]), []
    with ThreadPoolExecutor(1) as another:
        long = another.submit(
            bundle.maps, pixels, [3], "scorecam", ["layer3"],
            lambda: steps.append(len(steps)) or True,
        )  # fmt: skip
        while not steps:
            time.sleep(0.001)
        between = bundle.probabilities(pixels), bundle.maps(pixels, [3], "gradcam", ["layer3"])
        assert not long.done()
        found = long.result()
    assert len(steps) > 10
    np.testing.assert_allclose(between[0], bundle.probabilities(pixels), atol=1e-6)
    np.testing.assert_allclose(between[1], bundle.maps(pixels, [3], "gradcam", ["layer3"]))
    np.testing.assert_allclose(found, bundle.maps(pixels, [3], "scorecam", ["layer3"]))


def test_long_work_ends_when_nobody_wants_it(bundle):
    pixels, steps = bundle.read(bundle.examples[0]), []
    for method in CHANNEL_METHODS:
        steps.clear()
        with pytest.raises(NoLongerWantedError):
            bundle.maps(pixels, [3], method, ["layer3"], lambda: steps.append(1) or len(steps) < 3)
        assert len(steps) == 3
        assert bundle.maps(pixels, [3], method, ["layer3"]).any()


def test_what_fails_is_told_to_who_asked_and_the_next_is_answered(bundle):
    pixels = bundle.read(bundle.examples[0])
    with pytest.raises(InputError):
        bundle.maps(pixels, [3], "gradcam", ["layer9"])
    assert bundle.maps(pixels, [3], "gradcam", ["layer3"]).shape == (1, 1, 16, 16)


def test_the_time_of_long_work_grows_with_channels_and_classes(bundle):
    one = bundle.seconds(["layer1"], 1)
    assert one > 0
    assert bundle.seconds(["layer3"], 2) == pytest.approx(8 * one)  # 512 channels to 128
    assert about(0.2) == "about 1 s"
    assert about(17.4) == "about 15 s"


def test_altered_weights_are_refused(built, tmp_path):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((built / name).read_bytes())
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="has changed"):
        Bundle(tmp_path)


@pytest.mark.parametrize("kind", READABLE)
def test_a_strangers_picture_is_read(bundle, kind):
    pixels, preview, moves = bundle.read_upload(READABLE[kind]())
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert preview.mode == "RGB"
    assert max(preview.size) <= 320
    assert moves == (kind == "animation")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_strangers_file_that_is_none_is_refused_in_words(bundle, kind):
    make, message = UNREADABLE[kind]
    with pytest.raises(InputError, match=message) as refused:
        bundle.read_upload(make())
    assert "/" not in str(refused.value)  # no path of the server
