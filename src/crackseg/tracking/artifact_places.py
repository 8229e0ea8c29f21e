"""Check that a store's artifacts exist: MLflow's database holds absolute paths, which break when a folder moves."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from crackseg.project import find_real_root


def describe_lost_artifacts(experiment: str, location: str) -> str | None:
    """Say that an experiment's artifacts are not where the store says; None if they are, or on a server.

    MLflow would show no artifacts, and write new ones to the old place.

    Args:
        experiment: its name.
        location: its artifact location: a path, a ``file:`` URI or the URI of a server.
    """
    parsed = urlparse(location)
    if parsed.scheme not in ("", "file"):
        return None
    path = Path(url2pathname(parsed.path))
    if find_real_root(path) != path:
        return (
            f"the artifacts of experiment {experiment!r} go to {path}, a temporary copy that DVC deletes. Choose "
            "another experiment with MLFLOW_EXPERIMENT_NAME; its artifacts go to the project's mlruns/artifacts"
        )
    if path.is_dir() or path.parent.is_dir():  # the folder itself is made with its first file
        return None
    return (
        f"the artifacts of experiment {experiment!r} should be in {path}, and there is no such folder: the store "
        "was moved or copied, and it keeps absolute paths. Make that path a link to where the artifacts are now; "
        "`crackseg store export` and `import` then carry them to any place"
    )
