"""Which threshold a finished model marks cracks at, and how many photographs without cracks it marks there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crackseg.data.images.files import write_mask, write_png
from crackseg.inference.operating_threshold import choose_threshold, find_operating_points
from crackseg.types import CrackSample
from tests.tiny_model import NO_POSTPROCESSING

LONG = NO_POSTPROCESSING.model_copy(update={"min_length_px": 30})


class Brightness:
    """A predictor that takes the brightness of a pixel for its crack probability."""

    def __init__(self) -> None:
        self.num_predicted = 0

    def predict_prob(self, image_HW3: np.ndarray) -> np.ndarray:
        self.num_predicted += 1
        return image_HW3[..., 0].astype(np.float32) / 255


PREDICTOR: Any = Brightness()


def write_sample(folder: Path, stem: str, *, crack: bool, speck: float = 0.8) -> CrackSample:
    """A line of 0.4 with brighter parts, if there is a crack, and two specks of four pixels beside it."""
    prob, mask = np.zeros((64, 64)), np.zeros((64, 64), np.uint8)
    if crack:
        mask[20, 4:60] = 1
        prob[20, 4:60] = 0.4
        prob[20, 10:50:8] = 0.9
    for column in (10, 40):
        prob[45:47, column : column + 2] = speck
    image = np.repeat(np.rint(prob * 255).astype(np.uint8)[..., None], 3, axis=2)
    write_png(folder / f"{stem}.png", image)
    write_mask(folder / f"{stem}_mask.png", mask)
    return CrackSample("tiny", stem, "val", folder / f"{stem}.png", folder / f"{stem}_mask.png")


def test_without_post_processing_it_is_the_one_of_training(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, "a", crack=True)
    assert choose_threshold(PREDICTOR, [sample], NO_POSTPROCESSING, of_training=0.123) == 0.123


def test_with_a_least_length_it_falls_to_where_cracks_are_whole(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, "a", crack=True)
    threshold = choose_threshold(PREDICTOR, [sample], LONG, of_training=0.85)
    assert 0 < threshold <= 0.4
    all_kept, long_kept = find_operating_points(PREDICTOR, [sample], [NO_POSTPROCESSING, LONG])
    assert long_kept.threshold == threshold
    assert all_kept.f < long_kept.f == 1


def test_marks_on_photographs_without_cracks_are_counted_at_that_threshold(tmp_path: Path) -> None:
    cracked = write_sample(tmp_path, "a", crack=True)
    free = [write_sample(tmp_path, f"free{i}", crack=False, speck=s) for i, s in enumerate((0.8, 0.3))]
    kept, dropped = find_operating_points(PREDICTOR, [cracked, *free], [NO_POSTPROCESSING, LONG])
    assert 0.29 < kept.threshold <= 0.4
    assert (kept.num_crack_free, kept.num_alarmed) == (2, 1)
    assert (dropped.num_crack_free, dropped.num_alarmed) == (2, 0)
    assert (kept.num_cracked, kept.num_found, dropped.num_found) == (1, 1, 1)


def test_cracks_shorter_than_the_least_length_are_counted_as_not_found(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, "a", crack=True)
    (point,) = find_operating_points(
        PREDICTOR, [sample], [NO_POSTPROCESSING.model_copy(update={"min_length_px": 62})]
    )
    assert (point.num_cracked, point.num_found, point.f) == (1, 0, 0)


def test_photographs_of_another_split_only_count_as_free_of_cracks(tmp_path: Path) -> None:
    cracked = write_sample(tmp_path, "a", crack=True)
    more = [write_sample(tmp_path, f"free{i}", crack=False, speck=0.8) for i in range(3)]
    (alone,) = find_operating_points(PREDICTOR, [cracked], [NO_POSTPROCESSING])
    (point,) = find_operating_points(PREDICTOR, [cracked], [NO_POSTPROCESSING], more_crack_free=more)
    assert (point.threshold, point.f) == (alone.threshold, alone.f)
    assert (alone.num_crack_free, point.num_crack_free, point.num_alarmed) == (0, 3, 3)


def test_every_image_is_predicted_once_however_many_ways_are_compared(tmp_path: Path) -> None:
    predictor: Any = Brightness()
    samples = [write_sample(tmp_path, str(i), crack=True) for i in range(2)]
    find_operating_points(predictor, samples, [NO_POSTPROCESSING, LONG, LONG])
    assert predictor.num_predicted == 2
