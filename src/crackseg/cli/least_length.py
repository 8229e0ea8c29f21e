"""`crackseg choose-length`: a least length of cracks, so that few photographs without cracks are marked."""

from __future__ import annotations

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.project import Project, with_project


@click.command("choose-length")
@click.option(
    "--max-false-alarms",
    default=0.1,
    show_default=True,
    type=FiniteRange(0, 1),
    help="Largest fraction of photographs without cracks that may be marked.",
)
@click.option(
    "--length-px",
    "lengths_px",
    multiple=True,
    type=click.IntRange(0),
    help="To try (repeatable), in pixels of the prepared images.  [default: 0 to 300]",
)
@click.option("--write", is_flag=True, help="Write the chosen length into params.yaml.")
@with_project
def choose_length(project: Project, max_false_alarms: float, lengths_px: tuple[int, ...], *, write: bool) -> None:
    """Choose postprocess.min_length_px for the trained model, so that few photographs without cracks are marked.

    With each length the threshold is chosen again on the validation images. The shortest length that is enough is
    taken, since shorter cracks are lost: compare F in the table.

    \b
    crackseg choose-length
    crackseg choose-length --max-false-alarms 0.05 --write
    """
    from crackseg.experiments import least_length
    from crackseg.files import frame_to_markdown

    points = least_length.compare_lengths(project.root, lengths_px or least_length.LENGTHS_PX)
    click.echo(frame_to_markdown(least_length.tabulate(points)))
    chosen = least_length.choose_length(points, max_false_alarms)
    setting = f"{least_length.KEY}={chosen.postprocessing.min_length_px}"
    if not write:
        click.echo(f"chosen: {setting}; --write writes it, `dvc exp run -S {setting}` tries it")
    elif changed := least_length.write_length(project.root, chosen):
        for key, (before, after) in changed.items():
            click.echo(f"{key}: {before} -> {after}")
        click.echo("`dvc repro` scores and registers the model with it, and trains nothing")
    else:
        click.echo(f"params.yaml has {setting} already")
