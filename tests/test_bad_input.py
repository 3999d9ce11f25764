"""Whatever a person gives that cannot be used: one clear message, at once, nothing half-written.

``pytest tests/test_bad_input.py -rP`` shows every message.
"""

import io
import json
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from utils import InputError, files
from utils.cli import main
from utils.data import cache, sources
from utils.data.folders import files_below, scan_folder
from utils.models.weights import read_network
from utils.runs import Run, find_run
from utils.training.fit import fit
from utils.training.plan import plan_training


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20, 3), value, np.uint8)).save(path)


def class_folders(root, counts):
    root.mkdir(parents=True, exist_ok=True)
    values = iter(range(0, 250, 2))  # no two pictures are the same
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(root / name / f"{number}.png", next(values))
    return root


def pets(place, name="pets", **counts):
    return class_folders(place / name, counts or {"ant": 4, "bee": 4})


def png_of(width, height):
    """A file of a few bytes that claims to be a large picture."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def tar_with(place, name, kind=tarfile.REGTYPE):
    with tarfile.open(place / "pets.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc", 1
        archive.addfile(member, io.BytesIO(b"x"))
    return place / "pets.tar.gz"


def damaged_zip(place):
    with zipfile.ZipFile(place / "pets.zip", "w") as archive:
        archive.writestr("ant/1.png", bytes(1_000))
    whole = (place / "pets.zip").read_bytes()
    (place / "pets.zip").write_bytes(whole[:500])
    return place / "pets.zip"


def with_bad_file(place, content, name="bad.png"):
    root = pets(place)
    (root / "ant" / name).write_bytes(content)
    return root


def whole_png():
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    return content.getvalue()


def without_training_bee(place):
    class_folders(place / "pets" / "train", {"ant": 2, "cat": 2})
    class_folders(place / "pets" / "test", {"ant": 2, "bee": 2})
    return place / "pets"


def cifar10_file(place, content):
    (place / "data").mkdir()
    (place / "data" / "cifar-10-python.tar.gz").write_bytes(content)
    return "cifar10"


# what · how it is made, giving the data set · what the message must say
DATA = [
    ("no archive and no network", lambda p: "cifar10",
     "could not be downloaded.*put cifar-10-python.tar.gz from https.* into {place}/data"),
    ("truncated archive", lambda p: cifar10_file(p, b"half"),
     r"cifar-10-python.tar.gz is not the official archive \(its MD5.*Remove it"),
    ("archive that writes outside", lambda p: tar_with(p, "../../evil.png"),
     "contains '../../evil.png', which would be written outside"),
    ("archive with an absolute name", lambda p: tar_with(p, "/tmp/evil.png"), "outside its folder"),
    ("archive with a link", lambda p: tar_with(p, "ant", tarfile.SYMTYPE), "link or a device"),
    (
        "damaged zip",
        damaged_zip,
        "pets.zip is damaged or not an archive .*Download or pack it again",
    ),
    ("folder that is missing", lambda p: p / "nowhere", "nowhere' is unknown. Choose shapes"),
    ("file that is no archive", lambda p: shutil.copy(__file__, p / "x.py"), "x.py is neither"),
    ("empty folder", lambda p: class_folders(p / "pets", {}), "at least two class folders.*none"),
    ("one class", lambda p: pets(p, ant=3), "at least two class folders.*found: ant.*Expected"),
    ("class only in test", without_training_bee, "test pictures but none to train on: bee"),
    ("class with one picture", lambda p: pets(p, ant=3, bee=1), "these have fewer: bee"),
    ("truncated picture", lambda p: with_bad_file(p, whole_png()[:900]),
     "1 of 9 files cannot be read: .*bad.png.*by --skip-unreadable"),
    ("text called .jpg", lambda p: with_bad_file(p, b"hello", "bad.jpg"), "bad.jpg cannot be read"),
    ("PostScript called .jpg", lambda p: with_bad_file(p, b"%!PS-Adobe-3.0 EPSF-3.0\n", "bad.jpg"),
     r"bad.jpg cannot be read as a picture \(it is not a picture of a known format"),
    ("picture of 60000 × 60000", lambda p: with_bad_file(p, png_of(60_000, 60_000)),
     "bad.png cannot be read.*more than 240,000,000 pixels; make it smaller"),
    ("picture of 12000 × 12000", lambda p: with_bad_file(p, png_of(12_000, 12_000)),
     "bad.png .*12000 × 12000 pixels, more than 120,000,000; make it smaller"),
    ("class name of control characters", lambda p: pets(p, **{"a\x1b[2J": 2, "b": 2}),
     r"class folder 'a\\x1b\[2J'.* Rename it"),
]  # fmt: skip


def messages(arguments, capsys):
    """Run a command that must fail; return its message, which is no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    said = stopped.value.code if isinstance(stopped.value.code, str) else printed.err
    assert stopped.value.code not in (0, None)
    assert "Traceback" not in said + printed.out + printed.err
    return said


