"""Resolve the tracking store's address: relative paths start at the real project folder, wherever a command runs.

MLflow would resolve a relative address from the current folder: in a temporary copy of a DVC experiment the runs would
be deleted with it, and in a sub-folder a second store would appear.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from crackseg.errors import CracksegError, first_line
from crackseg.project import find_real_root

_TRACKING, _REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
_BARE_NAMES = ("databricks", "databricks-uc", "uc")  # MLflow's addresses without a scheme
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_EXAMPLES = "expected e.g. sqlite:///mlflow.db, sqlite:////ABSOLUTE/mlflow.db or http://HOST:5000"


def local_uri(home: Path) -> str:
    """Return the address of the store that needs no server: ``mlruns/mlflow.db``."""
    return f"sqlite:///{(home / 'mlflow.db').as_posix()}"


def find_tracking_uri(root: Path) -> str:
    """Return the absolute address of a project's tracking store: MLFLOW_TRACKING_URI, or else the local one.

    Args:
        root: the project folder or DVC's clone of it.
    Raises:
        CracksegError: the variable names a store that would keep nothing, or nowhere.
    """
    real_root = find_real_root(root)
    local = local_uri(real_root / "mlruns")
    uri = os.environ.get(_TRACKING, "").strip()
    if not uri:
        return local
    uri = resolve_uri(uri, real_root, said_by=_TRACKING)
    # The project brings mlflow.db as a link to the local store.
    return local if _is_same_file(database_path(uri), database_path(local)) else uri


def find_registry_uri(root: Path) -> str | None:
    """Return the absolute address of a separate registry, MLFLOW_REGISTRY_URI; None: it is in the tracking store.

    Raises:
        CracksegError: see :func:`find_tracking_uri`.
    """
    uri = os.environ.get(_REGISTRY, "").strip()
    return resolve_uri(uri, find_real_root(root), said_by=_REGISTRY) if uri else None


def resolve_uri(uri: str, folder: Path, *, said_by: str) -> str:
    """Make the address of a file or folder absolute; a server's stays as it is.

    Args:
        uri: ``sqlite:///x.db``, ``./mlruns``, ``file:mlruns``, or the URL of a server or database.
        folder: what relative addresses start from.
        said_by: variable or option that names the address, for messages.
    Raises:
        CracksegError: a database in memory, or a misspelt address of a file.
    """
    if re.match(r"sqlite(\+\w+)?:", uri):
        return _resolve_database(uri, folder, said_by)
    if uri.startswith("file:"):
        parsed = urlparse(uri)
        if parsed.netloc not in ("", "localhost"):
            raise CracksegError(
                f"{said_by}={uri} names the host {parsed.netloc!r}; expected file:FOLDER below the project, or "
                "file:///ABSOLUTE/FOLDER"
            )
        return _resolve_folder(url2pathname(parsed.path), uri, folder)
    # A drive of Windows looks like a scheme of one letter.
    if uri in _BARE_NAMES or len(urlparse(uri).scheme) > 1:
        return uri
    return _resolve_folder(uri, uri, folder)


def _resolve_database(uri: str, folder: Path, said_by: str) -> str:
    match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(file:)?([^?]*)(\?.*)?", uri)
    if match is None:
        in_memory = re.fullmatch(r"sqlite(\+\w+)?:/?/?", uri)
        raise CracksegError(_refuse_memory(uri, said_by) if in_memory else f"{said_by}={uri}: {_EXAMPLES}")
    scheme, prefix, path, options = (part or "" for part in match.groups())
    if not path or path == ":memory:" or "mode=memory" in options:
        raise CracksegError(_refuse_memory(uri, said_by))
    if Path(path).is_absolute() or (prefix and path.startswith("/")):
        return uri
    return f"{scheme}{prefix}{Path(os.path.abspath(folder / path)).as_posix()}{options}"


def _refuse_memory(uri: str, said_by: str) -> str:
    return f"{said_by}={uri} is a database in memory, which keeps nothing; {_EXAMPLES}"


def _resolve_folder(path: str, uri: str, folder: Path) -> str:
    return uri if Path(path).is_absolute() else Path(os.path.abspath(folder / path)).as_uri()


def database_path(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for other stores."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///(?:file:)?([^?]*)(?:\?.*)?", uri)
    return Path(match[1]) if match else None


def is_on_server(uri: str) -> bool:
    """Return whether the store is behind a server, which decides where artifacts go."""
    return uri in _BARE_NAMES or urlparse(uri).scheme in ("http", "https", "databricks", "databricks-uc", "uc")


def find_endpoint(uri: str) -> tuple[str, int] | None:
    """Return the host and port of a server or database; None if the address has none or its kind is unknown."""
    parsed = urlparse(uri)
    try:
        port = parsed.port or _PORTS.get(parsed.scheme.split("+")[0])
    except ValueError:  # no number
        return None
    return (parsed.hostname, port) if parsed.hostname and port else None


def refuse_file_store(uri: str) -> str | None:
    """Say why a folder of files, MLflow's former kind of store, is not opened; None if it is opened or is no folder."""
    is_folder = uri not in _BARE_NAMES and (len(urlparse(uri).scheme) <= 1 or uri.startswith("file:"))
    if not is_folder or os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        return None
    return (
        f"the tracking store {uri} is a folder of files, which MLflow 3 opens only with MLFLOW_ALLOW_FILE_STORE=true; "
        f"better unset {_TRACKING}, which means mlruns/mlflow.db, or set it to sqlite:///mlflow.db (`mlflow "
        "migrate-filestore` brings the former runs there)"
    )


def make_place(uri: str, real_root: Path) -> None:
    """Create the folder of a database file below the project; one elsewhere may be misspelt and is not created."""
    path = database_path(uri)
    if path is not None and path.is_relative_to(real_root):
        path.parent.mkdir(parents=True, exist_ok=True)


def explain_refusal(uri: str, reason: str) -> str:
    """Say why a store cannot be opened, and what to do."""
    if refused := refuse_file_store(uri):
        return refused
    path = database_path(uri)
    if path is not None:
        advice = f"check {_TRACKING}, and that {path.parent} exists and can be written"
    else:
        advice = f"check {_TRACKING} and that the server runs"
    return f"the tracking store {hide_password(uri)} cannot be opened or written: {reason}; {advice}"


def explain_database(error: BaseException) -> str:
    """Give the reason of a database's error in a line; SQLite's own words stand below SQLAlchemy's."""
    if "database or disk is full" in str(error):
        return "No space left on device; make room, and start the same command again"
    return first_line(error)


def describe_silence(uri: str, reason: str) -> str:
    """Say that a store does not answer, and why."""
    kind = "store" if database_path(uri) else "server at"
    return f"the tracking {kind} {hide_password(uri)} does not answer" + (f" ({reason})" if reason else "")


def hide_password(uri: str) -> str:
    """Return the address without its password."""
    parsed = urlparse(uri)
    return uri.replace(f":{parsed.password}@", ":…@") if parsed.password else uri


def _is_same_file(*paths: Path | None) -> bool:
    first, *others = (path.resolve() if path else None for path in paths)
    return first is not None and all(first == other for other in others)
