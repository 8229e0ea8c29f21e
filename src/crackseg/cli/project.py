"""The project that a command works in: `@with_project` hands it to the command."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crackseg.project import Layout, NoProject, find_root

if TYPE_CHECKING:
    from crackseg.params import MeasureParams
    from crackseg.tracking.store import Store


class Project:
    """The project around the current folder; found, and its store opened, when first asked for."""

    @cached_property
    def root(self) -> Path:
        """The folder with params.yaml.

        Raises:
            CracksegError: there is none at or above the current folder.
        """
        return find_root()

    @cached_property
    def measure_params(self) -> MeasureParams:
        """The section ``measure`` of params.yaml; its defaults outside of a project.

        Raises:
            CracksegError: params.yaml is not valid.
        """
        # With its libraries it takes longer to import than the whole command line.
        from crackseg.params import MeasureParams, load_params

        try:
            return load_params(Layout(self.root).params).measure
        except NoProject:
            return MeasureParams()

    @cached_property
    def store(self) -> Store:
        """The tracking store.

        Raises:
            CracksegError: no project, or a store that cannot be opened or does not answer.
        """
        from crackseg.tracking.store import Store

        return Store(self.root)


with_project = click.make_pass_decorator(Project, ensure=True)
"""Call a command with the project as its first argument."""
