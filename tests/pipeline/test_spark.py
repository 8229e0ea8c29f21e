"""`crackseg batch` on Spark gives the answers of the version itself, on several workers."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from crackseg.data.images.files import decode_image
from crackseg.inference.detector import CrackAnalyzer
from tests.pipeline.conftest import Project

pytest.importorskip("pyspark", reason="pip install 'crackseg[spark]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="Spark needs Java 17 or newer"
    ),
]
CANDIDATE = "models:/crackseg@candidate"
NUM_IMAGES = 240


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        name = f"bridge {i % 3}/{i:03d}{'.JPG' if i % 2 else '.png'}"
        image_HW3 = random.integers(0, 256, (60 + i % 30, 80, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), image_HW3)
    (folder / "notes.txt").write_text("no photograph", encoding="utf-8")
    return folder


def test_hundreds_of_images_on_two_workers_get_the_versions_own_answers(
    finished: Project, photographs: Path, tmp_path: Path
) -> None:
    said = finished.run(
        "crackseg", "batch", str(photographs), str(tmp_path / "out"), "--model", CANDIDATE, "--workers", "2"
    )
    assert f"{NUM_IMAGES} of {NUM_IMAGES} photographs predicted" in said
    assert len(list((tmp_path / "out").glob("part-*.parquet"))) >= 2  # one file for each task
    table = pd.read_parquet(tmp_path / "out")
    assert len(table) == table["path"].nunique() == NUM_IMAGES
    assert table["error"].isna().all()
    (weights,) = (finished.folder / "mlruns").rglob("artifacts/weights.pt")
    (settings,) = (finished.folder / "mlruns").rglob("artifacts/settings.json")
    analyzer = CrackAnalyzer.load(weights, settings, device="cpu")
    for row in table.sort_values("path").iloc[::37].itertuples():
        path = photographs / row.path.split(f"{photographs.name}/")[1].replace("%20", " ")
        expected = analyzer.analyze(decode_image(path.read_bytes()))
        assert row.score == pytest.approx(expected.score, abs=1e-3)
        assert row.crack_fraction == pytest.approx(expected.crack_fraction, abs=1e-3)
        mask = decode_image(base64.b64decode(row.mask))[..., 0] > 0
        assert (mask != expected.crack_mask).mean() < 1e-3


def test_broken_files_have_their_reason_and_cost_no_other_image_its_answer(
    finished: Project, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    image_HW3 = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    good = cv2.imencode(".png", image_HW3)[1].tobytes()
    contents = {"good": good, "empty": b"", "words": b"no image", "cut": good[: len(good) // 2]}
    contents["small"] = cv2.imencode(".png", image_HW3[:5, :5])[1].tobytes()
    for name, content in contents.items():
        (source / f"{name} é%.png").write_bytes(content)
    said = finished.run(
        "crackseg",
        "batch",
        str(source),
        str(tmp_path / "out"),
        "--model",
        CANDIDATE,
        "--format",
        "csv",
        fails=True,
    )
    assert "1 of 5 photographs predicted" in said
    parts = [pd.read_csv(part) for part in (tmp_path / "out").glob("part-*.csv") if part.stat().st_size]
    table = pd.concat(parts)
    errors = {
        Path(row.path).stem.split()[0]: row.error for row in table.itertuples() if isinstance(row.error, str)
    }
    assert "empty" in errors["empty"]
    assert "not an image" in errors["words"]
    assert "damaged" in errors["cut"]
    assert "too small" in errors["small"]
    answered = table[table["error"].isna()]
    assert [Path(path).stem for path in answered["path"]] == ["good é%"]
    assert table.loc[table["error"].notna(), "mask"].isna().all()


def test_wrong_folders_are_named_before_spark_starts(finished: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, target, word in (
        ("nowhere", "out", "no such folder"),
        ("empty", "out", "no file"),
        ("empty", "empty", "exists"),
    ):
        said = finished.run(
            "crackseg", "batch", str(tmp_path / source), str(tmp_path / target), "--model", CANDIDATE, fails=True
        )
        assert word in said
