"""List all files below a folder, through links, in a fixed order; files that are not followed are kept apart."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from crackseg.errors import CracksegError

# Folders and files that systems leave next to photographs: previews, recycle bins, settings of a view.
_SYSTEM_FOLDERS = frozenset({"__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found"})
_SYSTEM_FOLDERS |= {"system volume information", "#snapshot", "@recently-snapshot"}
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


@dataclass(slots=True)
class WalkedFolder:
    """Files below a folder.

    Attributes:
        files: sorted by folder; through links, too.
        hidden: files and folders (with a ``/``) that begin with a dot or that a system left, relative to the folder.
        linked: links to folders that were followed.
        loops: links to a folder that holds them, not followed.
        broken: links to nothing.
    """

    files: list[Path] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def walk_folder(source: Path) -> WalkedFolder:
    """List the files below a folder.

    Raises:
        OSError: a folder cannot be read.
    """
    found = WalkedFolder()
    # The real folders from the source down to the one that is read: a link to one of them would never end.
    above: dict[Path, tuple[str, ...]] = {source: (os.path.realpath(source),)}
    for text, subfolders, names in os.walk(source, onerror=_refuse_unreadable, followlinks=True):
        folder = Path(text)
        real = above.pop(folder)
        followed = []
        for name in sorted(subfolders):
            path = folder / name
            shown = path.relative_to(source).as_posix()
            if name.startswith(".") or name.lower() in _SYSTEM_FOLDERS:
                found.hidden.append(f"{shown}/")
                continue
            target = os.path.realpath(path) if path.is_symlink() else os.path.join(real[-1], name)
            if path.is_symlink():
                if any(parent == target or parent.startswith(os.path.join(target, "")) for parent in real):
                    found.loops.append(shown)
                    continue
                found.linked.append(shown)
            above[path] = (*real, target)
            followed.append(name)
        subfolders[:] = followed
        for name in sorted(names):
            path = folder / name
            if name.startswith(".") or name.lower() in _SYSTEM_FILES:
                found.hidden.append(path.relative_to(source).as_posix())
            elif path.is_symlink() and not path.exists():
                found.broken.append(path.relative_to(source).as_posix())
            else:
                found.files.append(path)
    return found


def check_name(name: str) -> None:
    """Check that a name can be written into a manifest.

    Raises:
        CracksegError: it is not UTF-8, as in an archive that was packed on another system.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise CracksegError(
            f"{shown}: the name is not UTF-8, but of another system; rename it, or unpack the archive with the right "
            "encoding (e.g. unzip -O cp437 FILE)"
        ) from error


def _refuse_unreadable(error: OSError) -> None:
    raise error  # os.walk would leave the folder out without a word
