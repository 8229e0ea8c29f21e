"""Who is train, val and test: seeded shares of 200/20/40 as in the paper's Table 2, or the user's own lists."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from crackseg.data.catalog import KNOWN_DATASETS, SPLITS
from crackseg.data.image_io import IMAGE_EXTENSIONS
from crackseg.data.index_files import read_lines
from crackseg.data.layouts import fold, original_of_crop
from crackseg.data.pairing import RawDataset
from crackseg.data.wording import count_of, join_some
from crackseg.errors import CracksegError

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
    undecided = [pair.stem for pair in dataset.pairs if pair.split is None]
    if lists:
        try:
            splits = read_split_lists(lists, stems)
        except CracksegError as error:
            dataset.problems.append(str(error))
            return
    elif counts is None and undecided and len(undecided) < len(stems):
        dataset.problems.append(
            f"{count_of(len(undecided), 'image')} without split, though others have one: {join_some(undecided)}; "
            "give lists with --train-list, --val-list and --test-list"
        )
        return
    elif counts is None and not undecided:
        given = {pair.stem: str(pair.split) for pair in dataset.pairs}
        splits = add_validation_split(given, seed=seed)
        moved = sum(splits[stem] != given[stem] for stem in stems)
        if moved:
            dataset.account.recognise(
                "split",
                f"the source has no validation images: {moved} of its train images became val (seed {seed})",
            )
        if known and known.role == "test" and set(splits.values()) != {"test"}:
            dataset.account.recognise(
                "split", "the paper tests on all of its images; here the source's own split counts"
            )
    elif counts is None and known and known.role == "test":
        splits = dict.fromkeys(stems, "test")
    else:
        splits = _seeded_splits(stems, counts or PAPER_COUNTS, seed)
    dataset.pairs = [replace(pair, split=splits[pair.stem]) for pair in dataset.pairs]


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
    """Give a dataset that comes with train, but without val, the paper's share of val (20 of 220) out of train.

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
        lists: for train, val and test (or some of them), a text file with a stem or file name on each line; blank
            lines and lines that begin with ``#`` are skipped; of ``image mask`` lines, the image counts.
        stems: the dataset's stems; each must be in exactly one list.
    Returns:
        Split of each stem, in sorted order of stems.
    Raises:
        CracksegError: a list cannot be read, names an unknown image, or an image is in two lists or in none; all
            of it at once.
    """
    known = {fold(stem): stem for stem in stems}
    places: dict[str, tuple[str, str]] = {}  # stem -> split, where
    problems: list[str] = []
    for split, path in lists.items():
        if split not in SPLITS:
            raise CracksegError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        if not path.is_file():
            raise CracksegError(f"{path}: no such file; expected the list of {split} images")
        lines = read_lines(path)
        if lines is None:
            raise CracksegError(f"{path}: not a text file; expected a stem or file name on each line")
        for number, line in enumerate(lines, start=1):
            if not line or line.startswith("#"):
                continue
            where = f"{path.name}, line {number}"
            stem = _find_stem(line, known)
            if stem is None:
                problems.append(f"{where}: no image named {line!r}")
            elif stem in places:
                problems.append(f"{where}: {stem} is already in {places[stem][1]} ({places[stem][0]})")
            else:
                places[stem] = (split, where)
    missing = sorted(set(stems) - places.keys())
    if missing and not problems:
        problems.append(f"{count_of(len(missing), 'image')} in no list: {join_some(missing)}")
    if problems:
        more = f"\n- and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CracksegError("the split lists do not fit:\n- " + "\n- ".join(problems[:20]) + more)
    return {stem: places[stem][0] for stem in sorted(stems)}


def _find_stem(line: str, known: Mapping[str, str]) -> str | None:
    for text in (line, line.replace(",", " ").split()[0] if line.strip(", ") else line):
        name = PurePosixPath(text.replace("\\", "/"))
        if fold(name.name) in known:
            return known[fold(name.name)]
        if name.suffix.lower() in IMAGE_EXTENSIONS and fold(name.stem) in known:
            return known[fold(name.stem)]
    return None
