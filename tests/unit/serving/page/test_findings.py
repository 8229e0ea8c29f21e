"""The table of cracks and the downloads: of the threshold that was asked for, in the unit that was asked for."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from crackseg.data.images.files import decode_image, write_png
from crackseg.errors import CracksegError
from crackseg.serving.page.findings import Findings, measure_findings, parse_scale
from crackseg.serving.page.inspection import Inspection

OWN = 0.4


@pytest.fixture
def inspection(tmp_path: Path) -> Inspection:
    """A crack of 200 x 4 px that is sure, and one of 60 x 2 px that is less so."""
    crack_prob = np.zeros((300, 400), np.float32)
    crack_prob[50:54, 20:220] = 0.9
    crack_prob[200:260, 300:302] = 0.5
    np.save(tmp_path / "map.npy", crack_prob)
    write_png(tmp_path / "deck.png", np.full((300, 400, 3), 150, np.uint8))
    return Inspection(
        name="deck.png", image_path=tmp_path / "deck.png", map_path=tmp_path / "map.npy", operating_threshold=OWN,
        values={}, unusual=(), view=b"", heat=b"",
    )  # fmt: skip


def measure(inspection: Inspection, threshold: float = OWN, mm_per_px: float | None = None) -> Findings:
    return measure_findings(inspection, threshold, mm_per_px, inspection.map_path.parent / "files")


def test_the_threshold_decides_what_is_found(inspection: Inspection) -> None:
    for threshold, count in ((OWN, 2), (0.6, 1), (0.95, 0)):
        findings = measure(inspection, threshold)
        mask_path, table_path, _ = findings.files
        mask = cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, inspection.find_cracks(threshold) * np.uint8(255))
        assert len(pd.read_csv(table_path)) == count
        assert f"{count} crack" in findings.summary
        assert f"{threshold:g}" in findings.summary
        assert findings.table.count("<tr>") == (count + 1 if count else 0)
    assert "No crack" in findings.table


def test_lengths_and_widths_are_those_of_what_was_drawn(inspection: Inspection) -> None:
    table = pd.read_csv(measure(inspection).files[1])
    assert table.length_px.tolist() == pytest.approx([200, 60], rel=0.03)
    assert table.mean_width_px.tolist() == pytest.approx([4, 2], abs=0.5)
    assert table.max_width_px.tolist() == pytest.approx([4, 2], abs=1)


def test_a_scale_gives_millimetres(inspection: Inspection) -> None:
    findings = measure(inspection, mm_per_px=0.25)
    table = pd.read_csv(findings.files[1])
    assert table.length_mm.tolist() == pytest.approx([50, 15], rel=0.03)
    assert "mm" in findings.table
    assert "mm" in findings.summary
    assert "mm" not in measure(inspection).table


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "half", "0,5 mm"])
def test_a_scale_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CracksegError, match=r"the scale is .*expected millimetres per pixel, over 0"):
        parse_scale(text)


@pytest.mark.parametrize(("text", "scale"), [("", None), (" ", None), ("0.5", 0.5), (" 0,25 ", 0.25), ("2", 2)])
def test_a_scale_has_a_point_or_a_comma(text: str, scale: float | None) -> None:
    assert parse_scale(text) == scale


def test_the_annotated_picture_shows_the_cracks_large_enough_to_read(inspection: Inspection) -> None:
    picture = decode_image(measure(inspection).files[2].read_bytes()).astype(int)
    width = picture.shape[1]
    height = round(width * 300 / 400)  # of the photograph; a line of words stands below it
    assert width >= 1000
    assert height < picture.shape[0] < 1.1 * height
    colourful = np.ptp(picture, axis=2) > 60
    assert colourful[round(height * 52 / 300), round(width * 120 / 400)]  # on the crack
    assert not colourful[round(height * 150 / 300), round(width * 120 / 400)]  # beside it


def test_files_bear_the_photographs_name(inspection: Inspection) -> None:
    names = [path.name for path in measure(inspection).files]
    assert all(name.startswith("deck_") for name in names)
    assert len(set(names)) == 3
