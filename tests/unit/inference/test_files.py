"""Files to masks: every photograph has its row and its pictures, whatever was done before and whatever is broken."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from glob import glob
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image

from crackseg.cli import cli
from crackseg.data.image_files import find_photographs
from crackseg.data.images.files import encode_png, read_image, write_mask
from crackseg.errors import CracksegError
from crackseg.evaluation.scoring import score_split
from crackseg.files import write_bytes
from crackseg.geometry.scale import Scale
from crackseg.inference.detector import SETTINGS_NAME, CrackAnalyzer, ModelSettings, ReferenceStatistics
from crackseg.inference.drift import FIGURES
from crackseg.inference.files import Summary, measure_masks, predict_files
from crackseg.inference.maps import predict_split
from crackseg.inference.predictor import sigmoid
from crackseg.inference.steps import draw_overlay
from crackseg.inference.table import COLUMNS
from crackseg.params import EvaluateParams, PredictParams
from crackseg.registry.loading import load_model
from crackseg.types import CrackSample
from tests.model_folder import write_model_folder
from tests.tiny_model import NO_POSTPROCESSING, make_model


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory: pytest.TempPathFactory) -> CrackAnalyzer:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, two of one name in sub-folders, and what is none."""
    for i, name in enumerate(("1.png", "a/2.jpg", "b/2.jpg")):
        image = np.random.default_rng(i).integers(0, 256, (70 + i, 90, 3), dtype=np.uint8)
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    write_bytes(tmp_path / "photos" / "notes.txt", b"-")
    write_bytes(tmp_path / "photos" / "a" / "._2.jpg", b"-")
    return tmp_path / "photos"


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as table:
        return {row["image"]: row for row in csv.DictReader(table)}


def run(analyzer: CrackAnalyzer, photos: Path, out: Path, model: str = "m1", **options: object) -> Summary:
    found = find_photographs([str(photos)], out)
    return predict_files(analyzer, found, out, model=model, **options)[0]  # type: ignore[arg-type]


def test_every_photograph_has_its_row_mask_and_overlay(analyzer: CrackAnalyzer, photos: Path) -> None:
    out = photos.parent / "out"
    summary, figures = predict_files(analyzer, find_photographs([str(photos)], out), out, model="m1")
    assert (summary.num_images, summary.num_predicted, summary.num_kept, summary.failed) == (3, 3, 0, [])
    rows = rows_of(out)
    assert sorted(rows) == [str(photos / name) for name in ("1.png", "a/2.jpg", "b/2.jpg")]
    for (path, row), figure in zip(sorted(rows.items()), figures, strict=True):
        expected = analyzer.analyze(read_image(Path(path)))
        mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask > 0, expected.crack_mask)
        assert cv2.imread(str(out / row["overlay"])).shape == (*mask.shape, 3)
        assert (row["height"], row["width"]) == tuple(map(str, mask.shape))
        assert float(row["crack_fraction"]) == pytest.approx(expected.crack_fraction, rel=1e-5)
        assert float(row["crack_length_px"]) == pytest.approx(expected.crack_length_px, rel=1e-5)
        assert figure["score"] == pytest.approx(expected.score, rel=1e-5)
    assert rows[str(photos / "b/2.jpg")]["mask"] == "masks/b/2.png"


def test_second_run_predicts_only_what_changed(analyzer: CrackAnalyzer, photos: Path) -> None:
    out = photos.parent / "out"
    run(analyzer, photos, out)
    assert run(analyzer, photos, out).num_kept == 3
    os.utime(photos / "1.png", ns=(0, 0))
    (out / "masks" / "a" / "2.png").unlink()
    summary = run(analyzer, photos, out)
    assert (summary.num_predicted, summary.num_kept) == (2, 1)
    assert len(rows_of(out)) == 3
    assert run(analyzer, photos, out, model="m2").num_predicted == 3
    assert run(analyzer, photos, out, model="m2", threshold=0.25).num_predicted == 3
    assert {row["threshold"] for row in rows_of(out).values()} == {"0.25"}


