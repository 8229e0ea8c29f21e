"""COCO JSON: one file with images, categories and annotations (polygons, or runs of pixels, compressed or not)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import points_in_poly

from crackseg.data.importing.annotations.drawn import AnnotatedImage, AnnotationFile, Shape, as_points, as_size
from crackseg.errors import CracksegError, count_of, join_some


def is_coco(data: Any) -> bool:
    """Return whether parsed JSON has the form of COCO, also without annotations (``image_info_test.json``)."""
    return (
        isinstance(data, dict)
        and isinstance(data.get("images"), list)
        and bool({"annotations", "categories"} & data.keys())
        and all(isinstance(image, dict) and {"file_name", "id"} & image.keys() for image in data["images"])
    )


def read_coco(path: Path, data: dict[str, Any]) -> AnnotationFile:
    """Read parsed COCO JSON.

    Raises:
        CracksegError: annotations point to images or categories that are not in the file, ids come twice, or a
            segmentation cannot be read.
    """
    annotations = data.get("annotations") or []
    labels = {str(c["id"]): str(c["name"]) for c in data.get("categories") or []}
    sizes = {str(i["id"]): as_size(i.get("width"), i.get("height")) for i in data["images"]}
    _check_ids(path, data, annotations, labels, sizes)
    shapes: dict[str, list[Shape]] = {image: [] for image in sizes}
    remarks: Counter[str] = Counter()
    for number, annotation in enumerate(annotations, start=1):
        image, label = str(annotation["image_id"]), labels[str(annotation["category_id"])]
        place = f"annotation {annotation['id']}" if "id" in annotation else f"annotation number {number}"
        try:
            found = _read_segmentation(annotation, label, sizes[image], place, remarks)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
            raise CracksegError(
                f"{path}: {place}: its segmentation cannot be read ({error or type(error).__name__}); export it again"
            ) from error
        shapes[image] += found or [Shape(label, "box", place=place)]
        if annotation.get("iscrowd"):
            remarks["marked as iscrowd (COCO's word for a group of objects)"] += 1
    return AnnotationFile(
        path,
        [
            AnnotatedImage(str(i["file_name"]), path, sizes[str(i["id"])], tuple(shapes[str(i["id"])]))
            for i in data["images"]
        ],
        labels=frozenset(labels.values()),
        remarks=remarks,
    )


def _check_ids(
    path: Path,
    data: dict[str, Any],
    annotations: list[dict[str, Any]],
    labels: dict[str, str],
    sizes: dict[str, tuple[int, int] | None],
) -> None:
    for word, ids in (
        ("image", [str(i["id"]) for i in data["images"]]),
        ("category", [str(c["id"]) for c in data.get("categories") or []]),
    ):
        twice = [key for key, count in Counter(ids).items() if count > 1]
        if twice:
            raise CracksegError(
                f"{path}: {word} id {join_some(twice)} comes more than once, so its annotations could be of either; "
                "export it again"
            )
    for word, key, known in (("image", "image_id", sizes.keys()), ("category", "category_id", labels.keys())):
        lost = [a for a in annotations if str(a.get(key)) not in known]
        if lost:
            names = join_some(str(a.get("id")) for a in lost)
            pointed_to = join_some(sorted({str(a.get(key)) for a in lost}))
            raise CracksegError(
                f"{path}: {count_of(len(lost), 'annotation')} of no {word} in the file (annotation {names}; {key} "
                f"{pointed_to}); export it again"
            )


def _read_segmentation(
    annotation: dict[str, Any], label: str, size: tuple[int, int] | None, place: str, remarks: Counter[str]
) -> list[Shape]:
    """Return the shapes of one annotation; none if it is only a box."""
    segmentation = annotation.get("segmentation") or []
    if isinstance(segmentation, dict):
        height, width = (int(v) for v in segmentation["size"])
        counts = segmentation["counts"]
        runs = _decode_runs(counts) if isinstance(counts, str) else tuple(int(run) for run in counts)
        if size is not None and (width, height) != size:
            raise ValueError(f"its mask has {width} x {height} pixels, its image {size[0]} x {size[1]}")
        if sum(runs) != width * height or min(runs, default=0) < 0:
            raise ValueError(
                f"its runs make {sum(runs)} pixels, which does not fit {width} x {height}: cut short or changed"
            )
        return [Shape(label, "mask", runs=runs, box=(0, 0, width, height), by_column=True, place=place)]
    if not isinstance(segmentation, list):
        raise TypeError(f"{str(segmentation)[:40]!r}: expected polygons or runs")
    if segmentation and not isinstance(segmentation[0], list):
        segmentation = [segmentation]  # one polygon without the list around it
    rings = [as_points(ring) for ring in segmentation if ring]
    if len(rings) < 2:
        return [Shape(label, "polygon", ring, place=place) for ring in rings]
    return _cut_holes(rings, annotation.get("area"), label, place, remarks)


def _cut_holes(rings: list[np.ndarray], area: Any, label: str, place: str, remarks: Counter[str]) -> list[Shape]:
    """Tell parts from holes where one polygon of an annotation lies within another.

    COCO has no word for holes, and its own tools fill them; but some exporters write them as polygons, and then the
    annotation's area says so.
    """
    areas = [_area(ring) for ring in rings]
    outer_of = {}
    for i, ring in enumerate(rings):
        around = [j for j, other in enumerate(rings) if areas[j] > areas[i] and points_in_poly(ring, other).all()]
        if around:
            outer_of[i] = max(around, key=lambda j: areas[j])
    if outer_of:
        filled = sum(a for i, a in enumerate(areas) if i not in outer_of)
        inner = sum(areas[i] for i in outer_of)
        area = float(area or 0)
        if area > 0 and abs(area - (filled - inner)) < min(abs(area - filled), abs(area - filled - inner)):
            remarks["with holes, as their area says: cut out"] += 1
        else:
            remarks["with a polygon inside another: filled, as COCO's own tools do"] += 1
            outer_of = {}
    return [
        Shape(label, "polygon", ring, holes=tuple(rings[h] for h, o in outer_of.items() if o == i), place=place)
        for i, ring in enumerate(rings)
        if i not in outer_of
    ]


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def _decode_runs(text: str) -> tuple[int, ...]:
    """Decode COCO's compressed runs: 5 bits a letter, from the third on as the difference to the last but one."""
    runs: list[int] = []
    letters = iter(text.encode("ascii"))
    for letter in letters:
        value, shift, code = 0, 0, letter - 48
        while True:
            if not 0 <= code < 64:
                raise ValueError("a letter that compressed runs do not have")
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
            code = next(letters, 0) - 48
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return tuple(runs)
