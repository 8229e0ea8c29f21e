"""`crackseg store`: look after the tracking store."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crackseg.cli.project import Project, with_project


@click.group()
def store() -> None:
    """Deliver waiting records, and copy the tracking store to another place.

    \b
    crackseg store export backup
    crackseg store import backup
    """


@store.command("deliver")
@with_project
def store_deliver(project: Project) -> None:
    """Deliver records that the tracking store could not take when they were made.

    \b
    crackseg store deliver
    """

    opened = project.store  # opening delivers what waits
    left = opened.deliver()
    if left.elsewhere:
        click.echo(
            f"records of {left.elsewhere} runs in {opened.outbox_dir} are for other stores; the file `store` of each "
            "has the address"
        )
    waiting = f"{left.waiting} runs still wait in {opened.outbox_dir}"
    click.echo(waiting if left.waiting else "everything is delivered")
    sys.exit(1 if left.waiting else 0)


@store.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--experiment", "experiments", multiple=True, help="Name; may be given more than once [our own].")
@click.option("--run", "run_ids", multiple=True, help="Only this run, its children and its model versions.")
@with_project
def store_export(project: Project, folder: Path, experiments: tuple[str, ...], run_ids: tuple[str, ...]) -> None:
    """Write runs, artifacts, models and the registry to the new folder FOLDER.

    The same command resumes an interrupted export.

    \b
    crackseg store export backup
    crackseg store export one --run RUN_ID
    """
    from crackseg.tracking.transfer.exporting import export_store

    counts = export_store(project.store, folder, experiments=experiments, run_ids=run_ids)
    for note in counts.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{folder}: {counts.runs} runs, {counts.models} models, {counts.versions} registered versions")


@store.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@with_project
def store_import(project: Project, folder: Path) -> None:
    """Import FOLDER, written by `crackseg store export`, into the store of MLFLOW_TRACKING_URI, or the local one.

    Every file is checked first. Entries that are already in the store stay unchanged: the command may be repeated.

    \b
    crackseg store import backup
    """
    from crackseg.tracking.transfer.importing import import_store

    opened = project.store
    counts = import_store(opened, folder)
    for note in counts.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"{opened.uri}: {counts.runs} runs, {counts.models} models, {counts.versions} registered versions imported; "
        f"{counts.known_runs} runs were there"
    )
