"""Listing of a source: the kind of each file, by its ending and the words in the names of its folders.

The first step of an import: nothing but manifests is opened here.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from crackseg.data.catalog import MANIFEST_COLUMNS, SPLITS
from crackseg.data.images.files import IMAGE_EXTENSIONS
from crackseg.data.importing.account import ACCOUNT_NAME
from crackseg.data.importing.folder_walk import WalkedFolder, check_name, walk_folder
from crackseg.data.importing.folder_words import FolderMeaning, Role, known_name, read_folders, split_of_name
from crackseg.errors import CracksegError

MASK_EXTENSIONS = (*IMAGE_EXTENSIONS, ".mat")
INDEX_EXTENSIONS = (".txt", ".lst", ".list", ".flist")
TABLE_EXTENSIONS = (".csv", ".tsv", ".yaml", ".yml")
ANNOTATION_EXTENSIONS = (".json", ".xml")
ARCHIVE_EXTENSIONS = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that may be an image, a ground truth or a region of interest.

    Attributes:
        path: the file.
        shown: its path below the source, for messages.
        role: by its folders' names; None where they say nothing.
        split: by its folders' names; None where they say nothing.
        dataset: the known dataset that its folders name; None where they name none.
        foreign: no known dataset, and its folders name something else, e.g. ``bridge/gt``.
    """

    path: Path
    shown: str
    role: Role | None
    split: str | None
    dataset: str | None
    foreign: bool = False

    @property
    def stem(self) -> str:
        return unicodedata.normalize("NFC", self.path.stem)

    @property
    def folder(self) -> str:
        return self.shown.rpartition("/")[0] or "."


@dataclass(frozen=True, slots=True)
class SourceListing:
    """Everything below a source that an import may use.

    Attributes:
        files: images, ground truth, regions of interest.
        index_files: text files that may list pairs or splits.
        tables: CSV and YAML files that may say splits.
        manifests: manifest.csv of each folder that is already in the canonical layout, by folder.
        archives: .zip and the like, which are not unpacked yet.
        annotation_files: that may come from an annotation tool, or say splits.
        others: files that no import reads.
        walked: what was not read: hidden files, broken links.
    """

    files: list[FoundFile] = field(default_factory=list)
    index_files: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    manifests: dict[Path, pd.DataFrame] = field(default_factory=dict)
    archives: list[Path] = field(default_factory=list)
    annotation_files: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    walked: WalkedFolder = field(default_factory=WalkedFolder)


def list_source(source: Path, *, name: str | None) -> SourceListing:
    """List what an import may use below ``source``, in a fixed order.

    Args:
        source: folder with a dataset, or with several.
        name: the name that the user gave; folders may repeat it (``BRIDGE_train_img``).
    """
    own_names = (source.name, name or "")
    meanings: dict[Path, FolderMeaning] = {}
    listing = SourceListing(walked=walk_folder(source))
    for path in listing.walked.files:
        suffix = path.suffix.lower()
        folder = path.parent
        if path.name == "manifest.csv" and _is_manifest(path):
            listing.manifests[folder] = _read_manifest(path)
        elif suffix in MASK_EXTENSIONS:
            if folder not in meanings:
                meanings[folder] = read_folders(folder.relative_to(source).parts, own_names)
            m = meanings[folder]
            shown = path.relative_to(source).as_posix()
            check_name(shown)
            listing.files.append(FoundFile(path, shown, m.role, m.split, m.dataset, m.foreign))
        elif _is_account(path):
            continue
        elif path.stem.lower().startswith(("readme", "license", "licence")):
            listing.others.append(path)
        elif suffix in INDEX_EXTENSIONS or (not suffix and split_of_name(path.name, own_names)):
            listing.index_files.append(path)
        elif suffix in TABLE_EXTENSIONS:
            listing.tables.append(path)
        elif suffix in ANNOTATION_EXTENSIONS:
            listing.annotation_files.append(path)
        elif suffix in ARCHIVE_EXTENSIONS:
            listing.archives.append(path)
        else:
            listing.others.append(path)
    for number, file in enumerate(listing.files):
        for root in listing.manifests:
            if root in file.path.parents:
                dataset = known_name(root.name) or root.name
                listing.files[number] = replace(file, split=None, dataset=dataset, foreign=False)
    return listing


def _is_manifest(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return set(MANIFEST_COLUMNS) <= set(file.readline().strip().split(","))


def _is_account(path: Path) -> bool:
    return path.name == ACCOUNT_NAME and path.with_name("manifest.csv").is_file()


def _read_manifest(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise CracksegError(
            f"{path}: not a manifest that can be read ({error}); delete it to import again"
        ) from error
    wrong = sorted(set(table["split"]) - set(SPLITS))
    if wrong:
        raise CracksegError(f"{path}: unknown split {wrong[0]!r}; expected one of {', '.join(SPLITS)}")
    return table
