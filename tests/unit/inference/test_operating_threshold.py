"""Which threshold a finished model marks cracks at, and how many photographs without cracks it marks there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crackseg.data.images.files import read_image, write_mask, write_png
from crackseg.inference.operating_threshold import OperatingPoint, choose_threshold, find_operating_points
from crackseg.params import PostprocessParams
from crackseg.types import CrackSample
from tests.tiny_model import NO_POSTPROCESSING

LONG = NO_POSTPROCESSING.model_copy(update={"min_length_px": 30})


def map_of(sample: CrackSample) -> np.ndarray:
    """The brightness of a pixel for its crack probability."""
    return read_image(sample.image_path)[..., 0].astype(np.float32) / 255


def find(
    samples: list[CrackSample], *variants: PostprocessParams, more: Sequence[CrackSample] = ()
) -> list[OperatingPoint]:
    return find_operating_points(map_of, samples, variants, of_training=0.35, more_crack_free=more)


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
    assert choose_threshold(map_of, [sample], NO_POSTPROCESSING, of_training=0.123) == 0.123


def test_with_a_least_length_it_falls_to_where_cracks_are_whole(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, "a", crack=True)
    threshold = choose_threshold(map_of, [sample], LONG, of_training=0.85)
    assert 0 < threshold <= 0.4
    all_kept, long_kept = find([sample], NO_POSTPROCESSING, LONG)
    assert long_kept.threshold == threshold
    assert all_kept.threshold == 0.35, "which nothing changes, as training chose it"
    assert all_kept.f < long_kept.f == 1


def test_marks_on_photographs_without_cracks_are_counted_at_that_threshold(tmp_path: Path) -> None:
    cracked = write_sample(tmp_path, "a", crack=True)
    free = [write_sample(tmp_path, f"free{i}", crack=False, speck=s) for i, s in enumerate((0.8, 0.3))]
    kept, dropped = find([cracked, *free], NO_POSTPROCESSING, LONG)
    assert kept.threshold == 0.35
    assert 0 < dropped.threshold <= 0.4
    assert (kept.num_crack_free, kept.num_alarmed) == (2, 1)
    assert (dropped.num_crack_free, dropped.num_alarmed) == (2, 0)
    assert (kept.num_cracked, kept.num_found, dropped.num_found) == (1, 1, 1)


def test_cracks_shorter_than_the_least_length_are_counted_as_not_found(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, "a", crack=True)
    (point,) = find([sample], NO_POSTPROCESSING.model_copy(update={"min_length_px": 62}))
    assert (point.num_cracked, point.num_found, point.f) == (1, 0, 0)


def test_photographs_of_another_split_only_count_as_free_of_cracks(tmp_path: Path) -> None:
    cracked = write_sample(tmp_path, "a", crack=True)
    more = [write_sample(tmp_path, f"free{i}", crack=False, speck=0.8) for i in range(3)]
    (alone,) = find([cracked], NO_POSTPROCESSING)
    (point,) = find([cracked], NO_POSTPROCESSING, more=more)
    assert (point.threshold, point.f) == (alone.threshold, alone.f)
    assert (alone.num_crack_free, point.num_crack_free, point.num_alarmed) == (0, 3, 3)


def test_every_image_is_predicted_once_however_many_ways_are_compared(tmp_path: Path) -> None:
    asked: list[str] = []

    def note(sample: CrackSample) -> np.ndarray:
        asked.append(sample.stem)
        return map_of(sample)

    samples = [write_sample(tmp_path, str(i), crack=True) for i in range(2)]
    find_operating_points(note, samples, [NO_POSTPROCESSING, LONG, LONG], of_training=0.5)
    assert asked == ["0", "1"]
