"""Open the store, create and resume runs; while it does not answer, runs begin in the outbox."""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from crackseg.errors import CracksegError, first_line
from crackseg.files import write_bytes
from crackseg.project import find_real_root
from crackseg.tracking.artifact_places import describe_lost_artifacts
from crackseg.tracking.connection import StoreAwayError, check_connection, is_outage, said_if_slow
from crackseg.tracking.new_database import make_database
from crackseg.tracking.outbox import Deliveries, Outbox, begin_outbox, deliver_left_over, list_waiting
from crackseg.tracking.runs import (
    OUTBOX_TAG,
    FinishedRun,
    RunRecorder,
    child_tags,
    create_once,
    describe_code,
    find_child,
    find_or_create_experiment,
    find_runs,
    find_user,
    has_settings,
    list_finished,
    name_settings,
    read_note,
    read_run,
)
from crackseg.tracking.store_address import (
    database_path,
    describe_silence,
    explain_database,
    explain_refusal,
    find_registry_uri,
    find_tracking_uri,
    is_on_server,
    make_place,
)

_log = logging.getLogger("crackseg")
EXPERIMENT = "crackseg"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no model or version; no alias
# Their messages about migrations and lost connections would break the progress bars; the outbox warns once.
for _name in ("mlflow", "alembic", "mlflow.system_metrics", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a lost database, with a traceback


class Store:
    """An MLflow store and our experiment in it.

    Args:
        root: the project folder or DVC's clone of it.
        may_be_away: a store that does not answer is no error here: what is recorded waits in the outbox.
    Raises:
        StoreAwayError: the store does not answer.
        CracksegError: it cannot be opened.
    """

    def __init__(self, root: Path, *, may_be_away: bool = False) -> None:
        self.root, self._may_be_away = root, may_be_away
        self.home = find_real_root(root) / "mlruns"
        self.home.mkdir(exist_ok=True)
        self.uri = find_tracking_uri(root)
        mlflow.set_tracking_uri(self.uri)  # also sets the variable, so that child processes use the same
        self.registry_uri = find_registry_uri(root)
        """Address of a separate registry; None: the registry is in the tracking store."""
        if self.registry_uri:
            os.environ["MLFLOW_REGISTRY_URI"] = self.registry_uri  # for child processes
        _log.debug("tracking store: %s", self.uri)
        make_place(self.uri, self.home.parent)
        self._experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        self._client: MlflowClient | None = None
        self._silence: StoreAwayError | None = None
        try:
            self._open()
        except StoreAwayError as error:
            if not may_be_away:
                raise
            _log.debug("%s", error)
            self._client, self._silence = None, error
            return
        if self.artifact_location:
            experiment = self.client.get_experiment(self.experiment_id)
            if lost := describe_lost_artifacts(experiment.name, experiment.artifact_location):
                _log.warning(lost)
        self.deliver()

    def _open(self) -> None:
        # The first use of a fresh database migrates it and creates the experiment; two at once crash each other.
        with FileLock(self.home / "store.lock"), said_if_slow(self.uri):
            try:
                check_connection(self.uri)
                make_database(database_path(self.uri))
                make_database(database_path(self.registry_uri or ""))
                self._client = MlflowClient(self.uri, self.registry_uri)
                self.experiment_id = find_or_create_experiment(
                    self._client, self._experiment, self.artifact_location
                )
            except Exception as error:  # SQLAlchemy, requests and MLflow all have their own here
                if is_outage(error, self.uri):
                    raise self._away(error) from error
                raise CracksegError(explain_refusal(self.uri, explain_database(error))) from error

    def _away(self, error: Exception) -> StoreAwayError:
        waiting = list_waiting(self.outbox_dir)
        kept = f"; records of {len(waiting)} runs are kept in {self.outbox_dir}" if waiting else ""
        return StoreAwayError(
            f"{describe_silence(self.uri, first_line(error))}{kept}; check MLFLOW_TRACKING_URI and that the server "
            "runs"
        )

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Raise StoreAwayError if an error in the block shows that the store does not answer."""
        try:
            yield
        except Exception as error:
            if isinstance(error, StoreAwayError) or not is_outage(error, self.uri):
                raise
            raise self._away(error) from error

    @property
    def client(self) -> MlflowClient:
        """Return MLflow's client; StoreAwayError if the store did not answer when it was opened."""
        if self._client is None:
            assert self._silence is not None
            raise self._silence
        return self._client

    def deliver(self) -> Deliveries:
        """Deliver what earlier commands had to leave behind."""
        return deliver_left_over(self.outbox_dir, self.client, uri=self.uri, find_run=self._find_described)

    @property
    def outbox_dir(self) -> Path:
        """Return the folder with the undelivered records of all runs."""
        return self.home / "outbox"

    @property
    def artifact_location(self) -> str | None:
        """Return the artifact location of a new experiment; None where a server decides."""
        # Without one MLflow would take a folder below the current one, maybe a DVC experiment's temporary copy.
        return None if is_on_server(self.uri) else (self.home / "artifacts").as_uri()

    def create_run(self, name: str | None, *, parent: str | None = None) -> str:
        """Create a run and return its id; named after the DVC experiment if there is one.

        While the store is away the id is that of an outbox, from which the run is created later.
        """
        return self._create(name, parent, uuid.uuid4().hex, is_noted=False)

    def _create(
        self, name: str | None, parent: str | None, outbox_name: str, *, is_noted: bool, may_exist: bool = False
    ) -> str:
        """Create a run.

        Args:
            name, parent: see :meth:`create_run`.
            outbox_name: by which the run is found while its id is not known.
            is_noted: a later command may look for it by this name.
            may_exist: an earlier one may have made it.
        """
        tags = {"mlflow.user": find_user(), "mlflow.source.name": "crackseg", "mlflow.source.type": "PROJECT"}
        if parent:
            tags["mlflow.parentRunId"] = parent
        name = name or os.environ.get("DVC_EXP_NAME")
        known = tags | {OUTBOX_TAG: outbox_name}
        if self._client is not None:
            try:
                with self.answering():
                    needs_no_name = (
                        bool(database_path(self.uri)) and not is_noted
                    )  # no answer is lost on this machine
                    return self._create_once(name, tags if needs_no_name else known, may_exist=may_exist)
            except StoreAwayError:  # a server whose answer was lost has made it: it is found by its tag
                if not self._may_be_away:
                    raise
            except MlflowException as error:
                raise CracksegError(explain_refusal(self.uri, explain_database(error))) from error
        folder = self.outbox_dir / outbox_name
        begin_outbox(folder, self.uri, "run", experiment=self._experiment, name=name, tags=known)
        return outbox_name

    def _create_once(self, name: str | None, tags: Mapping[str, str], *, may_exist: bool) -> str:
        now_ms = int(time.time() * 1000)
        try:
            return create_once(
                self.client, self.experiment_id, tags=tags, name=name, start_time_ms=now_ms, may_exist=may_exist
            )
        except Exception as error:  # requests and MLflow have their own
            if may_exist or not is_outage(error, self.uri):
                raise
        return self._create_once(name, tags, may_exist=True)  # the answer may be lost

    def _find_described(self, described: Mapping[str, Any]) -> str:
        """Find or create the run that the first record of an outbox describes."""
        with self.answering():
            if described["kind"] == "results":
                return self._find_results(described)
            experiment_id = find_or_create_experiment(self.client, described["experiment"], self.artifact_location)
            return create_once(
                self.client, experiment_id, tags=described["tags"], name=described["name"],
                start_time_ms=described["time_ms"],
            )  # fmt: skip

    def continue_run(
        self, record_path: Path, *, name: str | None = None, parent: str | None = None
    ) -> tuple[str, bool]:
        """Return the run that ``record_path`` names, and True; or a new one, written there, and False.

        A record that is damaged, or of a run that was deleted or is in another store, is ignored: the training
        continues in a new run.
        """
        noted = read_note(record_path)
        if run_id := noted.get("run_id"):
            if self._client is None or self._is_waiting(run_id):
                return run_id, True
            try:
                return self.get_run(run_id).info.run_id, True
            except StoreAwayError:
                if not self._may_be_away:
                    raise
                return run_id, True
            except CracksegError:
                pass
        # Noted before it is made, so that a process that is killed in between leaves no run behind.
        planned = noted.get("planned")
        outbox_name = planned or uuid.uuid4().hex
        if not planned:
            write_bytes(record_path, (json.dumps({"planned": outbox_name}) + "\n").encode(), durable=True)
        run_id = self._create(name, parent, outbox_name, is_noted=True, may_exist=bool(planned))
        write_bytes(record_path, (json.dumps({"run_id": run_id}) + "\n").encode(), durable=True)
        if self._client is not None and database_path(self.uri):
            self._client.delete_tag(run_id, OUTBOX_TAG)
        return run_id, False

    @contextmanager
    def record(self, run_id: str, *, system_metrics: bool = False, resumed: bool = False) -> Iterator[RunRecorder]:
        """Record into a run; at the end, what the store has not accepted waits in the outbox.

        Args:
            run_id: the run.
            system_metrics: also record the load of processor, memory and GPU.
            resumed: the run has metrics of steps that may come again, and are recorded once.
        """
        outbox = Outbox(self.outbox_dir / run_id, self._client, uri=self.uri, find_run=self._find_described)
        monitor = None
        if system_metrics and self._client is None:
            _log.warning(
                "%s: records are kept in %s; the machine's load is not recorded",
                describe_silence(self.uri, ""), self.outbox_dir,
            )  # fmt: skip
        elif system_metrics:
            monitor = SystemMetricsMonitor(run_id, resume_logging=True, sampling_interval=10)
            monitor.start()
        try:
            yield RunRecorder(outbox, resumed=resumed)
        finally:
            if monitor is not None:
                monitor.finish()
            outbox.close()

    def run_for_settings(self, run_id: str, settings: Mapping[str, Any]) -> str:
        """Return the run that results under these settings belong to.

        A run's params cannot change, and a skipped train stage makes no new run. So results of the same model under
        other evaluation settings, or on another data version, go to a child run of the training run. While the
        store does not answer, they go to a separate outbox, and the run is chosen when that is delivered.

        Args:
            run_id: the training's run.
            settings: flat params that the results depend on, ``data.md5`` among them.
        """
        described = {
            "of": run_id,
            "settings": dict(settings),
            "name": os.environ.get("DVC_EXP_NAME"),
            "code": describe_code(self.root),
        }
        try:
            with self.answering():
                return self._find_results(described)
        except StoreAwayError:
            name = f"{run_id}-{name_settings(settings)}"
            begin_outbox(self.outbox_dir / name, self.uri, "results", **described)
            return name

    def _find_results(self, described: Mapping[str, Any]) -> str:
        settings = described["settings"]
        run = self.get_run(described["of"])
        run_id = run.info.run_id
        if has_settings(run, settings):
            return run_id
        digest = name_settings(settings)
        with FileLock(self.home / "store.lock"):
            if found := find_child(self.client, self.experiment_id, run_id, digest):
                return found.info.run_id
            child = self.create_run(described["name"] or f"{run.info.run_name}-rescored", parent=run_id)
            for key, value in child_tags(run_id, digest).items():
                self.client.set_tag(child, key, value)
        with self.record(child) as recorder:
            kept = {k: v for k, v in run.data.params.items() if k not in settings}
            recorder.log_params(kept | {k: v for k, v in settings.items() if k != "data.md5"})
            recorder.set_tags({"data.md5": settings.get("data.md5", "")} | described["code"])
            recorder.end("FINISHED")
        return child

    def _is_waiting(self, run_id: str) -> bool:
        return (self.outbox_dir / run_id / "records.jsonl").exists()

    def finished_runs(self, *, of_stages: bool = False) -> list[FinishedRun]:
        """List all runs of our experiment that finished without error, the newest first; see :func:`list_finished`."""
        return list_finished(self.client, self.experiment_id, of_stages=of_stages)

    def find_runs(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Find runs of our experiment by their ids; those that are not there are left out."""
        return find_runs(self.client, self.experiment_id, run_ids)

    def find_version(self, name: str, alias: str = "", *, stage: str = "") -> str | None:
        """Return the number of the version that a registered model's alias points to, or of the newest in a stage.

        Returns:
            None if there is none.

        Raises:
            CracksegError: the store does not answer.
        """
        try:
            if stage:  # not by MLflow's own look-up, which warns that stages are deprecated
                found = self.client.search_model_versions(f"name = '{name}'")
                staged = [v for v in found if (v.current_stage or "").lower() == stage.lower()]
                return max((str(v.version) for v in staged), key=int, default=None)
            return str(self.client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise CracksegError(f"the store {self.uri} does not answer: {first_line(error)}") from error

    def get_version(self, name: str, number: str) -> ModelVersion:
        """Fetch a version of a registered model by its number.

        Raises:
            CracksegError: there is no such version, or the store does not answer.
        """
        try:
            return self.client.get_model_version(name, number)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                raise CracksegError(
                    f"the model {name!r} has no version {number} in {self.uri}; `crackseg models` lists them"
                ) from error
            raise CracksegError(f"the store {self.uri} does not answer: {first_line(error)}") from error

    def get_run(self, run_id: str) -> Run:
        """Fetch a run; also by the id that it had in the store it was imported from, or in the outbox.

        Raises:
            StoreAwayError: the store does not answer, or does not have the run yet.
            CracksegError: the store has no such run, or it was deleted there.
        """
        with self.answering():
            try:
                run = read_run(self.client, self.experiment_id, run_id)
            except MlflowException as error:
                if is_outage(error, self.uri):
                    raise
                run = None
        if run is None and self._is_waiting(run_id):
            raise StoreAwayError(
                f"run {run_id} is not in the store {self.uri} yet: its records are kept in {self.outbox_dir / run_id}; "
                "`crackseg store deliver` delivers them"
            )
        if run is None or run.info.lifecycle_stage != "active":
            raise CracksegError(
                f"run {run_id} is not in the store {self.uri}: it was made in another store or deleted; point "
                "MLFLOW_TRACKING_URI at the store it was made in, or train again with `dvc repro --force train`"
            )
        return run
