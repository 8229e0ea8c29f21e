"""Read a ground truth file as colours: palettes, transparency, 16 bits and MATLAB matrices are resolved.

First step of reading a mask; the meaning of the colours is found in formats, over the whole dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from crackseg.data.images.files import MAX_PIXELS, read_stored
from crackseg.errors import CracksegError

COLOUR, DEEP = 1 << 24, 2 << 24  # kinds of values: 0-255 is grey, COLOUR | 0xrrggbb, DEEP | 16-bit value
RARE = -1  # the colours of a file beyond its 254 most frequent ones
_MAX_CODES = 255
_CRACKFOREST_VALUE = 2  # groundTruth.Segmentation: 1 is background, 2 is crack
_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF")
_LOSSY_CHROMA = 32  # compression makes such differences of channels in grey masks
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


@dataclass(frozen=True, slots=True)
class Codes:
    """Colours of a mask as small numbers.

    Attributes:
        codes: uint8 (H, W), ordered by brightness.
        values: int64 (C,), the value of each code: 0-255 grey, ``COLOUR | 0xrrggbb``, ``DEEP | 16-bit value``, or
            ``RARE``.
    """

    codes: np.ndarray
    values: np.ndarray


@dataclass
class StoredMask:
    """Ground truth as stored in its file.

    Attributes:
        grey: uint8 (H, W), the largest of the colour's channels; of 16-bit values over 255 the upper byte.
        rgb: uint8 (H, W, 3) where a pixel is not grey, else None.
        numbers: uint8 or uint16 (H, W), which numbers mean: the grey value, a colour palette's index, the red channel,
            or the MATLAB matrix.
        exact: the values are as they were drawn; False after lossy compression.
        deep: None for 8 bits; of 16 bits, whether a value is over 255.
        indices: of a palette of greys its indices, uint8 (H, W), else None.
        default_crack_value: the number that means crack, where the format says so, else None.
    """

    grey: np.ndarray
    rgb: np.ndarray | None
    numbers: np.ndarray
    exact: bool = True
    deep: bool | None = None
    indices: np.ndarray | None = None
    default_crack_value: int | None = None

    @cached_property
    def coded(self) -> Codes:
        """Colours as codes, computed once."""
        if self.rgb is not None:
            return _encode_colours(self.rgb)
        values = np.arange(256)
        if self.deep:  # each upper byte is shown as its most frequent value
            often = count_levels(self.numbers, 65536).reshape(256, 256).argmax(axis=1)
            values = np.where(values | often, DEEP | values << 8 | often, 0)
        return Codes(self.grey, values)


def read_stored_mask(path: Path) -> StoredMask:
    """Read a ground truth: an image of any kind, or ``.mat``.

    Raises:
        CracksegError: it cannot be read, or has no values that can mean crack.
    """
    return _read_mat(path) if path.suffix.lower() == ".mat" else _read_image_mask(path)


def count_levels(values: np.ndarray, num_levels: int) -> np.ndarray:
    """Count how often each level occurs; in parts, since bincount widens its input to 8 bytes a pixel."""
    flat = values.ravel()
    parts = (flat[i : i + (1 << 22)] for i in range(0, flat.size, 1 << 22))
    return sum((np.bincount(p, minlength=num_levels) for p in parts), np.zeros(num_levels, np.int64))


def _read_image_mask(path: Path) -> StoredMask:
    image, image_format = read_stored(path)
    lossy = image_format in _LOSSY_FORMATS or image.info.get("compression") in _LOSSY_TIFF
    if image_format == "WEBP":
        with path.open("rb") as file:
            lossy = b"VP8L" not in file.read(64)
    if image.mode == "CMYK":
        raise CracksegError(
            f"{path}: a CMYK file (for print) has no values that mean crack; save the mask in grey"
        )
    indices = None
    if image.mode in ("P", "PA"):
        indices = np.asarray(image.getchannel(0) if image.mode == "PA" else image)
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")  # YCbCr, LAB, HSV, premultiplied alpha
    values = np.asarray(image)
    if values.ndim == 2 and values.dtype != np.uint8:
        return _from_numbers(_as_unsigned(values, path), exact=not lossy)
    if image.mode in ("RGBA", "LA"):
        values = _flatten_alpha(values)
        if values.ndim == 3 and values.shape[-1] == 1:  # of LA
            values = values[..., 0]
    if lossy and values.ndim == 3 and _is_nearly_grey(values):
        values = values[..., 1]
    rgb = values if values.ndim == 3 and not _is_grey(values) else None
    grey = values if values.ndim == 2 else values[..., 0] if rgb is None else values.max(axis=-1)
    grey = np.ascontiguousarray(grey)
    if indices is None:
        return StoredMask(grey, rgb, grey if rgb is None else rgb[..., 0], not lossy)
    if rgb is None and grey.min() == grey.max() and indices.min() != indices.max():
        return StoredMask(indices, None, indices)  # a palette of one colour says nothing: class numbers
    return StoredMask(
        grey, rgb, grey if rgb is None else indices, not lossy, indices=indices if rgb is None else None
    )


def _is_grey(values: np.ndarray) -> bool:
    """Tell if all channels are equal; (H, W, C)."""
    return all((values[..., 0] == values[..., c]).all() for c in range(1, values.shape[-1]))


def _is_nearly_grey(values: np.ndarray) -> bool:
    """Tell if colours are remains of compression; (H, W, 3)."""
    return float((values.max(axis=-1) - values.min(axis=-1) > _LOSSY_CHROMA).mean()) <= 0.001


def _flatten_alpha(values: np.ndarray) -> np.ndarray:
    """Lay colours with an alpha channel, (H, W, 2 or 4), on black; of drawings in black, take the alpha channel."""
    colour, alpha = values[..., :-1], values[..., -1]
    low, high = int(alpha.min()), int(alpha.max())
    if low == high and (high or colour.min() != colour.max()):
        return np.ascontiguousarray(colour)  # nothing is transparent, or all is and the colours count
    if not colour[alpha > 0].any():
        return alpha  # drawn in black on a transparent sheet
    if np.isin(alpha, (0, high)).all():
        return np.where(alpha[..., None] == 0, np.uint8(0), colour)
    return np.rint(colour * (alpha[..., None].astype(np.float32) / high)).astype(np.uint8)


def _as_unsigned(values: np.ndarray, path: Path) -> np.ndarray:
    """Bring floats of [0, 1] or of whole values, and other integers, to uint8 or uint16."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
        values = np.rint(values * (255 if values.max(initial=0) <= 1 else 1))
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high > 65535:
        raise CracksegError(f"{path}: expected mask values from 0 to 65535, got {low:g} to {high:g}")
    return values.astype(np.uint16 if values.dtype != np.uint8 else np.uint8)


