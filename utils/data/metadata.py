"""Picture files without their metadata: texts, profiles and previews, which no network sees.

Cameras, editors and generators write all kinds of it, damaged or huge at times, and a decoder that
reads it can refuse a sound picture. Orientation, camera and date count, so EXIF data stay, to be
looked up and never written again.
"""

import re
import struct
from collections.abc import Iterator

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
#: The chunks of a PNG file that make its pixels or orientation, or tell of an animation (PNG
#: specification, third edition, section 11).
PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
#: Segments of a JPEG file that do not make its pixels (ITU-T T.81, table B.1): comments and
#: application data, but JFIF (0), EXIF (1) and Adobe's colours (14).
JPEG_DROPPED = {0xFE, *range(0xE0, 0xF0)} - {0xE0, 0xE1, 0xEE}
#: A progressive JPEG refines all its pixels with every scan. Encoders make about ten scans; each
#: takes a decoder as long as a whole picture, so many of them are a trap.
MAX_SCANS = 50
_EOI, _SOS, _PROGRESSIVE = 0xD9, 0xDA, {0xC2, 0xC6, 0xCA, 0xCE}
#: The next marker, within a scan too: bytes of 255 that belong to its data are followed by 0. Those
#: that begin no segment are left out: restarts within a scan, and 1.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


def without_metadata(content: bytes) -> bytes:
    """Return the contents of a picture file with only what makes its pixels and orientation.

    What is not PNG or JPEG, or is damaged, comes back as it is: its decoder will say so.

    Raises:
        ValueError: a JPEG file has more than ``MAX_SCANS`` scans.
    """
    if content.startswith(PNG):
        return PNG + b"".join(_png_chunks(content))
    if content.startswith(JPEG):
        kept = JPEG + b"".join(_jpeg_segments(content))
        _check_scans(kept)  # of what the decoder will see
        return kept
    return content


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """Yield the chunks to keep, each with its length, kind and checksum."""
    place = len(PNG)
    while place + 8 <= len(content):
        (length,), kind = struct.unpack_from(">I", content, place), content[place + 4 : place + 8]
        end = place + 12 + length
        if kind in PNG_KEPT:
            yield content[place:end]
        place = end
    yield content[place:]


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    """Yield the segments to keep, up to the first scan, and then all the rest."""
    place, has_exif = len(JPEG), False
    while place + 4 <= len(content) and content[place] == 0xFF:
        kind = content[place + 1]
        if kind == _SOS:
            break
        end = (
            place + 1
            if kind == 0xFF
            else place + 2 + int.from_bytes(content[place + 2 : place + 4])
        )
        is_exif = kind == 0xE1 and content[place + 4 : place + 10] == b"Exif\0\0"
        if kind not in JPEG_DROPPED and (kind != 0xE1 or (is_exif and not has_exif)):
            yield content[place:end]
        has_exif, place = has_exif or is_exif, end
    yield content[place:]


def _check_scans(content: bytes) -> None:
    is_progressive, scans = False, 0
    for kind in _markers(content):
        is_progressive |= kind in _PROGRESSIVE
        scans += kind == _SOS
        if scans and not is_progressive:  # each part of the picture is in one scan
            return
    if scans > MAX_SCANS:
        raise ValueError(f"it is a JPEG file of {scans} scans; more than {MAX_SCANS} are not read")


def _markers(content: bytes) -> Iterator[int]:
    """Yield the kinds of a JPEG file's markers up to the end of its first picture.

    No decoder reads on there, where phones put a video or more pictures. Segments are skipped by
    their length, since one may hold a preview, which has an end of its own.
    """
    place = len(JPEG)
    while (found := _MARKER.search(content, place)) and (kind := found.group()[1]) != _EOI:
        yield kind
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2])
