"""Predict a split and save its maps, which `crackseg.evaluation.scoring` scores."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from crackseg.data.images.files import read_image, write_probability_map
from crackseg.files import write_json
from crackseg.inference.autotune import settle
from crackseg.inference.predictor import Predictor, sigmoid
from crackseg.progress import progress
from crackseg.types import PLAN_NAME, CrackSample


def predict_split(predictor: Predictor, samples: Sequence[CrackSample], out_dir: Path) -> None:
    """Write the probability map of each sample as ``out_dir/STEM.png``, 16 bits, and how they were computed.

    With 8 bits a flat map would have only a few levels once scoring has stretched it to its minimum and maximum.
    """
    if out_dir.exists():
        shutil.rmtree(out_dir)
    out_dir.mkdir(parents=True)
    if samples:
        settle(predictor, read_image(samples[0].image_path), len(samples))
    write_json(out_dir / PLAN_NAME, predictor.plan.to_dict())
    images = (read_image(sample.image_path) for sample in samples)
    results = zip(samples, predictor.predict_logits_of(images), strict=True)
    for sample, logits_HW in progress(results, f"predict {out_dir.name}", "image", total=len(samples)):
        write_probability_map(out_dir / f"{sample.stem}.png", sigmoid(logits_HW))
