"""A stored map is read once and counted in one way, whoever asks."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from crackseg.data.images import files
from crackseg.data.images.files import write_mask, write_probability_map
from crackseg.errors import CracksegError
from crackseg.evaluation.scoring import score_split
from crackseg.evaluation.stored_maps import read_scored_map
from crackseg.params import EvaluateParams, PostprocessParams
from crackseg.types import CrackSample

SETTINGS = {"low_ratio": 0.6, "max_gap_px": 10, "min_length_px": 0, "floor": 0.25}
EVALUATE = EvaluateParams(tolerance_px=2, num_thresholds=256, line_tolerance_px=4, use_roi=True)


def write_sample(folder: Path, roi: np.ndarray) -> CrackSample:
    """A line with noise around it; outside the region of interest, a spot that is brighter than the line."""
    mask = np.zeros((48, 48), np.uint8)
    cv2.line(mask, (8, 2), (40, 44), 1)
    prob = 0.1 + 0.4 * mask + 0.2 * np.random.default_rng(0).random(mask.shape)
    prob[20:24, 1:5] = 1
    write_probability_map(folder / "maps" / "a.png", prob.astype(np.float32))
    write_mask(folder / "mask.png", mask)
    write_mask(folder / "roi.png", roi)
    return CrackSample("D", "a", "test", folder / "none.png", folder / "mask.png", folder / "roi.png")


@pytest.fixture
def roi() -> np.ndarray:
    inside = np.ones((48, 48), np.uint8)
    inside[:, :6] = 0
    return inside


def test_scoring_decodes_each_file_once(tmp_path: Path, roi: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = write_sample(tmp_path, roi)
    read, decoded = files.read_stored, Counter[str]()

    def count(path: Path, **settings: int) -> object:
        decoded[path.name] += 1
        return read(path, **settings)

    monkeypatch.setattr(files, "read_stored", count)
    postprocessing = PostprocessParams(method="hysteresis", **SETTINGS)
    score_split([sample], tmp_path / "maps", EVALUATE, postprocessing, operating_threshold=0.5)
    assert decoded == {"a.png": 1, "mask.png": 1, "roi.png": 1}


@pytest.mark.parametrize("method", ["none", "thin"])
def test_binary_map_that_is_drawn_is_the_one_that_was_counted(
    tmp_path: Path, roi: np.ndarray, method: str
) -> None:
    postprocessing = PostprocessParams(method=method, **SETTINGS)
    scored = read_scored_map(write_sample(tmp_path, roi), tmp_path / "maps" / "a.png", use_roi=True)
    counts = scored.count(postprocessing)
    for k in (64, 128, 200):
        drawn = scored.process(postprocessing) >= k / 255
        assert np.count_nonzero(drawn) == counts.predicted[k]
        assert not drawn[:, :6].any()  # the bright spot outside the region


def test_region_of_interest_without_a_pixel_is_named(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, np.zeros((48, 48), np.uint8))
    with pytest.raises(
        CracksegError, match=r"a\.png: the region of interest has 48 x 48 pixels, 0 of them inside"
    ):
        read_scored_map(sample, tmp_path / "maps" / "a.png", use_roi=True)
