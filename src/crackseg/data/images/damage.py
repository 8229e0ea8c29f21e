"""Detect damage that decoders ignore: images that were cut short, or partly overwritten with zeros.

libjpeg fills missing parts with grey and only prints a warning; here the damage is found from the file's structure and
from the position where decoding stopped.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_SIZED_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # DCT: baseline, extended, progressive; arithmetic coding
_PROGRESSIVE = (0xC2, 0xCA)
_ARITHMETIC = (0xC9, 0xCA)
_ZEROS = bytes(64)
_TAIL_BYTES = 64  # a whole picture needs the last bytes of its data: fewer than this is left to spare
# Decoded into whatever a cut picture lacks. No 0xFF, which would be a marker.
_FILLING = bytes(value for value in range(1, 255)) * 4


class Damaged(Exception):
    """Error for a damaged or cut file; the message describes the damage."""


@dataclass(slots=True)
class JpegStructure:
    """Structure of a JPEG up to its end mark.

    Attributes:
        end: where the end mark begins.
        scan_ends: where each scan's data end.
        bits: of a channel.
        progressive: several scans, each adding to the whole picture.
        arithmetic: arithmetically coded, of which no decoder tells where it stands.
    """

    end: int = 0
    scan_ends: list[int] = field(default_factory=list)
    bits: int = 8
    progressive: bool = False
    arithmetic: bool = False


def check_jpeg(content: bytes) -> JpegStructure:
    """Check the structure of a JPEG and its data for runs of zeros.

    Raises:
        Damaged: no end mark, restart marks out of order, a scan missing, or a block of zeros.
    """
    found = JpegStructure()
    zero_codes: dict[tuple[int, int], int] = {}  # (class, number) of a Huffman table: symbol of the code of zeros
    low_bits: dict[tuple[int, int], int] = {}  # (component, coefficient) -> bits that are still missing
    components: list[int] = []
    marks = _Marks(content)
    position = 2
    while True:
        start, code_at = marks.find(position)
        marker, position = content[code_at], code_at + 1
        if marker == 0xD9:
            found.end = start
            break
        if marker in (0x01, 0xD8):
            continue
        length = int.from_bytes(content[position : position + 2], "big")
        body, position = content[position + 2 : position + length], position + max(length, 2)
        if marker in _SIZED_FRAMES and len(body) >= 6:
            found.bits, found.progressive = body[0], marker in _PROGRESSIVE
            found.arithmetic = marker in _ARITHMETIC
            components = [body[6 + 3 * i] for i in range(body[5]) if 6 + 3 * i < len(body)]
        elif marker == 0xC4:
            _read_zero_codes(body, zero_codes)
        elif marker == 0xDA:
            scan = _Scan(body)
            scan_end, _ = marks.find(position)
            found.scan_ends.append(scan_end)
            marks.check_restarts(position, scan_end)
            if not scan.may_be_zeros(zero_codes):
                _check_zeros(content, position, scan_end)
            for component in scan.tables:
                low_bits |= {(component, k): scan.low_bit for k in range(scan.first, scan.last + 1)}
            position = scan_end
    if not found.scan_ends:
        raise Damaged("it has no image data")
    # Every encoder sends all coefficients of all components, first and last among them, to their last bit.
    sent = [low_bits.get((component, k), 1) for component in components for k in (0, 63)]
    if found.progressive and any([*sent, *low_bits.values()]):
        raise Damaged("scans are missing")
    return found


class _Marks:
    """Marks of a JPEG, all found in one pass: 0xFF before a code; 0xFF before a zero is data.

    Args:
        content: the whole file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        values = np.frombuffer(content, np.uint8)
        places_N = np.flatnonzero(values[:-1] == 0xFF) + 1
        codes_N = values[places_N]
        is_mark_N = (codes_N != 0) & (codes_N != 0xFF)
        self._places_N, self._codes_N = places_N[is_mark_N], codes_N[is_mark_N]  # of the codes
        self._is_restart_N = (self._codes_N & 0xF8) == 0xD0
        self._others_N = self._places_N[~self._is_restart_N]

    def find(self, position: int) -> tuple[int, int]:
        """Find the first mark from a position on that is no restart: where it begins, and where its code is.

        Raises:
            Damaged: there is none.
        """
        index = np.searchsorted(self._others_N, position + 1)
        if index == len(self._others_N):
            raise Damaged("it has no end mark")
        code_at = int(self._others_N[index])
        start = code_at - 1
        while start > position and self._content[start - 1] == 0xFF:  # a mark may be filled up with them
            start -= 1
        return start, code_at

    def check_restarts(self, start: int, end: int) -> None:
        """Raise :class:`Damaged` if the restart marks between two positions are not counted through."""
        first, last = np.searchsorted(self._places_N, (start + 1, end + 1))
        codes_M = self._codes_N[first:last][self._is_restart_N[first:last]]
        if (codes_M & 7 != np.arange(len(codes_M)) % 8).any():
            raise Damaged("part of its data is missing (restart marks out of order)")


