"""Metadata make no sound picture unreadable and keep no decoder busy; the orientation stays."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from utils.data import metadata
from utils.data.metadata import JPEG, PNG, without_metadata
from utils.data.pictures import holds_several, open_picture, resize_and_crop

SIZE = 32
ORIENTATION = (0x112, 3, 1, struct.pack("<HH", 6, 0))


def picture():
    """Smooth, so that JPEG keeps it, and with no symmetry."""
    ramp = np.linspace(0, 255, SIZE)
    channels = np.broadcast_arrays(ramp, ramp[:, None] * 0.7, 90.0)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def saved(kind, image=None, **options):
    content = BytesIO()
    (image or picture()).save(content, kind, **options)
    return content.getvalue()


def read(content):
    with open_picture(BytesIO(content)) as image:
        return resize_and_crop(image, SIZE).astype(int)


def jpeg_with(*segments):
    whole = saved("JPEG", quality=95)
    parts = (b"\xff" + bytes([k]) + struct.pack(">H", len(c) + 2) + c for k, c in segments)
    return JPEG + b"".join(parts) + whole[2:]


def png_with(kind, data, checksum=None):
    whole = saved("PNG")
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    return whole[:33] + chunk + whole[33:]


def exif(*entries, extra=b""):
    packed = b"".join(struct.pack("<HHI", tag, kind, n) + value for tag, kind, n, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4) + extra


def long(value):
    return struct.pack("<I", value)


EXIF = {
    "plain": exif(ORIENTATION),
    "header twice": b"Exif\0\0" + exif(ORIENTATION),
    "zero denominator": exif(ORIENTATION, (0x11A, 5, 1, long(38)), extra=bytes(8)),
    "pointer beyond": exif(ORIENTATION, (0x8769, 4, 1, long(60_000))),
    "wrong type": exif(ORIENTATION, (0x8769, 2, 4, b"abc\0")),
}


@pytest.mark.parametrize("data", EXIF.values(), ids=EXIF)
def test_the_orientation_counts_and_nothing_else_of_exif(data):
    expected = np.rot90(read(jpeg_with()), -1)
    np.testing.assert_array_equal(read(jpeg_with((0xE1, b"Exif\0\0" + data))), expected)
    np.testing.assert_array_equal(
        read(png_with(b"eXIf", data)), np.rot90(np.asarray(picture()), -1)
    )


UNORIENTED = {
    "cut": b"II*\0\x08", "empty": b"", "noise": bytes(range(200)),
    "orientation 0": exif((0x112, 3, 1, long(0))), "orientation 9": exif((0x112, 3, 1, long(9))),
    "orientation is text": exif((0x112, 2, 4, b"abc\0")),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*EXIF.*", "ignore:Truncated File Read")
@pytest.mark.parametrize("data", UNORIENTED.values(), ids=UNORIENTED)
def test_damaged_exif_makes_no_picture_unreadable(data):
    np.testing.assert_array_equal(read(jpeg_with((0xE1, b"Exif\0\0" + data))), read(jpeg_with()))
    np.testing.assert_array_equal(read(png_with(b"eXIf", data)), np.asarray(picture()))


def test_a_tiff_is_turned_once():
    turned = saved("TIFF", tiffinfo={0x112: 6})
    np.testing.assert_array_equal(read(turned), np.rot90(np.asarray(picture()), -1))


LARGE = zlib.compress(b"node " * 3_000_000)
CHUNKS = {
    "large compressed text": (b"zTXt", b"workflow\0\0" + LARGE),
    "large international text": (b"iTXt", b"workflow\0\1\0\0\0" + LARGE),
    "text that is no text": (b"zTXt", b"no separator"),
    "large profile": (b"iCCP", b"profile\0\0" + LARGE),
    "damaged profile": (b"iCCP", b"profile\0\0damaged"),
    "short time": (b"tIME", b"\0"),
    "short gamma": (b"gAMA", b""),
    "short resolution": (b"pHYs", b"\0"),
}


@pytest.mark.parametrize(("kind", "data"), CHUNKS.values(), ids=CHUNKS)
def test_no_chunk_beside_the_pixels_makes_a_png_unreadable(kind, data):
    np.testing.assert_array_equal(read(png_with(kind, data)), np.asarray(picture()))
    np.testing.assert_array_equal(read(png_with(kind, data, checksum=1)), np.asarray(picture()))


def test_a_palette_and_its_transparent_colour_stay():
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([200, 0, 0, 10, 20, 30])
    image.paste(0, (0, 0, SIZE // 2, SIZE))
    found = read(saved("PNG", image, transparency=0))
    assert (found[:, : SIZE // 2] == 255).all() and (found[:, SIZE // 2 :] == (10, 20, 30)).all()


SEGMENTS = {
    "comment": (0xFE, b"x" * 60_000),
    "several pictures, damaged": (0xE2, b"MPF\0II*\0" + bytes(40)),
    "profile, damaged": (0xE2, b"ICC_PROFILE\0\x05\x01abc"),
    "Photoshop, damaged": (0xED, b"Photoshop 3.0\x008BIM\x04\x04\x7f"),
    "XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<damaged"),
}


@pytest.mark.parametrize("segment", SEGMENTS.values(), ids=SEGMENTS)
def test_no_segment_beside_the_pixels_makes_a_jpeg_unreadable(segment):
    np.testing.assert_array_equal(read(jpeg_with(segment)), read(jpeg_with()))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_colours_of_a_jpeg_stay(mode):
    content = saved("JPEG", picture().convert(mode), quality=95)
    with Image.open(BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(content), expected)


def test_a_phones_two_pictures_in_one_file_are_no_animation():
    turned = Image.Exif()
    turned[0x112] = 6
    content = saved("MPO", save_all=True, append_images=[picture().resize((9, 9))], exif=turned)
    with Image.open(BytesIO(content)) as image:
        assert image.n_frames == 2  # else this test is about nothing
    with open_picture(BytesIO(content)) as image:
        assert image.format == "JPEG" and not holds_several(image)
    np.testing.assert_allclose(read(content), np.rot90(np.asarray(picture()), -1), atol=12)


def test_an_animation_holds_several_pictures():
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        content = saved(kind, frames[0], save_all=True, append_images=frames[1:])
        with open_picture(BytesIO(content)) as image:
            assert holds_several(image), kind


def progressive(scans):
    """A JPEG whose last scan is there again and again, until there are so many."""
    whole = saved("JPEG", progressive=True)
    starts = [place for place in range(len(whole)) if whole[place : place + 2] == b"\xff\xda"]
    return whole[:-2] + whole[starts[-1] : -2] * (scans - len(starts)) + whole[-2:]


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


#: What phones put after a picture's end.
APPENDED = {
    "pictures": lambda: progressive(10) * 7,
    "a video": lambda: noise(10**7),
    "scans": lambda: progressive(1_000)[2:],
}


@pytest.mark.parametrize("appended", APPENDED.values(), ids=APPENDED)
def test_what_comes_after_the_end_of_a_picture_counts_for_nothing(appended):
    whole = progressive(10)
    np.testing.assert_array_equal(read(whole + appended()), read(whole))


def after_start(inserted):
    return JPEG + inserted + progressive(1_000)[2:]


PREVIEW = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(saved("JPEG"))) + b"Exif\0\0" + saved("JPEG")
#: Files that a decoder reads all the scans of.
BOMBS = {
    "plain": b"",
    "after a preview": PREVIEW,
    "after a marker without a length": b"\xff\x01",
    "after bytes of no segment": bytes(7),
    "after a restart": b"\xff\xd0",
}


@pytest.mark.parametrize("inserted", BOMBS.values(), ids=BOMBS)
def test_more_scans_than_any_encoder_makes_are_refused(inserted):
    assert read(progressive(metadata.MAX_SCANS)).shape == (SIZE, SIZE, 3)
    with pytest.raises(ValueError, match=r"a JPEG file of 1000 scans; more than 50 are not read"):
        open_picture(BytesIO(after_start(inserted)))


def test_a_marker_without_a_length_before_each_scan_hides_none():
    whole = progressive(1_000).replace(b"\xff\xda", b"\xff\x01\xff\xda")
    with pytest.raises(ValueError, match="a JPEG file of 1000 scans"):
        open_picture(BytesIO(whole))


@pytest.mark.parametrize("start", [PNG, JPEG, b""])
@pytest.mark.parametrize("seed", range(20))
def test_noise_comes_back_and_never_loops(start, seed):
    assert without_metadata(start + noise(300, seed)).startswith(start)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_that_is_cut_anywhere_stays_so(kind):
    whole = saved(kind)
    for length in range(len(whole)):
        assert len(without_metadata(whole[:length])) <= length
