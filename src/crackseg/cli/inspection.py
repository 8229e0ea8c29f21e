"""`crackseg inspection-report`, a report to hand over, and `crackseg growth` between two visits."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.model_option import load_chosen_model, model_option, threshold_option
from crackseg.cli.output import elapsed_s, warn
from crackseg.cli.project import Project, with_project
from crackseg.cli.scale_options import scale_options, surface_option
from crackseg.inspection.least_lengths import MIN_GROWTH_PX
from crackseg.types import Surface

_OWN_SCALE = "an orthomosaic, with a scale of its own; `crackseg predict` and `crackseg mosaic` measure it"


@click.command("inspection-report")
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@scale_options()
@surface_option
@model_option
@threshold_option
@click.option("--title", default="Crack inspection", show_default=True, help="Title of the report.")
@click.option(
    "--pictures",
    "num_pictures",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Number of photographs shown, the worst ones.",
)
@click.option("--xlsx/--no-xlsx", "xlsx", default=None, help="Spreadsheet. [default: where openpyxl is installed]")
@with_project
def inspection_report(
    project: Project,
    paths: tuple[str, ...],
    out_dir: Path,
    mm_per_px: float | None,
    points: str | None,
    scale_error_pct: float | None,
    surface: Surface | None,
    uri: str | None,
    threshold: float | None,
    title: str,
    num_pictures: int,
    xlsx: bool | None,
) -> None:
    """Write the report of an inspection: one HTML file that prints well, with tables beside it.

    Finds and measures the cracks of photographs as `crackseg predict --measure` does, into the folder --out, and
    keeps what an earlier run found. Then writes report.html, report.xlsx, photographs.csv, and photographs.geojson
    if the photographs have GPS positions. The same command resumes an interrupted run.
    Ends with 3 if a photograph was left out; the report names it.

    \b
    crackseg inspection-report ~/bridge7 --out report7 --mm-per-px 0.25
    crackseg inspection-report road --out report --mm-per-px 2 --surface pavement --title "Road 7, km 3 to 4"
    """
    import datetime
    from functools import partial

    from crackseg import __version__
    from crackseg.data.catalog import warn_of_source
    from crackseg.data.image_files import find_photographs
    from crackseg.errors import CracksegError
    from crackseg.geometry.report import NO_CLASS
    from crackseg.geometry.scale import choose_scale
    from crackseg.geometry.severity import make_grading
    from crackseg.inference.drift import compare, count_reference, warn_of_drift, warn_of_reference
    from crackseg.inference.files import describe_summary, measure_masks, predict_files
    from crackseg.inspection.mosaics import split_mosaics
    from crackseg.inspection.page import Circumstances
    from crackseg.inspection.report import write_report
    from crackseg.inspection.workbook import NEEDS, can_write_workbook

    if xlsx and not can_write_workbook():
        raise CracksegError(NEEDS)  # before hours of predicting
    scale = choose_scale(mm_per_px, points, scale_error_pct)
    grading = make_grading(project.measure_params, surface)
    photographs, mosaics = split_mosaics(find_photographs(paths, out_dir), partial(click.echo, err=True))
    for mosaic in mosaics:
        click.echo(f"left out: {mosaic.path}: {_OWN_SCALE}", err=True)
    if not photographs:
        raise CracksegError(f"{' '.join(paths)}: no photograph, only orthomosaics")
    model = load_chosen_model(project, uri)
    settings = model.analyzer.settings
    summary, figures = predict_files(
        model.analyzer, photographs, out_dir, model=model.digest, threshold=threshold, overlays=False
    )
    measured = measure_masks(photographs, out_dir, scale=scale, grading=grading)
    must_not = warn_of_source(settings.data_source)
    said = [
        must_not,
        warn_of_drift(compare(settings.reference, figures)),
        warn_of_reference(count_reference(settings.reference)),
    ]
    own = settings.operating_threshold
    made = Circumstances(
        title=title,
        day=datetime.date.today().isoformat(),
        source=" ".join(paths),
        model=model.uri,
        digest=model.digest,
        trained_on=f"{settings.dataset} ({settings.data_source} data)",
        threshold=own if threshold is None else threshold,
        own_threshold=threshold in (None, own),
        scale=scale,
        grading=grading,
        program=f"crackseg {__version__}",
        warnings=tuple(filter(None, said)),
    )
    written = write_report(
        photographs,
        out_dir,
        made,
        failed=measured.failed,
        num_pictures=num_pictures,
        with_workbook=can_write_workbook() if xlsx is None else xlsx,
    )
    click.echo(describe_summary(summary, out_dir, elapsed_s()))
    click.echo(f"model: {model.uri}")
    click.echo(f"report of {written.num_photographs} photographs: {', '.join(map(str, written.files))}")
    if written.num_left_out:
        click.echo(f"left out, with the reasons in the report: {written.num_left_out}", err=True)
    if scale is None:
        click.echo(f"note: {NO_CLASS}", err=True)
    if xlsx is None and not can_write_workbook():
        click.echo(f"note: no spreadsheet: {NEEDS}", err=True)
    warn(must_not)
    sys.exit(3 if written.num_left_out or mosaics else 0)


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@scale_options("earlier photographs")
@model_option
@click.option("--threshold", type=FiniteRange(0, 1, min_open=True), help="Instead of the model's own.")
@click.option(
    "--min-growth-px",
    type=FiniteRange(1),
    default=MIN_GROWTH_PX,
    show_default=True,
    help="Shorter stretches do not count.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@with_project
def growth(
    project: Project,
    before: Path,
    after: Path,
    out_dir: Path,
    mm_per_px: float | None,
    points: str | None,
    scale_error_pct: float | None,
    uri: str | None,
    threshold: float | None,
    min_growth_px: float,
    as_json: bool,
) -> None:
    """Compare the cracks of two visits: two photographs, or two folders whose photographs have the same names.

    Registers each later photograph onto the earlier one, and says which cracks are new, longer, wider or no longer
    found, each with its uncertainty: growth.csv, growth.json, and a picture of each pair in pictures.
    The same command resumes an interrupted run. Ends with 3 if a pair could not be compared, or a photograph has no
    partner.

    \b
    crackseg growth 2024/pier3.jpg 2026/pier3.jpg --out growth3 --mm-per-px 0.25
    crackseg growth 2024 2026 --out growth
    """

    from crackseg.data.catalog import warn_of_source
    from crackseg.errors import join_some
    from crackseg.geometry.scale import choose_scale
    from crackseg.inspection.growth_pairs import SUMMARY, TABLE, GrowthOptions, compare_pairs, find_pairs

    scale = choose_scale(mm_per_px, points, scale_error_pct)
    found = find_pairs(before, after, out_dir)
    model = load_chosen_model(project, uri)
    settings = model.analyzer.settings
    chosen = settings.operating_threshold if threshold is None else threshold
    options = GrowthOptions(model.digest, chosen, scale, min_growth_px)
    summary = compare_pairs(found.pairs, model.analyzer, out_dir, options)
    if as_json:
        click.echo((out_dir / SUMMARY).read_text(encoding="utf-8"), nl=False)
    else:
        kept = f", {summary.num_kept} of them kept from before" if summary.num_kept else ""
        compared = len(found.pairs) - len(summary.refused)
        pictures = f", with pictures in {out_dir / 'pictures'}" if compared else ""
        click.echo(
            f"{compared} of {len(found.pairs)} pairs compared{kept}; {summary.num_changed} with changes: "
            f"{out_dir / TABLE}{pictures}\nmodel: {model.uri}"
        )
    for message in summary.refused:
        click.echo(f"refused: {message}", err=True)
    for folder, names in ((before, found.only_before), (after, found.only_after)):
        if names:
            click.echo(f"without a partner in {folder}: {len(names)}: {join_some(names)}", err=True)
    warn(warn_of_source(settings.data_source))
    sys.exit(3 if summary.refused or found.only_before or found.only_after else 0)
