"""What the scores are said to be blind to, they are; and the command that shows it works on anybody's masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from crackseg.cli import cli
from crackseg.data.images.files import read_image, write_mask, write_png
from crackseg.errors import CracksegError
from crackseg.experiments.metric_faults import (
    RESIZINGS,
    cut_examples,
    cut_resized_examples,
    describe_masks,
    make_cases,
    measure_resizing,
    read_masks,
    score_cases,
    shrink,
)

PROTOCOLS = ["paper", "symmetric", "strict"]


def draw_truth(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Two wavy cracks of one pixel, from side to side."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    columns = np.arange(0, width, 3)
    for middle in (height // 3, 2 * height // 3):
        rows = middle + 8 * np.sin(columns / 17) + np.cumsum(rng.normal(0, 0.4, len(columns)))
        points = np.stack([columns, np.rint(rows)], axis=1).astype(np.int32)
        cv2.polylines(mask, [points], False, 1)
    return mask


def find_centre(mask: np.ndarray) -> np.ndarray:
    """Centre of mass in pixels, y and x."""
    return np.argwhere(mask).mean(axis=0) + 0.5


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return score_cases([draw_truth(300, 200, seed) for seed in range(3)]).set_index("case")


def test_exact_prediction_is_perfect_by_every_score(scores: pd.DataFrame) -> None:
    assert (scores.loc["exact"] == 1).all()


def test_thick_lines_fool_paper_and_symmetric_up_to_the_tolerance_but_not_strict(scores: pd.DataFrame) -> None:
    for case in ("3 px thick", "5 px thick"):
        assert scores.loc[case, "paper"] == scores.loc[case, "symmetric"] == 1
        assert scores.loc[case, "strict"] < 0.6
    assert scores.loc["9 px thick", "symmetric"] < 0.9 < scores.loc["9 px thick", "centerline_iou"]


def test_paper_prefers_half_of_the_cracks_drawn_thick_to_all_of_them_a_pixel_off(scores: pd.DataFrame) -> None:
    half, shifted = scores.loc["half missing, 5 px thick"], scores.loc["shifted 1 px"]
    assert half["paper"] > 0.9 > shifted["paper"]
    assert half["symmetric"] < 0.7 < shifted["symmetric"] == 1
    assert half["paper"] > half["symmetric"] > half["strict"]


def test_missing_half_costs_every_score_a_third_or_more_when_the_line_stays_thin(scores: pd.DataFrame) -> None:
    assert scores.loc["half missing", PROTOCOLS].to_numpy() == pytest.approx([2 / 3] * 3, abs=0.02)
    assert scores.loc["half missing", "centerline_iou"] == pytest.approx(0.5, abs=0.05)


def test_gaps_are_seen_by_continuity_alone_of_the_tolerant_scores(scores: pd.DataFrame) -> None:
    broken = scores.loc["broken"]
    assert min(broken["symmetric"], broken["centerline_iou"]) > 0.95
    assert broken["continuity"] > 10


def test_specks_hardly_touch_centre_lines_and_cost_the_protocols_a_third(scores: pd.DataFrame) -> None:
    assert scores.loc["specks", "centerline_iou"] > 0.9
    assert scores.loc["specks", PROTOCOLS].max() < 0.75


def test_shifts_beyond_the_tolerance_are_seen_the_more_the_further(scores: pd.DataFrame) -> None:
    shifts = scores.loc[[f"shifted {n} px" for n in range(1, 6)]]
    assert shifts["strict"].is_monotonic_decreasing
    assert (shifts["symmetric"][:2] > 0.99).all()
    assert shifts["symmetric"].iloc[-1] < 0.7


def test_half_is_half_of_the_pixels_and_the_further_right_one() -> None:
    mask = draw_truth(300, 200)
    half = make_cases(mask)["half missing"]
    assert half.sum() == mask.sum() // 2
    assert np.argwhere(half)[:, 1].max() <= np.argwhere((mask > 0) & ~half)[:, 1].min()


def test_image_without_cracks_adds_nothing() -> None:
    truth = draw_truth(300, 200)
    pd.testing.assert_frame_equal(score_cases([truth]), score_cases([truth, np.zeros_like(truth)]))


def test_nearest_breaks_lines_and_the_line_method_does_not() -> None:
    table = measure_resizing([draw_truth(800, 600)], size_px=512).set_index("resizing")
    assert table.loc["line", "pieces_after"] == table.loc["line", "pieces_before"] == 2
    assert table.loc["line", "kept"] == 1
    assert (table.loc["line", [*PROTOCOLS, "centerline_iou"]] == 1).all()
    nearest = table.loc["nearest"]
    assert nearest["pieces_after"] > 20
    assert nearest["kept"] < 0.9
    assert nearest["continuity"] < 0.1, "an unbroken line looks as if nearly all were missing"
    assert nearest["strict"] < 0.9 < nearest["symmetric"]


def test_corner_form_of_nearest_costs_the_perfect_prediction_more_than_the_gaps_do() -> None:
    table = measure_resizing([draw_truth(800, 600)], size_px=512).set_index("resizing")
    nearest, corner = table.loc["nearest"], table.loc["nearest, corner"]
    assert corner["kept"] == pytest.approx(nearest["kept"], abs=0.1)
    for protocol in ("paper", "strict"):
        assert nearest[protocol] - corner[protocol] > 1 - nearest[protocol]


def test_nearest_leaves_lines_in_place_and_its_corner_form_moves_them_right_and_down() -> None:
    truth = draw_truth(800, 600)
    centred, moved = (cut_resized_examples([truth], 512)[name] for name in ("nearest", "nearest, corner"))
    assert not (centred.mask & ~centred.crack_mask).any()
    assert centred.mask.sum() < centred.crack_mask.sum()
    assert (moved.mask & ~moved.crack_mask).any()


def test_only_the_corner_form_moves_truth_half_a_pixel_right_and_down() -> None:
    blob = cv2.ellipse(np.zeros((600, 800), np.uint8), (310, 270), (211, 173), 30, 0, 360, 1, -1)
    shift_px = {
        name: find_centre(shrink(blob, 512, name)) - find_centre(blob) * 512 / [600, 800] for name in RESIZINGS
    }
    assert shift_px["nearest, corner"] == pytest.approx([0.5, 0.5], abs=0.1)
    assert shift_px["nearest"] == pytest.approx([0, 0], abs=0.1)
    assert shift_px["line"] == pytest.approx([0, 0], abs=0.1)


def test_masks_that_do_not_shrink_say_nothing_of_resizing() -> None:
    truth = draw_truth(300, 200)
    assert measure_resizing([truth], size_px=256).empty
    assert len(measure_resizing([truth, draw_truth(600, 512)], size_px=512)) == 3


def test_detail_shows_found_and_missed_halves() -> None:
    detail = cut_examples([np.zeros((200, 300), np.uint8), draw_truth(300, 200)])["half missing"]
    assert (detail.mask & detail.crack_mask).any()
    assert (detail.mask & ~detail.crack_mask).any()


def test_width_of_the_truth_is_told_since_the_cases_suppose_one_pixel() -> None:
    thin = draw_truth(300, 200)
    thick = cv2.dilate(thin, np.ones((5, 5), np.uint8))
    assert "1 mask," in describe_masks([thin])
    width_px = [float(describe_masks([mask]).split()[-3]) for mask in (thin, thick)]
    assert width_px[0] < 1.2 < 4 < width_px[1]


# --- the command ------------------------------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["explain-scores", *map(str, arguments)])
    message = str(result.exception) if isinstance(result.exception, CracksegError) else result.output
    return result.exit_code, message


def test_command_writes_tables_and_pictures_of_all_folders(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 1)):
        write_mask(tmp_path / folder / "same stem.png", draw_truth(200, 160, seed))
    code, output = run(
        "--masks", tmp_path / "a", "--masks", tmp_path / "b", "--size-px", 96, "--out", tmp_path / "out"
    )
    assert code == 0, output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"weak_points.png", "weak_points.csv", "weak_points.md", "resizing.png", "resizing.csv"}
    for name in ("weak_points.png", "resizing.png"):
        assert min(read_image(tmp_path / "out" / name).shape[:2]) > 400
    table = pd.read_csv(tmp_path / "out" / "weak_points.csv")
    assert table["case"].tolist() == list(make_cases(draw_truth(200, 160)))
    assert "Ground truth: 2 masks" in (tmp_path / "out" / "weak_points.md").read_text()
    assert "| half missing, 5 px thick | 0." in output


def test_small_masks_give_no_figure_of_resizing_and_a_hint(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks" / "1.png", draw_truth(96, 64))
    code, output = run("--masks", tmp_path / "masks", "--out", tmp_path / "out")
    assert (code, "a smaller --size-px" in output) == (0, True)
    assert not (tmp_path / "out" / "resizing.png").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [(None, "no file ends in"), ((0, 0), "no mask shows a crack"), ((204, 255), "--crack-value 255")],
)
def test_masks_that_say_nothing_end_in_a_message_and_no_files(
    tmp_path: Path, values: tuple[int, int] | None, message: str
) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "notes.txt").write_text("not a mask")
    if values:
        drawn = np.zeros((64, 64), np.uint8)
        drawn[10:30, 10:30], drawn[40, :] = values
        write_png(tmp_path / "masks" / "1.png", drawn)
    code, output = run("--masks", tmp_path / "masks", "--out", tmp_path / "out")
    assert (code, message in output) == (1, True), output
    assert not (tmp_path / "out").exists()


def test_crack_value_chooses_one_of_several_kinds(tmp_path: Path) -> None:
    drawn = np.zeros((64, 64), np.uint8)
    drawn[10:30, 10:30], drawn[40, :] = 204, 255
    write_png(tmp_path / "1.png", drawn)
    assert read_masks([tmp_path], crack_values=(255,))[0].sum() == 64


def test_a_large_mask_without_a_crack_says_nothing_of_resizing_either(tmp_path: Path) -> None:
    write_mask(tmp_path / "small.png", draw_truth(100, 100))
    write_mask(tmp_path / "large.png", np.zeros((600, 600), np.uint8))
    code, said = run("--masks", tmp_path, "--out", tmp_path / "out")
    assert code == 0, said
    assert "No mask with a crack is larger than 512 x 512" in said
    assert not (tmp_path / "out" / "resizing.png").exists()
