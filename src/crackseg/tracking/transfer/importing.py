"""Import an export into a store: create what is missing, leave alone what is there.

The store assigns ids, so runs and models get new ones: a tag keeps the old id, by which a second import
recognises them, and old ids in tags, links and model files are replaced by the new ones.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from filelock import FileLock
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from crackseg.errors import CracksegError, first_line
from crackseg.files import read_json
from crackseg.progress import progress
from crackseg.tracking.connection import sent_once
from crackseg.tracking.runs import IMPORTED_TAG
from crackseg.tracking.store import Store
from crackseg.tracking.transfer.exporting import PARENT_TAG, find_model_id, iterate_models, iterate_runs
from crackseg.tracking.transfer.folder import (
    ARTIFACTS,
    MODELS,
    REGISTRY,
    REPAIR,
    RUNS,
    Export,
    open_export,
    read_json_lines,
)
from crackseg.tracking.ui_view import HIDDEN_TAG

_DIGEST_TAG = "crackseg.imported_digest"  # of what was imported; set when all of it is there
_VERSIONS_TAG = "mlflow.modelVersions"  # MLflow writes it itself
_Value = TypeVar("_Value")
_ID = re.compile(r"(?<![0-9A-Za-z])(?:m-)?[0-9a-f]{32}(?![0-9A-Za-z])")


@dataclass
class ImportCounts:
    """Counts of what was added and what was there already, and a note for each difference from the export."""

    runs: int = 0
    models: int = 0
    versions: int = 0
    known_runs: int = 0
    notes: list[str] = field(default_factory=list)


def import_store(store: Store, folder: Path) -> ImportCounts:
    """Import everything of an export into a store; safe to repeat, and to resume after an interruption.

    Args:
        store: to write to.
        folder: written by ``export_store``; all its files are checked before anything is imported.
    Raises:
        CracksegError: the export is damaged; the store stopped answering.
    """
    export = open_export(folder)
    with FileLock(store.home / "import.lock"):
        transfer = _Import(store, export)
        try:
            transfer.run()
        except (MlflowException, OSError) as error:
            raise CracksegError(
                f"the import into {store.uri} stopped: {first_line(error)}; what is there stays, and "
                "the same command resumes"
            ) from error
    return transfer.counts


class _Import:
    def __init__(self, store: Store, export: Export) -> None:
        self.store, self.client, self.export = store, store.client, export
        self.counts = ImportCounts()
        self.new_ids: dict[str, str] = {}  # old id -> new id, of runs and logged models
        size = sum(1 for path in export.digests if f"/{ARTIFACTS}/" in path)
        self.bar = progress(None, "import", "file", total=size)

    def run(self) -> None:
        experiments = {e["name"]: self._find_experiment(e) for e in self.export.manifest["experiments"]}
        ids = [experiment.experiment_id for experiment in experiments.values()]
        known_runs = {
            name: run for run in iterate_runs(self.client, ids) for name in _names(run.info.run_id, run.data.tags)
        }
        runs = {
            run_id: read_json(self._entry(RUNS, run_id) / "run.json", advice=REPAIR)
            for run_id in self.export.list_entries(RUNS)
        }
        for run_id in _parents_first(runs):
            run = runs[run_id]
            self._import_run(run, experiments[run["experiment"]], known_runs.get(_origin(run_id, run["tags"])))
        known_models = {
            name: model
            for model in iterate_models(self.client, list(experiments.values()))
            for name in _names(model.model_id, model.tags)
        }
        for model_id in self.export.list_entries(MODELS):
            model = read_json(self._entry(MODELS, model_id) / "model.json", advice=REPAIR)
            known = known_models.get(_origin(model_id, model["tags"]))
            self._import_model(model, experiments[model["experiment"]], known)
        for run_id, run in runs.items():
            self._link_models(self.new_ids[run_id], run)
        for registered in read_json_lines(self.export.folder / REGISTRY):
            self._import_registered(registered)
        self.bar.close()

    def _find_experiment(self, described: Mapping[str, Any]) -> Experiment:
        experiment = self.client.get_experiment_by_name(described["name"])
        if experiment is None:
            experiment_id = self.client.create_experiment(
                described["name"], artifact_location=self.store.artifact_location
            )
            experiment = self.client.get_experiment(experiment_id)
        if experiment.lifecycle_stage != "active":
            raise CracksegError(
                f"experiment {described['name']!r} is deleted in {self.store.uri}; restore it in the MLflow UI first"
            )
        for key, value in described["tags"].items():
            if key not in experiment.tags:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return experiment

    def _import_run(self, run: Mapping[str, Any], experiment: Experiment, known: Any) -> None:
        old_id, origin = run["run_id"], _origin(run["run_id"], run["tags"])
        digest = self.export.digest_entry(RUNS, old_id)
        files = self.export.list_artifacts(RUNS, old_id)
        if known is not None:
            self.new_ids[old_id] = known.info.run_id
            if known.info.run_id == origin or known.data.tags.get(_DIGEST_TAG) == digest:
                self.counts.known_runs += 1
                self.bar.update(len(files))
                return
            new_id = known.info.run_id
        else:
            with sent_once():  # a second import finds it by its tag
                created = self.client.create_run(
                    experiment.experiment_id, start_time=run["start_time_ms"], tags={IMPORTED_TAG: origin},
                    run_name=run["name"],
                )  # fmt: skip
            new_id = self.new_ids[old_id] = created.info.run_id
        tags = {k: self._renew(v) for k, v in run["tags"].items() if k not in (IMPORTED_TAG, _DIGEST_TAG)}
        records = read_json_lines(self._entry(RUNS, old_id) / "metrics.jsonl")
        metrics = [Metric(r["key"], r["value"], r["timestamp_ms"], r["step"]) for r in records]
        params = [Param(key, value) for key, value in run["params"].items()]
        for some_metrics in _batches(metrics, 1000):  # what MLflow's server takes at once
            self.client.log_batch(new_id, metrics=some_metrics)
        for some_params in _batches(params, 100):
            self.client.log_batch(new_id, params=some_params)
        for some_tags in _batches([RunTag(k, v) for k, v in tags.items()], 100):
            self.client.log_batch(new_id, tags=some_tags)
        inputs = [
            DatasetInput(Dataset(**d["dataset"]), [InputTag(k, v) for k, v in d["tags"].items()])
            for d in run["datasets"]
        ]
        if inputs:
            self.client.log_inputs(new_id, inputs)
        for path in files:
            source = self._entry(RUNS, old_id) / ARTIFACTS / path
            self.client.log_artifact(new_id, str(source), _folder_of(path))
            self.bar.update()
        if run["end_time_ms"] is None:
            self.client.update_run(new_id, status=run["status"])
        else:
            self.client.set_terminated(new_id, status=run["status"], end_time=run["end_time_ms"])
        self.client.set_tag(new_id, _DIGEST_TAG, digest)
        self.counts.runs += 1

    def _import_model(self, model: Mapping[str, Any], experiment: Experiment, known: Any) -> None:
        old_id, origin = model["model_id"], _origin(model["model_id"], model["tags"])
        digest = self.export.digest_entry(MODELS, old_id)
        files = self.export.list_artifacts(MODELS, old_id)
        if known is not None:
            self.new_ids[old_id] = known.model_id
            if known.model_id == origin or known.tags.get(_DIGEST_TAG) == digest:
                self.bar.update(len(files))
                return
        else:
            tags = {k: self._renew(v) for k, v in model["tags"].items() if k not in (_DIGEST_TAG, _VERSIONS_TAG)}
            with sent_once():
                known = self.client.create_logged_model(
                    experiment.experiment_id, model["name"], self.new_ids.get(model["run_id"]),
                    tags=tags | {IMPORTED_TAG: origin}, params=model["params"], model_type=model["type"],
                )  # fmt: skip
            self.new_ids[old_id] = known.model_id
        for path in files:
            self._upload_model_file(known.model_id, model, path, known.artifact_location)
            self.bar.update()
        if model["status"] in ("READY", "FAILED"):
            self.client.finalize_logged_model(known.model_id, model["status"])
        self.client.set_logged_model_tags(known.model_id, {_DIGEST_TAG: digest})
        self.counts.models += 1

    def _upload_model_file(self, model_id: str, model: Mapping[str, Any], path: str, location: str) -> None:
        source = self._entry(MODELS, model["model_id"]) / ARTIFACTS / path
        if path != "MLmodel":
            self.client.log_model_artifact(model_id, str(source), _folder_of(path))
            return
        with tempfile.TemporaryDirectory() as scratch:  # MLmodel names the run, the model and its place
            text = source.read_text(encoding="utf-8").replace(model["location"], location)
            renewed = Path(scratch) / path
            renewed.write_text(self._renew(text), encoding="utf-8")
            self.client.log_model_artifact(model_id, str(renewed))

    def _link_models(self, run_id: str, run: Mapping[str, Any]) -> None:
        """Link a run to its models, each once: MLflow would show a repeated link twice."""
        wanted_in = [self.new_ids[m] for m in run["input_models"] if m in self.new_ids]
        outputs = [m for m in run["output_models"] if m["model_id"] in self.new_ids]
        if not wanted_in and not outputs:
            return
        known = self.client.get_run(run_id)
        has_in = {m.model_id for m in known.inputs.model_inputs} if known.inputs else set()
        has_out = {m.model_id for m in known.outputs.model_outputs} if known.outputs else set()
        new_in = [LoggedModelInput(m) for m in wanted_in if m not in has_in]
        new_out = [LoggedModelOutput(self.new_ids[m["model_id"]], m["step"]) for m in outputs]
        new_out = [m for m in new_out if m.model_id not in has_out]
        if new_in:
            self.client.log_inputs(run_id, models=new_in)
        if new_out:
            self.client.log_outputs(run_id, new_out)

    def _import_registered(self, described: Mapping[str, Any]) -> None:
        name = described["name"]
        try:
            self.client.create_registered_model(name, description=described["description"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        existing = self.client.search_model_versions(f"name = '{name}'")
        known = {_version_origin(name, v.version, find_model_id(v), v.tags): v for v in existing}
        numbers = {}
        for version in described["versions"]:
            origin = _version_origin(name, version["version"], version["model_id"], version["tags"])
            number = self._import_version(name, version, origin, known.get(origin))
            numbers[str(version["version"])] = number
            if number != str(version["version"]):
                self.counts.notes.append(
                    f"version {version['version']} of {name!r} is version {number} here: the number was taken"
                )
        registered = self.client.get_registered_model(name)
        kept_aliases = [
            f"alias {alias!r} of {name!r} stays at version {registered.aliases[alias]} here; in the export it is "
            f"version {old}" + (f", which is {numbers[old]} here" if numbers[old] != old else "")
            for alias, old in described["aliases"].items()
            if str(registered.aliases.get(alias, numbers[old])) != numbers[old]
        ]
        self.counts.notes += kept_aliases
        same = not kept_aliases and all(old == new for old, new in numbers.items())
        self._import_registered_tags(name, described["tags"], registered.tags, same_production=same)
        for alias, old in described["aliases"].items():
            if alias not in registered.aliases:
                self.client.set_registered_model_alias(name, alias, numbers[old])

    def _import_registered_tags(
        self, name: str, tags: Mapping[str, str], present: Mapping[str, str], *, same_production: bool
    ) -> None:
        """Copy tags unchanged: each record of the promotion history holds a digest of the one before.

        What goes by one name before the first dot (``history.000001``) makes sense only together, and only where
        versions have their numbers and aliases their versions: production follows from the history. Former versions of
        crackseg did not hide the history, so tags are compared by their names without the hidden beginning.
        """
        groups: dict[str, dict[str, str]] = {}
        for key, value in tags.items():
            groups.setdefault(key.removeprefix(HIDDEN_TAG).split(".")[0], {})[key] = value
        here = {key.removeprefix(HIDDEN_TAG): value for key, value in present.items()}
        for group, found in groups.items():
            values = {
                key: value for key, value in found.items() if here.get(key.removeprefix(HIDDEN_TAG)) != value
            }
            if not values:
                continue
            if not same_production or any(key.removeprefix(HIDDEN_TAG) in here for key in values):
                self.counts.notes.append(
                    f"tags {group!r} of {name!r} stay as they are here: those of the export speak of other versions, "
                    "or another history"
                )
                continue
            for key in sorted(values):
                self.client.set_registered_model_tag(name, key, values[key])

    def _import_version(
        self, name: str, version: Mapping[str, Any], origin: str, known: ModelVersion | None
    ) -> str:
        """Create a version unless it is there; returns its number, the same as in the export if that is free."""
        wanted = int(version["version"])
        if known is not None and int(known.version) < wanted and IMPORTED_TAG in known.tags:
            # Left by an import that was interrupted while it filled a gap.
            self.client.delete_model_version(name, str(known.version))
            known = None
        if known is not None and (IMPORTED_TAG not in known.tags or _DIGEST_TAG in known.tags):
            return str(known.version)
        number = str(known.version) if known is not None else self._create_version(name, version, origin)
        if version["stage"] and version["stage"] != "None":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated but still work
                self.client.transition_model_version_stage(name, number, version["stage"])
        digest = self.export.digest_entry(MODELS, version["model_id"])
        self.client.set_model_version_tag(name, number, _DIGEST_TAG, digest)
        self.counts.versions += 1
        return number

    def _create_version(self, name: str, version: Mapping[str, Any], origin: str) -> str:
        model_id = self.new_ids[version["model_id"]]
        tags = {k: self._renew(v) for k, v in version["tags"].items() if k != _DIGEST_TAG} | {IMPORTED_TAG: origin}
        while True:
            with sent_once():
                created = self.client.create_model_version(
                    name, f"models:/{model_id}", self.new_ids.get(version["run_id"]), tags=tags,
                    description=version["description"], model_id=model_id,
                )  # fmt: skip
            if int(created.version) >= int(version["version"]):
                return str(created.version)
            # Numbers only count up: a version deleted in the old store leaves the same gap here.
            self.client.delete_model_version(name, str(created.version))

    def _entry(self, kind: str, entry: str) -> Path:
        return self.export.folder / kind / entry

    def _renew(self, text: str) -> str:
        """Replace every old id of a run or model that has a new one."""
        return _ID.sub(lambda match: self.new_ids.get(match.group(), match.group()), text)


def _origin(entry: str, tags: Mapping[str, str]) -> str:
    """Return the first id of a run or model, also if it was exported from a store that it was imported into."""
    return tags.get(IMPORTED_TAG, entry)


def _version_origin(name: str, number: int | str, model_id: str | None, tags: Mapping[str, str]) -> str:
    return tags.get(IMPORTED_TAG, f"{name}/{number} of {model_id}")


def _names(entry: str, tags: Mapping[str, str]) -> set[str]:
    return {entry, _origin(entry, tags)}


def _parents_first(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    def depth(run_id: str) -> int:
        parent = runs[run_id]["tags"].get(PARENT_TAG)
        return 1 + depth(parent) if parent in runs else 0

    return sorted(runs, key=lambda run_id: (depth(run_id), runs[run_id]["start_time_ms"], run_id))


def _batches(values: list[_Value], size: int) -> Iterator[list[_Value]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _folder_of(path: str) -> str | None:
    parent = PurePosixPath(path).parent.as_posix()
    return None if parent == "." else parent
