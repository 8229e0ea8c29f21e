"""Convert images of 10 to 16 bits, of integers and of floats to 8 bits, by their full scale.

docs/adr/0011 says why the scale is the file's and not the picture's own contrast.
"""

from __future__ import annotations

import numpy as np

from crackseg.errors import CracksegError

_DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners


def to_8_bits(values: np.ndarray, *, full_scale: float | None = None) -> tuple[np.ndarray, str | None]:
    """Bring values to 8 bits by their full scale.

    The full scale is what the file says; else that of the least depth, of 8, 10, 12, 14 or 16 bits, that holds the
    largest value; floats up to 1 have full scale 1.

    Args:
        values: integers or floats, any shape, of one picture.
        full_scale: what the file says that white is; None where it says nothing.
    Returns:
        uint8 values, and a remark on the scale; None where it is that of the type (uint8, uint16, floats up to 1).
    Raises:
        CracksegError: negative or infinite values, nothing but NaN, or values over 16 bits.
    """
    if values.dtype == np.uint8:
        return values, None
    remarks = []
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        if missing.all():
            raise CracksegError("its values are all NaN; expected brightness")
        if missing.any():
            values = np.where(missing, np.zeros((), values.dtype), values)
            remarks.append(f"{missing.mean():.1%} of its values are NaN and taken as black")
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all() or low < 0 or high > 65535:
        raise CracksegError(
            f"its values are {values.dtype} from {low:g} to {high:g}, and their full scale is unknown; expected 0 to "
            "1, 0 to 255 or up to 16 bits: save it as 8 bits"
        )
    if full_scale is None or high > full_scale:
        bits = next(depth for depth in _DEPTHS if high <= 2**depth - 1)
        full_scale = 1.0 if values.dtype.kind == "f" and high <= 1 else float(2**bits - 1)
    usual = {"u": 65535.0, "f": 1.0}.get(values.dtype.kind)
    if full_scale != usual:
        remarks.append(f"{_TYPES[values.dtype.kind]} values up to {high:g} read with full scale {full_scale:g}")
    depth = np.log2(full_scale + 1)
    if values.dtype.kind != "f" and depth >= 8 and depth.is_integer():
        scaled = (values >> int(depth - 8)).astype(np.uint8)
    else:
        scaled = (values.astype(np.float32) * np.float32(255 / full_scale)).astype(np.uint8)
    return scaled, "; ".join(remarks) or None


_TYPES = {"u": "16-bit", "i": "integer", "f": "float"}
