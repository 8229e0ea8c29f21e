"""Lists that say which image is train, val or test: text, CSV, JSON and YAML files in the forms that people write.

Read into rows of names with the split that the file says of each; which of the names are images of the dataset is
found out by :class:`ImageNames`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML, YAMLError

from crackseg.data.importing.folder_roles import MASK_EXTENSIONS
from crackseg.data.importing.folder_words import fold, split_of_name, split_of_word, truth_stem

_SPLIT_COLUMNS = frozenset(
    {"split", "subset", "set", "fold", "partition", "phase", "usage", "splits", "data_split"}
)
_HEADER_WORDS = _SPLIT_COLUMNS | frozenset(
    word
    for words in (
        "image images img imgs image_id imageid image_name imagename image_file image_path img_path photo photos",
        "mask masks mask_path mask_name mask_file label labels gt ground_truth groundtruth annotation target class",
        "file files filename filenames file_name filepath file_path name names path paths id ids index stem stems",
    )
    for word in words.split()
)


class ImageNames:
    """Images of a dataset by the names that lists use for them: stems, file names, paths, names of masks."""

    def __init__(self, stems: Collection[str]) -> None:
        self._stems = {fold(stem): stem for stem in stems}

    def find(self, text: str) -> str | None:
        """Return the stem of the image that a text names, else None."""
        name = PurePosixPath(text.strip().replace("\\", "/")).name
        stem, dot, ending = name.rpartition(".")
        candidates = [name]
        if dot and f".{ending.lower()}" in MASK_EXTENSIONS:
            candidates += [stem, truth_stem(stem)]
        return next((self._stems[fold(c)] for c in candidates if fold(c) in self._stems), None)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a list.

    Attributes:
        cells: what may be names, the likeliest first.
        where: the line or entry, for messages.
        split: a key of ``SPLITS_OF_WORD`` where the row itself says it, else None.
    """

    cells: tuple[str, ...]
    where: str
    split: str | None = None

    def find(self, names: ImageNames) -> str | None:
        """Return the stem of the image that the row names, else None."""
        return next((stem for cell in self.cells if (stem := names.find(cell))), None)


@dataclass(slots=True)
class SplitList:
    """A list and what it says.

    Attributes:
        path: the file.
        splits: key of ``SPLITS_OF_WORD`` by stem.
        unknown: rows that name no image of the dataset.
        disagreeing: stems that it puts into two splits.
        unsaid: stems that it names without a split.
    """

    path: Path
    splits: dict[str, str] = field(default_factory=dict)
    unknown: list[Row] = field(default_factory=list)
    disagreeing: dict[str, set[str]] = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)


def read_text(path: Path) -> str | None:
    """Read a text file in UTF-8, UTF-16 with its mark, or Latin-1; None if it is no text."""
    content = path.read_bytes()
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if "\0" in text else text
    return None


def read_rows(path: Path, names: ImageNames) -> list[Row] | None:
    """Read the rows of a list; a header is left out.

    Args:
        path: text, CSV, JSON or YAML.
        names: of the dataset's images.
    Returns:
        Its rows, or None if it is no text or damaged.
    """
    text = read_text(path)
    if text is None:
        return None
    suffix = path.suffix.lower()
    if suffix in (".json", ".yaml", ".yml"):
        try:
            data = json.loads(text) if suffix == ".json" else YAML(typ="safe", pure=True).load(text)
        except (ValueError, YAMLError, RecursionError):
            return None
        return list(_rows_of_data(data, ""))
    return _rows_of_table(text, names)


def read_split_list(path: Path, names: ImageNames, *, own_split: str | None) -> SplitList | None:
    """Read what a file says of the splits of a dataset's images.

    Args:
        path: the file.
        names: of the dataset's images.
        own_split: the split that the file's name says, for rows that say none.
    Returns:
        None where it is no list of names.
    """
    rows = read_rows(path, names)
    if rows is None:
        return None
    found = SplitList(path)
    for row in rows:
        split = row.split or own_split
        stem = row.find(names)
        if stem is None:
            found.unknown.append(row)
        elif split is None:
            found.unsaid.append(stem)
        elif found.splits.setdefault(stem, split) != split:
            found.disagreeing.setdefault(stem, {found.splits[stem]}).add(split)
    return found if found.splits or found.unsaid or own_split or any(row.split for row in rows) else None


