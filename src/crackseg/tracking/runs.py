"""Runs of an experiment: create, find and record into them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError
from crackseg.params import complete_settings
from crackseg.tracking.connection import sent_once
from crackseg.tracking.outbox import Outbox

IMPORTED_TAG = "crackseg.imported_from"  # the id of a run or model in the store where it was made first
OUTBOX_TAG = "crackseg.tracking.outbox"  # the name of the outbox that a run was created from
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Tags of an experiment that MLflow shows as model training; its own default is work with language models."""
_RUNS_AT_ONCE = 100
_SETTINGS_TAG = "crackseg.settings"
_NOT_DATASETS = ("train", "val", "mean", "best")  # other groups of metrics


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that finished without error, as the store describes it."""

    run_id: str
    name: str
    params: dict[str, str]
    """As recorded; keys that a run of an older version lacks have their default, with which it ran."""
    tags: dict[str, str]
    metrics: dict[str, float]
    """The last value of each."""


def find_or_create_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    """Return the id of an experiment; create it if there is none.

    Args:
        client: of the store.
        name: of the experiment.
        artifact_location: for a new one; None leaves it to the store.
    Raises:
        CracksegError: it is deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location, tags=MODEL_TRAINING))
        except MlflowException:  # another machine was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise CracksegError(f"experiment {name!r} is deleted; restore it in the MLflow UI")
    return str(experiment.experiment_id)


def read_run(client: MlflowClient, experiment_id: str, run_id: str) -> Run | None:
    """Fetch a run by its id, by its id in the store that it was imported from, or by the name of its outbox.

    Raises:
        Exception: the store does not answer.
    """
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
    for tag in (IMPORTED_TAG, OUTBOX_TAG):
        if found := _find_by_tags(client, experiment_id, {tag: run_id}):
            return found
    return None


def read_note(path: Path) -> dict[str, str]:
    """Read what is known of a run: its ``run_id``, or the ``planned`` name of its outbox; nothing if it is damaged."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return {key: str(value) for key, value in noted.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def create_once(
    client: MlflowClient,
    experiment_id: str,
    *,
    tags: Mapping[str, str],
    name: str | None,
    start_time_ms: int,
    may_exist: bool = True,
) -> str:
    """Create the run of an outbox, unless it was created before (and perhaps deleted since).

    Args:
        client: of the store.
        experiment_id: where.
        tags: among them OUTBOX_TAG.
        name: shown.
        start_time_ms: when the run began.
        may_exist: look for it first.
    Returns:
        Its id.
    """
    known = {OUTBOX_TAG: tags.get(OUTBOX_TAG, "")}
    if may_exist and (found := _find_by_tags(client, experiment_id, known, view=ViewType.ALL)):
        return str(found.info.run_id)
    with sent_once():
        run = client.create_run(experiment_id, start_time=start_time_ms, tags=dict(tags), run_name=name)
    return str(run.info.run_id)


def name_settings(settings: Mapping[str, Any]) -> str:
    """Return a short digest of settings, the same for the same settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def has_settings(run: Run, settings: Mapping[str, Any]) -> bool:
    """Return whether a run was recorded under these settings, ``data.md5`` among them."""
    recorded = run.data.params | {"data.md5": run.data.tags.get("data.md5", "")}
    return all(recorded.get(key) == str(value) for key, value in settings.items())


def find_child(client: MlflowClient, experiment_id: str, parent_id: str, digest: str) -> Run | None:
    """Find the child run that holds a run's results under the settings with this digest."""
    return _find_by_tags(client, experiment_id, child_tags(parent_id, digest))


def child_tags(parent_id: str, digest: str) -> dict[str, str]:
    """Return the tags by which :func:`find_child` finds a run."""
    return {"mlflow.parentRunId": parent_id, _SETTINGS_TAG: digest}


def _find_by_tags(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str], view: int = ViewType.ACTIVE_ONLY
) -> Run | None:
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment_id], wanted, run_view_type=view, max_results=1)
    return found[0] if found else None


def find_runs(client: MlflowClient, experiment_id: str, run_ids: Sequence[str]) -> dict[str, Run]:
    """Find runs by their ids, some at a time; those that are not there are left out."""
    found: dict[str, Run] = {}
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        ids = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + _RUNS_AT_ONCE])
        page = client.search_runs([experiment_id], f"attributes.run_id IN ({ids})", max_results=_RUNS_AT_ONCE)
        found |= {run.info.run_id: run for run in page}
    return found


