"""The report that is handed over: the worst photograph first, nothing left out unsaid, one file that needs no other."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from openpyxl import load_workbook
from PIL import ExifTags, Image

from crackseg.cli import cli
from crackseg.data.synthetic.scenes import render_scene
from crackseg.inspection import workbook
from crackseg.inspection.places import Mark, Place, draw_map, read_place
from tests.unit.inspection.drawn_mosaics import PLACES, draw_deck, write


def draw_photograph(path: Path, seed: int | None, place: tuple[float, float] | None = None) -> None:
    """A drawn scene with a crack, or bare concrete."""
    if seed is not None:
        image = render_scene("CrackTree260", seed, size=(200, 160)).image
    else:
        image = np.random.default_rng(0).normal(190, 6, (160, 200, 3)).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    if place:
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        for value, tag, reference, letters in ((place[0], 2, 1, "NS"), (place[1], 4, 3, "EW")):
            gps[reference] = letters[value < 0]
            gps[tag] = (float(int(abs(value))), (abs(value) % 1) * 60, 0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95, exif=exif)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["inspection-report", "--model", "scenes", *map(str, arguments)])


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "bridge"
    draw_photograph(folder / "slab.jpg", 4, (47.5, 8.25))
    draw_photograph(folder / "wide <b>.jpg", 0, (-33.5, -70.75))
    draw_photograph(folder / "none.jpg", None)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.fixture(scope="module")
def report(bridge: Path) -> tuple[Path, Result]:
    out = bridge.parent / "report"
    result = run(bridge, "--out", out, "--mm-per-px", 0.2, "--title", "Pier <3>", "--pictures", 1)
    return out, result


def test_the_page_needs_no_other_file_and_shows_the_worst_photograph_first(report: tuple[Path, Result]) -> None:
    out, result = report
    assert result.exit_code == 3, result.output  # one photograph is left out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)='(?!data:)", page) == []
    assert page.count("<img") == 1
    with (out / "photographs.csv").open(newline="", encoding="utf-8") as table:
        worst, other, none, _ = (escape(Path(row["photograph"]).stem) for row in csv.DictReader(table))
    assert f"<h3>{worst}: " in page
    assert page.index(f"<td>{worst}") < page.index(f"<td>{other}") < page.index(f"<td>{none}")
    assert "Pier &lt;3&gt;" in page
    assert "<b>" not in page


def test_the_page_says_what_it_was_made_with_and_what_was_left_out(report: tuple[Path, Result]) -> None:
    page = (report[0] / "report.html").read_text(encoding="utf-8")
    assert "3 inspected, 2 with cracks, 1 left out" in page
    assert re.search(r"broken\.jpg</td><td>.*(not|cannot)", page)
    assert page.count("broken.jpg") == 1  # the reason does not repeat it
    for said in ("scenes (", "0.2 mm per pixel", "Threshold", "the model&#x27;s own", "hairline"):
        assert said in page
    assert re.search(r"\d ± 0\.10", page)  # half a pixel
    assert "<svg class='map'" in page


def test_tables_have_a_row_for_each_photograph_and_crack(report: tuple[Path, Result]) -> None:
    out, _ = report
    with (out / "photographs.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    stems = [Path(row["photograph"]).stem for row in rows]
    assert sorted(stems[:2]) == ["slab", "wide <b>"]
    assert stems[2:] == ["none", "broken"]
    rank = ["hairline", "fine", "moderate", "wide"].index
    assert rank(rows[0]["severity"]) >= rank(rows[1]["severity"])
    assert float(rows[stems.index("wide <b>")]["latitude"]) == pytest.approx(-33.5)
    assert rows[2]["severity"] == ""
    assert rows[3]["left_out"]
    book = load_workbook(out / "report.xlsx")
    assert book.sheetnames == ["Inspection", "Severity", "Photographs", "Cracks"]
    assert book["Photographs"].max_row == 5
    cracks = list(book["Cracks"].iter_rows(values_only=True))
    with (out / "cracks.csv").open(newline="", encoding="utf-8") as table:
        assert len(cracks) == len(list(csv.reader(table)))
    points = json.loads((out / "photographs.geojson").read_text())["features"]
    assert sorted(p["geometry"]["coordinates"] for p in points) == [[-70.75, -33.5], [8.25, 47.5]]


def test_the_same_command_predicts_nothing_again_and_a_better_scale_is_taken(
    bridge: Path, report: tuple[Path, Result], tmp_path: Path
) -> None:
    out, _ = report
    again = run(bridge, "--out", out, "--mm-per-px", 0.02, "--title", "Pier 3")
    assert "3 kept from before" in again.output
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2
    assert "0.02 mm per pixel" in page


def test_without_a_scale_the_report_has_pixels_and_says_that_there_is_no_class(bridge: Path) -> None:
    out = bridge.parent / "pixels"
    result = run(bridge / "slab.jpg", "--out", out, "--no-xlsx")
    assert result.exit_code == 0, result.output
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "none was given: values are in pixels" in page
    assert "<h2>Severity</h2>" not in page
    assert not (out / "report.xlsx").exists()
    assert "no width classes" in result.stderr


def test_no_report_is_written_of_photographs_without_a_result(bridge: Path, tmp_path: Path) -> None:
    result = run(bridge / "broken.jpg", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "none of 1 photographs has a result" in str(result.exception)
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_missing_library_for_spreadsheets_is_said_before_anything_is_predicted(
    bridge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook.importlib.util, "find_spec", lambda name: None)
    result = run(bridge, "--out", tmp_path / "out", "--xlsx")
    assert "pip install 'crackseg[report]'" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_places_are_read_from_exif_and_nonsense_is_no_place(tmp_path: Path) -> None:
    draw_photograph(tmp_path / "a.jpg", None, (12.25, -3.5))
    assert read_place(tmp_path / "a.jpg") == Place(pytest.approx(12.25), pytest.approx(-3.5))
    draw_photograph(tmp_path / "b.jpg", None, (95.0, 3.0))
    draw_photograph(tmp_path / "c.jpg", None)
    (tmp_path / "d.jpg").write_bytes(b"")
    assert [read_place(tmp_path / name) for name in ("b.jpg", "c.jpg", "d.jpg", "e.jpg")] == [None] * 4


@pytest.mark.parametrize("spread", [0.0, 1e-5, 0.5])
def test_the_map_has_north_up_and_every_place_inside(spread: float) -> None:
    corners = [Place(47 + spread, 8), Place(47, 8 + spread)]
    drawn = draw_map([Mark(place, f"<{k}>", (1, 2, 3)) for k, place in enumerate(corners)])
    (x0, y0), (x1, y1) = re.findall(r"cx='([\d.]+)' cy='([\d.]+)'", drawn)
    assert "&lt;0&gt;" in drawn
    assert float(x0) <= float(x1) <= 640
    assert float(y0) <= float(y1)
    assert (float(x0) < float(x1)) == bool(spread)


def test_a_mosaic_is_left_out_with_the_reason_since_it_has_a_scale_of_its_own(
    bridge: Path, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    write(tmp_path / "site" / "deck.tif", draw_deck(), crs="EPSG:32632", transform=PLACES["metres"][1])
    alone = run(tmp_path / "site", "--out", tmp_path / "report", "--mm-per-px", 0.2)
    assert alone.exit_code == 1
    assert "only orthomosaics" in str(alone.exception)
    shutil.copy(bridge / "slab.jpg", tmp_path / "site")
    result = run(tmp_path / "site", "--out", tmp_path / "report", "--mm-per-px", 0.2)
    assert result.exit_code == 3, result.output
    assert "deck.tif: an orthomosaic, with a scale of its own; `crackseg predict`" in result.stderr
    assert "report of 1 photographs" in result.stdout
