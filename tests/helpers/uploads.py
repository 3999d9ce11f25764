"""What strangers may send as a picture: files that can be read, and files that cannot."""

from io import BytesIO

import numpy as np
from PIL import Image

from utils.explain.portable import MAX_PIXELS


def saved(image, kind="PNG", **options):
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def animation():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def turned():
    exif = Image.Exif()
    exif[274] = 6
    return saved(Image.linear_gradient("L").convert("RGB"), "JPEG", exif=exif)


GRADIENT = Image.linear_gradient("L")
#: What makes each file.
READABLE = {
    "16 bits": lambda: saved(Image.fromarray(np.full((9, 9), 40_000, np.uint16))),
    "CMYK": lambda: saved(Image.new("CMYK", (30, 20)), "JPEG"),
    "palette": lambda: saved(GRADIENT.convert("P")),
    "alpha": lambda: saved(Image.new("RGBA", (30, 20), (255, 0, 0, 10))),
    "turned": turned,
    "1×1": lambda: saved(Image.new("RGB", (1, 1))),
    "1×5000": lambda: saved(Image.new("RGB", (1, 5000))),
    "animation": animation,
}
#: What makes each file, and what is said of it.
UNREADABLE = {
    "text": (lambda: b"I am no picture", "it is not a picture"),
    "empty": (lambda: b"", "it is not a picture"),
    "vector": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is not a picture"),
    "truncated": (lambda: saved(GRADIENT)[:-300], "damaged or cut short"),
    "bomb": (lambda: saved(Image.new("1", (20_000, 20_000))), "pixels; make it smaller"),
    "large": (lambda: saved(Image.new("1", (6_000, 5_000))), f"more than {MAX_PIXELS:,}"),
}
