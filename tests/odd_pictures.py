"""Photographs as they really come: turned, in CMYK, with 16 bits, transparent; and files that are none."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 70, 90


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def make_scene() -> np.ndarray:
    """A grey surface, brighter to the right, with a dark line in the upper left; uint8 (70, 90, 3), RGB."""
    image = np.linspace(110, 190, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, axis=0)
    image[8:11, 5:45] = 30
    return image[..., None].repeat(3, axis=2)


def turned_jpeg() -> bytes:
    """As a phone writes it that was held upright: lying on its side, with a note (EXIF 6) to turn it clockwise."""
    lying = Image.fromarray(np.rot90(make_scene()))  # counter-clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encode(lying, "JPEG", quality=95, exif=exif.tobytes())


def cmyk_tiff() -> bytes:
    return _encode(Image.fromarray(make_scene()).convert("CMYK"), "TIFF")


def deep_tiff() -> bytes:
    """16-bit grey."""
    return _encode(Image.fromarray(make_scene()[..., 0].astype(np.uint16) * 257), "TIFF")


def transparent_png() -> bytes:
    """Opaque everywhere but in the last ten rows, where black lies under full transparency."""
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[-10:] = 0
    return _encode(Image.fromarray(np.concatenate([make_scene() * (alpha > 0), alpha], axis=2)), "PNG")


def plain_png() -> bytes:
    return _encode(Image.fromarray(make_scene()), "PNG")


READABLE = {
    "turned.jpg": turned_jpeg,
    "cmyk.tif": cmyk_tiff,
    "deep.tif": deep_tiff,
    "transparent.png": transparent_png,
    "plain.png": plain_png,
}
BROKEN = {
    "empty.png": (b"", "empty.png: the file is empty (0 bytes)"),
    "letter.jpg": (b"Dear Sir or Madam,\n" * 9, "letter.jpg: not an image that can be read"),
    "cut.png": (plain_png()[:150], "cut.png: the image is damaged or cut short"),
}
