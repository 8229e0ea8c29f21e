"""`crackseg models`, `promote`, `rollback` and `history`: control the version in production."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from crackseg.cli.output import format_table, warn
from crackseg.cli.project import Project, with_project
from crackseg.errors import CracksegError

if TYPE_CHECKING:
    from crackseg.registry.production import Production
    from crackseg.registry.promotion_log import Check, Record

_MARKS = {"passed": "pass", "failed": "FAIL", "warning": "WARN", "skipped": "  - "}


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
@with_project
def models(project: Project, context: click.Context, as_json: bool) -> None:
    """Show every registered version: scores, data, alias, stage, when and by whom; and the shipped model.

    \b
    crackseg models
    crackseg models --json
    """
    if context.invoked_subcommand is not None:
        return
    from crackseg.models.shipped import SHIPPED_NAME
    from crackseg.project import NoProject
    from crackseg.registry.listing import list_versions
    from crackseg.registry.production import NotRegistered

    try:
        production = _open(project)
    except (NoProject, NotRegistered) as error:
        if as_json:
            shipped = {"name": SHIPPED_NAME, "used": True}
            click.echo(json.dumps({"model": None, "versions": [], "shipped": shipped}, indent=2))
        else:
            click.echo(f"{error}\n{_describe_shipped(used=True)}")
        return
    versions = list_versions(production)
    used = not any("production" in v["aliases"] for v in versions)
    if as_json:
        shipped = {"name": SHIPPED_NAME, "used": used}
        click.echo(json.dumps({"model": production.name, "versions": versions, "shipped": shipped}, indent=2))
        return
    datasets = list(dict.fromkeys(name for v in versions for name in v["datasets"]))
    header = [
        "version",
        "alias",
        "stage",
        "val ODS",
        "mean ODS",
        *datasets,
        "data",
        "registered",
        "by",
        "promoted",
    ]
    rows = [
        [
            v["version"],
            ", ".join(v["aliases"]) or "-",
            v["stage"],
            _score(v["val_ods"]),
            _score(v["mean_ods"]),
            *(_score(v["datasets"].get(name, {}).get("ods")) for name in datasets),
            f"{v['data_md5'][:8] or '-'}{' (sample)' if v['data_source'] == 'sample' else ''}",
            v["registered"],
            v["registered_by"] or "-",
            f"{v['promoted']} by {v['promoted_by']}" if v["promoted"] else "-",
        ]
        for v in versions
    ]
    click.echo(format_table([header, *rows]) if rows else f"no version of {production.name!r} is registered")
    click.echo(_describe_shipped(used=used))


@models.command("delete")
@click.argument("version")
@click.option("--force", is_flag=True, help="Also the version that a rollback would go back to.")
@with_project
def models_delete(project: Project, version: str, force: bool) -> None:
    """Delete VERSION, but never what is in production.

    \b
    crackseg models delete 4
    """
    production = _open(project)
    production.delete(version, force=force)
    click.echo(f"version {version} of {production.name} is deleted")


@click.command()
@click.argument("version", required=False)
@click.option("--best", is_flag=True, help="The version with the best validation score on the present data.")
@click.option(
    "--metric", default="mean/ods", show_default=True, help="Metric that must be better, as named in MLflow."
)
@click.option("--max-images", type=click.IntRange(1), help="Score at most so many images of each dataset.")
@click.option("--force", is_flag=True, help="Promote although the gate fails; needs --reason.")
@click.option("--reason", default="", help="Why; stays in the history.")
@click.option("--dry-run", is_flag=True, help="Run the gate and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_project
def promote(
    project: Project,
    version: str | None,
    best: bool,
    metric: str,
    max_images: int | None,
    force: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put VERSION into production, if it passes the gate (default: the alias `candidate`).

    \b
    crackseg promote --best --dry-run
    crackseg promote 7 --force --reason "the old one misses wet stone, inspected by eye"
    """
    if force and not reason.strip():
        raise click.UsageError('--force needs --reason "…": it stays in the history')
    from crackseg.registry.promotion import promote as promote_version

    production = _open(project, repair=not dry_run)
    decision = promote_version(
        production,
        version=version,
        best=best,
        metric=metric,
        max_images=max_images,
        force=force,
        reason=reason,
        dry_run=dry_run,
    )
    record = decision.record
    if as_json:
        from dataclasses import asdict

        content = asdict(decision) | {"passed": decision.passed, "record": record.to_dict() if record else None}
        click.echo(json.dumps(content, indent=2))
    else:
        click.echo(f"gate for version {decision.version} of {production.name}, against {decision.against}")
        _show_checks(decision.checks)
        if record:
            forced = " although the gate FAILED (--force)" if record.forced else ""
            click.echo(
                f"version {record.to_version} is in production{forced}; record {record.number} of the history"
            )
        elif dry_run:
            click.echo(f"the gate {'is passed' if decision.passed else 'FAILED'}; --dry-run: nothing was changed")
        else:
            click.echo("the gate FAILED; nothing was changed", err=True)
    warn(*(check.message for check in decision.checks if check.status == "warning"))
    sys.exit(0 if decision.passed or record else 1)


