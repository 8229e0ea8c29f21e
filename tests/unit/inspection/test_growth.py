"""What has grown between two visits is told with its length, and what has not is not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from crackseg.cli import cli
from crackseg.data.images.files import write_png
from crackseg.inspection.growth import Change, compare_views, make_view
from crackseg.inspection.registration import NotRegistered, map_points, register, zoom_at
from crackseg.registry.loading import LoadedModel, load_model
from tests.unit.inspection.drawn_mosaics import PLACES, write
from tests.unit.inspection.grown_scenes import visit_twice

SEEN = np.ones((400, 400), bool)
THRESHOLD = 0.5


def draw(*lines: tuple[tuple[int, int], tuple[int, int], int], value: float = 1.0) -> np.ndarray:
    """A map with lines from, to, of a width in pixels."""
    crack_prob = np.zeros((400, 400), np.float32)
    for start, end, width in lines:
        cv2.line(crack_prob, start, end, value, width)
    return crack_prob


def compare(before: np.ndarray, after: np.ndarray, seen: np.ndarray = SEEN) -> list[Change]:
    views = (make_view([crack_prob], THRESHOLD, seen) for crack_prob in (before, after))
    return compare_views(*views, seen, error_px=0.3)


def test_a_crack_that_has_grown_is_longer_by_what_was_added() -> None:
    (change,) = compare(draw(((50, 200), (150, 210), 3)), draw(((50, 200), (300, 225), 3)))
    assert change.words == ("longer",)
    assert (change.before, change.after) == ((1,), (1,))
    assert change.grown_px == pytest.approx(np.hypot(150, 15), abs=4)
    assert change.grown_error_px < 2
    assert change.lost_px == 0


def test_a_branch_that_has_grown_out_of_a_crack_is_part_of_it() -> None:
    old = ((50, 200), (350, 200), 3)
    (change,) = compare(draw(old), draw(old, ((200, 200), (240, 100), 3), ((240, 100), (300, 80), 3)))
    assert change.words == ("longer",)
    assert change.grown_px == pytest.approx(np.hypot(40, 100) + np.hypot(60, 20), rel=0.05)


def test_new_gone_and_unchanged_cracks_are_told_apart() -> None:
    stays = ((50, 50), (350, 60), 3)
    changes = compare(draw(stays, ((50, 150), (150, 150), 3)), draw(stays, ((50, 300), (250, 300), 3)))
    assert [change.words for change in changes] == [("new",), ("gone",), ()]
    assert changes[0].grown_px == pytest.approx(200, abs=3)
    assert changes[1].lost_px == pytest.approx(100, abs=3)


def test_a_wider_crack_is_told_only_where_pixels_can_show_it() -> None:
    (change,) = compare(draw(((50, 200), (350, 200), 3)), draw(((50, 200), (350, 200), 7)))
    assert change.words == ("wider",)
    assert change.wider_by_px == pytest.approx(4, abs=0.5)
    (change,) = compare(draw(((50, 200), (350, 200), 3)), draw(((50, 200), (350, 200), 4)))
    assert change.words == ()


def test_a_crack_of_which_there_was_a_faint_sign_is_not_new() -> None:
    faint = draw(((50, 200), (300, 200), 3), value=0.3)
    surely = draw(((50, 200), (300, 200), 3))
    (change,) = compare(faint, surely)
    assert change.words == ()
    (change,) = compare(np.maximum(faint, draw(((50, 200), (120, 200), 3))), surely)
    assert change.words == ()


def test_a_crack_that_one_of_two_predictions_does_not_find_is_not_new() -> None:
    crack, nothing = draw(((50, 200), (300, 200), 3)), draw()
    before, after = make_view([nothing], THRESHOLD, SEEN), make_view([crack, nothing], THRESHOLD, SEEN)
    assert compare_views(before, after, SEEN, error_px=0.3) == []


def test_a_shift_within_the_tolerance_and_stretches_out_of_view_are_no_growth() -> None:
    before = draw(((50, 200), (300, 200), 3))
    (change,) = compare(before, draw(((50, 203), (303, 203), 3)))
    assert change.words == ()
    seen = SEEN.copy()
    seen[:, 310:] = False
    (change,) = compare(before, draw(((50, 200), (399, 200), 3)), seen)
    assert change.words == ()


def test_a_crack_that_was_in_two_pieces_and_is_one_now_is_one_crack() -> None:
    before = draw(((30, 200), (130, 200), 3), ((250, 200), (370, 200), 3))
    (change,) = compare(before, draw(((30, 200), (370, 200), 3)))
    assert (change.before, change.after) == ((1, 2), (1,))
    assert change.words == ("longer",)
    assert change.grown_px == pytest.approx(120, abs=4)


@pytest.mark.parametrize("seed", [0, 1])
def test_photographs_from_elsewhere_are_registered_to_a_fraction_of_a_pixel(seed: int) -> None:
    visits = visit_twice(seed, grows=True, side_px=400)
    found = register(visits.before, visits.after)
    places = np.array([[100.0, 100], [300, 100], [300, 300], [100, 300]])
    assert np.abs(map_points(found.to_before, places) - map_points(visits.to_before, places)).max() < 0.5
    assert found.overlap > 0.6
    ends = map_points(found.to_before, np.array([[200.0, 200], [202, 200], [200, 202]]))
    zoom = np.sqrt(abs(np.linalg.det(ends[1:] - ends[0]))) / 2
    assert zoom_at(found.to_before, np.array([[200.5, 200.5]]))[0] == pytest.approx(zoom, rel=0.01)


def test_photographs_that_cannot_be_registered_are_refused_with_the_reason() -> None:
    one = visit_twice(0, grows=False, side_px=400).before
    other = visit_twice(4, grows=False, side_px=400).before
    with pytest.raises(NotRegistered, match=r"only \d+ points agree, and 25 are needed"):
        register(one, other)
    with pytest.raises(NotRegistered, match="only 0 points agree"):
        register(one, np.full((300, 300, 3), 128, np.uint8))
    with pytest.raises(NotRegistered):
        register(one, np.ascontiguousarray(one[:, ::-1]))


class DarkLines:
    """Stands for a trained network, so that the test does not depend on how strong the shipped one is."""

    def predict_prob(self, image_HW3: np.ndarray) -> np.ndarray:
        grey_HW = cv2.GaussianBlur(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
        darker_HW = 1 - grey_HW / cv2.GaussianBlur(grey_HW, (0, 0), 12)
        return (2 * darker_HW).clip(0, 1)


@pytest.fixture
def dark_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(uri: str, root: Path | None) -> LoadedModel:
        model = load_model(uri, root)
        model.analyzer.predictor = DarkLines()  # type: ignore[assignment]
        return model

    monkeypatch.setattr("crackseg.registry.loading.load_model", load)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["growth", *map(str, arguments), "--model", "scenes", "--threshold", "0.4"])


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Folders of two visits: a pair, a pair of different places, a photograph without a partner."""
    folder = tmp_path_factory.mktemp("visits")
    visits = visit_twice(3, grows=True, side_px=400)
    write_png(folder / "2024" / "pier.png", visits.before)
    write_png(folder / "2026" / "pier.png", visits.after)
    write_png(folder / "2024" / "deck.png", visits.before)
    write_png(folder / "2026" / "deck.png", visit_twice(4, grows=False, side_px=400).before)
    write_png(folder / "2024" / "alone.png", visits.before)
    return folder, visits.grown_px


