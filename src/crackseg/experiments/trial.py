"""One training run next to the pipeline: settings and images in, scores and an MLflow run out.

Studies are made of many. A trial shares nothing with the workspace: no params.yaml, no outputs, no DVC stage.
Its result is one JSON file, so an interrupted study resumes with the trials that have none.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from crackseg.data.catalog import data_source, list_splits
from crackseg.data.images.files import read_image, read_stored_map, to_probability
from crackseg.data.preprocessing import prepare_dataset
from crackseg.evaluation.false_alarms import FalseAlarms
from crackseg.evaluation.scoring import score_split
from crackseg.files import hash_file, read_json, write_bytes
from crackseg.inference.maps import predict_split
from crackseg.inference.operating_threshold import choose_threshold
from crackseg.inference.predictor import Predictor, build_predictor
from crackseg.lineage import hash_code, settings_behind
from crackseg.models.network import CrackNetwork
from crackseg.params import Params, flatten_params
from crackseg.params.effects import SCORES
from crackseg.tracking.fetching import fetched_init
from crackseg.tracking.store import Store
from crackseg.training.checkpoint import checkpoint_key
from crackseg.training.run import build_first_network, record_training
from crackseg.types import CrackSample

_TIMED_IMAGES = 4  # of the validation images; each is timed as often, and the fastest pass counts


def prepare_images(data_dir: Path, dataset: str, folder: Path, base: Params) -> Path:
    """Resize the images once for all trials; again if they or their preparation have changed.

    Args:
        data_dir: holds ``dataset`` in the canonical layout.
        folder: gets ``prepared``.
        base: its ``data`` section has the settings.
    Returns:
        The folder that holds ``DATASET/manifest.csv``.
    Raises:
        CracksegError: there is no such dataset.
    """
    prepared_dir, mark = folder / "prepared", folder / "prepared_from"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "prepared.lock"):
        digest = hash_file(data_dir / dataset / "manifest.csv") if (data_dir / dataset).is_dir() else ""
        how = f"{digest} {base.data.size_px} {base.data.resize} {base.data.mask_resize}"
        if not digest or not mark.is_file() or mark.read_text(encoding="utf-8") != how:
            shutil.rmtree(prepared_dir, ignore_errors=True)
            prepare_dataset(data_dir, dataset, prepared_dir, base.data)
            write_bytes(mark, how.encode())
    return prepared_dir


def trial_key(params: Params, prepared_dir: Path, store: Store) -> str:
    """Name a trial by everything that its scores depend on: settings, images, initial weights, code.

    Raises:
        CracksegError: the weights of ``model.init`` cannot be fetched.
    """
    settings = settings_behind(SCORES, flatten_params(params))
    images = hash_file(prepared_dir / params.data.train_dataset / "manifest.csv")
    with fetched_init(params.model.init, store) as (_init, init_digest):  # a file may change under the same name
        images += init_digest
    return checkpoint_key(settings, images, hash_code("train", "predict", "evaluate") + hash_file(Path(__file__)))


def read_result(folder: Path) -> dict[str, float] | None:
    """Read the scores of a finished trial; None if it is not finished.

    Raises:
        CracksegError: the file is damaged.
    """
    path = folder / "result.json"
    advice = "delete this file, and the same command trains this trial again"
    return read_json(path, advice=advice) if path.is_file() else None


def run_trial(
    store: Store,
    params: Params,
    prepared_dir: Path,
    folder: Path,
    *,
    name: str,
    parent: str,
    tags: Mapping[str, str],
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    weights_path: Path | None = None,
    measure_size: bool = False,
) -> dict[str, float]:
    """Train, and score the validation images with the best weights; resume an interrupted trial.

    Args:
        store: of its run.
        params: the settings; ``data.train_dataset`` gives the images, the other datasets are not used.
        prepared_dir: holds ``DATASET/manifest.csv``.
        folder: of the trial; holds its checkpoint while it runs and ``result.json`` afterwards.
        name: of the run in MLflow.
        parent: run id of the study.
        tags: more tags for the run.
        on_epoch: called after each epoch with its number, from 0, and its metrics; may raise TrialStopped.
        weights_path: file for the best weights, in the form that the registry takes; None keeps none.
        measure_size: measure ``parameters`` and ``inference_seconds`` (of one validation image) too.
    Returns:
        Scores by name: ``ods``, ``ois``, ``ap``, ``symmetric_ods``, ``strict_ods``, ``centerline_iou``,
        ``best_epoch``, ``seconds`` of training and ``cpu_seconds`` of it, over all cores, which other programs on
        the machine change less; with crack-free images also :meth:`FalseAlarms.to_dict`.
    Raises:
        CracksegError: see ``fit``.
        TrialStopped: ``on_epoch`` raised it; the checkpoint stays.
    """
    if (known := read_result(folder)) is not None:
        return known
    dataset = params.data.train_dataset
    splits = list_splits(prepared_dir, dataset)
    with record_training(
        store,
        params,
        build_first_network(params, store),
        (splits["train"], splits["val"]),
        folder,
        tags=tags,
        name=name,
        parent=parent,
        on_epoch=on_epoch,
    ) as trained:
        predictor = build_predictor(
            trained.network, params.predict, device=params.train.device, precision=params.train.precision
        )
        progress = trained.progress
        figures = _score(predictor, splits["val"], params, folder / "maps", progress.operating_threshold)
        figures |= {
            "best_epoch": progress.best_epoch,
            "seconds": round(progress.seconds, 1),
            "cpu_seconds": round(progress.cpu_seconds, 1),
        }
        if measure_size:
            figures |= _measure_size(trained.network, predictor, splits["val"])
        if weights_path is not None:
            trained.save(weights_path, data_source=data_source(prepared_dir, dataset))
        trained.recorder.log_metrics({f"{dataset}/{key}": value for key, value in figures.items()})
    write_bytes(folder / "result.json", (json.dumps(figures, indent=2) + "\n").encode(), durable=True)
    return figures


def _measure_size(network: CrackNetwork, predictor: Predictor, samples: Sequence[CrackSample]) -> dict[str, float]:
    images = [read_image(sample.image_path) for sample in samples[:_TIMED_IMAGES]]
    passes = []
    for _ in range(_TIMED_IMAGES):
        started = time.perf_counter()
        for _logits in predictor.predict_logits_of(images):
            pass
        passes.append(time.perf_counter() - started)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "inference_seconds": min(passes) / len(images),
    }


def _score(
    predictor: Predictor,
    samples: Sequence[CrackSample],
    params: Params,
    maps_dir: Path,
    training_threshold: float,
) -> dict[str, float]:
    predict_split(predictor, samples, maps_dir)
    threshold = choose_threshold(
        lambda sample: to_probability(read_stored_map(maps_dir / f"{sample.stem}.png")),
        samples,
        params.postprocess,
        of_training=training_threshold,
    )
    scores, lines, alarms = score_split(
        samples, maps_dir, params.evaluate, params.postprocess, operating_threshold=threshold
    )
    return {
        "ods": scores.paper.ods,
        "ois": scores.paper.ois,
        "ap": scores.paper.ap,
        "symmetric_ods": scores.symmetric.ods,
        "strict_ods": scores.strict.ods,
        "centerline_iou": lines.centerline_iou,
        **(FalseAlarms.pool(alarms.values()).to_dict() if alarms else {}),
    }
