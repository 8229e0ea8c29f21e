"""`crackseg app`: the inspection page."""

from __future__ import annotations

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.project import Project, with_project
from crackseg.cli.scale_options import surface_option
from crackseg.types import Surface


@click.command()
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1.")
@click.option(
    "--max-megabytes", default=500.0, show_default=True, type=FiniteRange(min=0, min_open=True),
    help="Largest file of a photograph.",
)  # fmt: skip
@surface_option
@with_project
def app(project: Project, port: int, max_megabytes: float, surface: Surface | None) -> None:
    """Show the cracks of photographs in the browser: drop photographs, move the threshold, download results.

    \b
    crackseg app --port 8000

    Needs the extra [app]. Nothing leaves this machine. docs/app.md describes the page.
    """
    from crackseg.geometry.severity import make_grading
    from crackseg.serving.page.server import run_app

    run_app(port, click.echo, make_grading(project.measure_params, surface), max_megabytes=max_megabytes)
