"""Files of a version next to its weights: settings, reference statistics, and a probe.

The probe is a few validation images with this version's answers, so that anyone who loads it can check that the answers
are still the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crackseg.data.catalog import spread_evenly
from crackseg.data.images.files import encode_png, read_image, read_mask, write_mask
from crackseg.errors import CracksegError
from crackseg.evaluation.metrics import ScoreAccumulator
from crackseg.evaluation.stored_maps import ScoredMap
from crackseg.files import write_bytes, write_json
from crackseg.geometry.postprocessing import postprocess
from crackseg.inference.detector import (
    SETTINGS_NAME,
    CrackAnalyzer,
    ModelSettings,
    ReferenceStatistics,
    measure_confidence,
)
from crackseg.inference.drift import measure_photograph
from crackseg.inference.operating_threshold import MOST_IMAGES, choose_threshold, predict_map
from crackseg.inference.predictor import Predictor, load_predictor
from crackseg.params import PostprocessParams
from crackseg.types import CrackPrediction, CrackSample

PROBE_NAME = "probe"
PROBE_FILE = "probe.json"
_PROBE_IMAGES = 4
# Differences between processors and precisions: on UAV75, bfloat16 instead of float32 moved a U-Net's scores by 0.001
# and its crack fractions and lengths by up to 2 %. A wrong model or threshold changes them far more.
_TOLERANCE = {"relative": 0.1, "crack_fraction": 0.002, "crack_length_px": 16.0, "score": 0.03, "ods": 0.05}


def build_analyzer(
    weights_path: Path,
    train_samples: Sequence[CrackSample],
    val_samples: Sequence[CrackSample],
    postprocessing: PostprocessParams,
    *,
    dataset: str,
    device: str = "auto",
    precision: str = "auto",
    operating_threshold: float | None = None,
    f_loss: float = 0.0,
) -> CrackAnalyzer:
    """Build a finished model from trained weights: operating threshold, post-processing, reference statistics.

    Args:
        weights_path: written by training.
        train_samples: prepared; brightness, contrast and sharpness are measured on them, on 200 at most.
        val_samples: prepared; crack fraction and confidence are predicted on them, on 200 at most.
        postprocessing: of a map before the threshold.
        dataset: on which it was trained.
        device, precision: as ``train.device`` and ``train.precision``.
        operating_threshold: raw probability; None: :func:`choose_threshold` chooses it, on predictions of its own.
        f_loss: fraction of the best F that may be lost for a higher threshold, if post-processing has it chosen again.
    Raises:
        CracksegError: the weights or a sample cannot be read, or there is no sample.
    """
    if not train_samples or not val_samples:
        raise CracksegError(
            f"{dataset}: no training or no validation images; see `crackseg data validate {dataset}`"
        )
    predictor, extra = load_predictor(weights_path, device=device, precision=precision)
    if operating_threshold is None:
        operating_threshold = choose_threshold(
            predict_map(predictor),
            val_samples,
            postprocessing,
            of_training=float(extra["operating_threshold"]),
            f_loss=f_loss,
        )
    val_values = _survey(
        predictor, spread_evenly(val_samples, MOST_IMAGES), postprocessing, threshold=operating_threshold
    )
    photographs = [measure_photograph(read_image(s.image_path)) for s in spread_evenly(train_samples, MOST_IMAGES)]
    values = {name: tuple(p[name] for p in photographs) for name in ("brightness", "contrast", "sharpness")}
    settings = ModelSettings(
        operating_threshold=operating_threshold,
        predict=predictor.params,
        postprocess=postprocessing,
        reference=ReferenceStatistics(num_images=len(photographs), **values, **val_values),
        data_source=extra["data_source"],
        dataset=dataset,
        run_id=extra["run_id"],
    )
    return CrackAnalyzer(predictor, settings)


def write_answers(folder: Path, analyzer: CrackAnalyzer, val_samples: Sequence[CrackSample]) -> tuple[Path, Path]:
    """Write the settings and then the probe of a finished model next to each other; return their paths."""
    settings_path, probe_dir = folder / SETTINGS_NAME, folder / PROBE_NAME
    write_bytes(settings_path, analyzer.settings.to_json().encode())
    write_probe(probe_dir, analyzer, val_samples)
    return settings_path, probe_dir


def write_probe(folder: Path, analyzer: CrackAnalyzer, val_samples: Sequence[CrackSample]) -> None:
    """Write up to four validation images, their masks, and the model's answers for them.

    ``probe.json`` holds ``settings`` (the model's, without its reference statistics), ``images`` (by stem:
    crack_fraction, crack_length_px, score), ``ods`` (paper protocol, tolerance 2 px, over these images) and
    ``tolerance`` (see :func:`compare_answers`).

    Args:
        folder: is created.
        analyzer: the finished model.
        val_samples: the images are spread evenly over those that show a crack.
    """
    cracked = [s for s in val_samples if read_mask(s.mask_path).any()]
    answers = {}
    scores = ScoreAccumulator()
    for sample in spread_evenly(cracked or val_samples, _PROBE_IMAGES):
        image_HW3, mask_HW = read_image(sample.image_path), read_mask(sample.mask_path)
        write_bytes(folder / "images" / f"{sample.stem}.png", encode_png(image_HW3))
        write_mask(folder / "masks" / f"{sample.stem}.png", mask_HW)
        prediction = analyzer.analyze(image_HW3)
        answers[sample.stem] = _answer(prediction)
        scored = ScoredMap(prediction.crack_prob, mask_HW)
        scores.add(scored.count(analyzer.settings.postprocess), sample.stem)
    content = {
        "settings": analyzer.settings.model_dump(mode="json", exclude={"reference"}),
        "images": answers,
        "ods": scores.result().paper.ods,
        "tolerance": _TOLERANCE,
    }
    write_json(folder / PROBE_FILE, content)


def compare_answers(probe: Mapping[str, Any], answers: Mapping[str, Mapping[str, float]], ods: float) -> list[str]:
    """Compare answers with a probe's.

    A value may differ by ``tolerance[name]``, or by the fraction ``tolerance["relative"]`` of the recorded value.

    Args:
        probe: the content of ``probe.json``.
        answers: by stem, crack_fraction, crack_length_px and score.
        ods: over the probe.
    Returns:
        A text for each value that differs by more.
    """
    tolerance = probe["tolerance"]
    pairs = [
        (f"{figure} of {stem}", figure, expected, answers[stem][figure])
        for stem, figures in probe["images"].items()
        for figure, expected in figures.items()
    ]
    pairs.append(("ODS over the probe", "ods", probe["ods"], ods))
    return [
        f"{name} was {expected:.5g} and is {found:.5g}"
        for name, figure, expected, found in pairs
        if not abs(found - expected) <= max(tolerance[figure], tolerance["relative"] * abs(expected))
    ]


def _survey(
    predictor: Predictor, samples: Sequence[CrackSample], postprocessing: PostprocessParams, *, threshold: float
) -> dict[str, tuple[float, ...]]:
    """Predict each validation image; return the ``crack_fraction`` and the ``confidence`` of each."""
    fractions, confidences = [], []
    for sample in samples:
        prob_HW = predictor.predict_prob(read_image(sample.image_path))
        confidences.append(measure_confidence(prob_HW))
        crack_mask_HW = postprocess(prob_HW, threshold=threshold, **postprocessing.model_dump(), name=sample.stem)
        fractions.append(float(crack_mask_HW.mean()))
    return {"crack_fraction": tuple(fractions), "confidence": tuple(confidences)}


def _answer(prediction: CrackPrediction) -> dict[str, float]:
    return {name: getattr(prediction, name) for name in ("crack_fraction", "crack_length_px", "score")}
