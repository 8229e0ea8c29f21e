"""`crackseg predict`: find the cracks in photographs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crackseg.cli.model_option import flips_option, load_chosen_model, model_option, threshold_option
from crackseg.cli.mosaic import bands_option
from crackseg.cli.output import elapsed_s, warn
from crackseg.cli.project import Project, with_project
from crackseg.cli.scale_options import scale_error_option, surface_option
from crackseg.errors import CracksegError
from crackseg.types import Surface


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@model_option
@threshold_option
@flips_option
@click.option(
    "--overlays/--no-overlays", default=True, show_default=True, help="Draw the cracks on the photographs."
)
@click.option("--maps", is_flag=True, help="Write the probabilities, too: 16-bit PNG, for `crackseg score`.")
@click.option("--measure", is_flag=True, help="Measure each crack: measurements, polylines, annotated pictures.")
@click.option("--mm-per-px", type=float, help="Millimetres per pixel, for --measure and mosaics without CRS.")
@scale_error_option
@surface_option
@bands_option
@click.option("--report-drift", is_flag=True, help="Record the comparison with the training data in MLflow.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@with_project
def predict(
    project: Project,
    paths: tuple[str, ...],
    out_dir: Path,
    uri: str | None,
    threshold: float | None,
    flips: bool | None,
    overlays: bool,
    maps: bool,
    measure: bool,
    mm_per_px: float | None,
    scale_error_pct: float | None,
    surface: Surface | None,
    bands: tuple[int, ...] | None,
    report_drift: bool,
    as_json: bool,
) -> None:
    """Find the cracks in photographs: files, folders (with subfolders) and "quoted*globs".

    Without a version in production, the model that crackseg ships is used (docs/shipped-model.md).

    Writes masks, overlays and predictions.csv into the folder --out; with --measure also the length and width
    of each crack, with --maps the probabilities. The same command resumes an interrupted run.
    Orthomosaics (GeoTIFF, or a TIFF over 250 megapixels) are read in rows of tiles, at any size: their cracks are
    written into mosaics with places and lengths on earth (docs/inspecting.md). Needs the extra [geo].
    Ends with 3 if a photograph could not be read; all others are predicted.

    \b
    crackseg predict bridge7 --out found
    crackseg predict "walls/*.jpg" --out found --model models:/crackseg/3 --json
    crackseg predict deck.tif --out found --surface pavement
    """
    import json
    from dataclasses import asdict
    from functools import partial

    from crackseg.data.catalog import warn_of_source
    from crackseg.data.image_files import find_photographs
    from crackseg.geometry.report import NO_CLASS
    from crackseg.geometry.scale import choose_scale
    from crackseg.geometry.severity import OF_CONCRETE, make_grading
    from crackseg.inference.drift import compare, count_reference, describe_drift, warn_of_drift, warn_of_reference
    from crackseg.inference.files import Summary, describe_summary, measure_masks, predict_files
    from crackseg.inspection.mosaics import MosaicResults, describe_mosaic, inspect_mosaics, split_mosaics

    say = partial(click.echo, err=True)
    photographs, mosaics = split_mosaics(find_photographs(paths, out_dir), say)
    if bands is not None and not mosaics:
        raise CracksegError(f"--bands {','.join(map(str, bands))} is for mosaics, and none was given: no GeoTIFF")
    if report_drift and not photographs:
        raise CracksegError(
            "--report-drift compares photographs with the training ones, and only mosaics were given"
        )
    scale = choose_scale(mm_per_px, error_pct=scale_error_pct) if photographs or mm_per_px is not None else None
    if scale is not None and not measure and photographs:
        if not mosaics:
            raise CracksegError("--mm-per-px is the scale of --measure; give both")
        say("note: --mm-per-px counts for the mosaics only; give --measure for the photographs")
    if surface is not None and scale is None and photographs:
        if not mosaics:
            raise CracksegError(f"--surface {surface} decides the width classes: {NO_CLASS}")
        say(f"note: --surface {surface} counts for the mosaics only: {NO_CLASS}")
    grading = make_grading(project.measure_params, surface) if measure or mosaics else OF_CONCRETE
    root = project.root if report_drift else None  # before the work: drift is recorded in a project
    model = load_chosen_model(project, uri, flips=flips)
    inspected = MosaicResults()
    if mosaics:
        inspected = inspect_mosaics(
            mosaics, model.analyzer, out_dir, alone=not photographs, bands=bands, say=say, model=model.digest,
            threshold=threshold, grading=grading, scale=scale, scale_error=(scale_error_pct or 0.0) / 100, maps=maps,
        )  # fmt: skip
    summary, figures = Summary(0), list[dict[str, float]]()
    if photographs:
        summary, figures = predict_files(
            model.analyzer,
            photographs,
            out_dir,
            model=model.digest,
            threshold=threshold,
            overlays=overlays,
            maps=maps,
        )
    settings = model.analyzer.settings
    must_not = warn_of_source(settings.data_source)
    drifts = compare(settings.reference, figures)
    said = [must_not, warn_of_drift(drifts), warn_of_reference(count_reference(settings.reference))]
    warnings = [sentence for sentence in said if sentence]
    measured = (
        measure_masks(photographs, out_dir, scale=scale, grading=grading) if photographs and measure else None
    )
    run_id = None
    if report_drift:
        from crackseg.serving.monitoring import record_drift

        assert root is not None
        source = " ".join(paths)
        run_id = record_drift(root, model, figures, drifts, source=source, num_failed=len(summary.failed))
    if as_json:
        content = {"model": model.uri, "out": str(out_dir)} | asdict(summary) | {"warnings": warnings}
        content |= {"drift": [asdict(d) for d in drifts], "monitoring_run": run_id}
        if measured:
            content["measured"] = asdict(measured)
        if mosaics:
            content["mosaics"] = asdict(inspected)
        click.echo(json.dumps(content, indent=2))
    else:
        for each in inspected.summaries:
            click.echo(describe_mosaic(each))
        if photographs:
            click.echo(describe_summary(summary, out_dir, elapsed_s()))
        click.echo(f"model: {model.uri}")
        if maps and photographs:
            click.echo(f"probabilities: {out_dir / 'maps'}")
        if measured:
            click.echo(f"cracks: {out_dir / 'cracks.csv'}, with pictures in {out_dir / 'annotated'}")
            if scale is None:
                click.echo(f"note: {NO_CLASS}", err=True)
        if photographs:
            click.echo(describe_drift(drifts), err=any(d.drifted for d in drifts))
        if run_id:
            click.echo(f"recorded as run {run_id}; `crackseg ui` shows it")
    warn(must_not)
    sys.exit(3 if summary.failed or inspected.failed or (measured and measured.failed) else 0)
