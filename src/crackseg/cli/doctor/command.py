"""`crackseg doctor`: run all checks and print the findings."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crackseg.cli.project import Project, with_project
from crackseg.errors import CracksegError

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@with_project
def doctor(project: Project, as_json: bool) -> None:
    """Check Python, torch, GPU, OpenCV, packages, disk, settings, data, store, remote and queue; say what to do.

    Ends with 1 if something would stop `dvc repro`. It waits 10 s for a server or remote that does not
    answer, and 60 s for DVC's queue.

    \b
    crackseg doctor
    crackseg doctor --json
    """
    import json
    from dataclasses import asdict

    from crackseg.cli.doctor.examination import examine

    try:
        root: Path | None = project.root
    except CracksegError:
        root = None
    findings = []
    for finding in examine(root):
        findings.append(finding)
        if not as_json:
            mark = click.style(f"{finding.status:<7}", fg=_COLOURS[finding.status])
            click.echo(f"{mark}  {finding.name:<13}  {finding.message}")
            for line in finding.advice.splitlines():
                click.echo(f"{'':<9}{'':<13}  -> {line.strip()}")
    failed = [finding.name for finding in findings if finding.status == "failed"]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}, indent=2))
    elif failed:
        click.echo(f"`dvc repro` would stop: {', '.join(failed)}", err=True)
    sys.exit(1 if failed else 0)
