"""The table of cracks and the downloads: of the threshold that was asked for, in the unit that was asked for."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from crackseg.data.images.files import decode_image, read_probability_map, write_png, write_probability_map
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE
from crackseg.serving.page.findings import FORMS, Findings, measure_findings, pack_all, write_forms
from crackseg.serving.page.inspection import Inspection

OWN = 0.4


@pytest.fixture
def inspection(tmp_path: Path) -> Inspection:
    """A crack of 200 x 4 px that is sure, and one of 60 x 2 px that is less so."""
    crack_prob = np.zeros((300, 400), np.float32)
    crack_prob[50:54, 20:220] = 0.9
    crack_prob[200:260, 300:302] = 0.5
    np.save(tmp_path / "map.npy", crack_prob)
    write_probability_map(tmp_path / "map.png", crack_prob)
    write_png(tmp_path / "deck.png", np.full((300, 400, 3), 150, np.uint8))
    return Inspection(
        name="deck.png", image_path=tmp_path / "deck.png", map_path=tmp_path / "map.npy", operating_threshold=OWN,
        values={}, unusual=(),
    )  # fmt: skip


def measure(inspection: Inspection, threshold: float = OWN, scale: Scale | None = None) -> Findings:
    return measure_findings(inspection, threshold, scale)


def write(found: Findings) -> dict[str, Path]:
    return dict(write_forms(found, found.inspection.map_path.parent / "files"))


def test_the_threshold_decides_what_is_found(inspection: Inspection) -> None:
    for threshold, count in ((OWN, 2), (0.6, 1), (0.95, 0)):
        findings = measure(inspection, threshold)
        files, summary, table = write(findings), findings.summarize(), findings.show_table()
        mask = cv2.imread(str(files["mask"]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, inspection.find_cracks(threshold) * np.uint8(255))
        assert len(pd.read_csv(files["csv"])) == count
        assert f"{count} crack" in summary
        assert f"{threshold:g}" in summary
        assert table.count("<tr>") == (count + 1 if count else 0)
    assert "No crack" in table


def test_lengths_and_widths_are_those_of_what_was_drawn(inspection: Inspection) -> None:
    table = pd.read_csv(write(measure(inspection))["csv"])
    assert table.length_px.tolist() == pytest.approx([200, 60], rel=0.03)
    assert table.mean_width_px.tolist() == pytest.approx([4, 2], abs=0.5)
    assert table.max_width_px.tolist() == pytest.approx([4, 2], abs=1)


def test_a_scale_gives_millimetres(inspection: Inspection) -> None:
    findings = measure(inspection, scale=Scale(0.25, 0.02))
    table = pd.read_csv(write(findings)["csv"])
    assert table.length_mm.tolist() == pytest.approx([50, 15], rel=0.03)
    assert "mm" in findings.show_table()
    assert "0.25 mm per pixel ± 2 %" in findings.summarize()
    assert "14.8 ± 0.3" in findings.show_table()
    assert "fine (0.2 to 0.3 mm)" in findings.summarize()  # the legend
    assert "No width classes" in measure(inspection).summarize()
    assert "mm" not in measure(inspection).show_table()


def test_the_picture_has_the_colours_of_the_legend_where_it_counts_them(inspection: Inspection) -> None:
    crack_prob = np.load(inspection.map_path)
    crack_prob[48:57, 120:220] = 0.9  # half of the first crack is 9 px wide
    np.save(inspection.map_path, crack_prob)
    shown = cv2.imdecode(np.frombuffer(measure(inspection, scale=Scale(0.25)).draw_cracks(), np.uint8), -1)
    moderate, wide = (OF_CONCRETE.colours()[k] for k in (2, 3))
    for place, colour in (((52, 60), moderate), ((52, 180), wide), ((230, 300), moderate)):
        assert shown[place].tolist() == [*colour[::-1], 255]


def test_the_annotated_picture_shows_the_cracks_large_enough_to_read(inspection: Inspection) -> None:
    picture = decode_image(write(measure(inspection))["picture"].read_bytes()).astype(int)
    width = picture.shape[1]
    height = round(width * 300 / 400)  # of the photograph; a line of words stands below it
    assert width >= 1000
    assert height < picture.shape[0] < 1.1 * height
    colourful = np.ptp(picture, axis=2) > 60
    assert colourful[round(height * 52 / 300), round(width * 120 / 400)]  # on the crack
    assert not colourful[round(height * 150 / 300), round(width * 120 / 400)]  # beside it


def test_every_form_is_written_under_the_photographs_name(inspection: Inspection) -> None:
    files = write(measure(inspection, scale=Scale(0.25)))
    assert set(files) == set(FORMS)
    assert all(path.name.startswith("deck_") and path.is_file() for path in files.values())
    assert len({path.name for path in files.values()}) == len(FORMS)
    lines = json.loads(files["lines"].read_text())["features"]
    assert [feature["properties"]["length_mm"] for feature in lines] == pytest.approx([50, 15], rel=0.03)
    assert len(json.loads(files["json"].read_text())["cracks"]) == 2
    assert np.abs(read_probability_map(files["map"]) - np.load(inspection.map_path)).max() < 1e-4
    red = decode_image(files["overlay"].read_bytes())[52, 120].astype(int)
    assert red[0] > red[1] + 60


def test_the_archive_has_all_forms_of_all_photographs_also_of_two_with_one_name(
    inspection: Inspection, tmp_path: Path
) -> None:
    *steps, path = pack_all({"deck.png": inspection, "deck.png (2)": inspection}, OWN, None, tmp_path / "pack")
    assert steps == [None, None]
    assert path
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert len(set(names)) == 2 * len(FORMS)
    assert {"deck.png/deck_mask.png", "deck.png (2)/deck_mask.png"} <= set(names)
