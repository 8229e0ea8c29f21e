"""Register trained weights as versions of a model in MLflow."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo

import crackseg
from crackseg.data.catalog import list_splits
from crackseg.errors import CracksegError, first_line
from crackseg.files import hash_file
from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME, ModelSettings
from crackseg.models import ARCHITECTURES
from crackseg.models.shipped import SHIPPED_NAME
from crackseg.models.state_dicts import read_weights
from crackseg.params import Params
from crackseg.progress import name_step
from crackseg.registry.model_page import describe_model
from crackseg.registry.package import build_analyzer, write_answers
from crackseg.registry.version_tags import RESULTS_TAG, THRESHOLD_TAG, find_results_run, pack_tags, read_tags
from crackseg.tracking.connection import is_outage, sent_once
from crackseg.tracking.store import Store, describe_code

CANDIDATE_ALIAS = "candidate"
WEIGHTS_TAG = "weights_sha256"
_SETTINGS_TAG = "settings_sha256"
_REQUIREMENTS = (
    "torch",
    "torchvision",
    "filelock",
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pydantic",
    "ruamel.yaml",
    "scikit-image",
    "scipy",
    "tqdm",
)


def complete_and_register(
    store: Store,
    weights_path: Path,
    prepared_dir: Path,
    params: Params,
    tags: Mapping[str, object],
    *,
    operating_threshold: float | None = None,
) -> ModelVersion:
    """Build a finished model from trained weights, and register it as a version.

    Args:
        store: to register in.
        weights_path: written by the training that ``params`` describe; name the training's run and data source.
        prepared_dir: holds ``DATASET/manifest.csv`` of the training images.
        params: the training's; ``postprocess`` is part of the model, ``registry.model_name`` its name.
        tags: what to show with the version, besides ``architecture``, ``data.source`` and ``git.commit``.
        operating_threshold: see ``build_analyzer``.
    Raises:
        CracksegError: see ``build_analyzer`` and :func:`register_model`.
    """
    dataset = params.data.train_dataset
    splits = list_splits(prepared_dir, dataset)
    name_step("predict the validation images")
    analyzer = build_analyzer(
        weights_path,
        splits["train"],
        splits["val"],
        params.postprocess,
        dataset=dataset,
        device=params.train.device,
        precision=params.train.precision,
        operating_threshold=operating_threshold,
    )
    about = {
        "data.source": analyzer.settings.data_source,
        "git.commit": describe_code(store.root)["git.commit"],
        "architecture": params.model.architecture,
        THRESHOLD_TAG: f"{analyzer.settings.operating_threshold:.4f}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        name_step("answer a few validation images, which the version carries")
        settings_path, probe_dir = write_answers(Path(scratch), analyzer, splits["val"])
        return register_model(
            store,
            run_id=analyzer.settings.run_id,
            weights_path=weights_path,
            settings_path=settings_path,
            probe_dir=probe_dir,
            name=params.registry.model_name,
            tags={**tags, **about},
        )


def register_model(
    store: Store,
    *,
    run_id: str,
    weights_path: Path,
    settings_path: Path,
    probe_dir: Path,
    name: str,
    tags: Mapping[str, object],
) -> ModelVersion:
    """Register a finished model as a version of the model ``name``, and point the alias ``candidate`` at it.

    An existing version with the same run, weights, threshold, tiles and post-processing is not registered again; its
    tags are renewed.

    Args:
        store: to register in.
        run_id: the training run; the model is logged there.
        weights_path: written by ``save_weights``, under any name; the version carries it as ``weights.pt``.
        settings_path: holds ``crackseg.inference.detector.ModelSettings``; carried as ``settings.json``.
        probe_dir: written by ``crackseg.registry.package.write_probe``.
        tags: of the version.
    Raises:
        CracksegError: the run or the registry does not answer.
    """
    run_id = store.get_run(run_id).info.run_id  # another, if the run was imported from another store
    digests = {
        WEIGHTS_TAG: hash_file(weights_path, "sha256"),
        _SETTINGS_TAG: _hash_settings(settings_path),
    }
    artifacts = {"weights": weights_path, "settings": settings_path, "probe": probe_dir}
    try:
        with FileLock(store.home / "registry.lock"):
            found = _find_registered(store, name, run_id, digests)
            name_step("log the model in MLflow")
            registered = found or _log_model(store, run_id, artifacts, name)
            kept = {RESULTS_TAG: run} if found and (run := find_results_run(found)) else {}
            for key, value in pack_tags({**kept, **tags, **digests}).items():
                store.client.set_model_version_tag(name, registered.version, key, value)
            store.client.set_registered_model_alias(name, CANDIDATE_ALIAS, registered.version)
    except MlflowException as error:
        raise CracksegError(
            f"the model {name!r} cannot be registered in {store.uri}: {first_line(error)}"
        ) from error
    return registered


def _hash_settings(path: Path) -> str:
    """Hash the settings that determine the answers, without the reference statistics, which depend on the processor."""
    deciding = ModelSettings.read(path).model_dump_json(exclude={"reference"})
    return hashlib.sha256(deciding.encode()).hexdigest()


def _find_registered(store: Store, name: str, run_id: str, digests: Mapping[str, str]) -> ModelVersion | None:
    versions = store.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return next((v for v in versions if digests.items() <= read_tags(v).items()), None)


def _log_model(store: Store, run_id: str, artifacts: Mapping[str, Path], name: str) -> ModelVersion:
    status = store.get_run(run_id).info.status
    with mlflow.start_run(run_id=run_id), packaging(artifacts) as arguments:
        logged = mlflow.pyfunc.log_model(name="model", **arguments)
    if status != "FINISHED":  # leaving the `with` marked it so
        store.client.set_terminated(run_id, status)
    try:
        store.client.create_registered_model(name, description=describe_model(name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return _create_version(store, run_id, logged, name)


def _create_version(store: Store, run_id: str, logged: ModelInfo, name: str) -> ModelVersion:
    """Create the version once, also if the answer of the server is lost."""
    try:
        with sent_once():
            return store.client.create_model_version(
                name, logged.model_uri, run_id=run_id, model_id=logged.model_id
            )
    except MlflowException as error:
        if not is_outage(error, store.uri):
            raise
    versions = store.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if made := [v for v in versions if v.model_id == logged.model_id]:
        return made[0]
    with sent_once():
        return store.client.create_model_version(name, logged.model_uri, run_id=run_id, model_id=logged.model_id)


@contextmanager
def packaging(artifacts: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Give the arguments by which MLflow saves or logs a finished model, while their files exist.

    Args:
        artifacts: ``weights`` and ``settings``, under any names, and ``probe``.
    Raises:
        CracksegError: the weights are damaged.
    """
    package = Path(crackseg.__file__).parent
    spec = read_weights(artifacts["weights"]).model
    assert spec is not None, artifacts  # save_weights wrote it
    requirements = _REQUIREMENTS + ARCHITECTURES[spec["architecture"]].extra_packages
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        # A version's files are found by their names.
        weights = shutil.copyfile(artifacts["weights"], Path(scratch) / WEIGHTS_NAME)
        settings = shutil.copyfile(artifacts["settings"], Path(scratch) / SETTINGS_NAME)
        carried = dict(artifacts) | {"weights": weights, "settings": settings}
        # MLflow would derive a signature from type hints and an input example; we pass our own.
        warnings.simplefilter("ignore", UserWarning)
        from crackseg.registry.pyfunc import SIGNATURE

        yield {
            "python_model": str(package / "registry" / "pyfunc.py"),
            "artifacts": {key: str(path) for key, path in carried.items()},
            "code_paths": [str(_copy_package(package, Path(scratch)))],
            "signature": SIGNATURE,
            "pip_requirements": [f"{r}=={version(r)}" for r in requirements],
        }


def _copy_package(package: Path, scratch: Path) -> Path:
    """Copy the package's source without caches, so that the logged code is the same on every machine.

    The shipped weights stay out: a version has its own.
    """
    ignored = shutil.ignore_patterns("__pycache__", SHIPPED_NAME)
    return Path(shutil.copytree(package, scratch / "crackseg", ignore=ignored))
