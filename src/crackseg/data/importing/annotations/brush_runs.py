"""Label Studio's code for brush masks: RGBA values as runs, packed into bits.

The code is that of its converter, ``label_studio_sdk.converter.brush``. First come 32 bits for the number of values,
5 for the bits of a value less 1, and four times 4 for the bits of a length less 1. Then for each run: a bit that is
1 where one value is repeated, 2 bits for the size of its length, its length less 1, and the value or the values.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4  # red, green, blue, alpha


def encode_brush(
    own_HW: np.ndarray, corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
) -> list[int]:
    """Encode a mask as bytes; all four values of a pixel are 0 or 255.

    Args:
        own_HW: uint8 or bool (H, W), cut out of the mask of a photograph; elsewhere that mask is off.
        corner: x and y of its first pixel in the photograph.
        size: width and height of the photograph; None for its own.
    """
    (left, top), (width, height) = corner, size or own_HW.shape[::-1]
    rows, columns = np.nonzero(np.diff(np.pad(own_HW > 0, ((0, 0), (1, 1))).astype(np.int8), axis=1))
    places, counts = np.unique((top + rows) * width + left + columns, return_counts=True)
    # A run that ends with its row where the next row begins with one goes on there.
    bounds = [0, *places[counts == 1].tolist(), width * height]
    parts = [
        f"{_CHANNELS * width * height:032b}",
        f"{_VALUE_BITS - 1:05b}",
        *(f"{b - 1:04b}" for b in _LENGTH_BITS),
    ]
    longest = 1 << _LENGTH_BITS[-1]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        length, code = _CHANNELS * (stop - start), f"{255 * (number % 2):0{_VALUE_BITS}b}"
        while length > longest:
            parts.append(f"111{longest - 1:0{_LENGTH_BITS[-1]}b}{code}")
            length -= longest
        if length:
            which = next(i for i, bits in enumerate(_LENGTH_BITS) if length <= 1 << bits)
            parts.append(f"1{which:02b}{length - 1:0{_LENGTH_BITS[which]}b}{code}")
    bits = "".join(parts)
    num_bytes = len(bits) // 8 + 1  # a byte more where it would not be needed, as the converter
    return list(int(bits.ljust(8 * num_bytes, "0"), 2).to_bytes(num_bytes, "big"))


def decode_brush(code: Any, width: int, height: int) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """Decode bytes to runs of pixels.

    Strokes have soft edges: a pixel is on from half of the highest alpha on.

    Args:
        code: list of int, 0 to 255.
        width, height: of the photograph in pixels.
    Returns:
        Lengths of runs of pixels that are off, on, off, … within a box, and this box: left, top, width and height of
        the rows from the first to the last that have a pixel, or of the photograph if none is on.
    Raises:
        ValueError: it is no such code, is cut short, or is of another size.
    """
    if not isinstance(code, list) or not all(type(v) is int and 0 <= v <= 255 for v in code):
        raise ValueError("its rle is no list of numbers from 0 to 255")
    reader = _BitReader(bytes(code))
    num_values, value_bits = reader.read(32), reader.read(5) + 1
    if value_bits > 8:
        raise ValueError(f"its rle has values of {value_bits} bits; expected 8")
    if num_values != width * height * _CHANNELS:
        raise ValueError(
            f"its rle makes {num_values} values; expected {width} x {height} pixels with {_CHANNELS} values each"
        )
    length_bits = [reader.read(4) + 1 for _ in range(4)]
    lengths, alphas = [np.empty(0, np.int64)], [np.empty(0, np.int64)]  # of pixels
    at = 0
    while at < num_values:
        repeated = reader.read(1)
        stop = at + 1 + reader.read(length_bits[reader.read(2)])
        if stop > num_values:
            raise ValueError("its rle has a run that ends after the last pixel: damaged")
        first, last = at // _CHANNELS, stop // _CHANNELS  # of the pixels whose last value, alpha, lies in the run
        if repeated:
            lengths.append(np.array([last - first]))
            alphas.append(np.array([reader.read(value_bits)]))
        else:
            lengths.append(np.ones(last - first, np.int64))
            alphas.append(reader.read_many(stop - at, value_bits)[_CHANNELS - 1 - at % _CHANNELS :: _CHANNELS])
        at = stop
    alpha = np.concatenate(alphas)
    on = alpha >= max(1.0, int(alpha.max(initial=0)) / 2)
    return _as_box(np.concatenate(lengths), on, width, height)


def _as_box(
    lengths: np.ndarray, on: np.ndarray, width: int, height: int
) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    lengths, on = lengths[lengths > 0], on[lengths > 0]
    stops = np.cumsum(lengths)
    if not on.any():
        return (width * height,), (0, 0, width, height)
    top, bottom = int((stops - lengths)[on][0]) // width, (int(stops[on][-1]) - 1) // width + 1
    changes = np.flatnonzero(np.diff(on, prepend=False))  # runs that begin a length of on, off, …
    bounds = [top * width, *(stops - lengths)[changes].tolist(), bottom * width]
    runs = tuple(np.diff(np.minimum(bounds, bottom * width)).tolist())
    return runs if runs[-1] else runs[:-1], (0, top, width, bottom - top)


class _BitReader:
    """Numbers of any count of bits from bytes, one after another."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def _take(self, num_bits: int) -> tuple[bytes, int]:
        start, self._at = self._at, self._at + num_bits
        if self._at > 8 * len(self._content):
            raise ValueError("its rle ends early: cut short")
        return self._content[start // 8 : (self._at + 7) // 8], start % 8

    def read(self, num_bits: int) -> int:
        content, skip = self._take(num_bits)
        return int.from_bytes(content, "big") >> (8 * len(content) - skip - num_bits) & ((1 << num_bits) - 1)

    def read_many(self, count: int, num_bits: int) -> np.ndarray:
        content, skip = self._take(count * num_bits)
        bits = np.unpackbits(np.frombuffer(content, np.uint8))[skip : skip + count * num_bits]
        return np.asarray(bits.reshape(count, num_bits) @ (1 << np.arange(num_bits)[::-1]))