def _from_numbers(numbers: np.ndarray, *, exact: bool = True, default: int | None = None) -> StoredMask:
    deep = bool(numbers.max(initial=0) > 255) if numbers.dtype == np.uint16 else None
    grey = (numbers >> 8 if deep else numbers).astype(np.uint8)
    return StoredMask(grey, None, numbers, exact, deep, default_crack_value=default)


def _encode_colours(rgb: np.ndarray) -> Codes:
    """Number the colours by brightness; beyond 254, the rare ones share a number."""
    rows = max(1, (1 << 22) // rgb.shape[1])  # in parts, since indices widen their input to 8 bytes a pixel
    parts = [slice(top, top + rows) for top in range(0, len(rgb), rows)]
    colours = np.unique(np.concatenate([pd.unique(_pack(rgb[part]).ravel()) for part in parts]))
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255])
    values = np.where((channels == channels[0]).all(axis=0), channels[0], colours | COLOUR).astype(np.int64)
    if len(colours) >= _MAX_CODES:
        counts = sum(
            np.bincount(np.searchsorted(colours, _pack(rgb[part])).ravel(), minlength=len(colours))
            for part in parts
        )
        values[np.argsort(-np.asarray(counts), kind="stable")[_MAX_CODES - 1 :]] = RARE
    order = np.lexsort((colours, channels.sum(axis=0), values == RARE))
    code = np.empty(len(colours), np.uint8)
    code[order] = np.minimum(np.arange(len(colours)), _MAX_CODES - 1)
    codes = np.empty(rgb.shape[:2], np.uint8)
    for part in parts:
        codes[part] = code[np.searchsorted(colours, _pack(rgb[part]))]
    return Codes(codes, values[order][:_MAX_CODES])


def _pack(rgb: np.ndarray) -> np.ndarray:
    packed = rgb[..., 0].astype(np.int32)
    for channel in (1, 2):
        packed <<= 8
        packed |= rgb[..., channel]
    return packed


def _read_mat(path: Path) -> StoredMask:
    """Read a MATLAB ground truth: CrackForest's ``groundTruth.Segmentation``, or a file with a single matrix."""
    import scipy.io  # only for such files

    try:
        content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise CracksegError(f"{path}: MATLAB 7.3 file; save it again in MATLAB with save(…, '-v7')") from error
    except Exception as error:  # loadmat raises many kinds on damaged files
        raise CracksegError(f"{path}: not a MATLAB file that can be read ({error})") from error
    truth = content.get("groundTruth")
    if isinstance(truth, np.ndarray) and truth.dtype == object and truth.size:
        truth = truth.flat[0]  # several annotators: the first
    segmentation = getattr(truth, "Segmentation", None)
    if segmentation is not None:
        return _from_numbers(_as_labels(np.asarray(segmentation), path), default=_CRACKFOREST_VALUE)
    matrices = [
        v for k, v in content.items() if not k.startswith("__") and isinstance(v, np.ndarray) and v.ndim == 2
    ]
    if len(matrices) != 1:
        names = sorted(k for k in content if not k.startswith("__"))
        raise CracksegError(
            f"{path}: expected groundTruth.Segmentation, or one matrix alone; the file holds {', '.join(names)}"
        )
    return _from_numbers(_as_labels(matrices[0], path))


def _as_labels(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim != 2 or values.dtype.kind not in "buif" or values.size > MAX_PIXELS:
        raise CracksegError(f"{path}: expected a matrix of numbers, got {values.dtype} of shape {values.shape}")
    values = values.astype(np.uint8) if values.dtype == bool else np.nan_to_num(values)
    labels = values.clip(0, 65535).astype(np.uint8 if values.dtype.itemsize == 1 else np.uint16)
    if (labels != values).any():
        wrong = values[labels != values].flat[0]
        raise CracksegError(f"{path}: expected whole numbers from 0 to 65535 as labels, got {wrong}")
    return labels
