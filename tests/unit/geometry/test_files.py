"""`crackseg measure` as its user meets it: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from crackseg.cli import cli
from crackseg.data.image_files import find_photographs
from crackseg.data.images.files import encode_png, write_mask
from crackseg.data.masks.stored import StoredMask, read_stored_mask
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.geometry.components import measure_mask
from crackseg.geometry.files import MeasureOptions, judge_masks, measure_file
from crackseg.geometry.picture import draw_measurement
from crackseg.geometry.scale import check_mm_per_px, choose_scale, scale_of_points
from tests.unit.geometry.drawing import draw_bar


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """One mask with a crack of 100 x 4 px at 30 degrees, and an empty one."""
    write_mask(tmp_path / "masks" / "a.png", draw_bar((120.3, 119.8), 100, 4, 30))
    write_mask(tmp_path / "masks" / "sub" / "none.png", np.zeros((30, 40), bool))
    return tmp_path / "masks"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["measure", *map(str, arguments)])


def test_json_is_a_list_with_an_entry_for_each_mask(masks: Path) -> None:
    result = run(masks, "--json", "--mm-per-px", 0.5)
    assert result.exit_code == 0
    first, second = json.loads(result.stdout)
    assert first["file"] == str(masks / "a.png")
    (crack,) = first["cracks"]
    assert crack["length_px"] == pytest.approx(100, rel=0.03)
    assert crack["mean_width_px"] == pytest.approx(4, abs=0.5)
    assert crack["max_width_px"] == pytest.approx(4, abs=0.5)
    assert crack["orientation_deg"] == pytest.approx(30, abs=2)
    assert crack["length_mm"] == pytest.approx(crack["length_px"] / 2, abs=0.01)
    assert crack["area_mm2"] == pytest.approx(crack["area_px"] / 4, abs=0.01)
    assert len(crack["branches"]) == 1
    x, y, width, height = crack["bounding_box_px"]
    assert (x + width / 2, y + height / 2) == pytest.approx((120.8, 120.3), abs=1)
    totals = first["totals"]
    assert totals["length_per_area_m_per_m2"] == pytest.approx(1000 * totals["length_mm"] / (120 * 120), rel=0.001)
    assert second["cracks"] == []
    assert second["totals"]["length_px"] == 0


def test_each_mask_is_read_once_unless_it_changed_or_memory_is_short(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def read(path: Path) -> StoredMask:
        reads.append(path.name)
        return read_stored_mask(path)

    for module in ("crackseg.geometry.files", "crackseg.data.masks.formats"):
        monkeypatch.setattr(f"{module}.read_stored_mask", read)
    once = run(masks, "--json").stdout
    assert reads == ["a.png", "none.png"]
    found = find_photographs([str(masks)], None)
    known = judge_masks(found, MeasureOptions())
    write_mask(masks / "a.png", draw_bar((60.0, 60.0), 50, 4, 0))
    os.utime(masks / "a.png", ns=(1, 1))
    changed = measure_file(masks / "a.png", MeasureOptions(), known)
    assert max(crack.length_px for crack in changed.cracks) == pytest.approx(50, rel=0.06)
    write_mask(masks / "a.png", draw_bar((120.3, 119.8), 100, 4, 30))
    monkeypatch.setattr("crackseg.geometry.files._MOST_KEPT_BYTES", 0)
    reads.clear()
    assert run(masks, "--json").stdout == once
    assert reads == ["a.png", "none.png"] * 2


def test_scale_from_two_points_is_the_same_as_the_scale(masks: Path) -> None:
    by_points = run(masks, "--json", "--scale", "10,10,40,50,25").stdout
    error_pct = 100 * 0.5**0.5 / 50  # half a pixel for each of two points that are 50 px apart
    assert by_points == run(masks, "--json", "--mm-per-px", 0.5, "--scale-error-pct", error_pct).stdout


def test_tables_lines_and_pictures_are_written_once(masks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(masks, "--out", out).exit_code == 0
    with (out / "cracks.csv").open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert float(row["length_px"]) == pytest.approx(100, rel=0.03)
    assert row["length_mm"] == ""
    with (out / "crack_totals.csv").open(newline="") as table:
        assert [row["num_cracks"] for row in csv.DictReader(table)] == ["1", "0"]
    (feature,) = json.loads((out / "polylines" / "a.geojson").read_bytes())["features"]
    start, end = (np.array(feature["geometry"]["coordinates"][i]) for i in (0, -1))
    assert np.hypot(*(end - start)) == pytest.approx(100, rel=0.03)
    picture = Image.open(out / "annotated" / "sub" / "none.jpg")
    assert max(picture.size) >= 1000

    written = (out / "measurements" / "a.json").stat().st_mtime_ns
    assert run(masks, "--out", out).exit_code == 0
    assert (out / "measurements" / "a.json").stat().st_mtime_ns == written
    assert run(masks, "--out", out, "--mm-per-px", 2).exit_code == 0
    with (out / "cracks.csv").open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert float(row["length_mm"]) == pytest.approx(200, rel=0.03)


def test_a_changed_mask_is_measured_again_and_a_broken_one_keeps_no_old_figures(
    masks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(masks, "--out", out)
    write_bytes(masks / "a.png", b"")
    result = run(masks, "--out", out, "--json")
    assert result.exit_code == 3
    assert "a.png" in result.stderr
    assert "0 bytes" in result.stderr
    assert [report["file"] for report in json.loads(result.stdout)] == [str(masks / "sub" / "none.png")]
    assert (out / "cracks.csv").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"no picture", "not an image"),
        (
            encode_png(np.random.default_rng(0).integers(40, 210, (60, 60, 3), dtype=np.uint8)),
            "not a mask|colours",
        ),
        (encode_png(cv2.GaussianBlur(np.tile(np.arange(200, dtype=np.uint8), (90, 1)), (5, 5), 0)), "not a mask"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    write_bytes(tmp_path / "odd.png", content)
    result = run(tmp_path / "odd.png", "--json")
    assert result.exit_code == 3
    assert "odd.png" in result.stderr
    assert any(part in result.stderr for part in message.split("|"))
    assert json.loads(result.stdout) == []


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e160, 1e-300])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(CracksegError, match="mm per pixel"):
        check_mm_per_px(scale)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5,5,5,5,10", "0 pixels apart"),
        ("0,0,3,4,0", "distance is 0 mm"),
        ("0,0,3,4,nan", "distance is nan"),
        ("0,0,3,4,-2", "distance is -2 mm"),
        ("nan,0,3,4,2", "nan pixels apart"),
        ("1,2,3", "five numbers"),
        ("a,b,c,d,e", "five numbers"),
    ],
)
def test_two_points_that_give_no_scale_are_refused(text: str, message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        scale_of_points(text)


def test_two_scales_are_refused() -> None:
    with pytest.raises(CracksegError, match="give one of them"):
        choose_scale(1.0, "0,0,3,4,10")


def test_photograph_of_another_shape_is_no_background(masks: Path, tmp_path: Path) -> None:
    write_bytes(tmp_path / "photos" / "a.jpg", encode_png(np.zeros((50, 90, 3), np.uint8)))
    result = run(masks, "--out", tmp_path / "out", "--photographs", tmp_path / "photos")
    assert result.exit_code == 3
    assert "90 x 50" in result.stderr


def test_annotated_picture_shows_the_photograph_and_every_label_that_fits() -> None:
    mask = draw_bar((60, 60), 80, 3, 0) | draw_bar((150, 170), 100, 5, 90)
    photograph = np.full((240, 240, 3), (10, 120, 10), np.uint8)
    picture = np.asarray(Image.open(io.BytesIO(draw_measurement(measure_mask(mask), photograph))).convert("RGB"))
    green = (abs(picture.astype(int) - (10, 120, 10)).max(axis=-1) < 12).mean()
    assert 0.8 < green < 0.98
    bottom = picture[-20:]
    assert (bottom > 200).mean() > 0.5  # the line of text below the photograph
    labels, _ = cv2.connectedComponents((picture[:1390].min(axis=-1) > 245).astype(np.uint8))
    assert labels - 1 >= 2


def test_cracks_in_one_colour_and_patches_in_another_are_told_apart_by_colour_only(tmp_path: Path) -> None:
    for name, colour in (("crack", (128, 0, 0)), ("patch", (0, 128, 0))):
        bar = draw_bar((120.3, 119.8), 100, 4, 30) > 0
        write_bytes(tmp_path / "masks" / f"{name}.png", encode_png(bar[..., None] * np.array(colour, np.uint8)))
    result = run(tmp_path / "masks", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "--crack-value '#800000'" in str(result.exception)
    assert not (tmp_path / "out" / "cracks.csv").exists()
    result = run(tmp_path / "masks", "--json", "--crack-value", "#800000")
    assert [len(report["cracks"]) for report in json.loads(result.stdout)] == [1, 0]


def test_a_crack_value_that_no_mask_has_is_no_measurement_of_nothing(masks: Path) -> None:
    result = run(masks, "--crack-value", 254)
    assert result.exit_code == 1
    assert "no mask has the crack value 254" in str(result.exception)


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}'])
def test_a_file_among_the_measurements_that_is_none_is_named_and_stops_nothing(
    masks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    write_bytes(tmp_path / "out" / "measurements" / "other.json", content.encode())
    result = run(masks, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert re.search(
        r"left out of the tables: 1 file, e\.g\. \S+/measurements/other\.json: damaged, or not", caplog.text
    )
    assert len((tmp_path / "out" / "crack_totals.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_a_mask_that_is_gone_is_in_no_table_and_one_of_an_earlier_run_is_said(
    masks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "crackseg")
    out = tmp_path / "out"
    run(masks, "--out", out, "--mm-per-px", 0.5)
    run(masks / "a.png", "--out", out, "--mm-per-px", 0.5)
    assert "the tables also have 1 mask of earlier runs, e.g. sub/none" in caplog.text
    (masks / "sub" / "none.png").unlink()
    run(masks, "--out", out, "--mm-per-px", 0.25)
    with (out / "crack_totals.csv").open(newline="") as table:
        assert [Path(row["file"]).name for row in csv.DictReader(table)] == ["a.png"]
    assert "none.png is not there any more" in caplog.text
