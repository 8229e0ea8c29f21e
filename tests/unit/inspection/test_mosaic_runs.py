"""Mosaics among photographs are known; a stopped run resumes with the same answer; failures leave no trace."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from PIL import Image

from crackseg.cli import cli
from crackseg.data.synthetic.scenes import render_scene
from crackseg.errors import CracksegError
from crackseg.inspection import mosaic_checks, mosaic_reading
from crackseg.inspection.mosaic_detection import is_mosaic
from tests.unit.inspection.drawn_mosaics import PLACES, DarkIsCrack, draw_deck, inspect, make_analyzer, write

PLACE: dict[str, Any] = {"crs": "EPSG:32632", "transform": PLACES["metres"][1]}
OUTPUTS = {"deck.csv", "deck.geojson", "deck.gpkg", "deck.json", "deck_mask.tif"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}])
def test_a_tiff_with_a_place_on_earth_is_a_mosaic(options: dict[str, str], tmp_path: Path) -> None:
    assert is_mosaic(write(tmp_path / "deck.tif", draw_deck(), **PLACE, **options))
    assert not is_mosaic(write(tmp_path / "plain.tif", draw_deck(), **options))


def test_a_tiff_of_more_pixels_than_a_photograph_may_have_is_a_mosaic(tmp_path: Path) -> None:
    sizes = {"width": 20_000, "height": 20_000, "count": 1, "dtype": "uint8", "sparse_ok": True}
    with rasterio.open(tmp_path / "large.tif", "w", driver="GTiff", **sizes):
        pass
    assert is_mosaic(tmp_path / "large.tif")


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II+\0" + b"\xff" * 12, b"hello, all"]
)
def test_what_is_no_tiff_or_a_damaged_one_is_no_mosaic(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.tif").write_bytes(content)
    assert not is_mosaic(tmp_path / "odd.tif")
    assert not is_mosaic(tmp_path)
    assert not is_mosaic(tmp_path / "none.tif")


class Stops(DarkIsCrack):
    """Is stopped when it has predicted so many tiles."""

    most = 7  # of 12, in the third of four rows

    def predict_logits_of(self, tiles: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for logits in super().predict_logits_of(tiles):
            if len(self.tiles) > self.most:
                raise KeyboardInterrupt
            yield logits


def test_a_run_that_was_stopped_resumes_with_the_same_answer_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "crackseg")
    path, out = write(tmp_path / "deck.tif", draw_deck(), **PLACE), tmp_path / "out"
    analyzer = make_analyzer()
    analyzer.predictor = Stops()
    with pytest.raises(KeyboardInterrupt, match="stopped after 2 of 4 rows of tiles"):
        inspect(path, out, analyzer)
    assert names(out) == {".deck.part"}
    analyzer.predictor = DarkIsCrack()
    summary = inspect(path, out, analyzer)
    assert len(analyzer.predictor.tiles) == 3 * 3  # the last known row reaches into the next one
    assert "2 of 4 rows of tiles are kept" in caplog.text
    assert not any("kept" in remark for remark in summary.remarks)  # they are of the mosaic, not of this run
    assert names(out) == OUTPUTS
    inspect(path, tmp_path / "whole")
    with rasterio.open(out / "deck_mask.tif") as one, rasterio.open(tmp_path / "whole" / "deck_mask.tif") as other:
        assert np.array_equal(one.read(1), other.read(1))
    assert (out / "deck.csv").read_bytes() == (tmp_path / "whole" / "deck.csv").read_bytes()


def test_rows_of_another_threshold_or_model_are_not_kept(tmp_path: Path) -> None:
    path, out = write(tmp_path / "deck.tif", draw_deck(), **PLACE), tmp_path / "out"
    for change in ({"threshold": 0.4}, {"model": "another"}):
        analyzer = make_analyzer()
        analyzer.predictor = Stops()
        with pytest.raises(KeyboardInterrupt):
            inspect(path, out, analyzer)
        analyzer.predictor = DarkIsCrack()
        inspect(path, out, analyzer, **change)
        assert len(analyzer.predictor.tiles) == 4 * 3


def test_a_finished_mosaic_is_kept_until_an_option_or_the_file_changes(tmp_path: Path) -> None:
    path, out = write(tmp_path / "deck.tif", draw_deck(), **PLACE), tmp_path / "out"
    inspect(path, out)
    analyzer = make_analyzer()
    assert inspect(path, out, analyzer).kept
    assert not analyzer.predictor.tiles
    assert not inspect(path, out, analyzer, maps=True).kept
    assert (out / "deck_map.tif").is_file()
    assert not inspect(path, out).kept
    assert names(out) == OUTPUTS  # a map of the former run would be of other options
    (out / "deck.gpkg").unlink()
    assert not inspect(path, out).kept
    os.utime(path, (1, 1))
    assert not inspect(path, out).kept


def test_a_mosaic_that_is_cut_short_is_named_and_leaves_no_result(tmp_path: Path) -> None:
    path, out = (
        write(tmp_path / "deck.tif", draw_deck(), **PLACE, compress="deflate", blockysize=16),
        tmp_path / "out",
    )
    content = path.read_bytes()
    path.write_bytes(content[:2000] + b"\0" * (len(content) - 2000))
    with pytest.raises(CracksegError, match=r"deck\.tif.*cannot be read"):
        inspect(path, out)
    assert not out.exists() or not names(out) & OUTPUTS


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["predict", *map(str, arguments), "--model", "scenes"])


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    """A folder with a photograph and a mosaic."""
    scene = render_scene("CrackTree260", 0, size=(400, 300)).image
    folder = tmp_path / "survey"
    folder.mkdir()
    Image.fromarray(scene).save(folder / "pier.jpg")
    write(folder / "deck.tif", scene.transpose(2, 0, 1), **PLACE)
    return folder


def test_predict_finds_the_mosaic_among_photographs(survey: Path, tmp_path: Path) -> None:
    out = survey / "found"
    for kept in (False, True):  # results in the folder itself are no photographs of the next run
        result = predict(survey, "--out", out, "--surface", "pavement", "--json")
        assert result.exit_code == 0, result.output
        assert "--surface pavement counts for the mosaics only" in result.stderr
        report = json.loads(result.stdout)
        (mosaic,) = report["mosaics"]["summaries"]
        assert (report["num_images"], mosaic["name"], mosaic["kept"]) == (1, "deck", kept)
    assert names(out / "mosaics") == OUTPUTS
    assert names(out / "masks") == {"pier.png"}
    features = json.loads((out / "mosaics" / "deck.geojson").read_text())["features"]
    assert features
    assert {feature["properties"]["severity"] for feature in features} <= {"low", "medium", "high"}


def test_a_scale_that_contradicts_the_mosaics_is_refused(survey: Path, tmp_path: Path) -> None:
    result = predict(survey / "deck.tif", "--out", tmp_path / "out", "--mm-per-px", 5)
    assert result.exit_code == 1
    assert re.search("the scale is 5 mm per pixel, but .* says 2.0", str(result.exception))
    assert not (tmp_path / "out").exists()
    both = predict(survey, "--out", tmp_path / "out", "--mm-per-px", 5)
    assert both.exit_code == 3  # the photograph has its result
    assert "left out: the scale is 5 mm" in both.stderr
    assert "--mm-per-px counts for the mosaics only" in both.stderr  # the photograph is not measured


def test_without_the_libraries_a_mosaic_is_a_plain_photograph_and_this_is_said(
    survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosaic_reading, "find_spec", lambda name: None)
    result = predict(survey / "deck.tif", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "1 mosaic read as plain photographs" in result.stderr
    assert "pip install 'crackseg[geo]'" in result.stderr
    assert (tmp_path / "out" / "masks" / "deck.png").is_file()


def test_bands_without_a_mosaic_are_refused(survey: Path, tmp_path: Path) -> None:
    result = predict(survey / "pier.jpg", "--out", tmp_path / "out", "--bands", "1,2,3")
    assert result.exit_code == 1
    assert "--bands 1,2,3 is for mosaics" in str(result.exception)


def test_drift_of_mosaics_alone_is_refused_before_the_work(survey: Path, tmp_path: Path) -> None:
    result = predict(survey / "deck.tif", "--out", tmp_path / "out", "--report-drift")
    assert result.exit_code == 1
    assert "--report-drift compares photographs" in str(result.exception)
    assert not (tmp_path / "out").exists()


def cut_short(path: Path) -> None:
    """What GDAL leaves of a file on a full disk, without an error."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("written", "result"),
    [
        ("mask.tif", "deck_mask.tif"),
        ("mask.cog.tif", "deck_mask.tif"),
        ("score.cog.tif", "deck_map.tif"),
        ("cracks.gpkg", "deck.gpkg"),
    ],
)
def test_a_file_that_a_full_disk_cut_short_is_no_result_and_the_same_command_makes_it(
    written: str, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write(tmp_path / "deck.tif", draw_deck()), tmp_path / "out"
    inspect(path, out, maps=True)
    earlier = (out / result).read_bytes()
    original_raster, original_connect = mosaic_checks.crc_of, sqlite3.connect

    def crc_of(checked: Path) -> int:
        if checked.name == written:
            cut_short(checked)
        return original_raster(checked)

    def connect(address: str, **options: object) -> sqlite3.Connection:
        if written in address:
            cut_short(Path(address.removeprefix("file://").removesuffix("?mode=ro")))
        return original_connect(address, **options)

    with monkeypatch.context() as patch:
        patch.setattr(mosaic_checks, "crc_of", crc_of)
        patch.setattr(sqlite3, "connect", connect)
        with pytest.raises(CracksegError, match=r"could not be written whole .*Make room, and the same command"):
            inspect(path, out, maps=True, threshold=0.4)
    assert not (out / "deck.json").exists()
    assert (out / result).read_bytes() == earlier
    again = inspect(path, out, maps=True, threshold=0.4)
    assert not again.kept
    assert inspect(path, out, maps=True, threshold=0.4).kept


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut short"])
def test_a_kept_row_that_a_power_loss_damaged_is_predicted_again(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, out = write(tmp_path / "deck.tif", draw_deck()), tmp_path / "out"
    analyzer = make_analyzer()
    analyzer.predictor = Stops()
    with pytest.raises(KeyboardInterrupt):
        inspect(path, out, analyzer)
    (out / ".deck.part" / "rows" / "000000.npz").write_bytes(damage)
    analyzer.predictor = DarkIsCrack()
    inspect(path, out, analyzer)
    assert len(analyzer.predictor.tiles) == 4 * 3
    assert "000000.npz: damaged; it is predicted again" in caplog.text


def test_a_mosaic_of_the_same_name_does_not_replace_the_results_of_another(tmp_path: Path) -> None:
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "deck.tif", draw_deck())
    out = tmp_path / "out"
    inspect(tmp_path / "north" / "deck.tif", out)
    before = (out / "deck.json").read_bytes()
    with pytest.raises(CracksegError, match=r"the result of \S*north/deck\.tif.*choose another --out"):
        inspect(tmp_path / "south" / "deck.tif", out)
    assert (out / "deck.json").read_bytes() == before


def test_coordinates_that_are_no_degrees_are_refused_before_the_work(tmp_path: Path) -> None:
    path = write(tmp_path / "deck.tif", draw_deck(), crs="EPSG:4326", transform=PLACES["metres"][1])
    with pytest.raises(CracksegError, match=r"deck\.tif: its CRS leads neither.*gdal_edit\.py -a_srs"):
        inspect(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
