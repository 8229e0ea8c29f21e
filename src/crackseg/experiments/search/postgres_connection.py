"""Connections to PostgreSQL that give up a server which stays silent; imported only with psycopg installed.

Reading from a connection whose other end is gone without a word (a firewall that forgot it, a proxy or host that hangs)
would take hours. The server has the same problem: it would keep the rows locked that a lost client was changing.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import URL

ANSWER_S = 30.0  # for one statement; those of a study take milliseconds
_CONNECT_S = 10  # a host that is switched off does not answer; the system would wait two minutes


class Connection(psycopg.Connection[Any]):
    """A connection that is closed when a statement has no answer after :data:`ANSWER_S`."""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: there was none in time; the connection is closed.
        """
        return super().wait(self._limit(gen), *args, **kwargs)

    def _limit(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        deadline = time.monotonic() + ANSWER_S
        try:
            state = next(gen)
            while True:
                ready = yield state  # psycopg resumes it several times a second, with 0 if nothing has come
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server did not answer for {ANSWER_S:g} s")
                state = gen.send(ready)
        except StopIteration as end:
            return end.value


def connect(url: URL) -> Connection:
    """Connect; the server gives up a transaction in which it hears nothing for :data:`ANSWER_S`, and its locks."""
    _, parameters = url.get_dialect()().create_connect_args(url)
    connection = Connection.connect(**{"connect_timeout": _CONNECT_S, **parameters})
    connection.execute(f"SET idle_in_transaction_session_timeout = {ANSWER_S * 1000:.0f}")
    connection.commit()
    return connection
