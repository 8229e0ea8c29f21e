"""Runs with scores and what the pipeline keeps of them, made of drawn maps instead of trained models."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from dvc.repo import Repo
from ruamel.yaml import YAML

from crackseg.data.images.files import write_mask, write_png, write_probability_map
from crackseg.evaluation.counts import write_counts
from crackseg.evaluation.score_files import flatten_scores, read_scores
from crackseg.evaluation.scoring import score_split, write_scores
from crackseg.params import EvaluateParams, PostprocessParams, flatten_params, load_params
from crackseg.tracking.store import Store
from crackseg.types import CrackSample

ROOT = Path(__file__).parents[1]
EVALUATE = EvaluateParams(tolerance_px=2, num_thresholds=64, line_tolerance_px=4, use_roi=True)
NO_POSTPROCESSING = PostprocessParams(method="none", low_ratio=0.6, max_gap_px=10, min_length_px=0, floor=0.25)
NUM_IMAGES = 8
_COLUMNS = (
    "stem,image,mask,roi,split,width,height,mask_width,mask_height,crack_fraction,image_sha256,mask_sha256,source"
)


def make_root(folder: Path) -> Store:
    """A project folder with settings, DVC and an empty store."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    Repo.init(str(folder), no_scm=True).close()
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it to the store of the test before
    return Store(folder)


def make_run(
    store: Store,
    name: str,
    noise: float,
    *,
    datasets: tuple[str, ...] = ("A", "B"),
    settings: Mapping[str, object] | None = None,
    data_md5: str = "0" * 32,
    with_counts: bool = True,
    with_tables: bool = True,
    in_cache: bool = True,
    validated: bool = False,
    false_alarm: bool = False,
) -> str:
    """Score drawn maps and record the run as the stages do; returns its id.

    Args:
        store: of :func:`make_root`.
        name: of the run and of its DVC experiment.
        noise: in the maps; more noise, worse scores.
        datasets: scored on 8 images each, the last without a crack.
        settings: flat params that differ from params.yaml.
        data_md5: version of the scored images.
        with_counts: log the counts of each image, too.
        with_tables: log tables of images and PR curves.
        in_cache: put photographs, truth and maps where DVC's cache of the project is.
        validated: the scored images are those that the training validated on.
        false_alarm: mark a crack on the image without one.
    """
    folder = store.root / "made" / name
    run_id = store.create_run(name)
    scores_dir = folder / "outputs" / "scores"
    for dataset in datasets:
        samples = _draw(folder, dataset, noise, false_alarm)
        counts: dict = {}
        scores, lines, alarms = score_split(
            samples,
            folder / "outputs" / "predictions" / dataset,
            EVALUATE,
            NO_POSTPROCESSING,
            operating_threshold=0.5,
            on_counts=counts.__setitem__,
        )
        write_counts(counts, scores_dir / f"{dataset}_counts.npz")
        write_scores(scores, lines, alarms, dataset, scores_dir, extra={"data_source": "sample"})
    split = "val" if validated else "test"
    params = flatten_params(load_params(store.root / "params.yaml"))
    params |= {"data.test_datasets": list(datasets), "data.evaluate_split": split}
    with store.record(run_id) as recorder:
        recorder.log_params(params | {"evaluate.num_thresholds": 64} | dict(settings or {}))
        recorder.set_tags({"dvc.exp_name": name, "data.source": "sample", "data.md5": data_md5})
        for dataset in datasets:
            figures = flatten_scores(read_scores(scores_dir, [dataset]), dataset)
            recorder.log_metrics(figures)
            for context in (["validation"] if validated else []) + ["evaluation"]:
                recorder.log_dataset(
                    f"{dataset}-{split}", data_md5, context=context, num_images=NUM_IMAGES, source="sample"
                )
            if with_tables:
                recorder.log_file(scores_dir / f"{dataset}_images.csv", "per_image")
                recorder.log_file(scores_dir / f"{dataset}_pr.csv", "pr_curves")
            if with_counts:
                recorder.log_file(scores_dir / f"{dataset}_counts.npz", "per_image")
        if in_cache:
            recorder.log_file(_cache(folder, datasets, cache_of(store)))
        recorder.end("FINISHED")
    return run_id


def cache_of(store: Store) -> Path:
    """Where the DVC cache of the project is by default."""
    return store.root / ".dvc" / "cache"


def _draw(folder: Path, dataset: str, noise: float, false_alarm: bool) -> list[CrackSample]:
    prepared = folder / "outputs" / "prepared" / dataset
    rows, samples = [_COLUMNS], []
    for i in range(NUM_IMAGES):
        rng = np.random.default_rng([i, len(dataset), ord(dataset[0])])
        mask = np.zeros((64, 64), np.uint8)
        if i < NUM_IMAGES - 1:
            cv2.line(mask, rng.integers(4, 60, 2).tolist(), rng.integers(4, 60, 2).tolist(), 1)
        photograph = (rng.normal(150, 8, (64, 64, 1)) - 80 * mask[..., None]).clip(0, 255).astype(np.uint8)
        clean = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0) * 2
        # The one without a crack is left without noise, or its extremes alone would decide the ODS.
        noisy = clean + mask.any() * np.random.default_rng([i, round(noise * 1000)]).normal(0, noise, mask.shape)
        if false_alarm and not mask.any():
            noisy[30, 10:21] = 0.9
        write_png(prepared / "images" / f"{i}.png", np.repeat(photograph, 3, axis=2))
        write_mask(prepared / "masks" / f"{i}.png", mask)
        maps = folder / "outputs" / "predictions" / dataset
        write_probability_map(maps / f"{i}.png", noisy.clip(0, 1).astype(np.float32))
        rows.append(f"{i},images/{i}.png,masks/{i}.png,,test,64,64,64,64,{mask.mean():.4f},,,sample")
        sample = CrackSample(
            dataset, str(i), "test", prepared / "images" / f"{i}.png", prepared / "masks" / f"{i}.png"
        )
        samples.append(sample)
    (prepared / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return samples


def _cache(folder: Path, datasets: tuple[str, ...], cache_dir: Path) -> Path:
    """Write files as `dvc repro` leaves them in its cache, and the dvc.lock that names them; returns that."""

    def put(content: bytes) -> str:
        md5 = hashlib.md5(content).hexdigest()
        path = cache_dir / "files" / "md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return md5

    def put_folder(relative: str) -> dict[str, str]:
        top = folder / relative
        entries = [
            {"md5": put(path.read_bytes()), "relpath": path.relative_to(top).as_posix()}
            for path in sorted(top.rglob("*"))
            if path.is_file()
        ]
        listing = json.dumps(entries).encode()
        md5 = hashlib.md5(listing).hexdigest() + ".dir"
        path = cache_dir / "files" / "md5" / md5[:2] / md5[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(listing)
        return {"path": relative, "hash": "md5", "md5": md5}

    stages = {"prepare": {"cmd": "crackseg stage prepare", "outs": [put_folder("outputs/prepared")]}}
    for dataset in datasets:
        outs = [put_folder(f"outputs/predictions/{dataset}")]
        stages[f"predict@{dataset}"] = {"cmd": f"crackseg stage predict {dataset}", "outs": outs}
    lock = folder / "dvc.lock"
    with lock.open("w", encoding="utf-8") as file:
        YAML().dump({"schema": "2.0", "stages": stages}, file)
    return lock
