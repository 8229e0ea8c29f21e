"""Assign images to train, val and test: seeded, 200/20/40 as in the paper's Table 2, or by the user's own lists."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from crackseg.data.catalog import KNOWN_DATASETS, SPLITS, KnownDataset
from crackseg.data.importing.folder_words import SPLITS_OF_WORD, original_of_crop
from crackseg.data.importing.pairing import RawDataset
from crackseg.data.importing.source_splits import ADVICE, describe_sources, resolve_claims
from crackseg.data.importing.split_lists import ImageNames, read_rows
from crackseg.errors import CracksegError, count_of, join_some

PAPER_COUNTS = (200, 20, 40)


def decide_splits(
    dataset: RawDataset,
    *,
    seed: int,
    counts: tuple[int, int, int] | None = None,
    lists: Mapping[str, Path] | None = None,
) -> None:
    """Give each pair of an import its split: by the user's lists or counts, else the source, else the paper.

    Args:
        dataset: its pairs are replaced; what does not fit is added to its problems.
        seed: of the division.
        counts: numbers of train, val and test that the user wants instead of the source's own split.
        lists: see :func:`read_split_lists`.
    """
    stems = [pair.stem for pair in dataset.pairs]
    known = KNOWN_DATASETS.get(dataset.name)
    of_source, conflicts = resolve_claims(dataset)
    account = dataset.account
    if lists or counts:
        account.reopen("split")
    if lists:
        try:
            splits = read_split_lists(lists, stems)
        except CracksegError as error:
            dataset.problems.append(str(error))
            return
        account.recognise("split", "as the lists say that were given", lists.values())
    elif counts:
        splits = _seeded_splits(stems, counts, seed)
        account.recognise(
            "split", f"drawn as {' : '.join(map(str, counts))} from the names, as asked (seed {seed})"
        )
    elif conflicts:
        dataset.problems += conflicts
        return
    elif of_source:
        try:
            splits = _follow_source(dataset, of_source, seed)
        except CracksegError as error:
            dataset.problems.append(str(error))
            return
        if known and known.role == "test" and set(splits.values()) != {"test"}:
            account.recognise("split", "the paper tests on all of its images; here the source's own split counts")
    elif known and known.role == "test":
        splits = dict.fromkeys(stems, "test")
        account.recognise("split", "all test, as in the paper: the source says none")
    else:
        splits = _seeded_splits(stems, PAPER_COUNTS, seed)
        account.recognise("split", f"the source says none: drawn as 200 : 20 : 40 from the names (seed {seed})")
    if seed and (lists or (account.renewed and not counts)):
        account.pass_over("split", f"--split-seed {seed}, since nothing is drawn")
    if of_source and (lists or counts):
        _report_overruled(dataset, of_source, splits)
    _report_absent_splits(dataset, splits, known)
    dataset.pairs = [replace(pair, split=splits[pair.stem]) for pair in dataset.pairs]


def _follow_source(dataset: RawDataset, of_source: dict[str, str], seed: int) -> dict[str, str]:
    """Return the split that the source says, completed where that is no guess.

    Raises:
        CracksegError: it says none for some images, which could be test images as well as others.
    """
    account, places = dataset.account, describe_sources(dataset)
    undecided = sorted(pair.stem for pair in dataset.pairs if pair.stem not in of_source)
    if undecided:
        if "train" in of_source.values() or set(places) != {"lists"}:
            said = "; ".join(f"{kind}: {join_some(where, 5)}" for kind, where in places.items())
            raise CracksegError(
                f"{count_of(len(undecided), 'image')} without split, though others have one (said by {said}): "
                f"{join_some(undecided)}; {ADVICE}"
            )
        of_source = of_source | dict.fromkeys(undecided, "train")
        account.recognise("split", "no list names training images: images in no list became train", undecided)
    for kind, where in places.items():
        if kind != "manifest":
            account.recognise("split", f"the source's own, as its {kind} say", where)
    words = {claim.split for claims in dataset.claims.values() for claim in claims}
    for word in sorted(words - set(SPLITS)):
        taken = {split for stem, split in of_source.items() if {c.split for c in dataset.claims[stem]} == {word}}
        if taken:
            account.recognise("split", f"images of which only {word} is said became {' and '.join(sorted(taken))}")
    splits = add_validation_split(of_source, seed=seed)
    moved = sum(splits[stem] != of_source[stem] for stem in splits)
    if moved:
        account.recognise(
            "split", f"the source has no validation images: {moved} of its train images became val (seed {seed})"
        )
    return splits


def _report_overruled(dataset: RawDataset, of_source: dict[str, str], splits: dict[str, str]) -> None:
    where = [place for places in describe_sources(dataset).values() for place in places]
    moved = [s for s, split in of_source.items() if split == "test" and splits[s] != "test"]
    text = "the source's own, since another one was asked for"
    if moved:
        text += f"; {count_of(len(moved), 'image')} that it tests on became train or val"
    dataset.account.pass_over("split", text, where)


def _report_absent_splits(dataset: RawDataset, splits: dict[str, str], known: KnownDataset | None) -> None:
    """Say which splits have no image, and what follows."""
    present = set(splits.values())
    consequences = {
        "train": "it cannot be trained on, only tested on",
        "val": "a training on it has nothing to choose its threshold by",
        "test": "a model trained on it can only be scored on its validation images (data.evaluate_split=val)",
    }
    if known and known.role == "test" and present == {"test"}:
        return
    for split in SPLITS:
        if splits and split not in present and not (split == "val" and "train" not in present):
            dataset.account.recognise(
                "split",
                f"no {split} images: {consequences[split]}; draw some with --split-counts, or name them with "
                f"--{split}-list",
            )


def _seeded_splits(stems: list[str], counts: tuple[int, int, int], seed: int) -> dict[str, str]:
    originals = {stem: original_of_crop(stem) for stem in stems}
    if not any(originals.values()):
        return assign_splits(stems, counts=counts, seed=seed)
    # Crops of one photograph stay together, or training would see what validation is scored on.
    by_original = assign_splits({str(o) for o in originals.values()}, counts=(*counts[:2], 0), seed=seed)
    return {stem: by_original[str(original)] for stem, original in originals.items()}


def assign_splits(
    stems: Iterable[str], *, counts: tuple[int, int, int] = PAPER_COUNTS, seed: int
) -> dict[str, str]:
    """Divide stems among train, val and test.

    The order is that of SHA-256(seed, stem), so it depends neither on the order of the input nor on the platform,
    and an image keeps its place in the order when others come or go.

    Args:
        stems: distinct names.
        counts: numbers of train, val and test; shares in this proportion if they do not add up to the stems
            (largest remainder). With three stems or more, each split with a count gets at least one.
        seed: of the order.
    Returns:
        Split of each stem, in sorted order of stems.
    Raises:
        CracksegError: a stem comes twice, or the counts are negative or all zero.
    """
    names = list(stems)
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise CracksegError(f"stem {twice!r} comes twice; each image needs a name of its own")
    if min(counts) < 0 or sum(counts) == 0:
        raise CracksegError(f"split counts {counts}: expected numbers of train, val and test, not all zero")
    order = sorted(names, key=lambda stem: hashlib.sha256(f"{seed}\0{stem}".encode()).digest())
    sizes = _share(len(order), counts)
    labels = [split for split, size in zip(SPLITS, sizes, strict=True) for _ in range(size)]
    return dict(sorted(zip(order, labels, strict=True)))


def _share(total: int, counts: tuple[int, int, int]) -> list[int]:
    sizes = [total * count // sum(counts) for count in counts]
    by_remainder = sorted(range(3), key=lambda i: -(total * counts[i] % sum(counts)))
    for i in by_remainder[: total - sum(sizes)]:
        sizes[i] += 1
    for i in range(3):
        if total >= 3 and counts[i] and not sizes[i]:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[i] = 1
    return sizes


def add_validation_split(splits: Mapping[str, str], *, seed: int) -> dict[str, str]:
    """Give a dataset that comes with train, but without val, the paper's part of val (20 of 220) out of train.

    Args:
        splits: split of each stem.
        seed: of the choice.
    Returns:
        The same where there is a val image already, or fewer than two of train.
    """
    train = [stem for stem, split in splits.items() if split == "train"]
    if "val" in splits.values() or len(train) < 2:
        return dict(splits)
    size = max(1, round(len(train) * PAPER_COUNTS[1] / (PAPER_COUNTS[0] + PAPER_COUNTS[1])))
    chosen = assign_splits(train, counts=(len(train) - size, size, 0), seed=seed)
    return {stem: chosen.get(stem, split) for stem, split in splits.items()}


def read_split_lists(lists: Mapping[str, Path], stems: Collection[str]) -> dict[str, str]:
    """Read the user's own lists.

    Args:
        lists: for train, val and test (or some of them), a text file with a stem or file name on each line, or a
            table with a header; blank lines and lines that begin with ``#`` are skipped; of ``image mask`` lines,
            the image counts; of a column for the split, the rows of this split.
        stems: the dataset's stems; each must be in exactly one list.
    Returns:
        Split of each stem, in sorted order of stems.
    Raises:
        CracksegError: a list cannot be read, names an unknown image, or an image is in two lists or in none; all
            of it at once.
    """
    names = ImageNames(stems)
    places: dict[str, tuple[str, str]] = {}  # stem -> split, where
    problems: list[str] = []
    for split, path in lists.items():
        if split not in SPLITS:
            raise CracksegError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        if not path.is_file():
            raise CracksegError(f"{path}: no such file; expected the list of {split} images")
        rows = read_rows(path, names)
        if rows is None:
            raise CracksegError(f"{path}: not a text file; expected a stem or file name on each line")
        for row in rows:
            if row.split and split not in SPLITS_OF_WORD[row.split]:
                continue  # one table with a column for the split may be given for each
            where = f"{path.name}, {row.where}"
            stem = row.find(names)
            if stem is None:
                problems.append(f"{where}: no image named {row.cells[0]!r}")
            elif places.setdefault(stem, (split, where))[0] != split:
                problems.append(f"{where}: {stem} is already in {places[stem][0]} ({places[stem][1]})")
    missing = sorted(set(stems) - places.keys())
    if missing and not problems:
        problems.append(f"{count_of(len(missing), 'image')} in no list: {join_some(missing)}")
    if problems:
        more = f"\n- and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CracksegError("the split lists do not fit:\n- " + "\n- ".join(problems[:20]) + more)
    return {stem: places[stem][0] for stem in sorted(stems)}
