"""Damaged input is read or refused in a sentence, in time; `make faults` tries more of it."""

from __future__ import annotations

from pathlib import Path

from tests.faults.fuzz import fuzz_annotations, fuzz_http, fuzz_images, fuzz_imports, fuzz_page, fuzz_params
from tests.tiny_model import make_model
from tests.unit.serving.test_http import open_server

_SEED = 1


def test_damaged_images_are_read_or_refused(tmp_path: Path) -> None:
    assert [*filter(None, fuzz_images(150, _SEED, tmp_path, make_model(tmp_path / "model")))] == []


def test_damaged_photographs_are_shown_on_the_page_or_named(tmp_path: Path) -> None:
    analyzer = make_model(tmp_path / "model")
    assert [*filter(None, fuzz_page(60, _SEED, tmp_path / "page", analyzer))] == []


def test_damaged_datasets_are_imported_or_refused(tmp_path: Path) -> None:
    assert [*filter(None, fuzz_imports(50, _SEED, tmp_path))] == []


def test_damaged_annotations_are_imported_or_refused(tmp_path: Path) -> None:
    assert [*filter(None, fuzz_annotations(100, _SEED, tmp_path))] == []


def test_damaged_settings_are_read_or_refused(tmp_path: Path) -> None:
    assert [*filter(None, fuzz_params(150, _SEED, tmp_path))] == []


def test_damaged_requests_are_answered(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "server").mkdir()
    with open_server(tmp_path / "model", tmp_path / "server") as server:
        assert [*fuzz_http(200, _SEED, server)] == []
