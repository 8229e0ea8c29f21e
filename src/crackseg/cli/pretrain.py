"""`crackseg pretrain`: the model that crackseg ships, trained again on drawn scenes."""

from __future__ import annotations

from pathlib import Path

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.project import Project, with_project


@click.command()
@click.option("--out", "out_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@click.option(
    "--minutes", default=10.0, show_default=True, type=FiniteRange(min=0, min_open=True), help="Of training."
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the scenes, instead of --minutes.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of scenes, patches, weights.")
@click.option(
    "--look", "looks", multiple=True,
    help="What the scenes look like; may be repeated, or all (docs/shipped-model.md). [default: the sample's four]",
)  # fmt: skip
@click.option(
    "--element", "elements", multiple=True,
    help="What is drawn over the patches; may be repeated, or all (docs/shipped-model.md). "
    "[default: all negatives but one]",
)  # fmt: skip
@click.option(
    "--init", default="random", show_default=True,
    help="First weights: random, scenes, a file, or the model folder of a former run.",
)  # fmt: skip
@click.option(
    "--mix", nargs=2, default=("", 0.0), type=(str, FiniteRange(0, 1, max_open=True)), metavar="MODEL FRACTION",
    help="Another model, as for --init, and the fraction of its weights in the saved ones.",
)  # fmt: skip
@click.option(
    "--lr", type=FiniteRange(min=0, min_open=True),
    help="Highest learning rate of the cycle. [default: 0.003; with --init 0.002]",
)  # fmt: skip
@click.option(
    "--flip-agreement", default=0.0, show_default=True, type=FiniteRange(min=0), metavar="WEIGHT",
    help="Of a second term of the loss: one pass learns the average over flips (train.flip_agreement).",
)  # fmt: skip
@click.option(
    "--check", "checks", multiple=True, metavar="DATASET",
    help="Imported photographs that are scored at each validation and train nothing; may be repeated.",
)  # fmt: skip
@click.option(
    "--scenes", "num_scenes", default=600, show_default=True, type=click.IntRange(1), help="To train on."
)
@with_project
def pretrain(
    project: Project,
    out_dir: Path,
    minutes: float,
    epochs: int | None,
    seed: int,
    looks: tuple[str, ...],
    elements: tuple[str, ...],
    init: str,
    mix: tuple[str, float],
    lr: float | None,
    flip_agreement: float,
    checks: tuple[str, ...],
    num_scenes: int,
) -> None:
    """Train a small U-Net on drawn scenes alone, as the model that crackseg ships.

    The scenes are rendered while it trains. A run that was killed is resumed by the same command.

    \b
    crackseg pretrain --out pretrained --minutes 15
    crackseg predict photographs --out found --model pretrained/model
    """
    from crackseg.pipeline.pretrain import pretrain as train_on_scenes

    model_dir = train_on_scenes(
        project.root,
        out_dir,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        looks=looks,
        elements=elements,
        init=init,
        mix=mix,
        lr=lr,
        flip_agreement=flip_agreement,
        checks=checks,
        num_scenes=num_scenes,
    )
    click.echo(f"the model is in {model_dir}: crackseg predict PHOTOGRAPHS --out FOUND --model {model_dir}")
