"""The tracking store: where it is, opening and resuming runs, records that wait for it."""

import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    """Give ``Store`` under its former name, for one release, with a warning that names the new one."""
    if name != "Store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crackseg.tracking.store import Store

    text = "crackseg.tracking.Store is crackseg.tracking.store.Store now; the former name goes in the next release"
    warnings.warn(text, FutureWarning, 2)
    return Store
