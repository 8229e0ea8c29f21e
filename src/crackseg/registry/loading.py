"""Load a finished model by its name in the registry, or from a folder."""

from __future__ import annotations

import copy
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from crackseg.errors import CracksegError
from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME, CrackAnalyzer
from crackseg.models.shipped import SHIPPED_NAME, SHIPPED_SETTINGS, SHIPPED_WEIGHTS, digest_model
from crackseg.tracking.fetching import fetch_model
from crackseg.tracking.store import Store


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, ready to use.

    Attributes:
        analyzer: the model.
        uri: ``models:/NAME/VERSION``, also if an alias was asked for; or the folder.
        digest: of the weights and of the settings, 16 hexadecimal digits.
    """

    analyzer: CrackAnalyzer
    uri: str
    digest: str

    def averaging_flips(self, flips: bool) -> LoadedModel:
        """Return a model of the same weights that averages over flips, or does not; its digest says so."""
        predictor = copy.copy(self.analyzer.predictor)
        if flips == predictor.params.flips:
            return self
        predictor.params = predictor.params.model_copy(update={"flips": flips})
        analyzer = CrackAnalyzer(predictor, self.analyzer.settings)
        return LoadedModel(analyzer, self.uri, f"{self.digest}{'+' if flips else '-'}flips")


def load_model(uri: str, root: Path | None) -> LoadedModel:
    """Load a finished model.

    Args:
        uri: ``scenes``, the model that crackseg ships; ``models:/NAME/VERSION``, ``models:/NAME@ALIAS``,
            ``models:/NAME/STAGE``; or a folder that holds ``weights.pt`` and ``settings.json``, at any depth (a
            version as it was downloaded).
        root: the project with the store where it is registered; not needed for the shipped model or a folder.
    Raises:
        CracksegError: there is no such model, or it is not one that was registered by crackseg.
    """
    if uri == SHIPPED_NAME:
        return _load_files(SHIPPED_WEIGHTS, SHIPPED_SETTINGS, uri)
    if Path(uri).is_dir():
        return _load_folder(Path(uri), uri)
    if not uri.startswith("models:/"):
        raise CracksegError(
            f"--model {uri}: no such folder; expected {SHIPPED_NAME}, models:/NAME@production, models:/NAME/VERSION or "
            f"a folder with {WEIGHTS_NAME} and {SETTINGS_NAME}"
        )
    if root is None:
        raise CracksegError(f"{uri}: only a project knows registered models; run crackseg in its folder")
    pinned = pin_alias(uri, Store(root))
    with tempfile.TemporaryDirectory() as scratch:
        return _load_folder(fetch_model(pinned, Path(scratch)), pinned)


def pin_alias(uri: str, store: Store) -> str:
    """Replace ``models:/NAME@ALIAS`` or ``models:/NAME/STAGE`` by the current version; return other URIs unchanged.

    Raises:
        CracksegError: no version has that alias, or is in that stage.
    """
    match = re.fullmatch(r"models:/([^/@]+)([/@])(?!(?:\d+|latest)$)([^/@]+)", uri)
    if match is None:
        return uri
    name, separator, alias = match.groups()
    version = store.find_version(name, alias) if separator == "@" else store.find_version(name, stage=alias)
    if version is not None:
        return f"models:/{name}/{version}"
    candidate = store.find_version(name, "candidate")
    if candidate is None:
        advice = "train and register a model first, with `dvc repro`"
    elif alias.lower() == "production":
        advice = f"promote one with `crackseg promote`, or try the newest with --model models:/{name}@candidate"
    else:
        advice = f"there is models:/{name}@candidate; `crackseg ui` shows the others"
    raise CracksegError(f"{uri}: no version of {name} is called {alias} in {store.uri}; {advice}")


def _load_folder(folder: Path, uri: str) -> LoadedModel:
    files = {name: sorted(folder.rglob(name)) for name in (WEIGHTS_NAME, SETTINGS_NAME)}
    for name, found in files.items():
        if len(found) != 1:
            raise CracksegError(
                f"{uri}: expected one {name} in it, found {len(found)}; a model that was registered before it carried "
                f"{SETTINGS_NAME} must be registered again (`dvc repro --force --single-item register`)"
            )
    return _load_files(files[WEIGHTS_NAME][0], files[SETTINGS_NAME][0], uri)


def _load_files(weights_path: Path, settings_path: Path, uri: str) -> LoadedModel:
    for path in (weights_path, settings_path):
        if not path.is_file():
            raise CracksegError(f"{uri}: {path} is missing; install crackseg again")
    digest = digest_model(weights_path, settings_path)[:16]
    return LoadedModel(CrackAnalyzer.load(weights_path, settings_path), uri, digest)
