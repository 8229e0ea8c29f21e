"""The tracking store: where it is, opening and resuming runs, records that wait for it."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Give ``Store`` under its former name, for one release."""
    if name != "Store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crackseg.tracking.store import Store

    return Store