def list_finished(client: MlflowClient, experiment_id: str, *, of_stages: bool = False) -> list[FinishedRun]:
    """List all runs of an experiment that finished without error, the newest first.

    Args:
        client: of the store.
        experiment_id: the experiment.
        of_stages: only those of the pipeline's stages, which record the version of the data; reading the trials of
            studies and searches takes longer than all else.
    """
    wanted = "attributes.status = 'FINISHED'" + (" AND tags.`data.md5` LIKE '%'" if of_stages else "")
    runs: list[FinishedRun] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], wanted, max_results=1000, page_token=token)
        runs += [
            FinishedRun(
                r.info.run_id, r.info.run_name or "", complete_settings(r.data.params), r.data.tags, r.data.metrics
            )
            for r in page
        ]
        if not (token := page.token):
            return runs


def list_datasets(metrics: Iterable[str]) -> list[str]:
    """List the datasets that runs were scored on, sorted, by the names of their metrics (``CRKWH100/ods``)."""
    groups = (name.removesuffix("/ods") for name in metrics if name.endswith("/ods"))
    return sorted(group for group in groups if "/" not in group and group not in _NOT_DATASETS)


def describe_code(root: Path) -> dict[str, str]:
    """Return tags that identify the code: git commit, dirty or clean, DVC experiment and baseline, package versions."""
    changed = ask_git(root, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude)dvc.lock")
    tags = {
        "git.commit": ask_git(root, "rev-parse", "HEAD") or "none",
        "git.state": "dirty" if changed else "clean",  # dvc.lock is written by DVC after each stage and is no code
    }
    tags["mlflow.source.git.commit"] = tags["git.commit"]
    for tag, variable in (("dvc.exp_name", "DVC_EXP_NAME"), ("dvc.exp_baseline", "DVC_EXP_BASELINE_REV")):
        if variable in os.environ:
            tags[tag] = os.environ[variable]
    for package in ("crackseg", "torch", "torchvision", "mlflow", "dvc", "opencv-python-headless", "numpy"):
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return tags | {"version.python": sys.version.split()[0]}


def ask_git(root: Path, *arguments: str) -> str:
    """Return what a git command prints in a folder; "" if it fails, e.g. without a repository."""
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def find_user() -> str:
    """Return the name of the system account."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


class RunRecorder:
    """Record params, tags, metrics and artifacts of one run through its outbox.

    Args:
        outbox: the run's.
        resumed: the run has metrics of steps that may come again, and are recorded once.
    """

    def __init__(self, outbox: Outbox, *, resumed: bool = False) -> None:
        self.outbox = outbox
        self._resumed = resumed
        self._seen = outbox.steps_waiting() if resumed else set()

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record flat params, once for each run."""
        self.outbox.put("params", values=dict(values))

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set tags."""
        self.outbox.put("tags", values=dict(values))

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0, only_new: bool = False) -> None:
        """Record metrics; a step that a resumed training run repeats is recorded once.

        Args:
            values: by name.
            step: e.g. the epoch.
            only_new: leave out a value that the run has at this step already, e.g. because a stage that was killed
                after it had recorded it is run again.
        """
        new = {k: float(v) for k, v in values.items() if (k, step) not in self._seen}
        self._seen.update((key, step) for key in new)
        if new:
            self.outbox.put("metrics", values=new, step=step, only_new=only_new, only_new_steps=self._resumed)

    def log_curve(self, name: str, values: Mapping[int, float]) -> None:
        """Record a curve as one metric, its points by step; points that the run has are left out."""
        self.outbox.put("curve", name=name, values=dict(values))

    def describe(self, text: str, *, over: Sequence[str]) -> None:
        """Set the run's description in MLflow, but not over one that begins with none of ``over``: a person's."""
        self.outbox.put("note", text=text, over=list(over))

    def log_file(self, path: Path, artifact_dir: str = "") -> None:
        """Record a file as an artifact."""
        self.outbox.put_file(path, artifact_dir)

    def log_dataset(self, name: str, digest: str, *, context: str, num_images: int, source: str) -> None:
        """Record what the run was trained or tested on, as MLflow's dataset inputs."""
        profile = json.dumps({"images": num_images, "source": source})
        # MLflow takes digests of at most 36 characters and source URIs that it knows; data.dvc is a plain path.
        self.outbox.put(
            "dataset", name=name, digest=digest[:32], source=json.dumps({"uri": "data.dvc"}), profile=profile,
            context=context,
        )  # fmt: skip

    def resume(self) -> None:
        """Set the run's status to running again."""
        self.outbox.put("status", value="RUNNING")

    def end(self, status: str) -> None:
        """Set the run's status to FINISHED, FAILED or KILLED."""
        self.outbox.put("status", value=status)
