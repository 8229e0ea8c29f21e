"""Storage of studies: Optuna's RDBStorage, whose heartbeats show which workers are alive."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from crackseg.errors import CracksegError, first_line
from crackseg.files import write_bytes
from crackseg.project import find_real_root
from crackseg.tracking.store_address import resolve_uri

HEARTBEAT_S = 15
GRACE_S = 60  # without a heartbeat, by the database's clock, after which a worker counts as dead
PATIENCE_S = 900  # how long a server may be away before a study gives up
_RETRY_S = 2.0
_BUSY_S = 60  # SQLite waits so long for another writer
_CONNECT_S = 10  # a host that is switched off does not answer; the system would wait two minutes
_EXPECTED = "expected a URL, e.g. postgresql://USER@HOST/DATABASE or sqlite:///FILE, or the path of a SQLite file"
T = TypeVar("T")

# Heartbeats, the GP sampler and grouped TPE are marked as experimental; they are chosen by name.
warnings.simplefilter("ignore", ExperimentalWarning)


class StorageGoneError(CracksegError):
    """The storage did not answer, for :data:`PATIENCE_S` in a search."""


class Storage(RDBStorage):
    """Optuna's database storage for workers that outlive a restart of the database.

    Args:
        url: of the database, as SQLAlchemy takes it.
        options: for SQLAlchemy's engine.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        options = {"pool_pre_ping": True, **options}
        super().__init__(url, options, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
        self._patience_s = PATIENCE_S
        self._wait_for_heartbeats()
        # Closed at the end, a SQLite database is one file again: a copy of it without its `-wal` would lack trials.
        weakref.finalize(self, self.engine.dispose)

    def _wait_for_heartbeats(self) -> None:
        """Treat no worker as dead yet: while the database was away, none could record a heartbeat."""
        self._judges_from = time.monotonic() + 2 * HEARTBEAT_S

    def record_heartbeat(self, trial_id: int) -> None:
        """Record a heartbeat; ignore an outage, which would end Optuna's thread: the next one may succeed."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if not _is_outage(error):
                raise
            self._wait_for_heartbeats()

    def list_stale_trials(self, study_id: int) -> list[int]:
        """List ids of running trials whose worker has recorded no heartbeat for :data:`GRACE_S`."""
        return [] if time.monotonic() < self._judges_from else self._get_stale_trial_ids(study_id)

    def patiently(self, action: Callable[[], T]) -> T:
        """Run an action on the storage; repeat it from its beginning while the server is away.

        Raises:
            StorageGoneError: it was away for :data:`PATIENCE_S`.
        """
        deadline = None
        while True:
            try:
                return action()
            except Exception as error:
                if not _is_outage(error):
                    raise
                self._wait_for_heartbeats()
                deadline = deadline or time.monotonic() + self._patience_s
                if time.monotonic() > deadline:
                    self._patience_s = 0  # cleaning up after this does not wait again
                    raise StorageGoneError(
                        f"the storage of the study did not answer for {PATIENCE_S} s: {_first_line(error)}; the same "
                        "command resumes the study when it is back"
                    ) from error
                time.sleep(_RETRY_S)


def default_storage(home: Path) -> str:
    """Return the path of the SQLite database in ``mlruns/``; a new one gets the studies of an older journal."""
    database, journal = home / "search" / "studies.db", home / "search" / "journal.log"
    if journal.is_file() and journal.stat().st_size and not database.exists():
        import_journal(journal, database)
    return str(database)


def open_storage(address: str, *, patience_s: float = 0, create: bool = True) -> Storage:
    """Open a storage by its URL, or by the path of a SQLite file.

    Args:
        address: URL or path.
        patience_s: seconds to wait for a server that is away; 0: raise at once.
        create: make a SQLite file that is not there, with its folder.
    Raises:
        CracksegError: it cannot be reached, is not there, is of an unknown kind, or needs a package that is not
            installed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    shown = f"--storage {without_password(address)}"
    address = _make_absolute(address)
    if not create and address.startswith("sqlite") and not (path := _sqlite_path(make_url(address))).is_file():
        raise CracksegError(
            f"{shown}: {path} does not exist; expected the database that `crackseg search` has made"
        )
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _open(address)
        except ImportError as error:
            raise CracksegError(
                f"{shown}: its driver is not installed ({error}); for PostgreSQL, pip install 'crackseg[team]'"
            ) from error
        except Exception as error:  # SQLAlchemy, the drivers and the file system raise different classes
            if not _is_outage(error) or time.monotonic() > deadline:
                raise CracksegError(f"{shown} cannot be reached: {_first_line(error)}; {_EXPECTED}") from error
        time.sleep(_RETRY_S)


@contextlib.contextmanager
def outages_said() -> Iterator[None]:
    """Turn a lost connection into a :class:`StorageGoneError`, in a command that a user can simply repeat."""
    try:
        yield
    except Exception as error:
        if not _is_outage(error):
            raise
        raise StorageGoneError(
            f"the storage of the study stopped answering: {_first_line(error)}; start the same command again"
        ) from error


def import_journal(journal: Path, database: Path) -> None:
    """Copy the studies of a journal file, in which earlier versions kept them, into a new SQLite database.

    The journal stays as it is. A trial that was running waits to be resumed: journals have no heartbeats.

    Raises:
        CracksegError: the journal cannot be read; there is no database then.
    """
    with FileLock(f"{database}.import.lock"):
        if database.exists():
            return
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        unfinished = database.with_suffix(".importing")
        unfinished.unlink(missing_ok=True)
        try:
            earlier = JournalStorage(JournalFileBackend(str(journal)))
            storage = Storage(f"sqlite:///{unfinished}", {})
            names = [study.study_name for study in earlier.get_all_studies()]
            if not names:
                raise ValueError("it is neither a SQLite database nor a journal with a study")
            for name in names:
                optuna.copy_study(from_study_name=name, from_storage=earlier, to_storage=storage)
            for study in storage.get_all_studies():
                for trial in storage.get_all_trials(study._study_id, states=(TrialState.RUNNING,)):
                    storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        except Exception as error:
            unfinished.unlink(missing_ok=True)
            raise CracksegError(
                f"{journal}: no studies of an earlier version can be read from it: {_first_line(error)}; move the file "
                "away to start without them"
            ) from error
        storage.engine.dispose()
        write_bytes(database, unfinished.read_bytes())
        unfinished.unlink()
        print(
            f"imported {len(names)} studies of {journal} ({', '.join(names)}) into {database}; the journal stays as it "
            "is, and nothing more is added to it",
            flush=True,
        )


def _make_absolute(address: str) -> str:
    """Take a relative file from the current folder; in a temporary copy of a DVC experiment, from the project."""
    folder = find_real_root(Path.cwd())
    scheme = address.partition("://")[0]
    if "://" not in address:
        path = folder / address
        if path.is_file() and not _is_sqlite(path):
            import_journal(path, path := path.with_suffix(".db"))
        return f"sqlite:///{path}"
    if scheme in ("redis", "rediss", "grpc"):
        raise CracksegError(
            f"--storage {without_password(address)}: {scheme} has no heartbeats, so the death of a worker would not be "
            f"noticed; {_EXPECTED}"
        )
    if scheme in ("postgresql", "postgres"):
        return address.replace(scheme, "postgresql+psycopg", 1)
    return resolve_uri(address, folder, said_by="--storage") if scheme.startswith("sqlite") else address


def _is_sqlite(path: Path) -> bool:
    """Ask SQLite itself: to read the file and close it would drop the locks of this process's open connections."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            return error.sqlite_errorcode != sqlite3.SQLITE_NOTADB
    return True


def _sqlite_path(url: URL) -> Path:
    return Path((url.database or "").removeprefix("file:"))


def _open(address: str) -> Storage:
    url = make_url(address)
    if url.drivername == "postgresql+psycopg":
        from crackseg.experiments.search.postgres_connection import connect

        return Storage(address, {"creator": lambda: connect(url)})
    if url.get_backend_name() != "sqlite":
        timeout = {"connect_timeout": _CONNECT_S} if url.get_backend_name() in ("postgresql", "mysql") else {}
        return Storage(address, {"connect_args": timeout})
    path = _sqlite_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # two that create the same tables would both fail
        storage = Storage(address, {"connect_args": {"timeout": _BUSY_S}})
        with storage.engine.connect() as connection:
            # Readers and a writer do not wait for each other.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def _is_outage(error: Exception) -> bool:
    """Return whether an error is a missing or lost connection, which may recover."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    # A connection lost between two statements of one transaction shows as PendingRollbackError.
    if isinstance(cause, OperationalError | InterfaceError | PendingRollbackError | ConnectionError):
        return True
    return isinstance(cause, DBAPIError) and cause.connection_invalidated


def _first_line(error: BaseException) -> str:
    if isinstance(error, StorageInternalError) and error.__cause__:  # its own text is not specific
        error = error.__cause__
    return first_line(error)


def without_password(address: str) -> str:
    """Return the address without its password."""
    head, at, tail = address.rpartition("@")
    user, colon, _ = head.rpartition(":")
    return f"{user}:***@{tail}" if at and colon and not user.endswith("//") and "//" in user else address
