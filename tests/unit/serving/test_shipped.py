"""Without a version in production, the shipped model is used, and that is said."""

import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from crackseg.cli import cli
from crackseg.models.shipped import SHIPPED_PROBE
from crackseg.serving.deployment import find_production
from crackseg.serving.page.model_cache import ModelCache
from tests.registry_store import NAME, make_registry, promote


def _make_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).parents[3]
    params = (source / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(
        params.replace("model_name: crackseg", f"model_name: {NAME}"), encoding="utf-8"
    )
    (root / "dvc.yaml").write_bytes((source / "dvc.yaml").read_bytes())
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_photographs_are_predicted_without_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = next((SHIPPED_PROBE / "images").glob("*.png"))
    (tmp_path / "wall.png").write_bytes(image.read_bytes())
    done = CliRunner().invoke(cli, ["predict", "wall.png", "--out", "found", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout[done.stdout.index("{") :])
    assert answer["model"] == "scenes"
    assert (tmp_path / "found" / "masks" / "wall.png").is_file()


def test_it_is_used_until_a_version_is_in_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _make_project(tmp_path, monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert find_production() == "scenes"
    assert "using scenes, the model that crackseg ships" in caplog.text
    production = make_registry(tmp_path, 2)
    assert find_production() == "scenes"
    promote(production, "2")
    assert find_production() == f"models:/{NAME}@production"


def test_the_page_offers_it_beside_the_versions_and_alone(tmp_path: Path) -> None:
    alone = ModelCache(None)
    assert [name for _, name in alone.list_choices().choices] == ["scenes"]
    assert alone.load("scenes").uri == "scenes"
    assert [name for _, name in ModelCache(make_registry(tmp_path, 1)).list_choices().choices] == ["1", "scenes"]


def test_models_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make_project(tmp_path, monkeypatch)
    done = CliRunner().invoke(cli, ["models"])
    assert done.exit_code == 0, done.output
    assert "scenes: shipped with crackseg, used while nothing is in production" in done.output


def test_models_shows_it_without_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["models"])
    assert done.exit_code == 0, done.output
    assert "no crackseg project at" in done.output
    assert "scenes: shipped with crackseg, used while nothing is in production" in done.output


def test_photographs_given_to_measure_are_sent_to_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = sorted((SHIPPED_PROBE / "images").glob("*.png"))
    done = CliRunner().invoke(cli, ["measure", *map(str, images)])
    assert done.exit_code == 3
    assert "photographs are measured by `crackseg predict … --measure`" in done.output


def test_its_card_is_printed() -> None:
    done = CliRunner().invoke(cli, ["card", "--model", "scenes"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("# Model card: scenes")


def test_it_is_a_model_of_mlflow_for_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crackseg.registry.shipped import name_model, package_shipped

    monkeypatch.setenv("CRACKSEG_CACHE_DIR", str(tmp_path))
    folder = package_shipped()
    assert (folder / "MLmodel").is_file()
    assert len(list(folder.rglob("weights.pt"))) == 1
    assert package_shipped() == folder
    assert name_model(str(folder)) == "scenes"
    assert name_model("models:/crackseg/3") == "models:/crackseg/3"
