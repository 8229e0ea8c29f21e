"""Settings of a trial into params.yaml."""

from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest

from crackseg.experiments.search.apply import apply_trial, find_left_out
from crackseg.experiments.search.study import Search
from crackseg.params import load_params

TEXT = (Path(__file__).parents[4] / "params.yaml").read_text(encoding="utf-8")


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
