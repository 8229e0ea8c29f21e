"""`crackseg mosaic`: find the cracks in an orthomosaic."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.model_option import load_chosen_model, model_option, threshold_option
from crackseg.cli.output import warn
from crackseg.cli.project import Project, with_project
from crackseg.cli.scale_options import scale_error_option, surface_option
from crackseg.errors import CracksegError
from crackseg.inspection.least_lengths import MIN_CRACK_PX
from crackseg.types import Surface


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
    type=FiniteRange(0),
    default=MIN_CRACK_PX,
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
    from crackseg.geometry.scale import choose_scale
    from crackseg.geometry.severity import make_grading
    from crackseg.inspection.mosaic_files import inspect_mosaic
    from crackseg.inspection.mosaic_reading import Mosaic
    from crackseg.inspection.mosaics import describe_mosaic

    if out_dir.resolve() == path.resolve().parent:
        raise CracksegError(f"--out {out_dir} is the folder of the mosaic itself; choose another")
    grading = make_grading(project.measure_params, surface)
    scale = None if mm_per_px is None else choose_scale(mm_per_px, error_pct=scale_error_pct)
    with Mosaic(path, bands) as raster:  # before a model is loaded
        model = load_chosen_model(project, uri)
        summary = inspect_mosaic(
            raster, model.analyzer, out_dir, name=path.stem, model=model.digest, threshold=threshold, grading=grading,
            scale=scale, scale_error=(scale_error_pct or 0.0) / 100, min_length_px=min_length_px, maps=maps,
        )  # fmt: skip
    click.echo(f"{describe_mosaic(summary)}\nmodel: {model.uri}")
    warn(warn_of_source(model.analyzer.settings.data_source))
