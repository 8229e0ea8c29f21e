"""Find the images for files, folders and patterns on a command line, and the names of their results."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crackseg.data.images.files import IMAGE_EXTENSIONS
from crackseg.data.images.kinds import has_image_ending, is_picture
from crackseg.data.importing.folder_walk import walk_folder
from crackseg.errors import CracksegError, count_of, join_some

_log = logging.getLogger("crackseg")
MOSAICS = "mosaics"
_MADE = ("masks", "overlays", "annotated", MOSAICS, "predictions.csv")  # in a folder of results
# Folders of photographs may have these names, too: results are what stands next to such a file.
_MADE_BESIDE = {"predictions.csv": "maps", "growth.json": "pictures", ".growth.lock": "pictures"}


@dataclass(frozen=True, slots=True)
class Photograph:
    """File to predict, and the name of its results: ``masks/NAME.png``, ``overlays/NAME.jpg``."""

    path: Path
    name: str


def find_photographs(
    patterns: Sequence[str], out_dir: Path | None, *, also: Sequence[str] = ()
) -> list[Photograph]:
    """List the photographs that files, folders (with all below them) and glob patterns name, sorted, each once.

    Names mirror the sub-folders below the deepest folder that holds everything asked for. Where two files differ by
    their extension alone, it stays in the name.

    Args:
        patterns: at least one. Folders and patterns give files with an image's extension; hidden ones below a folder
            are left out.
        out_dir: what an earlier run wrote there is no input; None where nothing is written.
        also: endings of files that count, too, e.g. ``.mat`` of masks.
    Raises:
        CracksegError: nothing is there, or it holds no image.
    """
    out_dir = out_dir.resolve() if out_dir else None
    made: tuple[Path, ...] = ()
    if out_dir:
        beside = [name for sign, name in _MADE_BESIDE.items() if (out_dir / sign).exists()]
        made = tuple(out_dir / name for name in (*_MADE, *beside))
    found: set[Path] = set()
    holders = []
    for pattern in patterns:
        matches = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise CracksegError(
                f"{pattern}: no such file or folder; expected photographs, folders of them or a "
                "pattern such as 'bridge/*.jpg' (where results go is said with --out)"
            )
        for match in matches:
            path = Path(os.path.abspath(match))
            if any(path.resolve().is_relative_to(written) for written in made):
                continue  # by an earlier run
            if not path.is_dir():
                if match == pattern or has_image_ending(path):
                    found.add(path)
                    holders.append(path.parent)
            elif files := _list_images(path, made, also):
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


def _list_images(folder: Path, left_out: Sequence[Path], also: Sequence[str]) -> list[Path]:
    """List the images below a folder, linked folders too; skipped files are reported.

    A picture of a kind that cannot be read, or a link to nothing, is listed: its row says what is wrong. A picture
    without a picture's ending is known by its first bytes.
    """
    walked = walk_folder(folder)
    real_of: dict[Path, str] = {}  # one look-up for each folder, since a disk of photographs holds thousands
    found: dict[str, Path] = {}
    twice, others = [], Counter[str]()
    for path in [*walked.files, *(folder / name for name in walked.broken)]:
        real = real_of.setdefault(path.parent, os.path.realpath(path.parent))
        if any(Path(real).is_relative_to(written) for written in left_out):
            continue
        if not (has_image_ending(path) or path.suffix.lower() in also or is_picture(path)):
            others[path.suffix.lower() or "no extension"] += 1
            continue
        # A link leads to the file that it names, which may be listed itself.
        real_path = os.path.realpath(path) if path.is_symlink() else os.path.join(real, path.name)
        if path != (first := found.setdefault(real_path, path)):
            twice.append(f"{path} ({first})")
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(6))
        _log.info("%s: %s passed over, no photographs: %s", folder, count_of(others.total(), "file"), kinds)
    if walked.broken:
        _log.warning("%s: links to nothing: %s", folder, join_some(walked.broken))
    if walked.loops:
        _log.warning("%s: not followed, since they lead back: %s", folder, join_some(walked.loops))
    if twice:
        _log.warning("%s: taken once, though linked twice: %s", folder, join_some(twice))
    return list(found.values())
