"""`crackseg paper`: queue the paper's experiments, and compare their results with ours."""

from __future__ import annotations

import sys

import click

from crackseg.cli.project import Project, with_project


@click.group()
def paper() -> None:
    """Reproduce the paper's tables.

    \b
    crackseg paper queue --table3 --dry-run
    crackseg paper report --no-timing
    """


@paper.command("queue")
@click.option("--table3", is_flag=True, help="The ten configurations of Table 3.")
@click.option("--grid", is_flag=True, help="All 256 combinations of section 3.1.")
@click.option("--cell", "names", multiple=True, metavar="NAME", help="One configuration by its name (repeatable).")
@click.option(
    "-S",
    "--set-param",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of all of them, as of `dvc exp run -S` (repeatable), e.g. train.epochs=2.",
)
@click.option("--dry-run", is_flag=True, help="List the configurations and queue nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before the grid is queued.")
@with_project
def paper_queue(
    project: Project,
    table3: bool,
    grid: bool,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Put configurations of the paper into DVC's queue; finished and waiting ones are left out.

    \b
    crackseg paper queue --table3                        then: dvc queue start
    crackseg paper queue --cell table3-random-focal-g2
    crackseg paper queue --table3 -S train.epochs=2      a quick test
    """
    from crackseg.errors import CracksegError
    from crackseg.experiments.paper.configurations import choose_configurations
    from crackseg.experiments.paper.queue import describe_plan, make_plan, queue_configurations
    from crackseg.params import parse_setting

    configurations = choose_configurations(table3=table3, grid=grid, names=names)
    overrides = dict(parse_setting(text) for text in settings)
    plan = make_plan(project.root, project.store, configurations, overrides)
    click.echo(describe_plan(plan, list_configurations=dry_run or not grid))
    if dry_run or not plan.to_queue:
        return
    if grid and not yes:
        if not sys.stdin.isatty():
            raise CracksegError(f"no terminal to confirm the {len(plan.to_queue)} experiments; add --yes")
        click.confirm(f"Queue {len(plan.to_queue)} experiments?", abort=True)
    for name in queue_configurations(project.root, plan):
        click.echo(f"queued {name}")
    click.echo("Start with `dvc queue start`, look with `dvc queue status`, compare with `crackseg ui`.")


@paper.command("report")
@click.option(
    "--architectures", metavar="A,B", help="Time only these; by default every architecture that is installed."
)
@click.option(
    "--no-timing", is_flag=True, help="Time nothing for Table 4: it takes a quarter of an hour and more on a CPU."
)
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Measurements of each.")
@with_project
def paper_report(project: Project, architectures: str | None, no_timing: bool, repeats: int) -> None:
    """Compare the finished configurations with the paper: Tables 3 and 4, Figures 3 and 4.

    Writes outputs/paper, which `dvc plots show` shows too, and makes a new run `paper-report` on each call.

    \b
    crackseg paper report --no-timing
    """
    from crackseg.experiments.paper.report import write_paper_report
    from crackseg.experiments.paper.timing import choose_architectures

    chosen = () if no_timing else choose_architectures(architectures)
    written = write_paper_report(project.root, project.store, architectures=chosen, repeats=repeats)
    click.echo(
        f"{written.num_finished} of {written.num_finished + written.num_missing} configurations of Table 3 are finished"
    )
    for remark in written.remarks:
        click.echo(f"note: {remark}")
    click.echo(f"report: {written.page_path}, also in MLflow as run {written.run_id} (paper-report)")
