"""Words in the names of folders and files: the role of the files, their split, their dataset.

``CrackTree260_gt/gt/6192.bmp`` is ground truth of CrackTree260, ``valid/Lable_image/1.png`` is ground truth of the
validation split, ``train2017`` holds training images, and ``train_station`` is a place.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum

from crackseg.data.catalog import KNOWN_DATASETS


class Role(Enum):
    """Role of the files in a folder."""

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
# The splits that a source's word may mean. `trainval` is divided by other lists or by us; `eval` is what is not trained
# on: validation images where the source names test images, too, else test images.
SPLITS_OF_WORD = {
    "train": frozenset({"train"}),
    "val": frozenset({"val"}),
    "test": frozenset({"test"}),
    "trainval": frozenset({"train", "val"}),
    "eval": frozenset({"val", "test"}),
}
_SPLIT_WORDS = {
    "train": "train training trn trainaug",
    "val": "val valid validation validate validating minival",
    "test": "test testing tst",
    "trainval": "trainval trainvalid trainvalidation",
    "eval": "eval evaluation holdout valtest testval",
}
_SPLIT_OF_WORD = {word: split for split, words in _SPLIT_WORDS.items() for word in words.split()}
_SHORT_SPLITS = {"tr": "train", "ts": "test"}  # nnU-Net's imagesTr and labelsTs
# Words that say nothing: they neither hide a split (`train_img_png`) nor a known name (`CrackTree260-master`).
_EMPTY_WORDS = frozenset(
    word
    for words in ("ground crack cracks dataset datasets data set master main deepcrack", "png jpg jpeg bmp mat")
    for word in words.split()
)
# What else may stand next to a split's word: of folders, lists and annotation files.
_BESIDE_SPLIT = frozenset(
    word
    for words in (
        "crop crops cropped patch patches tile tiles pic pics split splits subset folder part",
        "list lists file files filename filenames name names stem stems id ids index indices idx pair pairs path paths",
        "instance instances coco voc yolo cvat labelme json xml txt csv semantic export default via project",
        "orig rescaled resized",
    )
    for word in words.split()
)
_GLUED = re.compile(
    rf"({'|'.join(sorted(_SPLIT_OF_WORD, key=len, reverse=True))})"
    r"(crops?|cropped|data|dataset|sets?|imgs?|images?|masks?|labels?|gts?|pics?|patches|tiles|lists?|ids?|files?)"
)
_TRUTH_SUFFIX = re.compile(r"(.+?)[ _-](?:mask|gt|groundtruth|label|lab|seg|annotation)", re.IGNORECASE)
_CROP = re.compile(r"(.+)_rot\d+_crop\d+_mirror\d+", re.IGNORECASE)
_STONE = "Stone331"


@dataclass(frozen=True, slots=True)
class FolderMeaning:
    """Meaning of the names of nested folders; of several, the innermost counts.

    Attributes:
        role: of the files; None where the names say nothing.
        split: a key of ``SPLITS_OF_WORD``; None where the names say nothing.
        dataset: the known dataset that is named; None where none is.
        foreign: no known dataset, and the names say something else, e.g. ``bridge/gt``.
    """

    role: Role | None = None
    split: str | None = None
    dataset: str | None = None
    foreign: bool = False


def fold(text: str) -> str:
    """Normalise a name for comparison: without case and without differences in the encoding of accents."""
    return unicodedata.normalize("NFC", text).casefold()


def known_name(name: str) -> str | None:
    """Return the paper's spelling of a known dataset's name, e.g. of ``cracktree260_GT``; None for other names."""
    return _read_words(name, ()).dataset


def split_of_name(name: str, own_names: tuple[str, ...] = ()) -> str | None:
    """Return the split that a file or folder name says, e.g. ``val`` for ``CrackLS315_valid``, else None.

    Args:
        name: without the extension.
        own_names: of the dataset and its source, which may be repeated in it.
    Returns:
        A key of ``SPLITS_OF_WORD``.
    """
    return _read_words(name, own_names).split


def split_of_word(text: str) -> str | None:
    """Return the split that a cell or key says by itself, e.g. ``val`` for ``Validation``, else None."""
    return _SPLIT_OF_WORD.get(fold(text).strip().replace("-", "").replace("_", "").replace(" ", ""))


def resembles_split(name: str, own_names: tuple[str, ...] = ()) -> bool:
    """Return True if a name without a split contains a split's word: ``train_station``, ``testa``, not ``value``."""
    words = _cut_own_names(_words(name), own_names)
    return split_of_name(name, own_names) is None and any(
        word in _SPLIT_OF_WORD or word.startswith(("train", "test")) for word in words
    )


