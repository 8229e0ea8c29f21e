"""Photographs and what was drawn on them in an annotation tool, paired by the names in the annotation files.

Where a source has masks, too, they count for the images on which no crack is drawn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from crackseg.data.importing.annotations.drawn import DRAWABLE_KINDS, AnnotatedImage, AnnotationFile
from crackseg.data.importing.annotations.files import FORMATS, read_annotations
from crackseg.data.importing.annotations.labels import choose_labels
from crackseg.data.importing.folder_roles import FoundFile
from crackseg.data.importing.folder_words import Role, fold, split_of_name, split_of_word
from crackseg.data.importing.index_files import IndexedPair
from crackseg.data.importing.pairing import RawDataset, RawPair, SplitClaim, pair_files
from crackseg.data.importing.shapes import Drawing, draw_shapes
from crackseg.errors import CracksegError, count_of, join_some


@dataclass(slots=True)
class Annotations:
    """Files of a source that may be from an annotation tool.

    Attributes:
        files: that say something of images.
        silent: in which nothing is drawn on any image, so that they say nothing.
        unread: that cannot be read or are of a tool that is not read, with the message.
        others: JSON and XML of no annotation tool.
    """

    files: list[AnnotationFile] = field(default_factory=list)
    silent: list[AnnotationFile] = field(default_factory=list)
    unread: dict[Path, str] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)

    def report_unused(self, dataset: RawDataset, *, allowed: bool) -> None:
        """Report what was not used: as passed over where that is allowed, else as problems."""
        messages = list(self.unread.values())
        messages += [
            f"{file.path}: nothing is drawn in it, on any of {count_of(len(file.images), 'image')}; annotate them, or "
            "give photographs without cracks a black mask"
            for file in self.silent
        ]
        if allowed:
            for message in messages:
                dataset.account.pass_over("files", f"annotation file not used, {message}")
        else:
            dataset.problems += messages
        if not dataset.pairs:
            dataset.problems += [f"{path}: not {FORMATS}" for path in self.others]


def read_annotation_files(paths: list[Path]) -> Annotations:
    """Read what may be annotation files."""
    found = Annotations()
    for path in paths:
        try:
            file = read_annotations(path)
        except CracksegError as error:
            found.unread[path] = str(error)
            continue
        if file is None:
            found.others.append(path)
        else:
            (found.silent if file.is_silent else found.files).append(file)
    return found


def pair_annotations(
    name: str,
    files: list[FoundFile],
    annotations: Annotations,
    indexed: list[IndexedPair],
    *,
    crack_labels: tuple[str, ...] | None = None,
    allow_unpaired: bool = False,
) -> RawDataset:
    """Pair photographs with their annotations, and those on which no crack is drawn with their masks.

    Args:
        name: of the dataset.
        files: of the dataset.
        annotations: of the source; all images that they tell of must be there.
        indexed: pairs of photographs and masks that index files list.
        crack_labels: which labels are cracks; None for those that say so.
        allow_unpaired: leave out photographs without annotation, and the reverse.
    """
    dataset = RawDataset(name)
    photographs = _Photographs([f for f in files if f.role in (None, Role.IMAGE)])
    taken: dict[str, tuple[FoundFile, AnnotatedImage]] = {}
    absent: list[str] = []
    conflicts: dict[tuple[Path, Path], list[str]] = defaultdict(list)
    for image in _by_split(annotations.files):
        file = photographs.find(image)
        if isinstance(file, str):
            absent.append(file)
            continue
        key = fold(file.stem)
        earlier_file, earlier = taken.setdefault(key, (file, image))
        if earlier_file.path != file.path:
            dataset.problems.append(
                f"two annotated images with the stem {file.stem!r}: {earlier_file.shown}, {file.shown}; rename one"
            )
        elif earlier is not image and not _agree(earlier, image):
            conflicts[earlier.path, image.path].append(file.shown)
    for (first, second), names in conflicts.items():
        dataset.problems.append(
            f"{first} and {second} both tell of {join_some(names)}, and differ; keep one of them"
        )
    if photographs.renamed:
        dataset.account.recognise(
            "files",
            "images of another name than their annotations say, found by the annotation file's own name or without "
            "the extension",
            photographs.renamed,
        )
    _choose_ground_truth(dataset, files, taken, annotations, indexed, crack_labels)
    if absent:
        dataset.report_left_out(
            "annotated, but not one image of that name is there", absent, allowed=allow_unpaired
        )
    _report_bare(dataset, photographs, taken, annotations, allow_unpaired=allow_unpaired)
    annotations.report_unused(dataset, allowed=allow_unpaired)
    dataset.pairs.sort(key=lambda pair: pair.stem)
    return dataset


def draw_annotations(pair: RawPair, image_size: tuple[int, int], line_width_px: float) -> Drawing:
    """Draw a photograph's annotations.

    Args:
        pair: with ``drawn``.
        image_size: width and height of the upright photograph.
        line_width_px: of lines that have no width of their own.
    Raises:
        CracksegError: they are of a photograph of another size, or a shape draws no pixel.
    """
    assert pair.drawn is not None
    size, shapes = pair.drawn
    where = f"{pair.mask_path}: {pair.image_path.name}"
    if size is not None and size != image_size:
        turned = "; turned by 90 degrees, perhaps by EXIF" if size == image_size[::-1] else ""
        raise CracksegError(
            f"{pair.mask_path}: says {size[0]} x {size[1]} pixels, but {pair.image_path.name} has {image_size[0]} x "
            f"{image_size[1]}{turned}; expected annotations of this very photograph"
        )
    drawing = draw_shapes(list(shapes), image_size, line_width_px)
    if drawing.problems:
        count = f"{len(drawing.problems)} of {count_of(len(shapes), 'shape')}: " if len(shapes) > 1 else ""
        more = f"; and {len(drawing.problems) - 3} more" if len(drawing.problems) > 3 else ""
        raise CracksegError(f"{where}: {count}{'; '.join(drawing.problems[:3])}{more}")
    return drawing


class _Photographs:
    """Photographs by the names that annotation files use for them."""

    def __init__(self, files: list[FoundFile]) -> None:
        self.files = files
        self.renamed: list[str] = []
        self._by_name: dict[str, list[FoundFile]] = defaultdict(list)
        self._by_stem: dict[str, list[FoundFile]] = defaultdict(list)
        for file in files:
            self._by_name[fold(file.path.name)].append(file)
            self._by_stem[fold(file.stem)].append(file)

    def find(self, image: AnnotatedImage) -> FoundFile | str:
        """Return the photograph of an annotated image, or why there is not one."""
        names = [PurePosixPath(name.replace("\\", "/")) for name in (image.name, image.other_name) if name]
        wanted = next((name for name in names if fold(name.name) in self._by_name), PurePosixPath(*names[:1]))
        found = self._by_name.get(fold(wanted.name), [])
        if len(found) > 1:  # of several with this name, the one next to the file, or in the folders that are named
            beside = [f for f in found if f.path.parent == (image.path.parent / wanted).parent]
            named = [f for f in found if fold(f"/{f.shown}").endswith(fold(f"/{wanted.as_posix()}"))]
            found = beside or named or found
        elif not found:
            own = [f for f in self._by_stem.get(fold(image.path.stem), []) if f.path.parent == image.path.parent]
            found = self._by_stem.get(fold(wanted.stem), []) or own
            if len(found) == 1:
                self.renamed.append(f"{found[0].shown} (in {image.path.name}: {wanted})")
        if len(found) == 1:
            return found[0]
        why = "; the file holds it embedded as imageData: save it as an image first" if image.embedded else ""
        if found:
            why = f"; there are {len(found)}: {join_some(f.shown for f in found)}"
        return f"{wanted} (in {image.path.name}{why})"


def _by_split(files: Iterable[AnnotationFile]) -> list[AnnotatedImage]:
    """All images; those of files whose name says a split first, so that of two equal ones these count."""
    ordered = sorted(files, key=lambda file: split_of_name(file.path.stem) is None)
    return [image for file in ordered for image in file.images]


def _agree(first: AnnotatedImage, second: AnnotatedImage) -> bool:
    return len(first.shapes) == len(second.shapes) and all(
        a.draws_like(b) for a, b in zip(first.shapes, second.shapes, strict=True)
    )


def _choose_ground_truth(
    dataset: RawDataset,
    files: list[FoundFile],
    taken: dict[str, tuple[FoundFile, AnnotatedImage]],
    annotations: Annotations,
    indexed: list[IndexedPair],
    crack_labels: tuple[str, ...] | None,
) -> None:
    """Add a pair for each image: with its shapes if cracks are drawn on it, else with its mask if there is one."""
    images = [image for _, image in taken.values()]
    declared = frozenset[str]().union(*(file.labels for file in annotations.files))
    try:
        labels, took, left = choose_labels(images, crack_labels, declared)
    except CracksegError as error:
        dataset.problems.append(str(error))
        labels, took, left = set(), "", ""
    if took:
        dataset.account.recognise("labels", f"taken as crack: {took}")
    if left:
        dataset.account.pass_over("labels", f"not taken as crack: {left}")
    annotated = {file.path for file, _ in taken.values()}
    masked = pair_files(
        dataset.name,
        [replace(f, role=Role.IMAGE) if f.path in annotated else f for f in files],
        indexed,
        allow_unpaired=True,
    )
    masks = {fold(pair.stem): pair for pair in masked.pairs}
    empty, unused = [], []
    kinds: Counter[str] = Counter()
    widthless: Counter[str] = Counter()
    undrawable: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, (file, image) in taken.items():
        shapes = [shape for shape in image.shapes if shape.label in labels]
        drawable = tuple(shape for shape in shapes if shape.kind in DRAWABLE_KINDS)
        for shape in shapes:
            # A tag says of the whole image what its shapes say, too.
            if shape.kind not in DRAWABLE_KINDS and not (shape.kind == "tag" and drawable):
                undrawable[shape.kind, shape.label].append(f"{file.shown} ({image.path.name}, {shape.place})")
        kinds.update(shape.kind for shape in drawable)
        no_width = [s for s in drawable if s.kind == "polyline" and not len(s.widths_px)]
        widthless.update({file.shown: len(no_width)})
        if not shapes and key in masks:
            continue
        if not shapes:
            empty.append(file.shown)
        if key in masks:
            unused.append(str(masks.pop(key).mask_path.name))
        if split := split_of_word(image.subset):
            where = f"{image.path.name} (subset {image.subset})"
            dataset.claims[file.stem] = [SplitClaim(split, "annotation files", where)]
        dataset.pairs.append(RawPair(file.stem, file.path, image.path, None, None, (image.size, drawable)))
    _report_shapes(dataset, kinds, undrawable, annotations.files)
    if widthless := +widthless:
        text = f"{count_of(widthless.total(), 'polyline')} without a width: as wide as --line-width-px says"
        dataset.account.recognise("shapes", text, widthless)
    if empty:
        dataset.account.recognise("shapes", "nothing is drawn on these images: taken as without cracks", empty)
    if unused:
        dataset.account.pass_over(
            "files", "masks of images on which cracks are drawn: the drawn ones count", unused
        )
    if masks:
        dataset.pairs += masks.values()
        dataset.problems += masked.problems
        dataset.account.recognise(
            "files", "masks used as ground truth, since no crack is drawn on their images", sorted(masks)
        )
    used = {pair.mask_path for pair in masked.pairs}
    others = [f.shown for f in files if f.role not in (None, Role.IMAGE) and f.path not in used]
    if others:
        dataset.account.pass_over("files", f"{count_of(len(others), 'mask')} next to the annotations", others)


def _report_shapes(
    dataset: RawDataset,
    kinds: Counter[str],
    undrawable: dict[tuple[str, str], list[str]],
    files: list[AnnotationFile],
) -> None:
    if kinds:
        drawn = ", ".join(count_of(kinds[kind], kind) for kind in DRAWABLE_KINDS if kinds[kind])
        dataset.account.recognise("shapes", f"{drawn} drawn as crack")
    for (kind, label), places in undrawable.items():
        dataset.problems.append(
            f"a {kind} with the label {label!r} does not say which pixels are crack; expected a polygon, a line or a "
            f"mask. Draw one, or delete it; {count_of(len(places), 'such shape')}: {join_some(places, 3)}"
        )
    remarks = sum((file.remarks for file in files), Counter[str]())
    for remark, count in sorted(remarks.items()):
        dataset.account.recognise("shapes", f"{count_of(count, 'shape')} {remark}")


def _report_bare(
    dataset: RawDataset,
    photographs: _Photographs,
    taken: dict[str, tuple[FoundFile, AnnotatedImage]],
    annotations: Annotations,
    *,
    allow_unpaired: bool,
) -> None:
    """Report photographs without ground truth, each for its own reason."""
    used = {path for pair in dataset.pairs for path in (pair.image_path, pair.mask_path)}
    bare = [f for f in photographs.files if f.path not in used]
    copies = [f for f in bare if fold(f.stem) in taken]
    unread = {(path.parent, fold(path.stem)): path for path in annotations.unread}
    spoilt = [f for f in bare if f not in copies and (f.path.parent, fold(f.stem)) in unread]
    bare = [f for f in bare if f not in copies and f not in spoilt]
    if any(file.role is Role.IMAGE for file, _ in taken.values()):
        # Pictures in other folders (a figure of a README) are no photographs of the dataset.
        strangers = [f for f in bare if f.role is None]
        bare = [f for f in bare if f.role is Role.IMAGE]
        if strangers:
            text = f"{count_of(len(strangers), 'picture')} outside the image folders"
            dataset.account.pass_over("folders", text, sorted(f.shown for f in strangers))
    for names, text in (
        ([f.shown for f in spoilt], "images whose annotation file cannot be used"),
        ([f.shown for f in copies], "images with the stem of another, annotated one"),
        ([f.shown for f in bare], "images in no annotation file"),
    ):
        if names:
            dataset.report_left_out(text, sorted(names), allowed=allow_unpaired)
