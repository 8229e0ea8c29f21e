"""Import datasets into the canonical layout: images, masks, roi and manifest.csv.

The last step of an import, after its files were found (discovery) and paired (pairing): reads every file once, and
replaces earlier data only when all of it was good.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from crackseg.data.catalog import IMPORTED_SOURCE, KNOWN_DATASETS, MANIFEST_COLUMNS, SPLITS
from crackseg.data.images.decoding import decode_photograph, read_orientation
from crackseg.data.images.files import encode_png, read_file, write_mask
from crackseg.data.importing.account import ACCOUNT_NAME, ImportAccount
from crackseg.data.importing.annotated_pairs import draw_annotations
from crackseg.data.importing.discovery import find_datasets
from crackseg.data.importing.folder_words import fold
from crackseg.data.importing.pairing import RawDataset, RawPair
from crackseg.data.importing.splits import decide_splits
from crackseg.data.importing.staging import open_staging_area
from crackseg.data.masks.crack_values import CrackValue
from crackseg.data.masks.formats import MaskReader, has_shape_of
from crackseg.errors import CracksegError, count_of
from crackseg.files import hash_file, write_bytes, write_csv
from crackseg.progress import progress

_MAX_PROBLEMS_SHOWN = 20
_EXTENSIONS_OF_FORMAT = {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",)}
_ROI_MIN_CRACK_SHARE = 0.5  # a region of interest that leaves out more of the cracks than this is none


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """Result of an import for one dataset; ``str()`` is for the terminal.

    Attributes:
        dataset: its name.
        folder: where it lies now.
        split_counts: images in train, val and test.
        num_crack_free: images whose ground truth has no crack pixel.
        mean_crack_fraction: fraction of crack pixels, mean over images.
        account: what was recognised in the source, and what was passed over.
        seconds: the time it took.
    """

    dataset: str
    folder: Path
    split_counts: dict[str, int]
    num_crack_free: int
    mean_crack_fraction: float
    account: ImportAccount
    seconds: float

    @property
    def num_images(self) -> int:
        return sum(self.split_counts.values())

    def __str__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.split_counts.items())
        head = (
            f"{self.dataset}: {count_of(self.num_images, 'image')} ({splits}), {self.num_crack_free} without "
            f"cracks, {self.mean_crack_fraction:.2%} crack pixels, in {self.folder} ({self.seconds:.1f} s)"
        )
        return "\n".join([head, *self.account.to_lines()])

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for ``crackseg data import --json``."""
        return {
            "dataset": self.dataset,
            "folder": str(self.folder),
            "split_counts": self.split_counts,
            "num_crack_free": self.num_crack_free,
            "mean_crack_fraction": self.mean_crack_fraction,
            "seconds": round(self.seconds, 3),
            **self.account.to_dict(),
        }


def import_datasets(
    source: Path,
    data_dir: Path,
    *,
    name: str | None = None,
    crack_values: tuple[CrackValue, ...] | None = None,
    split_seed: int = 0,
    split_counts: tuple[int, int, int] | None = None,
    split_lists: Mapping[str, Path] | None = None,
    allow_unpaired: bool = False,
    crack_labels: tuple[str, ...] | None = None,
    line_width_px: float = 1.0,
) -> list[ImportSummary]:
    """Import one dataset, or all known ones of a bundle, as ``data_dir/NAME``; a former one is replaced.

    Args:
        source: folder in any layout of docs/your-own-photographs.md.
        data_dir: the versioned data folder.
        name: the dataset's name; None where the folders' names say it (the paper's four, canonical folders).
        crack_values: mask values that mean crack, as in :mod:`crackseg.data.masks.crack_values`; None for the
            rules of :class:`~crackseg.data.masks.formats.MaskReader`.
        split_seed: of the division into train, val and test.
        split_counts: its numbers; None for 200, 20, 40, or for all test where the paper only tests.
        split_lists: text files that list the images of each split; they win over folders and counts. In a bundle
            they are for the dataset to train on.
        allow_unpaired: leave out images without ground truth and the reverse.
        crack_labels: of annotation files, the labels that mean crack; None for those whose name says so.
        line_width_px: of drawn lines that have no width of their own.
    Returns:
        A summary for each dataset. Running it again gives the same files, byte by byte.
    Raises:
        CracksegError: names up to 20 problems of the source at once; the earlier data are as they were.
    """
    source = _check_source(source, data_dir)
    start = time.perf_counter()
    with open_staging_area(data_dir) as (staging, finished):
        datasets = find_datasets(source, name=name, allow_unpaired=allow_unpaired, crack_labels=crack_labels)
        _check_targets(datasets, source, data_dir)
        divided = _name_of_divided(datasets, wanted=bool(split_counts or split_lists))
        summaries = []
        for dataset in datasets:
            if not dataset.problems:
                counts, lists = (split_counts, split_lists) if dataset.name == divided else (None, None)
                decide_splits(dataset, seed=split_seed, counts=counts, lists=lists)
            # Read the files even if there are problems already, so that the user learns of all of them at once.
            folder = staging.new(dataset.name)
            table = _write_files(dataset, folder, source, crack_values, line_width_px)
            write_bytes(folder / ACCOUNT_NAME, dataset.account.to_bytes())
            summaries.append(_summarise(dataset, table, data_dir, time.perf_counter() - start))
            start = time.perf_counter()
        _raise_problems(source, datasets)
        staging.swap_in([dataset.name for dataset in datasets])
    if finished:
        summaries[0].account.recognise("files", "an interrupted import was finished first", finished)
    return summaries


