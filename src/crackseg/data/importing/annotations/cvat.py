"""CVAT's XML for images: polygons, polylines and masks (runs of pixels inside a box) for each image."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from crackseg.data.importing.annotations.drawn import (
    DAMAGES,
    AnnotatedImage,
    AnnotationFile,
    Shape,
    as_points,
    as_size,
    find_widths,
    name_damage,
)
from crackseg.errors import CracksegError

_UNMARKED = frozenset({"attribute", "points"})


def read_cvat(path: Path, root: ElementTree.Element) -> AnnotationFile:
    """Read the root of CVAT's XML, ``annotations``.

    Raises:
        CracksegError: it is a video's (tracks by frame), or a shape cannot be read.
    """
    if root.find("track") is not None:
        raise CracksegError(
            f"{path}: CVAT's XML for video: its tracks name frames by number and no image files; export the task as "
            "'CVAT for images 1.1'"
        )
    remarks: Counter[str] = Counter()
    images = []
    for image in root.iter("image"):
        name = image.get("name")
        if not name:
            raise CracksegError(f"{path}: image {image.get('id', '?')} has no name; export it again")
        shapes = []
        for number, element in enumerate((e for e in image if e.tag not in _UNMARKED), start=1):
            place = f"{element.tag} number {number}"
            try:
                shapes.append(_read_shape(element, place))
            except DAMAGES as error:
                raise CracksegError(
                    f"{path}: {name}: {place} is damaged ({name_damage(error)}); export it again"
                ) from error
            if element.get("occluded") == "1" and element.tag != "tag":
                remarks["marked as occluded"] += 1
        size = as_size(image.get("width"), image.get("height"))
        images.append(AnnotatedImage(name, path, size, tuple(shapes), subset=image.get("subset") or ""))
    labels = frozenset(label.text or "" for label in root.iterfind("meta//labels/label/name"))
    return AnnotationFile(path, images, labels=labels, remarks=remarks)


def _read_shape(element: ElementTree.Element, place: str) -> Shape:
    label = element.attrib["label"]
    if element.tag == "mask":
        runs = tuple(int(run) for run in element.attrib["rle"].split(","))
        left, top, width, height = (int(element.attrib[name]) for name in ("left", "top", "width", "height"))
        if min(runs) < 0 or sum(runs) > width * height:
            raise ValueError(f"its runs make {sum(runs)} pixels, which does not fit {width} x {height}")
        return Shape(label, "mask", runs=runs, box=(left, top, width, height), place=place)
    if element.tag in ("polygon", "polyline"):
        points = as_points(list(_split_points(element.attrib["points"])))
        _check_upright(element)
        if element.tag == "polygon":
            return Shape(label, element.tag, points, place=place)
        said = {a.get("name"): a.text for a in element.iter("attribute") if a.text and a.text.strip()}
        profile = said.get("width_profile")
        rows = None if profile is None else [row.split(",") for row in profile.split(";")]
        widths_px = find_widths(points, said.get("width") or said.get("width_px"), rows)
        return Shape(label, element.tag, points, widths_px=widths_px, place=place)
    return Shape(label, element.tag, place=place)


def _check_upright(element: ElementTree.Element) -> None:
    if float(element.get("rotation") or 0) % 360:
        raise ValueError(
            f"rotated by {element.get('rotation')} degrees; expected points as they lie on the photograph"
        )


def _split_points(text: str) -> Iterator[list[str]]:
    for pair in text.split(";"):
        xy = pair.split(",")
        if len(xy) != 2:
            raise ValueError(f"a point {pair!r}; expected x,y")
        yield xy
