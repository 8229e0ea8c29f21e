"""Option `--model` of every command that uses a finished model, and what is loaded for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from crackseg.cli.project import Project

if TYPE_CHECKING:
    from crackseg.registry.loading import LoadedModel

model_option = click.option(
    "--model",
    "uri",
    help="models:/NAME@ALIAS, models:/NAME/VERSION, scenes (shipped), or a folder. [default: @production, or scenes]",
)
threshold_option = click.option(
    "--threshold", type=click.FloatRange(0, 1), help="Instead of the model's operating threshold."
)


def load_chosen_model(project: Project, uri: str | None) -> LoadedModel:
    """Load the model of `--model`; without the option, what is in production, or else the shipped one.

    Raises:
        CracksegError: there is no such model, or a registered one is asked for outside a project.
    """
    from crackseg.registry.loading import load_model
    from crackseg.serving.deployment import find_production

    uri = uri or find_production()
    return load_model(uri, project.root if uri.startswith("models:/") else None)
