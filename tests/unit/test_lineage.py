"""A result that was computed by other code is not taken for a present one."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
from pydantic import Field

from crackseg import lineage
from crackseg.lineage import ANSWERS, keys_behind, keys_changing, settings_behind
from crackseg.params import Params, flatten_params, load_params
from crackseg.params.effects import COUNTING, MAPS, NOTHING, RESULTS, SCORES, VERSION, WEIGHTS, Affects
from crackseg.params.sections import _Section

COMMITTED = flatten_params(load_params(lineage.PACKAGE.parents[1] / "params.yaml"))


@pytest.fixture
def copied(tmp_path: Path) -> ModuleType:
    """Make a copy of the package whose files a test may change; its own module reads them."""
    package = tmp_path / "crackseg"
    shutil.copytree(lineage.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("copied_lineage", package / "lineage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("stages", "name"),
    [
        (["train"], "training/step_graph.py"),
        (["train"], "training/losses.py"),
        (["train"], "inference/engines.py"),
        (["train"], "models/__init__.py"),
        (["train"], "data/augmentation.py"),
        (["train"], "data/images/decoding.py"),
        (["train", "predict", "evaluate"], "training/loop.py"),
        (["train", "predict", "evaluate"], "evaluation/scoring.py"),
        (["train", "predict", "evaluate"], "geometry/postprocessing.py"),
        (["train", "predict", "evaluate"], "inference/maps.py"),
    ],
)
def test_a_training_or_trial_of_other_code_is_not_resumed(
    copied: ModuleType, stages: list[str], name: str
) -> None:
    before = copied.hash_code(*stages)
    path = copied.PACKAGE / name
    path.write_text(path.read_text(encoding="utf-8") + "\nPRECISION = 1\n", encoding="utf-8")
    assert copied.hash_code(*stages) != before


@pytest.mark.parametrize(
    "name", ["errors.py", "tracking/store.py", "evaluation/plots.py", "cli/app.py", "registry/register.py"]
)
def test_a_change_that_no_weight_follows_from_keeps_a_checkpoint(copied: ModuleType, name: str) -> None:
    before = copied.hash_code("train")
    path = copied.PACKAGE / name
    assert path.is_file()
    path.write_text("# another text\n", encoding="utf-8")
    assert copied.hash_code("train") == before


def test_every_key_says_what_it_affects() -> None:
    keys = {f"{name}.{key}" for name, f in Params.model_fields.items() for key in f.annotation.model_fields}  # type: ignore[union-attr]
    assert ANSWERS.keys() == keys
    assert all(ANSWERS.values())


def test_a_key_that_does_not_say_what_it_affects_cannot_be_added() -> None:
    with pytest.raises(TypeError, match=r"Sharpening\.amount: say what changes with it"):

        class Sharpening(_Section):
            amount: Annotated[float, Field(ge=0)]


@pytest.mark.parametrize("effects", [(), (NOTHING, WEIGHTS)])
def test_an_answer_is_nothing_or_something(effects: tuple) -> None:
    with pytest.raises(TypeError, match="expected NOTHING, or one effect or more"):
        Affects(*effects)


@pytest.mark.parametrize("key", ["optimizer.lr", "train.seed", "data.size_px", "predict.tile_size_px"])
def test_what_changes_weights_changes_maps_scores_and_versions(key: str) -> None:
    for effect in (WEIGHTS, MAPS, SCORES, RESULTS, VERSION):
        assert key in keys_behind(effect)


def test_scoring_changes_neither_maps_nor_weights() -> None:
    scoring = keys_changing(COUNTING, SCORES)
    assert scoring
    assert not scoring & (keys_behind(MAPS) | keys_behind(WEIGHTS))


@pytest.mark.parametrize("section", ["search", "registry", "measure"])
def test_no_score_follows_from_how_a_search_or_a_promotion_is_done(section: str) -> None:
    assert not [key for key in keys_behind(RESULTS) if key.startswith(f"{section}.")]


def test_a_condition_says_where_a_key_counts() -> None:
    def counts(key: str, **changes: object) -> bool:
        settings = COMMITTED | {k.replace("__", "."): v for k, v in changes.items()}
        return key in keys_behind(WEIGHTS, settings=settings)

    assert counts("loss.gamma")
    assert not counts("loss.gamma", loss__name="bce")
    assert not counts("train.num_processes")
    assert counts("train.num_processes", train__sync_batch_norm="False")  # as MLflow writes it
    assert "train.num_processes" in keys_behind(WEIGHTS)


def test_conditions_name_keys_and_values_that_params_have() -> None:
    conditions = [condition for marks in ANSWERS.values() for mark in marks for condition in mark.when.items()]
    assert conditions
    for key, values in conditions:
        assert all(isinstance(value, type(COMMITTED[key])) for value in values)


def test_a_key_of_another_version_counts() -> None:
    recorded = {"train.num_workers": "2", "loss.sharpness": "1.5", "optimizer.lr": "0.1"}
    assert settings_behind(RESULTS, recorded).keys() == {"loss.sharpness", "optimizer.lr"}
