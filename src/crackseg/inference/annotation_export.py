"""Export predicted cracks as shapes, to correct them in an annotation tool and import them again."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crackseg.data.images.decoding import decode_image, open_image, read_orientation
from crackseg.data.images.files import encode_png, read_file
from crackseg.data.importing.shapes import find_outlines
from crackseg.data.masks.formats import MaskReader
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.inference.table import TABLE_NAME, is_table
from crackseg.progress import progress

FORMATS = ("coco", "labelme", "cvat")
_LABEL = "crack"


@dataclass(frozen=True, slots=True)
class _Outlined:
    name: str  # of the copied photograph
    width: int
    height: int
    outlines: list[np.ndarray]


def export_annotations(predicted_dir: Path, out_dir: Path, form: str) -> tuple[int, int]:
    """Write the cracks of predicted photographs as polygons, with copies of the photographs.

    Args:
        predicted_dir: of `crackseg predict`.
        out_dir: new or empty; for ``images/``, and ``annotations.json`` (COCO), ``annotations.xml`` (CVAT), or a JSON
            next to each image (LabelMe).
        form: one of ``FORMATS``.
    Returns:
        Numbers of photographs and of cracks.
    Raises:
        CracksegError: predicted_dir holds no predictions, a photograph is missing or of another size than its mask,
            or out_dir is not empty.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise CracksegError(f"{out_dir} is not empty; corrections there would be lost: choose another --out")
    rows = _read_rows(predicted_dir)
    writer = {"coco": _write_coco, "labelme": _write_labelme, "cvat": _write_cvat}[form]
    return writer(out_dir, _outline(rows, predicted_dir, out_dir))


def _read_rows(predicted_dir: Path) -> list[dict[str, str]]:
    path = predicted_dir / TABLE_NAME
    if not path.is_file():
        raise CracksegError(f"{path}: no such file; expected a folder that `crackseg predict --out` has written")
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        if not is_table(reader.fieldnames or ()):
            raise CracksegError(f"{path}: not a table of this version of crackseg; predict again")
        rows = [row for row in reader if row["mask"] and not row["error"]]
    if not rows:
        raise CracksegError(f"{path}: no photograph was predicted, so there is nothing to correct")
    missing = [row["image"] for row in rows if not Path(row["image"]).is_file()]
    if missing:
        raise CracksegError(f"{missing[0]}: the photograph is not there any more; put it back, or predict again")
    return rows


def _outline(rows: list[dict[str, str]], predicted_dir: Path, out_dir: Path) -> Iterator[_Outlined]:
    taken: set[str] = set()
    for row in progress(rows, "outline", "photograph"):
        source = Path(row["image"])
        # One folder, since an import identifies photographs by their names only.
        stem = Path(row["mask"]).with_suffix("").as_posix().removeprefix("masks/").replace("/", "_")
        while stem.lower() in taken:
            stem += "_"
        taken.add(stem.lower())
        reader = MaskReader(may_fill=True)  # not read_mask: a mask may have been corrected with any tool
        mask = reader.read(predicted_dir / row["mask"])
        if problems := reader.find_problems():
            raise CracksegError(f"{predicted_dir / row['mask']}: {'; '.join(problems)}")
        content = read_file(source)
        image = decode_image(content, name=str(source))
        height, width = image.shape[:2]
        if (height, width) != mask.shape:
            raise CracksegError(
                f"{source}: {width} x {height} pixels, unlike its mask; it was changed: predict again"
            )
        # Not every tool rotates a photograph by its EXIF orientation: such a one is written upright, as PNG.
        turned = read_orientation(open_image(content, str(source))) != 1
        name = f"{stem}{'.png' if turned else source.suffix.lower()}"
        write_bytes(out_dir / "images" / name, encode_png(image) if turned else content)
        yield _Outlined(name, width, height, [outline.round(2) for outline in find_outlines(mask)])


def _write_coco(out_dir: Path, images: Iterator[_Outlined]) -> tuple[int, int]:
    content: dict[str, list[object]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": _LABEL, "supercategory": ""}],
    }
    for number, image in enumerate(images, start=1):
        content["images"].append(
            {"id": number, "file_name": image.name, "width": image.width, "height": image.height}
        )
        for outline in image.outlines:
            low, high = outline.min(axis=0), outline.max(axis=0)
            x, y = outline.T
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "segmentation": [outline.ravel().tolist()],
                    "bbox": [*low.tolist(), *(high - low).round(2).tolist()],
                    "area": round(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2, 2),
                }
            )
    write_bytes(out_dir / "annotations.json", json.dumps(content).encode())
    return len(content["images"]), len(content["annotations"])


def _write_labelme(out_dir: Path, images: Iterator[_Outlined]) -> tuple[int, int]:
    num_images = num_cracks = 0
    for image in images:
        content: dict[str, object] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [
                {"label": _LABEL, "points": o.tolist(), "group_id": None, "shape_type": "polygon", "flags": {}}
                for o in image.outlines
            ],
            "imagePath": image.name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        path = out_dir / "images" / f"{Path(image.name).stem}.json"
        write_bytes(path, json.dumps(content, indent=1).encode())
        num_images += 1
        num_cracks += len(image.outlines)
    return num_images, num_cracks


def _write_cvat(out_dir: Path, images: Iterator[_Outlined]) -> tuple[int, int]:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    num_cracks = 0
    for number, image in enumerate(images):
        attributes = {
            "id": str(number),
            "name": image.name,
            "width": str(image.width),
            "height": str(image.height),
        }
        element = ElementTree.SubElement(root, "image", attributes)
        for outline in image.outlines:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline)
            ElementTree.SubElement(
                element, "polygon", label=_LABEL, source="auto", occluded="0", points=points, z_order="0"
            )
            num_cracks += 1
    write_bytes(out_dir / "annotations.xml", ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return len(root) - 1, num_cracks
