"""`crackseg ui`: MLflow's server on the project's store, opened on the runs."""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Sequence

from crackseg.child_processes import run_guarded
from crackseg.ports import check_port
from crackseg.tracking.store import Store
from crackseg.tracking.store_address import hide_password, is_on_server
from crackseg.tracking.ui_view import save_view

_HOST = "127.0.0.1"
_NEWEST_RUNS = 200  # whose metrics the view knows
_POLL_S, _SAY_EVERY_S, _GRACE_S = 0.25, 5.0, 5
_Say = Callable[[str], None]


def serve_ui(store: Store, port: int, *, run_ids: Sequence[str] | None, opens_browser: bool, say: _Say) -> int:
    """Run MLflow's server until it is stopped; say the address of the runs once it answers.

    A store that is a server itself has its own pages: their address is said, and nothing is started.

    Args:
        store: shown.
        port: on 127.0.0.1.
        run_ids: runs to compare; empty for all; None for the table of runs.
        opens_browser: also open the address in a browser.
        say: prints a line.
    Returns:
        The exit code of the server.
    Raises:
        CracksegError: the port is taken, maybe by another server, whose pages would be shown.
        StoreAwayError: the store does not answer.
    """
    has_pages = is_on_server(store.uri)
    if not has_pages:
        check_port(_HOST, port)
    with store.answering():
        newest = store.client.search_runs(
            [store.experiment_id], order_by=["attributes.start_time DESC"], max_results=_NEWEST_RUNS
        )
        metrics = {name for run in newest for name in run.data.metrics}
        page = save_view(store.client, store.experiment_id, metrics, run_ids=run_ids)
    if has_pages:
        _show(store.uri.rstrip("/") + page, opens_browser, say)
        return 0
    say(f"MLflow is starting on {hide_password(store.uri)} …")
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--port", str(port),
        "--uvicorn-opts", "--log-level warning",
        "--workers", "1",  # each imports MLflow: four make the start four times as long on a small machine
    ]  # fmt: skip
    if store.registry_uri:
        command += ["--registry-store-uri", store.registry_uri]
    address = f"http://{_HOST}:{port}"
    threading.Thread(
        target=_announce, args=(address, page, opens_browser, say), name="announce-ui", daemon=True
    ).start()
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    # The server's relative paths start at the project, not at the current folder.
    return run_guarded(command, cwd=store.home.parent, grace_s=_GRACE_S, environment=os.environ | quiet)


def _announce(address: str, page: str, opens_browser: bool, say: _Say) -> None:
    started = said = time.monotonic()
    while not _answers(f"{address}/health"):
        time.sleep(_POLL_S)
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(f"waiting for MLflow to answer at {address} ({said - started:.0f} s)")
    _show(address + page, opens_browser, say)


def _show(address: str, opens_browser: bool, say: _Say) -> None:
    say(f"runs: {address}")
    if opens_browser:
        webbrowser.open(address)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
