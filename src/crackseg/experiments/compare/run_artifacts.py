"""Fetch a run's results: counts, tables and curves from MLflow; photographs, ground truth and maps from DVC's cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from crackseg.data.catalog import list_samples
from crackseg.data.versioning import list_cached_folder
from crackseg.errors import CracksegError, first_line
from crackseg.evaluation.counts import read_counts
from crackseg.evaluation.metrics import ImageCounts
from crackseg.experiments.compare.resolve_runs import ComparedRun
from crackseg.tracking.store import Store
from crackseg.types import CrackSample

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB

_LOCK = "dvc.lock"


@dataclass
class RunArtifacts:
    """Results of one run.

    Attributes:
        counts: by dataset, the counts of each image by stem.
        images: by dataset, the table of images: ``stem``, ``crack_pixels``, ``paper_f``, ….
        curves: by dataset, the PR curve: ``precision``, ``recall``, ``f``, ….
        outputs: files of the pipeline in DVC's cache, by their path in the project.
        missing: what is missing, with the reason.
    """

    counts: dict[str, dict[str, ImageCounts]] = field(default_factory=dict)
    images: dict[str, pd.DataFrame] = field(default_factory=dict)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)
    outputs: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def find_map(self, dataset: str, stem: str) -> Path | None:
        """Find the probability map of an image in the cache; None if it is not there."""
        return self.outputs.get(f"outputs/predictions/{dataset}/{stem}.png")


def gather(store: Store, run: ComparedRun, cache: HashFileDB | None, scratch: Path) -> RunArtifacts:
    """Fetch a run's artifacts from MLflow, and find its files in DVC's cache.

    Args:
        store: where the run is.
        run: the run.
        cache: DVC's; None where there is no DVC project.
        scratch: an empty folder for what is fetched.
    """
    artifacts = RunArtifacts()
    try:
        names = {artifact.path for artifact in store.client.list_artifacts(run.run_id)}
        for name in names & {"per_image", "pr_curves", _LOCK}:
            store.client.download_artifacts(run.run_id, name, str(scratch))
    except Exception as error:  # MLflow, requests and the file system raise different classes
        artifacts.missing.append(f"{run.label}: its artifacts cannot be fetched ({first_line(error)})")
    for dataset in run.datasets:
        _read(artifacts, scratch, run, dataset)
    if cache is not None and (scratch / _LOCK).is_file():
        try:
            artifacts.outputs = find_outputs(scratch / _LOCK, cache)
        except (YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
            artifacts.missing.append(f"{run.label}: its dvc.lock cannot be read ({error})")
    return artifacts


def _read(artifacts: RunArtifacts, folder: Path, run: ComparedRun, dataset: str) -> None:
    counts, images = (folder / "per_image" / f"{dataset}_{name}" for name in ("counts.npz", "images.csv"))
    curve = folder / "pr_curves" / f"{dataset}_pr.csv"
    try:
        if counts.is_file():
            artifacts.counts[dataset] = read_counts(counts)
        if images.is_file():
            artifacts.images[dataset] = pd.read_csv(images, dtype={"stem": str})
        if curve.is_file():
            artifacts.curves[dataset] = pd.read_csv(curve)
    except (CracksegError, ValueError) as error:
        artifacts.missing.append(f"{run.label}: {error}")
    if dataset not in artifacts.counts:
        rest = "; from its table of images only OIS has an interval" if dataset in artifacts.images else ""
        artifacts.missing.append(
            f"{run.label}, {dataset}: no counts by image in MLflow (a trial of a search or study, or scored by an "
            f"older crackseg){rest}"
        )
    if dataset not in artifacts.curves:
        artifacts.missing.append(f"{run.label}, {dataset}: no PR curve in MLflow")


def find_outputs(lock_path: Path, cache: HashFileDB) -> dict[str, Path]:
    """List prepared images and predicted maps that a pipeline's run left in DVC's cache.

    Args:
        lock_path: its dvc.lock.
        cache: DVC's, see :func:`crackseg.data.versioning.open_cache`.
    Returns:
        Cached files by their path in the project, e.g. ``outputs/predictions/CRKWH100/0001.png``.
    """
    lock = YAML(typ="safe", pure=True).load(lock_path.read_text(encoding="utf-8"))
    found: dict[str, Path] = {}
    for name, stage in lock.get("stages", {}).items():
        if name.split("@")[0] not in ("prepare", "predict"):
            continue
        for out in stage.get("outs", []):
            for relative, md5 in (list_cached_folder(cache, out["md5"]) or {}).items():
                if cache.exists(md5):
                    found[f"{out['path']}/{relative}"] = Path(cache.oid_to_path(md5))
    return found


def restore_samples(
    artifacts: RunArtifacts, dataset: str, stems: list[str], folder: Path
) -> dict[str, CrackSample]:
    """Copy the prepared photographs and ground truth that the cache holds into a folder."""
    prefix = f"outputs/prepared/{dataset}/"
    if f"{prefix}manifest.csv" not in artifacts.outputs:
        return {}
    _copy(artifacts.outputs[f"{prefix}manifest.csv"], folder / dataset / "manifest.csv")
    samples: dict[str, CrackSample] = {}
    for sample in list_samples(folder, dataset):
        if sample.stem not in stems:
            continue
        wanted = [path.relative_to(folder / dataset).as_posix() for path in (sample.image_path, sample.mask_path)]
        if all(prefix + name in artifacts.outputs for name in wanted):
            for name in wanted:
                _copy(artifacts.outputs[prefix + name], folder / dataset / name)
            samples[sample.stem] = sample
    return samples


def _copy(source: Path, target: Path) -> None:
    """Copy a file from the cache under its own name, since readers need the extension."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
