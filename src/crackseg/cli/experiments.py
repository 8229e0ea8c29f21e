"""`crackseg experiments`: list the DVC experiments with their settings and scores."""

from __future__ import annotations

import json

import click

from crackseg.cli.output import format_table
from crackseg.cli.project import Project, with_project


@click.command()
@click.option("-n", "--commits", default=1, show_default=True, type=click.IntRange(1), help="Of so many commits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@with_project
def experiments(project: Project, commits: int, as_json: bool) -> None:
    """Show each DVC experiment: settings that differ from its commit, ODS of the datasets, the best first.

    \b
    crackseg experiments
    crackseg experiments --commits 5
    """
    from crackseg.experiments.listing import list_experiments

    listed = list_experiments(project.root, num_commits=commits)
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    shown = [row for row in listed if row["ods"] or row["changed"] or row["state"]]
    datasets = list(dict.fromkeys(name for row in shown for name in row["ods"] if name != "mean"))
    header = ["experiment", "mean ODS", *datasets, "minutes", "created", "changed"]
    rows = [
        [
            row["experiment"],
            *(f"{row['ods'][name]:.4f}" if name in row["ods"] else "-" for name in ("mean", *datasets)),
            "-" if row["minutes"] is None else f"{row['minutes']:.1f}",
            row["state"] or row["created"],
            row["changed"] or "-",
        ]
        for row in shown
    ]
    if shown:
        click.echo(format_table([header, *rows]))
    if left_out := len(listed) - len(shown):
        commits_word = "commit has" if left_out == 1 else "commits have"
        click.echo(f"{left_out} {commits_word} no scores; --commits N also lists earlier commits", err=True)
