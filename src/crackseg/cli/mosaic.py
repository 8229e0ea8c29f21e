"""`crackseg mosaic`: find the cracks of an orthomosaic, with their places on earth."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.model_option import load_chosen_model, model_option, threshold_option
from crackseg.cli.output import warn
from crackseg.cli.project import Project, with_project
from crackseg.cli.scale_options import surface_option
from crackseg.errors import CracksegError
from crackseg.types import Surface


def _parse_bands(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}; expected numbers of bands, e.g. 3,2,1") from error


@click.command()
@click.argument("path", metavar="MOSAIC", type=click.Path(path_type=Path))
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@click.option("--bands", callback=_parse_bands, help="Bands for red, green and blue, or one grey band: 3,2,1.")
@click.option("--mm-per-px", type=float, help="Millimetres per pixel, for a mosaic without CRS.")
@click.option(
    "--scale-error-pct",
    type=click.FloatRange(0, 100, max_open=True),
    default=0.0,
    help="Standard uncertainty of the ground sample distance, in percent.",
)
@surface_option
@click.option(
    "--min-length-px", type=click.FloatRange(0), default=10.0, show_default=True, help="Leave out shorter cracks."
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
    scale_error_pct: float,
    surface: Surface | None,
    min_length_px: float,
    uri: str | None,
    threshold: float | None,
    maps: bool,
) -> None:
    """Find the cracks of an orthomosaic of any size: a GeoTIFF, or another raster with places on earth.

    Writes NAME_mask.tif (cloud-optimised GeoTIFF of the same CRS), NAME.gpkg (the mosaic's CRS), NAME.geojson (WGS 84)
    and NAME.csv: each crack with its lines, lengths and widths in mm on the ground, kind, class and score.
    Needs the extra [geo].

    \b
    crackseg mosaic deck.tif --out found --surface pavement
    """
    from crackseg.data.catalog import warn_of_source
    from crackseg.geometry.scale import Scale, choose_scale
    from crackseg.geometry.severity import make_grading
    from crackseg.inspection.mosaic_files import inspect_mosaic
    from crackseg.inspection.mosaic_reading import Mosaic

    given = choose_scale(mm_per_px)
    scale = None if given is None else Scale(given.mm_per_px, scale_error_pct / 100)
    grading = make_grading(project.measure_params, surface)
    raster = Mosaic(path, bands)
    if out_dir.resolve() == path.resolve().parent:
        raise CracksegError(f"--out {out_dir} is the folder of the mosaic itself; choose another")
    model = load_chosen_model(project, uri)
    settings = model.analyzer.settings
    summary = inspect_mosaic(
        raster,
        model.analyzer,
        out_dir,
        threshold=settings.operating_threshold if threshold is None else threshold,
        grading=grading,
        scale=scale,
        scale_error=scale_error_pct / 100,
        min_length_px=min_length_px,
        maps=maps,
    )
    raster.close()
    for remark in summary.remarks:
        click.echo(f"note: {remark}", err=True)
    length = f"{summary.length / 1000:,.2f} m" if summary.unit == "mm" else f"{summary.length:,.0f} px"
    click.echo(
        f"{summary.num_cracks} cracks, {length} together; {summary.data_fraction:.0%} of the mosaic has data\n"
        f"model: {model.uri}\n{', '.join(map(str, summary.files))}"
    )
    warn(warn_of_source(settings.data_source))
