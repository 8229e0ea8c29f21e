"""Fetch the files of registered models, and the initial weights of a training run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow

from crackseg.errors import CracksegError, first_line
from crackseg.files import hash_file
from crackseg.tracking.store import Store


@contextmanager
def fetched_init(init: str, store: Store) -> Iterator[tuple[str, str]]:
    """Yield the initial weights, as a name or a local file, and the digest of that file ("" for a name).

    The digest is part of a training run's key: a file may change, and an alias may move, under the same name.

    Weights that crackseg ships have a digest too: another version of crackseg may ship others.

    Args:
        init: ``model.init`` of params.yaml.
        store: where ``models:/…`` comes from; the paths of files are below its project folder.
    Raises:
        CracksegError: see :func:`fetch_weights`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if init.startswith(("models:/", "runs:/")):
            init = str(fetch_weights(init, Path(scratch)))
        for path in (store.root / init, store.home.parent / init):  # DVC's clone has only what git or DVC tracks
            if path.is_file():
                yield str(path), hash_file(path)
                return
        from crackseg.models.shipped import SHIPPED_NAME, digest_shipped  # with torch, which only a training needs

        yield init, digest_shipped() if init == SHIPPED_NAME else ""


def fetch_weights(uri: str, folder: Path) -> Path:
    """Download the weights of ``models:/NAME/VERSION`` (or ``models:/NAME@ALIAS``) into ``folder``.

    Raises:
        CracksegError: there is no such version, or it is not a crackseg model.
    """
    weights = sorted(fetch_model(uri, folder).rglob("weights.pt"))
    if not weights:
        raise CracksegError(f"{uri} is not a model of crackseg: it holds no weights.pt")
    return weights[0]


def fetch_model(uri: str, folder: Path) -> Path:
    """Download the folder of ``models:/NAME/VERSION`` (or ``models:/NAME@ALIAS``) into ``folder``.

    Raises:
        CracksegError: there is no such version, or the store does not answer.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as error:  # MLflow, requests and the file system all have their own here
        raise CracksegError(
            f"the model {uri} cannot be fetched from {mlflow.get_tracking_uri()}: "
            f"{first_line(error)}; `mlflow ui` shows the registered versions"
        ) from error
