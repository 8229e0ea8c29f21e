"""Find the model that a command names, and start the scoring server."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
from pathlib import Path
from typing import NoReturn, TypeGuard

from mlflow.entities.model_registry import ModelVersion

from crackseg.data.catalog import warn_of_source
from crackseg.errors import CracksegError
from crackseg.inference.detector import SETTINGS_NAME, ModelSettings
from crackseg.models.shipped import SHIPPED_CARD, SHIPPED_NAME
from crackseg.ports import check_port
from crackseg.project import NoProject, find_root
from crackseg.registry.card import write_card
from crackseg.registry.loading import pin_alias
from crackseg.registry.production import PRODUCTION_ALIAS, NotRegistered, Production, open_production
from crackseg.registry.shipped import name_model, package_shipped
from crackseg.registry.version_tags import read_tags
from crackseg.tracking.store import Store

_HOST = "127.0.0.1"
_SHIPPED_NOTE = (
    f"using {SHIPPED_NAME}, the model that crackseg ships, which was trained on drawn scenes alone "
    "(docs/shipped-model.md)"
)
_log = logging.getLogger("crackseg")


def find_registered() -> Production | None:
    """Return the registered model of this project; None where there is no project, or no model in its registry.

    Raises:
        CracksegError: the registry does not answer.
    """
    try:
        root = find_root()
    except NoProject:
        return None
    try:
        return open_production(root)
    except NotRegistered:
        return None


def find_production() -> str:
    """Return the URI of the version in production; a promotion that was interrupted is finished first.

    Where nothing is in production, the model that crackseg ships, which is said in one line.

    Raises:
        CracksegError: the registry does not answer.
    """
    production = find_registered()
    for note in production.repair() if production else ():
        _log.warning("note: %s", note)
    if has_production(production):
        return f"models:/{production.name}@{PRODUCTION_ALIAS}"
    return SHIPPED_NAME


def has_production(production: Production | None) -> TypeGuard[Production]:
    """Return True if a version is in production; if not, say in one line that the shipped model is used."""
    if production is not None and PRODUCTION_ALIAS in production.read().aliases:
        return True
    missing = (
        "no model is registered here"
        if production is None
        else f"no version of {production.name} is in production (`crackseg promote`)"
    )
    _log.warning("note: %s: %s", missing, _SHIPPED_NOTE)
    return False


def find_model(uri: str | None) -> tuple[str, Store | None]:
    """Find a model and the store it is registered in.

    Args:
        uri: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``scenes`` (the shipped one) or a folder; None: what
            is in production, or else the shipped one.
    Returns:
        ``models:/NAME/VERSION`` and its store; or the folder and None.
    Raises:
        CracksegError: no such model.
    """
    uri = uri or find_production()
    if uri == SHIPPED_NAME:
        return str(package_shipped()), None
    if Path(uri).is_dir():
        if not (Path(uri) / "MLmodel").is_file():
            raise CracksegError(f"--model {uri}: the folder holds no MLmodel; expected a downloaded version")
        return str(Path(uri).resolve()), None
    store, version = _find_version(uri)
    return f"models:/{version.name}/{version.version}", store


def find_warning(model_uri: str, store: Store | None) -> str:
    """Return the warning of a model that must not be used, a sentence; "" for others.

    Args:
        model_uri, store: from :func:`find_model`.
    """
    if store:
        name, version = model_uri.removeprefix("models:/").split("/")
        return warn_of_source(read_tags(store.get_version(name, version)).get("data.source", ""))
    found = sorted(Path(model_uri).rglob(SETTINGS_NAME))
    return warn_of_source(ModelSettings.read(found[0]).data_source) if found else ""


def run_scoring_server(
    model_uri: str,
    store: Store | None,
    *,
    port: int,
    max_bytes: int,
    max_pixels: int,
    timeout_s: int,
    warning: str = "",
) -> NoReturn:
    """Replace this process by the scoring server; see ``crackseg.serving.http``.

    Args:
        model_uri, store: from :func:`find_model`.
        port: on 127.0.0.1.
        max_bytes: of a request.
        max_pixels: of its images together.
        timeout_s: after which a request is given up with status 504.
        warning: from :func:`find_warning`; every answer carries it.
    Raises:
        CracksegError: the port is taken.
    """
    check_port(_HOST, port)
    spec = importlib.util.find_spec("crackseg.serving.http")
    assert spec
    assert spec.origin
    environment = os.environ | {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": str(timeout_s)}
    if store:
        environment["MLFLOW_TRACKING_URI"] = store.uri
    sys.stdout.flush()
    os.execve(
        sys.executable,
        [
            sys.executable, "-I", spec.origin, model_uri,
            f"--port={port}", f"--max-bytes={max_bytes}", f"--max-pixels={max_pixels}",
            f"--warning={warning}", f"--name={name_model(model_uri)}",
        ],
        environment,
    )  # fmt: skip


def renew_card(uri: str | None) -> str:
    """Write the model card of a registered version again and return it; the shipped model's is returned as it is."""
    uri = uri or find_production()
    return SHIPPED_CARD.read_text(encoding="utf-8") if uri == SHIPPED_NAME else write_card(*_find_version(uri))


def _find_version(uri: str) -> tuple[Store, ModelVersion]:
    store = Store(find_root())
    match = re.fullmatch(r"models:/([^/@]+)/(\d+)", pin_alias(uri, store))
    if match is None:
        raise CracksegError(
            f"--model {uri}: expected models:/NAME@ALIAS, models:/NAME/VERSION with a number, {SHIPPED_NAME}, or a "
            "version's folder"
        )
    return store, store.get_version(*match.groups())
