"""Cracks of an orthomosaic lie where they are on earth, and are as long as there; without seams, only where data is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from click.testing import CliRunner
from pyproj import Geod, Transformer

from crackseg.cli import cli
from crackseg.errors import CracksegError
from crackseg.geometry.scale import Scale
from crackseg.inspection.mosaic_prediction import EDGE_PX, NO_DATA, predict_rows
from crackseg.inspection.mosaic_reading import Mosaic
from tests.unit.inspection.drawn_mosaics import ENDS, PLACES, SIZE, draw_deck, inspect, make_analyzer, write


@pytest.mark.parametrize("place", PLACES)
def test_a_crack_lies_where_it_is_on_earth_and_is_as_long_as_there(place: str, tmp_path: Path) -> None:
    crs, transform = PLACES[place]
    path = write(tmp_path / "deck.tif", draw_deck(), crs=crs, transform=transform)
    summary = inspect(path, tmp_path / "out")
    assert summary.num_cracks == 1
    ends = np.array([transform @ tuple(end + 0.5) for end in ENDS])
    longitudes, latitudes = Transformer.from_crs(crs, 4326, always_xy=True).transform(*ends.T)
    geod = Geod(ellps="WGS84")
    length_mm = 1000 * geod.line_length(longitudes, latitudes)
    (feature,) = json.loads((tmp_path / "out" / "deck.geojson").read_text())["features"]
    properties, (line,) = feature["properties"], feature["geometry"]["coordinates"]
    assert properties["length_mm"] == pytest.approx(length_mm, rel=0.03)
    px_mm = properties["mm_per_px"]
    assert properties["mean_width_mm"] == pytest.approx(properties["mean_width_px"] * px_mm, rel=0.001)
    for end in (line[0], line[-1]):
        away = min(geod.inv(*end, x, y)[2] for x, y in zip(longitudes, latitudes, strict=True))
        assert away * 1000 < 3 * px_mm  # the pen's round end
    middle = np.mean([line[0], line[-1]], axis=0)
    true = Transformer.from_crs(crs, 4326, always_xy=True).transform(*ends.mean(axis=0))
    assert geod.inv(*middle, *true)[2] * 1000 < px_mm
    info = pyogrio.read_info(tmp_path / "out" / "deck.gpkg")
    assert (info["crs"], info["features"], info["geometry_type"]) == (crs, 1, "MultiLineString")
    assert info["total_bounds"] == pytest.approx([*ends.min(axis=0), *ends.max(axis=0)], abs=4 * transform.b or 1)


def test_the_mask_is_a_cloud_optimised_geotiff_of_the_same_place(tmp_path: Path) -> None:
    crs, transform = PLACES["rotated"]
    path = write(tmp_path / "deck.tif", draw_deck(), crs=crs, transform=transform)
    inspect(path, tmp_path / "out", make_analyzer(min_length_px=30), maps=True)
    with rasterio.open(tmp_path / "out" / "deck_mask.tif") as mask:
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert mask.crs.to_epsg() == 32632
        assert mask.transform.almost_equals(transform)
        found = mask.read(1)
    expected = draw_deck()[0] < 80
    expected[:30, 590:] = False  # the speck is shorter than the model's post-processing keeps
    assert np.array_equal(found == 1, expected)
    with rasterio.open(tmp_path / "out" / "deck_map.tif") as score:
        assert set(np.unique(score.read(1))) == {5, 250}  # the probabilities of -4 and 4, blended to the same


@pytest.mark.parametrize("how", ["alpha", "no-data value"])
def test_where_there_is_no_data_nothing_is_found_and_nothing_computed(how: str, tmp_path: Path) -> None:
    deck = draw_deck()
    deck[:, :, 300:] = 0  # as dark as a crack
    if how == "alpha":
        alpha = np.full((1, SIZE[1], SIZE[0]), 255, np.uint8)
        alpha[:, :, 300:] = 0
        profile: dict[str, Any] = {"photometric": "RGB", "alpha": "YES"}
        deck = np.concatenate([deck, alpha])
    else:
        profile = {"nodata": 0}
    path = write(tmp_path / "deck.tif", deck, crs="EPSG:32632", transform=PLACES["metres"][1], **profile)
    analyzer = make_analyzer()
    summary = inspect(path, tmp_path / "out", analyzer)
    assert summary.data_fraction == pytest.approx(300 / 640)
    with rasterio.open(tmp_path / "out" / "deck_mask.tif") as mask:
        found = mask.read(1)
    assert (found[:, 300:] == NO_DATA).all()
    assert not (found[:, 300 - EDGE_PX : 300] == 1).any()
    assert (found[:, :290] == 1).any()
    assert len(analyzer.predictor.tiles) == 4 * 2  # of 4 x 3 tiles


def test_a_map_is_the_blend_of_all_tiles_whatever_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "deck.tif", draw_deck(), crs="EPSG:32632", transform=PLACES["metres"][1])
    rows = list(predict_rows(Mosaic(path), make_analyzer()))
    assert [top for top, *_ in rows] == [0, 224, 448, 672]
    whole = np.concatenate([crack_prob for _, crack_prob, _, _ in rows])
    logits = np.where(draw_deck()[0] < 80, 4.0, -4.0)
    assert whole == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)


@pytest.mark.filterwarnings("error::rasterio.errors.NotGeoreferencedWarning")  # a user would see it
def test_a_mosaic_without_crs_is_measured_in_pixels_or_by_a_scale_and_this_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "deck.tif", draw_deck())
    summary = inspect(path, tmp_path / "out")
    assert (summary.unit, summary.num_cracks) == ("px", 1)
    assert summary.length == pytest.approx(np.hypot(500, 600), rel=0.03)
    assert any("no CRS" in remark for remark in summary.remarks)
    assert not (tmp_path / "out" / "deck.geojson").exists()
    scaled = inspect(path, tmp_path / "out", scale=Scale(0.5))
    assert (scaled.unit, scaled.length) == ("mm", pytest.approx(summary.length / 2, rel=0.001))


def test_values_of_16_bits_and_a_single_band_are_read_as_grey(tmp_path: Path) -> None:
    deck = draw_deck()[:1].astype(np.uint16) * 16
    path = write(tmp_path / "deck.tif", deck, crs="EPSG:32632", transform=PLACES["metres"][1])
    summary = inspect(path, tmp_path / "out")
    assert summary.num_cracks == 1
    assert any("full scale 4095" in remark for remark in summary.remarks)


def refuse(path: Path, out: Path, **options: Any) -> str:
    with pytest.raises(CracksegError) as refused:
        inspect(path, out, **options)
    assert not out.exists()
    return str(refused.value)


def test_mosaics_that_cannot_be_inspected_are_refused_with_what_to_do(tmp_path: Path) -> None:
    out, place = tmp_path / "out", {"crs": "EPSG:32632", "transform": PLACES["metres"][1]}
    deck = write(tmp_path / "deck.tif", draw_deck(), **place)
    assert "says 2.0" in refuse(deck, out, scale=Scale(5.0))
    five = write(
        tmp_path / "five.tif", np.concatenate([draw_deck(), draw_deck()[:2]]), photometric="MINISBLACK", **place
    )
    assert "--bands 3,2,1" in refuse(five, out)
    assert "has 5 bands" in refuse(five, out, bands=(9,))
    assert inspect(five, tmp_path / "named", bands=(3, 2, 1)).num_cracks == 1
    empty = write(tmp_path / "empty.tif", np.zeros((3, 64, 64), np.uint8), nodata=0, **place)
    assert "not one pixel has data" in refuse(empty, out)
    (tmp_path / "text.tif").write_text("no raster")
    assert "not a raster that can be read" in refuse(tmp_path / "text.tif", out)
    assert "no such file" in refuse(tmp_path / "none.tif", out)
    local = 'LOCAL_CS["site grid",UNIT["metre",1]]'
    grid = write(tmp_path / "grid.tif", draw_deck(), crs=local, transform=PLACES["metres"][1])
    summary = inspect(grid, tmp_path / "local")
    assert (summary.unit, summary.num_cracks) == ("mm", 1)
    assert any("the CRS site grid has no way to longitude and latitude" in remark for remark in summary.remarks)
    assert summary.length == pytest.approx(2 * np.hypot(500, 600), rel=0.03)
    with pytest.raises(CracksegError, match="works on whole maps"):
        inspect(deck, out, make_analyzer(method="thin"))


def test_the_shipped_model_finds_the_cracks_of_a_mosaic(tmp_path: Path) -> None:
    from crackseg.data.synthetic.scenes import render_scene

    scene = render_scene("CrackTree260", 0, size=(400, 300)).image.transpose(2, 0, 1)
    path = write(tmp_path / "deck.tif", scene, crs="EPSG:32632", transform=PLACES["metres"][1])
    arguments = ["mosaic", str(path), "--out", str(tmp_path / "out"), "--model", "scenes", "--surface", "pavement"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    features = json.loads((tmp_path / "out" / "deck.geojson").read_text())["features"]
    assert features
    assert {feature["properties"]["severity"] for feature in features} <= {"low", "medium", "high"}
