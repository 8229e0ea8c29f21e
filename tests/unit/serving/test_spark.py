"""`crackseg batch`: each photograph has its row, whatever the version makes of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema

from crackseg.data.images.files import encode_png
from crackseg.files import write_bytes
from crackseg.inference.detector import SETTINGS_NAME, WEIGHTS_NAME, ModelSettings
from crackseg.registry.pyfunc import SIGNATURE, CrackModel
from crackseg.serving.spark import BatchSummary, score_folder
from tests.tiny_model import make_model

pytest.importorskip("pyspark", reason="pip install 'crackseg[spark]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="Spark needs Java 17 or newer"
    ),
]
PHOTOGRAPH = np.random.default_rng(0).integers(90, 160, (64, 80, 3), dtype=np.uint8)
WIDE = tuple(np.linspace(0, 1, 40))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen dark photographs, one of 16 bits, and files of which no answer can be had."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(12):
        write_bytes(folder / f"dark {number:02d}.png", encode_png(PHOTOGRAPH // 8))
    write_bytes(folder / "deep.png", encode_png(PHOTOGRAPH[..., 0].astype(np.uint16) * 200))
    cv2.imwrite(str(folder / "deep.tif"), PHOTOGRAPH[..., 0].astype(np.uint16) * 16)
    # Pillow decodes it; the version refuses it, since nobody knows what white is.
    cv2.imwrite(str(folder / "negative.tif"), PHOTOGRAPH[..., 0].astype(np.float32) - 200)
    (folder / "words.jpg").write_bytes(b"no image")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "raw.CR2").write_bytes(b"II*\0 and so on")
    (folder / "notes.txt").write_text("no photograph", encoding="utf-8")
    return folder


def score(folder: Path, photographs: Path, signature: ModelSignature, **options: Any) -> BatchSummary:
    """Score by a version with the signature, whose own photographs were bright."""
    make_model(folder / "files")
    settings = ModelSettings.read(folder / "files" / SETTINGS_NAME)
    known = dict.fromkeys(("contrast", "sharpness", "crack_fraction", "confidence"), WIDE)
    known |= {"brightness": tuple(np.linspace(0.4, 0.6, 40))}
    changed = settings.model_copy(
        update={"data_source": "imported", "reference": settings.reference.model_copy(update=known)}
    )
    write_bytes(folder / "files" / SETTINGS_NAME, changed.to_json().encode())
    mlflow.pyfunc.save_model(
        folder / "saved",
        python_model=CrackModel(),
        artifacts={
            "weights": str(folder / "files" / WEIGHTS_NAME),
            "settings": str(folder / "files" / SETTINGS_NAME),
        },
        signature=signature,
        pip_requirements=[],
    )
    return score_folder(
        str(folder / "saved"), None, str(photographs), str(folder / "out"), master="local[1]", **options
    )


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_what_the_version_refuses_or_notices_is_in_the_photographs_own_row(
    tmp_path: Path, photographs: Path, file_format: str
) -> None:
    summary = score(tmp_path, photographs, SIGNATURE, file_format=file_format)
    failed = {Path(path).name: reason for path, reason in summary.failed}
    assert failed.keys() == {"negative.tif", "words.jpg", "empty.jpg", "raw.CR2"}
    assert "full scale is unknown" in failed["negative.tif"]
    assert "raw file" in failed["raw.CR2"]
    assert summary.num_images == 18
    assert summary.passed_over == {".txt": 1}
    assert [(Path(path).name, remark) for path, remark in summary.remarks] == [
        ("deep.tif", "16-bit values up to 2544 read with full scale 4095")
    ]
    assert summary.num_unusual == 12
    assert "These photographs are not like those" in " ".join(summary.warnings)
    if file_format == "parquet":
        table = pd.read_parquet(tmp_path / "out")
    else:
        table = pd.concat(pd.read_csv(p) for p in (tmp_path / "out").glob("part-*.csv") if p.stat().st_size)
    dark = table[table["path"].str.contains("dark")]
    assert dark["warning"].str.contains("This photograph is unlike").all()
    assert dark["error"].isna().all()
    assert table.loc[table["error"].notna(), ["mask", "crack_fraction", "score", "remark"]].isna().all(axis=None)
    assert table.loc[table["error"].isna(), "mask"].notna().all()


def test_a_version_from_before_notes_still_answers(tmp_path: Path, photographs: Path) -> None:
    params = ParamSchema([param for param in SIGNATURE.params if param.name != "return_notes"])
    older = ModelSignature(inputs=SIGNATURE.inputs, outputs=SIGNATURE.outputs, params=params)
    fine = tmp_path / "fine"
    shutil.copytree(photographs, fine, ignore=shutil.ignore_patterns("negative.tif"))
    summary = score(tmp_path, fine, older, warning="It must not inspect anything.")
    assert {Path(path).name for path, _ in summary.failed} == {"words.jpg", "empty.jpg", "raw.CR2"}
    assert "does not measure photographs" in summary.warnings[0]
    table = pd.read_parquet(tmp_path / "out")
    assert table.loc[table["error"].isna(), "crack_fraction"].notna().all()
    assert set(table.loc[table["error"].isna(), "warning"]) == {"It must not inspect anything."}
