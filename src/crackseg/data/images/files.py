"""Read and write photographs, masks and probability maps as files.

Photographs come out upright (EXIF), RGB, uint8, whatever the file held
(:mod:`crackseg.data.images.decoding`). Files are written next to their place and renamed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tokenize import TokenError

import cv2
import numpy as np
from PIL import Image

from crackseg.data.images.decoding import (
    MAX_PIXELS,
    Decoded,
    decode_image,
    decode_photograph,
    decode_stored,
    decoding,
    open_image,
    upright_size,
)
from crackseg.data.images.kinds import HEAD_BYTES, IMAGE_EXTENSIONS, why_unread
from crackseg.errors import CracksegError
from crackseg.files import write_bytes

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "Decoded",
    "decode_image",
    "decode_photograph",
    "encode_png",
    "read_file",
    "read_image",
    "read_mask",
    "read_photograph",
    "read_probability_map",
    "read_size",
    "read_stored",
    "read_stored_map",
    "to_probability",
    "write_bytes",
    "write_mask",
    "write_png",
    "write_probability_map",
]


_BAND = 512  # rows written at a time


def read_photograph(path: Path, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Read a photograph, with remarks on what was decided; errors as in :func:`decode_photograph`."""
    return decode_photograph(read_file(path), name=str(path), max_pixels=max_pixels)


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photograph as uint8 (H, W, 3), RGB, upright; errors as in :func:`decode_photograph`."""
    return read_photograph(path, max_pixels=max_pixels).image_HW3


def read_stored(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """Read a file without changing its values or mode; return the image, upright, and its format."""
    return decode_stored(read_file(path), name=str(path), max_pixels=max_pixels)


def read_size(path: Path) -> tuple[int, int]:
    """Upright (width, height) in pixels, from the header alone."""
    content = read_file(path)
    with decoding(str(path)):  # Pillow reads a PNG to its end for this
        return upright_size(open_image(content, str(path), 10**12))


def read_mask(path: Path) -> np.ndarray:
    """Read a canonical mask (``data/NAME/masks``): uint8 (H, W), 0 or 1."""
    image, _ = read_stored(path)
    if image.mode != "L":  # a palette's indices, say, are no values
        raise CracksegError(f"{path}: expected a mask of 8-bit grey, got mode {image.mode}; import it again")
    return (np.asarray(image) > 127).astype(np.uint8)


def read_probability_map(path: Path) -> np.ndarray:
    """Read a probability map as float32 (H, W) in [0, 1]; files and errors as in :func:`read_stored_map`."""
    return to_probability(read_stored_map(path))


def to_probability(stored: np.ndarray) -> np.ndarray:
    """Turn a map as it is stored (:func:`read_stored_map`) into float32 in [0, 1]."""
    values = stored.astype(np.float32)
    return values / np.float32(np.iinfo(stored.dtype).max) if stored.dtype.kind == "u" else values


def read_stored_map(path: Path) -> np.ndarray:
    """Read a probability map as it is stored: 8- or 16-bit grey (full scale is 1), or floats, TIFF or ``.npy``.

    Scoring compares these exactly; 128/255, say, has no exact float32.

    Returns:
        uint8 or uint16 (H, W) of an image; float32 or float64 (H, W) in [0, 1] of a ``.npy`` or a float TIFF.
    Raises:
        CracksegError: not one channel, not a number, or outside [0, 1].
    """
    values = _read_array(path) if path.suffix.lower() == ".npy" else _read_map_image(path)
    if not values.size:
        raise CracksegError(f"{path}: a map without pixels, of shape {values.shape}")
    if values.ndim != 2:
        two = values.ndim == 3 and 2 in (values.shape[0], values.shape[-1])
        advice = (
            "; of a model with two classes, save the crack's probability alone: softmax over the classes, class 1"
        )
        raise CracksegError(
            f"{path}: expected one channel (H, W), got shape {values.shape}{advice if two else ''}"
        )
    if values.dtype.kind in "ui" and path.suffix.lower() != ".npy":
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


def _read_array(path: Path) -> np.ndarray:
    """Read a ``.npy``. A damaged header makes NumPy's parser raise errors of several modules."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # refuses a header that promises too much
        if not isinstance(mapped, np.ndarray):
            raise TypeError("several arrays")
        return np.array(mapped)
    except (
        ValueError,
        OSError,
        EOFError,
        TypeError,
        SyntaxError,
        TokenError,
        OverflowError,
        MemoryError,
    ) as error:
        raise CracksegError(f"{path}: not a NumPy array that can be read ({error})") from error


