"""Kinds of picture files that are read as they are, or with what is installed; others are named."""

import base64
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, features

from helpers.pictures import load, make_folder
from utils import InputError
from utils.data import folders, pictures
from utils.data.pictures import how_to_read, open_picture, read_picture, read_pictures

SIZE = 32
#: A photograph as telephones keep it: 64 × 64 pixels, red on the left and blue on the right, to be
#: turned clockwise; written with pillow-heif 1.8.1.
TELEPHONE = (
    r"c${5Py-UMT5Wm;7HHF%WA6Sc4D-"
    r"Kq1C<y8x2Caib=i;O_P3%F^KGG<0vxB>nv(AD#JLw?!XLRnQf>7*7yq81~kN4i){qA>n+&uu8*6lN1)ldZz6ZO2X"
    r"O)TpG?8emWGWe3MRtzh!fum}}KUqbi?iDF05CSGF_Tp=j6~YAa@rx|bT}Q0xo+qLc<Y+z(pn9t2;Sb0JW!FKEp5S"
    r"Pk5HO*I+~TC4kgIjl4(0AJNkEq#Df0%sey0PFlnyB)rLZ`2T|tlpLlP(R7*fg<T;68vU*vkO8M$ij<?d>sbX*qDt"
    r"9WGPi1<SV_G~@OE7WF8ts7QNH5`J6A$m^GI5xNz46FoqgrkE3kYt&vK@6?BO`RZx-"
    r"27QL0~Tq9r0@mVX|yywz!Pevp?dojlkc0AviOMHBD;^ZvKuD{ZV$KI?pHF~jZ7W8{k7SdL3q*~+_pDMpYD69N93r"
    r"##bObb$diGwQ86eLjQTyk0UQ})^Z"
)
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


@pytest.fixture
def heic(tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(zlib.decompress(base64.b85decode(TELEPHONE)))
    return path


@pytest.fixture
def reads_jpeg_alone(monkeypatch):
    """Both formats that are optional are missing here."""
    monkeypatch.setattr(pictures, "FORMATS", tuple(pictures.ALWAYS))
    endings = tuple(ending for found in pictures.ALWAYS.values() for ending in found)
    monkeypatch.setattr(folders, "EXTENSIONS", endings)


def test_a_telephone_s_photograph_is_read_and_upright(heic):
    pytest.importorskip("pi_heif")
    read = read_picture(heic, SIZE).astype(int)
    assert np.abs(read[:12] - (200, 40, 40)).max() < 30
    assert np.abs(read[20:] - (40, 40, 200)).max() < 30
    assert read_pictures([str(heic)], SIZE).several == set()


@needs_avif
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif_is_read_and_upright(orientation, tmp_path):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (200, 40, 40), (40, 40, 200)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=90, exif=exif)
    read = read_picture(tmp_path / "a.avif", SIZE).astype(int)
    read = read.transpose(1, 0, 2) if orientation == 1 else read
    assert np.abs(read[:12] - (200, 40, 40)).max() < 30
    assert np.abs(read[20:] - (40, 40, 200)).max() < 30


def avif():
    content = BytesIO()
    Image.new("RGB", (64, 64)).save(content, "AVIF")
    return content.getvalue()


@pytest.mark.parametrize("kind", ["heic", pytest.param("avif", marks=needs_avif)])
def test_a_trap_and_a_damaged_file_are_refused(kind, heic, tmp_path):
    if kind == "heic":
        pytest.importorskip("pi_heif")
    content = heic.read_bytes() if kind == "heic" else avif()
    with pytest.raises(ValueError, match="it has 64 × 64 pixels, more than 4,000"):
        open_picture(BytesIO(content), max_pixels=4_000)
    for damaged in (content[:200], content[:40], content[:-100]):
        (tmp_path / "b.heic").write_bytes(damaged)
        with pytest.raises(InputError, match=r"b\.heic cannot be read as a picture"):
            read_picture(tmp_path / "b.heic", SIZE)


