"""Registered versions for the page: list them, and keep the last used in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from crackseg.data.catalog import warn_of_source
from crackseg.models.shipped import SHIPPED_NAME
from crackseg.registry.loading import LoadedModel, load_model
from crackseg.registry.production import PRODUCTION_ALIAS, Production
from crackseg.registry.version_tags import read_tags

_KEPT = 2  # models in memory: the chosen one, and one to compare it with


@dataclass(frozen=True, slots=True)
class VersionChoices:
    """Versions that can be chosen.

    Attributes:
        choices: (what is shown, the version's number) of each version, the newest first, then the shipped model.
        in_production: the number of the version in production; None if there is none.
        warning: that the version in production must not be used, a sentence; "" if it may be.
    """

    choices: list[tuple[str, str]]
    in_production: str | None
    warning: str = ""


class ModelCache:
    """The registered versions of a model, and the model that crackseg ships.

    Args:
        production: the registered model; None if there is none.
    """

    def __init__(self, production: Production | None) -> None:
        self._production = production
        self._models: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()

    def list_choices(self) -> VersionChoices:
        """Read the registry as it is now.

        Raises:
            CracksegError: it does not answer.
        """
        shipped = (f"{SHIPPED_NAME} · shipped with crackseg", SHIPPED_NAME)
        if self._production is None:
            return VersionChoices([shipped], None)
        state = self._production.read()
        choices = []
        for number, version in reversed(state.versions.items()):
            aliases = sorted((a for a, target in state.aliases.items() if target == number), reverse=True)
            notes = [*aliases, read_tags(version).get("architecture", "")]
            choices.append((" · ".join([f"version {number}", *filter(None, notes)]), number))
        current = state.aliases.get(PRODUCTION_ALIAS)
        tags = read_tags(state.versions[current]) if current in state.versions else {}
        return VersionChoices([*choices, shipped], current, warn_of_source(tags.get("data.source", "")))

    def load(self, version: str) -> LoadedModel:
        """Load a version, or return the one that is in memory.

        Raises:
            CracksegError: there is no such version, or its files are gone or damaged.
        """
        with self._lock:
            model = self._models.pop(version, None) or self._load(version)
            self._models[version] = model  # moved to the end: the least recently used one is removed first
            while len(self._models) > _KEPT:
                del self._models[next(iter(self._models))]
            return model

    def _load(self, version: str) -> LoadedModel:
        if self._production is None or version == SHIPPED_NAME:
            return load_model(SHIPPED_NAME, None)
        return load_model(f"models:/{self._production.name}/{version}", self._production.store.root)
