"""All methods on the same saved maps: the scores are those of `crackseg score`, and pieces are counted right."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from crackseg.cli import cli
from crackseg.data.images.files import read_image, write_mask, write_probability_map
from crackseg.errors import CracksegError
from crackseg.evaluation.scoring import score_folder
from crackseg.experiments import postprocessing_ablation
from crackseg.experiments.postprocessing_ablation import Comparison, compare_methods, find_maps, make_variants
from crackseg.params import EvaluateParams

EVALUATE = EvaluateParams(tolerance_px=2, num_thresholds=256, line_tolerance_px=4, use_roi=True)


def write_pair(folder: Path, stem: str, *, seed: int = 0, faint: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """A crack with three faint stretches and three specks beside it, as map and truth."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((96, 128), np.uint8)
    columns = np.arange(6, 122)
    rows = np.rint(30 + 8 * np.sin(columns / 15)).astype(int)
    cv2.polylines(mask, [np.stack([columns, rows], axis=1).astype(np.int32)], False, 1)
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    prob = 0.95 * np.exp(-((distance / 1.5) ** 2) / 2)
    for gap in (30, 60, 90):
        prob[:, gap : gap + 6] *= faint
    for column in (20, 50, 100):
        cv2.circle(prob, (column, 75), 2, 0.9, -1)
    prob = (prob + rng.uniform(0, 0.01, prob.shape)).clip(0, 1).astype(np.float32)
    write_probability_map(folder / "maps" / f"{stem}.png", prob)
    write_mask(folder / "masks" / f"{stem}.png", mask)
    return prob, mask


def compare(folder: Path, rois_dir: Path | None = None) -> Comparison:
    maps = find_maps(folder / "maps", folder / "masks", rois_dir)
    return compare_methods(maps, make_variants(min_length_px=20), EVALUATE)


