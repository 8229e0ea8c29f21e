"""`crackseg stage`: the pipeline's stages, as dvc.yaml calls them."""

from __future__ import annotations

import click


@click.group()
@click.pass_context
def stage(context: click.Context) -> None:
    """The pipeline's stages, as dvc.yaml calls them; use `dvc repro`.

    \b
    crackseg stage train
    """
    from crackseg.pipeline.killed import work_in_child
    from crackseg.project import find_root, run_own_code

    root = find_root()
    run_own_code(root)
    work_in_child(root, context.invoked_subcommand or "")


@stage.command("prepare")
def stage_prepare() -> None:
    """Check and resize the data.

    \b
    crackseg stage prepare
    """
    from crackseg.pipeline import prepare
    from crackseg.project import find_root

    prepare.run(find_root())


@stage.command("train")
def stage_train() -> None:
    """Train, or go on with a training that was killed.

    \b
    crackseg stage train
    """
    from crackseg.pipeline import train
    from crackseg.project import find_root

    train.run(find_root())


@click.command()
def train() -> None:
    """Train the model of params.yaml, alone or as one process of torchrun.

    \b
    crackseg train
    torchrun --nproc-per-node 4 -m crackseg train

    On one machine `dvc repro` does the same with train.num_processes; docs/distributed.md has several machines.
    """
    from crackseg.pipeline.killed import work_in_child
    from crackseg.project import find_root, run_own_code

    root = find_root()
    run_own_code(root)
    work_in_child(root, "train")
    from crackseg.pipeline import train as stage_of_training

    stage_of_training.run(root)


@stage.command("predict")
@click.argument("dataset")
def stage_predict(dataset: str) -> None:
    """Predict the probability maps of DATASET.

    \b
    crackseg stage predict CRKWH100
    """
    from crackseg.pipeline import predict
    from crackseg.project import find_root

    predict.run(find_root(), dataset)


@stage.command("evaluate")
@click.argument("dataset")
def stage_evaluate(dataset: str) -> None:
    """Score the maps of DATASET.

    \b
    crackseg stage evaluate CRKWH100
    """
    from crackseg.pipeline import evaluate
    from crackseg.project import find_root

    evaluate.run(find_root(), dataset)


@stage.command("report")
def stage_report() -> None:
    """Draw the figures and write the report.

    \b
    crackseg stage report
    """
    from crackseg.pipeline import report
    from crackseg.project import find_root

    report.run(find_root())


@stage.command("register")
def stage_register() -> None:
    """Register the model.

    \b
    crackseg stage register
    """
    from crackseg.pipeline import register
    from crackseg.project import find_root

    register.run(find_root())
