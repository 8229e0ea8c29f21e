"""Export a store to a folder: runs with their metrics and artifacts, logged models, the registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Experiment, LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError, first_line
from crackseg.files import write_json
from crackseg.progress import progress
from crackseg.tracking.artifact_places import describe_lost_artifacts
from crackseg.tracking.store import Store
from crackseg.tracking.transfer.folder import (
    ARTIFACTS,
    MODELS,
    REGISTRY,
    RUNS,
    finish_export,
    unfinished_folder,
    write_json_lines,
)

PARENT_TAG = "mlflow.parentRunId"
_SCRATCH = "scratch"


@dataclass
class ExportCounts:
    """Counts of what was exported, and a note for everything left out."""

    runs: int = 0
    models: int = 0
    versions: int = 0
    notes: list[str] = field(default_factory=list)


def export_store(
    store: Store, folder: Path, *, experiments: Sequence[str] = (), run_ids: Sequence[str] = ()
) -> ExportCounts:
    """Write runs, logged models and registered models to a new folder.

    The folder has another name until it is complete; an interrupted export is resumed there.

    Args:
        store: to read from.
        folder: must not exist yet.
        experiments: names; our own experiment if empty.
        run_ids: only these runs, with their child runs and the versions made of them; all runs if empty.
    Raises:
        CracksegError: the folder exists; there is no such experiment or run; artifacts are not where the store says.
    """
    folder = folder.absolute()
    if folder.exists():
        raise CracksegError(f"{folder}: exists already; name a folder that does not, an export is never changed")
    client = store.client
    found = [_get_experiment(store, name) for name in experiments] or [client.get_experiment(store.experiment_id)]
    for experiment in found:
        if lost := describe_lost_artifacts(
            experiment.name, experiment.artifact_location
        ):  # MLflow would list none, silently
            raise CracksegError(lost)
    runs = _select_runs(store, found, run_ids)
    models = [m for m in iterate_models(client, found) if not run_ids or m.source_run_id in runs]
    counts = ExportCounts()
    registered = _describe_registry(client, set(runs), {m.model_id: m for m in models}, bool(run_ids), counts)
    part_dir = unfinished_folder(folder)
    part_dir.mkdir(parents=True, exist_ok=True)
    names = {experiment.experiment_id: experiment.name for experiment in found}
    try:
        for run in progress(runs.values(), "export runs", "run"):
            _write_run(client, part_dir, run, names[run.info.experiment_id])
        for model in progress(models, "export models", "model"):
            _write_model(part_dir, model, names[model.experiment_id])
    except (MlflowException, OSError) as error:
        raise CracksegError(
            f"the export to {folder} stopped: {first_line(error)}; the same command resumes"
        ) from error
    _drop_others(part_dir / RUNS, set(runs))
    _drop_others(part_dir / MODELS, {model.model_id for model in models})
    shutil.rmtree(part_dir / _SCRATCH, ignore_errors=True)
    write_json_lines(part_dir / REGISTRY, registered)
    described = [{"name": experiment.name, "tags": dict(experiment.tags)} for experiment in found]
    finish_export(part_dir, folder, {"source": store.uri, "experiments": described})
    counts.runs, counts.models = len(runs), len(models)
    return counts


def iterate_runs(client: MlflowClient, experiment_ids: list[str], condition: str = "") -> Iterator[Run]:
    """Yield all active runs of experiments, page by page, the oldest first."""
    token = None
    while True:
        page = client.search_runs(experiment_ids, condition, order_by=["start_time ASC"], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def iterate_models(client: MlflowClient, experiments: Sequence[Experiment]) -> Iterator[LoggedModel]:
    """Yield all logged models of experiments."""
    token = None
    while True:
        page = client.search_logged_models([e.experiment_id for e in experiments], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def find_model_id(version: ModelVersion) -> str | None:
    """Return the id of the logged model that a version was made of; MLflow's database has it in the source only."""
    source = version.source or ""
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def _get_experiment(store: Store, name: str) -> Experiment:
    experiment = store.client.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(sorted(e.name for e in store.client.search_experiments()))
        raise CracksegError(f"no experiment {name!r} in {store.uri}; there are: {known}")
    return experiment


def _select_runs(store: Store, experiments: Sequence[Experiment], run_ids: Sequence[str]) -> dict[str, Run]:
    """Return runs by id, a parent before its children."""
    ids = [experiment.experiment_id for experiment in experiments]
    runs = {run.info.run_id: run for run in iterate_runs(store.client, ids)}
    children: dict[str | None, list[str]] = {}
    for run_id, run in runs.items():
        parent = run.data.tags.get(PARENT_TAG)
        children.setdefault(parent if parent in runs else None, []).append(run_id)
    for run_id in run_ids:
        if run_id not in runs:
            raise CracksegError(f"no run {run_id} in experiments {[e.name for e in experiments]} of {store.uri}")
    selected = {}
    waiting = list(children.get(None, []))
    while waiting:
        run_id = waiting.pop(0)
        parent = runs[run_id].data.tags.get(PARENT_TAG)
        if not run_ids or run_id in run_ids or parent in selected:
            selected[run_id] = runs[run_id]
        waiting.extend(children.get(run_id, []))
    return selected


