"""Label Studio's JSON: a list of tasks, each with an image's address and its annotations (polygons, brush masks)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from crackseg.data.importing.annotations.brush_runs import decode_brush
from crackseg.data.importing.annotations.drawn import (
    DAMAGES,
    AnnotatedImage,
    AnnotationFile,
    Shape,
    as_points,
    as_size,
    name_damage,
)
from crackseg.errors import CracksegError, count_of, join_some

_NO_LABEL = "(no label)"
_RESULTS = ("annotations", "predictions", "completions")
_NOT_DRAWN = frozenset({"labels", "relation", "textarea", "number", "rating", "taxonomy", "datetime", "ranker"})
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio's own, before the name of an uploaded file


def is_label_studio(data: Any) -> bool:
    """Return whether parsed JSON is of tasks, of one task, or of one annotation with its task."""
    tasks = data if isinstance(data, list) else [data]
    return bool(tasks) and all(isinstance(t, dict) and (_is_task(t) or _is_annotation(t)) for t in tasks)


def read_label_studio(path: Path, data: list[dict[str, Any]] | dict[str, Any]) -> AnnotationFile:
    """Read parsed JSON of Label Studio.

    Of a task that no one annotated, the prediction counts, since a person may have found it right; a remark says so.

    Raises:
        CracksegError: a task has several annotations or no image, or a region cannot be read.
    """
    images = []
    remarks: Counter[str] = Counter()
    submitted = False
    for number, task in enumerate(data if isinstance(data, list) else [data], start=1):
        if not _is_task(task):
            task = {**task["task"], "annotations": [task]}
        where = f"task {task.get('id', f'number {number}')}"
        found = _choose_results(path, where, task)
        if found is None:
            continue
        results, by_person = found
        submitted |= by_person
        try:
            shapes, size = _read_results(results, remarks)
        except DAMAGES as error:
            raise CracksegError(
                f"{path}: {where}: {name_damage(error)}; correct it in Label Studio, or export again"
            ) from error
        if not by_person:
            remarks["predicted, and not submitted by a person: taken as they are"] += len(shapes)
        name, other_name = _name_image(path, where, task)
        images.append(AnnotatedImage(name, path, size, tuple(shapes), other_name=other_name))
    return AnnotationFile(path, images, says_empty=submitted, remarks=+remarks)


def _is_task(item: dict[str, Any]) -> bool:
    return isinstance(item.get("data"), dict) and any(isinstance(item.get(key), list) for key in _RESULTS)


def _is_annotation(item: dict[str, Any]) -> bool:
    task = item.get("task")
    return isinstance(item.get("result"), list) and isinstance(task, dict) and isinstance(task.get("data"), dict)


def _choose_results(path: Path, where: str, task: dict[str, Any]) -> tuple[list[dict[str, Any]], bool] | None:
    """Return the regions that count and whether a person submitted them; None where there are none at all."""
    made = [*(task.get("annotations") or []), *(task.get("completions") or [])]
    made = [annotation for annotation in made if not annotation.get("was_cancelled")]
    best = [annotation for annotation in made if annotation.get("ground_truth")]
    for word, group in (
        ("annotation", best or made),
        ("prediction", [] if made else task.get("predictions") or []),
    ):
        if len(group) > 1:
            raise CracksegError(
                f"{path}: {where} has {count_of(len(group), word)}, and it is not said which one counts; mark one as "
                "ground truth in Label Studio, or delete the others"
            )
        if group:
            return list(group[0].get("result") or []), word == "annotation"
    return None


def _name_image(path: Path, where: str, task: dict[str, Any]) -> tuple[str, str]:
    """Return the file name in the image's address, and the name before it was uploaded (may be empty)."""
    data = {key: value for key, value in task["data"].items() if isinstance(value, str)}
    addresses = [data["image"]] if "image" in data else [v for v in data.values() if PurePosixPath(v).suffix]
    if len(addresses) != 1:
        raise CracksegError(
            f"{path}: {where} does not say its image: expected data.image, got {join_some(task['data']) or 'nothing'}"
        )
    parts = urlsplit(addresses[0])
    inner = parse_qs(parts.query).get("d", [""])[0]  # of /data/local-files/?d=folder/name.jpg
    name = inner or unquote(parts.path if parts.scheme or parts.path.startswith("/data/") else addresses[0])
    own = PurePosixPath(name.replace("\\", "/")).name
    before = _UPLOAD_PREFIX.sub("", own)
    return name, before if before != own else ""


def _read_results(
    results: list[dict[str, Any]], remarks: Counter[str]
) -> tuple[list[Shape], tuple[int, int] | None]:
    """Return the shapes, and the size of the image where a region says it."""
    shapes, sizes = [], set()
    # A region and its labels are two results with the same id where the labels are a tag of their own.
    labels = {r["id"]: _find_label(r) for r in results if r.get("type") == "labels" and "id" in r}
    for number, result in enumerate(results, start=1):
        kind = str(result["type"])
        if kind in _NOT_DRAWN:
            if kind not in ("labels", "relation"):
                remarks[f"with {kind} of Label Studio, which is not used"] += 1
            continue
        if kind == "choices":
            shapes += [Shape(str(choice), "tag", place="choices") for choice in result["value"]["choices"]]
            continue
        place = f"region {result.get('id', f'number {number}')}"
        try:
            size = as_size(result.get("original_width"), result.get("original_height"))
            shapes.append(_read_region(result, kind, labels.get(result.get("id")), size, place, remarks))
        except DAMAGES as error:
            raise ValueError(f"{place} ({kind}) cannot be read: {name_damage(error)}") from error
        sizes.add(size)
    if len(sizes) > 1:
        raise ValueError(
            f"its regions are of photographs of different sizes ({join_some(sorted(map(str, sizes)))})"
        )
    return shapes, next(iter(sizes), None)


def _find_label(result: dict[str, Any]) -> str | None:
    for key, value in result["value"].items():
        if key.endswith("labels") and isinstance(value, list) and value:
            return str(value[0])
    return None


def _read_region(
    result: dict[str, Any],
    kind: str,
    other_label: str | None,
    size: tuple[int, int] | None,
    place: str,
    remarks: Counter[str],
) -> Shape:
    value = result["value"]
    label = _find_label(result) or other_label or _NO_LABEL
    word = kind.removesuffix("labels")
    if float(result.get("image_rotation") or 0) % 360:
        raise ValueError(
            f"it was drawn on the photograph rotated by {result['image_rotation']} degrees; expected 0: rotate it back "
            "and draw it again"
        )
    if word not in ("polygon", "brush") or (word == "brush" and "rle" not in value):
        return Shape(label, word, place=place)
    if size is None:
        raise ValueError("it has no original_width and original_height, so its place in pixels is not known")
    if word == "polygon":
        if value.get("closed") is False:
            remarks["not closed: closed between their last and first point"] += 1
        return Shape(label, "polygon", as_points(value["points"]) * np.array(size) / 100, place=place)
    if value.get("format", "rle") != "rle":
        raise ValueError(f"a mask in the format {value['format']!r}; expected 'rle'")
    runs, box = decode_brush(value["rle"], *size)
    return Shape(label, "mask", runs=runs, box=box, place=place)
