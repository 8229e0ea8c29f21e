"""Decide which labels of annotation files are cracks: those whose name says so, or the user's."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from enum import Enum

from crackseg.data.importing.annotations.drawn import AnnotatedImage
from crackseg.errors import CracksegError, count_of, join_some


class Meaning(Enum):
    """Meaning of a label's name: a crack, none, or not to be told from the name."""

    CRACK = "a crack"
    OTHER = "no crack"
    UNSURE = "may be a crack"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CRACK = _words("crack cracks cracking crackings")
# A place that is sound, or whose crack was repaired: what is drawn there is not an open crack.
_NO_CRACK = _words(
    "no non not without un none free less absent zero false fake pseudo intact sound healthy background bg "
    "seal seals sealed sealing sealer sealant repair repairs repaired repairing fill fills filled filler filling "
    "patch patches patched patching treated treatment healed closed grouted injected restored fixed mended"
)
# Words that say which crack it is, and leave it a crack.
_QUALIFIERS = _words(
    "a an the fine thin thick wide narrow large small big short long deep shallow hair hairline micro macro main minor "
    "major medium moderate severe low high light heavy slight severity level grade class type category width open "
    "active dormant visible surface structural nonstructural longitudinal transverse transversal lateral diagonal "
    "oblique inclined horizontal vertical linear alligator crocodile fatigue block map mapping edge joint reflection "
    "reflective thermal shrinkage plastic settlement shear flexural bending tensile corner slippage wheel wheelpath "
    "path branch branched branching network web spider mesh grid complex simple single multiple multi irregular "
    "craze concrete asphalt pavement road bridge wall masonry brick stone steel tile tunnel deck slab dam facade "
    "building label object defect damage distress region area pixel pixels line segment instance real true"
)
# Other languages, words that are wider than crack, RDD2020's codes: never taken, never left out by themselves.
_ASK = _words(
    "riss risse haarriss haarrisse fissure fissures fissura fissuras fisura fisuras trinca trincas rachadura "
    "rachaduras grieta grietas crepa crepe scheur scheuren barst spricka sprickor revne trhlina pekniecie rysa "
    "fracture fractures d00 d01 d10 d11 d20"
)
_CRACK_ELSEWHERE = _words("裂缝 裂縫 裂纹 裂紋 龟裂 ひび クラック 균열 трещин тріщин ρωγμ شرخ تشقق")
_NO_ELSEWHERE = _words("无 無 非 没 なし 없 без 修补 修補 修复 灌缝 封闭 补")
_NO_PREFIXES = ("uncrack", "noncrack", "nocrack", "notcrack")
_NO_SUFFIXES = ("los", "lose", "frei", "freie", "free", "less")
_BOUNDARIES = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def judge_label(label: str) -> Meaning:
    """Judge a label by its name: ``crack_fine`` is a crack, ``sealed crack`` is not, ``crack shadow`` may be one.

    Names in other languages than English, and codes such as RDD2020's ``D00``, are never taken by themselves.
    """
    text = unicodedata.normalize("NFKC", label)
    words = [word.lower() for word in _BOUNDARIES.split(text) if word]
    if any(crack in text.lower() for crack in _CRACK_ELSEWHERE):
        return Meaning.OTHER if any(no in text.lower() for no in _NO_ELSEWHERE) else Meaning.UNSURE
    plain = ["".join(c for c in unicodedata.normalize("NFKD", w) if c.isascii()) for w in words]
    if any(_is_negated(word) for word in plain):
        return Meaning.OTHER
    if not any("crack" in word for word in plain):
        return Meaning.UNSURE if _ASK & set(plain) else Meaning.OTHER
    rest: list[str] = []
    for word in plain:
        if word in _CRACK:
            continue
        # Written as one word: `hairlinecrack`, `crack2`, `finecracks`.
        inner = re.fullmatch(r"([a-z]*?)(?:cracking|cracks|crack)([a-z]*)\d*", word)
        rest += [part for part in inner.groups() if part] if inner else [word]
    if any(word in _NO_CRACK for word in rest):
        return Meaning.OTHER
    known = all(word in _QUALIFIERS or len(word) == 1 or re.fullmatch(r"[a-z]?\d+[a-z]*", word) for word in rest)
    return Meaning.CRACK if known else Meaning.UNSURE


def choose_labels(
    images: Iterable[AnnotatedImage], crack_labels: Collection[str] | None, declared: Collection[str] = ()
) -> tuple[set[str], str, str]:
    """Decide which labels are cracks.

    Args:
        images: with everything that was drawn.
        crack_labels: the user's; None for those whose name says so.
        declared: labels that the files declare, drawn or not.
    Returns:
        The labels; those taken and those left out, each with its number of shapes, for the account of the import
        (empty if there are none).
    Raises:
        CracksegError: no label is a crack, one may or may not be, or one that was asked for is nowhere.
    """
    seen = Counter(shape.label for image in images for shape in image.shapes)
    if crack_labels:
        chosen = set(crack_labels)
        missing = sorted(chosen - seen.keys() - set(declared))
        if missing and seen:
            raise CracksegError(
                f"no shape has the label {_name_nearest(missing, seen)}; labels seen: {_count(seen)}"
            )
    else:
        chosen = {label for label in seen if judge_label(label) is Meaning.CRACK}
        unsure = {label: n for label, n in seen.items() if judge_label(label) is Meaning.UNSURE}
        if unsure and chosen:
            raise CracksegError(
                f"a label that may or may not be a crack: {_count(unsure)}. Say which labels are cracks: "
                f"{_as_options(chosen)}, and {_as_options(unsure)} if that is one, too"
            )
        if seen and not chosen:
            likely = sorted(unsure) or [label for label, _ in seen.most_common()]
            raise CracksegError(
                f"no label says crack: {_count(seen)}. Which are cracks? Say it, e.g. {_as_options(likely[:1])} "
                "(repeat it for more than one)"
            )
    taken = {label: n for label, n in seen.items() if label in chosen}
    others = {label: n for label, n in seen.items() if label not in chosen}
    return chosen, _count(taken), _count(others)


def _is_negated(word: str) -> bool:
    if word.startswith(_NO_PREFIXES):
        return True
    return any(word.endswith(s) and word.removesuffix(s) in (_CRACK | _ASK) for s in _NO_SUFFIXES)


def _name_nearest(missing: list[str], seen: Collection[str]) -> str:
    by_folded = {label.casefold(): label for label in sorted(seen)}
    named = []
    for label in missing:
        near = difflib.get_close_matches(label.casefold(), by_folded, n=1, cutoff=0.5)
        named.append(f"{label} (the nearest is {by_folded[near[0]]})" if near else label)
    return join_some(named)


def _count(labels: dict[str, int]) -> str:
    return join_some(
        (f"{label} ({count_of(n, 'shape')})" for label, n in sorted(labels.items(), key=lambda i: (-i[1], i[0]))),
        limit=20,
    )


def _as_options(labels: Iterable[str]) -> str:
    return " ".join(f"--crack-label {json.dumps(label, ensure_ascii=False)}" for label in sorted(labels))
