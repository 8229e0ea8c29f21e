"""Pair photographs with their ground truth: from a listing of files to pairs, by stem or by index file.

The third step of an import; files are opened here only where two of them have the same name.
"""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crackseg.data.catalog import KNOWN_DATASETS
from crackseg.data.importing.account import ImportAccount
from crackseg.data.importing.annotations.drawn import Shape
from crackseg.data.importing.folder_roles import FoundFile
from crackseg.data.importing.folder_words import Role, fold, original_of_crop, truth_stem
from crackseg.data.importing.index_files import IndexedPair
from crackseg.errors import count_of, join_some


@dataclass(frozen=True, slots=True)
class SplitClaim:
    """Something in a source that says the split of an image.

    Attributes:
        split: a key of ``SPLITS_OF_WORD``.
        kind: ``folders``, ``lists``, ``annotation files``, ``file names`` or ``manifest``.
        where: the folder or file, below the source.
    """

    split: str
    kind: str
    where: str


@dataclass(frozen=True, slots=True)
class RawPair:
    """Photograph and its ground truth in the source.

    Attributes:
        stem: name in the manifest.
        image_path: the photograph.
        mask_path: the ground truth, in any format, or the annotation file.
        roi_path: the region of interest, or None.
        split: train, val or test, once it is decided.
        drawn: of an annotation file, width and height as it says them (or None) and the cracks; else None.
    """

    stem: str
    image_path: Path
    mask_path: Path
    roi_path: Path | None = None
    split: str | None = None
    drawn: tuple[tuple[int, int] | None, tuple[Shape, ...]] | None = None


