"""Label Studio's code for brush masks: RGBA values as runs, packed into bits.

The code is that of its converter, ``label_studio_sdk.converter.brush``. First come 32 bits for the number of values,
5 for the bits of a value less 1, and four times 4 for the bits of a length less 1. Then for each run: a bit that is
1 where one value is repeated, 2 bits for the size of its length, its length less 1, and the value or the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4  # red, green, blue, alpha


def encode_brush(mask_HW: np.ndarray) -> list[int]:
    """Encode a mask, uint8 or bool (H, W), as bytes; all four values of a pixel are 0 or 255."""
    values = np.asarray(mask_HW).ravel() > 0
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    lengths = np.diff(ends, prepend=-1) * _CHANNELS
    parts = [f"{len(values) * _CHANNELS:032b}", f"{_VALUE_BITS - 1:05b}", *(f"{b - 1:04b}" for b in _LENGTH_BITS)]
    longest = 1 << _LENGTH_BITS[-1]
    for length, value in zip(lengths.tolist(), values[ends].tolist(), strict=True):
        code = f"{255 * value:0{_VALUE_BITS}b}"
        while length > longest:
            parts.append(f"111{longest - 1:0{_LENGTH_BITS[-1]}b}{code}")
            length -= longest
        size = next(i for i, bits in enumerate(_LENGTH_BITS) if length <= 1 << bits)
        parts.append(f"1{size:02b}{length - 1:0{_LENGTH_BITS[size]}b}{code}")
    bits = "".join(parts)
    num_bytes = len(bits) // 8 + 1  # a byte more where it would not be needed, as the converter
    return list(int(bits.ljust(8 * num_bytes, "0"), 2).to_bytes(num_bytes, "big"))


def decode_brush(code: Any, width: int, height: int) -> np.ndarray:
    """Decode bytes to a mask.

    Strokes have soft edges: a pixel is on from half of the highest alpha on.

    Args:
        code: list of int, 0 to 255.
        width, height: of the photograph in pixels.
    Returns:
        bool (height, width).
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
    values = np.zeros(num_values, np.uint8)
    at = 0
    while at < num_values:
        repeated = reader.read(1)
        stop = at + 1 + reader.read(length_bits[reader.read(2)])
        if stop > num_values:
            raise ValueError("its rle has a run that ends after the last pixel: damaged")
        values[at:stop] = reader.read(value_bits) if repeated else reader.read_many(stop - at, value_bits)
        at = stop
    alpha = values.reshape(height, width, _CHANNELS)[..., -1]
    return np.asarray(alpha >= max(1.0, int(alpha.max()) / 2))


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