def _name_of_divided(datasets: list[RawDataset], *, wanted: bool) -> str | None:
    """Return the dataset that the user's own split is for: the only one, or the one of the bundle to train on."""
    if len(datasets) == 1:
        return datasets[0].name
    train = [d.name for d in datasets if d.name in KNOWN_DATASETS and KNOWN_DATASETS[d.name].role == "train"]
    if wanted and not train:
        raise CracksegError(
            f"a split was given for several datasets ({', '.join(d.name for d in datasets)}); import one at a time"
        )
    return train[0] if train else None


def _check_source(source: Path, data_dir: Path) -> Path:
    if not source.exists():
        raise CracksegError(f"{source}: no such folder; expected the folder with your images and their masks")
    if not source.is_dir():
        raise CracksegError(f"{source}: a file; expected a folder with images and masks (unpack archives first)")
    source, data_dir = source.resolve(), data_dir.resolve()
    if data_dir.is_relative_to(source):
        raise CracksegError(
            f"{source} holds the data folder {data_dir} itself; point at the folder with the new images"
        )
    return source


def _check_targets(datasets: list[RawDataset], source: Path, data_dir: Path) -> None:
    """Refuse to replace what is no dataset of ours, or the only copy of what is imported."""
    present = [p for p in data_dir.iterdir() if p.is_dir()] if data_dir.is_dir() else []
    for dataset in datasets:
        for folder in present:
            if folder.name != dataset.name and fold(folder.name) == fold(dataset.name):
                raise CracksegError(f"{folder} exists, and its name differs from {dataset.name} only by case")
        target = data_dir / dataset.name
        if target.is_dir() and any(target.iterdir()) and not (target / "manifest.csv").is_file():
            raise CracksegError(
                f"{target} exists and was not made by an import (it has no manifest.csv); move it elsewhere "
                "first, e.g. to import from there"
            )
        if source != target.resolve() and source.is_relative_to(target.resolve()):
            raise CracksegError(
                f"{source} lies in {target}, which the import would replace; move it elsewhere first"
            )


def _write_files(
    dataset: RawDataset,
    folder: Path,
    source: Path,
    crack_values: tuple[CrackValue, ...] | None,
    line_width_px: float,
) -> pd.DataFrame:
    """Write images, masks, regions of interest and the manifest; add problems and entries to ``dataset``."""
    truth_reader, roi_reader = MaskReader(crack_values), MaskReader(may_fill=True)
    label = dataset.source or f"{IMPORTED_SOURCE}:{source.name}"
    rows: list[dict[str, Any]] = []
    reencoded: dict[str, list[str]] = {}
    remarked: dict[str, list[str]] = {}  # what was decided when photographs were read
    crack_pixels, crack_pixels_in_roi = 0, 0
    cut: list[str] = []
    for pair in progress(dataset.pairs, f"import {dataset.name}", "image"):
        try:
            image_name, (width, height), why, remarks = _write_image(pair, folder)
            if pair.drawn is None:
                mask = truth_reader.read(pair.mask_path)
            else:
                drawing = draw_annotations(pair, (width, height), line_width_px)
                mask = drawing.mask
                cut += [f"{pair.image_path.name} ({place})" for place in drawing.cut]
            _check_shape(pair.image_path, (width, height), pair.mask_path, mask)
            write_mask(folder / "masks" / f"{pair.stem}.png", mask)
            if pair.roi_path:
                roi = roi_reader.read(pair.roi_path)
                _check_shape(pair.image_path, (width, height), pair.roi_path, roi)
                write_mask(folder / "roi" / f"{pair.stem}.png", roi)
                ys, xs = np.nonzero(mask)
                inside = roi[ys * roi.shape[0] // mask.shape[0], xs * roi.shape[1] // mask.shape[1]]
                crack_pixels, crack_pixels_in_roi = crack_pixels + len(ys), crack_pixels_in_roi + int(inside.sum())
        except CracksegError as error:
            dataset.problems.append(str(error))
            continue
        if why:
            reencoded.setdefault(why, []).append(pair.image_path.name)
        for remark in remarks:
            remarked.setdefault(remark, []).append(pair.image_path.name)
        rows.append(
            {
                "stem": pair.stem,
                "image": f"images/{image_name}",
                "mask": f"masks/{pair.stem}.png",
                "roi": f"roi/{pair.stem}.png" if pair.roi_path else "",
                "split": pair.split,
                "width": width,
                "height": height,
                "mask_width": mask.shape[1],
                "mask_height": mask.shape[0],
                "crack_fraction": float(mask.mean()),
                "image_sha256": hash_file(folder / "images" / image_name, "sha256"),
                "mask_sha256": hash_file(folder / "masks" / f"{pair.stem}.png", "sha256"),
                "source": label,
            }
        )
    if any(pair.drawn is None for pair in dataset.pairs):
        problems = truth_reader.find_problems()
        dataset.problems += problems
        for text, concerned in [] if problems else truth_reader.find_notes():
            dataset.account.recognise("mask values", text, concerned)
    dataset.problems += roi_reader.find_problems()
    if crack_pixels_in_roi < _ROI_MIN_CRACK_SHARE * crack_pixels:
        dataset.problems.append(
            f"only {crack_pixels_in_roi / crack_pixels:.0%} of the crack pixels lie in the regions of interest, "
            "so these are something else; take their folder away"
        )
    for why, names in sorted(reencoded.items()):
        text = f"{count_of(len(names), 'image')} re-encoded as upright RGB PNG ({why})"
        dataset.account.recognise("files", text, names)
    for remark, names in sorted(remarked.items()):
        dataset.account.recognise("files", f"{count_of(len(names), 'image')}: {remark}", names)
    if cut:
        text = f"{count_of(len(cut), 'shape')} partly outside the image: what lies in it is drawn"
        dataset.account.recognise("shapes", text, cut)
    table = pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS)).sort_values("stem", ignore_index=True)
    write_csv(table, folder / "manifest.csv", digits=9)
    return table


