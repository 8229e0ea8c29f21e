"""Files of the model that crackseg ships: a small U-Net that was trained on drawn scenes alone.

They have other names than those of a registered version: a version carries this package's code, and its own
``weights.pt`` must be the only file of that name in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

SHIPPED_NAME = "scenes"
_FOLDER = Path(__file__).parent / SHIPPED_NAME
SHIPPED_WEIGHTS = _FOLDER / "unet8.pt"
"""Weights in half precision; loading makes them float32 again."""
SHIPPED_SETTINGS = _FOLDER / "unet8.json"
SHIPPED_CARD = _FOLDER / "README.md"
SHIPPED_PROBE = _FOLDER / "probe"
"""Drawn photographs with the model's answers, as a registered version has."""

WEIGHTS_BY_WIDTH: Mapping[tuple[str, int | None], Path] = {("unet", 8): SHIPPED_WEIGHTS}
"""Files that ``model.init: scenes`` loads, by architecture and width."""


def digest_shipped() -> str:
    """Hash the files that decide the shipped model's answers."""
    return digest_model(SHIPPED_WEIGHTS, SHIPPED_SETTINGS)


def digest_model(weights_path: Path, settings_path: Path) -> str:
    """Hash the files that decide a model's answers; a missing file counts as empty, and loading it is an error."""
    digest = hashlib.sha256()
    for path in (weights_path, settings_path):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()