def truth_stem(stem: str) -> str:
    """Return the photograph's stem for the stem of a ground truth: ``7_mask`` and ``7-GT`` belong to ``7``."""
    match = _TRUTH_SUFFIX.fullmatch(stem)
    return match[1] if match else stem


def original_of_crop(stem: str) -> str | None:
    """Stem of the photograph from which an augmented crop such as ``6192_rot0_crop1_mirror0`` was cut."""
    match = _CROP.fullmatch(stem)
    return match[1] if match else None


def read_folders(parts: tuple[str, ...], own_names: tuple[str, ...] = ()) -> FolderMeaning:
    """Read the names of nested folders, outermost first.

    Args:
        parts: the names.
        own_names: of the dataset and its source: folders may repeat them (``BRIDGE_train_img``), and they say
            nothing.
    """
    role, split, dataset, foreign = None, None, None, False
    for part in parts:
        meaning = _read_words(part, own_names)
        dataset = meaning.dataset or dataset
        role = meaning.role or role
        split = meaning.split or split
        foreign = foreign or meaning.foreign
    return FolderMeaning(role, split, dataset, foreign and dataset is None)


def _words(name: str) -> list[str]:
    boundaries = r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
    words: list[str] = []
    for word in (fold(word) for word in re.split(boundaries, name) if word):
        glued = _GLUED.fullmatch(word)  # CRACK500's `traincrop`
        words += [glued[1], glued[2]] if glued else [word]
    return words


def _read_words(name: str, own_names: tuple[str, ...]) -> FolderMeaning:
    dataset, words = _cut_known_name(_words(name))
    roles = [_ROLE_OF_WORD[w] for w in words if w in _ROLE_OF_WORD]
    # `Lable_image` is a folder of labels: the word for ground truth tells more than the word for image.
    role = next((r for r in (Role.ROI, Role.TRUTH, Role.MASK, Role.IMAGE) if r in roles), None)
    neutral = {word for own_name in own_names for word in _words(own_name)}
    silent = _EMPTY_WORDS | neutral | _ROLE_OF_WORD.keys() | _SPLIT_OF_WORD.keys()
    split = _read_split(_cut_own_names(words, own_names), silent)
    if any(w not in silent for w in words):
        # `bridge_2023` is another dataset's; `CrackTree260_enhanced` is not CrackTree260.
        return FolderMeaning(role, split, foreign=True)
    if dataset == _STONE and role is Role.MASK:
        role = Role.ROI  # `Stone331_mask` is the stone's surface; the ground truth is `Stone331_gt`
    return FolderMeaning(role, split, dataset)


def _read_split(words: list[str], silent: frozenset[str]) -> str | None:
    """Return the split that all words of a name agree on; None if another word is there, as in `bridge_test_2023`."""
    if len(words) == 2 and words[0] in _ROLE_OF_WORD and words[1] in _SHORT_SPLITS:
        return _SHORT_SPLITS[words[1]]
    said = [_SPLIT_OF_WORD[w] for w in words if w in _SPLIT_OF_WORD]
    if not said or any(w not in silent and w not in _BESIDE_SPLIT and not w.isdecimal() for w in words):
        return None
    together = frozenset[str]().union(*(SPLITS_OF_WORD[split] for split in said))
    return next((word for word, splits in SPLITS_OF_WORD.items() if splits == together), None)


def _cut_own_names(words: list[str], own_names: tuple[str, ...]) -> list[str]:
    """Cut the dataset's own name: in ``~/train_station/train_station_img`` it says no split."""
    for own_name in own_names:
        own = _words(own_name)
        if all(w in _SPLIT_OF_WORD or w in _EMPTY_WORDS or w in _BESIDE_SPLIT for w in own):
            continue
        for first in range(len(words) - len(own) + 1):
            if words[first : first + len(own)] == own:
                return words[:first] + words[first + len(own) :]
    return words


def _cut_known_name(words: list[str]) -> tuple[str | None, list[str]]:
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            for name in KNOWN_DATASETS:
                if "".join(words[first:last]) == fold(name):
                    return name, words[:first] + words[last:]
    return None, words
