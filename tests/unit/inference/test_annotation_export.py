"""Predictions go to each annotation tool in each form, and an import of these files makes the same masks of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crackseg.data.images.files import encode_png, read_mask, write_mask
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.data.synthetic.scenes import render_scene
from crackseg.errors import CracksegError
from crackseg.files import write_bytes
from crackseg.geometry.centerlines import count_pieces
from crackseg.inference.annotation_export import export_annotations
from crackseg.inference.annotation_lines import MIN_IOU, draw_lines, fit_lines
from crackseg.inference.annotation_writers import WRITERS
from crackseg.inference.table import COLUMNS, write_table

SIZE = (180, 140)  # width, height


def draw_cases() -> dict[str, np.ndarray]:
    """Masks with cracks of every kind that is difficult for lines, by name."""
    scene = render_scene("CrackTree260", 7, size=SIZE).mask  # lines of 1 px that meet
    rng = np.random.default_rng(0)
    wide = cv2.dilate(render_scene("CRKWH100", 4, size=SIZE).mask, np.ones((3, 3), np.uint8))
    wide |= cv2.dilate(((rng.random(wide.shape) < 0.1) & (wide > 0)).astype(np.uint8), np.ones((2, 2), np.uint8))
    shapes = np.zeros(SIZE[::-1], np.uint8)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    shapes[np.abs(np.hypot(x - 90, y - 70) - 40) < 1.6] = 1  # a closed loop
    cv2.line(shapes, (90, 0), (90, 139), 1, 2)  # across it, from border to border, of an even width
    shapes[0:2, 100:] = 1  # along the border
    shapes[139, :60] = 1
    shapes[70, 5] = 1  # a dot
    shapes[100, 20], shapes[101, 21] = 1, 1  # two pixels that touch at a corner
    cv2.line(shapes, (0, 10), (179, 61), 1, 1)
    return {"scene": scene, "wide": wide, "shapes": shapes, "none": np.zeros_like(shapes)}


def write_predictions(folder: Path, masks: dict[str, np.ndarray]) -> None:
    rows = []
    for number, (name, mask) in enumerate(masks.items()):
        picture = np.random.default_rng(number).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
        write_bytes(folder / "photos" / f"{name}.png", encode_png(picture))
        write_mask(folder / "found" / "masks" / f"{name}.png", mask)
        image = str(folder / "photos" / f"{name}.png")
        rows.append(dict.fromkeys(COLUMNS, "0") | {"image": image, "mask": f"masks/{name}.png", "error": ""})
    write_table(folder / "found" / "predictions.csv", rows)


def bring_in(folder: Path) -> ImportSummary:
    (summary,) = import_datasets(folder / "out", folder / "data", name="BRIDGE", split_counts=(1, 0, 0))
    return summary


@pytest.mark.parametrize(("form", "shapes"), list(WRITERS))
def test_what_a_tool_gets_comes_back_as_the_same_masks(tmp_path: Path, form: str, shapes: str) -> None:
    masks = draw_cases()
    write_predictions(tmp_path, masks)
    num_images, num_shapes = export_annotations(tmp_path / "found", tmp_path / "out", form, shapes)
    assert num_images == len(masks)
    assert num_shapes >= sum(count_pieces(mask) for mask in masks.values())
    summary = bring_in(tmp_path)
    assert summary.num_crack_free == 1
    assert not any("without a width" in line for line in summary.account.to_lines())
    for name, mask in masks.items():
        back = read_mask(tmp_path / "data" / "BRIDGE" / "masks" / f"{name}.png")
        assert count_pieces(back) == count_pieces(mask)
        if shapes != "lines" or form == "coco" or not mask.any():
            np.testing.assert_array_equal(back, mask)
        else:
            assert (back & mask).sum() / (back | mask).sum() >= 0.99


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 1)))
@settings(deadline=None, max_examples=60)
def test_lines_of_any_crack_stay_within_it_and_do_not_break(mask: np.ndarray) -> None:
    num, piece = cv2.connectedComponents(mask, connectivity=8)
    for number in range(1, num):
        crack = (piece == number).astype(np.uint8)
        drawn = draw_lines(fit_lines(crack), (crack.shape[0], crack.shape[1]))
        assert not (drawn > crack).any()
        assert count_pieces(drawn) == 1
        assert drawn.sum() >= MIN_IOU * crack.sum()


def test_a_crack_is_a_line_for_each_branch_and_not_a_heap_of_dots() -> None:
    y, x = np.mgrid[:140, :180]
    crack = (np.abs(y - 70 - 20 * np.sin(x / 25)) < 1.5 + x / 90).astype(np.uint8)  # 3 px, growing to 7
    lines = fit_lines(crack)
    longest = max(lines, key=lambda line: len(line.points))
    assert np.hypot(*np.diff(longest.points, axis=0).T).sum() > 170
    assert longest.widths_px.min() < 3.5
    assert longest.widths_px.max() > 5
    assert len(lines) <= 12


def test_a_point_added_in_the_tool_has_the_width_around_it(tmp_path: Path) -> None:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[60:63, 20:90] = 1
    mask[59:65, 90:160] = 1
    write_predictions(tmp_path, {"7": mask})
    export_annotations(tmp_path / "found", tmp_path / "out", "labelme", "lines")
    path = tmp_path / "out" / "images" / "7.json"
    content = json.loads(path.read_text())
    line = max(content["shapes"], key=lambda shape: len(shape["points"]))
    line["points"].append([175.0, 62.0])  # the person saw that the crack is longer
    path.write_text(json.dumps(content))
    bring_in(tmp_path)
    back = read_mask(tmp_path / "data" / "BRIDGE" / "masks" / "7.png")
    assert back[62, 160:174].all()
    assert 3 <= back[:, 168].sum() <= 7


def test_cvat_can_store_the_widths(tmp_path: Path) -> None:
    wave = np.zeros((60, 900), np.uint8)
    x = np.arange(900)
    for offset in range(3):
        wave[(28 + 15 * np.sin(x / 9) + offset).astype(int), x] = 1
    write_predictions(tmp_path, {"7": cv2.dilate(wave, np.ones((3, 1), np.uint8))})
    export_annotations(tmp_path / "found", tmp_path / "out", "cvat", "lines")
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    texts = [e.text or "" for e in root.iterfind("image//attribute")]
    assert texts
    assert max(map(len, texts)) <= 4096  # characters of an attribute's value in its database
    (label,) = json.loads((tmp_path / "out" / "cvat-labels.json").read_text())
    names = {e.get("name") for e in root.iterfind("image//attribute")}
    assert names <= {attribute["name"] for attribute in label["attributes"]}
    # Datumaro reads no file that does not declare its labels.
    assert [e.text for e in root.iterfind("meta/task/labels/label/name")] == ["crack"]
    assert names <= {e.text for e in root.iterfind("meta//attribute/name")}


def test_coco_keeps_lines_as_an_attribute_of_the_polygon(tmp_path: Path) -> None:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[60:63, 20:90] = 1
    write_predictions(tmp_path, {"7": mask})
    assert export_annotations(tmp_path / "found", tmp_path / "out", "coco", "lines") == (1, 1)
    (annotation,) = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    (line,) = annotation["attributes"]["centerlines"]
    assert line["points"][0][1] == line["points"][-1][1] == 61.5
    assert line["width_px"] == pytest.approx(3, abs=1)


@pytest.mark.parametrize(("form", "shapes"), [("labelstudio", "lines"), ("coco", "masks")])
def test_a_form_that_a_tool_does_not_have_is_refused(tmp_path: Path, form: str, shapes: str) -> None:
    write_predictions(tmp_path, {"7": np.ones((4, 4), np.uint8)})
    with pytest.raises(CracksegError, match=f"{form} cannot hold cracks as {shapes}; expected one of"):
        export_annotations(tmp_path / "found", tmp_path / "out", form, shapes)
    assert not (tmp_path / "out").exists()


def test_an_error_half_way_leaves_nothing_and_the_same_command_works_once_it_is_mended(tmp_path: Path) -> None:
    masks = draw_cases()
    write_predictions(tmp_path, masks)
    *_, last = sorted((tmp_path / "photos").iterdir())
    photograph = last.read_bytes()
    write_bytes(last, encode_png(np.zeros((10, 10, 3), np.uint8)))
    for form in ("labelme", "labelstudio"):
        with pytest.raises(CracksegError, match="10 x 10 pixels, unlike its mask"):
            export_annotations(tmp_path / "found", tmp_path / "out", form)
        assert {path.name for path in tmp_path.iterdir()} == {"photos", "found"}
    write_bytes(last, photograph)
    (tmp_path / "out").mkdir()
    assert export_annotations(tmp_path / "found", tmp_path / "out", "labelstudio")[0] == len(masks)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "found", "out"}
    assert "?d=out/images/" in (tmp_path / "out" / "tasks.json").read_text(encoding="utf-8")


def test_a_row_that_was_cut_short_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_predictions(tmp_path, draw_cases())
    table = tmp_path / "found" / "predictions.csv"
    table.write_text(table.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert export_annotations(tmp_path / "found", tmp_path / "out", "coco")[0] == 3
    assert "1 row cut short, and left out; predict again" in caplog.text
