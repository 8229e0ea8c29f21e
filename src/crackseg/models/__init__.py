"""Networks: a module for each architecture, the table of architectures (registry), initial weights, weights files."""

from crackseg.models.registry import ARCHITECTURES, CrackNetwork, build_model

__all__ = ["ARCHITECTURES", "CrackNetwork", "build_model"]
