"""Reading and writing photographs, masks and probability maps.

Images come out upright (EXIF), RGB, uint8, whatever the file held; sizes are checked in the header, before a
decompression bomb can be decoded. Files are written beside their place and renamed.
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from crackseg.errors import CracksegError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_PIXELS = 250_000_000  # 12,000 x 9,000 fits; 30,000 x 30,000 is refused

Image.MAX_IMAGE_PIXELS = None  # our own limit below says more than Pillow's warning


def _open(content: bytes, name: str, max_pixels: int) -> Image.Image:
    if not content:
        raise CracksegError(f"{name}: the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, RuntimeError) as error:
        raise CracksegError(
            f"{name}: not an image that can be read; expected one of {', '.join(IMAGE_EXTENSIONS)}"
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise CracksegError(
            f"{name}: {width} x {height} pixels are {width * height / 1e6:.0f} megapixels, over the limit of "
            f"{max_pixels / 1e6:.0f}; cut the image into parts first"
        )
    return image


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:  # RuntimeError: AVIF
        raise CracksegError(f"{name}: the image is damaged or cut short ({error}); fetch it again") from error


def _load(image: Image.Image, name: str) -> Image.Image:
    with _decoding(name):
        image.load()
    return image


def _to_uint8(image: Image.Image) -> Image.Image:
    """Bring 16-bit and float greyscale to 8 bits; the range is the format's, not the image's own."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray((np.nan_to_num(np.asarray(image)).clip(0, 1) * 255).astype(np.uint8))
    return image


def decode_image(content: bytes, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an encoded photograph.

    Args:
        content: the file's bytes.
        name: what errors call it, e.g. its path.
        max_pixels: refuse more than this many pixels, before decoding.
    Returns:
        uint8 (H, W, 3), RGB, upright.
    Raises:
        CracksegError: empty, no image, damaged, cut short, or too large.
    """
    image = _open(content, name, max_pixels)
    end_mark = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(image.format or "")
    if (
        end_mark
        and image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and end_mark in content[-4096:]
    ):
        # OpenCV decodes faster than Pillow, but takes a cut file without a word: hence the end mark.
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if bgr is not None:
            return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    image = _to_uint8(ImageOps.exif_transpose(_load(image, name)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        # On white: what lies under full transparency is arbitrary and often black.
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photograph as uint8 (H, W, 3), RGB, upright; errors as in :func:`decode_image`."""
    return decode_image(_read_bytes(path), name=str(path), max_pixels=max_pixels)


def read_raw(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file's stored values without turning them into colours: palette indices, RGBA, 16 bits.

    Returns:
        (H, W) or (H, W, C), the file's own dtype; palette images give their indices; 1-bit images 0/1.
    """
    image = ImageOps.exif_transpose(_load(_open(_read_bytes(path), str(path), max_pixels), str(path)))
    values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values


def read_size(path: Path) -> tuple[int, int]:
    """Upright (width, height) in pixels, from the header alone."""
    image = _open(_read_bytes(path), str(path), 10**12)
    width, height = image.size
    with _decoding(str(path)):  # Pillow reads a PNG to its end for this
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def read_mask(path: Path) -> np.ndarray:
    """Read a canonical mask (``data/NAME/masks``): uint8 (H, W), 0 or 1."""
    values = read_raw(path)
    if values.ndim != 2:
        raise CracksegError(f"{path}: expected a one-channel mask, got shape {values.shape}; import it again")
    return (values > 127).astype(np.uint8)


def read_probability_map(path: Path) -> np.ndarray:
    """Read a probability map as float32 (H, W) in [0, 1]; files and errors as in :func:`read_stored_map`."""
    values = read_stored_map(path)
    if values.dtype.kind == "u":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return values.astype(np.float32)


def read_stored_map(path: Path) -> np.ndarray:
    """Read a probability map as it is stored: 8- or 16-bit grey PNG (full scale is 1), or float ``.npy``.

    Scoring compares these exactly; 128/255, say, has no exact float32.

    Returns:
        uint8 or uint16 (H, W) of a PNG; float32 or float64 (H, W) in [0, 1] of a ``.npy``.
    Raises:
        CracksegError: not one channel, not a number, or outside [0, 1].
    """
    if path.suffix == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise CracksegError(f"{path}: not a NumPy array that can be read ({error})") from error
    else:
        values = read_raw(path)
        if values.ndim == 3 and (values[..., :1] == values[..., :3]).all():
            values = values[..., 0]  # grey, stored as colour
    if values.ndim != 2:
        two = values.ndim == 3 and 2 in (values.shape[0], values.shape[-1])
        advice = (
            "; of a model with two classes, save the crack's probability alone: softmax over the classes, class 1"
        )
        raise CracksegError(
            f"{path}: expected one channel (H, W), got shape {values.shape}{advice if two else ''}"
        )
    if values.dtype.kind in "ui" and path.suffix != ".npy":
        return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)
    if values.dtype.kind not in "fb":
        raise CracksegError(f"{path}: expected floats in [0, 1], got {values.dtype}; divide by its full scale")
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high) and low >= 0 and high <= 1):
        raise CracksegError(
            f"{path}: expected probabilities in [0, 1], got "
            + ("NaN" if np.isnan(low) else f"values from {low:g} to {high:g}")
        )
    return values if values.dtype == np.float64 else values.astype(np.float32)


def encode_png(values: np.ndarray) -> bytes:
    """Encode uint8 or uint16 (H, W), or RGB uint8 (H, W, 3), as PNG."""
    if values.ndim == 3:
        values = cv2.cvtColor(values, cv2.COLOR_RGB2BGR)
    ok, content = cv2.imencode(".png", values)
    assert ok, values.dtype
    return content.tobytes()


def write_png(path: Path, values: np.ndarray) -> None:
    """Write a PNG (see :func:`encode_png`) beside its place and rename it."""
    write_bytes(path, encode_png(values))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask of {0, 1} or bool (H, W) as 8-bit PNG, 0 or 255."""
    write_png(path, (mask > 0).astype(np.uint8) * np.uint8(255))


def write_probability_map(path: Path, crack_prob: np.ndarray) -> None:
    """Write float (H, W) in [0, 1] as 16-bit PNG: rounding is at most 1/131,070."""
    write_png(path, np.rint(crack_prob.clip(0, 1) * 65535).astype(np.uint16))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CracksegError(f"{path}: cannot be read ({error.strerror})") from error
