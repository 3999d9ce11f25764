"""Files from strangers: a pickle bomb in each place where one could be put never goes off.

Nor does what a run's chapters say or put out do anything in the book that is made of them.
"""

import base64
import html
import io
import os
import pickle
import re
import shutil
import tarfile
import zipfile

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_output
from PIL import Image
from torchvision.datasets import CIFAR10

from utils import InputError
from utils.data.archives import unpack
from utils.data.pictures import EXTENSIONS, read_picture
from utils.data.sources import load_pictures
from utils.publish import book
from utils.runs import Run
from utils.training.callbacks import RunCheckpointIO
from utils.training.predictions import load_predictions
from utils.training.trained import load_network


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
    with pytest.raises(InputError, match="damaged or not a checkpoint"):
        RunCheckpointIO({}).load_checkpoint(path)


def test_a_checkpoint_that_would_fill_the_memory_is_refused(tmp_path):
    torch.save({"state_dict": torch.zeros(10_000_000), "epoch": 0}, tmp_path / "whole.ckpt")
    path = tmp_path / "last.ckpt"
    with (
        zipfile.ZipFile(tmp_path / "whole.ckpt") as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(InputError, match=r"not a checkpoint .it would take 40\.0 MB unpacked"):
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
    first = load_pictures(dataset=str(tmp_path / "pets"), data_dir=tmp_path / "data", image_size=16)
    (cache,) = (tmp_path / "data" / "cache").iterdir()
    cache.unlink()  # what is mapped of it stays
    cache.write_bytes(kind(bomb))
    assert load_pictures(
        dataset=str(tmp_path / "pets"), data_dir=tmp_path / "data", image_size=16
    ).fingerprint == (first.fingerprint)
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
        load_pictures(dataset="cifar10", data_dir=tmp_path / "data")


def test_in_an_archive_that_calls_itself_cifar10(bomb, tmp_path):
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in ("batches.meta", "data_batch_1", "test_batch"):
            content = pickle.dumps(bomb)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match="not the official archive"):
        load_pictures(dataset="cifar10", data_dir=tmp_path / "data")