@dataclass(slots=True)
class RawDataset:
    """One dataset as found in the source.

    Attributes:
        name: the paper's, the user's, or the canonical folder's.
        pairs: sorted by stem.
        problems: that the user must fix before an import; empty if there are none.
        account: what was recognised, and what was passed over.
        unpaired: files that are reported as problems for want of a partner, below the source.
        claims: by stem, all that says its split in the source.
        source: the manifest's ``source`` column, if the source is canonical already, else None.
    """

    name: str
    pairs: list[RawPair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    account: ImportAccount = field(default_factory=ImportAccount)
    unpaired: list[str] = field(default_factory=list)
    claims: dict[str, list[SplitClaim]] = field(default_factory=dict)
    source: str | None = None

    def report_left_out(self, text: str, names: Sequence[str], *, allowed: bool) -> None:
        """Record files that have no partner: as passed over if the user allowed it, else as a problem."""
        if allowed:
            self.account.pass_over("files", text, names)
        else:
            self.problems.append(f"{text}: {join_some(names)}")
            self.unpaired += names


def pair_files(
    name: str, files: list[FoundFile], indexed: list[IndexedPair], *, allow_unpaired: bool = False
) -> RawDataset:
    """Pair the files of one dataset.

    Args:
        name: of the dataset.
        files: its images, ground truth and regions of interest.
        indexed: pairs that index files list; where there are any, only these count.
        allow_unpaired: leave out images without ground truth and the reverse, instead of reporting a problem.
    Returns:
        The pairs by stem, with the problems that forbid an import.
    """
    dataset = RawDataset(name)
    files = _leave_out_crops(dataset, files)
    files = _tell_truth_in_same_folder(files)
    present = {f.path for f in files}
    indexed = [p for p in indexed if p.image_path in present and p.mask_path in present]
    rois = {fold(f.stem): f for f in files if f.role is Role.ROI}
    if indexed:
        chosen = _pairs_of_index(dataset, files, indexed)
    else:
        chosen = _pairs_by_stem(dataset, files, rois, allow_unpaired=allow_unpaired)
    dataset.pairs = sorted(
        (
            RawPair(i.stem, i.path, t.path, rois[fold(i.stem)].path if fold(i.stem) in rois else None)
            for i, t in chosen
        ),
        key=lambda pair: pair.stem,
    )
    if rois:
        with_roi = sum(p.roi_path is not None for p in dataset.pairs)
        dataset.account.recognise(
            "folders",
            f"taken as the region of interest, for {with_roi} of {len(dataset.pairs)} images",
            dict.fromkeys(f"{f.folder}/" for f in rois.values()),
        )
    if not dataset.pairs and not dataset.problems:
        dataset.problems.append("no image has a ground truth")
    return dataset


def _leave_out_crops(dataset: RawDataset, files: list[FoundFile]) -> list[FoundFile]:
    crops = {f.path for f in files if original_of_crop(f.stem)}
    if not crops:
        return files
    if len(crops) < len(files):
        dataset.account.pass_over(
            "files",
            f"{count_of(len(crops), 'augmented crop')} (…_rotN_cropN_mirrorN), as training augments",
            (f.shown for f in files if f.path in crops),
        )
        return [f for f in files if f.path not in crops]
    known = KNOWN_DATASETS.get(dataset.name)
    if known and known.role == "test":
        dataset.problems.append("only augmented crops (…_rotN_cropN_mirrorN); testing needs the photographs")
    dataset.account.recognise(
        "split",
        "only augmented crops (…_rotN_cropN_mirrorN): divided into train and val by photograph, none for test",
    )
    return files


def _tell_truth_in_same_folder(files: list[FoundFile]) -> list[FoundFile]:
    """Find ground truth next to the images if no folder holds it: ``7_mask.png``, or ``7.png`` next to ``7.jpg``."""
    beside: dict[str, set[str]] = defaultdict(set)
    for file in files:
        beside[file.folder].add(fold(file.stem))
    told = [replace(f, role=Role.TRUTH) if f.path.suffix.lower() == ".mat" else f for f in files]
    if any(f.role in (Role.TRUTH, Role.MASK) for f in told):
        return told
    for number, file in enumerate(told):
        base = fold(truth_stem(file.stem))
        if file.role is not Role.ROI and base != fold(file.stem) and base in beside[file.folder]:
            told[number] = replace(file, role=Role.TRUTH)
    if any(f.role is Role.TRUTH for f in told):
        return told
    lossless = [f for f in told if f.path.suffix.lower() in (".png", ".bmp")]
    lossy = {(f.folder, fold(f.stem)) for f in told if f.path.suffix.lower() in (".jpg", ".jpeg")}
    if len(lossless) == len(lossy) == len(told) / 2 and all((f.folder, fold(f.stem)) in lossy for f in lossless):
        truth = {f.path for f in lossless}
        return [replace(f, role=Role.TRUTH if f.path in truth else Role.IMAGE) for f in told]
    return told


Chosen = tuple[FoundFile, FoundFile]  # photograph, ground truth


def _pairs_of_index(dataset: RawDataset, files: list[FoundFile], indexed: list[IndexedPair]) -> list[Chosen]:
    by_path = {f.path: f for f in files}
    first: dict[str, IndexedPair] = {}
    for pair in indexed:
        key = fold(by_path[pair.image_path].stem)
        earlier = first.setdefault(key, pair)
        if (earlier.image_path, earlier.mask_path) != (pair.image_path, pair.mask_path):
            dataset.problems.append(f"{earlier.where} and {pair.where}: two different pairs with the stem {key!r}")
    unlisted = [
        f for f in files if f.role in (None, Role.IMAGE) and f.path not in {p.image_path for p in first.values()}
        and f.path not in {p.mask_path for p in first.values()}
    ]  # fmt: skip
    if unlisted:
        dataset.account.pass_over(
            "files", f"{count_of(len(unlisted), 'image')} in no index file", (f.shown for f in unlisted)
        )
    return [(by_path[p.image_path], by_path[p.mask_path]) for p in first.values()]


def _pairs_by_stem(
    dataset: RawDataset, files: list[FoundFile], rois: dict[str, FoundFile], *, allow_unpaired: bool
) -> list[Chosen]:
    truths = _truths_by_stem(dataset, files, rois)
    named = _one_each(dataset, [f for f in files if f.role is Role.IMAGE], "images")
    unnamed = _one_each(dataset, [f for f in files if f.role is None], "images")
    if named:
        # Pictures in other folders (a figure of a README) count only if ground truth has their name.
        strangers = {k: f for k, f in unnamed.items() if k in named or k not in truths}
        unnamed = {k: f for k, f in unnamed.items() if k not in strangers}
        if strangers:
            dataset.account.pass_over(
                "files",
                f"{count_of(len(strangers), 'picture')} outside the image folders",
                (f.shown for f in strangers.values()),
            )
    images = named | unnamed
    for key in [k for k in truths if k not in images]:
        base = fold(truth_stem(truths[key].stem))
        if base in images and base not in truths:
            truths[base] = truths.pop(key)
    without_truth = [f for k, f in images.items() if k not in truths]
    without_image = [f for k, f in truths.items() if k not in images]
    _report_unpaired(dataset, files, without_truth, without_image, allow_unpaired=allow_unpaired)
    return [(f, truths[k]) for k, f in images.items() if k in truths]


def _truths_by_stem(
    dataset: RawDataset, files: list[FoundFile], rois: dict[str, FoundFile]
) -> dict[str, FoundFile]:
    truths = _one_each(dataset, [f for f in files if f.role is Role.TRUTH], "ground truths")
    masks = _one_each(dataset, [f for f in files if f.role is Role.MASK], "ground truths")
    both = masks.keys() & truths.keys()
    if both and dataset.name == "Stone331":
        rois.update({k: m for k, m in masks.items() if k not in rois})
        return truths
    if both:
        folders = dict.fromkeys(f"{f.folder}/" for k in sorted(both) for f in (truths[k], masks[k]))
        dataset.problems.append(
            f"two ground truths for {count_of(len(both), 'image')}, in {join_some(folders)}; take one folder "
            "away, or name it `roi` if it is the region in which pixels count"
        )
    return masks | truths


def _one_each(dataset: RawDataset, files: list[FoundFile], what: str) -> dict[str, FoundFile]:
    """Group the files by stem; copies are dropped, different files with one stem are a problem."""
    by_stem: dict[str, FoundFile] = {}
    copies = []
    for file in files:
        key = fold(file.stem)
        earlier = by_stem.setdefault(key, file)
        if earlier is file:
            continue
        if not (earlier.path.samefile(file.path) or filecmp.cmp(earlier.path, file.path, shallow=False)):
            dataset.problems.append(
                f"two different {what} with the stem {file.stem!r}: {earlier.shown}, {file.shown}; rename one"
            )
            continue
        if earlier.split and file.split and earlier.split != file.split:
            dataset.problems.append(
                f"the same file in two splits: {earlier.shown}, {file.shown}; take one of them away"
            )
        elif file.split:
            by_stem[key], file = file, earlier
        copies.append(file.shown)
    if copies:
        dataset.account.pass_over("files", f"{what} that are copies of others with the same name", copies)
    return by_stem


def _report_unpaired(
    dataset: RawDataset,
    files: list[FoundFile],
    without_truth: list[FoundFile],
    without_image: list[FoundFile],
    *,
    allow_unpaired: bool,
) -> None:
    for some, what, lacks in (
        (without_truth, "image", "without ground truth"),
        (without_image, "ground truth", "without image"),
    ):
        if some:
            dataset.report_left_out(
                f"{count_of(len(some), what)} {lacks}", sorted(f.shown for f in some), allowed=allow_unpaired
            )
    if (without_truth or without_image) and not allow_unpaired:
        meanings = {f"{f.folder}/ = {f.role.value if f.role else 'images'}" for f in files}
        dataset.problems.append(f"the folders were taken as: {join_some(sorted(meanings))}")
