"""Orthomosaics among photographs: told apart, and inspected one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crackseg.data.image_files import MOSAICS, Photograph
from crackseg.errors import CracksegError, count_of
from crackseg.inference.detector import CrackAnalyzer
from crackseg.inspection.mosaic_detection import is_mosaic
from crackseg.inspection.mosaic_files import MosaicSummary, inspect_mosaic
from crackseg.inspection.mosaic_reading import NEEDS, Mosaic, can_read_mosaics

Say = Callable[[str], Any]


@dataclass(slots=True)
class MosaicResults:
    """Results of the mosaics among photographs, and the error of each that was left out, with its path."""

    summaries: list[MosaicSummary] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def split_mosaics(found: Sequence[Photograph], say: Say) -> tuple[list[Photograph], list[Photograph]]:
    """Return photographs, and mosaics; without the libraries of mosaics, they are photographs, which is said."""
    mosaics = [each for each in found if is_mosaic(each.path)]
    if mosaics and not can_read_mosaics():
        say(f"note: {count_of(len(mosaics), 'mosaic')} read as plain photographs: {NEEDS}")
        mosaics = []
    paths = {each.path for each in mosaics}
    return [each for each in found if each.path not in paths], mosaics


def inspect_mosaics(
    mosaics: Sequence[Photograph],
    analyzer: CrackAnalyzer,
    out_dir: Path,
    *,
    alone: bool,
    bands: tuple[int, ...] | None,
    say: Say,
    **options: Any,
) -> MosaicResults:
    """Find the cracks of mosaics one after the other; one that cannot be read is left out, which is said.

    Args:
        mosaics: from :func:`split_mosaics`.
        analyzer: the model.
        out_dir: of the results; those of mosaics go into ``mosaics``.
        alone: there are no photographs; an error is raised if no mosaic has a result.
        bands: see :class:`crackseg.inspection.mosaic_reading.Mosaic`.
        say: told what is left out.
        options: of :func:`crackseg.inspection.mosaic_files.inspect_mosaic`.
    """
    results = MosaicResults()
    for each in mosaics:
        place = out_dir / MOSAICS / each.name
        try:
            with Mosaic(each.path, bands) as raster:
                results.summaries.append(
                    inspect_mosaic(raster, analyzer, place.parent, name=place.name, **options)
                )
        except CracksegError as error:
            results.failed.append(" ".join(str(error).split()))
            if alone and len(results.failed) == len(mosaics):
                raise
            say(f"left out: {results.failed[-1]}")
    return results


def describe_mosaic(summary: MosaicSummary) -> str:
    """Describe a result in two or more lines: cracks and length, how the mosaic was read, files."""
    length = f"{summary.length / 1000:,.2f} m" if summary.unit == "mm" else f"{summary.length:,.0f} px"
    lines = [
        f"{summary.name}: {count_of(summary.num_cracks, 'crack')}, {length} together; "
        f"{summary.data_fraction:.0%} of the mosaic has data{', kept from before' if summary.kept else ''}",
        *(f"note: {remark}" for remark in summary.remarks),
        ", ".join(summary.files),
    ]
    return "\n".join(lines)
