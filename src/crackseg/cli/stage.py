"""`crackseg stage`: the pipeline's stages, as dvc.yaml calls them."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.project import Project, with_project
from crackseg.cli.silence import end_silence
from crackseg.project import run_own_code


@click.group()
@click.pass_context
@with_project
def stage(project: Project, context: click.Context) -> None:
    """The pipeline's stages, as dvc.yaml calls them; use `dvc repro`.

    \b
    crackseg stage train
    """
    from crackseg.pipeline.killed import work_in_child

    run_own_code(project.root)
    name = context.invoked_subcommand or ""
    work_in_child(project.root, name)
    if (command := stage.get_command(context, name)) is not None:
        end_silence(command)


def _print_heading(root: Path, name: str, dataset: str = "") -> None:
    """Say what begins, before the imports that take seconds."""
    from crackseg.pipeline.headings import print_heading

    print_heading(root, name, dataset)


@stage.command("prepare")
@with_project
def stage_prepare(project: Project) -> None:
    """Check and resize the data.

    \b
    crackseg stage prepare
    """
    _print_heading(project.root, "prepare")
    from crackseg.pipeline import prepare

    prepare.run(project.root)


@stage.command("train")
@with_project
def stage_train(project: Project) -> None:
    """Train, or resume an interrupted training run.

    \b
    crackseg stage train
    """
    _print_heading(project.root, "train")
    from crackseg.pipeline import train

    train.run(project.root)


@click.command()
@with_project
def train(project: Project) -> None:
    """Train the model of params.yaml, alone or as one process of torchrun.

    \b
    crackseg train
    torchrun --nproc-per-node 4 -m crackseg train

    On one machine `dvc repro` does the same with train.num_processes; docs/distributed.md has several machines.
    """
    from crackseg.pipeline.killed import work_in_child

    run_own_code(project.root)
    work_in_child(project.root, "train")
    end_silence(train)
    from crackseg.pipeline import train as stage_of_training

    stage_of_training.run(project.root)


@stage.command("threshold")
@with_project
def stage_threshold(project: Project) -> None:
    """Choose the operating threshold, after post-processing.

    \b
    crackseg stage threshold
    """
    _print_heading(project.root, "threshold")
    from crackseg.pipeline import threshold

    threshold.run(project.root)


@stage.command("predict")
@click.argument("dataset")
@with_project
def stage_predict(project: Project, dataset: str) -> None:
    """Predict the probability maps of DATASET.

    \b
    crackseg stage predict CRKWH100
    """
    _print_heading(project.root, "predict", dataset)
    from crackseg.pipeline import predict

    predict.run(project.root, dataset)


@stage.command("evaluate")
@click.argument("dataset")
@with_project
def stage_evaluate(project: Project, dataset: str) -> None:
    """Score the maps of DATASET.

    \b
    crackseg stage evaluate CRKWH100
    """
    _print_heading(project.root, "evaluate", dataset)
    from crackseg.pipeline import evaluate

    evaluate.run(project.root, dataset)


@stage.command("report")
@with_project
def stage_report(project: Project) -> None:
    """Draw the figures and write the report.

    \b
    crackseg stage report
    """
    _print_heading(project.root, "report")
    from crackseg.pipeline import report

    report.run(project.root)


@stage.command("register")
@with_project
def stage_register(project: Project) -> None:
    """Register the model.

    \b
    crackseg stage register
    """
    _print_heading(project.root, "register")
    from crackseg.pipeline import register

    register.run(project.root)
