"""Photographs and what was drawn on them in an annotation tool, paired by the names in the annotation files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

from crackseg.data.annotations import (
    FORMATS,
    AnnotatedImage,
    choose_shapes,
    read_annotations,
)
from crackseg.data.folder_words import Role, fold
from crackseg.data.layouts import FoundFile
from crackseg.data.pairing import RawDataset, RawPair
from crackseg.data.wording import count_of
from crackseg.errors import CracksegError


def read_annotation_files(paths: list[Path]) -> tuple[list[AnnotatedImage], list[str], list[str]]:
    """Read what may be annotation files: the images they tell of, those in no known form, and problems."""
    images: list[AnnotatedImage] = []
    unknown, problems = [], []
    for path in paths:
        try:
            found = read_annotations(path)
        except CracksegError as error:
            problems.append(str(error))
            continue
        if found is None:
            unknown.append(f"{path}: not {FORMATS}")
        else:
            images += found
    return images, unknown, problems


def pair_annotations(
    name: str,
    files: list[FoundFile],
    images: list[AnnotatedImage],
    *,
    crack_labels: tuple[str, ...] | None = None,
    allow_unpaired: bool = False,
) -> RawDataset:
    """Pair photographs with their annotations; masks in the source are not used.

    Args:
        files: of the dataset.
        images: that the annotation files tell of; all of them must be there.
        crack_labels: which labels are cracks; None for those that say so.
        allow_unpaired: leave out photographs without annotation, and the reverse.
    """
    dataset = RawDataset(name)
    photographs = [f for f in files if f.role in (None, Role.IMAGE)]
    by_name: dict[str, list[FoundFile]] = defaultdict(list)
    for file in photographs:
        by_name[fold(file.path.name)].append(file)
    labels, problems, notes = choose_shapes(images, crack_labels)
    dataset.problems += problems
    for note in notes:
        dataset.account.pass_over("labels", note)
    taken: dict[str, AnnotatedImage] = {}
    absent = []
    for image in images:
        wanted = PurePosixPath(image.name.replace("\\", "/"))
        found = by_name.get(fold(wanted.name), [])
        if len(found) > 1:  # of several with this name, the one whose folders are named, too
            found = [f for f in found if fold(f"/{f.shown}").endswith(fold(f"/{wanted.as_posix()}"))]
        if len(found) != 1:
            absent.append(f"{wanted} (in {image.path.name})")
            continue
        (file,) = found
        earlier = taken.setdefault(fold(file.stem), image)
        if earlier is not image:
            dataset.problems.append(f"{earlier.path} and {image.path} both tell of an image {file.stem}; keep one")
            continue
        shapes = tuple(shape for shape in image.shapes if shape.label in labels)
        dataset.pairs.append(RawPair(file.stem, file.path, image.path, None, None, (image.size, shapes)))
    if absent:
        dataset.report_left_out(
            "annotated, but not one image of that name is there", absent, allowed=allow_unpaired
        )
    bare = sorted(f.shown for f in photographs if fold(f.stem) not in taken)
    if bare:
        dataset.report_left_out("images in no annotation file", bare, allowed=allow_unpaired)
    unused = [f.shown for f in files if f not in photographs]
    if unused:
        dataset.account.pass_over("files", f"{count_of(len(unused), 'mask')} next to the annotations", unused)
    dataset.pairs.sort(key=lambda pair: pair.stem)
    return dataset
