"""Fingerprints of photographs, to find the same one under two names: exact, or nearly so.

The perceptual hash (pHash) is the signs of the low frequencies of the image's cosine transform. Re-encoding,
scaling and brightness hardly touch them; turning or mirroring the image only changes signs and swaps the axes.
Unlike the common pHash, a weak frequency counts less than a whole sign: in dark or smooth photographs, compression
would decide the signs of most of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_THUMBNAIL_SIDE_PX = 64
_HASH_SIDE = 16  # 16 x 16 frequencies; 8 x 8 is too few to tell one pavement from another
_FULL_SIGN = 8.0  # amplitude (of the orthonormal transform of grey levels) from which on a sign counts whole
_MIN_SIGNS = 8.0  # with fewer, an image is too plain to be told from another
# Cosine of two hashes, the best of the eight turned versions. Two of 92 real photographs: 0.59 at most. A photograph
# and itself after JPEG quality 30, scaling to 40 or 200 %, noise or blur: 0.98 at least; brightened until a part of
# it is white 0.92, a hundredth cut off two sides 0.77.
NEAR_SIMILARITY = 0.75
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Exact and perceptual hash of a photograph.

    Attributes:
        pixels: SHA-256 of the decoded pixels and their shape.
        hash: float32 (16, 16) of length 1; None for an image without contrast.
    """

    pixels: str
    hash: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two photographs that are the same: ``first`` < ``second`` are places in the sequence searched.

    Attributes:
        exact: the same pixels; otherwise nearly the same, perhaps turned or mirrored.
    """

    first: int
    second: int
    exact: bool


def compute_fingerprint(image: np.ndarray) -> Fingerprint:
    """Fingerprint a photograph, uint8 (H, W, 3) RGB."""
    pixels = hashlib.sha256(image.tobytes())
    pixels.update(str(image.shape).encode())
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    side = (_THUMBNAIL_SIDE_PX, _THUMBNAIL_SIDE_PX)
    thumbnail = cv2.resize(grey, side, interpolation=cv2.INTER_AREA).astype(np.float32)
    signs = (cv2.dct(thumbnail)[:_HASH_SIDE, :_HASH_SIDE] / _FULL_SIGN).clip(-1, 1)
    signs[0, 0] = 0  # the mean brightness
    length = float(np.linalg.norm(signs))
    return Fingerprint(pixels.hexdigest(), signs / length if length**2 >= _MIN_SIGNS else None)


def find_duplicates(fingerprints: Sequence[Fingerprint]) -> Iterator[Duplicate]:
    """Find each pair of photographs that are the same or nearly so, also turned by 90 degrees or mirrored."""
    with_pixels: dict[str, list[int]] = {}
    for number, fingerprint in enumerate(fingerprints):
        same = with_pixels.setdefault(fingerprint.pixels, [])
        yield from (Duplicate(earlier, number, exact=True) for earlier in same)
        same.append(number)
    with_hash = [n for n, f in enumerate(fingerprints) if f.hash is not None]
    hashes = [f.hash for f in fingerprints if f.hash is not None]
    if not hashes:
        return
    versions = [version.reshape(len(hashes), -1) for version in _turn(np.stack(hashes))]
    for start in range(0, len(hashes), _BLOCK):  # in blocks: memory grows with the images, not with the pairs
        rows = slice(start, start + _BLOCK)
        similarity = np.max([version[rows] @ versions[0].T for version in versions], axis=0)
        for i, j in np.argwhere(similarity >= NEAR_SIMILARITY):
            first, second = with_hash[start + i], with_hash[j]
            if first < second and fingerprints[first].pixels != fingerprints[second].pixels:
                yield Duplicate(first, second, exact=False)


def _turn(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Compute the hashes (N, 16, 16) of the eight rotated and mirrored versions of each image, itself first."""
    same = np.ones(_HASH_SIDE, np.float32)
    alternating = np.resize(np.array([1, -1], np.float32), _HASH_SIDE)
    for transposed in (hashes, hashes.transpose(0, 2, 1)):
        for rows in (same, alternating):
            for columns in (same, alternating):
                yield transposed * rows[:, None] * columns
