"""What a worker does with trials that end in all ways; the training itself is played by a function."""

import json
import math
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from crackseg.errors import CracksegError
from crackseg.experiments.search import outcomes
from crackseg.experiments.search.listing import list_studies
from crackseg.experiments.search.results import compare_with_paper, format_trials, rank, weights_path
from crackseg.experiments.search.run import conclude
from crackseg.experiments.search.storage import open_storage
from crackseg.experiments.search.study import CONFIGURATION, Search, create_or_join, keep_space
from crackseg.params import Params, change_params
from crackseg.registry import register
from tests.unit.experiments.search.conftest import SPACE, Bench


def test_a_study_keeps_its_space_when_params_yaml_gets_another(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    search = bench.open("kept", 2)
    wider = SPACE | {"loss": SPACE["loss"] | {"name": ["focal", "bce_soft_f"]}}
    changed = change_params(bench.params, {"search.space": wider}, source="test")
    storage = open_storage(bench.address)
    assert keep_space(storage, "new", changed) == changed
    assert keep_space(storage, "kept", bench.params) == bench.params
    assert capsys.readouterr().out == ""
    kept = keep_space(storage, "kept", changed)
    assert kept == bench.params
    assert "loss.name: not there in the study, [focal, bce_soft_f] now" in capsys.readouterr().out
    again = create_or_join(bench.store, storage, "kept", kept, {}, bench.prepared_dir, num_trials=3)
    assert again.run_id == search.run_id
    assert [set(trial.params) for trial in bench.work(again)] == [{"optimizer.lr", "loss.gamma"}] * 3


def test_a_trial_that_fails_and_one_without_a_number_do_not_end_the_study(bench: Bench) -> None:
    def training(number: int, *_: Any) -> dict[str, float]:
        if number == 1:
            raise CracksegError("the training loss became nan")
        return {"ods": math.nan if number == 2 else 0.5}

    bench.training = training
    trials = bench.work(bench.open("failures"))
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert [bench.run_of(t).info.status for t in trials] == ["FINISHED", "FAILED", "FAILED", "FINISHED"]
    assert bench.run_of(trials[1]).data.tags["error"] == "the training loss became nan"
    assert "not a number" in bench.run_of(trials[2]).data.tags["error"]


def test_a_hopeless_trial_is_pruned_but_never_a_cell_of_the_paper(bench: Bench) -> None:
    def training(
        number: int, _params: Params, on_epoch: Callable[[int, dict[str, float]], None]
    ) -> dict[str, float]:
        value = 0.9 if number < 10 else 0.1
        for epoch in range(20):
            on_epoch(epoch, {"val/ods": value, "val/strict_ods": 0.0})
        return {"ods": value, "strict_ods": 0.0}

    bench.training = training
    search = bench.open("pruning", 14, search__pruner="median", search__paper="grid", train__epochs=20)
    trials = bench.work(search)
    configurations = [t for t in trials if CONFIGURATION in t.user_attrs]
    assert len(configurations) == 12
    assert [t.state.name for t in trials] == ["COMPLETE"] * 12 + ["PRUNED"] * 2
    assert bench.run_of(trials[-1]).info.status == "KILLED"
    assert bench.run_of(trials[-1]).data.tags["pruned"] == "true"
    rows = compare_with_paper(search)
    assert (rows[0].num_trials, rows[0].trial.number if rows[0].trial else None) == (12, 0)
    assert rows[-1].trial is None


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_told_to_stop_hands_its_trial_back(bench: Bench, how: signal.Signals) -> None:
    def training(*_: Any) -> dict[str, float]:
        signal.raise_signal(how)
        return {"ods": 0.5}

    bench.training = training
    search = bench.open(f"stopped-{how.name}", 1)
    with pytest.raises(KeyboardInterrupt):
        bench.work(search)
    assert [t.state.name for t in search.study.get_trials()] == ["WAITING"]


def test_only_the_best_weights_are_kept(bench: Bench) -> None:
    values = [0.3, 0.9, 0.1, 0.5, 0.7]
    bench.training = lambda number, *_: {"ods": values[number]}
    search = bench.open("weights", 5, search__keep=2)
    bench.work(search)
    assert [t.number for t in rank(search)] == [1, 4, 3, 0, 2]
    assert [number for number in range(5) if weights_path(search, number).exists()] == [1, 4]


def test_a_script_reads_the_trials_that_people_see(bench: Bench) -> None:
    def training(number: int, *_: Any) -> dict[str, float]:
        if number == 1:
            raise CracksegError("the training loss became nan")
        return {"ods": 0.3 + number / 10}

    bench.training = training
    bench.work(bench.open("as-json", 3))
    (study,) = json.loads(json.dumps(list_studies(bench.store, open_storage(bench.address), "as-json")))
    assert (study["study"], study["best"]) == ("as-json", 2)
    assert [t["state"] for t in study["trials"]] == ["complete", "fail", "complete"]
    assert study["trials"][1]["error"] == "the training loss became nan"
    assert study["trials"][2]["values"] == [0.5]
    assert set(study["trials"][2]["params"]) == {"optimizer.lr", "loss.gamma"}


def test_equal_seeds_give_equal_trials_also_after_a_break(bench: Bench) -> None:
    bench.training = lambda _number, params, *_: {"ods": 1 / (1 + params.loss.gamma)}
    whole = bench.work(bench.open("whole", 14))
    first = bench.work(bench.open("parts", 7))
    parts = bench.work(bench.open("parts", 14))
    assert [t.params for t in whole] == [t.params for t in parts]
    assert [t.params for t in first] == [t.params for t in parts[:7]]
    assert whole[0].params != bench.work(bench.open("other", 1, search__seed=1))[0].params
    assert len({t.params["loss.gamma"] for t in whole}) == 14


def test_when_the_time_is_over_the_trial_waits_with_its_settings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    clock = SimpleNamespace(time=lambda: now[0], monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr("crackseg.experiments.search.worker.time", clock)

    def training(
        _number: int, _params: Params, on_epoch: Callable[[int, dict[str, float]], None]
    ) -> dict[str, float]:
        now[0] = 1002.0
        on_epoch(0, {"val/ods": 0.5})
        return {"ods": 0.5}

    bench.training = training
    search = bench.open("time", 2)
    stopped = bench.work(search, deadline=1001.0)
    assert [t.state.name for t in stopped] == ["WAITING", "WAITING"]
    assert bench.run_of(stopped[0]).info.status == "KILLED"
    went_on = bench.work(search)
    assert [t.state.name for t in went_on] == ["COMPLETE", "COMPLETE"]
    assert went_on[0].params == stopped[0].params
    assert went_on[0].user_attrs["run_id"] == stopped[0].user_attrs["run_id"]  # one trial is one run


def test_two_objectives_give_a_front_and_no_pruning(bench: Bench) -> None:
    values = [(0.9, 30.0), (0.8, 10.0), (0.7, 20.0)]

    def training(
        number: int, _params: Params, on_epoch: Callable[[int, dict[str, float]], None]
    ) -> dict[str, float]:
        on_epoch(0, {"val/ods": 0.0})
        return dict(zip(("ods", "parameters"), values[number], strict=True))

    bench.training = training
    search = bench.open("two", 3, search__second_objective="parameters", search__pruner="median")
    trials = bench.work(search)
    assert [t.values for t in trials] == [list(v) for v in values]
    assert sorted(t.number for t in search.study.best_trials) == [0, 1]
    assert [t.number for t in rank(search)] == [0, 1, 2]


def test_the_grid_sampler_goes_through_every_point_once(bench: Bench) -> None:
    bench.training = lambda *_: {"ods": 0.5}
    space = {"loss": {"gamma": [1, 2], "alpha": [1, 3]}}
    trials = bench.work(bench.open("grid", 10, search__sampler="grid", search__space=space))
    assert sorted((t.params["loss.gamma"], t.params["loss.alpha"]) for t in trials) == [
        (1.0, 1.0), (1.0, 3.0), (2.0, 1.0), (2.0, 3.0),
    ]  # fmt: skip


def test_trials_are_added_to_the_number_asked_for_and_the_cells_only_once(bench: Bench) -> None:
    def configurations(search: Search) -> list[str]:
        return [t.user_attrs[CONFIGURATION] for t in search.study.get_trials() if CONFIGURATION in t.user_attrs]

    search = bench.open("more", 3, search__paper="table3")
    assert (len(search.study.get_trials()), len(configurations(search))) == (3, 3)
    bench.open("more", None, search__paper="table3")
    assert len(search.study.get_trials()) == 3
    bench.open("more", 6, search__paper="table3")
    assert (len(search.study.get_trials()), len(set(configurations(search)))) == (6, 3)


def test_what_is_left_of_a_trial_is_removed_when_it_has_ended_wherever(bench: Bench) -> None:
    bench.training = lambda *_: {"ods": 0.5}
    search = bench.open("left", 2)
    ghost = search.folder / "trials" / "0000-of-another-worker"
    ghost.mkdir(parents=True)
    bench.work(search)
    assert not ghost.exists()


def test_the_studys_run_shows_the_best_settings_and_none_of_an_earlier_best(bench: Bench) -> None:
    space = {"loss": {"name": ["focal", "bce"], "gamma": {"low": 1, "high": 5, "when": {"loss.name": "focal"}}}}
    search = bench.open("best", 12, search__space=space)
    first = search.study.get_trials()
    bench.training = lambda _number, params, *_: {"ods": 0.9 if params.loss.name == "bce" else 0.5}
    trials = bench.work(search)
    assert len(first) == len(trials) == 12
    with bench.store.record(search.run_id) as recorder:
        recorder.set_tags({"best.loss.gamma": "2.5"})  # of a best with the focal loss, before
    said = conclude(bench.store, search)
    tags = bench.store.get_run(search.run_id).data.tags
    assert (tags["best.loss.name"], tags["best.loss.gamma"]) == ("bce", "–")
    assert "best: trial" in said
    assert bench.store.get_run(search.run_id).info.status == "FINISHED"
    conclude(bench.store, search)  # by the same command, after it was killed at its end
    assert [m.step for m in bench.store.client.get_metric_history(search.run_id, "best/ods")] == [12]


def test_trials_of_the_front_are_marked(bench: Bench) -> None:
    values = [(0.9, 30.0), (0.8, 10.0), (0.7, 20.0)]
    bench.training = lambda number, *_: dict(zip(("ods", "parameters"), values[number], strict=True))
    search = bench.open("marked", 3, search__second_objective="parameters")
    lines = format_trials(search, bench.work(search)).splitlines()[2:]
    assert ["(Pareto front)" in line for line in lines] == [True, True, False]


def test_a_registered_model_processes_its_maps_as_its_trial_did(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SeenError(Exception):
        pass

    def build(*arguments: Any, **_: Any) -> None:
        raise SeenError(arguments[3].method)

    search = bench.open(
        "maps", 1, search__space={"postprocess": {"method": ["hysteresis"], "low_ratio": [0.5, 0.6]}}
    )
    bench.training = lambda *_: {"ods": 0.5}
    bench.work(search)
    monkeypatch.setattr(register, "build_analyzer", build)
    monkeypatch.setattr(outcomes, "prepare_for", lambda *_: bench.prepared_dir)
    with pytest.raises(SeenError, match="hysteresis"):
        outcomes.register_trial(bench.folder, bench.store, search, 0)
