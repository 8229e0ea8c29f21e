"""Find the split of a source in its folders, lists, annotation files or file names.

Everything that says a split is collected first; it is used only where all of it agrees, and what looks like a split
and is not used is named. Published test images must not become training images without a word.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from crackseg.data.importing.folder_roles import FoundFile
from crackseg.data.importing.folder_words import SPLITS_OF_WORD, fold, read_folders, resembles_split, split_of_name
from crackseg.data.importing.index_files import IndexedPair
from crackseg.data.importing.pairing import RawDataset, RawPair, SplitClaim
from crackseg.data.importing.split_lists import ImageNames, SplitList, read_split_list
from crackseg.errors import count_of, join_some

_FILE_NAME = re.compile(r"(train|training|val|valid|validation|test|testing)(?:[ _-]+.+|\d+)", re.IGNORECASE)
ADVICE = (
    "say which counts with --train-list, --val-list and --test-list, or draw a new split with "
    "--split-counts 70 10 20"
)


def collect_claims(
    dataset: RawDataset,
    files: list[FoundFile],
    indexed: list[IndexedPair],
    list_files: Iterable[Path],
    source: Path,
) -> set[Path]:
    """Collect what says the splits of a dataset's pairs into ``dataset.claims``.

    Args:
        dataset: with its pairs; what looks like a split and is not used is passed over.
        files: of the dataset.
        indexed: pairs that index files list.
        list_files: files that may be lists, other than those index files.
        source: folder of the import.
    Returns:
        The files among ``list_files`` that are lists, used or passed over.
    """
    own_names = (source.name, dataset.name)
    by_path = {file.path: file for file in files}
    claims = dataset.claims
    stems_of_path = {pair.image_path: pair.stem for pair in dataset.pairs}
    for pair in dataset.pairs:
        claims.setdefault(pair.stem, []).extend(_claims_of_folders(pair, by_path, source, own_names))
    for listed in indexed:
        if listed.split and listed.image_path in stems_of_path:
            claims[stems_of_path[listed.image_path]].append(SplitClaim(listed.split, "lists", listed.file))
    names = ImageNames([pair.stem for pair in dataset.pairs])
    lists = {path for path in list_files if _claim_list(dataset, path, names, source, own_names)}
    if not any(claims.values()):
        _claim_file_names(dataset)
    lookalikes = {
        f"{file.folder}/"
        for pair in dataset.pairs
        if (file := by_path.get(pair.image_path)) and any(resembles_split(p, own_names) for p in file.folder.split("/"))
        and not file.split
    }  # fmt: skip
    if lookalikes:
        dataset.account.pass_over(
            "split", "folders whose names hold a split's word and more, so that they say none", sorted(lookalikes)
        )
    return lists


def _claims_of_folders(
    pair: RawPair, by_path: dict[Path, FoundFile], source: Path, own_names: tuple[str, ...]
) -> list[SplitClaim]:
    claims = []
    for path in (pair.image_path, pair.mask_path):
        file = by_path.get(path)
        if file and file.split:
            claims.append(SplitClaim(file.split, "folders", f"{file.folder}/"))
    if pair.drawn is not None:
        shown = Path(os.path.relpath(pair.mask_path, source))
        if fold(pair.mask_path.stem) != fold(pair.stem) and (
            split := split_of_name(pair.mask_path.stem, own_names)
        ):
            claims.append(SplitClaim(split, "annotation files", shown.as_posix()))
        elif split := read_folders(shown.parts[:-1], own_names).split:
            claims.append(SplitClaim(split, "annotation files", f"{shown.parent.as_posix()}/"))
    return claims


def _claim_list(
    dataset: RawDataset, path: Path, names: ImageNames, source: Path, own_names: tuple[str, ...]
) -> bool:
    """Take what a list says, or name it if it looks like one and says nothing that can be used.

    Returns:
        Whether the file is a list.
    """
    shown = path.relative_to(source).as_posix()
    own_split = split_of_name(path.stem, own_names)
    found = read_split_list(path, names, own_split=own_split)
    if found is None:
        return False
    folders = _claim_named_folders(dataset, found, shown)
    for stem, split in found.splits.items():
        for said in sorted(found.disagreeing.get(stem, {split})):
            dataset.claims[stem].append(SplitClaim(said, "lists", shown))
    if found.unsaid:
        dataset.account.pass_over(
            "lists",
            f"names {count_of(len(set(found.unsaid)), 'image')}, but not of which split; use it with --train-list, "
            "--val-list or --test-list",
            [shown],
        )
    elif not found.splits and not folders:
        word = f"--{own_split}-list {shown}" if own_split in ("train", "val", "test") else "--train-list"
        dataset.account.pass_over(
            "lists", f"looks like a split, but names no image of the dataset; if it lists images: {word}", [shown]
        )
    elif found.unknown and not folders:
        text = f"{count_of(len(found.unknown), 'name')} in {shown} of no image that is there"
        dataset.account.pass_over("lists", text, (row.cells[0] for row in found.unknown))
    return True


def _claim_named_folders(dataset: RawDataset, found: SplitList, shown: str) -> int:
    """Take the folders that YOLO's data.yaml names for its splits; returns the number of images below them."""
    count = 0
    if found.path.suffix.lower() not in (".json", ".yaml", ".yml"):
        return count
    for row in found.unknown:
        if row.split is None:
            continue
        parts = [part for part in row.cells[0].replace("\\", "/").split("/") if part not in ("", ".", "..")]
        folder = found.path.parent.joinpath(*parts)
        if not parts or not folder.is_dir():
            continue
        for pair in dataset.pairs:
            if folder in pair.image_path.parents:
                dataset.claims[pair.stem].append(SplitClaim(row.split, "lists", shown))
                count += 1
    return count


