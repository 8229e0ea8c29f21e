"""What each file below a folder is, told by the words in the names of its folders.

The first step of an import: nothing is opened here. ``CrackTree260_gt/gt/6192.bmp`` is ground truth of
CrackTree260, ``valid/Lable_image/1.png`` is ground truth of the validation split, and so on.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import pandas as pd

from crackseg.data.account import ACCOUNT_NAME
from crackseg.data.catalog import KNOWN_DATASETS, MANIFEST_COLUMNS, SPLITS
from crackseg.data.image_io import IMAGE_EXTENSIONS
from crackseg.errors import CracksegError

MASK_EXTENSIONS = (*IMAGE_EXTENSIONS, ".mat")
INDEX_EXTENSIONS = (".txt", ".lst")
ANNOTATION_EXTENSIONS = (".json", ".xml")


class Role(Enum):
    """What the files of a folder are."""

    IMAGE = "images"
    TRUTH = "ground truth"
    MASK = "masks"  # ground truth, unless the same dataset has a TRUTH folder too
    ROI = "regions of interest"


_ROLE_WORDS = {
    Role.IMAGE: "img imgs image images photo photos photograph photographs picture pictures jpegimages rgb input "
    "inputs original originals",
    Role.TRUTH: "gt gts groundtruth truth lab labs label labels lable lables annotation annotations annotated "
    "annot seg segment segments segmentation segmentations segmentationclass target targets manual",
    Role.MASK: "mask masks",
    Role.ROI: "roi rois",
}
_ROLE_OF_WORD = {word: role for role, words in _ROLE_WORDS.items() for word in words.split()}
_SPLIT_OF_WORD = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Words that say nothing: they neither hide a split (`train_img_png`) nor a known name (`CrackTree260-master`).
_EMPTY_WORDS = frozenset(
    word
    for words in ("ground crack cracks dataset datasets data set master main deepcrack", "png jpg jpeg bmp mat")
    for word in words.split()
)
_TRUTH_SUFFIX = re.compile(r"(.+?)[ _-](?:mask|gt|groundtruth|label|lab|seg|annotation)", re.IGNORECASE)
_CROP = re.compile(r"(.+)_rot\d+_crop\d+_mirror\d+", re.IGNORECASE)
_STONE = "Stone331"


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
class FolderMeaning:
    """What the names of nested folders say (see :class:`FoundFile`); of several, the innermost counts."""

    role: Role | None = None
    split: str | None = None
    dataset: str | None = None
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class SourceListing:
    """Everything below a source that an import may use.

    Attributes:
        files: images, ground truth, regions of interest.
        index_files: text files that may list pairs or splits.
        manifests: manifest.csv of each folder that is already in the canonical layout, by folder.
        archives: .zip and the like, which nobody unpacked yet.
        annotation_files: that may come from an annotation tool.
    """

    files: list[FoundFile]
    index_files: list[Path]
    manifests: dict[Path, pd.DataFrame]
    archives: list[Path]
    annotation_files: list[Path]


def fold(text: str) -> str:
    """The form in which names are compared: neither case nor the way of writing accents matters."""
    return unicodedata.normalize("NFC", text).casefold()


def known_name(name: str) -> str | None:
    """The paper's spelling of a known dataset's name, e.g. of ``cracktree260_GT``; None for other names."""
    return _read_words(name, frozenset()).dataset


def split_of_name(name: str) -> str | None:
    """The split that a file or folder name says, e.g. ``val`` for ``CrackLS315_valid``, else None."""
    return _read_words(name, frozenset()).split


def truth_stem(stem: str) -> str:
    """The photograph's stem for the stem of a ground truth: ``7_mask`` and ``7-GT`` belong to ``7``."""
    match = _TRUTH_SUFFIX.fullmatch(stem)
    return match[1] if match else stem


def original_of_crop(stem: str) -> str | None:
    """Stem of the photograph from which an augmented crop such as ``6192_rot0_crop1_mirror0`` was cut."""
    match = _CROP.fullmatch(stem)
    return match[1] if match else None