def _read_map_image(path: Path) -> np.ndarray:
    """Read a map that is an image: grey in any mode, also as a palette or as equal channels."""
    image, _ = read_stored(path)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    values = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        if values[..., -1].min() < 255:
            raise CracksegError(
                f"{path}: parts of the map are transparent; expected grey without an alpha channel"
            )
        values = values[..., :-1]
    if values.ndim == 3 and (values == values[..., :1]).all():
        return values[..., 0]  # grey, stored as colour
    if values.ndim == 3:
        raise CracksegError(
            f"{path}: expected one channel (H, W), got shape {values.shape} in colours, e.g. of a colour map; save the "
            "probabilities in grey"
        )
    if values.dtype.kind == "i" and (values.min() < 0 or values.max() > 65535):
        raise CracksegError(
            f"{path}: expected 8 or 16 bits, got values from {values.min()} to {values.max()}; divide by their full "
            "scale and save floats as .npy"
        )
    return values.astype(np.uint8) if values.dtype == bool else values


def encode_png(values: np.ndarray) -> bytes:
    """Encode uint8 or uint16 (H, W), or RGB uint8 (H, W, 3), as PNG."""
    if values.ndim == 3:
        values = cv2.cvtColor(values, cv2.COLOR_RGB2BGR)
    ok, content = cv2.imencode(".png", values)
    assert ok, values.dtype
    return content.tobytes()


def write_png(path: Path, values: np.ndarray) -> None:
    """Write a PNG (see :func:`encode_png`) in one step."""
    write_bytes(path, encode_png(values))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask of {0, 1} or bool (H, W) as 8-bit PNG, 0 or 255."""
    write_png(path, (mask > 0).astype(np.uint8) * np.uint8(255))


def write_probability_map(path: Path, crack_prob: np.ndarray) -> None:
    """Write float (H, W) in [0, 1] as 16-bit PNG: rounding is at most 1/131,070."""
    stored = np.empty(crack_prob.shape, np.uint16)
    for start in range(0, len(stored), _BAND):  # a map of a hundred megapixels leaves no memory for copies
        band = crack_prob[start : start + _BAND]
        stored[start : start + _BAND] = np.rint(band.clip(0, 1) * 65535)
    write_png(path, stored)


def read_file(path: Path) -> bytes:
    """Read an image's content; raw files and videos are refused before their many megabytes are read."""
    try:
        _require_file(path)
        with path.open("rb") as file:
            if reason := why_unread(path.name, file.read(HEAD_BYTES)):
                raise CracksegError(f"{path}: {reason}")
            file.seek(0)
            return file.read()
    except OSError as error:
        raise CracksegError(f"{path}: cannot be read ({error.strerror})") from error
    except MemoryError as error:
        raise CracksegError(f"{path}: reading it takes more memory than there is") from error


def _require_file(path: Path) -> None:
    """Refuse anything but a regular file, without opening it: reading a pipe would wait for ever."""
    try:
        mode = path.stat().st_mode
    except OSError:
        if path.is_symlink():
            raise CracksegError(
                f"{path}: a link to {os.readlink(path)}, which is not there or leads back"
            ) from None
        raise
    if stat.S_ISDIR(mode):
        os.listdir(path)
        raise CracksegError(f"{path}: a folder; expected a file")
    if not stat.S_ISREG(mode):
        raise CracksegError(f"{path}: a pipe, socket or device; expected a file")
