"""Write cracks into the files of annotation tools: the counterpart of crackseg.data.importing.annotations."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from crackseg.data.importing.annotations.brush_runs import encode_brush
from crackseg.data.importing.shapes import find_outlines
from crackseg.files import write_bytes
from crackseg.inference.annotation_lines import WideLine, fit_lines

_LABEL = "crack"
_CVAT_WIDTHS = ("width", "width_profile")  # attributes: of a line of one width, and of others
_CVAT_POINTS = 150  # of a line: its widths are text of an attribute, and CVAT stores 4096 characters of it


@dataclass(frozen=True, slots=True)
class ExportedCrack:
    """One 8-connected component of a mask, cut out.

    Attributes:
        own_HW: uint8 {0, 1}.
        left, top: its place in the photograph in pixels.
    """

    own_HW: np.ndarray
    left: int
    top: int

    def outline(self) -> np.ndarray:
        """Find its polygon, float (N, 2)."""
        (outline,) = find_outlines(self.own_HW)
        return np.asarray((outline + np.array([self.left, self.top])).round(2))

    def lines(self) -> list[WideLine]:
        """Fit lines of the photograph's pixels."""
        return [
            WideLine((line.points + np.array([self.left, self.top])).round(2), line.widths_px)
            for line in fit_lines(self.own_HW)
        ]


@dataclass(frozen=True, slots=True)
class ExportedImage:
    """A photograph in ``images/`` and its cracks."""

    name: str
    width: int
    height: int
    cracks: tuple[ExportedCrack, ...]


Writer = Callable[[Path, Iterator[ExportedImage]], tuple[int, int]]


def _write_coco(out_dir: Path, images: Iterator[ExportedImage], *, with_lines: bool = False) -> tuple[int, int]:
    """Write polygons; lines, which COCO has no word for, as an attribute that other tools do not read."""
    content: dict[str, list[Any]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": _LABEL, "supercategory": ""}],
    }
    num_shapes = 0
    for number, image in enumerate(images, start=1):
        content["images"].append(
            {"id": number, "file_name": image.name, "width": image.width, "height": image.height}
        )
        for crack in image.cracks:
            outline = crack.outline()
            low, high = outline.min(axis=0), outline.max(axis=0)
            x, y = outline.T
            annotation: dict[str, Any] = {
                "id": len(content["annotations"]) + 1,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": [outline.ravel().tolist()],
                "bbox": [*low.tolist(), *(high - low).round(2).tolist()],
                "area": round(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2, 2),
            }
            if with_lines:
                lines = [{"points": line.points.tolist(), **_say_width(line)} for line in crack.lines()]
                annotation["attributes"] = {"centerlines": lines}
                num_shapes += len(lines)
            else:
                num_shapes += 1
            content["annotations"].append(annotation)
    write_bytes(out_dir / "annotations.json", json.dumps(content).encode())
    return len(content["images"]), num_shapes


def _say_width(line: WideLine) -> dict[str, Any]:
    """Return the line's width, or its profile: x, y and width of each place."""
    if (line.widths_px == line.widths_px[0]).all():
        return {"width_px": float(line.widths_px[0])}
    return {"width_profile": np.column_stack([line.points, line.widths_px]).round(2).tolist()}


def _write_labelme(out_dir: Path, images: Iterator[ExportedImage], *, with_lines: bool = False) -> tuple[int, int]:
    num_images = num_shapes = 0
    for image in images:
        shapes: list[dict[str, Any]] = []
        for number, crack in enumerate(image.cracks, start=1):
            common: dict[str, Any] = {"label": _LABEL, "group_id": number if with_lines else None, "flags": {}}
            if with_lines:
                shapes += [
                    {**common, "points": line.points.tolist(), "shape_type": "linestrip", **_say_width(line)}
                    for line in crack.lines()
                ]
            else:
                shapes.append({**common, "points": crack.outline().tolist(), "shape_type": "polygon"})
        content: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": image.name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        path = out_dir / "images" / f"{Path(image.name).stem}.json"
        write_bytes(path, json.dumps(content, indent=1).encode())
        num_images += 1
        num_shapes += len(shapes)
    return num_images, num_shapes


