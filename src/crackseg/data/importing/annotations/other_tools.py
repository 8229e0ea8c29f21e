"""Names for annotation files that are not read, so that they are not passed over as just any JSON or XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

_REMEDY = "export as COCO JSON, LabelMe JSON, Label Studio's JSON or 'CVAT for images'"


def name_json(data: Any) -> str | None:
    """Name the tool or form that parsed JSON is of, and the remedy; None where it is of none that is known."""
    form = _name_list(data) if isinstance(data, list) else _name_dict(data) if isinstance(data, dict) else None
    return f"{form}, which is not read; {_REMEDY}" if form else None


def name_xml(root: ElementTree.Element) -> str | None:
    """Name the form that XML is of, and the remedy; None where it is of none that is known."""
    if root.tag == "annotation" and root.find(".//polygon") is not None:
        form = "the XML of the old LabelMe on the web"
    elif root.tag == "annotation" and (root.find("object") is not None or root.find("filename") is not None):
        form = "Pascal VOC XML, which holds boxes and no pixels"
    else:
        return None
    return f"{form}, which is not read; {_REMEDY}"


def _name_list(items: list[Any]) -> str | None:
    first = next((item for item in items if isinstance(item, dict)), None)
    if first is None:
        return None
    keys = first.keys()
    if {"image_id", "category_id"} <= keys:
        return "COCO's form for detections (annotations without images)"
    if keys & {"annotation_id", "lead_time"} and "image" in keys:
        return "Label Studio's JSON-MIN"
    if {"Labeled Data", "Label"} <= keys or {"data_row", "projects"} <= keys:
        return "Labelbox's JSON"
    if "image" in keys and "annotations" in keys:
        return "CreateML's JSON, which holds boxes and no pixels"
    return None


def _name_dict(data: dict[str, Any]) -> str | None:
    keys = data.keys()
    if keys & {"_via_img_metadata", "_via_settings"} or _are_via_regions(data):
        return "VIA's JSON (VGG Image Annotator)"
    if keys >= {"config", "project"} and "metadata" in keys and "file" in keys:
        return "VIA 3's JSON (VGG Image Annotator)"
    if "objects" in keys and ("size" in keys or _is_dict_with(data["objects"], "classTitle")):
        return "Supervisely's JSON"
    if ("item" in keys or "image" in keys) and "annotations" in keys:
        return "Darwin's JSON (V7)"
    if "instances" in keys and "metadata" in keys:
        return "SuperAnnotate's JSON"
    if {"data_row", "projects"} <= keys:
        return "Labelbox's JSON"
    if "items" in keys and "categories" in keys:
        return "Datumaro's JSON"
    if data.get("type") == "FeatureCollection":
        return "GeoJSON"
    if "openlabel" in keys:
        return "OpenLABEL"
    if "annotations" in keys and _is_dict_with(data["annotations"], "segments_info"):
        return "COCO's form for panoptic segmentation"
    if "imgHeight" in keys and "objects" in keys:
        return "Cityscapes' JSON"
    return None


def _are_via_regions(data: dict[str, Any]) -> bool:
    values = list(data.values())[:3]
    return bool(values) and all(isinstance(v, dict) and {"filename", "regions"} <= v.keys() for v in values)


def _is_dict_with(items: Any, key: str) -> bool:
    return isinstance(items, list) and any(isinstance(item, dict) and key in item for item in items[:3])
