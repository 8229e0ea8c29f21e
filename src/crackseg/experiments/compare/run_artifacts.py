"""What is kept of a run's scoring: in MLflow counts, tables and curves, in DVC's cache photographs, truth and maps."""

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
class Evidence:
    """What was found of one run.

    Attributes:
        counts: by dataset, the counts of each image by stem.
        images: by dataset, the table of images: ``stem``, ``crack_pixels``, ``paper_f``, ….
        curves: by dataset, the PR curve: ``precision``, ``recall``, ``f``, ….
        outputs: files of the pipeline in DVC's cache, by their path in the project.
        missing: what is not there, and why.
    """

    counts: dict[str, dict[str, ImageCounts]] = field(default_factory=dict)
    images: dict[str, pd.DataFrame] = field(default_factory=dict)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)
    outputs: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def find_map(self, dataset: str, stem: str) -> Path | None:
        """The probability map of an image, if the cache has it."""
        return self.outputs.get(f"outputs/predictions/{dataset}/{stem}.png")


def gather(store: Store, run: ComparedRun, cache: HashFileDB | None, scratch: Path) -> Evidence:
    """Fetch what MLflow has of a run, and find what DVC's cache has.

    Args:
        store: where the run is.
        run: the run.
        cache: DVC's; None where there is no DVC project.
        scratch: an empty folder for what is fetched.
    """
    evidence = Evidence()
    try:
        names = {artifact.path for artifact in store.client.list_artifacts(run.run_id)}
        for name in names & {"per_image", "pr_curves", _LOCK}:
            store.client.download_artifacts(run.run_id, name, str(scratch))
    except Exception as error:  # MLflow, requests and the file system all have their own here
        evidence.missing.append(f"{run.label}: its artifacts cannot be fetched ({first_line(error)})")
    for dataset in run.datasets:
        _read(evidence, scratch, run, dataset)
    if cache is not None and (scratch / _LOCK).is_file():
        try:
            evidence.outputs = find_outputs(scratch / _LOCK, cache)
        except (YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
            evidence.missing.append(f"{run.label}: its dvc.lock cannot be read ({error})")
    return evidence


def _read(evidence: Evidence, folder: Path, run: ComparedRun, dataset: str) -> None:
    counts, images = (folder / "per_image" / f"{dataset}_{name}" for name in ("counts.npz", "images.csv"))
    curve = folder / "pr_curves" / f"{dataset}_pr.csv"
    try:
        if counts.is_file():
            evidence.counts[dataset] = read_counts(counts)
        if images.is_file():
            evidence.images[dataset] = pd.read_csv(images, dtype={"stem": str})
        if curve.is_file():
            evidence.curves[dataset] = pd.read_csv(curve)
    except (CracksegError, ValueError) as error:
        evidence.missing.append(f"{run.label}: {error}")
    if dataset not in evidence.counts:
        rest = "; from its table of images only OIS has an interval" if dataset in evidence.images else ""
        evidence.missing.append(
            f"{run.label}, {dataset}: no counts by image in MLflow (a trial of a search or study, or scored by an "
            f"older crackseg){rest}"
        )
    if dataset not in evidence.curves:
        evidence.missing.append(f"{run.label}, {dataset}: no PR curve in MLflow")


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


def restore_samples(evidence: Evidence, dataset: str, stems: list[str], folder: Path) -> dict[str, CrackSample]:
    """Bring photographs and truth, as they were prepared, from the cache into a folder; those that it has."""
    prefix = f"outputs/prepared/{dataset}/"
    if f"{prefix}manifest.csv" not in evidence.outputs:
        return {}
    _copy(evidence.outputs[f"{prefix}manifest.csv"], folder / dataset / "manifest.csv")
    samples: dict[str, CrackSample] = {}
    for sample in list_samples(folder, dataset):
        if sample.stem not in stems:
            continue
        wanted = [path.relative_to(folder / dataset).as_posix() for path in (sample.image_path, sample.mask_path)]
        if all(prefix + name in evidence.outputs for name in wanted):
            for name in wanted:
                _copy(evidence.outputs[prefix + name], folder / dataset / name)
            samples[sample.stem] = sample
    return samples


def _copy(source: Path, target: Path) -> None:
    """Under its own name, since the cache has none and readers go by the extension."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
