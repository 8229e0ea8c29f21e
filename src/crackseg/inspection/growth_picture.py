"""Draw the changes of cracks between two photographs, both as seen from the place of the earlier one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from crackseg.geometry.picture import encode_lines
from crackseg.geometry.scale import Scale
from crackseg.inspection.growth import Change, View

# Okabe and Ito's colours; each kind of change also has its own width or place.
_SAME, _NEW, _WIDER, _GONE = (86, 180, 233), (213, 94, 0), (230, 159, 0), (204, 121, 167)
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_PANEL_PX, _LETTERS = 1200, 40  # longer side of a panel; heights of a letter in it
_MOST_LABELS = 20
_QUALITY = 88


def draw_growth(
    before_HW3: np.ndarray,
    warped_HW3: np.ndarray,
    views: tuple[View, View],
    changes: Sequence[Change],
    scale: Scale | None,
) -> bytes:
    """Draw both photographs beside each other with their cracks, and what has changed.

    Args:
        before_HW3, warped_HW3: uint8 (H, W, 3), RGB, both in the frame of the earlier photograph.
        views: their cracks.
        changes: of :func:`crackseg.inspection.growth.compare_views`.
        scale: of the earlier photograph; lengths in mm instead of pixels.
    Returns:
        A JPEG file's content.
    """
    height, width = before_HW3.shape[:2]
    factor = min(1.0, _PANEL_PX / max(height, width)) if max(height, width) > 500 else 2.0
    size = (round(width * factor), round(height * factor))
    letter_px = max(12, round(max(size) / _LETTERS))
    font = ImageFont.load_default(letter_px)
    gap, strip = letter_px, round(1.7 * letter_px)
    panels = []
    for image in (before_HW3, warped_HW3):
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        panels.append(Image.fromarray(cv2.resize(image, size, interpolation=method)))
    thin, thick = max(2, letter_px // 8), max(4, letter_px // 4)
    for panel, view, late in zip(panels, views, (False, True), strict=True):
        pen = ImageDraw.Draw(panel)
        wider = {number for change in changes if late and "wider" in change.words for number in change.after}
        for number, crack in enumerate(view.measurement.cracks, start=1):
            colour, pen_px = (_WIDER, thick) if number in wider else (_SAME, thin)
            for branch in crack.branches:
                _draw_line(pen, branch.line.points * factor, colour, pen_px)
        for change in changes:
            for run in change.grown if late else change.lost:
                _draw_line(pen, run.points * factor, _NEW if late else _GONE, thick)
    _label(panels[1], changes, scale, factor, font)
    sheet = Image.new("RGB", (2 * size[0] + gap, strip + size[1] + 2 * strip), _PAPER)
    words = ImageDraw.Draw(sheet)
    for left, panel, title in zip((0, size[0] + gap), panels, ("before", "after, in the same view"), strict=True):
        words.text((left + letter_px / 2, strip / 2), title, _INK, font, anchor="lm")
        sheet.paste(panel, (left, strip))
    left = letter_px / 2
    legend = ((_SAME, "unchanged"), (_NEW, "new or longer"), (_WIDER, "wider"), (_GONE, "no longer found"))
    for colour, text in legend:
        middle = strip + size[1] + strip / 2
        words.line([(left, middle), (left + 1.5 * letter_px, middle)], colour, thick)
        words.text((left + 2 * letter_px, middle), text, _INK, font, anchor="lm")
        left += words.textlength(text, font=font) + 3.5 * letter_px
    words.text((letter_px / 2, size[1] + 2.5 * strip), _sum_up(changes, scale), _INK, font, anchor="lm")
    return encode_lines(sheet, _QUALITY)


def _draw_line(pen: ImageDraw.ImageDraw, points: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    places = [tuple(point) for point in points.round().astype(int).tolist()]
    if len(places) > 1:
        pen.line(places, fill=_INK, width=width + 2, joint="curve")
        pen.line(places, fill=colour, width=width, joint="curve")


def _label(
    panel: Image.Image,
    changes: Sequence[Change],
    scale: Scale | None,
    factor: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    pen = ImageDraw.Draw(panel)
    for change in [c for c in changes if c.grown][:_MOST_LABELS]:
        longest = max(change.grown, key=lambda run: run.length_px)
        text = f"+{_amount(change.grown_px, scale)}"
        x, y = longest.points[len(longest.points) // 2] * factor
        box = pen.textbbox((0, 0), text, font=font)
        width, height = box[2] + 8, box[3] + 6
        x = min(max(x + height, 0), panel.width - width)
        y = min(max(y - height / 2, 0), panel.height - height)
        pen.rectangle((x, y, x + width, y + height), fill=_PAPER, outline=_NEW, width=2)
        pen.text((x + 4, y + 2), text, fill=_INK, font=font)


def _amount(length_px: float, scale: Scale | None) -> str:
    return f"{length_px:.0f} px" if scale is None else f"{length_px * scale.mm_per_px:.0f} mm"


def _sum_up(changes: Sequence[Change], scale: Scale | None) -> str:
    grown, lost = sum(c.grown_px for c in changes), sum(c.lost_px for c in changes)
    num_wider = sum("wider" in change.words for change in changes)
    return f"new: {_amount(grown, scale)}, no longer found: {_amount(lost, scale)}, cracks that are wider: {num_wider}"
