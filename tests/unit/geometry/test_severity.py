"""A crack's kind and class are those of what was drawn; without a scale there is no class."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from crackseg.cli import cli
from crackseg.data.images.files import decode_image, write_mask
from crackseg.geometry.cells import find_cells, find_kind
from crackseg.geometry.components import Crack, measure_mask
from crackseg.geometry.picture import choose_colours, draw_measurement
from crackseg.geometry.report import describe
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import OF_CONCRETE, Grading, grade_crack
from crackseg.params.width_classes import WIDTH_CLASSES, WidthClass
from tests.unit.geometry.drawing import direction, draw_bar, draw_polyline

ON_PAVEMENT = Grading("pavement", WIDTH_CLASSES["pavement"])


def draw_network(cell_px: int, cells: int, width: int = 3) -> np.ndarray:
    """A grid of square cells with a tail that leads out of it and one that leads into a cell."""
    side = cell_px * cells
    mask = np.zeros((side + 80, side + 80), np.uint8)
    for k in range(cells + 1):
        at = 40 + k * cell_px
        cv2.line(mask, (40, at), (40 + side, at), 1, width)
        cv2.line(mask, (at, 40), (at, 40 + side), 1, width)
    cv2.line(mask, (10, 10), (40, 40), 1, width)
    cv2.line(mask, (40, 40), (40 + cell_px // 2, 40 + cell_px // 2), 1, width)
    return mask.astype(bool)


def only_crack(mask: np.ndarray) -> Crack:
    (crack,) = measure_mask(mask).cracks
    return crack


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_cells_are_counted_with_their_areas(cells: int) -> None:
    found = find_cells(only_crack(draw_network(60, cells)))
    assert len(found.areas_px) == cells**2
    assert found.areas_px == pytest.approx([3600] * cells**2, rel=0.06)
    assert found.length_px == pytest.approx(2 * cells * (cells + 1) * 60, rel=0.06)


def test_a_ring_is_one_cell_and_a_tree_none() -> None:
    y, x = np.mgrid[:160, :160]
    ring = abs(np.hypot(x - 80, y - 80) - 50) <= 2
    assert find_cells(only_crack(ring)).areas_px == pytest.approx([np.pi * 50**2], rel=0.02)
    tree = draw_bar((120, 120), 180, 3, 20) | draw_bar((120, 120), 180, 3, 80)
    assert find_cells(only_crack(tree)).areas_px == ()


@pytest.mark.parametrize(
    ("degrees", "kind"),
    [
        (90, "longitudinal"), (72, "longitudinal"), (108, "longitudinal"), (60, "diagonal"), (130, "diagonal"),
        (0, "transverse"), (20, "transverse"), (165, "transverse"),
    ],
)  # fmt: skip
def test_kind_follows_from_the_direction(degrees: float, kind: str) -> None:
    crack = only_crack(draw_bar((120, 120), 180, 3, degrees))
    assert find_kind(crack, find_cells(crack), 90) == kind
    turned = only_crack(draw_bar((120, 120), 180, 3, (degrees + 90) % 180))
    assert find_kind(turned, find_cells(turned), 0) == kind


def test_a_network_is_map_cracking_and_a_branched_crack_is_not() -> None:
    network = only_crack(draw_network(60, 3))
    assert grade_crack(network, OF_CONCRETE, None).kind == "map"
    middle = np.array([120.0, 120.0])
    branched = draw_polyline(np.array([middle - 100 * direction(45), middle + 100 * direction(45)]), 3)
    branched |= draw_polyline(np.array([middle, middle + 60 * direction(80)]), 3)
    assert grade_crack(only_crack(branched), OF_CONCRETE, None).kind == "diagonal"


@pytest.mark.parametrize(
    ("mm_per_px", "kind", "severity"),
    [(0.5, "alligator", "high"), (2.5, "alligator", "medium"), (4, "alligator", "low"), (10, "block", "medium")],
)
def test_networks_on_pavement_are_named_and_graded_by_the_size_of_their_cells(
    mm_per_px: float, kind: str, severity: str
) -> None:
    grade = grade_crack(only_crack(draw_network(60, 3)), ON_PAVEMENT, Scale(mm_per_px))
    assert (grade.kind, grade.severity) == (kind, severity)
    assert grade.cells_per_m2 == pytest.approx(1e6 / (60 * mm_per_px) ** 2, rel=0.06)


@pytest.mark.parametrize(
    ("mm_per_px", "severity", "severity_range"),
    [
        (0.02, "hairline", "hairline"), (0.07, "fine", "fine to moderate"), (0.2, "moderate", "moderate"),
        (0.4, "wide", "wide"),
    ],
)  # fmt: skip
def test_class_follows_from_the_width_and_says_where_half_a_pixel_leaves_it_open(
    mm_per_px: float, severity: str, severity_range: str
) -> None:
    measurement = measure_mask(draw_bar((120.3, 119.5), 180, 4, 0))
    (crack,) = describe(measurement, "a", Scale(mm_per_px))["cracks"]
    assert (crack["severity"], crack["severity_range"]) == (severity, severity_range)
    assert crack["max_width_uncertainty_mm"] == pytest.approx(mm_per_px / 2, abs=0.001)


def test_the_scales_uncertainty_is_added_to_that_of_the_pixels() -> None:
    measurement = measure_mask(draw_bar((120.3, 119.5), 180, 4, 0))
    (crack,) = describe(measurement, "a", Scale(0.5, relative_error=0.1))["cracks"]
    assert crack["length_uncertainty_mm"] == pytest.approx(np.hypot(18, np.sqrt(0.5)) / 2, rel=0.03)
    assert crack["mean_width_uncertainty_mm"] == pytest.approx(np.hypot(0.4, 0.5) / 2, rel=0.1)


def test_each_width_class_has_its_part_of_a_cracks_length() -> None:
    mask = draw_bar((70, 120), 100, 3, 0) | draw_bar((170, 120), 100, 9, 0)
    totals = describe(measure_mask(mask), "a", Scale(0.2))["totals"]
    lengths = {row["severity"]: row["length_mm"] for row in totals["classes"]}
    assert lengths["hairline"] == lengths["fine"] == 0
    assert lengths["moderate"] == pytest.approx(20, abs=1.5)
    assert lengths["wide"] == pytest.approx(20, abs=1.5)
    assert sum(lengths.values()) == pytest.approx(totals["length_mm"], rel=0.001)
    assert [row["num_cracks"] for row in totals["classes"]] == [0, 0, 0, 1]
    assert totals["severity"] == "wide"


def test_cracks_have_the_colour_of_their_class_and_a_legend() -> None:
    measurement = measure_mask(draw_bar((120, 120), 180, 6, 0))
    plain = decode_image(draw_measurement(measurement)).astype(int)
    graded = decode_image(draw_measurement(measurement, scale=Scale(0.5))).astype(int)
    side = graded.shape[1]
    at = graded[round(side * 120.5 / 240), round(side * 60 / 240)]
    assert abs(at - OF_CONCRETE.colours()[-1]).max() < 30
    assert len(graded) > len(plain)  # the legend
    for colour in OF_CONCRETE.colours():
        assert (abs(graded[len(plain) :] - colour).max(axis=2) < 30).any()


def test_a_crack_is_coloured_as_the_legend_counts_it_by_the_width_at_each_place() -> None:
    mask = draw_bar((70, 120), 100, 3, 0) | draw_bar((170, 120), 100, 9, 0)  # one crack, of class wide
    measurement, scale = measure_mask(mask), Scale(0.2)
    _, of_lines = choose_colours(measurement, scale, OF_CONCRETE)
    colours = np.concatenate(of_lines)
    totals = describe(measurement, "a", scale)["totals"]
    for row, colour in zip(totals["classes"], OF_CONCRETE.colours(), strict=True):
        part = (colours == colour).all(axis=1).mean()
        assert part == pytest.approx(row["length_mm"] / totals["length_mm"], abs=0.001)
    picture = decode_image(draw_measurement(measurement, scale=scale)).astype(int)
    side = picture.shape[1]
    for x, name in ((60, "moderate"), (190, "wide")):
        at = picture[round(side * 120.5 / 240), round(side * x / 240)]
        colour = OF_CONCRETE.colours()[[each.name for each in OF_CONCRETE.classes].index(name)]
        assert abs(at - colour).max() < 12


@pytest.mark.parametrize("count", range(1, 7))
def test_any_number_of_classes_has_as_many_colours(count: int) -> None:
    classes = tuple(
        WidthClass(name=str(k), from_mm=float(k), to_mm=None if k == count - 1 else k + 1.0) for k in range(count)
    )
    assert len(set(Grading("concrete", classes).colours())) == count


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["measure", *map(str, arguments)])


def test_without_a_scale_there_is_a_kind_but_no_class_and_it_is_said(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.png", draw_bar((120, 120), 180, 4, 90))
    result = run(tmp_path / "a.png", "--json")
    (report,) = json.loads(result.stdout)
    assert report["cracks"][0]["kind"] == "longitudinal"
    assert report["cracks"][0]["severity"] is None
    assert report["totals"]["classes"] is None
    assert "no millimetres and so no width classes" in run(tmp_path / "a.png").stderr


def test_another_surface_measures_again_and_is_in_the_table_of_classes(tmp_path: Path) -> None:
    write_mask(tmp_path / "a.png", draw_bar((120, 120), 180, 4, 90))
    out = tmp_path / "out"
    for surface, names in (
        ("concrete", ["hairline", "fine", "moderate", "wide"]),
        ("pavement", ["low", "medium"]),
    ):
        result = run(tmp_path / "a.png", "--mm-per-px", 2.6, "--surface", surface, "--out", out)
        assert result.exit_code == 0, result.output
        table = (out / "crack_classes.csv").read_text()
        assert all(f",{name}," in table for name in names)
    assert ",hairline," not in table
    said = run(tmp_path / "a.png", "--mm-per-px", 2.6, "--surface", "pavement").stdout
    (length_mm,) = re.findall(r"medium ([\d.]+) mm", said)
    # Which pixels a bar has differs between processors.
    assert float(length_mm) == pytest.approx(180 * 2.6, rel=0.01)
