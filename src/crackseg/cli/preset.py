"""`crackseg preset`: named settings, written into params.yaml."""

from __future__ import annotations

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.project import Project, with_project


@click.command()
@click.argument("name", required=False)
@click.option(
    "--dataset", metavar="NAME", help="Train on this dataset and score it.  [default: your only own one]"
)
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    help="Of training on this machine; sets train.epochs.  [default: the preset's]",
)
@click.option("--undo", is_flag=True, help="Bring params.yaml back to before the last preset.")
@with_project
def preset(project: Project, name: str | None, dataset: str | None, minutes: float | None, undo: bool) -> None:
    """Write the settings of a preset into params.yaml, or list the presets.

    Comments and order stay. All keys that any preset sets are set; the others stay.

    \b
    crackseg preset
    crackseg preset laptop --dataset BRIDGE7 --minutes 15
    crackseg preset --undo
    """
    if undo and (name or dataset or minutes):
        raise click.UsageError("--undo takes no name, dataset or minutes: it undoes the last preset")
    if name is None and (dataset or minutes):
        raise click.UsageError("--dataset and --minutes need the name of a preset, e.g. laptop")
    if name is None and not undo:
        _list(project)
        return
    from crackseg.pipeline.preset import apply_preset, undo_preset

    applied = (
        undo_preset(project.root)
        if undo
        else apply_preset(project.root, name or "", dataset=dataset, minutes=minutes)
    )
    for key, (before, after) in applied.changed.items():
        click.echo(f"{key}: {before} -> {after}")
    for remark in applied.remarks:
        click.echo(remark)
    if undo:
        click.echo(
            "params.yaml is as before the preset" if not applied.remarks else "the others are as before the preset"
        )
    elif applied.changed:
        click.echo("params.yaml is ready for `dvc repro`; `crackseg preset --undo` brings it back")
    else:
        click.echo("params.yaml has these settings already")


def _list(project: Project) -> None:
    from crackseg.params import load_params
    from crackseg.params.presets import PRESETS, name_current

    current = name_current(load_params(project.root / "params.yaml"))
    width = max(map(len, PRESETS))
    for name, row in PRESETS.items():
        click.echo(f"{'*' if name == current else ' '} {name:<{width}}  {row.summary}")
    click.echo(
        "* is what params.yaml has; crackseg preset NAME writes one"
        if current
        else "params.yaml has none of them; crackseg preset NAME writes one"
    )
