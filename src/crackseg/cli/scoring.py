"""`crackseg score`: score maps of any program."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.crack_value import crack_value_option

_EXISTING_DIR = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--predictions", required=True, type=_EXISTING_DIR, help="Maps: 8/16-bit PNG or float .npy.")
@click.option("--masks", required=True, type=_EXISTING_DIR, help="Ground truth, with the same stems.")
@click.option("--tolerance-px", default=2, show_default=True, type=click.IntRange(0, 100))
@click.option("--num-thresholds", default=256, show_default=True, type=click.IntRange(2, 16384))
@crack_value_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def score(
    predictions: Path,
    masks: Path,
    tolerance_px: int,
    num_thresholds: int,
    crack_values: tuple[int | str, ...],
    as_json: bool,
) -> None:
    """Score probability maps of any program: ODS, OIS and AP under three protocols.

    \b
    crackseg score --predictions maps --masks truth
    crackseg score --predictions maps --masks truth --crack-value 255 --json
    """
    import json

    from crackseg.evaluation.scoring import format_scores, score_folder

    scores = score_folder(
        predictions,
        masks,
        tolerance_px=tolerance_px,
        num_thresholds=num_thresholds,
        crack_values=crack_values or None,
    )
    click.echo(json.dumps(scores.to_dict(), indent=2) if as_json else format_scores(scores))
