"""Checks of a project: settings, data, tracking store, DVC remote; a server has a few seconds to answer."""

from __future__ import annotations

import http.client
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import urlparse

from crackseg.cli.doctor.disks import find_shared_disk
from crackseg.cli.doctor.findings import Finding
from crackseg.errors import CracksegError, first_line
from crackseg.params import Params, load_params
from crackseg.tracking.artifact_places import describe_lost_artifacts
from crackseg.tracking.store_address import (
    database_path,
    find_endpoint,
    find_tracking_uri,
    hide_password,
    refuse_file_store,
)

_ASK_REMOTE = """
import sys
from dvc.repo import Repo
repo = Repo()
name = repo.config["core"].get("remote", "")
print(f"{name}\\t{repo.config['remote'][name]['url'] if name else ''}", flush=True)
if name:
    remote = repo.cloud.get_remote(name=name)
    print("there" if remote.fs.exists(remote.path) else "absent", flush=True)
"""


def check_settings(root: Path) -> tuple[Finding, Params | None]:
    """Check params.yaml."""
    try:
        params = load_params(root / "params.yaml")
    except CracksegError as error:
        return Finding(
            "params.yaml", "failed", first_line(error), "correct it; the comments in it name the choices"
        ), None
    model = f"{params.model.architecture} from {params.model.init} weights, {params.train.epochs} epochs"
    return Finding("params.yaml", "ok", model), params


def check_data(root: Path, params: Params | None) -> Finding:
    """Check that ``data/`` is the version in git, and holds the datasets that params.yaml names."""
    try:  # needs OpenCV and pandas; if they are missing, other checks report it
        from crackseg.data.catalog import data_source, list_samples
        from crackseg.data.guard import check_data_is_committed, read_pointer
    except ImportError as error:
        return Finding(
            "data", "failed", f"cannot be checked: {first_line(error)}", "see packages and OpenCV above"
        )
    try:
        read_pointer(root)
        listing, _ = check_data_is_committed(root, root)
        wanted = list(dict.fromkeys([params.data.train_dataset, *params.data.test_datasets])) if params else []
        images = {name: len(list_samples(root / "data", name)) for name in wanted}
        kinds = {name: data_source(root / "data", name) for name in wanted}
    except CracksegError as error:
        first, _, rest = str(error).partition("\n")
        return Finding("data", "failed", first, rest.strip())
    shown = ", ".join(f"{name} {count} ({kinds[name]})" for name, count in images.items())
    return Finding("data", "ok", f"{len(listing)} files, same as in git; images: {shown or 'none named'}")


def check_pipeline_files(root: Path) -> Finding:
    """Check that DVC can read dvc.yaml and dvc.lock."""
    try:
        from crackseg.data.versioning import check_pipeline

        check_pipeline(root)
    except ImportError as error:
        return Finding("pipeline", "failed", f"cannot be checked: {first_line(error)}", "see packages above")
    except CracksegError as error:
        advice = "correct the file, or take the one in git: git checkout HEAD -- dvc.yaml dvc.lock"
        return Finding("pipeline", "failed", str(error), advice)
    return Finding("pipeline", "ok", "DVC reads dvc.yaml and dvc.lock")


def check_store(root: Path, *, timeout_s: float) -> Finding:
    """Check the tracking store: the local database, or that the server answers in time."""
    try:
        uri = find_tracking_uri(root)
    except CracksegError as error:
        return Finding("store", "failed", str(error))
    if refused := refuse_file_store(uri):
        return Finding("store", "failed", refused)
    parsed = urlparse(uri)
    if parsed.scheme in ("http", "https"):
        return _check_server(uri, timeout_s)
    if path := database_path(uri):
        return _check_database_file(root, path)
    endpoint = find_endpoint(uri)
    if endpoint is None:
        return Finding("store", "warning", f"{hide_password(uri)}: not a kind that is checked here")
    try:
        socket.create_connection(endpoint, timeout=timeout_s).close()
    except OSError as error:
        advice = "start the database, or unset MLFLOW_TRACKING_URI to use mlruns/mlflow.db"
        return Finding("store", "failed", f"{hide_password(uri)} cannot be reached: {first_line(error)}", advice)
    return _with_outbox(root, f"{hide_password(uri)} answers")


