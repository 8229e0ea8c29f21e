"""What is found in a photograph at a threshold: the table of cracks, and the files that can be downloaded.

Shape legend: H, W the photograph.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from crackseg.app.inspection import Inspection
from crackseg.app.pictures import CRACK_RGB
from crackseg.centerlines import skeleton_length_px
from crackseg.data.image_io import read_image, write_bytes, write_mask
from crackseg.errors import CracksegError

_READABLE_PX = 1400  # an annotated picture has at least this on its longer side
_MOST_ROWS = 500  # of the table on the page; the CSV has them all
_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Crack:
    """One crack, an 8-connected piece of the mask; lengths in pixels.

    Attributes:
        number: from 1, the longest first.
        length_px: of its centre line.
        mean_width_px, max_width_px: its area over its length; twice the largest distance to its outline.
        left, top, width, height: its bounding box.
    """

    number: int
    length_px: float
    mean_width_px: float
    max_width_px: float
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What the page shows and gives.

    Attributes:
        summary, table: HTML.
        files: mask (PNG), table (CSV), annotated picture (JPEG).
    """

    summary: str
    table: str
    files: tuple[Path, Path, Path]


def measure_findings(inspection: Inspection, threshold: float, mm_per_px: float | None, folder: Path) -> Findings:
    """Measure the cracks of a photograph at a threshold, and write the files.

    Args:
        threshold: in [0, 1].
        mm_per_px: the scale, above 0; None measures in pixels.
        folder: gets the files.
    """
    crack_mask_HW = inspection.find_cracks(threshold)
    cracks = measure_cracks(crack_mask_HW)
    stem = Path(inspection.name).stem
    files = (folder / f"{stem}_mask.png", folder / f"{stem}_cracks.csv", folder / f"{stem}_annotated.jpg")
    write_mask(files[0], crack_mask_HW)
    write_bytes(files[1], write_table(cracks, mm_per_px).encode())
    write_bytes(files[2], draw_annotated(read_image(inspection.image_path), crack_mask_HW, cracks))
    own = " (the model's own)" if threshold == inspection.operating_threshold else ""
    unit, scale = ("px", 1.0) if mm_per_px is None else ("mm", mm_per_px)
    summary = (
        f"<p class='says'>{len(cracks)} crack{'' if len(cracks) == 1 else 's'}, "
        f"{sum(c.length_px for c in cracks) * scale:,.0f} {unit} long in all, {crack_mask_HW.mean():.2%} of the "
        f"picture, at threshold {threshold:.4g}{own}.</p>"
    )
    return Findings(summary, show_table(cracks, mm_per_px), files)


def parse_scale(text: str) -> float | None:
    """Read millimetres per pixel, with a point or a comma; nothing for pixels.

    Raises:
        CracksegError: it is no number above 0.
    """
    if not text.strip():
        return None
    try:
        scale = float(text.strip().replace(",", "."))
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise CracksegError(
            f"the scale is {text.strip()!r}; expected millimetres per pixel, over 0, e.g. 0.25, or nothing for pixels"
        )
    return scale


def measure_cracks(crack_mask_HW: np.ndarray) -> list[Crack]:
    """Measure each piece of a crack mask, bool (H, W); the longest first."""
    num, labels_HW, boxes, _ = cv2.connectedComponentsWithStats(crack_mask_HW.astype(np.uint8), connectivity=8)
    found = []
    for label in range(1, num):
        left, top, width, height, area = boxes[label].tolist()
        piece_hw = labels_HW[top : top + height, left : left + width] == label
        bordered = np.pad(piece_hw.astype(np.uint8), 1)
        length = max(1.0, skeleton_length_px(piece_hw))
        widest = 2 * float(cv2.distanceTransform(bordered, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).max()) - 1
        found.append((length, area / length, widest, left, top, width, height))
    found.sort(key=lambda row: -row[0])
    return [Crack(number, *row) for number, row in enumerate(found, 1)]


def write_table(cracks: Sequence[Crack], mm_per_px: float | None) -> str:
    """A CSV file's content; in millimetres, too, where there is a scale."""
    names = [f.name for f in fields(Crack)]
    lengths = [name for name in names if name.endswith("_px")] if mm_per_px else []
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["crack", *names[1:], *(name.replace("_px", "_mm") for name in lengths)])
    for crack in cracks:
        scaled = [round(getattr(crack, name) * (mm_per_px or 1), 4) for name in lengths]
        writer.writerow([round(v, 3) if isinstance(v, float) else v for v in astuple(crack)] + scaled)
    return stream.getvalue()


def show_table(cracks: Sequence[Crack], mm_per_px: float | None) -> str:
    """The table on the page, HTML."""
    if not cracks:
        return "<p>No crack at this threshold.</p>"
    unit, scale = ("px", 1.0) if mm_per_px is None else ("mm", mm_per_px)
    digits = 1 if scale >= 0.2 else 2
    head = [
        "crack",
        f"length, {unit}",
        f"mean width, {unit}",
        f"max width, {unit}",
        "from left, px",
        "from top, px",
    ]
    rows = [
        [
            str(c.number),
            *(f"{value * scale:,.{digits}f}" for value in (c.length_px, c.mean_width_px, c.max_width_px)),
            str(c.left),
            str(c.top),
        ]
        for c in cracks[:_MOST_ROWS]
    ]
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(v)}</td>' for v in row)}</tr>" for row in rows)
    more = f"<p>The {_MOST_ROWS} longest of {len(cracks)}.</p>" if len(cracks) > _MOST_ROWS else ""
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    return f"<div class='scroll'><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>{more}"


def draw_annotated(image_HW3: np.ndarray, crack_mask_HW: np.ndarray, cracks: Sequence[Crack]) -> bytes:
    """Draw the cracks and the numbers of the longest on a photograph, enlarged if it is small; a JPEG's content."""
    factor = max(1, math.ceil(_READABLE_PX / max(image_HW3.shape[:2])))
    picture = cv2.resize(image_HW3, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    on = cv2.resize(crack_mask_HW.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    picture[on] = (0.3 * picture[on] + 0.7 * np.array(CRACK_RGB)).astype(np.uint8)
    size = max(picture.shape[:2]) / 1400
    for crack in reversed(cracks[:30]):
        at = (round(factor * crack.left), max(round(24 * size), round(factor * crack.top - 6 * size)))
        for colour, width in (((255, 255, 255), 6 * size), ((160, 0, 0), 2 * size)):
            cv2.putText(
                picture, str(crack.number), at, cv2.FONT_HERSHEY_SIMPLEX, 0.9 * size, colour, max(1, round(width)),
                cv2.LINE_AA,
            )  # fmt: skip
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    ok, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert ok
    return content.tobytes()
