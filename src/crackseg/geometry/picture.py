"""Draw the annotated image: each crack with its number, length and width, in large letters."""

from __future__ import annotations

import colorsys
import io
from itertools import product

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from crackseg.geometry.components import Crack, Measurement

_SHORTEST_PX, _LONGEST_PX = 1400, 4096  # of the annotated image's longer side
_LETTERS = 40  # heights of a letter in the longer side: 5 mm on a screen or page 20 cm wide
_MAX_LABELS = 20
_QUALITY = 90
_INK, _PAPER = (20, 20, 20), (255, 255, 255)

_Box = tuple[float, float, float, float]


def draw_measurement(
    measurement: Measurement, background_hw3: np.ndarray | None = None, mm_per_px: float | None = None
) -> bytes:
    """Draw the centre lines and write each crack's length and mean width next to it.

    The 20 longest cracks have a label if there is free space next to them; the last line of the image says how many
    have none.

    Args:
        measurement: of the mask.
        background_hw3: uint8 (h, w, 3), RGB, the photograph at any size; None for light grey.
        mm_per_px: labels in mm instead of pixels.
    Returns:
        A JPEG file's content.
    """
    factor = _enlargement(measurement)
    size = (max(1, round(measurement.width_px * factor)), max(1, round(measurement.height_px * factor)))
    if background_hw3 is None:
        picture = Image.new("RGB", size, (235, 235, 235))
    else:
        shrinks = size[0] < background_hw3.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        picture = Image.fromarray(cv2.resize(background_hw3, size, interpolation=method))
    letter_px = max(12, round(max(size) / _LETTERS))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(letter_px)
    for number, crack in enumerate(measurement.cracks, start=1):
        colour = _colour(number)
        for branch in crack.branches:
            points = ((branch.line.points + 0.5) * factor).round().astype(int)
            width = max(round(branch.mean_width_px * factor / 2), letter_px // 9, 2)
            pen.line([tuple(p) for p in points.tolist()], fill=colour, width=width, joint="curve")
    unlabelled = _draw_labels(pen, font, measurement, size, factor, letter_px, mm_per_px)
    strip_px = round(1.6 * letter_px)
    sheet = Image.new("RGB", (size[0], size[1] + strip_px), _PAPER)
    sheet.paste(picture)
    ImageDraw.Draw(sheet).text(
        (0.5 * letter_px, size[1] + strip_px / 2),
        _footer(measurement, unlabelled, mm_per_px),
        _INK,
        font,
        anchor="lm",
    )
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _enlargement(measurement: Measurement) -> float:
    longest = max(measurement.width_px, measurement.height_px)
    return min(max(_SHORTEST_PX, longest), _LONGEST_PX) / longest


def _colour(number: int) -> tuple[int, int, int]:
    """Return a colour, RGB, so that neighbouring numbers differ in hue and none is the grey of a road."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.95, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _label(number: int, crack: Crack, mm_per_px: float | None) -> str:
    factor, unit = (1.0, "px") if mm_per_px is None else (mm_per_px, "mm")
    return f"{number}: {crack.length_px * factor:.0f} {unit} x {crack.mean_width_px * factor:.1f}"


def _footer(measurement: Measurement, unlabelled: int, mm_per_px: float | None) -> str:
    factor, unit = (1.0, "px") if mm_per_px is None else (mm_per_px, "mm")
    rest = f", {unlabelled} without label" if unlabelled else ""
    text = f"number: length x mean width in {unit}; {len(measurement.cracks)} cracks{rest}"
    return f"{text}, {measurement.length_px * factor:.0f} {unit} together" if measurement.cracks else "no cracks"


def _draw_labels(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    measurement: Measurement,
    size: tuple[int, int],
    factor: float,
    letter_px: int,
    mm_per_px: float | None,
) -> int:
    taken: list[_Box] = []
    lines = [branch.line.points for crack in measurement.cracks for branch in crack.branches]
    points = (np.concatenate(lines) + 0.5) * factor if lines else np.empty((0, 2))
    placed = []
    for number, crack in enumerate(measurement.cracks[:_MAX_LABELS], start=1):
        text = _label(number, crack, mm_per_px)
        width, height = pen.textlength(text, font=font) + 0.8 * letter_px, 1.5 * letter_px
        longest = max(crack.branches, key=lambda branch: branch.length_px).line.points
        place = None
        # First choice: a place where the label hides no crack.
        for hidden, fraction in product((points, points[:0]), (0.5, 0.3, 0.7, 0.1, 0.9)):
            anchor = (longest[int(fraction * (len(longest) - 1))] + 0.5) * factor
            place = _find_place(anchor, (width, height), size, taken, hidden, letter_px)
            if place:
                break
        if place is None:
            continue
        taken.append(place)
        placed.append((place, text, _colour(number)))
        near = (min(max(anchor[0], place[0]), place[2]), min(max(anchor[1], place[1]), place[3]))
        pen.line([tuple(anchor), near], fill=_INK, width=max(2, letter_px // 10))
    for place, text, colour in placed:  # over all leaders
        middle = (place[1] + place[3]) / 2
        pen.rounded_rectangle(place, letter_px / 3, fill=_PAPER, outline=colour, width=max(2, letter_px // 8))
        pen.text((place[0] + 0.4 * letter_px, middle), text, fill=_INK, font=font, anchor="lm")
    return len(measurement.cracks) - len(placed)


def _find_place(
    anchor: np.ndarray,
    label: tuple[float, float],
    size: tuple[int, int],
    taken: list[_Box],
    hidden: np.ndarray,
    letter_px: int,
) -> _Box | None:
    """Find a free place for a label near its crack, inside the image and away from the points ``hidden``."""
    width, height = label
    for gap in (1.0, 2.2):
        gap_px = gap * letter_px
        for left, top in (
            (anchor[0] + gap_px, anchor[1] - height / 2),
            (anchor[0] - gap_px - width, anchor[1] - height / 2),
            (anchor[0] - width / 2, anchor[1] - gap_px - height),
            (anchor[0] - width / 2, anchor[1] + gap_px),
            (anchor[0] + gap_px, anchor[1] + gap_px),
            (anchor[0] - gap_px - width, anchor[1] - gap_px - height),
        ):
            box = (float(left), float(top), float(left + width), float(top + height))
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            if not inside or any(
                box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken
            ):
                continue
            if not ((hidden > box[:2]) & (hidden < box[2:])).all(axis=1).any():
                return box
    return None