def check(what, said, match, place):
    import re

    print(f"{what}\n    {said.strip()}")
    pattern = match.replace("{place}", re.escape(str(place)))
    assert re.search(pattern, said, re.DOTALL), said
    if said.startswith("error: "):  # argparse prints its own usage line first
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("what", "made", "match"), DATA, ids=[what for what, *_ in DATA])
def test_data_that_cannot_be_used(what, made, match, tmp_path, capsys):
    dataset = made(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    arguments = ["data", "--dataset", dataset, "--data-dir", tmp_path / "data"]
    check(what, messages(arguments, capsys), match, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_skip_unreadable_goes_on_and_lists_what_is_left_out(tmp_path, capsys):
    root = with_bad_file(tmp_path, b"hello")
    main(["data", "--dataset", str(root), "--data-dir", str(tmp_path / "d"), "--skip-unreadable"])
    said = capsys.readouterr().out
    assert "Left out, since skip_unreadable is set: 1 of 9 files cannot be read" in said
    assert str(root / "ant" / "bad.png") in said


def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path, capsys):
    root = pets(tmp_path)
    os.mkfifo(root / "ant" / "pipe.jpg")
    arguments = ["data", "--dataset", root, "--data-dir", tmp_path / "data"]
    check("a pipe", messages(arguments, capsys), "pipe.jpg .*it is not a file", tmp_path)


def test_more_pictures_than_the_disk_and_the_memory_hold(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cache, "available_memory", lambda: 20_000_000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    monkeypatch.setattr(sources.pictures, "read_pictures", lambda *_, **__: pytest.fail("decoded"))
    root = pets(tmp_path, ant=60, bee=60)
    arguments = ["data", "--dataset", root, "--data-dir", tmp_path / "data", "--image-size", 256]
    match = (
        r"120 pictures of 256 × 256 pixels can be kept neither on the disk \(The decoded copy of "
        r"pets needs 0.02 GB in .*cache, but only 0.01 GB are free there.*\) nor in memory, where "
        r"they need 0.12 GB of 0.02 GB that are free"
    )
    check("memory", messages(arguments, capsys), match, tmp_path)


# what · parameters · what the message must say
PARAMETERS = [
    ("dataset", "cifar100", "dataset 'cifar100' is unknown. Choose shapes, cifar10"),
    ("dataset", "5", "dataset '5' is unknown. Choose shapes, cifar10"),
    ("recipe", "fastest", "recipe 'fastest' is unknown. Choose one of: original, quick"),
    ("model", "resnet", "model 'resnet' is unknown. Choose one of: davidnet"),
    ("method", "gradcam2", "method 'gradcam2' is unknown. Choose one of: gradcam"),
    ("block", "layer9", "block 'layer9' is unknown. Choose one of: prep"),
    ("precision", "8", "precision '8' is unknown. Choose one of: auto"),
    ("precision", "16-mixed", "precision '16-mixed' needs a GPU. Use 'auto'"),
    ("devices", "tpu", "devices 'tpu' is unknown. Choose one of: auto, cpu, gpu"),
    ("epoch", "5", r"Parameter 'epoch' is unknown. Did you mean 'epochs'\? Allowed here: .*epochs"),
    ("zebra", "5", "Parameter 'zebra' is unknown. Allowed here: .*epochs"),
    ("epochs", "0", "epochs is 0; it must be a whole number from 1"),
    ("epochs", "-3", "epochs is -3"),
    ("epochs", "many", "epochs is 'many'; it must be a whole number"),
    ("epochs", "1.5", "epochs is 1.5"),
    ("epochs", "[1, 2]", r"epochs is \[1, 2\]"),
    ("batch_size", "1", "batch_size is 1; it must be a whole number from 2"),
    ("max_lr", "nan", "max_lr is 'nan'; it must be a number, 'found' or None|max_lr is 'nan'"),
    ("max_lr", "1e999", "max_lr is inf; it must be a number from"),
    ("max_lr", "-0.1", "max_lr is -0.1"),
    ("image_size", "33", "image_size is 33; .*multiple of 8"),
    ("image_size", "100000", "image_size is 100000; it must be a whole number from 16 to 384"),
    ("val_fraction", "1", "val_fraction is 1; it must be a number from 0 to 0.9"),
    ("limit_train", "-5", "limit_train is -5; it must be a whole number from 2"),
    ("seed", "-1", "seed is -1; it must be a whole number from 0"),
    ("lr_steps", "0", "lr_steps is 0; it must be a whole number from 10"),
    ("show_misclassified", "0", "show_misclassified is 0; it must be a whole number from 1"),
    ("overwrite", "maybe", "overwrite is 'maybe'; it must be True or False"),
    ("skip_unreadable", "0", "skip_unreadable is 0; it must be True or False"),
    (
        "data_dir",
        "none",
        'data_dir is None, but 01_data_exploration needs a value; its default is "data"',
    ),
    ("show_pictures", "none", "show_pictures is None, but 06_gradcam needs a value"),
    ("dataset_title", "a\x1b[2Jb", r"dataset_title is 'a\\x1b\[2Jb'; it must be printable text"),
]


@pytest.mark.parametrize(("name", "value", "match"), PARAMETERS)
def test_parameters_that_cannot_be(name, value, match, tmp_path, capsys, no_gpu):
    arguments = ["run", "--output-dir", tmp_path / "out", "-p", name, value]
    check(f"-p {name} {value!r}", messages(arguments, capsys), match, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_is_not_there(tmp_path, capsys, no_gpu):
    arguments = ["run", "--output-dir", tmp_path / "out", "-p", "devices", "gpu"]
    check("devices gpu", messages(arguments, capsys), "finds no GPU here. Use 'auto'", tmp_path)


NAMES = ["a/b", "..", "a\nb", "\x1b[31m", "con", "NUL.txt", "lpt1", "ends.", "", "x" * 121]


@pytest.mark.parametrize("name", NAMES)
def test_run_names_that_cannot_name_a_folder(name, tmp_path, capsys):
    arguments = ["run", "--output-dir", tmp_path / "out", f"--run-name={name}"]
    said = messages(arguments, capsys)
    check(f"--run-name {name!r}", said, "cannot name a folder|a device on Windows", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_run_name_that_is_taken_by_a_file(tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    arguments = ["run", "--output-dir", tmp_path, "--run-name", "README.md"]
    check("a file's name", messages(arguments, capsys), "is taken: .*README.md is a file", tmp_path)


@pytest.mark.parametrize("place", ["/dev/null", "/proc", "/dev/null/deeper"])
def test_an_output_folder_that_cannot_be_written_to(place, tmp_path, capsys):
    arguments = ["run", "--output-dir", place, "--only", "04", "--run-name", "x"]
    check(f"--output-dir {place}", messages(arguments, capsys), "does not exist in", tmp_path)
    arguments = ["run", "--output-dir", place, "--only", "01", "--run-name", "x"]
    match = "/x cannot be written: .* Choose another folder"
    check(f"--output-dir {place}", messages(arguments, capsys), match, tmp_path)


def test_a_notebook_whose_earlier_stage_is_missing(tmp_path, capsys):
    arguments = ["run", "--output-dir", tmp_path, "--run-name", "new", "--only", "05"]
    match = "Run 'new' does not exist in .*Trained runs there: none. Run 03_training"
    check("--only 05", messages(arguments, capsys), match, tmp_path)
    arguments = ["run", "--output-dir", tmp_path, "--only", "09"]
    check("--only 09", messages(arguments, capsys), "no notebook '09'. Choose: 01, 02", tmp_path)
    assert not list(tmp_path.iterdir())


# Files of a run, damaged


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of a complete run, to be damaged."""
    shutil.copytree(tiny_run.folder, tmp_path / "out" / "tiny")
    return Run("tiny", tmp_path / "out")


def cut(run, name):
    path = run.path(name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(run, name):
    path = run.path(name)
    whole = bytearray(path.read_bytes())
    whole[len(whole) * 2 // 3] ^= 0x10
    path.write_bytes(whole)


def of_other_classes(run, name):
    weights = load_file(run.path(name))
    weights = {key: t[:7] if key.startswith("head.") else t for key, t in weights.items()}
    save_file(weights, run.path(name))


def without_settings(run, name):
    record = json.loads(run.path(name).read_text())
    record["settings"]["image_size"] = "large"
    run.path(name).write_text(json.dumps(record))


# what · file · damage · what the message must say
WEIGHTS = [
    ("weights cut", "model.safetensors", cut, "is damaged .*Bring back the run's own file"),
    ("weights altered", "model.safetensors", flip, "has changed since this run was trained"),
    ("weights of another class count", "model.safetensors", of_other_classes,
     r"another network than this run's davidnet with 10 classes \(head.*7×512, not 10×512"),
    ("run.json cut", "run.json", cut, r"run.json is damaged \(.*Delete it and run again"),
    ("run.json altered", "run.json", without_settings, r"\(settings.image_size must be integer\)"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "damage", "match"), WEIGHTS, ids=[w for w, *_ in WEIGHTS])
def test_damaged_weights_and_records(what, name, damage, match, run, tmp_path, capsys):
    picture(tmp_path / "a.png")
    damage(run, name)
    arguments = ["predict", "--run", "tiny", "--output-dir", tmp_path / "out", tmp_path / "a.png"]
    check(what, messages(arguments, capsys), match, tmp_path)


# what · notebook · file · what the message must say
STAGES = [
    ("checkpoint cut", "03", "checkpoints/last.ckpt", "last.ckpt is damaged or not a checkpoint"),
    ("metrics.csv cut", "04", "metrics.csv", "metrics.csv is damaged .*-p overwrite true"),
    ("predictions cut", "05", "predictions.npz", "predictions.npz is damaged .*Delete it"),
]


@pytest.mark.parametrize(("what", "number", "name", "match"), STAGES, ids=[w for w, *_ in STAGES])
def test_damaged_files_of_a_stage_are_named_by_the_notebook(
    what, number, name, match, run, tmp_path, capsys
):
    from helpers.records import TINY

    if name == "metrics.csv":
        run.path(name).write_text(run.path(name).read_text()[:-30])
    else:
        cut(run, name)
    run.path("metrics.json").unlink()  # 03 would not look at the checkpoint of a complete run
    if number != "03":
        run.write_json("metrics.json", {"test_acc": 0.5, "test_loss": 1.0, "test_size": 80})
    arguments = ["run", "--run-name", "tiny", "--output-dir", tmp_path / "out", "--only", number]
    if number == "03":
        arguments += ["--data-dir", run.settings["data_dir"]]
        for key in ("epochs", "limit_train", "limit_test", "image_size"):
            arguments += ["-p", key, TINY[key]]
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = str(stopped.value.code)
    assert "Traceback" not in said
    check(what, " ".join(said.split()), match, tmp_path)
    notebook = json.loads(next(run.path("notebooks").glob(f"{number}_*.ipynb")).read_text())
    (error,) = [
        output
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]
    assert error["ename"] == "InputError"
    assert error["traceback"] == [f"InputError: {error['evalue']}"]  # short, the explanation first
    assert run.status == ("failed" if number == "03" else "complete")
    assert run.failed_notebook.startswith(number)


def test_a_run_folder_with_links_is_not_written_to(run, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".keep-deadbeef").write_text("mine")
    shutil.rmtree(run.path("figures"))
    run.path("figures").symlink_to(tmp_path / "elsewhere")
    arguments = ["run", "--run-name", "tiny", "--output-dir", tmp_path / "out", "--only", "04"]
    check("links", messages(arguments, capsys), r"holds a link \(figures\).*Remove", tmp_path)
    assert os.listdir(tmp_path / "elsewhere") == [".keep-deadbeef"]


def test_a_run_from_elsewhere_does_not_choose_where_decoded_pictures_go(run, tmp_path, monkeypatch):
    place = tmp_path / "documents"
    place.mkdir()
    record = run.record
    record["settings"]["data_dir"] = str(place)
    run.path("run.json").write_text(json.dumps(record))
    used = []
    monkeypatch.setattr(
        sources, "cached_pictures", lambda source, size, folder: used.append(folder) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        sources.pictures_of(run)
    assert not used[0].is_relative_to(place)
    (place / "cache").mkdir()  # even where it says so of a place that has them
    with pytest.raises(ZeroDivisionError):
        sources.pictures_of(run)
    assert used[1] == used[0]
    with pytest.raises(ZeroDivisionError):
        sources.pictures_of(run, place)  # a person may
    assert used[2] == place / "cache"


RUN_FILES = ["metrics.csv", "predictions.npz", "model.safetensors", "run.json", "metrics.json"]


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_pipe_in_a_run_folder_is_not_waited_for(name, run):
    run.path(name).unlink()
    os.mkfifo(run.path(name))
    with pytest.raises(InputError, match=f"{name} does not exist"):
        run.existing(name)


@pytest.mark.parametrize(
    ("made", "called"),
    [
        (os.mkfifo, "a pipe"),
        (os.mkdir, "a folder"),
        (lambda p: os.symlink(os.devnull, p), "a link"),
    ],
)
def test_a_checkpoint_that_is_no_file_is_told_in_a_sentence(made, called, run):
    run.path("metrics.json").unlink()  # the training is to be finished
    checkpoint = run.path("checkpoints", "last.ckpt")
    checkpoint.unlink()
    made(checkpoint)
    with pytest.raises(InputError) as refused:
        fit(planned_again(run))
    said = str(refused.value)
    assert called in said and "last.ckpt" in said and "Remove" in said


def planned_again(run):
    from helpers.records import TINY

    names = ("data_dir", "image_size", "limit_train", "limit_test")
    picture_set = sources.load_pictures(
        dataset="shapes", **{name: run.settings[name] for name in names}
    )
    place = {"run_name": run.name, "output_dir": run.folder.parent}
    return plan_training(picture_set, epochs=TINY["epochs"], **place)


def test_a_stranger_s_run_hides_no_other(run, tiny_run, capsys):
    shutil.copytree(tiny_run.folder, run.folder.with_name("good"))
    for name in ("model.safetensors", "metrics.json"):
        bad = run.folder.with_name(f"bad-{name}")
        shutil.copytree(tiny_run.folder, bad)
        (bad / name).unlink()
        os.mkfifo(bad / name)
    (run.path("checkpoints") / "link").symlink_to("/etc/passwd")
    assert find_run(None, run.folder.parent).name == "good"
    said = capsys.readouterr().out
    assert said.count("Left out: ") == 3 and "holds a link (checkpoints/link)" in said


@pytest.mark.parametrize("made", [os.mkfifo, os.mkdir])
def test_weights_that_are_no_file_are_told_in_a_sentence(made, tmp_path):
    made(tmp_path / "model.safetensors")
    with pytest.raises(
        InputError, match=r"model.safetensors is damaged \(it is not a file\). Bring"
    ):
        read_network(tmp_path / "model.safetensors", "davidnet", 10, 32, None, "Bring it back.")


@pytest.mark.slow
def test_a_folder_of_any_depth_is_searched(tmp_path):
    root, cwd = pets(tmp_path), os.getcwd()
    os.chdir(root / "ant")
    try:
        for _ in range(1_200):  # deeper than functions can call themselves
            os.mkdir("d")
            os.chdir("d")
        shutil.copy(root / "bee" / "0.png", "deep.png")
    finally:
        os.chdir(cwd)
    try:
        assert len(files_below(root)[0]) == 9
        assert len(scan_folder(root).train) == 9
    finally:
        subprocess.run(["rm", "-r", root], check=True)  # shutil would call itself too often