@pytest.mark.parametrize("cut", [1, 30, 200, 400])
def test_a_run_that_was_killed_goes_on(analyzer: CrackAnalyzer, photos: Path, cut: int) -> None:
    out = photos.parent / "out"
    run(analyzer, photos, out)
    complete = rows_of(out)
    table = out / "predictions.csv"
    table.write_bytes(table.read_bytes()[:-cut])
    summary = run(analyzer, photos, out)
    assert summary.num_kept + summary.num_predicted == 3
    assert summary.num_kept >= 3 - (1 + cut // 150)
    assert rows_of(out) == complete
    assert table.read_bytes().count(b"\n") == 4


def test_unreadable_files_are_reported_and_tried_again(
    analyzer: CrackAnalyzer, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "out"
    good = (photos / "1.png").read_bytes()
    write_bytes(photos / "1.png", good[:200])
    write_bytes(photos / "empty.jpg", b"")
    write_bytes(photos / "icon.png", encode_png(np.zeros((8, 8, 3), np.uint8)))
    summary = run(analyzer, photos, out)
    assert (summary.num_predicted, len(summary.failed)) == (2, 3)
    assert all(str(photos) in error for error in summary.failed)
    printed = capsys.readouterr()
    assert printed.out == ""  # `--json` must stay JSON
    assert printed.err.count("left out:") == 3
    row = rows_of(out)[str(photos / "1.png")]
    assert "damaged or cut short" in row["error"]
    assert row["mask"] == ""
    assert not (out / "masks" / "1.png").exists()
    write_bytes(photos / "1.png", good)
    summary = run(analyzer, photos, out)
    assert (summary.num_predicted, summary.num_kept, len(summary.failed)) == (1, 2, 2)
    assert rows_of(out)[str(photos / "1.png")]["error"] == ""


def test_turned_sixteen_bit_cmyk_and_transparent_photographs_come_out_upright(
    analyzer: CrackAnalyzer, tmp_path: Path
) -> None:
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    exif = colour.getexif()
    exif[0x0112] = 6  # turned by a quarter
    folder = tmp_path / "photos"
    folder.mkdir()
    colour.save(folder / "turned.jpg", exif=exif)
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.convert("RGBA").save(folder / "alpha.png")
    write_bytes(folder / "deep.png", encode_png(np.full((40, 60), 30000, np.uint16)))
    summary = run(analyzer, folder, tmp_path / "out")
    assert summary.failed == []
    sizes = {Path(name).name: (row["width"], row["height"]) for name, row in rows_of(tmp_path / "out").items()}
    assert sizes["turned.jpg"] == ("40", "60")
    assert sizes["deep.png"] == sizes["cmyk.jpg"] == sizes["alpha.png"] == ("60", "40")
    assert cv2.imread(str(tmp_path / "out" / "masks" / "turned.png")).shape[:2] == (60, 40)


def test_results_of_other_photographs_are_not_overwritten(
    analyzer: CrackAnalyzer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(analyzer, photos, out)
    before = (out / "predictions.csv").read_bytes()
    write_bytes(tmp_path / "others" / "1.png", (photos / "1.png").read_bytes())
    with pytest.raises(CracksegError, match=r"masks/1\.png is the result of .*photos/1\.png.*--out"):
        run(analyzer, tmp_path / "others", out)
    assert (out / "predictions.csv").read_bytes() == before
    write_bytes(tmp_path / "others" / "8.png", (photos / "1.png").read_bytes())
    (tmp_path / "others" / "1.png").unlink()
    run(analyzer, tmp_path / "others", out)
    assert len(rows_of(out)) == 4  # earlier rows stay


def test_names_mirror_folders_and_never_meet(photos: Path) -> None:
    out = photos / "out"
    write_bytes(photos / "1.jpg", (photos / "a" / "2.jpg").read_bytes())
    write_bytes(out / "masks" / "1.png", b"-")  # an earlier result, below the photographs
    names = [p.name for p in find_photographs([str(photos)], out)]
    assert names == ["1.jpg", "1.png", "a/2", "b/2"]
    assert [p.name for p in find_photographs([str(photos / "a"), str(photos / "b")], out)] == ["a/2", "b/2"]
    assert [p.name for p in find_photographs([str(photos / "*" / "2.jpg")], out)] == ["a/2", "b/2"]
    twice = [str(photos / "a"), str(photos / "a" / "2.jpg")]
    assert [p.name for p in find_photographs(twice, out)] == ["2"]
    write_bytes(photos / "1.jpg.png", b"-")
    names = [p.name for p in find_photographs([str(photos)], out)]
    assert names == ["1.jpg", "1.jpg.png", "1.png", "a/2", "b/2"]


@pytest.mark.parametrize("out", ["found", "."])
def test_results_among_the_photographs_are_no_input_of_the_next_run(
    analyzer: CrackAnalyzer, photos: Path, out: str
) -> None:
    run(analyzer, photos, photos / out)
    expanded = [path for path in glob(str(photos / "*")) if not path.endswith(".txt")]  # as a shell does
    for patterns in ([str(photos)], [str(photos / "*")], [str(photos / "**")], expanded):
        again = find_photographs(patterns, photos / out)
        assert [p.path for p in again] == [photos / name for name in ("1.png", "a/2.jpg", "b/2.jpg")]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("nowhere", "no such file"), ("none*", "no such file"), ("empty", r"\.jpg")],
)
def test_nothing_to_predict_is_said(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CracksegError, match=message):
        find_photographs([str(tmp_path / pattern)], tmp_path / "out")


def test_a_foreign_table_is_not_touched(analyzer: CrackAnalyzer, photos: Path, tmp_path: Path) -> None:
    write_bytes(tmp_path / "out" / "predictions.csv", b"name,score\n1,2\n")
    with pytest.raises(CracksegError, match="not a table of this version"):
        run(analyzer, photos, tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == b"name,score\n1,2\n"


def test_overlay_of_a_large_photograph_keeps_hair_thin_cracks() -> None:
    mask = np.zeros((100, 8200), bool)
    mask[50, :] = True
    picture = np.asarray(Image.open(io.BytesIO(draw_overlay(np.full((50, 4096, 3), 128, np.uint8), mask))))
    assert picture.shape == (50, 4096, 3)
    assert (picture[25, :, 0].astype(int) - picture[25, :, 2] > 60).all()


def test_overlay_of_a_large_photograph_is_reduced(analyzer: CrackAnalyzer, tmp_path: Path) -> None:
    write_bytes(tmp_path / "photos" / "wide.png", encode_png(np.full((40, 5000, 3), 99, np.uint8)))
    run(analyzer, tmp_path / "photos", tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out" / "overlays" / "wide.jpg")).shape == (33, 4096, 3)
    assert cv2.imread(str(tmp_path / "out" / "masks" / "wide.png")).shape[:2] == (40, 5000)


def test_model_folder_is_used_without_a_store(tmp_path: Path) -> None:
    make_model(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    model = load_model(str(tmp_path), None)
    assert 0 <= model.analyzer.analyze(image).score <= 1
    assert len(model.digest) == 16
    (tmp_path / "settings.json").unlink()
    with pytest.raises(CracksegError, match=r"expected one settings\.json"):
        load_model(str(tmp_path), None)
    with pytest.raises(CracksegError, match="no such folder"):
        load_model(str(tmp_path / "none"), None)


def test_rows_have_every_column(analyzer: CrackAnalyzer, photos: Path, tmp_path: Path) -> None:
    run(analyzer, photos, tmp_path / "out", overlays=False)
    row = next(iter(rows_of(tmp_path / "out").values()))
    assert tuple(row) == COLUMNS
    assert {name for name, value in row.items() if not value} == {"overlay", "map", "remark", "error"}


def test_maps_are_what_the_pipeline_predicts_and_score_the_same(analyzer: CrackAnalyzer, tmp_path: Path) -> None:
    random, samples = np.random.default_rng(0), []
    for i in range(3):  # each of its own size: a pass of several may round differently
        mask = np.zeros((60 + i, 90), np.uint8)
        cv2.line(mask, (5, 8 * i), (80, 50), 1)
        image = (random.normal(150, 20, (*mask.shape, 1)) - 90 * mask[..., None]).clip(0, 255).astype(np.uint8)
        paths = [tmp_path / kind / f"{i}.png" for kind in ("images", "masks")]
        write_bytes(paths[0], encode_png(np.repeat(image, 3, axis=2)))
        write_mask(paths[1], mask)
        samples.append(CrackSample("A", str(i), "test", *paths))
    run(analyzer, tmp_path / "images", tmp_path / "out", maps=True)
    predict_split(analyzer.predictor, samples, tmp_path / "pipeline")
    for sample in samples:
        ours = cv2.imread(str(tmp_path / "out" / "maps" / f"{sample.stem}.png"), cv2.IMREAD_UNCHANGED)
        theirs = cv2.imread(str(tmp_path / "pipeline" / f"{sample.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert ours.dtype == np.uint16
        np.testing.assert_array_equal(ours, theirs)
    evaluate = EvaluateParams(tolerance_px=2, num_thresholds=256, line_tolerance_px=4, use_roi=True)
    expected, *_ = score_split(
        samples, tmp_path / "pipeline", evaluate, NO_POSTPROCESSING, operating_threshold=0.5
    )
    folders = ["--predictions", str(tmp_path / "out" / "maps"), "--masks", str(tmp_path / "masks")]
    done = CliRunner().invoke(cli, ["score", *folders, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == expected.to_dict()


def test_maps_are_written_when_asked_for_and_never_left_from_another_model(
    analyzer: CrackAnalyzer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(analyzer, photos, out)
    assert not (out / "maps").exists()
    assert run(analyzer, photos, out, maps=True).num_predicted == 3
    assert {row["map"] for row in rows_of(out).values()} == {"maps/1.png", "maps/a/2.png", "maps/b/2.png"}
    (out / "maps" / "1.png").unlink()
    assert run(analyzer, photos, out, maps=True).num_predicted == 1
    assert run(analyzer, photos, out).num_kept == 3  # what is there does no harm
    assert (out / "maps" / "1.png").is_file()
    run(analyzer, photos, out, model="m2")
    assert not list((out / "maps").rglob("*.png"))
    assert {row["map"] for row in rows_of(out).values()} == {""}


def test_flips_are_averaged_if_asked_for_and_results_without_them_are_not_kept(tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "model", {"architecture": "unet", "width": 4})
    image = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)  # one tile
    out, photograph = tmp_path / "out", tmp_path / "1.png"
    write_bytes(photograph, encode_png(image))

    def predict(*options: str) -> tuple[np.ndarray, int]:
        command = ["predict", str(photograph), "--model", str(model), "--out", str(out), "--maps", "--json"]
        command += options
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
        crack_prob = cv2.imread(str(out / "maps" / "1.png"), cv2.IMREAD_UNCHANGED) / 65535
        return crack_prob, json.loads(done.stdout)["num_kept"]

    plain, _ = predict()
    averaged, kept = predict("--flips")
    assert kept == 0
    predictor = load_model(str(model), None).analyzer.predictor
    logits = [
        np.flip(predictor.predict_logits(np.ascontiguousarray(np.flip(image, axes))), axes)
        for axes in ((), (0,), (1,), (0, 1))
    ]
    np.testing.assert_allclose(averaged, sigmoid(np.mean(logits, axis=0)), atol=2e-4)
    assert np.abs(averaged - plain).max() > 0.01
    assert predict("--flips")[1] == 1
    again, kept = predict("--no-flips")  # as the model has it
    assert kept == 0
    np.testing.assert_array_equal(again, plain)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_photograph_of_108_megapixels_needs_less_than_two_gigabytes(tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "model", {"architecture": "unet", "width": 8})
    settings = ModelSettings.read(model / SETTINGS_NAME)
    tiles = PredictParams(tile_size_px=512, overlap_px=64, batch_size=4)  # those of params.yaml
    write_bytes(model / SETTINGS_NAME, settings.model_copy(update={"predict": tiles}).to_json().encode())
    image = np.full((9000, 12000, 3), 128, np.uint8)
    cv2.line(image, (0, 0), (11999, 8999), (0, 0, 0), 3)
    cv2.imwrite(str(tmp_path / "large.jpg"), image)
    command = ["predict", str(tmp_path / "large.jpg"), "--model", str(model), "--out", str(tmp_path / "out")]
    command += ["--threshold", "0.9"]  # random weights would find cracks all over
    # A process's peak begins with that of the one it was started by, on Linux: pytest may have trained before.
    measuring = (
        "import os, subprocess, sys\n"
        "process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)\n"
        "_, status, usage = os.wait4(process.pid, 0)\n"
        "print(usage.ru_maxrss)\n"
        "sys.exit(status != 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", measuring, sys.executable, "-m", "crackseg", *command],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) * (1 if sys.platform == "darwin" else 1024) < 2 * 1024**3
    assert cv2.imread(str(tmp_path / "out" / "masks" / "large.png"), cv2.IMREAD_UNCHANGED).shape == (9000, 12000)


def test_measuring_predicts_nothing_anew_and_leaves_out_what_could_not_be_read(
    analyzer: CrackAnalyzer, photos: Path
) -> None:
    out = photos.parent / "out"
    write_bytes(photos / "empty.jpg", b"")
    found = find_photographs([str(photos)], out)
    predict_files(analyzer, found, out, model="m1")
    before = (out / "predictions.csv").read_bytes()
    measured = measure_masks(found, out, scale=Scale(0.5))
    assert (measured.num_measured, measured.num_kept, measured.failed) == (3, 0, [])
    with (out / "crack_totals.csv").open(encoding="utf-8", newline="") as table:
        assert [row["mm_per_px"] for row in csv.DictReader(table)] == ["0.5"] * 3
    assert Image.open(out / "annotated" / "a" / "2.jpg").size[0] == 1400
    assert (out / "predictions.csv").read_bytes() == before
    assert measure_masks(found, out, scale=Scale(0.5)).num_kept == 3
    assert measure_masks(found, out, scale=Scale(0.25)).num_measured == 3


def test_every_row_of_a_model_of_the_sample_warns_and_so_do_its_measurements(
    analyzer: CrackAnalyzer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(analyzer, photos, out)
    assert all("must not inspect anything" in row["warning"] for row in rows_of(out).values())
    measure_masks(find_photographs([str(photos)], out), out)
    for name in ("cracks.csv", "crack_totals.csv"):
        with (out / name).open(newline="") as table:
            rows = [*csv.DictReader(table)]
        assert rows
        assert all("must not inspect anything" in row["warning"] for row in rows)
    (report, *_) = (out / "measurements").rglob("*.json")
    assert "must not inspect anything" in json.loads(report.read_bytes())["warning"]
    later = CliRunner().invoke(cli, ["measure", str(out / "masks"), "--json"])
    assert "WARNING: 3 of 3 masks" in later.stderr
    assert all("must not inspect" in entry["warning"] for entry in json.loads(later.stdout))


def test_a_model_of_other_data_warns_of_nothing(analyzer: CrackAnalyzer, photos: Path, tmp_path: Path) -> None:
    settings = analyzer.settings.model_copy(update={"data_source": "imported"})
    run(CrackAnalyzer(analyzer.predictor, settings), photos, tmp_path / "out")
    assert {row["warning"] for row in rows_of(tmp_path / "out").values()} == {""}


def test_drift_stands_in_the_rows_once_however_often_the_command_runs(
    analyzer: CrackAnalyzer, tmp_path: Path
) -> None:
    for i in range(10):
        write_bytes(tmp_path / "photos" / f"{i}.png", encode_png(np.full((64, 64, 3), 20 + i, np.uint8)))
    known = dict.fromkeys(FIGURES, tuple(np.linspace(0.8, 0.9, 40)))
    reference = ReferenceStatistics(num_images=40, **known)
    settings = analyzer.settings.model_copy(update={"reference": reference, "data_source": "imported"})
    for _ in range(2):
        run(CrackAnalyzer(analyzer.predictor, settings), tmp_path / "photos", tmp_path / "out")
        for row in rows_of(tmp_path / "out").values():
            assert row["warning"].count("These photographs are not like those") == 1
            assert row["warning"].count("This photograph is unlike those") == 1


def test_a_table_without_the_column_warning_is_taken_up(
    analyzer: CrackAnalyzer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(analyzer, photos, out)
    rows = [*rows_of(out).values()]
    with (out / "predictions.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, [c for c in COLUMNS if c != "warning"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    text = (out / "predictions.csv").read_text().replace("\r\n", "\n")
    write_bytes(out / "predictions.csv", text.encode())
    assert run(analyzer, photos, out).num_kept == 3
    assert [*rows_of(out).values()] == rows


def test_photographs_in_several_threads_have_the_results_of_one_after_the_other(
    analyzer: CrackAnalyzer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and table are the same to the bit, and rows keep their order, broken photographs among them."""
    write_bytes(photos / "a" / "1.jpg", b"no photograph")
    outs = [photos.parent / name for name in ("overlapped", "alone")]
    failed = [run(analyzer, photos, outs[0], maps=True).failed]
    monkeypatch.setattr("crackseg.inference.steps.MOST_OVERLAPPED_PIXELS", 0)
    failed.append(run(analyzer, photos, outs[1], maps=True).failed)
    contents = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} for out in outs
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3 * 3 + 2  # and the table and its lock
    assert failed[0] == failed[1]
    assert len(failed[0]) == 1
    assert list(rows_of(outs[0])) == [str(photo.path) for photo in find_photographs([str(photos)], outs[0])]


def test_a_second_prediction_into_the_same_folder_is_refused_and_harms_nothing(
    analyzer: CrackAnalyzer, photos: Path, tmp_path: Path
) -> None:
    """Two writers of one table would each lose the other's rows."""
    out = tmp_path / "out"
    run(analyzer, photos, out)
    before = (out / "predictions.csv").read_bytes()
    with FileLock(out / ".predictions.lock"), pytest.raises(CracksegError, match="another `crackseg predict`"):
        run(analyzer, photos, out, threshold=0.9)
    assert (out / "predictions.csv").read_bytes() == before
    run(analyzer, photos, out, threshold=0.9)
    assert (out / "predictions.csv").read_bytes() != before


def tables_of(out: Path) -> list[str]:
    """The masks in the table of measurements, by their place in the folder of results."""
    with (out / "crack_totals.csv").open(encoding="utf-8", newline="") as table:
        return sorted(Path(row["file"]).relative_to(out).as_posix() for row in csv.DictReader(table))


def predict_and_measure(analyzer: CrackAnalyzer, folders: list[Path], out: Path) -> None:
    found = find_photographs([str(folder) for folder in folders], out)
    predict_files(analyzer, found, out, model="m1")
    measure_masks(found, out)


def test_a_photograph_whose_name_changes_is_counted_once(analyzer: CrackAnalyzer, photos: Path) -> None:
    out = photos.parent / "out"
    predict_and_measure(analyzer, [photos / "a"], out)
    assert tables_of(out) == ["masks/2.png"]
    predict_and_measure(analyzer, [photos / "a", photos / "b"], out)
    assert tables_of(out) == ["masks/a/2.png", "masks/b/2.png"]
    assert list(out.glob("*/2.*")) == []
    assert len(list(out.glob("*/[ab]/2.*"))) == 2 * 5


def test_nothing_of_a_photograph_that_became_unreadable_stays(analyzer: CrackAnalyzer, photos: Path) -> None:
    out = photos.parent / "out"
    predict_and_measure(analyzer, [photos], out)
    write_bytes(photos / "1.png", (photos / "1.png").read_bytes()[:200])
    predict_and_measure(analyzer, [photos], out)
    assert tables_of(out) == ["masks/a/2.png", "masks/b/2.png"]
    assert list(out.rglob("1.*")) == []


def test_measurements_of_another_threshold_are_no_longer_in_the_tables(
    analyzer: CrackAnalyzer, photos: Path
) -> None:
    out = photos.parent / "out"
    predict_and_measure(analyzer, [photos / "a", photos / "b"], out)
    found = find_photographs([str(photos / "a"), str(photos / "b")], out)
    predict_files(analyzer, found[:1], out, model="m1", threshold=0.9)
    assert tables_of(out) == ["masks/b/2.png"]


def test_maps_and_pictures_of_results_are_no_photographs_but_other_folders_of_these_names_are(
    analyzer: CrackAnalyzer, photos: Path
) -> None:
    (photos / "a").rename(photos / "maps")
    (photos / "b").rename(photos / "pictures")
    assert len(find_photographs([str(photos)], photos / "found")) == 3
    run(analyzer, photos, photos / "found", maps=True)
    write_bytes(photos / "found" / "pictures" / "pair.jpg", b"-")
    write_bytes(photos / "found" / "growth.json", b"[]")
    assert len(find_photographs([str(photos)], photos / "found")) == 3
