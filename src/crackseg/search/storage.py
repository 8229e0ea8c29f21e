"""Where studies are kept: any storage of Optuna's, made patient with a server that goes away."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from crackseg.errors import CracksegError
from crackseg.project_folder import find_real_root
from crackseg.store_address import resolve_uri

PATIENCE_S = 900  # how long a server may be away before a study gives up
_RETRY_S = 2.0
_EXPECTED = (
    "expected a URL such as postgresql://USER@HOST/DATABASE, mysql://…, redis://… or grpc://HOST:PORT, "
    "or the path of a journal file"
)


class StorageGoneError(CracksegError):
    """The storage did not answer for :data:`PATIENCE_S`."""


class PatientStorage(BaseStorage):
    """A storage that waits for its server: a study must not end because a database is restarted.

    Args:
        inner: what is asked.
    """

    def __init__(self, inner: BaseStorage) -> None:
        self.inner = inner
        self.num_outages = 0
        """How often the server was away so far; what was seen before an outage says nothing of who is alive."""
        self._patience_s = PATIENCE_S

    def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        started = None
        while True:
            try:
                return getattr(self.inner, name)(*args, **kwargs)
            except Exception as error:
                if not _is_outage(error):
                    raise
                now = time.monotonic()
                if started is None:
                    started = now
                    self.num_outages += 1
                if now - started > self._patience_s:
                    self._patience_s = 0  # who stops because of it has no need to wait again
                    raise StorageGoneError(
                        f"the storage of the study did not answer for {PATIENCE_S} s: {_first_line(error)}; the same "
                        "command goes on when it is back"
                    ) from error
                time.sleep(_RETRY_S)


def _asking(name: str) -> Callable:
    def method(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self._ask(name, *args, **kwargs)

    return method


for _name in dir(BaseStorage):
    if not _name.startswith("_") and callable(getattr(BaseStorage, _name)):
        setattr(PatientStorage, _name, _asking(_name))
abc.update_abstractmethods(PatientStorage)  # type: ignore[type-abstract]  # mypy does not see the loop


def default_storage(home: Path) -> str:
    """The journal file in ``mlruns/``; safe for any number of processes on one machine."""
    return str(home / "search" / "journal.log")


def open_storage(address: str, *, patience_s: float = 0) -> PatientStorage:
    """Open a storage by its URL, or by the path of a journal file.

    Args:
        address: URL or path.
        patience_s: how long to wait for a server that is away; a user who gives an address is told at once.
    Raises:
        CracksegError: it cannot be reached, is of an unknown kind, or needs a package that is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    address = _make_absolute(address)
    try:
        return PatientStorage(_open_patiently(address, patience_s))  # type: ignore[abstract]
    except ImportError as error:
        raise CracksegError(
            f"--storage {without_password(address)}: its driver is not installed ({error}); for PostgreSQL, "
            "pip install 'crackseg[team]'"
        ) from error
    except CracksegError:
        raise
    except Exception as error:  # SQLAlchemy, Redis, gRPC and the file system all have their own here
        raise CracksegError(
            f"--storage {without_password(address)} cannot be reached: {_first_line(error)}; {_EXPECTED}"
        ) from error


def _make_absolute(address: str) -> str:
    """Take a relative file from the current folder; in a temporary copy of a DVC experiment, from the project."""
    folder = find_real_root(Path.cwd())
    if address.startswith("sqlite"):
        return resolve_uri(address, folder, said_by="--storage")
    return address if "://" in address else str(folder / address)


def _open_patiently(address: str, patience_s: float) -> BaseStorage:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _open(address)
        except Exception as error:
            if not _is_outage(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)


def _open(address: str) -> BaseStorage:
    scheme, separator, rest = address.partition("://")
    if not separator:
        path = Path(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    if scheme in ("redis", "rediss"):
        return JournalStorage(JournalRedisBackend(address))
    if scheme == "grpc":
        host, _, port = rest.rstrip("/").partition(":")
        proxy = GrpcStorageProxy(host=host, port=int(port or 13000))
        proxy.wait_server_ready(timeout=10)
        return proxy
    if scheme in ("postgresql", "postgres"):
        address = f"postgresql+psycopg://{rest}"
    if address.startswith("postgresql"):
        # A host that is switched off answers nothing; the system's own patience is two minutes.
        return get_storage(RDBStorage(address, engine_kwargs={"connect_args": {"connect_timeout": 10}}))
    return get_storage(address)


def _is_outage(error: Exception) -> bool:
    """Whether it may be over later: no connection, or one that was lost."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    # A connection lost between two statements of one transaction shows as PendingRollbackError.
    if isinstance(cause, OperationalError | InterfaceError | PendingRollbackError | ConnectionError):
        return True
    return isinstance(cause, DBAPIError) and cause.connection_invalidated


def _first_line(error: BaseException) -> str:
    if isinstance(error, StorageInternalError) and error.__cause__:  # says only that something went wrong
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def without_password(address: str) -> str:
    """The address as it may be shown."""
    head, at, tail = address.rpartition("@")
    user, colon, _ = head.rpartition(":")
    return f"{user}:***@{tail}" if at and colon and not user.endswith("//") and "//" in user else address
