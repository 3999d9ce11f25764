"""The load test of a Space: what cannot be measured is said."""

import pytest

from utils import InputError
from utils.cli import main
from utils.measure.load_test import running_space


@pytest.mark.parametrize("option", ["--people", "--requests"])
def test_nobody_and_nothing_cannot_be_measured(built, tiny_run, option):
    folder = str(tiny_run.folder.parent)
    with pytest.raises(SystemExit, match=f"{option} is 0"):
        main(["space", "measure", "--run", "tiny", "--output-dir", folder, option, "0"])


def test_a_page_that_does_not_start_is_said(tmp_path):
    (tmp_path / "app.py").write_text("raise SystemExit('nothing works')")
    with pytest.raises(InputError, match="nothing works"), running_space(tmp_path):
        pass
