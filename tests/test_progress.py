"""Progress is plain text: a line in a terminal, and one output of a cell in a notebook."""

import IPython.display
import pytest

from utils import progress
from utils.progress import PROGRESS_MARK, progress_bar


def test_a_terminal_sees_how_far_it_is(capsys):
    assert not progress.in_notebook()
    assert list(progress_bar("abc", description="Reading", unit="pictures")) == ["a", "b", "c"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("\rReading:   0%")
    assert "3/3" in shown.err and "pictures/s" in shown.err


def test_what_was_done_before_counts_as_done_but_not_as_speed(capsys):
    with progress_bar(total=4_000, description="Going on", initial=3_000, scale=True) as bar:
        assert bar.format_dict["n"] == 3_000
        bar.update(1)
        assert bar.format_dict["n"] - bar.format_dict["initial"] == 1
    assert capsys.readouterr().err.startswith("\rGoing on:  75%")


def test_progress_that_nobody_wants_to_see_is_not_drawn(capsys):
    with progress_bar(total=4, description="Quietly", is_visible=False) as bar:
        bar.update(4)
    assert capsys.readouterr() == ("", "")


def test_a_log_is_not_filled_with_every_step(capsys):
    for _ in progress_bar(range(100_000), description="Long"):
        pass
    assert capsys.readouterr().err.count("\r") <= 4


class Shown:
    """Stands in for a notebook: keeps what is displayed, and what replaces it."""

    def __init__(self):
        self.outputs = []

    def __call__(self, content, raw, metadata, display_id):
        assert raw and display_id and metadata == {PROGRESS_MARK: True}
        self.outputs.append([content])
        return self

    def update(self, content, raw, metadata):
        assert raw and metadata == {PROGRESS_MARK: True}
        self.outputs[-1].append(content)


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", shown := Shown())
    return shown


def test_a_notebook_keeps_one_line_of_text(notebook, capsys):
    with progress_bar(total=4, description="Training") as bar:
        bar.update(4)
    ((first, *_, last),) = notebook.outputs
    assert first["text/plain"].startswith("Training:   0%")
    assert last["text/plain"].startswith("Training: 100%") and "4/4" in last["text/plain"]
    assert all(set(content) == {"text/plain"} for content in (first, last))
    assert capsys.readouterr() == ("", "")
