"""Networks: a module for each architecture, the table of architectures (registry), initial weights, weights files."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crackseg.models.registry import ARCHITECTURES, CrackNetwork, build_model

__all__ = ["ARCHITECTURES", "CrackNetwork", "build_model"]


def __getattr__(name: str) -> Any:
    """Import the table when it is first used: commands that only ask for the shipped model's name need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crackseg.models import registry

    return getattr(registry, name)