def _write_run(client: MlflowClient, part_dir: Path, run: Run, experiment: str) -> None:
    datasets = run.inputs.dataset_inputs if run.inputs else []
    input_models = run.inputs.model_inputs if run.inputs else []
    outputs = run.outputs.model_outputs if run.outputs else []
    content = {
        "run_id": run.info.run_id,
        "experiment": experiment,
        "name": run.info.run_name,
        "status": run.info.status,
        "start_time_ms": run.info.start_time,
        "end_time_ms": run.info.end_time,
        "params": run.data.params,
        "tags": run.data.tags,
        "latest_metrics": run.data.metrics,
        "datasets": [{"dataset": dict(i.dataset), "tags": {t.key: t.value for t in i.tags}} for i in datasets],
        "input_models": [i.model_id for i in input_models],
        "output_models": [{"model_id": o.model_id, "step": o.step} for o in outputs],
    }

    def write_rest(folder: Path) -> None:
        histories = (client.get_metric_history(run.info.run_id, key) for key in sorted(run.data.metrics))
        write_json_lines(
            folder / "metrics.jsonl",
            (
                {"key": m.key, "value": m.value, "timestamp_ms": m.timestamp, "step": m.step}
                for history in histories
                for m in history
            ),
        )
        if client.list_artifacts(run.info.run_id):
            (folder / ARTIFACTS).mkdir()
            client.download_artifacts(run.info.run_id, "", str(folder / ARTIFACTS))

    _write_entry(part_dir, RUNS, run.info.run_id, "run.json", content, write_rest)


def _write_model(part_dir: Path, model: LoggedModel, experiment: str) -> None:
    content = {
        "model_id": model.model_id,
        "experiment": experiment,
        "name": model.name,
        "run_id": model.source_run_id,
        "type": model.model_type,
        "status": model.status.value,
        "params": model.params,
        "tags": model.tags,
        "location": model.artifact_location,
    }

    def write_rest(folder: Path) -> None:
        (folder / ARTIFACTS).mkdir()
        if model.status.value == "READY":
            download_artifacts(artifact_uri=f"models:/{model.model_id}", dst_path=str(folder / ARTIFACTS))

    _write_entry(part_dir, MODELS, model.model_id, "model.json", content, write_rest)


def _write_entry(
    part_dir: Path, kind: str, entry: str, name: str, content: dict[str, Any], write_rest: Callable[[Path], None]
) -> None:
    """Write a folder under another name and rename it; an identical one that exists is kept."""
    scratch, final = part_dir / _SCRATCH, part_dir / kind / entry
    shutil.rmtree(scratch, ignore_errors=True)
    write_json(scratch / name, content)
    if final.is_dir():
        if (final / name).read_bytes() == (scratch / name).read_bytes():
            return
        shutil.rmtree(final)
    write_rest(scratch)
    final.parent.mkdir(exist_ok=True)
    scratch.rename(final)


def _drop_others(folder: Path, entries: set[str]) -> None:
    """Remove entries that an earlier, unfinished export wrote and this one does not select."""
    for path in folder.glob("*"):
        if path.name not in entries:
            shutil.rmtree(path)


def _describe_registry(
    client: MlflowClient, runs: set[str], models: dict[str, LoggedModel], only_runs: bool, counts: ExportCounts
) -> list[dict[str, Any]]:
    """Describe the registered models with a version of the exported runs, with all their versions or only those."""
    described = []
    for registered in _iterate_registered(client):
        versions = sorted(
            client.search_model_versions(f"name = '{registered.name}'"), key=lambda version: int(version.version)
        )
        ours = [v for v in versions if v.run_id in runs or find_model_id(v) in models]
        if not ours:
            continue
        kept = [v for v in (ours if only_runs else versions) if _can_be_carried(v, models, counts)]
        if not kept:
            continue
        counts.versions += len(kept)
        numbers = {str(version.version) for version in kept}
        described.append(
            {
                "name": registered.name,
                "description": registered.description,
                "tags": registered.tags,
                "aliases": {a: str(v) for a, v in registered.aliases.items() if str(v) in numbers},
                "versions": [_describe_version(version) for version in kept],
            }
        )
    return described


def _iterate_registered(client: MlflowClient) -> Iterator[RegisteredModel]:
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _can_be_carried(version: ModelVersion, models: dict[str, LoggedModel], counts: ExportCounts) -> bool:
    if find_model_id(version) in models:
        return True
    counts.notes.append(
        f"version {version.version} of {version.name!r} is left out: its source {version.source} is not a logged "
        "model of the exported runs"
    )
    return False


def _describe_version(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": int(version.version),
        "model_id": find_model_id(version),
        "run_id": version.run_id,
        "description": version.description,
        "tags": version.tags,
        "stage": version.current_stage,
        "created_ms": version.creation_timestamp,
    }