@click.command()
@click.option(
    "--to", "to", metavar="VERSION", help="A version that was in production before; default: the last one."
)
@click.option("--reason", required=True, help="Why; stays in the history.")
@with_project
def rollback(project: Project, to: str | None, reason: str) -> None:
    """Put the version that was in production before back, at once and without a gate.

    \b
    crackseg rollback --reason "misses wet stone"
    crackseg rollback --to 3 --reason "misses wet stone"
    """
    from crackseg.data.catalog import warn_of_source
    from crackseg.registry.version_tags import read_tags

    production = _open(project)
    record = production.rollback(to=to, reason=reason)
    click.echo(
        f"version {record.to_version} is in production again instead of {record.from_version or 'nothing'}; record "
        f"{record.number} of the history"
    )
    if record.to_version:
        version = production.read().versions[record.to_version]
        warn(warn_of_source(read_tags(version).get("data.source", "")))
    if record.skipped:
        click.echo(f"note: skipped, deleted since: version {', '.join(record.skipped)}", err=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every value of the gates.")
@with_project
def history(project: Project, as_json: bool) -> None:
    """Show every promotion and rollback: when, who, from, to, why, and the result of the gate.

    \b
    crackseg history
    crackseg history --json
    """
    production = _open(project)
    records = production.read().records
    if as_json:
        content = {"model": production.name, "records": [record.to_dict() for record in records]}
        click.echo(json.dumps(content, indent=2))
    elif not records:
        click.echo(f"no version of {production.name!r} was in production yet; `crackseg promote` puts one there")
    else:
        for record in records:
            _show_record(record)
    if not all(record.intact for record in records):
        raise CracksegError("the history was changed by hand: see the records marked above")


def _open(project: Project, *, repair: bool = True) -> Production:
    """Open the registry and repair it first; changes are printed to the error stream."""
    from crackseg.registry.production import open_production

    production = open_production(project.root)
    if repair:
        for note in production.repair():
            click.echo(f"note: {note}", err=True)
    elif fault := production.find_fault(production.read()):
        click.echo(f"note: without --dry-run this would be done first: {fault.message}", err=True)
    return production


def _show_checks(checks: Sequence[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        colour = {"failed": "red", "warning": "yellow", "passed": "green"}.get(check.status)
        click.echo(f"  {click.style(_MARKS[check.status], fg=colour)}  {check.name:<{width}}  {check.message}")


def _show_record(record: Record) -> None:
    forced = " FORCED" if record.forced else ""
    click.echo(
        f"{record.number:>4}  {record.time}  {record.action}{forced}: {record.from_version or 'nothing'} -> "
        f"{record.to_version or 'nothing'}  by {record.user}, code {record.git_commit[:12]}{record.git_commit[40:]}"
        f"{', data ' + record.data_md5[:8] if record.data_md5 else ''}"
    )
    click.echo(f"      {record.reason}")
    if record.skipped:
        click.echo(f"      skipped, deleted since: version {', '.join(record.skipped)}")
    if not record.intact:
        click.secho("      CHANGED: the record before this one is not what it was then, or is missing", fg="red")
    if record.checks:
        _show_checks(record.checks)


def _describe_shipped(*, used: bool) -> str:
    from crackseg.models.shipped import SHIPPED_NAME

    state = "used while nothing is in production" if used else "not used: a version is in production"
    return f"{SHIPPED_NAME}: shipped with crackseg, {state} (`--model {SHIPPED_NAME}` names it)"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
