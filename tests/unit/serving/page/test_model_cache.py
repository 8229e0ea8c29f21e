"""The versions that the page offers: production first among equals, and loaded once."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from crackseg.registry.version_tags import pack_tags
from crackseg.serving.page import model_cache as cache_module
from crackseg.serving.page.model_cache import ModelCache
from tests.registry_store import make_registry, promote


def test_the_newest_stands_first_and_production_is_chosen(tmp_path: Path) -> None:
    production = make_registry(tmp_path, 3)
    cache = ModelCache(production)
    assert cache.list_choices().in_production is None
    promote(production, "2")
    offered = cache.list_choices()
    assert offered.in_production == "2"
    assert [number for _, number in offered.choices] == ["3", "2", "1", "scenes"]
    assert offered.choices[1][0].startswith("version 2 · production")


def test_a_version_is_named_with_its_architecture(tmp_path: Path) -> None:
    production = make_registry(tmp_path, 1)
    for key, value in pack_tags({"architecture": "unet"}).items():
        production.store.client.set_model_version_tag(production.name, "1", key, value)
    assert ModelCache(production).list_choices().choices[0][0] == "version 1 · unet"


def test_models_are_kept_but_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(uri: str, _root: Path) -> SimpleNamespace:
        loaded.append(uri)
        return SimpleNamespace(uri=uri)

    monkeypatch.setattr(cache_module, "load_model", load)
    store = SimpleNamespace(root=tmp_path)
    cache = ModelCache(SimpleNamespace(name="cracks", store=store))  # type: ignore[arg-type]
    for version in ("1", "2", "1", "3", "1", "2"):
        assert cache.load(version).uri == f"models:/cracks/{version}"
    assert loaded == [f"models:/cracks/{version}" for version in ("1", "2", "3", "2")]
