"""`crackseg measure`: length, width, direction, kind and class of each crack."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crackseg.cli.crack_value import crack_value_option
from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.output import warn
from crackseg.cli.project import Project, with_project
from crackseg.cli.scale_options import scale_options, surface_option
from crackseg.errors import CracksegError
from crackseg.types import Surface


@click.command()
@click.argument("masks", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@scale_options()
@surface_option
@click.option(
    "--out", "out_dir", type=click.Path(file_okay=False, path_type=Path), help="Folder for tables, pictures."
)
@click.option(
    "--photographs",
    type=click.Path(path_type=Path),
    help="Folder of the photographs, as backgrounds of the pictures.",
)
@click.option("--min-length-px", type=FiniteRange(0), default=0.0, help="Leave out shorter cracks.")
@crack_value_option
@with_project
def measure(
    project: Project,
    masks: tuple[str, ...],
    as_json: bool,
    mm_per_px: float | None,
    points: str | None,
    scale_error_pct: float | None,
    surface: Surface | None,
    out_dir: Path | None,
    photographs: Path | None,
    min_length_px: float,
    crack_values: tuple[int | str, ...],
) -> None:
    """Measure the cracks of MASKS: files, folders (with subfolders) and "quoted*globs".

    \b
    crackseg measure found/masks --mm-per-px 0.25 --out measured
    crackseg measure found/masks/bridge.png --scale 120,80,620,80,500 --json

    With a scale each crack has a width class (measure in params.yaml); without one, only its kind.
    Ends with 3 if a mask could not be read; all others are measured.
    """
    import json

    from crackseg.data.image_files import find_photographs
    from crackseg.geometry.files import (
        MeasureOptions,
        find_beside,
        judge_masks,
        measure_files,
        read_reports,
        report_each,
    )
    from crackseg.geometry.report import NO_CLASS, to_text
    from crackseg.geometry.scale import choose_scale
    from crackseg.geometry.severity import make_grading
    from crackseg.inference.table import find_warnings

    scale = choose_scale(mm_per_px, points, scale_error_pct)
    options = MeasureOptions(
        scale, min_length_px, crack_values or None, make_grading(project.measure_params, surface)
    )
    if photographs is not None and out_dir is None:
        raise CracksegError("--photographs needs --out: it is for the backgrounds of the annotated pictures")
    found = find_photographs(masks, out_dir, also=(".mat",))
    warnings = find_warnings(mask.path for mask in found)
    read = judge_masks(found, options)
    failed: list[str] = []
    if out_dir is None:
        reports = report_each(found, options, failed, warnings, read)
    else:
        find = find_beside(photographs) if photographs is not None else lambda mask: None
        summary = measure_files(found, out_dir, options, find_photograph=find, warnings=warnings, read=read)
        failed += summary.failed
        reports = read_reports(found, out_dir)
    if as_json:
        separator = "["
        for report in reports:  # one at a time: thousands of masks do not fit in memory
            click.echo(separator + json.dumps(report, indent=1))
            separator = ","
        click.echo("[]" if separator == "[" else "]")
    else:
        for report in reports:
            click.echo(to_text(report))
        if out_dir is not None:
            click.echo(f"tables, lines and pictures: {out_dir}")
        if scale is None:
            click.echo(f"note: {NO_CLASS}", err=True)
    if first := next(iter(warnings.values()), ""):
        warn(f"{len(warnings)} of {len(found)} masks carry a warning of `crackseg predict`: {first}")
    if out_dir is None:
        for message in failed:
            click.echo(f"left out: {message}", err=True)
    if len(failed) == len(found):
        click.echo(
            "note: photographs are measured by `crackseg predict … --measure`, which marks the cracks", err=True
        )
    sys.exit(3 if failed else 0)
