"""The report of a GPU: every part by itself, what fails named, and nothing begun without a GPU."""

import time
import warnings

import pytest
import torch

from helpers.training import SmallDavidNet, make_pictures
from utils import InputError
from utils.cli import main
from utils.measure import gpu_report
from utils.measure.gpu_report import Clock, Part, check_gpu_report, waiting_lines, write_report
from utils.models.registry import MODELS


@pytest.fixture
def with_parts(monkeypatch):
    """Has a report made of given parts, titled by their names."""

    def use(**parts):
        made = [Part(title, lines) for title, lines in parts.items()]
        monkeypatch.setattr(gpu_report, "_parts", lambda *_: made)

    return use


def failing():
    yield "begun"
    raise ValueError("the kernel is missing")


def test_a_part_that_fails_says_so_and_the_others_are_made(with_parts, tmp_path):
    with_parts(first=failing, second=lambda: ["all well"])
    text = write_report(tmp_path / "new", make_pictures(), "shapes").read_text()
    first, second = text.split("## second")
    assert "## first\n\nbegun\n\n**Not finished: ValueError**" in first
    assert "the kernel is missing" in first
    assert second.startswith("\n\nall well\n")


def test_what_there_is_no_time_for_is_named(with_parts, tmp_path):
    with_parts(first=lambda: ["all well"])
    text = write_report(tmp_path, make_pictures(), "shapes", limit=-1.0).read_text()
    assert "all well" not in text
    assert "no time was left for it" in text


def test_a_process_is_given_the_time_that_is_left_and_its_failure_is_told(tmp_path):
    seconds, lines = gpu_report._timed_process(["-c", "print('so')"], tmp_path, Clock())
    assert lines == ["so"] and seconds > 0
    with pytest.raises(RuntimeError, match=r"(?s)exit status 3.*before.*why"):
        code = "import sys; print('before'); print('why', file=sys.stderr); sys.exit(3)"
        gpu_report._timed_process(["-c", code], tmp_path, Clock())
    started = time.monotonic()
    with pytest.raises(gpu_report.subprocess.TimeoutExpired):
        gpu_report._timed_process(["-c", "import time; time.sleep(60)"], tmp_path, Clock(0.5))
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_what_waits_within_an_epoch_is_named_with_its_place(monkeypatch, tmp_path):
    monkeypatch.setitem(MODELS, "davidnet", SmallDavidNet)
    monkeypatch.setitem(MODELS, "speednet", SmallDavidNet)
    mode = ["default"]
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda told: mode.append(told))
    note = gpu_report.NoteLosses.on_train_batch_end

    def note_and_wait(*given):
        if mode[-1] == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        note(*given)

    monkeypatch.setattr(gpu_report.NoteLosses, "on_train_batch_end", note_and_wait)
    told = "\n".join(waiting_lines(tmp_path, make_pictures()))
    assert "`original`: test_gpu_report.py:" in told and "`speed`: test_gpu_report.py:" in told
    assert mode[-1] == "default"
    monkeypatch.undo()


def test_without_a_gpu_or_the_script_beside_it_nothing_is_begun(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--gpu-report needs a GPU"):
        main(["bench", "--gpu-report", str(tmp_path / "report")])
    assert not (tmp_path / "report").exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match=r"--beside .*: there is no such file"):
        check_gpu_report(tmp_path / "missing.py")
