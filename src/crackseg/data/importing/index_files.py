"""Index files: text files that list ``image<space>mask``, a pair on each line, as many training codes use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crackseg.data.images.files import IMAGE_EXTENSIONS
from crackseg.data.importing.folder_roles import MASK_EXTENSIONS
from crackseg.data.importing.folder_words import split_of_name


@dataclass(frozen=True, slots=True)
class IndexedPair:
    """A line of an index file.

    Attributes:
        image_path: exists and lies below the source.
        mask_path: likewise.
        split: by the index file's name (``train.txt``), or None.
        where: file and line, for messages.
    """

    image_path: Path
    mask_path: Path
    split: str | None
    where: str

    @property
    def file(self) -> str:
        """The index file, below the source."""
        return self.where.rpartition(", line ")[0]


def read_lines(path: Path) -> list[str] | None:
    """Read the lines of a text file without surrounding blanks, or None if it is not UTF-8 text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        return None


def read_index_file(path: Path, source: Path) -> tuple[list[IndexedPair], list[str]]:
    """Read an index file; other text files (lists of names, licences) give nothing.

    Args:
        path: the text file, below ``source``.
        source: folder of the import; paths in the file are relative to it, or to a folder between it and the file.
    Returns:
        The pairs, and one message for each line that cannot be used: a file that does not exist, or that lies
        outside ``source``.
    """
    lines = read_lines(path) or []
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if not any(_are_names(*pair) for pair in _cuts(first)):
        return [], []
    bases = [path.parent, *(p for p in path.parents if p.is_relative_to(source) and p != path.parent)]
    pairs, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        where = f"{path.relative_to(source).as_posix()}, line {number}"
        found = _find_pair(line, bases, source)
        if isinstance(found, str):
            problems.append(f"{where}: {found}")
        else:
            pairs.append(IndexedPair(*found, split_of_name(path.stem), where))
    return pairs, problems


def _find_pair(line: str, bases: list[Path], source: Path) -> tuple[Path, Path] | str:
    """Find the two files of a line, or return what is wrong with it."""
    cuts = [pair for pair in _cuts(line) if _are_names(*pair)]
    if not cuts:
        return f"expected 'image mask', got {line!r}"
    for names in cuts:
        for name in names:
            # Refused before anything is looked up: what lies elsewhere is none of a dataset's business.
            if not any(_below(base, name).is_relative_to(source) for base in bases):
                return f"{name} lies outside {source}; write paths relative to the index file"
        for base in bases:
            paths = [_below(base, name) for name in names]
            if all(p.is_relative_to(source) and p.is_file() for p in paths):
                return paths[0], paths[1]
    missing = [n for n in cuts[0] if not any(_below(b, n).is_file() for b in bases)]
    return f"{' and '.join(missing or cuts[0])}: no such file below {source}"


def _cuts(line: str) -> list[tuple[str, str]]:
    """Each way to cut a line in two, since names may hold blanks."""
    for separator in ("\t", ",", ";"):
        if line.count(separator) == 1:
            image, mask = line.split(separator)
            return [(image.strip(), mask.strip())]
    places = [i for i, character in enumerate(line) if character == " "]
    return [(line[:i].strip(), line[i:].strip()) for i in places]


def _are_names(image: str, mask: str) -> bool:
    suffixes = [PurePosixPath(name).suffix.lower() for name in (image, mask)]
    return suffixes[0] in IMAGE_EXTENSIONS and suffixes[1] in MASK_EXTENSIONS


def _below(base: Path, name: str) -> Path:
    # Without resolving links: a link that the user put into the source is the user's own.
    return Path(os.path.normpath(base / name.replace("\\", "/")))