def test_in_an_archive_of_pictures(bomb, tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("ant/1.png", "bee/1.png", "ant/model.pkl", "conftest.py", "last.ckpt"):
            archive.writestr(name, pickle.dumps(bomb))
    folder = unpack(tmp_path / "pets.zip", tmp_path / "place", EXTENSIONS)
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.*"))
    assert found == ["ant/1.png", "bee/1.png"]
    with pytest.raises(InputError, match="2 of 2 files cannot be read"):
        load_pictures(dataset=str(tmp_path / "pets.zip"), data_dir=tmp_path / "data", image_size=16)


def test_settings_that_tensorboard_keeps_beside_the_run_are_not_read(bomb, run, tmp_path, capsys):
    """Lightning writes hparams.yaml; a YAML file can call functions, too."""
    from utils.training.fit import fit
    from utils.training.plan import plan_training

    order = f"!!python/object/apply:os.mkdir ['{bomb.path}']\n"
    run.path("tensorboard", "hparams.yaml").write_text(order)
    run.path("metrics.json").unlink()  # so that the run is taken up again
    settings = run.settings
    picture_set = load_pictures(
        dataset="shapes",
        data_dir=settings["data_dir"],
        image_size=16,
        limit_train=160,
        limit_test=80,
    )
    fit(plan_training(picture_set, run_name=run.name, output_dir=run.folder.parent, epochs=1))
    assert "resumed" in capsys.readouterr().out
    assert run.status == "complete"


# In a run's chapters


@pytest.fixture(scope="module")
def attacked(tiny_run, tmp_path_factory):
    """The book of a run whose chapters try everything, made with the project's own settings.

    Yields its folder, what was printed about it, and a folder that holds a secret and a module.
    """
    folder = tmp_path_factory.mktemp("attacked")
    shutil.copytree(tiny_run.folder, folder / "run")
    (folder / "secret.txt").write_text("the secret of this machine")
    (folder / "evil_module.py").write_text(
        f'"""the doc of evil"""\nopen({str(folder / "it went off")!r}, \'w\')'
    )
    for path in folder.glob("run/notebooks/*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        _attack(notebook, folder)
        nbformat.write(notebook, path)
    pages = folder / "pages"  # the project's own have 60 more, for its modules
    shutil.copytree(book.DOCS, pages, ignore=lambda _, names: set(names) - {
        "conf.py", "book.css", "_static", "_templates", "open-in-colab.svg", "your_pictures.md",
        "your_pictures", "audit.png", "right.png",
    })  # fmt: skip
    (pages / "api").mkdir()
    (pages / "api" / "index.md").write_text("# Code\n")
    (pages / "trust.md").write_text("# Maps\n")
    (pages / "index.md").write_text(
        "# Book\n\n```{toctree}\n:glob:\nrendered/*\nyour_pictures\ntrust\napi/index\n```\n"
    )
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "DOCS", pages)
        patch.setenv("PYTHONPATH", str(folder))
        patch.setattr("sys.stdout", said)
        book.build_site(Run("run", folder), folder / "site")
    return folder / "site", said.getvalue(), folder


def _attack(notebook, folder):
    secret = folder / "secret.txt"
    texts = [
        "```{eval-rst}\n.. automodule:: evil_module\n```", "```{automodule} evil_module\n```",
        f"```{{include}} {secret}\n```", f"```{{literalinclude}} {secret}\n```",
        f"```{{eval-rst}}\n.. include:: {secret}\n```", f"{{download}}`evil <{secret}>`",
        "```{raw} html\n<script>evil()</script>\n```", "```{figure} http://evil/a.png\n```",
        "<script>evil()</script>", "<img src=x onerror=evil()>", "![evil](http://evil/a.png)",
        f"![evil]({secret})", "[evil](javascript:evil())", "[evil](http://evil)", "<http://evil>",
        f"[evil]({secret})", "[evil]\n\n[evil]: http://evil", "{{ repository }}", "% evil said",
        "---\nsd_hide_title: true\nevil: evil\n---", "(evil)=\n# evil", ":::{note}\nevil\n:::",
        "{py:obj}`evil_module`", "$$evil$$", "{eval}`evil`", "| evil |\n| --- |\n| evil |",
        "+++ {\"evil\": 1}", "[^evil]\n\n[^evil]: evil", "```{code-cell}\nevil\n```",
        "```{math}\nevil\n```", "{ref}`evil`", "&lt;script&gt;evil()&lt;/script&gt;",
    ]  # fmt: skip
    outputs = [new_output("display_data", {"text/markdown": text}) for text in texts]
    outputs += [new_output("display_data", {kind: content}) for kind, content in (
        ("text/html", "<script>evil()</script>"), ("text/html", "<iframe src=http://evil></iframe>"),
        ("text/html", "<table onclick=evil()><tr id=evil><td>&lt;script&gt;</td></tr></table>"),
        ("application/javascript", "evil()"), ("image/svg+xml", "<svg onload='evil()'/>"),
        ("text/latex", "$\\evil$"), ("application/vnd.evil", "evil"), ("image/png", "evil"),
        ("text/plain", "<script>evil()</script>\x1b]8;;http://evil\x07"),
    )]  # fmt: skip
    outputs.append(new_output("stream", text="\x1b[31m<script>evil()</script>"))
    figure = io.BytesIO()
    Image.new("RGB", (40, 30)).save(figure, "PNG")
    outputs.append(new_output(
        "display_data", {"image/png": base64.b64encode(figure.getvalue()).decode()},
        metadata={"image/png": {"width": "9\" onload=evil()", "alt": "\"><script>evil()</script>"}},
    ))  # fmt: skip
    notebook.cells[-1].outputs += outputs
    shown = {"image": {"alt": "evil", "classes": "evil"}, "code_prompt_show": "<script>evil()"}
    notebook.metadata.mystnb = {"execution_mode": "force", **shown}
    notebook.metadata.widgets = {
        "application/vnd.jupyter.widget-state+json": {"state": {"evil": 1}}
    }
    notebook.metadata.jupytext = notebook.metadata.myst = {"html_meta": {"evil": "evil"}}
    for cell in notebook.cells:
        cell.metadata.tags = [*cell.metadata.get("tags", []), "remove-input", "evil"]
        cell.metadata.mystnb = shown
    notebook.cells[0].attachments = {"evil.svg": {"image/svg+xml": "<svg/>"}}


def test_nothing_that_chapters_put_out_acts_in_the_book(attacked):
    site, _, folder = attacked
    assert not (folder / "it went off").exists()
    own = _scripts(site / "your_pictures.html")
    for path in site.glob("rendered/*.html"):
        text = path.read_text()
        assert _scripts(path) == own
        assert not re.findall(r"<[^>]*evil[^>]*>", text)
        assert not re.findall(r'(?:src|href)="(?:\w+:)?//(?!www.sphinx|pradyunsg|github)', text)
        assert "evil said" in text  # and what is text can be read
        assert html.escape("<img src=x onerror=evil()>") in text
    for path in site.rglob("*.*"):
        content = path.read_bytes()
        assert b"the secret of this machine" not in content
        assert b"the doc of evil" not in content
        assert not path.match("*.svg") or path.parent.name == "_static"


def _scripts(page):
    """Return a page's scripts, as they would stand on a page at the top of the site."""
    found = re.findall(r"<script.*?</script>", page.read_text(), re.DOTALL)
    return [script.replace("../", "").replace("./", "") for script in found]


def test_what_is_left_out_is_said_with_its_chapter_and_cell(attacked):
    said = attacked[1].splitlines()
    assert len(said) == len(book.NOTEBOOKS)
    for name, line in zip(book.NOTEBOOKS, said, strict=True):
        assert re.fullmatch(
            rf"Left out of {name}, cell (\d+) of \1: 2 text/html, 1 application/javascript, "
            r"1 image/svg\+xml, 1 text/latex, 1 application/vnd\.evil, 1 image/png",
            line,
        ), line


def test_honest_outputs_beside_them_look_as_they_do_without(attacked, tiny_run):
    site = attacked[0]
    following = dict(
        zip(book.NOTEBOOKS, [*list(book.NOTEBOOKS)[1:], "../your_pictures"], strict=True)
    )
    for name in book.NOTEBOOKS:
        text = (site / "rendered" / f"{name}.html").read_text()
        honest = nbformat.read(tiny_run.path("notebooks", f"{name}.ipynb"), as_version=4)
        outputs = [output for cell in honest.cells for output in cell.get("outputs", [])]
        data = [output.data for output in outputs if "data" in output]
        figures = sum("image/png" in kinds for kinds in data)
        assert (
            len(re.findall('<img alt="[^"]+" src="../_images', text)) == figures + 1
        )  # of the attack
        sizes = [
            output.metadata["image/png"]
            for output in outputs
            if "image/png" in output.get("data", {})
        ]
        shown = map(int, re.findall(r'_images/[^>]*width="(\d+)"', text))
        assert sorted(shown) == sorted(size["width"] for size in sizes)
        tables = [kinds["text/html"] for kinds in data if "text/html" in kinds]
        assert text.count("<table>") == len(tables) + 1
        for table in tables:
            for cell in re.findall(r"<td[^>]*>(.*?)</td>", table):
                assert f"<td>{cell}</td>" in text
        assert re.search(f'href="{following[name]}.html"><span class="[^"]*doc', text)
        assert text.count("cell tag_hide-input") >= 3 and "tag_remove-input" not in text
