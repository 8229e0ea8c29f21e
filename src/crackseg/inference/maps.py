"""Predict a split and save its maps, which `crackseg.evaluation.scoring` scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from crackseg.data.images.files import read_image, write_probability_map
from crackseg.files import write_json
from crackseg.inference.autotune import settle
from crackseg.inference.overlap import MOST_OVERLAPPED_PIXELS, finish_behind, read_ahead
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
    with (
        closing(read_ahead(read_image, [s.image_path for s in samples], alone=_is_large)) as images,
        closing(finish_behind(_write, _predict(predictor, samples, images, out_dir), alone=_is_large_map)) as done,
    ):
        for _ in progress(done, f"predict {out_dir.name}", "image", total=len(samples)):
            pass


def _predict(
    predictor: Predictor, samples: Sequence[CrackSample], images: Iterable[np.ndarray], out_dir: Path
) -> Iterator[tuple[Path, np.ndarray]]:
    for sample, logits_HW in zip(samples, predictor.predict_logits_of(images), strict=True):
        yield out_dir / f"{sample.stem}.png", sigmoid(logits_HW)


def _write(crack_map: tuple[Path, np.ndarray]) -> None:
    write_probability_map(*crack_map)


def _is_large(image_HW3: np.ndarray) -> bool:
    return image_HW3.shape[0] * image_HW3.shape[1] > MOST_OVERLAPPED_PIXELS


def _is_large_map(crack_map: tuple[Path, np.ndarray]) -> bool:
    return crack_map[1].size > MOST_OVERLAPPED_PIXELS
