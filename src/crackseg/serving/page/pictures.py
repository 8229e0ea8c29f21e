"""Encode photographs, crack masks and probability maps for the page, small enough to send.

Shape legend: H, W the photograph; h, w the view, with a longer side of at most ``VIEW_PX``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.spatial import cKDTree

from crackseg.geometry.components import Measurement

VIEW_PX = 2048  # longer side; sharp on a large screen, and sent in a second over a slow connection
CRACK_RGB = (255, 40, 0)
_JPEG_QUALITY = 88


def view_size(height: int, width: int) -> tuple[int, int]:
    """Compute height and width of a photograph's view."""
    scale = min(1.0, VIEW_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def encode_view(image_HW3: np.ndarray) -> bytes:
    """Reduce a photograph (uint8, RGB) to its view; a JPEG file's content."""
    return _encode_jpeg(cv2.cvtColor(_reduce(image_HW3), cv2.COLOR_RGB2BGR))


def encode_cracks(
    crack_mask_HW: np.ndarray,
    measurement: Measurement | None = None,
    colours: Sequence[np.ndarray] = (),
) -> bytes:
    """Draw crack pixels, all else transparent, to lie on the view; a PNG file's content.

    A pixel of the view is coloured if any pixel that it stands for is crack, so that hair-thin cracks stay.

    Args:
        crack_mask_HW: bool (H, W).
        measurement: of this mask; None for red.
        colours: along its lines, of :func:`crackseg.geometry.picture.choose_colours`; the nearest place's counts.
    """
    on_hw = _reduce(crack_mask_HW.astype(np.uint8) * np.uint8(255)) > 0
    bgra = np.zeros((*on_hw.shape, 4), np.uint8)
    bgra[on_hw] = (*CRACK_RGB[::-1], 255)
    if measurement is not None and measurement.cracks:
        lines = [branch.line.points for crack in measurement.cracks for branch in crack.branches]
        places = (np.concatenate(lines) + 0.5) * (len(on_hw) / len(crack_mask_HW)) - 0.5
        nearest = cKDTree(places).query(np.argwhere(on_hw)[:, ::-1])[1]
        bgra[on_hw, :3] = np.concatenate(colours)[nearest, ::-1]
    ok, content = cv2.imencode(".png", bgra)
    assert ok
    return content.tobytes()


def encode_heat(crack_prob_HW: np.ndarray) -> bytes:
    """Colour a probability map from black (0) over red to pale yellow (1); a JPEG file's content.

    A pixel of the view shows the highest probability of those that it stands for.

    Args:
        crack_prob_HW: float (H, W) in [0, 1].
    """
    height, width = crack_prob_HW.shape
    grey_HW = np.rint(crack_prob_HW * 255).astype(np.uint8)
    size = view_size(height, width)
    if size != (height, width):
        step = math.ceil(max(height / size[0], width / size[1]))
        grey_HW = cv2.dilate(grey_HW, np.ones((step, step), np.uint8))
        grey_HW = cv2.resize(grey_HW, size[::-1], interpolation=cv2.INTER_NEAREST)
    return _encode_jpeg(cv2.applyColorMap(grey_HW, cv2.COLORMAP_INFERNO))


def as_data_uri(content: bytes) -> str:
    """Encode a picture as a data URI, for an ``<img>``."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _reduce(image: np.ndarray) -> np.ndarray:
    size = view_size(*image.shape[:2])
    return image if size == image.shape[:2] else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _encode_jpeg(bgr: np.ndarray) -> bytes:
    ok, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert ok
    return content.tobytes()
