"""The kernel that a notebook runs in: which one, how it is reached, and how its death is told."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output

from utils.files import ROOT
from utils.pipeline import kernel, sequence
from utils.runs import Run


def small_notebook(path, *sources):
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    )
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, path)
    return path


def test_the_kernel_talks_over_sockets_in_a_folder():
    with kernel._kernel_settings() as config:
        expected = "tcp" if sys.platform == "win32" else "ipc"
        assert config.KernelManager.get("transport", "tcp") == expected


@pytest.mark.skipif(sys.platform == "win32", reason="there, kernels are reached over TCP")
def test_a_long_folder_for_temporary_files_is_passed_by(tmp_path, monkeypatch, capsys):
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setattr(kernel.tempfile, "tempdir", str(long))
    with kernel._kernel_settings() as config:
        socket = config.KernelManager.ip
        assert len(os.fsencode(f"{socket}-5")) <= kernel.LONGEST_SOCKET
        assert not Path(socket).is_relative_to(long)
    monkeypatch.setattr(kernel, "LONGEST_SOCKET", 5)  # nowhere is short enough
    with kernel._kernel_settings() as config:
        assert "KernelManager" not in config
    assert "listens on 127.0.0.1" in capsys.readouterr().out


def test_the_kernel_is_this_python_whatever_jupyter_knows_by_its_name(tmp_path, monkeypatch):
    foreign = tmp_path / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(
        '{"argv": ["/gone/python", "{connection_file}"], "display_name": "", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    saved = papermill_notebook(small_notebook(tmp_path / "a.ipynb", "1"))
    manager = kernel._Client(saved, kernel_name="python3").create_kernel_manager()
    assert manager.kernel_spec.argv[:3] == [sys.executable, "-m", "ipykernel_launcher"]


def papermill_notebook(path):
    from papermill.engines import NotebookExecutionManager

    return NotebookExecutionManager(nbformat.read(path, as_version=4))


def test_what_was_printed_in_one_go_is_one_output():
    def printed(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    figure = new_output("display_data", {"text/plain": "a figure"})
    outputs = [printed("a"), printed("\n"), printed("!", "stderr"), figure, printed("b\n")]
    joined = kernel.with_streams_joined(outputs)
    assert joined == [printed("a\n"), printed("!", "stderr"), figure, printed("b\n")]
    assert kernel.with_streams_joined([]) == []


@pytest.mark.slow
def test_a_line_whose_end_comes_late_is_one_output(tmp_path):
    source = "import sys, time\nprint('a', end='', flush=True)\ntime.sleep(0.5)\nprint()"
    notebook, executed = small_notebook(tmp_path / "a.ipynb", source), tmp_path / "b.ipynb"
    kernel.execute(notebook, executed, {}, ROOT, lambda _: None)
    (cell,) = nbformat.read(executed, as_version=4).cells
    assert [output.text for output in cell.outputs] == ["a\n"]


def test_a_kernel_that_does_not_start_is_told_in_a_sentence(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named ipykernel_launcher' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    run = Run("starts", tmp_path)
    with pytest.raises(sequence.PipelineError) as failed:
        sequence.run_notebooks(run, {}, ["04_curves"])
    said = str(failed.value)
    assert said.startswith("04_curves could not be run: its kernel did not start")
    assert said.endswith("It last said: No module named ipykernel_launcher.")
    assert len(said.splitlines()) == 1
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(kernel.NotebookError, match=r"did not start .*No such file.*gone"):
        notebook = small_notebook(tmp_path / "a.ipynb", "1")
        kernel.execute(notebook, tmp_path / "b.ipynb", {}, ROOT, print)


@pytest.mark.slow
@pytest.mark.parametrize("before", [0, 2])
def test_a_kernel_that_dies_is_a_failure_with_a_reason_and_its_cell(tmp_path, monkeypatch, before):
    cells = before * ["1"] + ["import os; os._exit(1)", "2"]
    small_notebook(tmp_path / "04_curves.ipynb", *cells)
    monkeypatch.setitem(sequence.NOTEBOOKS, "04_curves", tmp_path / "04_curves.ipynb")
    run = Run("dies", tmp_path)
    told = rf"04_curves failed in cell \[{before + 1}\].*kernel died.*mem"
    with pytest.raises(sequence.PipelineError, match=told):
        sequence.run_notebooks(run, {}, ["04_curves"])
    assert run.status == "failed"
