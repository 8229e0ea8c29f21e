"""Cracks marked on photographs without any are counted as a user would by eye; without such, nothing is claimed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crackseg.data.images.files import write_mask, write_probability_map
from crackseg.evaluation.false_alarms import FalseAlarms, describe_false_alarms
from crackseg.evaluation.score_files import flatten_scores
from crackseg.evaluation.scoring import score_split, write_scores
from crackseg.registry.card import find_failures
from crackseg.types import CrackSample
from tests.scored_runs import EVALUATE, NO_POSTPROCESSING

SIDE = 50


def write_pair(folder: Path, stem: str, prob: np.ndarray, mask: np.ndarray, roi: np.ndarray | None) -> CrackSample:
    write_probability_map(folder / f"{stem}.png", prob)
    write_mask(folder / "masks" / f"{stem}.png", mask)
    roi_path = None
    if roi is not None:
        roi_path = folder / "roi" / f"{stem}.png"
        write_mask(roi_path, roi)
    return CrackSample("D", stem, "test", Path("unused"), folder / "masks" / f"{stem}.png", roi_path)


@pytest.fixture
def samples(tmp_path: Path) -> list[CrackSample]:
    """One photograph with a crack; crack-free ones with a line of 11 pixels, a speck, faint noise, and nothing."""
    crack, none, flat = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE))
    crack[10, 5:45] = 1
    line, speck, noise = flat.copy(), flat.copy(), flat.copy()
    line[20, 10:21] = 0.8
    speck[3, 3] = 0.6
    noise[::7, ::7] = 0.49  # under the threshold; min-max normalisation would make it 1
    maps = {"crack": (0.9 * crack + 0.8 * np.roll(crack, 30, axis=0), crack)}
    maps |= {"line": (line, none), "speck": (speck, none), "noise": (noise, none), "clean": (flat, none)}
    return [write_pair(tmp_path, stem, prob, mask, None) for stem, (prob, mask) in maps.items()]


def score(samples: list[CrackSample], folder: Path, **changes: object) -> dict:
    settings = NO_POSTPROCESSING.model_copy(update=changes)
    found = score_split(samples, folder, EVALUATE, settings, operating_threshold=0.5)
    write_scores(*found, "D", folder / "out", extra={})
    return json.loads((folder / "out" / "D.json").read_text(encoding="utf-8"))


def test_two_of_four_crack_free_photographs_have_a_false_alarm(samples: list[CrackSample], tmp_path: Path) -> None:
    content = score(samples, tmp_path)
    flat = flatten_scores(content, "D")
    assert flat["D/num_crack_free"] == 4
    assert flat["D/false_alarm_rate"] == 0.5
    # A line of 11 pixels is 10 px long, a speck has no length; the crack and what is false beside it are not counted.
    assert flat["D/false_alarm_px_per_megapixel"] == pytest.approx(1e6 * 10 / (4 * SIDE**2))
    assert describe_false_alarms(content["D"]) == "on 2 of 4 crack-free photographs, 1000.0 px per megapixel"


def test_post_processing_comes_before_the_count(samples: list[CrackSample], tmp_path: Path) -> None:
    assert score(samples, tmp_path, min_length_px=5)["D"]["false_alarm_rate"] == 0.25
    assert score(samples, tmp_path, min_length_px=20)["D"]["false_alarm_rate"] == 0


def test_without_a_crack_free_photograph_there_is_no_rate(samples: list[CrackSample], tmp_path: Path) -> None:
    content = score(samples[:1], tmp_path)["D"]
    assert content["num_crack_free"] == 0
    assert not {"false_alarm_rate", "false_alarm_px_per_megapixel"} & content.keys()
    assert describe_false_alarms(content) == "unknown, no crack-free photograph"
    assert describe_false_alarms({"ods": 0.5}) == "not recorded"  # by an older crackseg
    assert FalseAlarms.pool([]).rate is None


def test_a_crack_outside_the_region_of_interest_leaves_a_photograph_crack_free(tmp_path: Path) -> None:
    mask, roi = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    mask[10, :20] = 1
    roi[:, 25:] = 1
    sample = write_pair(tmp_path, "a", 0.9 * mask, mask, roi)
    content = score([sample], tmp_path)["D"]
    assert (content["num_crack_free"], content["false_alarm_rate"]) == (1, 0)
    marked = 0.9 * mask
    marked[30, 30:41] = 0.9
    content = score([write_pair(tmp_path, "a", marked, mask, roi)], tmp_path)["D"]
    assert content["false_alarm_px_per_megapixel"] == pytest.approx(1e6 * 10 / roi.sum())


def test_photographs_with_false_alarms_are_named(samples: list[CrackSample], tmp_path: Path) -> None:
    score(samples, tmp_path)
    table = pd.read_csv(tmp_path / "out" / "D_images.csv", dtype={"stem": str}).set_index("stem")
    assert table["false_crack_pixels"].to_dict() == pytest.approx(
        {"clean": 0, "crack": float("nan"), "line": 11, "noise": 0, "speck": 1}, nan_ok=True
    )
    assert table["false_crack_length_px"]["line"] == 10
    assert list(find_failures(table.reset_index())["stem"]) == ["crack", "line", "speck"]


def test_a_dot_that_has_no_length_is_not_called_no_false_alarm() -> None:
    dot = {"num_crack_free": 1.0, "false_alarm_rate": 1.0, "false_alarm_px_per_megapixel": 0.0}
    assert describe_false_alarms(dot) == "on 1 of 1 crack-free photograph, under 0.1 px per megapixel"
    none = dot | {"false_alarm_rate": 0.0}
    assert describe_false_alarms(none) == "on 0 of 1 crack-free photograph, 0.0 px per megapixel"
