"""Find the datasets in a folder: one, the paper's whole bundle, or folders in the canonical layout.

The second step of an import: divides the listed files among datasets and has each paired.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pandas as pd

from crackseg.data.catalog import KNOWN_DATASETS, check_dataset_name
from crackseg.data.images.files import IMAGE_EXTENSIONS
from crackseg.data.images.kinds import why_unread
from crackseg.data.importing.account import ACCOUNT_NAME, read_account
from crackseg.data.importing.annotated_pairs import pair_annotations, read_annotation_files
from crackseg.data.importing.folder_roles import FoundFile, SourceListing, list_source
from crackseg.data.importing.folder_words import known_name, read_folders, split_of_name
from crackseg.data.importing.index_files import IndexedPair, read_index_file
from crackseg.data.importing.pairing import RawDataset, SplitClaim, pair_files
from crackseg.data.importing.source_splits import collect_claims
from crackseg.errors import CracksegError, count_of, join_some


def find_datasets(
    source: Path,
    *,
    name: str | None = None,
    allow_unpaired: bool = False,
    crack_labels: tuple[str, ...] | None = None,
) -> list[RawDataset]:
    """Find the datasets below a folder, and the pairs of each.

    Args:
        source: an existing folder.
        name: take everything as this dataset (or, in a bundle, only the dataset of that name).
        allow_unpaired: leave out images without ground truth and the reverse, instead of reporting a problem.
        crack_labels: of annotation files, the labels that mean crack; None for those whose name says so.
    Returns:
        At least one dataset; each may hold problems.
    Raises:
        CracksegError: nothing that could be a dataset, or a name is needed.
    """
    listing = list_source(source, name=name)
    if not listing.files:
        raise CracksegError(_explain_empty(source, listing))
    indexed: list[IndexedPair] = []
    index_problems: list[str] = []
    list_files = list(listing.tables)  # and text, JSON and XML files of no other kind
    for path in listing.index_files:
        pairs, problems = read_index_file(path, source)
        indexed += pairs
        index_problems += problems
        if not pairs and not problems:
            list_files.append(path)
    annotations = read_annotation_files(listing.annotation_files)
    list_files += annotations.others
    if crack_labels and not annotations.files:
        index_problems.append(f"--crack-label was given, but {source} holds no annotation file that can be used")
    divided, strangers = _divide(source, listing.files, name)
    if annotations.files and len(divided) > 1:
        raise CracksegError(
            f"{source} holds annotations and several datasets; import one dataset's folder at a time"
        )
    datasets = []
    unread = {*listing.tables, *listing.index_files, *listing.others, *annotations.others}
    unread -= {source / pair.file for pair in indexed}
    for dataset_name, files in divided.items():
        if annotations.files:
            dataset = pair_annotations(
                dataset_name, files, annotations, indexed, crack_labels=crack_labels, allow_unpaired=allow_unpaired
            )
        else:
            dataset = pair_files(dataset_name, files, indexed, allow_unpaired=allow_unpaired)
            # Where every image has its mask, it does not matter what else lies there.
            complete = bool(dataset.pairs) and not dataset.problems
            annotations.report_unused(dataset, allowed=complete)
        used = collect_claims(
            dataset, files, indexed, _lists_of(dataset_name, list_files, source, divided), source
        )
        unread -= used
        canonical = [f for f in listing.manifests if any(f in x.path.parents for x in files)]
        if canonical:
            manifest = pd.concat([listing.manifests[f] for f in canonical])
            _follow_manifest(dataset, manifest, allow_unpaired=allow_unpaired)
        if len(canonical) == 1 and (canonical[0] / ACCOUNT_NAME).is_file():
            first = read_account(canonical[0] / ACCOUNT_NAME)
            for entry in dataset.account.passed_over:
                first.pass_over(entry.topic, entry.text, entry.names)
            dataset.account = first
        if not dataset.pairs:
            dataset.problems += _look_beside(source, dataset_name)
        elif dataset.unpaired:
            dataset.problems.append(_advise_unpaired(dataset, source))
        elif (word := split_of_name(source.name)) and not any(dataset.claims.values()):
            dataset.account.pass_over(
                "split",
                f"the name of {source.name} says {word}, but a folder that is imported alone is divided; keep its "
                "images in one split with --split-counts, e.g. 0 0 1 for test",
            )
        datasets.append(dataset)
    datasets[0].problems[:0] = index_problems
    _pass_over_rest(datasets[0], listing, sorted(unread), source)
    if strangers:
        datasets[0].account.pass_over(
            "folders",
            f"{count_of(len(strangers), 'file')} in folders of no dataset taken here",
            dict.fromkeys(f"{f.folder}/" for f in strangers),
        )
    return datasets


def _explain_empty(source: Path, listing: SourceListing) -> str:
    if listing.annotation_files:
        holding = [
            f"{i.name} in {i.path.name}"
            for file in read_annotation_files(listing.annotation_files).files
            for i in file.images
            if i.embedded
        ]
        saved = f" ({join_some(holding, 3)} embedded as imageData: save as images first)" if holding else ""
        return (
            f"{source} holds {count_of(len(listing.annotation_files), 'JSON or XML file')} and no images{saved}; put "
            "the photographs next to them"
        )
    if listing.archives:
        return f"{source} holds no images, but {join_some(a.name for a in listing.archives)}; unpack that first"
    return f"{source} holds no images (looked for {', '.join(IMAGE_EXTENSIONS)}, in all folders below it)"


def _divide(
    source: Path, files: list[FoundFile], name: str | None
) -> tuple[dict[str, list[FoundFile]], list[FoundFile]]:
    """Divide files among the datasets; also return those that belong to none."""
    named = sorted({f.dataset for f in files if f.dataset})
    if name is not None:
        name = known_name(name) or check_dataset_name(name)
        if name not in named:
            if len(named) > 1 or (name in KNOWN_DATASETS and named):
                raise CracksegError(
                    f"{source} holds {', '.join(named)}, but the name given is {name}; import without a name, or "
                    "point at one dataset's folder"
                )
            return {name: files}, []
        wanted = [name]
    elif named:
        wanted = [check_dataset_name(n) for n in named]
    else:
        own = known_name(source.name)
        if own is None:
            raise CracksegError(
                f"{source}: no known dataset ({', '.join(KNOWN_DATASETS)}) in its folders' names; say what it is "
                f"with --name, e.g. `crackseg data import {source} --name {_suggest_name(source)}`"
            )
        return {own: files}, []
    divided = {n: [f for f in files if f.dataset == n] for n in wanted}
    if len(named) == 1:
        # `gt/` next to `CrackTree260/` can only be its own; `bridge/gt/` belongs to another dataset.
        divided[named[0]] = [f for f in files if not f.foreign]
    taken = {f.path for own_files in divided.values() for f in own_files}
    return divided, [f for f in files if f.path not in taken]


def _suggest_name(source: Path) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in source.name).strip("-") or "MINE"


def _follow_manifest(dataset: RawDataset, manifest: pd.DataFrame, *, allow_unpaired: bool) -> None:
    """Take splits and source of a dataset that is canonical already from its manifest."""
    splits = dict(zip(manifest["stem"], manifest["split"], strict=True))
    dataset.claims = {stem: [SplitClaim(split, "manifest", "manifest.csv")] for stem, split in splits.items()}
    missing = sorted(splits.keys() - {pair.stem for pair in dataset.pairs})
    if missing:
        dataset.report_left_out("in manifest.csv, but not there as a pair", missing, allowed=allow_unpaired)
    sources = sorted(set(manifest["source"]))
    dataset.source = sources[0] if len(sources) == 1 else None


def _lists_of(name: str, list_files: list[Path], source: Path, divided: dict[str, list[FoundFile]]) -> list[Path]:
    """Select the lists of one dataset of several: those in its folders, since all may use numbers as names."""
    if len(divided) == 1:
        return list_files
    return [p for p in list_files if read_folders(p.relative_to(source).parts[:-1]).dataset == name]


def _pass_over_rest(dataset: RawDataset, listing: SourceListing, unread: list[Path], source: Path) -> None:
    """Name the files that no import reads, by extension, and links and hidden files that were not followed."""
    by_ending: dict[str, list[str]] = defaultdict(list)
    for path in unread:
        by_ending[path.suffix.lower()].append(path.relative_to(source).as_posix())
    for ending, names in sorted(by_ending.items()):
        kind = f"{ending} file" if ending else "file"
        reason = why_unread(names[0], b"") or "not read by an import"
        text = f"{count_of(len(names), kind)}{'' if ending else ' without extension'}: {reason}"
        dataset.account.pass_over("files", text, names)
    walked, account = listing.walked, dataset.account
    if listing.archives:
        names = [p.relative_to(source).as_posix() for p in listing.archives]
        account.pass_over("files", f"{count_of(len(names), 'archive')} not unpacked", names)
    if walked.hidden:
        account.pass_over("files", "hidden, or left by the system", walked.hidden)
    if walked.linked:
        account.recognise("links", f"{count_of(len(walked.linked), 'linked folder')} followed", walked.linked)
    if walked.loops:
        account.pass_over("links", "lead back to a folder that holds them", walked.loops)
    if walked.broken:
        account.pass_over("links", "lead to nothing", walked.broken)


def _advise_unpaired(dataset: RawDataset, source: Path) -> str:
    """Suggest a remedy for files without a partner: the folder that holds all pairs, or to leave the files out."""
    leave_out = f"--allow-unpaired leaves out {count_of(len(dataset.unpaired), 'such file')}"
    folder = Path(
        os.path.commonpath([p for x in dataset.pairs for p in (x.image_path.parent, x.mask_path.parent)])
    )
    if folder == source or not folder.is_relative_to(source):
        return leave_out
    return (
        f"all {count_of(len(dataset.pairs), 'pair')} are in one folder: `crackseg data import {folder} --name "
        f"{dataset.name}`; or {leave_out}"
    )


def _look_beside(source: Path, name: str) -> list[str]:
    """Give a hint if the source is ``CrackTree260`` and ``CrackTree260_gt`` is next to it."""
    beside = sorted(
        p.name for p in source.parent.iterdir() if p.is_dir() and p != source and known_name(p.name) == name
    )
    return [f"{join_some(beside)} lies next to {source.name}; import {source.parent} instead"] if beside else []
