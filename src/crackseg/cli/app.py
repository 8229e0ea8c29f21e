"""`crackseg app`: the inspection page."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1.")
def app(port: int) -> None:
    """Show the cracks of photographs in the browser: drop photographs, move the threshold, download results.

    \b
    crackseg app --port 8000

    Needs the extra [app]. Nothing leaves this machine. docs/app.md describes the page.
    """
    from crackseg.serving.page.server import run_app

    run_app(port, click.echo)
