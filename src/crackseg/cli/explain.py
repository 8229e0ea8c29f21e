"""`crackseg explain-scores`: show which faults each score detects, on any masks."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.crack_value import crack_value_option
from crackseg.cli.finite_range import FiniteRange

_EXISTING_DIR = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("explain-scores")
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@click.option(
    "--masks",
    "mask_dirs",
    type=_EXISTING_DIR,
    multiple=True,
    help="Your ground truth, 1-px lines (repeatable); 20 procedural scenes by default.",
)
@crack_value_option
@click.option("--tolerance-px", default=2, show_default=True, type=click.IntRange(0, 100))
@click.option("--line-tolerance-px", default=4, show_default=True, type=click.IntRange(0, 100), help="Of clIoU.")
@click.option(
    "--size-px",
    default=512,
    show_default=True,
    type=click.IntRange(32, 16384),
    help="Side of the square that ground truth is resized to, as data.size_px.",
)
def explain_scores(
    out_dir: Path,
    mask_dirs: tuple[Path, ...],
    crack_values: tuple[int | str, ...],
    tolerance_px: int,
    line_tolerance_px: int,
    size_px: int,
) -> None:
    """Score predictions with known faults, and resized ground truth, to show what each score detects.

    Writes weak_points.png, .csv and .md, and resizing.png and .csv where a mask is larger than --size-px.

    \b
    crackseg explain-scores --out faults
    """
    from crackseg.experiments import metric_faults
    from crackseg.experiments.figures import draw_resizing, draw_weak_points
    from crackseg.files import write_bytes, write_csv

    masks = (
        metric_faults.read_masks(mask_dirs, crack_values=crack_values or None)
        if mask_dirs
        else list(metric_faults.draw_procedural_masks())
    )
    source = ("" if mask_dirs else "procedural scenes: ") + metric_faults.describe_masks(masks)
    tolerances = {"tolerance_px": tolerance_px, "line_tolerance_px": line_tolerance_px}
    cases = metric_faults.score_cases(masks, **tolerances)
    resizing = metric_faults.measure_resizing(masks, size_px=size_px, **tolerances)
    text = metric_faults.format_weak_points(
        cases, resizing, source=source, settings=tolerances | {"size_px": size_px}
    )
    write_csv(cases, out_dir / "weak_points.csv")
    write_bytes(out_dir / "weak_points.md", text.encode())
    examples = metric_faults.cut_examples(masks)
    draw_weak_points(cases, examples, metric_faults.SERIES, out_dir / "weak_points.png", source=source)
    if len(resizing):
        write_csv(resizing, out_dir / "resizing.csv")
        examples = metric_faults.cut_resized_examples(masks, size_px)
        draw_resizing(resizing, examples, out_dir / "resizing.png", source=source)
    click.echo(text)
    if resizing.empty:
        click.echo(
            f"No mask with a crack is larger than {size_px} x {size_px}; a smaller --size-px shows what resizing does."
        )


@click.command("compare-postprocessing")
@click.option("--predictions", required=True, type=_EXISTING_DIR, help="Maps: 8/16-bit PNG or float .npy.")
@click.option("--masks", required=True, type=_EXISTING_DIR, help="Ground truth, with the same stems.")
@click.option(
    "--rois", type=_EXISTING_DIR, help="Regions of interest, with the same stems; default: whole images."
)
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@crack_value_option
@click.option("--min-length-px", default=20, show_default=True, type=click.IntRange(0), help="Of the second pass.")
@click.option("--low-ratio", default=0.6, show_default=True, type=FiniteRange(0, 1, min_open=True))
@click.option("--max-gap-px", default=10, show_default=True, type=click.IntRange(1))
@click.option("--floor", default=0.25, show_default=True, type=FiniteRange(0, 1, min_open=True, max_open=True))
@click.option("--tolerance-px", default=2, show_default=True, type=click.IntRange(0, 100))
@click.option("--line-tolerance-px", default=4, show_default=True, type=click.IntRange(0, 100), help="Of clIoU.")
def compare_postprocessing(
    predictions: Path,
    masks: Path,
    rois: Path | None,
    out_dir: Path,
    crack_values: tuple[int | str, ...],
    min_length_px: int,
    low_ratio: float,
    max_gap_px: int,
    floor: float,
    tolerance_px: int,
    line_tolerance_px: int,
) -> None:
    """Score the same maps after every post-processing method, count connected components, and time it.

    Each method runs twice: with all components, and without those shorter than --min-length-px. Masks without a map are
    left out. Writes postprocessing.csv, .md and .png, and continuity.csv and .png.

    \b
    crackseg compare-postprocessing --predictions maps --masks truth --out methods
    """
    from crackseg.errors import count_of
    from crackseg.experiments import postprocessing_ablation as study
    from crackseg.experiments.figures import draw_continuity, draw_postprocessing
    from crackseg.files import frame_to_markdown, write_bytes, write_csv
    from crackseg.params import EvaluateParams

    maps = study.find_maps(predictions, masks, rois)
    variants = study.make_variants(
        min_length_px=min_length_px, low_ratio=low_ratio, max_gap_px=max_gap_px, floor=floor
    )
    evaluate = EvaluateParams(
        tolerance_px=tolerance_px, num_thresholds=256, line_tolerance_px=line_tolerance_px, use_roi=True
    )
    table, continuity, examples = study.compare_methods(
        maps, variants, evaluate, crack_values=crack_values or None
    )
    source = f"{predictions}: {count_of(len(maps), 'map')}"
    settings = f"low_ratio {low_ratio}, max_gap_px {max_gap_px}, floor {floor}, tolerance_px {tolerance_px}"
    text = f"{source}. Settings: {settings}, line_tolerance_px {line_tolerance_px}.\n\n{frame_to_markdown(table)}"
    write_csv(table, out_dir / "postprocessing.csv")
    write_csv(continuity, out_dir / "continuity.csv")
    write_bytes(out_dir / "postprocessing.md", text.encode())
    draw_postprocessing(examples, out_dir / "postprocessing.png", source=source)
    draw_continuity(table, continuity, out_dir / "continuity.png", source=source)
    click.echo(text)
