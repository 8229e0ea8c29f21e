"""Compare and measure cracks as centre lines: centre-line IoU with a tolerance, continuity, length.

Used next to the metrics of :mod:`crackseg.evaluation`, for one crack mask at a threshold chosen beforehand.

Shape legend: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache

import cv2
import numpy as np

from crackseg.errors import CracksegError

_BAND = 4_000_000  # pixels thinned at a time
_HALO = 64  # rows around them that thinning also reads: exact for cracks narrower than this
# A pixel's eight neighbours as bits of one number: counter-clockwise, from the right.
_RING_33 = np.array([[8, 4, 2], [16, 0, 1], [32, 64, 128]], np.float32)


@dataclass(frozen=True, slots=True)
class LineCounts:
    """Counts of one image, or sums over several. S is a centre line, G the ground truth, B the prediction.

    Attributes:
        truth: |S(G)|, pixels.
        found: |S(G) ∧ S(B)⊕D|, pixels of the true line within the tolerance of the predicted one.
        stray: |S(B) ∧ ¬(S(G)⊕D)|, pixels of the predicted line outside the tolerance of the true one.
        truth_pieces: number of 8-connected components of G.
        predicted_pieces: number of 8-connected components of B.
        stray_pieces: how many of these lie completely outside the tolerance: false alarms, not broken cracks.
    """

    truth: int
    found: int
    stray: int
    truth_pieces: int
    predicted_pieces: int
    stray_pieces: int

    def __add__(self, other: LineCounts) -> LineCounts:
        """Pool the counts of two sets of images."""
        return LineCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def centerline_iou(self) -> float:
        """IoU = found / (truth + stray), in [0, 1]; 0 if there is no line at all."""
        return self.found / ((self.truth + self.stray) or 1)

    @property
    def continuity(self) -> float | None:
        """Ratio of predicted to true connected components: 1 is best, more is broken or false, less is missed.

        None if the ground truth has no component.
        """
        return self.predicted_pieces / self.truth_pieces if self.truth_pieces else None


def make_disk(radius_px: int) -> np.ndarray:
    """Return the pixels at most ``radius_px`` from the middle one, uint8 (2·radius + 1, 2·radius + 1) of {0, 1}."""
    y, x = np.ogrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    return (y**2 + x**2 <= radius_px**2).astype(np.uint8)


def count_lines(crack_mask_HW: np.ndarray, mask_HW: np.ndarray, *, tolerance_px: int = 4) -> LineCounts:
    """Count pixels and connected components for centre-line IoU and continuity.

    Centre-line IoU (clIoU) is OmniCrack30k's (Benz and Rodehorst, CVPR Workshops 2024; ``evaluation.py`` and
    ``inference.py`` of github.com/ben-z-original/omnicrack30k, commits 295be0b and 11ae9ca): both masks thinned by
    Guo and Hall's method (:func:`thin`), both lines dilated by the disc x² + y² <= tolerance_px², counts
    pooled over a dataset, IoU = found / (truth + stray). Their model's mask is where crack is the more probable
    class, i.e. a raw probability over 0.5; their tolerance is 4 px in images of full size, not resized ones. Their
    ground truth is stored as centre lines; thinning does not change lines of 1 px.

    Args:
        crack_mask_HW: bool (H, W), or uint8 {0, 1}; prediction at a threshold.
        mask_HW: bool (H, W), or uint8 {0, 1}; ground truth.
        tolerance_px: radius of the disc, >= 0, in pixels of this mask.
    Raises:
        CracksegError: the shapes differ, an array is no mask, or tolerance_px is negative.
    """
    if crack_mask_HW.shape != mask_HW.shape:
        raise CracksegError(
            f"the prediction is {crack_mask_HW.shape} pixels and its ground truth {mask_HW.shape}; predict at the size "
            "of the ground truth"
        )
    if tolerance_px < 0:
        raise CracksegError(f"tolerance_px is {tolerance_px}; expected a whole number of pixels, 0 or more")
    predicted_HW, truth_HW = as_bool(crack_mask_HW), as_bool(mask_HW)
    predicted_line_HW, truth_line_HW = thin(predicted_HW), thin(truth_HW)
    around = make_disk(tolerance_px)
    near_truth_HW = cv2.dilate(truth_line_HW.view(np.uint8), around).view(bool)
    near_predicted_HW = cv2.dilate(predicted_line_HW.view(np.uint8), around).view(bool)
    num_pieces, piece_HW = _label_pieces(predicted_HW)
    near_pieces = np.unique(piece_HW[predicted_HW & near_truth_HW])
    return LineCounts(
        truth=int(np.count_nonzero(truth_line_HW)),
        found=int(np.count_nonzero(truth_line_HW & near_predicted_HW)),
        stray=int(np.count_nonzero(predicted_line_HW & ~near_truth_HW)),
        truth_pieces=count_pieces(truth_HW),
        predicted_pieces=num_pieces,
        stray_pieces=num_pieces - len(near_pieces),
    )


def skeleton_length_px(crack_mask_HW: np.ndarray) -> float:
    """Measure the length of a mask's centre lines, in pixels.

    The mask is thinned (:func:`thin`). Each step between neighbouring pixels of the line counts 1, a diagonal step √2
    unless a third pixel also joins the two. So a single pixel has length 0, a straight line of n pixels n - 1, and a
    line at another angle is measured up to 8 % too long.

    Args:
        crack_mask_HW: bool (H, W), or uint8 {0, 1}.
    """
    length = 0.0
    for start, stop, _, line_HW in _thin_bands(as_bool(crack_mask_HW)):
        # A step belongs to the band of its upper pixel; one more row is read for the lower one.
        upper_HW, lower_HW = line_HW[: stop - start], line_HW[1:]
        horizontal = np.count_nonzero(upper_HW[:, :-1] & upper_HW[:, 1:])
        upper_HW = upper_HW[: len(lower_HW)]
        vertical = np.count_nonzero(upper_HW & lower_HW)
        left_HW, right_HW, low_left_HW, low_right_HW = (
            upper_HW[:, :-1], upper_HW[:, 1:], lower_HW[:, :-1], lower_HW[:, 1:],
        )  # fmt: skip
        diagonal = np.count_nonzero(left_HW & low_right_HW & ~right_HW & ~low_left_HW)
        diagonal += np.count_nonzero(right_HW & low_left_HW & ~left_HW & ~low_right_HW)
        length += horizontal + vertical + 2**0.5 * diagonal
    return float(length)


def thin(crack_mask_HW: np.ndarray) -> np.ndarray:
    """Thin a mask to lines of one pixel by Guo and Hall's method (Comm. ACM 32(3), 1989, their algorithm A1).

    The result equals scikit-image's ``thin``, pixel by pixel, and is about 8 times as fast: OpenCV encodes the
    neighbours of each pixel as a number and looks up if the pixel is removed.

    Args:
        crack_mask_HW: bool (H, W), or uint8 {0, 1}; not changed.
    Returns:
        bool (H, W).
    """
    line_HW = as_bool(crack_mask_HW).astype(np.uint8)
    num_pixels, before = cv2.countNonZero(line_HW), -1
    while num_pixels != before:
        before = num_pixels
        for stays in _tables_of_thinning():
            ring_HW = cv2.filter2D(line_HW, -1, _RING_33, borderType=cv2.BORDER_CONSTANT)
            cv2.bitwise_and(line_HW, cv2.LUT(ring_HW, stays), dst=line_HW)
        num_pixels = cv2.countNonZero(line_HW)
    return line_HW.view(bool)


@cache
def _tables_of_thinning() -> tuple[np.ndarray, np.ndarray]:
    """Lookup tables of the two sub-iterations, uint8 (256,): by its neighbours, 1 if a pixel stays (G1 to G3)."""
    x = [np.arange(256) >> bit & 1 for bit in range(8)]  # x1 … x8 of the article, bool as 0 and 1
    after = [*x[1:], x[0]]
    crossings = sum((1 - x[i]) & (after[i] | after[i + 1]) for i in (0, 2, 4, 6))
    pairs = sum(x[i] | after[i] for i in (0, 2, 4, 6))
    other_pairs = sum(x[i] | after[i] for i in (1, 3, 5, 7))
    fewer = np.minimum(pairs, other_pairs)
    may_go = (crossings == 1) & (fewer >= 2) & (fewer <= 3)
    first = may_go & ((x[1] | x[2] | (1 - x[7])) & x[0] == 0)
    second = may_go & ((x[5] | x[6] | (1 - x[3])) & x[4] == 0)
    return (~first).astype(np.uint8), (~second).astype(np.uint8)


def find_centerlines(crack_mask_HW: np.ndarray) -> np.ndarray:
    """Thin a mask in bands, so that a large mask needs little memory beyond its own.

    Args:
        crack_mask_HW: bool (H, W), or uint8 {0, 1}.
    Returns:
        bool (H, W).
    """
    mask_HW = as_bool(crack_mask_HW)
    thin_HW = np.zeros_like(mask_HW)
    for start, stop, columns, line_HW in _thin_bands(mask_HW):
        thin_HW[start:stop, columns] = line_HW[: stop - start]
    return thin_HW


def _thin_bands(mask_HW: np.ndarray) -> Iterator[tuple[int, int, slice, np.ndarray]]:
    """Thin a mask band by band.

    Yields:
        First and last row, the columns that hold crack pixels, and the thinned lines there, with one more row if the
        mask has one.
    """
    height, width = mask_HW.shape
    rows = max(4 * _HALO, _BAND // width)
    for start in range(0, height, rows):
        top = max(0, start - _HALO)
        stop = min(start + rows, height)
        band_HW = mask_HW[top : stop + _HALO]
        found = np.flatnonzero(band_HW.any(axis=0))
        if found.size:
            columns = slice(int(found[0]), int(found[-1]) + 1)
            line_HW = thin(band_HW[:, columns])
            yield start, stop, columns, line_HW[start - top : stop - top + 1]


def count_pieces(crack_mask_HW: np.ndarray) -> int:
    """Count the 8-connected components of a mask, bool (H, W) or uint8 {0, 1}."""
    return _label_pieces(as_bool(crack_mask_HW))[0]


def _label_pieces(mask_HW: np.ndarray) -> tuple[int, np.ndarray]:
    """Label connected components: their number, and int32 (H, W), 0 outside, else the component's number from 1 on."""
    num_labels, piece_HW = cv2.connectedComponents(mask_HW.view(np.uint8), connectivity=8)
    return num_labels - 1, piece_HW


def as_bool(mask_HW: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) of bool or of uint8 {0, 1} as bool; CracksegError if it is no mask."""
    if mask_HW.ndim != 2 or mask_HW.dtype not in (bool, np.uint8) or not mask_HW.size or mask_HW.max() > 1:
        raise CracksegError(
            f"expected a mask (H, W) of bool, or of uint8 0 and 1; got {mask_HW.dtype} {mask_HW.shape}"
        )
    return np.ascontiguousarray(mask_HW).view(bool)
