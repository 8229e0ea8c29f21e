"""Saved maps score as the maps did, and anybody's maps can be scored."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crackseg.cli import cli
from crackseg.data.images.files import write_mask, write_probability_map
from crackseg.errors import CracksegError
from crackseg.evaluation.metrics import ScoreAccumulator, count_image
from crackseg.evaluation.score_files import flatten_scores
from crackseg.evaluation.scoring import score_folder, score_split, write_scores
from crackseg.geometry.centerlines import count_lines
from crackseg.params import EvaluateParams, PostprocessParams
from crackseg.types import CrackSample

EVALUATE = EvaluateParams(tolerance_px=2, num_thresholds=256, line_tolerance_px=4, use_roi=True)
NO_POSTPROCESSING = PostprocessParams(method="none", low_ratio=0.6, max_gap_px=10, min_length_px=0, floor=0.25)
FIGURES = {"ods", "precision", "recall", "threshold", "ois", "ois_std", "ap"}


def make_pair(seed: int, low: float = 0.0, high: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A map of values in [low, high] that knows the truth, with noise; and the truth."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((64, 64), np.uint8)
    cv2.line(mask, rng.integers(0, 64, 2).tolist(), rng.integers(0, 64, 2).tolist(), 1)
    clean = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.2) * 3
    noisy = (clean + rng.normal(0, 0.25, mask.shape)).clip(0, 1)
    return (low + (high - low) * noisy).astype(np.float32), mask


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.40, 0.42)])
def test_rounding_in_saved_maps_moves_no_ods(tmp_path: Path, low: float, high: float) -> None:
    direct, samples = ScoreAccumulator(), []
    for seed in range(6):
        prob, mask = make_pair(seed, low, high)
        direct.add(count_image(prob, mask), str(seed))
        write_probability_map(tmp_path / f"{seed}.png", prob)
        write_mask(tmp_path / "masks" / f"{seed}.png", mask)
        samples.append(CrackSample("D", str(seed), "test", Path("unused"), tmp_path / "masks" / f"{seed}.png"))
    saved, *_ = score_split(samples, tmp_path, EVALUATE, NO_POSTPROCESSING, operating_threshold=0.5)
    for protocol in ("paper", "symmetric", "strict"):
        expected = getattr(direct.result(), protocol)
        assert getattr(saved, protocol).ods == pytest.approx(expected.ods, abs=0.001)
        assert getattr(saved, protocol).ap == pytest.approx(expected.ap, abs=0.001)


def test_score_prints_the_three_protocols_as_json(tmp_path: Path) -> None:
    for seed, kind in enumerate(("8", "16", "npy")):
        prob, mask = make_pair(seed)
        write_mask(tmp_path / "masks" / f"{kind}.png", mask)
        (tmp_path / "maps").mkdir(exist_ok=True)
        path = tmp_path / "maps" / f"{kind}.png"
        if kind == "8":
            cv2.imwrite(str(path), np.rint(prob * 255).astype(np.uint8))
        elif kind == "16":
            write_probability_map(path, prob)
        else:
            np.save(path.with_suffix(".npy"), prob)
    arguments = ["score", "--predictions", str(tmp_path / "maps"), "--masks", str(tmp_path / "masks"), "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert scores.pop("num_images") == 3
    assert {name: set(figures) for name, figures in scores.items()} == dict.fromkeys(
        ("paper", "symmetric", "strict"), FIGURES
    )
    assert scores["paper"]["ods"] > scores["strict"]["ods"] > 0


def test_truth_of_zero_and_one_and_of_black_are_understood(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "masks").mkdir()
    prob, mask = make_pair(0)
    for stem, truth in (("one", mask), ("black", np.zeros_like(mask))):
        write_probability_map(tmp_path / "maps" / f"{stem}.png", prob)
        cv2.imwrite(str(tmp_path / "masks" / f"{stem}.png"), truth)
    (tmp_path / "masks" / "Thumbs.db").write_bytes(b"not a mask")
    assert score_folder(tmp_path / "maps", tmp_path / "masks").num_images == 2


def test_map_of_another_size_is_named(tmp_path: Path) -> None:
    prob, mask = make_pair(0)
    write_probability_map(tmp_path / "maps" / "a.png", prob[:32])
    write_mask(tmp_path / "masks" / "a.png", mask)
    with pytest.raises(CracksegError, match=r"a\.png: the map is 64 x 32 pixels and its ground truth 64 x 64"):
        score_folder(tmp_path / "maps", tmp_path / "masks")


def test_two_maps_of_one_stem_are_named(tmp_path: Path) -> None:
    prob, mask = make_pair(0)
    write_probability_map(tmp_path / "maps" / "a.png", prob)
    np.save(tmp_path / "maps" / "a.npy", prob)
    write_mask(tmp_path / "masks" / "a.png", mask)
    with pytest.raises(CracksegError, match="two files with the stem 'a'"):
        score_folder(tmp_path / "maps", tmp_path / "masks")


def test_files_for_dvc_and_names_for_mlflow(tmp_path: Path) -> None:
    scores = ScoreAccumulator()
    prob, mask = make_pair(0)
    scores.add(count_image(prob, mask), "0")
    lines = count_lines(mask > 0, mask)
    write_scores(scores.result(), lines, {}, "D", tmp_path, extra={"data_source": "sample"})
    content = json.loads((tmp_path / "D.json").read_text())
    assert content["D"]["data_source"] == "sample"
    flat = flatten_scores(content, "D")
    assert flat["D/ods"] == content["D"]["ods"]
    assert (flat["D/centerline_iou"], flat["D/continuity"]) == (1.0, 1.0)
    assert {f"D/strict/{name}" for name in FIGURES} <= flat.keys()
    header = (tmp_path / "D_pr.csv").read_text().splitlines()[0]
    assert header.startswith("threshold,precision,recall,f,symmetric_precision")


def write_sample(folder: Path, prob: np.ndarray, mask: np.ndarray, roi: np.ndarray | None = None) -> CrackSample:
    write_probability_map(folder / "a.png", prob)
    write_mask(folder / "masks" / "a.png", mask)
    if roi is not None:
        write_mask(folder / "roi" / "a.png", roi)
    roi_path = folder / "roi" / "a.png" if roi is not None else None
    return CrackSample("D", "a", "test", Path("unused"), folder / "masks" / "a.png", roi_path)


def test_dropping_specks_raises_precision_and_mends_the_count_of_pieces(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[32, 4:60] = 1
    prob = 0.1 + 0.8 * mask.astype(np.float32)
    prob[5, 5:58:9] = 0.9  # specks of one pixel
    sample = write_sample(tmp_path, prob, mask)
    cleaned = NO_POSTPROCESSING.model_copy(update={"min_length_px": 5})
    before, broken, _ = score_split([sample], tmp_path, EVALUATE, NO_POSTPROCESSING, operating_threshold=0.5)
    after, whole, _ = score_split([sample], tmp_path, EVALUATE, cleaned, operating_threshold=0.5)
    assert before.paper.precision < after.paper.precision == 1
    assert (broken.predicted_pieces, broken.stray_pieces, whole.continuity) == (7, 6, 1)
    assert broken.centerline_iou < whole.centerline_iou == 1


@pytest.mark.parametrize("method", ["none", "thin", "hysteresis", "link"])
def test_nothing_outside_the_region_of_interest_counts(tmp_path: Path, method: str) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[32, 4:60] = 1
    roi = np.ones_like(mask)
    roi[:, :12] = 0
    prob = 0.1 + 0.5 * mask.astype(np.float32)
    settings = NO_POSTPROCESSING.model_copy(update={"method": method})
    results = []
    for stray in (0.1, 1.0):
        prob[10:20, 2:8] = stray
        sample = write_sample(tmp_path, prob, mask, roi)
        scores, lines, _ = score_split([sample], tmp_path, EVALUATE, settings, operating_threshold=0.5)
        results.append((scores.to_dict(), lines))
    assert results[0] == results[1]
    assert results[0][0]["strict"]["ods"] == 1


def test_a_map_of_two_classes_is_refused_rather_than_half_of_it_scored(tmp_path: Path) -> None:
    for folder in ("maps", "masks"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "maps" / "a.npy", np.full((2, 16, 16), 0.5, np.float32))
    write_mask(tmp_path / "masks" / "a.png", np.eye(16, dtype=np.uint8))
    with pytest.raises(CracksegError, match=r"a\.npy.*\(2, 16, 16\).*crack's probability alone"):
        score_folder(tmp_path / "maps", tmp_path / "masks")


def save_maps(folder: Path, form: str) -> None:
    """Three maps with ground truth: 8-bit grey levels, in one of the forms that people store them in."""
    for seed in range(3):
        prob, mask = make_pair(seed)
        levels = np.rint(prob / prob.max() * 255).astype(np.uint8)
        write_mask(folder / "masks" / f"{seed}.png", mask)
        (folder / form).mkdir(exist_ok=True)
        path = folder / form / f"{seed}.png"
        if form == "palette":
            image = Image.fromarray(255 - levels).convert("P")
            image.putpalette([level for level in range(255, -1, -1) for _ in range(3)])
            image.save(path)
        elif form == "float":
            Image.fromarray(levels / np.float32(255)).save(path.with_suffix(".tif"))
        else:
            values = {"grey": levels, "colour": np.dstack([levels] * 3), "16 bits": levels * np.uint16(257)}[form]
            Image.fromarray(values).save(path)


@pytest.mark.parametrize("form", ["palette", "colour", "16 bits", "float"])
def test_the_form_in_which_a_map_is_stored_does_not_change_its_scores(tmp_path: Path, form: str) -> None:
    for each in ("grey", form):
        save_maps(tmp_path, each)
    expected = score_folder(tmp_path / "grey", tmp_path / "masks").to_dict()
    found = score_folder(tmp_path / form, tmp_path / "masks").to_dict()
    for protocol in ("paper", "symmetric", "strict"):
        assert found[protocol] == pytest.approx(expected[protocol], abs=1e-3)


def test_a_map_in_false_colours_or_with_transparent_parts_is_named(tmp_path: Path) -> None:
    prob, mask = make_pair(0)
    levels = np.rint(prob * 255).astype(np.uint8)
    write_mask(tmp_path / "masks" / "a.png", mask)
    (tmp_path / "maps").mkdir()
    Image.fromarray(cv2.applyColorMap(levels, cv2.COLORMAP_JET)).save(tmp_path / "maps" / "a.png")
    with pytest.raises(CracksegError, match=r"a\.png: expected one channel .* colour map"):
        score_folder(tmp_path / "maps", tmp_path / "masks")
    Image.fromarray(np.dstack([levels] * 4)).save(tmp_path / "maps" / "a.png")
    with pytest.raises(CracksegError, match=r"a\.png: parts of the map are transparent"):
        score_folder(tmp_path / "maps", tmp_path / "masks")


def test_inverted_ground_truth_gives_no_perfect_score(tmp_path: Path) -> None:
    prob, mask = make_pair(0)
    write_probability_map(tmp_path / "maps" / "a.png", prob)
    write_mask(tmp_path / "masks" / "a.png", 1 - mask)
    with pytest.raises(CracksegError, match="most of the pixels are crack"):
        score_folder(tmp_path / "maps", tmp_path / "masks")


def test_maps_in_sub_folders_are_scored_with_their_masks(tmp_path: Path) -> None:
    prob, mask = make_pair(0)
    for name in ("a", "deck/a", "deck/b"):
        write_probability_map(tmp_path / "maps" / f"{name}.png", prob)
        write_mask(tmp_path / "masks" / f"{name}.png", mask)
    scored = score_folder(tmp_path / "maps", tmp_path / "masks").images
    assert [image.stem for image in scored] == ["a", "deck/a", "deck/b"]