def _write_image(pair: RawPair, folder: Path) -> tuple[str, tuple[int, int], str | None, tuple[str, ...]]:
    """Copy a photograph, or re-encode what not every reader shows alike.

    Returns:
        Name of the written file, upright (width, height), why it was re-encoded (None if copied), and remarks on how
        it was read.
    """
    content = read_file(pair.image_path)
    image, remarks = decode_photograph(content, name=str(pair.image_path))  # all of it, to find damaged files
    suffix = pair.image_path.suffix.lower()
    why, extensions = _why_reencode(content)
    if why:
        suffix, content = ".png", encode_png(image)
    elif suffix not in extensions:
        suffix = extensions[0]  # e.g. a JPEG that is called .png
    name = f"{pair.stem}{suffix}"
    write_bytes(folder / "images" / name, content)
    return name, (image.shape[1], image.shape[0]), why, remarks


def _why_reencode(content: bytes) -> tuple[str | None, tuple[str, ...]]:
    with Image.open(io.BytesIO(content)) as image:
        extensions = _EXTENSIONS_OF_FORMAT.get(image.format or "", ())
        if not extensions:
            return f"{image.format} file", extensions
        if read_orientation(image) != 1:
            return "turned by EXIF", extensions
        # Pillow reads 16-bit RGB as 8 bits; only the PNG's header tells.
        if image.mode.startswith(("I", "F")) or (image.format == "PNG" and content[24:25] == b"\x10"):
            return "16 bits", extensions
        if "A" in image.mode or "transparency" in image.info:
            return "transparent", extensions
        if image.mode not in ("RGB", "L"):
            return {"P": "palette", "1": "1 bit"}.get(image.mode, image.mode), extensions
    return None, extensions


def _check_shape(image_path: Path, image_size: tuple[int, int], mask_path: Path, mask: np.ndarray) -> None:
    if not has_shape_of(image_size, mask):
        (width, height), (mask_height, mask_width) = image_size, mask.shape
        turned = " (turned by 90 degrees?)" if (mask_height, mask_width) == image_size else ""
        raise CracksegError(
            f"{mask_path}: {mask_width} x {mask_height} pixels, but {image_path.name} has {width} x {height}"
            f"{turned}; expected the same size, or the same shape at another scale"
        )


def _summarise(dataset: RawDataset, table: pd.DataFrame, data_dir: Path, seconds: float) -> ImportSummary:
    return ImportSummary(
        dataset=dataset.name,
        folder=data_dir / dataset.name,
        split_counts={split: int((table["split"] == split).sum()) for split in SPLITS},
        num_crack_free=int((table["crack_fraction"] == 0).sum()),
        mean_crack_fraction=float(table["crack_fraction"].mean()) if len(table) else 0.0,
        account=dataset.account,
        seconds=seconds,
    )


def _raise_problems(source: Path, datasets: list[RawDataset]) -> None:
    several = len(datasets) > 1
    problems = [f"{d.name}: {p}" if several else p for d in datasets for p in d.problems]
    if not problems:
        return
    shown = [f"- {p}" for p in problems[:_MAX_PROBLEMS_SHOWN]]
    if len(problems) > _MAX_PROBLEMS_SHOWN:
        shown.append(f"- and {len(problems) - _MAX_PROBLEMS_SHOWN} more")
    shown += [line for d in datasets for line in d.account.to_lines()]
    raise CracksegError(f"{source} was not imported, nothing was changed:\n" + "\n".join(shown))