def test_what_would_read_a_file_is_told_where_it_is_missing(reads_jpeg_alone, heic, tmp_path):
    with pytest.raises(InputError, match=r"HEIC is read with pi-heif: .*pip install pi-heif\)"):
        read_picture(heic, SIZE)
    root = make_folder(tmp_path / "pets", {"ant": 3, "bee": 3})
    for name in ("1.HEIC", "2.heic", "3.avif"):
        (root / "ant" / name).write_bytes(heic.read_bytes())
    (root / "wasp").mkdir()
    (root / "wasp" / "1.heif").write_bytes(heic.read_bytes())
    notes = "\n".join(load(root, tmp_path).notes)
    assert "as not pictures in a class folder: 3 (2 .heic, 1 .avif)." in notes
    assert "AVIF is read with Pillow 11.3 or later: " in notes
    assert (
        "Class 'wasp' is left out: none of its files can be read (1 .heif). HEIC is read" in notes
    )


def test_nothing_is_to_be_installed_for_what_is_read_or_never_is(reads_jpeg_alone):
    assert how_to_read(["a.jpg", "notes.txt", "b.raw"]) == ""


def test_all_that_a_folder_may_hold_is_read_from_it(heic, tmp_path):
    pytest.importorskip("pi_heif")
    root = make_folder(tmp_path / "pets", {"ant": 3, "bee": 3})
    (root / "ant" / "a.HEIC").write_bytes(heic.read_bytes())
    loaded = load(root, tmp_path)
    assert len(loaded.train) + len(loaded.test) == 7
    assert not any("left out" in note.lower() for note in loaded.notes)


# TIFF


def written(path, image, **options):
    image.save(path, **options)
    return path


def test_cmyk_and_transparency_in_tiff_become_the_colours_that_are_meant(tmp_path):
    red = written(tmp_path / "a.tif", Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)))
    np.testing.assert_allclose(
        read_picture(red, SIZE), np.full((SIZE, SIZE, 3), (255, 0, 0)), atol=3
    )
    clear = written(tmp_path / "b.tif", Image.new("RGBA", (SIZE, SIZE), (0, 100, 255, 51)))
    expected = np.full((SIZE, SIZE, 3), (204, 224, 255))
    np.testing.assert_allclose(read_picture(clear, SIZE), expected, atol=1)


def test_sixteen_bits_of_each_colour_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65_535, SIZE).astype(np.uint16)
    pixels = np.stack(np.broadcast_arrays(ramp, ramp[:, None], np.uint16(30_000)), axis=-1)
    cv2.imwrite(str(tmp_path / "a.tif"), np.ascontiguousarray(pixels[..., ::-1]))
    read = read_picture(tmp_path / "a.tif", SIZE).astype(int)
    assert np.abs(read - pixels / 257).max() <= 1


def test_grey_of_sixteen_bits_is_read_whatever_the_order_of_its_bytes(tmp_path):
    ramp = np.linspace(0, 65_535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    for name, order in (("a.tif", "<u2"), ("b.tif", ">u2")):
        mode = "I;16" if order == "<u2" else "I;16B"
        image = Image.frombytes(mode, (SIZE, SIZE), ramp.astype(order).tobytes())
        read = read_picture(written(tmp_path / name, image), SIZE)
        assert np.abs(read[..., 0] - ramp / 257).max() <= 1


@pytest.mark.parametrize("name", ["a.tif", "a.gif"])
def test_of_several_pictures_the_first_is_read_and_the_file_named(name, tmp_path):
    root = make_folder(tmp_path / "pets", {"ant": 3, "bee": 3})
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    red.save(root / "ant" / name, save_all=True, append_images=[blue])
    (note,) = (n for n in load(root, tmp_path).notes if "several pictures" in n)
    assert note.endswith(f"several pictures, of which the first is read: ant/{name}.")
    assert (read_picture(root / "ant" / name, SIZE) == (255, 0, 0)).all(axis=2).mean() > 0.99


def test_a_tiff_is_turned_once(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    path = written(tmp_path / "a.tif", Image.fromarray(pixels), tiffinfo={0x0112: 6})
    np.testing.assert_array_equal(read_picture(path, SIZE), np.rot90(pixels, -1))