@pytest.mark.usefixtures("dark_lines")
def test_two_folders_are_compared_by_name_and_what_cannot_be_is_said(
    visited: tuple[Path, float], tmp_path: Path
) -> None:
    folder, grown_px = visited
    out = tmp_path / "out"
    result = run(folder / "2024", folder / "2026", "--out", out, "--mm-per-px", 0.5)
    assert result.exit_code == 3, result.output
    assert "1 of 2 pairs compared; 1 with changes" in result.stdout
    assert "refused: deck: only" in result.stderr
    assert "without a partner in" in result.stderr
    assert "alone" in result.stderr
    with (out / "growth.csv").open(newline="") as table:
        refused, *changed = csv.DictReader(table)
    assert (refused["pair"], refused["change"]) == ("deck", "")
    assert "points agree" in refused["refused"]
    assert [row["change"] for row in changed] == ["longer"]
    assert float(changed[0]["longer_by_mm"]) == pytest.approx(grown_px / 2, rel=0.06)
    assert float(changed[0]["longer_uncertainty_mm"]) > 0
    pairs = {pair["pair"]: pair for pair in json.loads((out / "growth.json").read_text())}
    assert pairs["pier"]["registration"]["error_px"] < 2
    picture = cv2.imread(str(out / "pictures" / "pier.jpg")).astype(int)
    assert picture.shape[1] > 2 * 400
    assert (abs(picture - (0, 94, 213)).max(axis=2) < 30).sum() > 100  # the new part
    assert not (out / "pictures" / "deck.jpg").exists()
    again = run(folder / "2024", folder / "2026", "--out", out, "--mm-per-px", 0.5)
    assert "1 of 2 pairs compared, 1 of them kept from before" in again.stdout


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("2024/pier.png", "2026", "two photographs or two folders"),
        ("2024", "2024", "are the same"),
        ("2024", "2025", "no such file or folder"),
        ("2024", "other", "no photograph of .*2024 has the name of one of .*other"),
    ],
)
def test_what_is_no_pair_is_refused(
    visited: tuple[Path, float], tmp_path: Path, before: str, after: str, said: str
) -> None:
    folder, _ = visited
    write_png(folder / "other" / "x.png", np.zeros((40, 40, 3), np.uint8))
    result = run(folder / before, folder / after, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert re.search(said, str(result.exception)), result.exception
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("dark_lines")
def test_an_orthomosaic_is_compared_without_its_scale_and_this_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    visits = visit_twice(3, grows=True, side_px=400)
    for name, picture in (("before", visits.before), ("after", visits.after)):
        write(
            tmp_path / f"{name}.tif", picture.transpose(2, 0, 1), crs="EPSG:32632", transform=PLACES["metres"][1]
        )
    result = run(tmp_path / "before.tif", tmp_path / "after.tif", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for name in ("before", "after"):
        assert f"{name}.tif: an orthomosaic, compared as a plain photograph" in caplog.text
