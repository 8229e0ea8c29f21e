"""Predict an image of each dataset with a configuration's weights, for Figure 4."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crackseg.data.catalog import list_samples
from crackseg.data.images.files import read_image, read_mask
from crackseg.data.preprocessing import PreparedPair, prepare_pair
from crackseg.errors import CracksegError
from crackseg.evaluation.stored_maps import ScoredMap
from crackseg.experiments.paper.comparison import DATASETS, ConfigurationResult
from crackseg.inference.predictor import Predictor, build_predictor
from crackseg.lineage import keys_changing
from crackseg.models.weights_file import load_network
from crackseg.params import Params, change_params, load_params, parse_setting
from crackseg.params.effects import COUNTING, IMAGES, MAPS, SCORES
from crackseg.tracking.fetching import fetch_weights
from crackseg.tracking.store import FinishedRun, Store
from crackseg.types import CrackSample


@dataclass(frozen=True)
class Example:
    """One row of Figure 4.

    Attributes:
        dataset, stem: identify the image.
        image: uint8 (H, W, 3), RGB, as the model gets it.
        mask: uint8 (H, W) of {0, 1}.
        stretched: the predicted map, stretched to its minimum and maximum; (H, W) in [0, 1].
        threshold: the dataset's ODS threshold.
        crack_mask: bool (H, W), the post-processed map at that threshold.
    """

    dataset: str
    stem: str
    image: np.ndarray
    mask: np.ndarray
    stretched: np.ndarray
    threshold: float
    crack_mask: np.ndarray


def predict_examples(
    store: Store, result: ConfigurationResult, root: Path, images: Mapping[str, pd.DataFrame]
) -> tuple[list[Example], list[str]]:
    """Predict the image of median F of each dataset, among those that the run scored.

    Args:
        store: where the run's model is.
        result: a configuration that is not missing; its newest run is shown.
        root: the project, whose ``data/`` has the images.
        images: by dataset, the run's table of scored images (``stem``, ``paper_f``).
    Returns:
        The examples, and a note for each that is missing.
    """
    run = result.runs[0]
    params = _read_params(run, root)
    try:
        predictor = _load_predictor(result, params)
    except CracksegError as error:
        return [], [f"no examples: the weights of run {run.run_id} cannot be fetched ({error})"]
    examples, problems = [], []
    for dataset in DATASETS:
        if f"{dataset}/threshold" not in run.metrics:
            continue
        sample = _find_sample(root, dataset, images.get(dataset))
        if sample is None:
            problems.append(
                f"no example of {dataset}: data/ does not hold the images that run {run.run_id} scored"
            )
            continue
        examples.append(_predict_example(predictor, sample, params, run.metrics[f"{dataset}/threshold"]))
    return examples, problems


def _read_params(run: FinishedRun, root: Path) -> Params:
    """Return the settings that the run prepared, predicted and scored with; the other keys have no effect."""
    used = keys_changing(IMAGES, MAPS, COUNTING, SCORES)
    recorded = [f"{key}={value}" for key, value in run.params.items() if key in used]
    return change_params(
        load_params(root / "params.yaml"), dict(map(parse_setting, recorded)), source=f"run {run.run_id}"
    )


def _load_predictor(result: ConfigurationResult, params: Params) -> Predictor:
    with tempfile.TemporaryDirectory() as scratch:
        weights_path = fetch_weights(f"runs:/{result.training_id}/model", Path(scratch))
        network, _ = load_network(weights_path, expected_architecture=result.configuration.system)
    return build_predictor(network, params.predict, device="auto", precision=params.train.precision)


def _find_sample(root: Path, dataset: str, images: pd.DataFrame | None) -> CrackSample | None:
    """Find the image of median F; None if ``data/`` does not hold it."""
    if images is None or images["paper_f"].isna().all():
        return None
    ranked = images.dropna(subset="paper_f").sort_values(["paper_f", "stem"])
    stem = ranked["stem"].iloc[len(ranked) // 2]
    try:
        samples = list_samples(root / "data", dataset)
    except CracksegError:
        return None
    return next((s for s in samples if s.stem == stem and s.image_path.is_file()), None)


def _predict_example(predictor: Predictor, sample: CrackSample, params: Params, threshold: float) -> Example:
    pair = _prepare(sample, params)
    roi_HW = pair.roi if params.evaluate.use_roi else None
    scored = ScoredMap(predictor.predict_prob(pair.image), pair.mask, roi_HW)
    crack_mask = scored.process(params.postprocess) >= threshold
    return Example(sample.dataset, sample.stem, pair.image, pair.mask, scored.stretched_HW, threshold, crack_mask)


def _prepare(sample: CrackSample, params: Params) -> PreparedPair:
    return prepare_pair(
        read_image(sample.image_path),
        read_mask(sample.mask_path),
        read_mask(sample.roi_path) if sample.roi_path else None,
        size_px=params.data.size_px,
        resize=params.data.resize,
        mask_resize=params.data.mask_resize,
    )
