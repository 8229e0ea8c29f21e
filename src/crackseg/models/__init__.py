"""The networks: a file for each architecture, the table of them (registry), initial weights, weights files."""

from crackseg.models.registry import ARCHITECTURES, CrackNetwork, build_model

__all__ = ["ARCHITECTURES", "CrackNetwork", "build_model"]
