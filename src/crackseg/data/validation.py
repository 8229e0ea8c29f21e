"""Check datasets: every file against the manifest, and leakage between splits.

Runs before anything is prepared; its errors stop the pipeline, its warnings are for the reader of the results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from crackseg.data.catalog import SPLITS, read_manifest
from crackseg.data.images.files import decode_image, read_stored
from crackseg.data.masks.formats import has_shape_of
from crackseg.data.perceptual_hash import Fingerprint, compute_fingerprint, find_duplicates
from crackseg.data.versioning import describe_linked_folders
from crackseg.errors import CracksegError, count_of, join_some
from crackseg.progress import progress

_HIGH_CRACK_FRACTION = 0.5
_MAX_FINDINGS_SHOWN = 100
_RENEW = "if the change is meant, renew the manifest with `crackseg data import {folder} --name {name}`"


@dataclass(frozen=True, slots=True)
class Finding:
    """Error, warning or note about a dataset.

    Attributes:
        stem: the image, or ``""`` for the dataset as a whole.
        message: what is wrong, with file and value.
    """

    stem: str
    message: str

    def __str__(self) -> str:
        return f"{self.stem}: {self.message}" if self.stem else self.message


@dataclass(slots=True)
class ValidationReport:
    """Findings in one dataset.

    Attributes:
        dataset: its name.
        split_counts: images in train, val and test.
        errors: the pipeline stops on these.
        warnings: results may mislead.
        notes: worth knowing.
    """

    dataset: str
    split_counts: dict[str, int]
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def to_markdown(self) -> str:
        """Format the report as Markdown; the same text for the same data."""
        splits = ", ".join(f"{count} {split}" for split, count in self.split_counts.items())
        lines = [
            f"## {self.dataset}",
            "",
            f"{count_of(sum(self.split_counts.values()), 'image')} ({splits}): "
            f"{count_of(len(self.errors), 'error')}, {count_of(len(self.warnings), 'warning')}.",
        ]
        for title, findings in (("Errors", self.errors), ("Warnings", self.warnings), ("Notes", self.notes)):
            if findings:
                lines += ["", f"### {title}", "", *(f"- {f}" for f in findings[:_MAX_FINDINGS_SHOWN])]
            if len(findings) > _MAX_FINDINGS_SHOWN:
                lines.append(f"- and {len(findings) - _MAX_FINDINGS_SHOWN} more")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Photograph:
    """Photograph that could be read."""

    report: ValidationReport  # of its dataset
    stem: str
    split: str
    fingerprint: Fingerprint

    def __str__(self) -> str:
        return f"{self.report.dataset}/{self.stem} ({self.split})"


def validate_datasets(
    data_dir: Path, names: Sequence[str], *, train_dataset: str | None = None
) -> list[ValidationReport]:
    """Check datasets, each by itself and against the others.

    Errors: files missing, damaged, changed since the import, or with sizes or values that the manifest does not
    say; masks with other values than 0 and 255, or all white; training masks without a single crack, and validation
    masks of the dataset to train on; exactly the
    same photograph in two splits, or in the training dataset and in another's test split. Warnings: nearly the
    same photograph there (also turned or mirrored), the same twice in one split, masks mostly crack, files that
    the manifest does not list. Images without cracks are a note.

    Args:
        data_dir: folder of the datasets.
        names: which to check.
        train_dataset: the one to train on, which must have training images; None compares the train and val
            images of every dataset with the test images of the others.
    Returns:
        A report for each name, in their order.
    Raises:
        CracksegError: a dataset or its manifest is not there.
    """
    reports = []
    photographs: list[_Photograph] = []
    for name in dict.fromkeys(names):
        report, found = _check_dataset(data_dir, name, trained_on=name == train_dataset)
        if name == train_dataset and not report.split_counts["train"]:
            report.errors.append(Finding("", "the dataset to train on has no training images"))
        reports.append(report)
        photographs += found
    _report_duplicates(photographs, train_dataset)
    return reports


def _check_dataset(data_dir: Path, name: str, *, trained_on: bool) -> tuple[ValidationReport, list[_Photograph]]:
    table = read_manifest(data_dir, name)
    folder = data_dir / name
    report = ValidationReport(name, {split: int((table["split"] == split).sum()) for split in SPLITS})
    photographs = []
    if linked := describe_linked_folders(folder):
        report.errors.append(Finding(name, linked))
    for stem in sorted(table["stem"][table["stem"].duplicated()].unique()):
        report.errors.append(Finding(stem, "the manifest lists it more than once"))
    without_crack: dict[str, list[str]] = {split: [] for split in SPLITS}
    rows = table.to_dict("records")
    for row in progress(rows, f"validate {name}", "image"):
        stem, split = str(row["stem"]), str(row["split"])
        if split not in SPLITS:
            report.errors.append(Finding(stem, f"split {split!r}; expected one of {', '.join(SPLITS)}"))
            continue
        image = _check_image(report, folder, row)
        if image is not None:
            photographs.append(_Photograph(report, stem, split, compute_fingerprint(image)))
        mask = _check_mask(report, folder, row)
        if row["roi"]:
            _check_roi(report, folder, row, mask)
        if mask is not None and not mask.any():
            without_crack[split].append(stem)
    # A training run chooses its weights and its threshold by the validation images.
    _report_crack_free(report, without_crack, needed=("train", "val") if trained_on else ("train",))
    _report_unlisted(report, folder, rows)
    return report, photographs


def _check_image(report: ValidationReport, folder: Path, row: dict[str, Any]) -> np.ndarray | None:
    content = _read_listed(report, folder, row, "image")
    if content is None:
        return None
    try:
        image = decode_image(content, name=str(folder / row["image"]))
    except CracksegError as error:
        report.errors.append(Finding(row["stem"], str(error)))
        return None
    _check_size(report, row, "image", ("width", "height"), image)
    return image


def _check_mask(report: ValidationReport, folder: Path, row: dict[str, Any]) -> np.ndarray | None:
    """bool (H, W) of a mask that could be read, else None."""
    stem = row["stem"]
    if _read_listed(report, folder, row, "mask") is None:
        return None
    mask = _read_binary(report, stem, folder / row["mask"])
    if mask is None:
        return None
    _check_size(report, row, "mask", ("mask_width", "mask_height"), mask)
    width, height = (_number(row[c]) for c in ("width", "height"))
    if not has_shape_of((width, height), mask):
        size = f"{mask.shape[1]} x {mask.shape[0]}"
        report.errors.append(Finding(stem, f"mask of {size} pixels for an image of {width:g} x {height:g}"))
    fraction = float(mask.mean())
    if mask.all():
        report.errors.append(Finding(stem, f"{row['mask']} is white all over: every pixel would be crack"))
    elif fraction > _HIGH_CRACK_FRACTION:
        report.warnings.append(Finding(stem, f"{fraction:.0%} of {row['mask']} is crack; is it inverted?"))
    if not abs(fraction - _number(row["crack_fraction"])) <= 1e-6:  # so that NaN is reported too
        listed = f"the manifest says {row['crack_fraction']}"
        report.errors.append(Finding(stem, f"crack fraction of {row['mask']} is {fraction:.6g}, {listed}"))
    return mask


def _check_roi(report: ValidationReport, folder: Path, row: dict[str, Any], mask: np.ndarray | None) -> None:
    path = _resolve(folder, str(row["roi"]))
    if path is None or not path.is_file():
        report.errors.append(Finding(row["stem"], f"{row['roi']} (region of interest) is missing"))
        return
    roi = _read_binary(report, row["stem"], path)
    if roi is None:
        return
    if not has_shape_of((_number(row["width"]), _number(row["height"])), roi):
        size = f"{roi.shape[1]} x {roi.shape[0]} pixels"
        report.errors.append(Finding(row["stem"], f"{row['roi']} has {size}: not the image's shape"))
    elif not roi.any():
        report.errors.append(Finding(row["stem"], f"{row['roi']} is black all over: no pixel would count"))
    elif mask is not None and mask.any():
        ys, xs = np.nonzero(mask)
        inside = roi[ys * roi.shape[0] // mask.shape[0], xs * roi.shape[1] // mask.shape[1]].mean()
        if inside < 0.5:
            report.warnings.append(
                Finding(row["stem"], f"only {inside:.0%} of its crack pixels lie in {row['roi']}")
            )


def _read_listed(report: ValidationReport, folder: Path, row: dict[str, Any], kind: str) -> bytes | None:
    """Read the bytes of the image or mask, and report if they are missing or changed since the import."""
    stem, listed = row["stem"], str(row[kind])
    path = _resolve(folder, listed)
    if path is None:
        report.errors.append(Finding(stem, f"{kind} path {listed!r} leads out of {folder}"))
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        report.errors.append(Finding(stem, f"{kind} {path}: {error.strerror}; fetch it with `dvc pull data.dvc`"))
        return None
    if hashlib.sha256(content).hexdigest() != row[f"{kind}_sha256"]:
        renew = _RENEW.format(folder=folder, name=report.dataset)
        report.errors.append(Finding(stem, f"{path} is not the file that was imported (sha256); {renew}"))
    return content


def _resolve(folder: Path, listed: str) -> Path | None:
    parts = PurePosixPath(listed)
    return None if not listed or parts.is_absolute() or ".." in parts.parts else folder / parts


def _read_binary(report: ValidationReport, stem: str, path: Path) -> np.ndarray | None:
    try:
        image, _ = read_stored(path)
    except CracksegError as error:
        report.errors.append(Finding(stem, str(error)))
        return None
    values = np.asarray(image)
    if image.mode != "L":
        found = f"mode {image.mode}, shape {values.shape} of {values.dtype}"
        report.errors.append(Finding(stem, f"{path}: expected one channel of 8 bits, got {found}"))
        return None
    levels = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if not set(levels.tolist()) <= {0, 255}:
        report.errors.append(Finding(stem, f"{path}: expected only 0 and 255, got {join_some(map(str, levels))}"))
        return None
    return values > 0


def _check_size(
    report: ValidationReport, row: dict[str, Any], kind: str, columns: tuple[str, str], values: np.ndarray
) -> None:
    size = (values.shape[1], values.shape[0])
    listed = tuple(_number(row[c]) for c in columns)
    if size != listed:
        expected = " x ".join(f"{v:g}" for v in listed)
        found = f"{size[0]} x {size[1]}"
        report.errors.append(Finding(row["stem"], f"{row[kind]} has {found} pixels, the manifest says {expected}"))


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")  # fits nothing, so it is reported where it is compared


def _report_crack_free(
    report: ValidationReport, without_crack: dict[str, list[str]], *, needed: tuple[str, ...]
) -> None:
    for split, stems in without_crack.items():
        count = report.split_counts[split]
        if stems and len(stems) == count:
            all_black = Finding("", f"none of the {count} {split} masks has a crack pixel")
            (report.errors if split in needed else report.warnings).append(all_black)
    stems = sorted(stem for split in without_crack.values() for stem in split)
    if stems:
        report.notes.append(Finding("", f"{count_of(len(stems), 'image')} without cracks: {join_some(stems)}"))


def _report_unlisted(report: ValidationReport, folder: Path, rows: list[dict[str, Any]]) -> None:
    listed = {str(row[kind]) for row in rows for kind in ("image", "mask", "roi")}
    present = {
        path.relative_to(folder).as_posix()
        for kind in ("images", "masks", "roi")
        for path in (folder / kind).glob("*")
        if not path.name.startswith(".")
    }
    unlisted = sorted(present - listed)
    if unlisted:
        report.warnings.append(
            Finding(
                "", f"{count_of(len(unlisted), 'file')} not in manifest.csv, so not used: {join_some(unlisted)}"
            )
        )


def _report_duplicates(photographs: Sequence[_Photograph], train_dataset: str | None) -> None:
    for duplicate in find_duplicates([p.fingerprint for p in photographs]):
        first, second = photographs[duplicate.first], photographs[duplicate.second]
        if first.report is not second.report:
            # Between datasets only leakage counts: what was trained on must not be tested on.
            if first.split == "test":
                first, second = second, first
            trained_on = train_dataset is None or first.report.dataset == train_dataset
            if first.split == "test" or second.split != "test" or not trained_on:
                continue
        same_split = first.report is second.report and first.split == second.split
        how = "the same photograph as" if duplicate.exact else "nearly the same photograph (perhaps turned) as"
        finding = Finding(first.stem, f"in {first.split}, {how} {second}")
        serious = duplicate.exact and not same_split
        (first.report.errors if serious else first.report.warnings).append(finding)