def _rows_of_table(text: str, names: ImageNames) -> list[Row]:
    delimiter = _find_delimiter(text)
    table = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip() if delimiter != "\t" else line.strip("\r\n ")
        if line and not line.startswith("#"):
            cells = next(csv.reader(io.StringIO(line), delimiter=delimiter)) if delimiter else [line]
            table.append((line, [cell.strip() for cell in cells], f"line {number}"))
    if not table:
        return []
    header = [fold(cell).replace(" ", "_") for cell in table[0][1]]
    in_columns = {n: split for n, cell in enumerate(header) if (split := split_of_word(cell))}
    if (
        in_columns
        and len(in_columns) == len([cell for cell in header if cell])
        and names.find(table[0][0]) is None
    ):
        rows = [  # a column for each split, as spreadsheets have them
            Row((cells[n],), where, split)
            for _, cells, where in table[1:]
            for n, split in in_columns.items()
            if n < len(cells) and cells[n]
        ]
        if any(row.find(names) for row in rows):
            return rows
    if _is_header(header, [Row(_cells(line, cells), "") for line, cells, _ in table], names):
        table = table[1:]
    else:
        header = []
    column = _find_split_column(header, [cells for _, cells, _ in table], names)
    return [
        Row(_cells(line, cells), where, None if column is None else split_of_word(cells[column]))
        for line, cells, where in table
    ]


def _cells(line: str, cells: list[str]) -> tuple[str, ...]:
    """List the parts of a line that may be the name: all of it, a cell, or the part before the first blank."""
    first = (line.replace(",", " ").split() or [line])[0]
    return tuple(dict.fromkeys((line, *(c for c in cells if c), first)))


def _find_delimiter(text: str) -> str:
    """Find the character that cuts most of the first lines into cells; empty if none does."""
    lines = [line for line in text.splitlines()[:50] if not line.startswith("#")]
    counts = {delimiter: sum(delimiter in line for line in lines) for delimiter in "\t;,|"}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ""


def _is_header(header: list[str], rows: list[Row], names: ImageNames) -> bool:
    if rows[0].find(names) is not None:
        return False
    return all(cell in _HEADER_WORDS or not cell for cell in header) or (
        bool(_SPLIT_COLUMNS & set(header)) or bool({"image", "filename", "file_name", "image_id"} & set(header))
    )


def _find_split_column(header: list[str], table: list[list[str]], names: ImageNames) -> int | None:
    """Find the column whose cells all say a split; of several, the one whose header says so."""
    width = min((len(cells) for cells in table), default=0)
    columns = [n for n in range(width) if all(split_of_word(cells[n]) for cells in table)]
    columns = [n for n in columns if not any(names.find(cells[n]) for cells in table)]
    return min(columns, key=lambda n: not (header[n : n + 1] and header[n] in _SPLIT_COLUMNS), default=None)


def _rows_of_data(data: Any, where: str, split: str | None = None) -> Iterator[Row]:
    """Return the names in JSON or YAML, with the split of the key that they are below, or of their own record."""
    if isinstance(data, str | int):
        yield Row((str(data),), where, split)
    elif isinstance(data, list):
        for number, item in enumerate(data, start=1):
            yield from _rows_of_data(item, f"{where}[{number}]", split)
    elif isinstance(data, dict):
        texts = {str(key): value for key, value in data.items() if isinstance(value, str)}
        own = next((s for k, v in texts.items() if fold(k) in _SPLIT_COLUMNS and (s := split_of_word(v))), None)
        if own or (split and texts):  # a record: {"image": …, "mask": …, "split": "train"}
            yield Row((*texts.values(), where.rpartition(".")[2]), where, own or split)
            return
        for key, value in data.items():
            below = f"{where}.{key}" if where else str(key)
            if isinstance(value, str) and split_of_word(value):  # {"7.jpg": "train"}
                yield Row((str(key),), below, split_of_word(value))
            elif "." not in str(key) and (said := split_of_name(str(key))):
                yield from _rows_of_data(value, below, said)
            elif isinstance(value, dict | list):
                yield from _rows_of_data(value, below, split)