class _Scan:
    """Header of one scan."""

    def __init__(self, body: bytes) -> None:
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            raise Damaged("the header of a scan is cut")
        pairs = [body[1 + 2 * i : 3 + 2 * i] for i in range(count)]
        self.tables = {component: (number >> 4, number & 15) for component, number in pairs}
        self.first, self.last, bits = body[1 + 2 * count : 4 + 2 * count]
        self.last = min(self.last, 63)
        self.is_refinement, self.low_bit = bool(bits >> 4), bits & 15

    def may_be_zeros(self, zero_codes: dict[tuple[int, int], int]) -> bool:
        """Tell if long runs of zero bits can be a flat area: every code of zeros says "no change" or "end of block".

        Refinements are plain bits; without Huffman tables the data are arithmetically coded.
        """
        if self.is_refinement or not zero_codes:
            return True
        for dc, ac in self.tables.values():
            if self.first == 0 and zero_codes.get((0, dc), 0) != 0:
                return False
            if self.last > 0 and zero_codes.get((1, ac), 0) & 15:
                return False
        return True


def _read_zero_codes(body: bytes, zero_codes: dict[tuple[int, int], int]) -> None:
    """Read Huffman tables: the first symbol of the shortest code is that of zeros."""
    position = 0
    while position + 17 < len(body):
        kind = body[position]
        zero_codes[kind >> 4, kind & 15] = body[position + 17]
        position += 17 + sum(body[position + 1 : position + 17])


def _check_zeros(content: bytes, start: int, end: int) -> None:
    """Refuse a block of zeros inside the data; zeros at the end may be padding, which decoding tells."""
    place = content.find(_ZEROS, start, end)
    if place >= 0 and content[place:end].strip(b"\0"):
        raise Damaged(f"a block of zeros at byte {place:,} of {len(content):,}")


class WatchedJpeg(io.BytesIO):
    """Content of a JPEG that looks, while Pillow decodes it, how far the picture is at the end of the data.

    Args:
        content: the whole file.
        structure: from :func:`check_jpeg`.
    """

    def __init__(self, content: bytes, structure: JpegStructure) -> None:
        super().__init__(content)
        self.image: Any = None  # Pillow's, set by the caller before it is loaded
        data_end = structure.end
        while data_end > 0 and content[data_end - 1] == 0:
            data_end -= 1
        padding = structure.end - data_end
        self._stops = [data_end - _TAIL_BYTES]
        if padding > _TAIL_BYTES:
            self._stops.append(data_end + _TAIL_BYTES)
        self._complete: list[bool] = []
        self._mark: tuple[int, ...] = ()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read to the next stop once the picture is being loaded."""
        if self.image is None:
            return super().read(size)
        corner = (self.image.width - 1, self.image.height - 1)
        pixels = self.image.im
        if not self._mark:
            # Nothing is decoded yet; a mark in the last pixel shows when its row is.
            self._mark = (1, 254, 3, 5)[: pixels.bands]
            pixels.putpixel(corner, self._mark if pixels.bands > 1 else self._mark[0])
        elif len(self._complete) < len(self._stops):
            found = pixels.getpixel(corner)
            self._complete.append((found if isinstance(found, tuple) else (found,)) != self._mark)
        passed = len(self._complete)
        if passed < len(self._stops):
            return super().read(max(self._stops[passed] - self.tell(), 1))
        return super().read()

    def check(self) -> None:
        """Raise :class:`Damaged` if the picture was complete long before the end of its data, or long after."""
        if self._complete[:1] == [True]:
            raise Damaged("the picture ends before its data do")
        if self._complete[1:] == [False]:
            raise Damaged("the rest of its data are zeros")


def fill_scans(content: bytes, structure: JpegStructure) -> bytes:
    """Put bytes between each scan's end and the marker that follows.

    A decoder that has the whole scan passes over them; one that lacks part of it decodes them into the picture.
    """
    parts, before = [], 0
    for end in structure.scan_ends:
        parts += [content[before:end], _FILLING]
        before = end
    return b"".join([*parts, content[before:]])


def check_png(content: bytes) -> bytes:
    """Check a PNG's chunks.

    Returns:
        The content, without damaged chunks that the picture does not need (texts, EXIF) and what follows its end.
    Raises:
        Damaged: cut, or a chunk that the picture needs has a wrong checksum.
    """
    view = memoryview(content)  # no copies of chunks
    position, kept, dropped = 8, [view[:8]], False
    while True:
        if len(content) < position + 12:
            raise Damaged("it has no end mark")
        length, name = struct.unpack(">I4s", content[position : position + 8])
        end = position + 12 + length
        if end > len(content):
            raise Damaged("it has no end mark")
        if zlib.crc32(view[position + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big"):
            kept.append(view[position:end])
        elif name[:1].isupper():
            raise Damaged(f"the checksum of a chunk {name.decode('ascii', 'replace')} is wrong")
        else:
            dropped = True
        position = end
        if name == b"IEND":
            return b"".join(kept) if dropped else content


def check_container(content: bytes) -> None:
    """Check that the parts of a WebP, AVIF, HEIC or JPEG 2000 file are all there.

    Raises:
        Damaged: the file is shorter than its parts say, or a JPEG 2000 has no end mark.
    """
    if content[:4] == b"RIFF":
        if int.from_bytes(content[4:8], "little") + 8 > len(content):
            raise Damaged("it is shorter than its header says")
        return
    if content[:4] == b"\xff\x4f\xff\x51":
        codestream = content
    else:
        position, codestream = 0, b""
        while position + 8 <= len(content):
            size, name = struct.unpack(">I4s", content[position : position + 8])
            if size == 1:
                size = int.from_bytes(content[position + 8 : position + 16], "big")
            size = size or len(content) - position
            if size < 8 or position + size > len(content):
                raise Damaged("it is shorter than its parts say")
            if name == b"jp2c":
                codestream = content[position : position + size]
            position += size
    if codestream and b"\xff\xd9" not in codestream[-16:]:
        raise Damaged("it has no end mark")
