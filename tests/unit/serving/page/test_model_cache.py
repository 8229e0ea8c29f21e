"""The versions that the page offers: production first among equals, and loaded once."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from crackseg.serving.page import model_cache as shelf_module
from crackseg.serving.page.model_cache import ModelShelf
from tests.registry_store import make_registry, promote


def test_the_newest_stands_first_and_production_is_chosen(tmp_path: Path) -> None:
    production = make_registry(tmp_path, 3)
    shelf = ModelShelf(production)
    assert shelf.list_offer().in_production is None
    promote(production, "2")
    offer = shelf.list_offer()
    assert offer.in_production == "2"
    assert [number for _, number in offer.choices] == ["3", "2", "1"]
    assert offer.choices[1][0].startswith("version 2 · production")


def test_models_are_kept_but_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(uri: str, _root: Path) -> SimpleNamespace:
        loaded.append(uri)
        return SimpleNamespace(uri=uri)

    monkeypatch.setattr(shelf_module, "load_model", load)
    store = SimpleNamespace(root=tmp_path)
    shelf = ModelShelf(SimpleNamespace(name="cracks", store=store))  # type: ignore[arg-type]
    for version in ("1", "2", "1", "3", "1", "2"):
        assert shelf.take(version).uri == f"models:/cracks/{version}"
    assert loaded == [f"models:/cracks/{version}" for version in ("1", "2", "3", "2")]
