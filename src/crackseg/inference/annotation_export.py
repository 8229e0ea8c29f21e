"""Export predicted cracks as shapes, to correct them in an annotation tool and import them again."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from crackseg.data.images.decoding import decode_image, open_image, read_orientation
from crackseg.data.images.files import encode_png, read_file
from crackseg.data.masks.formats import MaskReader
from crackseg.errors import CracksegError, count_of
from crackseg.files import write_bytes
from crackseg.inference.annotation_writers import WRITERS, ExportedCrack, ExportedImage
from crackseg.inference.table import TABLE_NAME, is_table, read_table
from crackseg.progress import progress

_log = logging.getLogger("crackseg")
FORMATS = tuple(dict.fromkeys(form for form, _ in WRITERS))
SHAPES = tuple(dict.fromkeys(shapes for _, shapes in WRITERS))


def export_annotations(predicted_dir: Path, out_dir: Path, form: str, shapes: str = "polygons") -> tuple[int, int]:
    """Write the cracks of predicted photographs as shapes, with copies of the photographs.

    Args:
        predicted_dir: of `crackseg predict`.
        out_dir: new or empty, and left so by an error; for ``images/``, and ``annotations.json`` (COCO),
            ``annotations.xml`` (CVAT), ``tasks.json`` (Label Studio), or a JSON next to each image (LabelMe).
        form: one of ``FORMATS``.
        shapes: one of ``SHAPES``. An import makes the same mask of them: of polygons and masks pixel by pixel, of lines
            with an IoU of at least ``annotation_lines.MIN_IOU`` for each crack.
    Returns:
        Numbers of photographs and of shapes.
    Raises:
        CracksegError: predicted_dir holds no predictions, a photograph is missing or of another size than its mask,
            or out_dir is not empty.
    """
    writer = WRITERS.get((form, shapes))
    if writer is None:
        forms = ", ".join(known for known, kind in WRITERS if kind == shapes)
        raise CracksegError(
            f"{form} cannot hold cracks as {shapes}; expected one of {forms}, or --shapes polygons"
        )
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise CracksegError(f"{out_dir} is not empty; corrections there would be lost: choose another --out")
    rows = _read_rows(predicted_dir)
    out_dir = out_dir.resolve()
    part = out_dir.with_name(f".{out_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    try:
        unfinished = part / out_dir.name  # Label Studio's addresses contain the folder's name
        counts = writer(unfinished, _copy(rows, predicted_dir, unfinished))
        if out_dir.exists():  # it may be the current folder
            for path in sorted(unfinished.iterdir(), reverse=True):
                path.rename(out_dir / path.name)
        else:
            unfinished.rename(out_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return counts


def _read_rows(predicted_dir: Path) -> list[dict[str, str]]:
    path = predicted_dir / TABLE_NAME
    if not path.is_file():
        raise CracksegError(f"{path}: no such file; expected a folder that `crackseg predict --out` has written")
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        if not is_table(next(reader, [])):
            raise CracksegError(f"{path}: not a table of this version of crackseg; predict again")
        num_rows = sum(1 for _ in reader)
    complete = read_table(path)
    if len(complete) < num_rows:
        _log.warning(
            "%s: %s cut short, and left out; predict again", path, count_of(num_rows - len(complete), "row")
        )
    rows = [row for row in complete if row["mask"] and not row["error"]]
    if not rows:
        raise CracksegError(f"{path}: no photograph was predicted, so there is nothing to correct")
    missing = [row["image"] for row in rows if not Path(row["image"]).is_file()]
    if missing:
        raise CracksegError(f"{missing[0]}: the photograph is not there any more; put it back, or predict again")
    return rows


def _copy(rows: list[dict[str, str]], predicted_dir: Path, out_dir: Path) -> Iterator[ExportedImage]:
    taken: set[str] = set()
    for row in progress(rows, "export", "photograph"):
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
        yield ExportedImage(name, width, height, tuple(_split_cracks(mask)))


def _split_cracks(mask: np.ndarray) -> Iterator[ExportedCrack]:
    num_pieces, piece, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for number in range(1, num_pieces):
        left, top, width, height = (int(v) for v in stats[number, :4])
        own = piece[top : top + height, left : left + width] == number
        yield ExportedCrack(own.astype(np.uint8), left, top)
