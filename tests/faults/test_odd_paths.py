"""The whole pipeline works in a folder whose path is long and has spaces, quotes and letters of other alphabets.

Not DVC's temporary experiments, which take ASCII paths only; the doctor says so.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tests.pipeline.conftest import make_project
from tests.unit.data.importing.raw_sources import add_masks, add_photos, make_photo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
_NAME = "Brücken & Straßen – 検査 'neu' 3 (50 %) " + "sehr lang " * 7 + "ende"


def test_the_pipeline_works_in_a_folder_with_an_odd_path(tmp_path: Path) -> None:
    parent = tmp_path / _NAME
    parent.mkdir()
    project = make_project(parent / "mein Projekt")
    assert len(str(project.folder)) > 150
    add_photos(parent / "Fotos neu" / "images", ["ä 1", "b 2", "c 3"])
    add_masks(parent / "Fotos neu" / "masks", ["ä 1", "b 2", "c 3"])
    project.run("crackseg", "data", "import", "../Fotos neu", "--name", "WALL")
    project.run("dvc", "add", "-q", "data")
    project.commit("A dataset more")
    project.run("dvc", "repro", timeout_s=900)
    project.commit("Results")
    project.run("crackseg", "promote", "1", "--force", "--reason", "the first", timeout_s=300)
    (parent / "Fotos").mkdir()
    for name in ("ä 1", "b#2", "c 50 %"):
        image = cv2.imencode(".png", make_photo(1, (96, 64)))[1]
        (parent / "Fotos" / f"{name}.png").write_bytes(image.tobytes())
    done = project.run_json("crackseg", "predict", "../Fotos", "--out", "gefunden hier", "--json")
    assert (done["num_predicted"], done["failed"]) == (3, [])
    project.run("crackseg", "store", "export", "../Sicherung 1")
    versions = json.loads(project.run("crackseg", "-q", "models", "--json"))["versions"]
    assert [(v["version"], v["aliases"]) for v in versions] == [("1", ["candidate", "production"])]
