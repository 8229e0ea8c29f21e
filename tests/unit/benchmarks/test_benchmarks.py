"""The rows of `make bench` are defined, and the new ones run at toy size; their numbers are not tested."""

from __future__ import annotations

import importlib.util

import pytest
from benchmarks.__main__ import _FAMILIES
from benchmarks.folder import compare as compare_folder
from benchmarks.measure import ROOT
from benchmarks.store import compare as compare_stores
from benchmarks.train_to import Task
from benchmarks.train_to import compare as compare_trainings


@pytest.mark.parametrize("family", _FAMILIES)
def test_a_family_has_a_module_with_rows_that_the_document_explains(family: str) -> None:
    spec = importlib.util.find_spec(f"benchmarks.{family}")
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as module:
        assert "def run(effort: Effort) -> list[Row]:" in module.read()
    rows = {"inference": "inference-r101", "train": "train-r101", "train_to": "train-to-0.9", "exported": "onnx"}
    rows |= {"folder": "predict-folder", "first_result": "first-result", "store": "store-models"}
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"`{rows.get(family, family)}`" in page


def test_a_folder_gives_the_masks_of_a_plain_loop() -> None:
    row = compare_folder(2, 2, (160, 96))
    assert row.name == "predict-folder"
    assert min(row.ours, row.peer) > 0


def test_peers_that_do_not_get_there_are_named_so() -> None:
    task = Task(ods=0.0, size_px=64, patch_px=32, num_scenes=2, num_validation=1, validate_every=1, peers=1.0)
    rows = compare_trainings(task)
    assert [row.name for row in rows] == ["train-to-0.9", "train-to-0.9-focal"]
    assert all("ODS" in row.note for row in rows)


@pytest.mark.slow
def test_commands_run_on_stores_of_any_size() -> None:
    rows = compare_stores(((2, 1), (4, 3)), repeats=1)
    assert {row.name for row in rows} == {"store-models", "store-compare", "store-paper", "store-search"}
