"""Command line: one module for each family of commands, no logic.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

import errno
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence

import click

from crackseg import __version__
from crackseg.child_processes import end_quickly
from crackseg.cli import (
    annotations,
    app,
    compare,
    completion,
    data,
    deploy,
    experiments,
    explain,
    inspection,
    least_length,
    measure,
    mosaic,
    paper,
    predict,
    preset,
    pretrain,
    registry,
    scoring,
    search,
    stage,
    store,
    study,
    ui,
)
from crackseg.cli.doctor import command
from crackseg.cli.output import QUIET, VERBOSE, set_up_output
from crackseg.cli.project import Project, with_project
from crackseg.cli.silence import end_silence
from crackseg.errors import CracksegError

# On a busy machine OpenMP's threads spin at barriers while they wait for a core: a training step next to one other
# busy process took 4.4 s instead of 0.18 s, and 1.7 s with short spinning, which costs a tenth on an idle machine. Read
# once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# Their child processes print past what end_silence watches.
_SAY_FOR_THEMSELVES = ("demo", "ui", "stage", "train", "completion", "doctor")
# Later they wait for visitors, or for processes that print themselves.
_SILENT_AT_START = ("app", "serve", "search", "study")


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1, without a traceback."""
    # Imports allocate millions of objects and free none: looking for cycles among them was a tenth of a stage's start.
    gc.set_threshold(20_000, 25, 10)
    end_quickly()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("crackseg").setLevel(logging.INFO)
    try:
        cli(prog_name="crackseg", standalone_mode=False)
    except click.exceptions.Abort as abort:
        if message := str(
            abort.__cause__ or ""
        ):  # click turns Ctrl-C into Abort; a training run says how to resume
            click.echo(message, err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CracksegError as error:
        logging.getLogger("crackseg").debug("traceback of the error:", exc_info=error)
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt as error:
        click.echo(f"\n{str(error) or 'interrupted'}", err=True)
        sys.exit(130)
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        place = error.filename or (tempfile.gettempdir() if error.errno == errno.ENOSPC else "system")
        click.echo(f"error: {place}: {error.strerror}", err=True)
        sys.exit(1)


class _Families(click.Group):
    """Commands that `--help` lists by family."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each family with its commands and what they do."""
        for family, commands in FAMILIES.items():
            with formatter.section(family):
                formatter.write_dl([(str(c.name), c.get_short_help_str(limit=160)) for c in commands])


@click.group(cls=_Families, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="crackseg")
@click.option("-q", "--quiet", is_flag=True, envvar=QUIET, help="Only results and errors: no bars, no remarks.")
@click.option("-v", "--verbose", is_flag=True, envvar=VERBOSE, help="Also steps, durations and tracebacks.")
@click.pass_context
def cli(context: click.Context, quiet: bool, verbose: bool) -> None:
    """Find hair-thin cracks in photographs, and keep the whole experiment honest.

    \b
    The day:  dvc repro                     train, choose the threshold, predict, score, register
              dvc exp run -S loss.gamma=4   one change, one run
              crackseg ui                   compare the runs

    \b
    crackseg -q predict photographs --out found
    crackseg -v promote --best
    """
    set_up_output(context, quiet=quiet, verbose=verbose)
    command = cli.get_command(context, context.invoked_subcommand or "")
    if command is not None and command.name not in _SAY_FOR_THEMSELVES:
        end_silence(command, only_at_start=command.name in _SILENT_AT_START)


@cli.command()
@with_project
def demo(project: Project) -> None:
    """Run the whole pipeline on the sample data, in minutes on a CPU.

    \b
    crackseg demo
    """
    from crackseg.pipeline.demo import run_demo

    click.echo(run_demo(project.root))


FAMILIES: Mapping[str, Sequence[click.Command]] = {
    "Experiment": (
        demo, preset.preset, stage.train, experiments.experiments, ui.ui, compare.compare, search.search, study.study,
        paper.paper,
    ),
    "Registry": (registry.models, registry.promote, registry.rollback, registry.history, deploy.card),
    "Use a model": (
        predict.predict, measure.measure, inspection.inspection_report, inspection.growth, mosaic.mosaic, app.app,
        deploy.serve, deploy.batch, deploy.export,
    ),
    "Data and scores": (
        data.data, annotations.annotation_forms, scoring.score, explain.explain_scores, explain.compare_postprocessing,
        least_length.choose_length,
    ),
    "Upkeep": (command.doctor, store.store, pretrain.pretrain, stage.stage, completion.completion),
}  # fmt: skip
for _commands in FAMILIES.values():
    for _command in _commands:
        cli.add_command(_command)
