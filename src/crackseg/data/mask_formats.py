"""Ground truth in any format -> {0, 1}, and a refusal where the values do not say what a crack is.

Masks are read one after the other; what their values mean is judged over the whole dataset, since UAV75's 204
(planking, not a crack) and the grey edge of an anti-aliased crack look alike in a single pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

from crackseg.data.image_io import MAX_PIXELS, read_raw
from crackseg.data.wording import count_of
from crackseg.errors import CracksegError

_INVERTED_FRACTION = 0.6  # half of the masks with more crack than this: black on white, or regions of interest
_PHOTOGRAPH_FRACTION = 0.5  # share of mid-grey pixels that no mask has, however soft its edges
_CRACKFOREST_VALUE = 2  # groundTruth.Segmentation: 1 is background, 2 is crack
_3X3 = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class RawMask:
    """A ground truth as stored.

    Attributes:
        values: uint8 or uint16 (H, W): grey values, palette indices, or a MATLAB matrix.
        exact: the values are as they were drawn; False after lossy compression.
        default_crack_value: the value that means crack, where the format says so, else None.
    """

    values: np.ndarray
    exact: bool = True
    default_crack_value: int | None = None


@dataclass(slots=True)
class MaskReader:
    """Reads a dataset's ground truth and remembers what its values were.

    Attributes:
        crack_values: the values that mean crack, or None: 1 in masks of {0, 1}, index 1 in palettes of {0, 1},
            2 in CrackForest's ``.mat``, otherwise what is over 127.
    """

    crack_values: tuple[int, ...] | None = None
    _histogram: np.ndarray = field(default_factory=lambda: np.zeros(65536, np.int64))
    _inside: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # 3 x 3 of one value
    _alone: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # beside 0 and its own value only
    _judged: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))  # pixels that > 127 decided
    _fractions: list[float] = field(default_factory=list)
    _inexact: int = 0

    def read(self, path: Path) -> np.ndarray:
        """Read one ground truth: an image of any kind, or ``.mat``.

        Returns:
            uint8 (H, W) of {0, 1}.
        Raises:
            CracksegError: it cannot be read, or holds several colours and no ``crack_values`` were given.
        """
        raw = read_mat(path) if path.suffix.lower() == ".mat" else read_image_mask(path, self.crack_values is None)
        self._histogram += _count(raw.values, 65536)
        self._inexact += not raw.exact
        if self.crack_values is not None:
            mask = np.isin(raw.values, self.crack_values)
        elif raw.default_crack_value is not None:
            mask = raw.values == raw.default_crack_value
        elif raw.exact and raw.values.max(initial=0) <= 1:
            mask = raw.values == 1
        else:
            grey = (raw.values if raw.values.max() <= 255 else raw.values >> 8).astype(np.uint8)
            self._look_at(grey, exact=raw.exact)
            mask = grey > 127
        fraction = float(mask.mean())
        if fraction > 0:
            self._fractions.append(fraction)
        return mask.astype(np.uint8)

    def _look_at(self, grey: np.ndarray, *, exact: bool) -> None:
        counts = _count(grey, 256)
        self._judged += counts
        if not exact or not counts[1:255].any():
            return
        largest = cv2.dilate(grey, _3X3)
        smallest = cv2.erode(grey, _3X3)
        smallest_above_0 = cv2.erode(np.where(grey == 0, np.uint8(255), grey), _3X3)
        self._inside += _count(grey[(largest == grey) & (smallest == grey)], 256)
        self._alone += _count(grey[(largest == grey) & (smallest_above_0 == grey)], 256)

    def find_problems(self, *, mostly_crack_is_one: bool = True) -> list[str]:
        """What forbids trusting the masks read so far; empty if nothing.

        Args:
            mostly_crack_is_one: distrust masks with more crack than background.
        """
        if self.crack_values is not None:
            absent = [v for v in self.crack_values if v > 65535 or v < 0 or not self._histogram[v]]
            return [f"no mask has the crack value {v}; values seen: {self._describe_values()}" for v in absent]
        many_levels = np.count_nonzero(self._judged) > 64
        if many_levels and self._judged[32:224].sum() > _PHOTOGRAPH_FRACTION * self._judged.sum():
            return ["the ground truth looks like photographs: most of its pixels are neither dark nor light"]
        classes = self._find_classes()
        if len(classes) > 1:
            return [
                f"the masks hold several kinds of pixels ({', '.join(map(str, classes))}): which are cracks? "
                f"Values seen: {self._describe_values()}. Say it, e.g. --crack-value {classes[-1]} (repeat it for "
                "more than one)"
            ]
        if self._judged[1:].any() and not self._judged[128:].any():
            return [
                "no mask has a value over 127, so none would have a crack; values seen: "
                f"{self._describe_values()}. Say which means crack, e.g. --crack-value "
                f"{int(self._judged[1:].argmax()) + 1}"
            ]
        if mostly_crack_is_one and self._fractions and float(np.median(self._fractions)) > _INVERTED_FRACTION:
            return [
                f"most of the pixels are crack in most masks (median {np.median(self._fractions):.0%}): regions "
                "of interest rather than ground truth, or cracks drawn in black on white. Say what means crack: "
                "--crack-value 0, or --crack-value 255 if this is right"
            ]
        return []

    def find_notes(self) -> list[str]:
        """What the user should know of the masks read so far."""
        if self._inexact and self.crack_values is not None:
            return [
                f"{count_of(self._inexact, 'mask')} in JPEG: compression changed the values, so some cracks are missed"
            ]
        if self._histogram[3:].any() and self._histogram[_CRACKFOREST_VALUE] and not self._judged.any():
            return [f"only {_CRACKFOREST_VALUE} was taken as crack; values seen: {self._describe_values()}"]
        return []

    def _find_classes(self) -> list[int]:
        """Values that are kinds of pixels in their own right rather than the soft edge of a crack.

        A kind of pixel fills areas (3 x 3 of one value), or draws lines that stand alone on the background; on a
        soft edge, neighbours differ.
        """
        counts = self._judged
        levels = np.flatnonzero(counts)
        foreground = counts[1:].sum()
        areas = (self._inside >= 5) & (self._inside >= 0.05 * counts)
        lines = (self._alone >= 20) & (self._alone >= 0.9 * counts) & (counts >= 0.01 * foreground)
        classes = [int(v) for v in np.flatnonzero(areas | lines) if 0 < v < 255]
        if len(levels) > 16:
            # Remains of compression make flat patches near black and near white: no kinds of pixels.
            classes = [v for v in classes if 16 <= v < 240]
        if len(classes) > 8:  # so many flat values are a slow gradient
            return []
        return [*classes, 255] if counts[255] else classes

    def _describe_values(self) -> str:
        levels = np.flatnonzero(self._histogram)
        shares = self._histogram / self._histogram.sum()
        most = sorted(sorted(levels, key=lambda v: -shares[v])[:8])
        rest = f" and {len(levels) - len(most)} more" if len(levels) > len(most) else ""
        return ", ".join(f"{v} ({shares[v]:.3%})" for v in most) + rest


def has_shape_of(image_size: tuple[float, float], mask: np.ndarray) -> bool:
    """Whether a mask fits an image up to a common scale, as Stone331's half-size ground truth does.

    Args:
        image_size: (width, height) in pixels.
        mask: (H, W). Of a scaled mask each side may be rounded; if one side is the image's, so must be the other.
    """
    (width, height), (mask_height, mask_width) = image_size, mask.shape
    if mask_width == width or mask_height == height:
        return (mask_width, mask_height) == (width, height)
    return abs(mask_height - height * mask_width / width) <= max(1.0, mask_width / width)


def _count(values: np.ndarray, num_levels: int) -> np.ndarray:
    """How often each level occurs; in parts, since bincount widens its input to 8 bytes a pixel."""
    flat = values.ravel()
    parts = (flat[i : i + (1 << 22)] for i in range(0, flat.size, 1 << 22))
    return sum((np.bincount(p, minlength=num_levels) for p in parts), np.zeros(num_levels, np.int64))


def read_image_mask(path: Path, colours_must_agree: bool) -> RawMask:
    """Read a ground truth that is an image.

    Args:
        path: image of any mode; of several channels the first counts, alpha only says where nothing was drawn.
        colours_must_agree: report pixels of several colours instead of taking the first channel.
    """
    values = read_raw(path)
    with Image.open(path) as header:
        exact = header.format not in ("JPEG", "MPO", "WEBP")
        mode, palette = header.mode, header.getpalette()
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
        values = np.rint(values * (255 if values.max(initial=0) <= 1 else 1))
    if values.ndim == 3:
        values = _one_channel(values, mode, path, colours_must_agree, exact)
    elif mode == "P" and colours_must_agree and palette and values.max() > 1:
        colours = np.array(palette, np.uint8).reshape(-1, 3)
        used = np.unique(values)
        if used.max() < len(colours) and (np.ptp(colours[used].astype(int), axis=1) == 0).all():
            values = colours[values, 0]  # a palette of greys is a way to store grey values
    return RawMask(_as_unsigned(values), exact)


def _as_unsigned(values: np.ndarray) -> np.ndarray:
    return values if values.dtype in (np.uint8, np.uint16) else values.clip(0, 65535).astype(np.uint16)


def _one_channel(values: np.ndarray, mode: str, path: Path, colours_must_agree: bool, exact: bool) -> np.ndarray:
    if mode == "CMYK":
        raise CracksegError(
            f"{path}: a CMYK file (for print) has no values that mean crack; save the mask in grey"
        )
    if mode in ("RGBA", "LA"):
        colour, alpha = values[..., :-1], values[..., -1]
        if not colour.any() and alpha.min() <= 127 < alpha.max():
            return alpha  # drawn in black on a transparent sheet
        values = np.where(alpha[..., None] == 0, np.uint8(0), colour)
    grey = values[..., 0]
    if not colours_must_agree or (values == values[..., :1]).all():
        return grey
    if not exact:
        return values.max(axis=-1)
    packed = (values.astype(np.int64) << (16, 8, 0)[: values.shape[-1]]).sum(axis=-1)
    colours, counts = np.unique(packed, return_counts=True)
    # A coloured soft edge has many colours, each rare; kinds of pixels are few and frequent.
    drawn = [(c, n) for c, n in zip(colours, counts, strict=True) if c and n >= 0.01 * counts[colours > 0].sum()]
    if len(drawn) > 1 and len(colours) <= 64:
        seen = ", ".join(f"#{c:06x} ({n / packed.size:.3%})" for c, n in drawn[:8])
        raise CracksegError(
            f"{path}: several colours ({seen}): which are cracks? Say it by the value of the red channel, "
            "with --crack-value, or convert the masks to grey"
        )
    return values.max(axis=-1)  # one colour on black, e.g. red or green


def read_mat(path: Path) -> RawMask:
    """Read a MATLAB ground truth: CrackForest's ``groundTruth.Segmentation``, or a file with a single matrix."""
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
        return RawMask(_as_labels(np.asarray(segmentation), path), default_crack_value=_CRACKFOREST_VALUE)
    matrices = [
        v for k, v in content.items() if not k.startswith("__") and isinstance(v, np.ndarray) and v.ndim == 2
    ]
    if len(matrices) != 1:
        names = sorted(k for k in content if not k.startswith("__"))
        raise CracksegError(
            f"{path}: expected groundTruth.Segmentation, or one matrix alone; the file holds {', '.join(names)}"
        )
    return RawMask(_as_labels(matrices[0], path))


def _as_labels(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim != 2 or values.dtype.kind not in "buif" or values.size > MAX_PIXELS:
        raise CracksegError(f"{path}: expected a matrix of numbers, got {values.dtype} of shape {values.shape}")
    labels = _as_unsigned(np.nan_to_num(values))
    if (labels != values).any():
        wrong = values[labels != values].flat[0]
        raise CracksegError(f"{path}: expected whole numbers from 0 to 65535 as labels, got {wrong}")
    return labels
