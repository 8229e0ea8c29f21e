"""The model that crackseg ships: a small U-Net that ``crackseg pretrain`` trained on drawn scenes alone.

Its files are those of a finished model under other names: a registered version carries this package's code, and its own
``weights.pt`` must be the only file of that name in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

SHIPPED_NAME = "scenes"
_FOLDER = Path(__file__).parent / SHIPPED_NAME
SHIPPED_WEIGHTS = _FOLDER / "unet8.pt"
"""In half precision; float32 again as they are loaded."""
SHIPPED_SETTINGS = _FOLDER / "unet8.json"
SHIPPED_CARD = _FOLDER / "README.md"
SHIPPED_PROBE = _FOLDER / "probe"
"""Drawn photographs with the model's answers, as a registered version has."""

WEIGHTS_BY_WIDTH: Mapping[tuple[str, int | None], Path] = {("unet", 8): SHIPPED_WEIGHTS}
"""Weights that ``model.init: scenes`` loads, by architecture and width."""


def digest_shipped() -> str:
    """Hash the shipped files that decide its answers; CracksegError is left to those that load them."""
    digest = hashlib.sha256()
    for path in (SHIPPED_WEIGHTS, SHIPPED_SETTINGS):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()
