"""Opening the store, creating and resuming runs; with ``outbox``, the only importer of MLflow's tracking."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Seconds of waiting for a server that went away, not MLflow's minutes: the outbox tries again by itself.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from crackseg.artifact_places import describe_lost_artifacts
from crackseg.data.image_io import write_bytes
from crackseg.data.versioning import hash_file
from crackseg.errors import CracksegError
from crackseg.outbox import Outbox, deliver_left_over
from crackseg.project_folder import find_real_root
from crackseg.store_address import explain_refusal, find_registry_uri, find_tracking_uri, is_on_server, make_place

_log = logging.getLogger("crackseg")
EXPERIMENT = "crackseg"
IMPORTED_TAG = "crackseg.imported_from"  # the id of a run or model in the store where it was made first
# Their news of migrations, monitoring and lost connections would break the progress bars; the outbox says once
# when the store does not answer.
for _name in ("mlflow", "alembic", "mlflow.system_metrics", "urllib3"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What the store knows of a run that ended well."""

    run_id: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    """The last value of each."""


class Store:
    """An MLflow store and our experiment in it.

    Args:
        root: the project folder or DVC's clone of it.
    Raises:
        CracksegError: the store cannot be reached or opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = find_real_root(root) / "mlruns"
        self.home.mkdir(exist_ok=True)
        self.uri = find_tracking_uri(root)
        mlflow.set_tracking_uri(self.uri)  # also sets the variable, so that child processes use the same
        self.registry_uri = find_registry_uri(root)
        """Of a registry of its own; None: it is the tracking store's."""
        if self.registry_uri:
            os.environ["MLFLOW_REGISTRY_URI"] = self.registry_uri  # for child processes
        _log.debug("tracking store: %s", self.uri)
        make_place(self.uri, self.home.parent)
        # The first use of a fresh database migrates it and creates the experiment; two at once crash each other.
        with FileLock(self.home / "store.lock"):
            try:
                self.client = MlflowClient(self.uri, self.registry_uri)
                self.experiment_id = self._find_or_create_experiment()
            except Exception as error:  # SQLAlchemy, requests and MLflow all have their own here
                raise CracksegError(explain_refusal(self.uri, _summarise(error))) from error
        if self.artifact_location:
            experiment = self.client.get_experiment(self.experiment_id)
            if lost := describe_lost_artifacts(experiment.name, experiment.artifact_location):
                _log.warning(lost)
        deliver_left_over(self.outbox_dir, self.client)

    @property
    def outbox_dir(self) -> Path:
        """Where undelivered records of all runs lie."""
        return self.home / "outbox"

    @property
    def artifact_location(self) -> str | None:
        """Where the artifacts of a new experiment go; None where a server decides."""
        # Without one MLflow would take a folder below the current one, maybe a DVC experiment's temporary copy.
        return None if is_on_server(self.uri) else (self.home / "artifacts").as_uri()

    def _find_or_create_experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return self.client.create_experiment(name, artifact_location=self.artifact_location)
            except MlflowException:  # another machine was faster
                experiment = self.client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            raise CracksegError(f"experiment {name!r} is deleted; restore it in the MLflow UI")
        return experiment.experiment_id

    def create_run(self, name: str | None, *, parent: str | None = None) -> str:
        """Create a run and return its id; named after the DVC experiment if there is one."""
        tags = {"mlflow.user": find_user(), "mlflow.source.name": "crackseg", "mlflow.source.type": "PROJECT"}
        if parent:
            tags["mlflow.parentRunId"] = parent
        name = name or os.environ.get("DVC_EXP_NAME")
        return self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id

    def continue_run(
        self, record_path: Path, *, name: str | None = None, parent: str | None = None
    ) -> tuple[str, bool]:
        """The run that ``record_path`` names, and True; or a new one, noted there, and False.

        A record that is damaged, or of a run deleted meanwhile or of another store, is no obstacle: what is
        trained goes on in a new run.
        """
        if record_path.exists():
            try:
                run_id = json.loads(record_path.read_text(encoding="utf-8"))["run_id"]
                return self.get_run(run_id).info.run_id, True
            except (CracksegError, ValueError, KeyError, TypeError):
                pass
        run_id = self.create_run(name, parent=parent)
        write_bytes(record_path, (json.dumps({"run_id": run_id}) + "\n").encode())
        return run_id, False

    @contextmanager
    def record(self, run_id: str, *, system_metrics: bool = False, resumed: bool = False) -> Iterator[RunRecorder]:
        """Record into a run; at the end, what the store has taken is final and the rest waits in the outbox.

        Args:
            run_id: the run.
            system_metrics: record the load of processor, memory and GPU too.
            resumed: the run has metrics of steps that may come again, and are recorded once.
        """
        outbox = Outbox(self.outbox_dir / run_id, self.client)
        if resumed:
            keys = [key for key in self.get_run(run_id).data.metrics if not key.startswith("system/")]
            outbox.steps_seen.update(
                (key, metric.step) for key in keys for metric in self.client.get_metric_history(run_id, key)
            )
        recorder = RunRecorder(outbox)
        monitor = None
        if system_metrics:
            monitor = SystemMetricsMonitor(run_id, resume_logging=True, sampling_interval=10)
            monitor.start()
        try:
            yield recorder
        finally:
            if monitor is not None:
                monitor.finish()
            recorder.outbox.close()

    def run_for_settings(self, run_id: str, settings: Mapping[str, Any]) -> str:
        """The run that results under these settings belong to.

        A run's params cannot change, and a skipped training makes no new run. So results of the same model under
        other evaluation settings, or on another data version, go to a child run of the training's run.

        Args:
            run_id: the training's run.
            settings: flat params that the results depend on, ``data.md5`` among them.
        """
        run = self.get_run(run_id)
        run_id = run.info.run_id
        recorded = run.data.params | {"data.md5": run.data.tags.get("data.md5", "")}
        if all(recorded.get(key) == str(value) for key, value in settings.items()):
            return run_id
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
        with FileLock(self.home / "store.lock"):
            found = self.client.search_runs(
                [self.experiment_id],
                f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`crackseg.settings` = '{digest}'",
                max_results=1,
            )
            if found:
                return found[0].info.run_id
            child = self.create_run(
                os.environ.get("DVC_EXP_NAME") or f"{run.info.run_name}-rescored", parent=run_id
            )
            self.client.set_tag(child, "crackseg.settings", digest)
        with self.record(child) as recorder:
            kept = {k: v for k, v in run.data.params.items() if k not in settings}
            recorder.log_params(kept | {k: v for k, v in settings.items() if k != "data.md5"})
            recorder.set_tags({"data.md5": settings.get("data.md5", "")} | describe_code(self.root))
            recorder.end("FINISHED")
        return child

    def finished_runs(self) -> list[FinishedRun]:
        """All runs of our experiment that ended well, the newest first."""
        runs: list[FinishedRun] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], "attributes.status = 'FINISHED'", max_results=1000, page_token=token
            )
            runs += [
                FinishedRun(r.info.run_id, r.info.run_name or "", r.data.params, r.data.tags, r.data.metrics)
                for r in page
            ]
            if not (token := page.token):
                return runs

    def find_version(self, name: str, alias: str = "", *, stage: str = "") -> str | None:
        """The number of the version that an alias of the registered model points at, or of the newest in a stage.

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
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no model; no alias
                return None
            raise CracksegError(f"the store {self.uri} does not answer: {_summarise(error)}") from error

    def get_run(self, run_id: str) -> Run:
        """Fetch a run; one that was imported from another store also by the id that it had there.

        Raises:
            CracksegError: the store has no such run, or it was deleted there.
        """
        run: Run | None = None
        with suppress(MlflowException):
            run = self.client.get_run(run_id)
        if run is None:
            with suppress(MlflowException):
                old = f"tags.`{IMPORTED_TAG}` = '{run_id}'"
                run = next(iter(self.client.search_runs([self.experiment_id], old, max_results=1)), None)
        if run is None or run.info.lifecycle_stage != "active":
            raise CracksegError(
                f"run {run_id} is not in the store {self.uri}: it was made in another store or deleted; point "
                "MLFLOW_TRACKING_URI at the store it was made in, or train again with `dvc repro --force train`"
            )
        return run


class RunRecorder:
    """Says things of one run; every word goes through the run's outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.run_id = outbox.run_id

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record flat params, once for each run."""
        self.outbox.put("params", values=dict(values))

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set tags."""
        self.outbox.put("tags", values=dict(values))

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Record metrics; a step that a resumed training goes through again is recorded once."""
        new = {k: float(v) for k, v in values.items() if (k, step) not in self.outbox.steps_seen}
        self.outbox.steps_seen.update((key, step) for key in new)
        if new:
            self.outbox.put("metrics", values=new, step=step)

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
        """Show the run as running again."""
        self.outbox.put("status", value="RUNNING")

    def end(self, status: str) -> None:
        """Show the run as FINISHED, FAILED or KILLED."""
        self.outbox.put("status", value=status)


@contextmanager
def fetched_init(init: str, store: Store) -> Iterator[tuple[str, str]]:
    """What to begin a training from, as a name or a local file, and the digest of that file ("" for a name).

    The digest is part of what a training is known by: a file may change, and an alias move, under the same name.

    Args:
        init: ``model.init`` of params.yaml.
        store: where ``models:/…`` comes from; the paths of files are below its project folder.
    Raises:
        CracksegError: see :func:`fetch_weights`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if init.startswith(("models:/", "runs:/")):
            init = str(fetch_weights(init, Path(scratch)))
        for path in (store.root / init, store.home.parent / init):  # DVC's clone has only what git or DVC tracks
            if path.is_file():
                yield str(path), hash_file(path)
                return
        yield init, ""


