"""`crackseg compare`: compare runs."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.project import Project, with_project
from crackseg.errors import CracksegError


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--out", "out_dir", type=click.Path(file_okay=False, path_type=Path), help="Folder for page and figures."
)
@click.option("--log", is_flag=True, help="Keep page and figures in MLflow, as a run `comparison`.")
@click.option(
    "--images",
    "num_images",
    default=4,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Drawn of each dataset.",
)
@click.option("--markdown", "as_comment", is_flag=True, help="Print Markdown for a pull request on GitHub.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@with_project
def compare(
    project: Project,
    runs: tuple[str, ...],
    out_dir: Path | None,
    log: bool,
    num_images: int,
    as_comment: bool,
    as_json: bool,
) -> None:
    """Compare RUNs with the first: settings that differ, scores with paired intervals, curves, images.

    A RUN is a run id of MLflow (32 digits), a version of the registered model (3, @production, models:/NAME/3), or the
    name of a DVC experiment. docs/comparing.md explains the intervals.

    \b
    crackseg compare @production @candidate
    crackseg compare 3 gamma-4 --out gamma
    crackseg compare demo lr-0.001 lr-0.01 --log --json
    crackseg compare @production @candidate --markdown > comment.md
    """
    import json

    from crackseg.experiments.compare.run import compare_runs

    if as_comment and as_json:
        raise CracksegError("give either --markdown or --json: each is all that is printed")
    done = compare_runs(project.root, runs, out_dir=out_dir, log=log, num_images=num_images)
    if as_json:
        content = done.content | {"files": [str(path) for path in done.files], "logged_run": done.logged_run}
        click.echo(json.dumps(content, indent=2))
        return
    if as_comment:
        click.echo(done.comment, nl=False)
        return
    for line in done.text.splitlines():
        if not line.startswith("!["):
            click.echo(line.replace("▲", click.style("▲", fg="green")).replace("▼", click.style("▼", fg="red")))
    if done.files:
        click.echo(f"written: {', '.join(str(path) for path in done.files)}")
    if done.logged_run:
        click.echo(f"logged as run {done.logged_run} (comparison); `crackseg ui` shows it")