def by_variant(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(["method", "min_length_px"])


def test_nothing_done_scores_as_crackseg_score_does(tmp_path: Path) -> None:
    for seed in range(3):
        write_pair(tmp_path, str(seed), seed=seed, faint=0.5 + 0.1 * seed)
    row = by_variant(compare(tmp_path).table).loc[("none", 0)]
    scores = score_folder(tmp_path / "maps", tmp_path / "masks")
    assert [row["paper"], row["symmetric"], row["strict"]] == [
        scores.paper.ods,
        scores.symmetric.ods,
        scores.strict.ods,
    ]
    assert row["threshold"] == scores.symmetric.threshold


def test_pieces_are_mended_by_linking_and_specks_dropped_by_length(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    table, continuity, _ = compare(tmp_path)
    high = continuity[continuity["threshold"] == 0.85].set_index(["method", "min_length_px"])
    assert high.loc[("none", 0), "continuity_on_cracks"] == 4, "three faint stretches part the crack"
    assert high.loc[("none", 0), "continuity"] == 7, "and three specks lie beside it"
    assert high.loc[("hysteresis", 0), "continuity_on_cracks"] == 1
    assert high.loc[("link", 0), "continuity_on_cracks"] == 1
    assert high.loc[("link", 20), "continuity"] == 1
    rows = by_variant(table)
    assert (rows["truth_pieces"] == 1).all()
    assert rows.loc[("none", 0), "pieces"] - rows.loc[("none", 0), "pieces_on_cracks"] == 3
    assert rows.loc[("none", 20), "precision"] > rows.loc[("none", 0), "precision"]
    assert (rows["continuity"] == rows["pieces"] / rows["truth_pieces"]).all()


def test_nothing_outside_the_region_of_interest_counts(tmp_path: Path) -> None:
    _, mask = write_pair(tmp_path, "a")
    inside = np.zeros_like(mask)
    inside[:60] = 1  # the specks lie below
    write_mask(tmp_path / "rois" / "a.png", inside)
    rows = by_variant(compare(tmp_path, tmp_path / "rois").table)
    assert (rows["pieces"] == rows["pieces_on_cracks"]).all()
    assert rows.loc[("none", 0), "pieces"] < by_variant(compare(tmp_path).table).loc[("none", 0), "pieces"]


def test_time_is_told_by_map_of_one_size(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    rows = by_variant(compare(tmp_path).table)
    assert (rows["ms"] >= 0).all()
    assert rows.loc[("thin", 0), "ms"] > rows.loc[("none", 0), "ms"]


def test_imports_of_the_first_time_are_in_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s, used = [0.0], set()

    def postprocess(map_HW: np.ndarray, *, method: str, **_: object) -> np.ndarray:
        clock_s[0] += 0.001 if method in used else 100.0
        used.add(method)
        return map_HW

    monkeypatch.setattr(postprocessing_ablation, "postprocess_map", postprocess)
    monkeypatch.setattr(postprocessing_ablation.time, "process_time", lambda: clock_s[0])
    write_pair(tmp_path, "a")
    times_ms = compare(tmp_path).table["ms"]
    assert times_ms.max() == pytest.approx(times_ms.min())


def test_truth_without_a_map_is_left_out_and_a_map_without_truth_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    write_mask(tmp_path / "masks" / "other.png", np.eye(40, dtype=np.uint8))
    assert [files.map_path.stem for files in find_maps(tmp_path / "maps", tmp_path / "masks")] == ["a"]
    write_probability_map(tmp_path / "maps" / "lonely.png", np.zeros((8, 8)))
    with pytest.raises(CracksegError, match=r"1 of 2 maps in .* have no mask of the same stem .*: lonely"):
        find_maps(tmp_path / "maps", tmp_path / "masks")


def test_short_pieces_are_not_dropped_twice_when_no_length_is_asked() -> None:
    assert [variant.min_length_px for variant in make_variants(min_length_px=0)] == [0] * 4
    assert [variant.min_length_px for variant in make_variants(min_length_px=7)] == [0] * 4 + [7] * 4


# --- the command ------------------------------------------------------------------------------------------------


def run(folder: Path, *more: str) -> tuple[int, str]:
    arguments = ["--predictions", folder / "maps", "--masks", folder / "masks", "--out", folder / "out", *more]
    result = CliRunner().invoke(cli, ["compare-postprocessing", *map(str, arguments)])
    message = str(result.exception) if isinstance(result.exception, CracksegError) else result.output
    return result.exit_code, message


def test_command_writes_tables_and_pictures(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    code, output = run(tmp_path, "--min-length-px", "15")
    assert code == 0, output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "postprocessing.csv",
        "postprocessing.md",
        "postprocessing.png",
        "continuity.csv",
        "continuity.png",
    }
    for name in ("postprocessing.png", "continuity.png"):
        assert min(read_image(tmp_path / "out" / name).shape[:2]) > 300
    assert len(pd.read_csv(tmp_path / "out" / "postprocessing.csv")) == 8
    assert "| link | 15 | " in output


@pytest.mark.parametrize(
    ("width", "crack", "message"),
    [(64, 1, "predict at the size of the"), (128, 0, "no mask shows a crack")],
)
def test_bad_pairs_end_in_a_message_and_no_files(tmp_path: Path, width: int, crack: int, message: str) -> None:
    write_pair(tmp_path, "a")
    mask = np.zeros((96, width), np.uint8)
    mask[40] = crack
    write_mask(tmp_path / "masks" / "a.png", mask)
    code, output = run(tmp_path)
    assert (code, message in output) == (1, True), output
    assert not (tmp_path / "out").exists()


def test_empty_region_of_interest_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    write_mask(tmp_path / "rois" / "a.png", np.zeros((96, 128), np.uint8))
    code, output = run(tmp_path, "--rois", str(tmp_path / "rois"))
    assert (code, "that is not empty" in output) == (1, True), output