def fetch_weights(uri: str, folder: Path) -> Path:
    """Download the weights of ``models:/NAME/VERSION`` (or ``models:/NAME@ALIAS``) into ``folder``.

    Raises:
        CracksegError: there is no such version, or it is not a crackseg model.
    """
    weights = sorted(fetch_model(uri, folder).rglob("weights.pt"))
    if not weights:
        raise CracksegError(f"{uri} is not a model of crackseg: it holds no weights.pt")
    return weights[0]


def fetch_model(uri: str, folder: Path) -> Path:
    """Download the folder of ``models:/NAME/VERSION`` (or ``models:/NAME@ALIAS``) into ``folder``.

    Raises:
        CracksegError: there is no such version, or the store does not answer.
    """
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as error:  # MLflow, requests and the file system all have their own here
        raise CracksegError(
            f"the model {uri} cannot be fetched from {mlflow.get_tracking_uri()}: "
            f"{str(error).splitlines()[0][:200]}; `mlflow ui` shows the registered versions"
        ) from error


def describe_code(root: Path) -> dict[str, str]:
    """Tags that name the code: git commit, dirty or clean, DVC experiment and baseline, package versions."""
    tags = {
        "git.commit": _git(root, "rev-parse", "HEAD") or "none",
        "git.state": "dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "clean",
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


def _summarise(error: Exception) -> str:
    """The part of an error that says something: requests repeats itself after "failed with exception"."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(" failed with exception")[0][:200]


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def find_user() -> str:
    """Who is at work, by the name of the system's account."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
