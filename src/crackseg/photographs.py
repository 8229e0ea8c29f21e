"""The pictures that files, folders and patterns on a command line name, and what their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crackseg.data.image_io import IMAGE_EXTENSIONS
from crackseg.errors import CracksegError

_MADE = ("masks", "overlays", "annotated", "predictions.csv")  # in a folder of results


@dataclass(frozen=True, slots=True)
class Photograph:
    """A file to predict, and the name of what comes out: ``masks/NAME.png``, ``overlays/NAME.jpg``."""

    path: Path
    name: str


def find_photographs(patterns: Sequence[str], out_dir: Path | None) -> list[Photograph]:
    """List the photographs that files, folders (with all below them) and glob patterns name, sorted, each once.

    Names mirror the sub-folders below the deepest folder that holds everything asked for. Where two files differ by
    their extension alone, it stays in the name.

    Args:
        patterns: at least one. Folders and patterns give files with an image's extension; hidden ones below a folder
            are left out.
        out_dir: what an earlier run wrote there is no input; None where nothing is written.
    Raises:
        CracksegError: nothing is there, or it holds no image.
    """
    out_dir = out_dir.resolve() if out_dir else None
    made = tuple(out_dir / name for name in _MADE) if out_dir else ()
    found: set[Path] = set()
    holders = []
    for pattern in patterns:
        matches = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise CracksegError(f"{pattern}: no such file or folder")
        for match in matches:
            path = Path(os.path.abspath(match))
            if any(path.resolve().is_relative_to(written) for written in made):
                continue  # by an earlier run
            if not path.is_dir():
                if match == pattern or path.suffix.lower() in IMAGE_EXTENSIONS:
                    found.add(path)
                    holders.append(path.parent)
            elif files := _list_images(path, made):
                found.update(files)
                holders.append(path)
            elif len(matches) == 1 and path.resolve() != out_dir:
                raise CracksegError(f"{pattern}: no file in it or below ends in {', '.join(IMAGE_EXTENSIONS)}")
    if not found:
        raise CracksegError(f"{', '.join(patterns)}: no photograph among what matches")
    base = Path(os.path.commonpath(holders))
    relatives = {path: path.relative_to(base) for path in sorted(found)}
    taken = Counter(relative.as_posix().lower() for relative in relatives.values())  # some disks know no case
    taken.update(relative.with_suffix("").as_posix().lower() for relative in relatives.values())
    photographs = []
    for path, relative in relatives.items():
        short = relative.with_suffix("")
        alone = taken[short.as_posix().lower()] == 1
        photographs.append(Photograph(path, (short if alone else relative).as_posix()))
    return photographs


def _list_images(folder: Path, left_out: Sequence[Path]) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and Path(parent, f).resolve() not in left_out]
        files += [
            Path(parent, name)
            for name in names
            if Path(name).suffix.lower() in IMAGE_EXTENSIONS and not name.startswith(".")
        ]
    return files
