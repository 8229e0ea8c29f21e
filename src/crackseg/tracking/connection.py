"""Connect to a tracking store: limit the wait, and distinguish an outage from a wrong address."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds of waiting for a server that went away, not MLflow's minutes: the outbox tries again by itself.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("PGCONNECT_TIMEOUT", "10")  # of libpq, which would wait for two minutes

import requests
from mlflow.exceptions import MlflowException, RestException
from requests.utils import select_proxy

from crackseg.errors import CracksegError
from crackseg.tracking.store_address import database_path, find_endpoint, hide_password, is_on_server

_log = logging.getLogger("crackseg")
_CONNECT_S = 10.0
_SAY_AFTER_S = 4.0
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_sending_once = threading.Lock()
_MISTAKES = (requests.exceptions.SSLError, requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)


class StoreAwayError(CracksegError):
    """The tracking store does not answer; it may answer the next command."""


class _NoConnectionError(Exception):
    """No connection to the store's host; the message gives the reason."""


_OUTAGES = (
    StoreAwayError,
    _NoConnectionError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.RetryError,
    requests.exceptions.ChunkedEncodingError,  # an answer that was cut
)


def check_connection(uri: str) -> None:
    """Try to connect to a store, before MLflow does with ten attempts and growing pauses (100 s).

    Args:
        uri: the store's absolute address.
    Raises:
        Exception: no connection within 10 s, or what the database answers to our name and password.
    """
    endpoint = find_endpoint(uri)
    if endpoint is not None and not select_proxy(uri, requests.utils.get_environ_proxies(uri)):
        try:
            socket.create_connection(endpoint, timeout=_CONNECT_S).close()
        except OSError as error:
            raise _NoConnectionError(f"{endpoint[0]}, port {endpoint[1]}: {error.strerror or error}") from error
    if endpoint is not None and not is_on_server(uri):
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


@contextmanager
def said_if_slow(uri: str) -> Iterator[None]:
    """Log the name of the store that is waited for, once the block has taken some seconds."""
    message = f"waiting for the tracking store {hide_password(uri)}"
    timer = threading.Timer(_SAY_AFTER_S, _log.info, args=(message,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def sent_once() -> Iterator[None]:
    """Let MLflow send the requests in the block once; for those that create something.

    It sends a request again whose answer was lost, and the server would have made two.
    """
    with _sending_once:
        before = os.environ.get(_RETRIES)
        os.environ[_RETRIES] = "0"  # MLflow reads it for each request
        try:
            yield
        finally:
            del os.environ[_RETRIES]
            if before is not None:
                os.environ[_RETRIES] = before


def is_outage(error: BaseException, uri: str) -> bool:
    """Return whether an error means that the store does not answer now; a wrong address or password does not."""
    if database_path(uri) is not None:
        return False
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(e, _MISTAKES) for e in chain):
        return False
    return any(isinstance(e, _OUTAGES) or _is_server_failure(e, uri) for e in chain)


def _is_server_failure(error: BaseException, uri: str) -> bool:
    """Return whether a server reported an internal error, or a connection to a database was lost."""
    if isinstance(error, RestException):
        return int(error.get_http_status_code()) >= 500
    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code >= 500
    if isinstance(error, MlflowException):
        return re.search(r"failed with error code 5\d\d", str(error)) is not None
    endpoint = find_endpoint(uri)
    if endpoint is None or is_on_server(uri) or type(error).__name__ not in ("OperationalError", "InterfaceError"):
        return False
    try:  # if this succeeds, it runs and has refused a name, a password or a statement
        socket.create_connection(endpoint, timeout=_CONNECT_S).close()
    except OSError:
        return True
    return False
