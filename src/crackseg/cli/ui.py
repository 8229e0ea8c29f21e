"""`crackseg ui`: show runs and models in MLflow's pages."""

from __future__ import annotations

import sys

import click

from crackseg.cli.project import Project, with_project


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--compare", "compares", is_flag=True, help="Open the comparison: of these RUNs, or of all.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1.")
@click.option(
    "--browser/--no-browser",
    "opens_browser",
    default=None,
    help="Open the page in a browser.  [default: if the output is a terminal]",
)
@with_project
def ui(project: Project, runs: tuple[str, ...], compares: bool, port: int, opens_browser: bool | None) -> None:
    """Show all runs and models in the MLflow UI, the best run first.

    With --compare it opens charts: settings and ODS as parallel coordinates, one bar chart for each dataset, PR
    curves. A RUN is named as for `crackseg compare`.

    \b
    crackseg ui --port 5050
    crackseg ui --compare
    crackseg ui --compare gamma-2 gamma-4
    """
    if runs and not compares:
        raise click.UsageError(f"{runs[0]}: to compare runs, add --compare")
    from crackseg.experiments.compare.resolve_runs import find_runs
    from crackseg.params import load_params
    from crackseg.tracking.ui_server import serve_ui

    run_ids: list[str] | None = [] if compares else None
    if runs:
        model_name = load_params(project.root / "params.yaml").registry.model_name
        found, remarks = find_runs(project.store, runs, model_name)
        for remark in remarks:
            click.echo(remark, err=True)
        run_ids = [run.run_id for run in found]
    opens = sys.stdout.isatty() if opens_browser is None else opens_browser
    sys.exit(serve_ui(project.store, port, run_ids=run_ids, opens_browser=opens, say=click.echo))
