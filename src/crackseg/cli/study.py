"""`crackseg study`: test the paper's claims with small models."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.crack_value import crack_value_option
from crackseg.cli.project import Project, with_project


@click.command()
@click.option(
    "--photographs",
    type=click.Path(path_type=Path),
    help="Photographs and masks to study; imported next to data/.",
)
@click.option("--name", default="UAV75", show_default=True, help="Name for them.")
@crack_value_option
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1), help="Training runs of each configuration."
)
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Training runs at a time.")
@click.option(
    "--pretrained/--no-pretrained", default=True, show_default=True, help="Compare ImageNet's weights too."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for study.md and its figures."
)
@with_project
def study(
    project: Project,
    photographs: Path | None,
    name: str,
    crack_values: tuple[int | str, ...],
    seeds: int,
    jobs: int,
    pretrained: bool,
    out: Path | None,
) -> None:
    """Train small models with cross-entropy and focal losses, and report which of the paper's claims hold.

    Without --photographs it uses the training dataset of params.yaml. The same command resumes it.

    \b
    crackseg study --photographs ~/uav75 --crack-value 255 --out docs
    """
    from crackseg.experiments.claims.report import import_photographs, write_study
    from crackseg.experiments.claims.study import run_study

    root = project.root
    data_dir, dataset = import_photographs(root, photographs, name, crack_values or None)
    table = run_study(root, data_dir, dataset, num_seeds=seeds, pretrained=pretrained, jobs=jobs)
    click.echo(write_study(root, table, data_dir, dataset, out or root / "outputs" / "study"))