def _write_cvat(out_dir: Path, images: Iterator[ExportedImage], *, with_lines: bool = False) -> tuple[int, int]:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    _declare_label(ElementTree.SubElement(root, "meta"), with_widths=with_lines)
    num_images = num_shapes = 0
    for number, image in enumerate(images):
        num_images += 1
        size = {"width": str(image.width), "height": str(image.height)}
        element = ElementTree.SubElement(root, "image", {"id": str(number), "name": image.name, **size})
        for group, crack in enumerate(image.cracks, start=1):
            common = {"label": _LABEL, "source": "auto", "occluded": "0", "z_order": "0"}
            if not with_lines:
                ElementTree.SubElement(element, "polygon", {**common, "points": _join_points(crack.outline())})
                num_shapes += 1
                continue
            for line in (part for whole in crack.lines() for part in _cut(whole)):
                points = {"points": _join_points(line.points), "group_id": str(group)}
                polyline = ElementTree.SubElement(element, "polyline", {**common, **points})
                said = _say_width(line)
                one_width, profile = _CVAT_WIDTHS
                name = one_width if "width_px" in said else profile
                text = (
                    str(said["width_px"]) if name == one_width else _join_points(np.array(said["width_profile"]))
                )
                ElementTree.SubElement(polyline, "attribute", name=name).text = text
                num_shapes += 1
    write_bytes(out_dir / "annotations.xml", ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    if with_lines:
        # CVAT drops attributes that the project's label does not have.
        attributes = [
            {"name": name, "input_type": "text", "mutable": False, "values": [""]} for name in _CVAT_WIDTHS
        ]
        labels = [{"name": _LABEL, "type": "any", "attributes": attributes}]
        write_bytes(out_dir / "cvat-labels.json", (json.dumps(labels, indent=1) + "\n").encode())
    return num_images, num_shapes


def _declare_label(meta: ElementTree.Element, *, with_widths: bool) -> None:
    """Declare the label and its attributes, as CVAT's own files do: other programs need it to read the shapes."""
    task = ElementTree.SubElement(meta, "task")
    ElementTree.SubElement(task, "mode").text = "annotation"
    label = ElementTree.SubElement(ElementTree.SubElement(task, "labels"), "label")
    ElementTree.SubElement(label, "name").text = _LABEL
    attributes = ElementTree.SubElement(label, "attributes")
    for name in _CVAT_WIDTHS if with_widths else ():
        attribute = ElementTree.SubElement(attributes, "attribute")
        for tag, text in (("name", name), ("mutable", "False"), ("input_type", "text"), ("default_value", "")):
            ElementTree.SubElement(attribute, tag).text = text


def _join_points(points: np.ndarray) -> str:
    return ";".join(",".join(f"{value:.2f}" for value in row) for row in points)


def _cut(line: WideLine) -> Iterator[WideLine]:
    """Cut a line into parts of few points; each begins with the last point of the one before."""
    num_parts = max(1, math.ceil((len(line.points) - 1) / (_CVAT_POINTS - 1)))
    bounds = np.linspace(0, len(line.points) - 1, num_parts + 1).round().astype(int)
    for start, stop in pairwise(bounds):
        yield WideLine(line.points[start : stop + 1], line.widths_px[start : stop + 1])


def _write_label_studio(
    out_dir: Path, images: Iterator[ExportedImage], *, with_brush: bool = False
) -> tuple[int, int]:
    """Write predictions, which Label Studio shows to be corrected, and a labelling configuration that fits them."""
    kind = "brushlabels" if with_brush else "polygonlabels"
    tasks = []
    num_shapes = 0
    for number, image in enumerate(images, start=1):
        results = []
        for index, crack in enumerate(image.cracks, start=1):
            if with_brush:
                rle = encode_brush(crack.own_HW, (crack.left, crack.top), (image.width, image.height))
                value: dict[str, Any] = {"format": "rle", "rle": rle}
            else:
                percent = crack.outline() / (image.width, image.height) * 100
                value = {"points": percent.round(8).tolist(), "closed": True}
            results.append(
                {
                    "id": f"crack-{number}-{index}",
                    "type": kind,
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": image.width,
                    "original_height": image.height,
                    "image_rotation": 0,
                    "value": {**value, kind: [_LABEL]},
                }
            )
        num_shapes += len(results)
        # Below the root that Label Studio serves files of, LOCAL_FILES_DOCUMENT_ROOT: the folder that holds out_dir.
        address = f"/data/local-files/?d={quote(f'{out_dir.resolve().name}/images/{image.name}')}"
        predictions = [{"model_version": "crackseg", "result": results}]
        tasks.append({"data": {"image": address}, "predictions": predictions})
    write_bytes(out_dir / "tasks.json", json.dumps(tasks).encode())
    tag = "BrushLabels" if with_brush else "PolygonLabels"
    config = (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <{tag} name="label" toName="image">\n    <Label value="{_LABEL}" background="#d55e00"/>\n'
        f"  </{tag}>\n</View>\n"
    )
    write_bytes(out_dir / "label-config.xml", config.encode())
    return len(tasks), num_shapes


WRITERS: dict[tuple[str, str], Writer] = {
    ("coco", "polygons"): _write_coco,
    ("labelme", "polygons"): _write_labelme,
    ("cvat", "polygons"): _write_cvat,
    ("labelstudio", "polygons"): _write_label_studio,
    ("coco", "lines"): partial(_write_coco, with_lines=True),
    ("labelme", "lines"): partial(_write_labelme, with_lines=True),
    ("cvat", "lines"): partial(_write_cvat, with_lines=True),
    ("labelstudio", "masks"): partial(_write_label_studio, with_brush=True),
}