def _claim_file_names(dataset: RawDataset) -> None:
    """Take the split from the file names if all of them begin with one, and more than one split is named."""
    said = {pair.stem: match[1] for pair in dataset.pairs if (match := _FILE_NAME.fullmatch(pair.stem))}
    splits = {stem: str(split_of_name(word)) for stem, word in said.items()}
    if len(splits) == len(dataset.pairs) and "train" in splits.values() and len(set(splits.values())) > 1:
        for stem, split in splits.items():
            dataset.claims[stem].append(SplitClaim(split, "file names", f"{said[stem]}…"))


def resolve_claims(dataset: RawDataset) -> tuple[dict[str, str], list[str]]:
    """Resolve what the source says into one split for each image.

    Returns:
        The split by stem, for the images of which something says it; and problems: images of which two splits are
        said.
    """
    possible: dict[str, frozenset[str]] = {}
    conflicts: dict[tuple[SplitClaim, SplitClaim], list[str]] = defaultdict(list)
    for stem, claims in dataset.claims.items():
        for claim in claims:
            before = possible.get(stem, SPLITS_OF_WORD[claim.split])
            both = before & SPLITS_OF_WORD[claim.split]
            if not both:
                other = next(c for c in claims if not SPLITS_OF_WORD[c.split] & SPLITS_OF_WORD[claim.split])
                conflicts[other, claim].append(stem)
                break
            possible[stem] = both
    certain = {next(iter(splits)) for splits in possible.values() if len(splits) == 1}
    resolved = {}
    for stem, splits in possible.items():
        if len(splits) == 1:
            resolved[stem] = next(iter(splits))
        elif "train" in splits:
            resolved[stem] = "train"
        else:
            resolved[stem] = "val" if "test" in certain and "val" not in certain else "test"
    problems = [
        f"{a.where} says {a.split}, but {b.where} says {b.split}, of {count_of(len(stems), 'image')}: "
        f"{join_some(sorted(stems), 5)}"
        for (a, b), stems in conflicts.items()
    ]
    if problems:
        more = [f"and {len(problems) - 5} more pairs of places that disagree"] if len(problems) > 5 else []
        problems = [*problems[:5], *more, f"the source's own splits disagree: {ADVICE}"]
    return resolved, problems


def describe_sources(dataset: RawDataset) -> dict[str, list[str]]:
    """Return the folders and files that say a split, by their kind."""
    places: dict[str, set[str]] = defaultdict(set)
    for claims in dataset.claims.values():
        for claim in claims:
            places[claim.kind].add(claim.where)
    return {kind: sorted(where) for kind, where in places.items()}
