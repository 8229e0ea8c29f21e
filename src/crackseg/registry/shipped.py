"""The shipped model where a version of the registry is expected: as a folder that MLflow loads and serves."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import mlflow

from crackseg.files import user_cache
from crackseg.lineage import PACKAGE, hash_modules
from crackseg.models.shipped import SHIPPED_NAME, SHIPPED_PROBE, SHIPPED_SETTINGS, SHIPPED_WEIGHTS, digest_shipped
from crackseg.registry.register import packaging

SHIPPED_LABEL = f"{SHIPPED_NAME} (shipped with crackseg)"
_PREFIX = f"{SHIPPED_NAME}-"
_KEPT_S = 30 * 86_400


def package_shipped() -> Path:
    """Make the folder that ``mlflow.pyfunc.load_model`` takes, once for each version of crackseg's code.

    Raises:
        CracksegError: the shipped files are damaged.
    """
    folder = user_cache() / f"{_PREFIX}{_digest()}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    artifacts = {"weights": SHIPPED_WEIGHTS, "settings": SHIPPED_SETTINGS, "probe": SHIPPED_PROBE}
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, packaging(artifacts) as arguments:
        made = Path(scratch) / "model"
        mlflow.pyfunc.save_model(path=str(made), **arguments)
        try:
            made.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    # Folders of other versions of the code; a server may still run from one that is not old.
    for other in folder.parent.glob(f"{_PREFIX}*"):
        if other.stat().st_mtime < time.time() - _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def name_model(uri: str) -> str:
    """Return the name of a model for people: ``scenes`` for the folder of the shipped one, other URIs unchanged."""
    path = Path(uri)
    return SHIPPED_NAME if path.parent == user_cache() and path.name.startswith(_PREFIX) else uri


def _digest() -> str:
    code = hash_modules(sorted(PACKAGE.rglob("*.py")))
    return hashlib.sha256((digest_shipped() + code).encode()).hexdigest()[:16]
