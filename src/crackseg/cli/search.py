"""`crackseg search`: hyperparameter search."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.project import Project, with_project

if TYPE_CHECKING:
    from crackseg.experiments.search.study import Search
    from crackseg.tracking.store import Store

_STORAGE = click.option(
    "--storage",
    metavar="URL",
    help="Database: postgresql://…, or a SQLite file.  [default: mlruns/search/studies.db]",
)
_STUDY = click.option("--study", "name", metavar="NAME", help="Study.  [default: the only one]")


def _of_a_study(command: Callable) -> Callable:
    @functools.wraps(command)
    def with_outages_said(*args: Any, **kwargs: Any) -> Any:
        from crackseg.experiments.search.storage import outages_said

        with outages_said():
            return command(*args, **kwargs)

    return _STUDY(_STORAGE(with_project(with_outages_said)))


@click.group(invoke_without_command=True)
@click.option(
    "--study", "name", metavar="NAME", help="Study to create or resume.  [default: DATASET-ARCHITECTURE]"
)
@_STORAGE
@click.option(
    "--trials", type=click.IntRange(1), help="Total number of trials of the study.  [default: search.trials]"
)
@click.option("--timeout", type=FiniteRange(0, min_open=True), metavar="SECONDS", help="Stop after this time.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Worker processes.")
@click.option(
    "-S",
    "--set-param",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of all trials, as of `dvc exp run -S` (repeatable), e.g. train.epochs=20.",
)
@click.pass_context
@with_project
def search(
    project: Project,
    context: click.Context,
    name: str | None,
    storage: str | None,
    trials: int | None,
    timeout: float | None,
    jobs: int,
    settings: tuple[str, ...],
) -> None:
    """Search `search.space` of params.yaml for better settings than the paper's, on validation images.

    After an interruption the same command runs the trials left. On other machines, the same --study and
    --storage join in.

    \b
    crackseg search --study night --trials 64 --jobs 2 -S train.epochs=20
    crackseg search show
    crackseg search apply           the best trial's settings into params.yaml
    """
    if context.invoked_subcommand is not None:  # study and storage may also stand before it
        context.default_map = {context.invoked_subcommand: {"name": name, "storage": storage}}
        return
    from crackseg.params import change_params, load_params, parse_setting

    overrides = dict(parse_setting(text) for text in settings)
    change_params(load_params(project.root / "params.yaml"), overrides, source="-S")  # before the slow imports
    from crackseg.experiments.search.run import Order, run_search

    click.echo(run_search(project.root, Order(name, storage, trials, timeout, jobs, overrides)))


@search.command("show")
@_of_a_study
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def search_show(project: Project, name: str | None, storage: str | None, as_json: bool) -> None:
    """List the studies, or the trials of one.

    \b
    crackseg search show
    crackseg search show --study night --json
    """
    import json

    from crackseg.experiments.search.listing import list_studies, show

    store, opened, name = _open(project, name, storage)
    if as_json:
        click.echo(json.dumps(list_studies(store, opened, name), indent=2, default=str))
    else:
        click.echo(show(store, opened, name))


@search.command("apply")
@_of_a_study
@click.option("--trial", type=click.IntRange(0), help="Its number.  [default: the best]")
@click.option(
    "--searched-only/--with-set-params",
    default=True,
    show_default=True,
    help="Only what was searched, or also what -S set for all trials, e.g. the epochs.",
)
def search_apply(
    project: Project, name: str | None, storage: str | None, trial: int | None, searched_only: bool
) -> None:
    """Write a trial's searched settings into params.yaml, ready for `dvc repro`.

    What -S set for all trials, such as a small number of epochs, stays as params.yaml has it and is named.

    \b
    crackseg search apply --trial 17
    crackseg search apply --trial 17 --with-set-params
    """
    from crackseg.experiments.search.apply import apply_trial, find_left_out

    _store, opened = _load(project, name, storage)
    changed = apply_trial(project.root, opened, trial, searched_only=searched_only)
    for key, (before, after) in changed.items():
        click.echo(f"{key}: {before} -> {after}")
    if searched_only and (left_out := find_left_out(project.root, opened, trial)):
        kept = ", ".join(f"{key}: {ours} (the trial had {theirs})" for key, (ours, theirs) in left_out.items())
        click.echo(f"left as params.yaml has them: {kept}; --with-set-params takes the trial's")
    click.echo("params.yaml is ready for `dvc repro`" if changed else "params.yaml has these settings already")


@search.command("queue")
@_of_a_study
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="Best trials.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Training runs of each.")
@click.option(
    "-S", "--set-param", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of all (repeatable)."
)
def search_queue(
    project: Project,
    name: str | None,
    storage: str | None,
    top: int,
    seeds: int,
    settings: tuple[str, ...],
) -> None:
    """Put the best trials into DVC's queue: full training runs with several seeds, since one proves little.

    \b
    crackseg search queue --top 3 --seeds 3
    """
    from crackseg.experiments.search.outcomes import queue_best
    from crackseg.params import parse_setting

    store, opened = _load(project, name, storage)
    overrides = dict(parse_setting(text) for text in settings)
    for line in queue_best(project.root, store, opened, top=top, num_seeds=seeds, settings=overrides):
        click.echo(line)
    click.echo("Start with `dvc queue start`, look with `dvc queue status`, compare with `dvc exp show`.")


@search.command("register")
@_of_a_study
@click.option("--trial", type=click.IntRange(0), help="Its number.  [default: the best]")
def search_register(project: Project, name: str | None, storage: str | None, trial: int | None) -> None:
    """Register the weights of the best trial as they are, trained on the trial's budget.

    \b
    crackseg search register
    """
    from crackseg.experiments.search.outcomes import register_trial

    store, opened = _load(project, name, storage)
    click.echo(f"registered: {register_trial(project.root, store, opened, trial)}")


def _open(project: Project, name: str | None, storage: str | None) -> tuple[Store, Any, str | None]:
    from crackseg.experiments.search.storage import default_storage, open_storage

    # A new project has no database of its own yet; one that is named is meant to be there.
    opened = open_storage(storage or default_storage(project.store.home), create=storage is None)
    return project.store, opened, name


def _load(project: Project, name: str | None, storage: str | None) -> tuple[Store, Search]:
    from crackseg.experiments.search.study import load_search

    store, opened, name = _open(project, name, storage)
    return store, load_search(store, opened, name)
