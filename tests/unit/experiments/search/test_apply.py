"""Settings into params.yaml: the text around them stays as it is."""

from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
from ruamel.yaml import YAML

from crackseg.experiments.search.apply import apply_trial, find_left_out, replace_values
from crackseg.experiments.search.study import Search
from crackseg.params import load_params

TEXT = (Path(__file__).parents[4] / "params.yaml").read_text(encoding="utf-8")


def test_only_the_values_change() -> None:
    new = replace_values(TEXT, {"optimizer.lr": 0.0031, "loss.name": "bce", "model.width": 12, "train.seed": 0})
    before, after = TEXT.splitlines(), new.splitlines()
    changed = [(b, a) for b, a in zip(before, after, strict=True) if a != b]
    assert changed == [
        (b, a)
        for b, a in zip(before, after, strict=True)
        if b.strip().startswith(("width:", "name: focal", "lr: 0.0001"))
    ]
    assert [line.index("#") for line in before if "#" in line] == [
        line.index("#") for line in after if "#" in line
    ]


def test_values_come_back_as_they_were_written() -> None:
    values = {
        "optimizer.lr": 1.2345678901234e-05,
        "loss.gamma": 2.0,
        "model.init": "models:/crackseg/3",
        "model.encoder": "tu-tf_efficientnet_lite0",
        "model.normalize": True,
        "model.width": None,
        "train.epochs": 7,
    }
    content = YAML(typ="safe", pure=True).load(replace_values(TEXT, values))
    assert {key: content[key.split(".")[0]][key.split(".")[1]] for key in values} == values


def test_a_word_that_yaml_reads_as_a_truth_value_is_quoted() -> None:
    content = YAML(typ="safe", pure=True).load(replace_values(TEXT, {"model.encoder": "true"}))
    assert content["model"]["encoder"] == "true"


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """One finished trial of a search that trains for one epoch."""
    (tmp_path / "params.yaml").write_text(TEXT, encoding="utf-8")
    study = optuna.create_study(direction="maximize")
    gamma = optuna.distributions.FloatDistribution(0, 5)
    study.add_trial(
        optuna.create_trial(params={"loss.gamma": 4.0}, distributions={"loss.gamma": gamma}, value=0.9)
    )
    params = load_params(tmp_path / "params.yaml")
    return Search(study, Mock(), params, {"train.epochs": 1}, "0" * 32, tmp_path)


def test_the_small_budget_of_a_search_stays_out_of_params_and_is_named(search: Search) -> None:
    path = search.folder / "params.yaml"
    epochs = load_params(path).train.epochs
    assert apply_trial(search.folder, search, None, searched_only=True) == {"loss.gamma": (2.0, 4.0)}
    assert load_params(path).train.epochs == epochs
    assert find_left_out(search.folder, search, None) == {"train.epochs": (epochs, 1)}


def test_the_budget_of_a_search_is_written_where_it_is_asked_for(search: Search) -> None:
    changed = apply_trial(search.folder, search, None, searched_only=False)
    assert changed.keys() == {"loss.gamma", "train.epochs"}
    assert find_left_out(search.folder, search, None) == {}
