"""Draw the annotated image: each crack with its number, length, width and class, in large letters."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator
from itertools import pairwise, product

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from crackseg.geometry.components import Crack, Measurement
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE, Grading, classes_along, grade_crack

_SHORTEST_PX, _LONGEST_PX = 1400, 4096  # of the annotated image's longer side
_LETTERS = 40  # heights of a letter in the longer side: 5 mm on a screen or page 20 cm wide
_MAX_LABELS = 20
_QUALITY = 90
_INK, _PAPER = (20, 20, 20), (255, 255, 255)

_Box = tuple[float, float, float, float]
_Colour = tuple[int, int, int]


def draw_measurement(
    measurement: Measurement,
    background_hw3: np.ndarray | None = None,
    scale: Scale | None = None,
    *,
    grading: Grading = OF_CONCRETE,
) -> bytes:
    """Draw the centre lines and write each crack's length and mean width next to it.

    The 20 longest cracks have a label if there is free space next to them; the last line of the image says how many
    have none. With a scale the colour is that of the width class at each place, with a legend, and a label's frame has
    that of the crack's class; else each crack has its own.

    Args:
        measurement: of the mask.
        background_hw3: uint8 (h, w, 3), RGB, the photograph at any size; None for light grey.
        scale: labels in mm instead of pixels, and colours by width class at each place.
        grading: the width classes.
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
    colours, of_lines = choose_colours(measurement, scale, grading)
    branches = [branch for crack in measurement.cracks for branch in crack.branches]
    for branch, colours_n3 in zip(branches, of_lines, strict=True):
        points = [tuple(p) for p in ((branch.line.points + 0.5) * factor).round().astype(int).tolist()]
        width = max(round(branch.mean_width_px * factor / 2), letter_px // 9, 2)
        if scale is not None:  # a dark edge: yellow and sky blue are hard to see on light concrete
            pen.line(points, fill=_INK, width=width + 2 * max(1, letter_px // 16), joint="curve")
        for start, stop in _same_colour(colours_n3):
            pen.line(points[start : stop + 1], fill=tuple(colours_n3[start].tolist()), width=width, joint="curve")
    unlabelled = _draw_labels(pen, font, measurement, colours, size, factor, letter_px, scale)
    strip_px = round(1.6 * letter_px)
    legend = [] if scale is None else _lay_out_legend(pen, font, grading, size[0], letter_px)
    sheet = Image.new("RGB", (size[0], size[1] + strip_px * (1 + len(legend))), _PAPER)
    sheet.paste(picture)
    words = ImageDraw.Draw(sheet)
    footer = _footer(measurement, unlabelled, scale)
    words.text((0.5 * letter_px, size[1] + strip_px / 2), footer, _INK, font, anchor="lm")
    for row, entries in enumerate(legend, start=1):
        middle = size[1] + strip_px * (row + 0.5)
        for left, colour, text in entries:
            box = (left, middle - 0.35 * letter_px, left + letter_px, middle + 0.35 * letter_px)
            words.rectangle(box, fill=colour, outline=_INK)
            words.text((left + 1.4 * letter_px, middle), text, _INK, font, anchor="lm")
    return encode_lines(sheet, _QUALITY)


def encode_lines(picture: Image.Image, quality: int) -> bytes:
    """Encode a picture with thin lines as JPEG: with its colours at full resolution, so that they match the legend."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def choose_colours(
    measurement: Measurement, scale: Scale | None, grading: Grading
) -> tuple[list[_Colour], list[np.ndarray]]:
    """Choose the colours of cracks and of their lines, RGB: by width class with a scale, else by number.

    Returns:
        That of each crack, and for each branch of each crack uint8 (N, 3): those at the N points of its line, by
        :func:`crackseg.geometry.severity.classes_along`.
    """
    palette = np.array(grading.colours(), np.uint8)
    of_cracks: list[_Colour] = []
    of_lines: list[np.ndarray] = []
    for number, crack in enumerate(measurement.cracks, start=1):
        if scale is None:
            of_cracks.append(_colour(number))
            of_lines += [np.full((len(b.line.points), 3), of_cracks[-1], np.uint8) for b in crack.branches]
            continue
        grade = grade_crack(crack, grading, scale)
        of_cracks.append(grading.colour_of(str(grade.severity)))
        of_lines += [palette[along] for along in classes_along(crack, grade, grading, scale)]
    return of_cracks, of_lines


def _same_colour(colours_n3: np.ndarray) -> Iterator[tuple[int, int]]:
    """Find the runs of one colour: first point, and the point after the last."""
    changes = 1 + np.flatnonzero((np.diff(colours_n3, axis=0) != 0).any(axis=1))
    return pairwise([0, *changes.tolist(), len(colours_n3)])


def _lay_out_legend(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    grading: Grading,
    width: int,
    letter_px: int,
) -> list[list[tuple[float, _Colour, str]]]:
    """Return rows of the legend: left edge, colour and words of each width class."""
    rows: list[list[tuple[float, _Colour, str]]] = [[]]
    left = 0.5 * letter_px
    for each, colour in zip(grading.classes, grading.colours(), strict=True):
        text = f"{each.name}: {each.range_text}"
        advance = pen.textlength(text, font=font) + 2.6 * letter_px
        if rows[-1] and left + advance > width:
            rows.append([])
            left = 0.5 * letter_px
        rows[-1].append((left, colour, text))
        left += advance
    return rows


def _enlargement(measurement: Measurement) -> float:
    longest = max(measurement.width_px, measurement.height_px)
    return min(max(_SHORTEST_PX, longest), _LONGEST_PX) / longest


def _colour(number: int) -> _Colour:
    """Return a colour, RGB, so that neighbouring numbers differ in hue and none is the grey of a road."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.95, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _label(number: int, crack: Crack, scale: Scale | None) -> str:
    factor, unit = (1.0, "px") if scale is None else (scale.mm_per_px, "mm")
    return f"{number}: {crack.length_px * factor:.0f} {unit} x {crack.mean_width_px * factor:.1f}"


def _footer(measurement: Measurement, unlabelled: int, scale: Scale | None) -> str:
    factor, unit = (1.0, "px") if scale is None else (scale.mm_per_px, "mm")
    rest = f", {unlabelled} without label" if unlabelled else ""
    text = f"number: length x mean width in {unit}; {len(measurement.cracks)} cracks{rest}"
    return f"{text}, {measurement.length_px * factor:.0f} {unit} together" if measurement.cracks else "no cracks"


def _draw_labels(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    measurement: Measurement,
    colours: list[_Colour],
    size: tuple[int, int],
    factor: float,
    letter_px: int,
    scale: Scale | None,
) -> int:
    taken: list[_Box] = []
    lines = [branch.line.points for crack in measurement.cracks for branch in crack.branches]
    points = (np.concatenate(lines) + 0.5) * factor if lines else np.empty((0, 2))
    placed = []
    for number, crack in enumerate(measurement.cracks[:_MAX_LABELS], start=1):
        text = _label(number, crack, scale)
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
        placed.append((place, text, colours[number - 1]))
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
