"""`crackseg mosaic`, and orthomosaics among the photographs of `crackseg predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crackseg.cli.model_option import load_chosen_model, model_option, threshold_option
from crackseg.cli.output import warn
from crackseg.cli.project import Project, with_project
from crackseg.cli.scale_options import scale_error_option, surface_option
from crackseg.errors import CracksegError, count_of
from crackseg.types import Surface

if TYPE_CHECKING:
    from crackseg.data.image_files import Photograph
    from crackseg.geometry.severity import Grading
    from crackseg.inspection.mosaic_files import MosaicSummary
    from crackseg.inspection.mosaic_reading import Mosaic
    from crackseg.registry.loading import LoadedModel

MIN_LENGTH_PX = 10.0


def _parse_bands(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}; expected numbers of bands, e.g. 3,2,1") from error


bands_option = click.option(
    "--bands", callback=_parse_bands, help="Bands of a mosaic for red, green and blue, or one grey band: 3,2,1."
)


@click.command()
@click.argument("path", metavar="MOSAIC", type=click.Path(path_type=Path))
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@bands_option
@click.option("--mm-per-px", type=float, help="Millimetres per pixel, for a mosaic without CRS.")
@scale_error_option
@surface_option
@click.option(
    "--min-length-px",
    type=click.FloatRange(0),
    default=MIN_LENGTH_PX,
    show_default=True,
    help="Leave out shorter cracks.",
)
@model_option
@threshold_option
@click.option("--maps", is_flag=True, help="Write the probabilities, too.")
@with_project
def mosaic(
    project: Project,
    path: Path,
    out_dir: Path,
    bands: tuple[int, ...] | None,
    mm_per_px: float | None,
    scale_error_pct: float | None,
    surface: Surface | None,
    min_length_px: float,
    uri: str | None,
    threshold: float | None,
    maps: bool,
) -> None:
    """Find the cracks of an orthomosaic of any size: a GeoTIFF, or another raster with places on earth.

    Writes NAME_mask.tif (cloud-optimised GeoTIFF of the same CRS), NAME.gpkg (the mosaic's CRS), NAME.geojson (WGS 84)
    and NAME.csv: each crack with its lines, lengths and widths in mm on the ground, kind, class and score.
    `crackseg predict` does the same with each GeoTIFF among its photographs. The same command resumes an interrupted
    run. Needs the extra [geo].

    \b
    crackseg mosaic deck.tif --out found --surface pavement
    """
    from crackseg.data.catalog import warn_of_source
    from crackseg.geometry.severity import make_grading
    from crackseg.inspection.mosaic_reading import Mosaic

    if out_dir.resolve() == path.resolve().parent:
        raise CracksegError(f"--out {out_dir} is the folder of the mosaic itself; choose another")
    grading = make_grading(project.measure_params, surface)
    with Mosaic(path, bands) as raster:  # before a model is loaded
        model = load_chosen_model(project, uri)
        summary = find_cracks(
            raster, path.stem, model, out_dir, threshold=threshold, grading=grading, mm_per_px=mm_per_px,
            scale_error_pct=scale_error_pct, min_length_px=min_length_px, maps=maps,
        )  # fmt: skip
    click.echo(f"{describe_mosaic(summary)}\nmodel: {model.uri}")
    warn(warn_of_source(model.analyzer.settings.data_source))


@dataclass(slots=True)
class MosaicResults:
    """Results of the mosaics among photographs, and the error of each that was left out, with its path."""

    summaries: list[MosaicSummary] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def split_mosaics(found: Sequence[Photograph]) -> tuple[list[Photograph], list[Photograph]]:
    """Return photographs, and mosaics; without the libraries of mosaics, they are photographs, which is said."""
    from crackseg.inspection.mosaic_detection import is_mosaic
    from crackseg.inspection.mosaic_reading import NEEDS, can_read_mosaics

    mosaics = [each for each in found if is_mosaic(each.path)]
    if mosaics and not can_read_mosaics():
        click.echo(f"note: {count_of(len(mosaics), 'mosaic')} read as plain photographs: {NEEDS}", err=True)
        mosaics = []
    paths = {each.path for each in mosaics}
    return [each for each in found if each.path not in paths], mosaics


def inspect_mosaics(
    mosaics: Sequence[Photograph],
    model: LoadedModel,
    out_dir: Path,
    *,
    alone: bool,
    bands: tuple[int, ...] | None,
    **options: Any,
) -> MosaicResults:
    """Find the cracks of mosaics one after the other; one that cannot be read is left out, which is said.

    Args:
        mosaics: from :func:`split_mosaics`.
        out_dir: of the results; those of mosaics go into ``mosaics``.
        alone: there are no photographs; an error is raised if no mosaic has a result.
        options: of :func:`find_cracks`.
    """
    from crackseg.data.image_files import MOSAICS
    from crackseg.inspection.mosaic_reading import Mosaic

    results = MosaicResults()
    for each in mosaics:
        place = out_dir / MOSAICS / each.name
        try:
            with Mosaic(each.path, bands) as raster:
                results.summaries.append(find_cracks(raster, place.name, model, place.parent, **options))
        except CracksegError as error:
            results.failed.append(" ".join(str(error).split()))
            if alone and len(results.failed) == len(mosaics):
                raise
            click.echo(f"left out: {results.failed[-1]}", err=True)
    return results


def find_cracks(
    raster: Mosaic,
    name: str,
    model: LoadedModel,
    out_dir: Path,
    *,
    threshold: float | None,
    grading: Grading,
    mm_per_px: float | None,
    scale_error_pct: float | None,
    min_length_px: float = MIN_LENGTH_PX,
    maps: bool,
) -> MosaicSummary:
    """Find the cracks of a mosaic and write them; arguments as the options of the commands.

    Raises:
        CracksegError: see :func:`crackseg.inspection.mosaic_files.inspect_mosaic`.
    """
    from crackseg.geometry.scale import choose_scale
    from crackseg.inspection.mosaic_files import inspect_mosaic

    error_pct = scale_error_pct or 0.0
    settings = model.analyzer.settings
    return inspect_mosaic(
        raster,
        model.analyzer,
        out_dir,
        name=name,
        model=model.digest,
        threshold=settings.operating_threshold if threshold is None else threshold,
        grading=grading,
        scale=None if mm_per_px is None else choose_scale(mm_per_px, error_pct=error_pct),
        scale_error=error_pct / 100,
        min_length_px=min_length_px,
        maps=maps,
    )


def describe_mosaic(summary: MosaicSummary) -> str:
    """Describe the result in two or more lines: cracks and length, files, how the mosaic was read."""
    length = f"{summary.length / 1000:,.2f} m" if summary.unit == "mm" else f"{summary.length:,.0f} px"
    lines = [
        f"{summary.name}: {count_of(summary.num_cracks, 'crack')}, {length} together; "
        f"{summary.data_fraction:.0%} of the mosaic has data{', kept from before' if summary.kept else ''}",
        *(f"note: {remark}" for remark in summary.remarks),
        ", ".join(summary.files),
    ]
    return "\n".join(lines)
