"""Option `--model` of every command that uses a finished model, and what is loaded for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from crackseg.cli.finite_range import FiniteRange
from crackseg.cli.project import Project

if TYPE_CHECKING:
    from crackseg.registry.loading import LoadedModel

model_option = click.option(
    "--model",
    "uri",
    help="models:/NAME@ALIAS, models:/NAME/VERSION, scenes (shipped), or a folder. [default: @production, or scenes]",
)
threshold_option = click.option(
    "--threshold", type=FiniteRange(0, 1), help="Instead of the model's operating threshold."
)
flips_option = click.option(
    "--flips/--no-flips",
    default=None,
    help="Average over flips: better, and four times as slow. [default: as the model was trained]",
)


def load_chosen_model(project: Project, uri: str | None, *, flips: bool | None = None) -> LoadedModel:
    """Load the model of `--model`; without the option, what is in production, or else the shipped one.

    Args:
        uri: of `--model`.
        flips: whether it averages over flips; None: as its settings say.
    Raises:
        CracksegError: there is no such model, or a registered one is asked for outside a project.
    """
    from crackseg.registry.loading import load_model
    from crackseg.serving.deployment import find_production

    uri = uri or find_production()
    model = load_model(uri, project.root if uri.startswith("models:/") else None)
    return model if flips is None else model.averaging_flips(flips)
