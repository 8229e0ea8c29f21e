"""Ground truth drawn in annotation tools: COCO JSON, LabelMe JSON, CVAT's XML for images.

Read into shapes for each image; crackseg.data.shapes draws them. Coordinates are the tools': (0, 0) is the upper left
corner of the first pixel, (0.5, 0.5) its middle.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crackseg.data.wording import join_some
from crackseg.errors import CracksegError

FORMATS = "COCO JSON, LabelMe JSON or CVAT's XML for images"


@dataclass(frozen=True, slots=True)
class Shape:
    """Something drawn on an image.

    Attributes:
        label: its category.
        kind: ``polygon``, ``polyline`` or ``mask``; another one cannot say which pixels are crack.
        points: float (N, 2), x and y, of a polygon or polyline.
        width_px: of a polyline, where the file says it.
        runs: of a mask, lengths of runs of pixels that are off, on, off, …
        box: of a mask, left, top, width, height.
        by_column: whether the runs go down the columns (COCO) or along the rows (CVAT).
    """

    label: str
    kind: str
    points: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    width_px: float | None = None
    runs: tuple[int, ...] = ()
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    by_column: bool = False


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """What a file says of one image.

    Attributes:
        name: the image's file name, perhaps with folders.
        path: the annotation file.
        size: width and height as the file says them, or None.
        shapes: may be empty: an image without cracks.
    """

    name: str
    path: Path
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]


def read_annotations(path: Path) -> list[AnnotatedImage] | None:
    """Read an annotation file.

    Returns:
        The images that it tells of, or None if it is in none of the three forms.
    Raises:
        CracksegError: it is in one of them, and damaged.
    """
    content = path.read_bytes()
    try:
        return _read_xml(path, content) if path.suffix.lower() == ".xml" else _read_json(path, content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, CracksegError):
            raise
        raise CracksegError(
            f"{path}: looks like {FORMATS}, but is damaged ({type(error).__name__}: {error}); export it again"
        ) from error


def is_crack_label(label: str) -> bool:
    """Whether a category's name says crack: ``crack``, ``Cracks``, ``crack_fine``, but not ``no crack``."""
    words = set(re.findall(r"[a-z]+", label.lower()))
    return bool(words & {"crack", "cracks"}) and not words & {"no", "non", "not", "without"}


def choose_shapes(
    images: list[AnnotatedImage], crack_labels: tuple[str, ...] | None
) -> tuple[set[str], list[str], list[str]]:
    """Decide which labels are cracks.

    Args:
        crack_labels: the user's; None for those whose name says crack.
    Returns:
        The labels; problems (none is a crack, or one that was asked for is nowhere); notes (what was left out).
    """
    seen = {shape.label for image in images for shape in image.shapes}
    if crack_labels:
        missing = sorted(set(crack_labels) - seen)
        if missing and seen:
            return (
                set(),
                [f"no shape has the label {join_some(missing)}; labels seen: {join_some(sorted(seen))}"],
                [],
            )
        chosen = set(crack_labels)
    else:
        chosen = {label for label in seen if is_crack_label(label)}
    others = sorted(seen - chosen)
    if others and not chosen:
        return (
            set(),
            [
                f"no label says crack: {join_some(others)}. Which are cracks? Say it, e.g. --crack-label "
                f"{json.dumps(others[0])} (repeat it for more than one)"
            ],
            [],
        )
    left_out = sum(shape.label in others for image in images for shape in image.shapes)
    notes = [f"{left_out} shapes left out, whose label is no crack: {join_some(others)}"] if others else []
    return chosen, [], notes


def _read_json(path: Path, content: bytes) -> list[AnnotatedImage] | None:
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    if {"images", "annotations", "categories"} <= data.keys():
        return _read_coco(path, data)
    if {"shapes", "imagePath"} <= data.keys():
        return [_read_labelme(path, data)]
    return None


def _read_coco(path: Path, data: dict[str, Any]) -> list[AnnotatedImage]:
    labels = {category["id"]: str(category["name"]) for category in data["categories"]}
    shapes: dict[Any, list[Shape]] = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        if annotation["image_id"] not in shapes:
            raise CracksegError(
                f"{path}: annotation {annotation.get('id')} is of no image in the file; export it again"
            )
        label = labels[annotation["category_id"]]
        segmentation = annotation.get("segmentation") or []
        if isinstance(segmentation, dict):
            height, width = segmentation["size"]
            runs = segmentation["counts"]
            runs = _decode_coco_runs(runs) if isinstance(runs, str) else tuple(map(int, runs))
            found = [Shape(label, "mask", runs=runs, box=(0, 0, int(width), int(height)), by_column=True)]
        else:
            found = [Shape(label, "polygon", _as_points(ring)) for ring in segmentation]
        shapes[annotation["image_id"]] += found or [Shape(label, "box")]
    return [
        AnnotatedImage(str(i["file_name"]), path, (int(i["width"]), int(i["height"])), tuple(shapes[i["id"]]))
        for i in data["images"]
    ]


def _decode_coco_runs(text: str) -> tuple[int, ...]:
    """Decode COCO's compressed runs: 5 bits a letter, from the third on as the difference to the last but one."""
    runs: list[int] = []
    letters = iter(text.encode("ascii"))
    for letter in letters:
        value, shift, code = 0, 0, letter - 48
        while True:
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
            code = next(letters) - 48
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return tuple(runs)


def _read_labelme(path: Path, data: dict[str, Any]) -> AnnotatedImage:
    shapes = []
    for shape in data["shapes"]:
        kind = {"polygon": "polygon", "linestrip": "polyline", "line": "polyline"}.get(
            shape.get("shape_type") or "polygon", str(shape.get("shape_type"))
        )
        line_px = shape.get("width_px")
        points = _as_points(shape["points"])
        shapes.append(Shape(str(shape["label"]), kind, points, None if line_px is None else float(line_px)))
    width, height = data.get("imageWidth"), data.get("imageHeight")
    known = None if width is None or height is None else (int(width), int(height))
    return AnnotatedImage(str(data["imagePath"]), path, known, tuple(shapes))


def _read_xml(path: Path, content: bytes) -> list[AnnotatedImage] | None:
    if b"<!ENTITY" in content:  # no tool writes them, and they can make a small file large
        return None
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return None
    if root.tag != "annotations" or root.find("image") is None:
        return None
    return [
        AnnotatedImage(
            image.attrib["name"],
            path,
            (int(image.attrib["width"]), int(image.attrib["height"])),
            tuple(_cvat_shapes(image)),
        )
        for image in root.iter("image")
    ]


def _cvat_shapes(image: ElementTree.Element) -> Iterator[Shape]:
    for element in image:
        label = element.get("label")
        if label is None or element.tag == "tag":
            continue
        if element.tag == "mask":
            runs = tuple(int(run) for run in element.attrib["rle"].split(","))
            left, top, width, height = (int(element.attrib[name]) for name in ("left", "top", "width", "height"))
            yield Shape(label, "mask", runs=runs, box=(left, top, width, height))
        elif element.tag in ("polygon", "polyline"):
            points = _as_points([pair.split(",") for pair in element.attrib["points"].split(";")])
            widths = [a.text for a in element.iter("attribute") if a.get("name") in ("width", "width_px")]
            yield Shape(label, element.tag, points, float(widths[0]) if widths and widths[0] else None)
        else:
            yield Shape(label, element.tag)


def _as_points(values: Any) -> np.ndarray:
    points = np.array(values, float).reshape(-1, 2)
    if not len(points) or not np.isfinite(points).all():
        raise ValueError("a shape without points, or with one that is no number")
    return points
