"""A real PostgreSQL for tests: a cluster of its own in a temporary folder, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_SERVER_USER = "postgres"  # made by Debian's package; PostgreSQL refuses to run as root


class PostgresServer:
    """A PostgreSQL server that can be stopped and started again with its data.

    Args:
        folder: for the data and the log; made if absent.
        bin_dir: where ``initdb`` and ``pg_ctl`` are.
    """

    def __init__(self, folder: Path, bin_dir: Path) -> None:
        self._bin_dir, self._data_dir, self.log_path = bin_dir, folder / "data", folder / "postgres.log"
        folder.mkdir(parents=True, exist_ok=True)
        if _is_root():
            shutil.chown(folder, _SERVER_USER)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", str(self._data_dir), "-U", "crackseg", "-A", "trust", "-E", "UTF8", "--no-sync")
        settings = (
            f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\nfsync = off\n"
        )
        with (self._data_dir / "postgresql.conf").open("a") as file:
            file.write(settings)

    def url(self, driver: str = "psycopg", database: str = "postgres") -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+{driver}://crackseg@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database; returns its URL."""
        self._run_client("createdb", name)
        return self.url(database=name)

    def create_owned_database(self, name: str, password: str) -> None:
        """Make an empty database, and a user of the same name who owns it and must give this password."""
        rules = self._data_dir / "pg_hba.conf"
        rule = f"host all {name} 127.0.0.1/32 scram-sha-256\n"
        if rule not in rules.read_text():
            rules.write_text(rule + rules.read_text())
            self._run("pg_ctl", "-D", str(self._data_dir), "reload")
            self._run_client("psql", "-d", "postgres", "-qc", f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        self._run_client("dropdb", "--if-exists", "--force", name)
        self._run_client("createdb", "-O", name, name)

    def _run_client(self, program: str, *arguments: str) -> None:
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "crackseg"]
        subprocess.run([self._bin_dir / program, *options, *arguments], check=True, timeout=60)

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", "-D", str(self._data_dir), "-l", str(self.log_path), "-w", "-t", "60", "start")

    def stop(self) -> None:
        """Stop at once, connections or not; nothing if it is down."""
        if (self._data_dir / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._data_dir), "-m", "immediate", "-w", "-t", "60", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin_dir / program), *arguments]
        if _is_root():
            command = ["runuser", "-u", _SERVER_USER, "--", *command]
        # To a file, not a pipe: the server inherits it, and a pipe would stay open as long as it runs.
        output_path = self._data_dir.with_name(f"{program}.out")
        with output_path.open("w") as output:
            result = subprocess.run(
                command, cwd="/", stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False, timeout=120
            )
        assert result.returncode == 0, f"{' '.join(command)}\n{output_path.read_text()}"


def find_programs() -> Path | None:
    """The folder with PostgreSQL's server programs: beside ``pg_ctl`` on the PATH, or where Debian puts them."""
    places = [Path(found).resolve().parent] if (found := shutil.which("pg_ctl")) else []
    places += sorted(_DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


def postgres_server() -> Iterator[PostgresServer]:
    """A running server for a module's tests; skips where PostgreSQL is not installed.

    Use it as ``postgres = pytest.fixture(postgres_server, scope="module")``.
    """
    bin_dir = find_programs()
    if bin_dir is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not here: apt-get install postgresql")
    if _is_root() and not _has_server_user():
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {_SERVER_USER!r}")
    # Not pytest's own folder: only its owner may enter that, and the server may be another user.
    folder = Path(tempfile.mkdtemp(prefix="crackseg-postgres-"))
    server = PostgresServer(folder, bin_dir)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _has_server_user() -> bool:
    import pwd

    try:
        pwd.getpwnam(_SERVER_USER)
    except KeyError:
        return False
    return True