def list_source(source: Path, *, name: str | None) -> SourceListing:
    """List what an import may use below ``source``, in a fixed order.

    Args:
        source: folder with a dataset, or with several.
        name: the name that the user gave; folders may repeat it (``BRIDGE_train_img``).
    """
    neutral = frozenset(_words(source.name) + _words(name or ""))
    meanings: dict[Path, FolderMeaning] = {}
    listing = SourceListing([], [], {}, [], [])
    for path in _walk(source):
        suffix = path.suffix.lower()
        folder = path.parent
        if path.name == "manifest.csv" and _is_manifest(path):
            listing.manifests[folder] = _read_manifest(path)
        elif suffix in MASK_EXTENSIONS:
            if folder not in meanings:
                meanings[folder] = read_folders(folder.relative_to(source).parts, neutral)
            m = meanings[folder]
            shown = path.relative_to(source).as_posix()
            listing.files.append(FoundFile(path, shown, m.role, m.split, m.dataset, m.foreign))
        elif suffix in INDEX_EXTENSIONS and not path.stem.lower().startswith(("readme", "license", "licence")):
            listing.index_files.append(path)
        elif suffix in ANNOTATION_EXTENSIONS and not _is_account(path):
            listing.annotation_files.append(path)
        elif suffix in (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz"):
            listing.archives.append(path)
    for number, file in enumerate(listing.files):
        for root in listing.manifests:
            if root in file.path.parents:
                dataset = known_name(root.name) or root.name
                listing.files[number] = replace(file, split=None, dataset=dataset, foreign=False)
    return listing


def read_folders(parts: tuple[str, ...], neutral: frozenset[str] = frozenset()) -> FolderMeaning:
    """Read the names of nested folders, outermost first; ``neutral`` words (lower case) say nothing."""
    role, split, dataset, foreign = None, None, None, False
    for part in parts:
        meaning = _read_words(part, neutral)
        dataset = meaning.dataset or dataset
        role = meaning.role or role
        split = meaning.split or split
        foreign = foreign or meaning.foreign
    return FolderMeaning(role, split, dataset, foreign and dataset is None)


def _walk(source: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(source, onerror=_refuse_unreadable):
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s != "__MACOSX")
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)


def _refuse_unreadable(error: OSError) -> None:
    raise error  # os.walk would leave the folder out without a word


def _words(name: str) -> list[str]:
    boundaries = r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
    return [fold(word) for word in re.split(boundaries, name) if word]


def _read_words(name: str, neutral: frozenset[str]) -> FolderMeaning:
    dataset, words = _cut_known_name(_words(name))
    roles = [_ROLE_OF_WORD[w] for w in words if w in _ROLE_OF_WORD]
    # `Lable_image` is a folder of labels: the word for truth tells more than the word for image.
    role = next((r for r in (Role.ROI, Role.TRUTH, Role.MASK, Role.IMAGE) if r in roles), None)
    splits = {_SPLIT_OF_WORD[w] for w in words if w in _SPLIT_OF_WORD}
    silent = _EMPTY_WORDS | neutral | _ROLE_OF_WORD.keys() | _SPLIT_OF_WORD.keys()
    if any(w not in silent for w in words):
        # `bridge_test_2023` is a bridge, no test split; `CrackTree260_enhanced` is not CrackTree260.
        return FolderMeaning(role, foreign=True)
    if dataset == _STONE and role is Role.MASK:
        role = Role.ROI  # `Stone331_mask` is the stone's surface; the truth is `Stone331_gt`
    return FolderMeaning(role, splits.pop() if len(splits) == 1 else None, dataset)


def _cut_known_name(words: list[str]) -> tuple[str | None, list[str]]:
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            for name in KNOWN_DATASETS:
                if "".join(words[first:last]) == fold(name):
                    return name, words[:first] + words[last:]
    return None, words


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
            f"{path}: not a manifest that can be read ({error}); delete it to import anew"
        ) from error
    wrong = sorted(set(table["split"]) - set(SPLITS))
    if wrong:
        raise CracksegError(f"{path}: unknown split {wrong[0]!r}; expected one of {', '.join(SPLITS)}")
    return table