def _check_server(uri: str, timeout_s: float) -> Finding:
    advice = "start the server, check MLFLOW_TRACKING_URI, or unset it to use mlruns/mlflow.db"
    shown = hide_password(uri)
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout_s) as answer:
            answer.read(100)
    except urllib.error.HTTPError as error:
        return Finding(
            "store", "failed", f"{shown} answers {error.code} {error.reason}, not as MLflow does", advice
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding("store", "failed", f"{shown} does not answer within {timeout_s:g} s: {reason}", advice)
    return Finding("store", "ok", f"{shown} answers")


def _check_database_file(root: Path, path: Path) -> Finding:
    folder = path.parent if path.parent.exists() else path.parent.parent
    if not os.access(folder, os.W_OK):
        return Finding(
            "store", "failed", f"{folder} cannot be written", f"run as its owner, or chmod u+w {folder}"
        )
    if shared := find_shared_disk(folder):
        return Finding(
            "store", "warning",
            f"{path} is on {shared}: two processes that write it there at once can damage it",
            "keep the project on a disk of this machine, or use a tracking server with PostgreSQL "
            "(docs/team-store.md)",
        )  # fmt: skip
    if not path.exists():
        return _with_outbox(root, f"{path}: the first run makes it")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            (runs,) = database.execute("select count(*) from runs").fetchone()
            places = database.execute("select name, artifact_location from experiments").fetchall()
    except sqlite3.Error as error:
        advice = f"put a copy of it back, or move {path} away: a new one is made"
        return Finding("store", "failed", f"{path} is damaged or no MLflow database: {first_line(error)}", advice)
    for name, location in places:
        if name == "crackseg" and (lost := describe_lost_artifacts(name, location)):
            message, _, advice = lost.partition(". ")
            return Finding("store", "warning", message, advice)
    return _with_outbox(root, f"{path}: {runs} runs")


def _with_outbox(root: Path, message: str) -> Finding:
    folder = root / "mlruns" / "outbox"
    waiting = [path for path in folder.glob("*") if path.name not in ("locks", "refused") and path.is_dir()]
    if waiting:
        said = f"{message}; records of {len(waiting)} runs wait in {folder}, or are being written"
        return Finding("store", "warning", said, "if no training runs: crackseg store deliver")
    return Finding("store", "ok", message)


def check_remote(root: Path, *, timeout_s: float) -> Finding:
    """Check DVC and its default remote, in a separate process that is ended if the remote does not answer."""
    process = subprocess.Popen(
        [sys.executable, "-c", _ASK_REMOTE],
        cwd=root,
        bufsize=0,  # else reading the first line would consume output of communicate()
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()  # of the configuration on this machine; waits for DVC to be loaded
        name, _, url = first.decode(errors="replace").strip().partition("\t")
        answer, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        advice = "check the network and the remote's address (`dvc remote list`); dvc pull and push need it"
        return Finding("DVC remote", "warning", f"{name} ({url}) does not answer within {timeout_s:g} s", advice)
    finally:
        process.kill()
        process.communicate()
    last = (errors.decode(errors="replace").strip().splitlines() or [""])[-1][:200]
    if not url and process.returncode not in (0, None):
        return Finding(
            "DVC remote", "failed", f"DVC does not work here: {last}", "see `dvc doctor` and `dvc config -l`"
        )
    if not name:
        advice = "dvc remote add --default NAME URL; without one the data is only on this machine"
        return Finding("DVC remote", "warning", "no default remote", advice)
    if answer.strip() == b"there":
        return Finding("DVC remote", "ok", f"{name} ({url})")
    if answer.strip() == b"absent":
        advice = "the first `dvc push` makes it; if it should be there, check the address with `dvc remote list`"
        return Finding("DVC remote", "warning", f"{name} ({url}): nothing there", advice)
    advice = "check the address and your access; dvc-ssh, dvc-s3 and similar are separate packages"
    return Finding("DVC remote", "warning", f"{name} ({url}) cannot be reached: {last}", advice)
