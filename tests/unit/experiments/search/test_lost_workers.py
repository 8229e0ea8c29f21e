"""A worker or the database that is away for a while loses no trial, and a dead worker's trial is run again."""

import time
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from crackseg.errors import CracksegError
from crackseg.experiments.search.storage import HEARTBEAT_S, Storage, open_storage
from crackseg.experiments.search.study import Search
from crackseg.experiments.search.worker import WORKER
from tests.unit.experiments.search.conftest import Bench


def test_the_trial_of_a_dead_worker_is_run_again_and_one_that_kills_them_all_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crackseg.experiments.search.storage.Storage._wait_for_heartbeats", _judge_at_once)
    bench.training = lambda *_: {"ods": 0.5}
    search = bench.open("dead", 3)
    for number, attempts in ((0, 1), (1, 3)):
        trial_id = search.study.get_trials()[number]._trial_id
        search.storage.record_heartbeat(trial_id)
        search.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        search.storage.set_trial_user_attr(trial_id, WORKER, "dead")
        search.storage.set_trial_user_attr(trial_id, "attempts", attempts)
    assert search.storage.list_stale_trials(search.study._study_id) == []  # they have just shown that they live
    _age_heartbeats(search, 3600)
    trials = bench.work(search)
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "died 3 times" in trials[1].user_attrs["error"]


def test_no_one_counts_as_dead_because_the_database_was_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = bench.open("away", 1)
    storage, trial_id = search.storage, search.study.get_trials()[0]._trial_id
    storage.record_heartbeat(trial_id)
    storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    _age_heartbeats(search, 3600)
    assert storage.list_stale_trials(search.study._study_id) == []  # a worker has just begun to look
    now = time.monotonic()
    monkeypatch.setattr("crackseg.experiments.search.storage.time.monotonic", lambda: now)
    now += 2 * HEARTBEAT_S
    assert storage.list_stale_trials(search.study._study_id) == [trial_id]
    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "record_heartbeat", _raise_outage)
        storage.record_heartbeat(trial_id)  # Optuna's thread goes on beating
    assert storage.list_stale_trials(search.study._study_id) == []


def _judge_at_once(storage: Storage) -> None:
    storage._judges_from = 0.0


def _age_heartbeats(search: Search, seconds: int) -> None:
    with search.storage.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE trial_heartbeats SET heartbeat = datetime('now', '-{seconds} seconds')"
        )


def _raise_outage(*_: Any) -> None:
    raise ConnectionError("gone")


def test_a_storage_that_comes_back_is_waited_for_and_one_that_does_not_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_all_studies() -> list:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("crackseg.experiments.search.storage._RETRY_S", 0.01)
    storage = open_storage(bench.address)
    answers = iter([ConnectionError("gone"), ConnectionError("gone"), []])
    assert storage.patiently(get_all_studies) == []
    storage._patience_s = 0.05
    answers = iter([ConnectionError("gone")] * 1000)
    with pytest.raises(CracksegError, match="did not answer"):
        storage.patiently(get_all_studies)
    answers = iter([KeyError("of another kind")])
    with pytest.raises(KeyError):
        storage.patiently(get_all_studies)


def test_a_worker_that_starts_while_the_server_is_away_waits_but_a_user_is_told_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_third_time(_address: str) -> Storage:
        if tries := next(left):
            inner = ConnectionError(f"the server closed the connection, {tries} to go")
            raise optuna.exceptions.StorageInternalError("invalid data in the commit") from inner
        return opened

    opened = open_storage(bench.address)
    monkeypatch.setattr("crackseg.experiments.search.storage._RETRY_S", 0.01)
    monkeypatch.setattr("crackseg.experiments.search.storage._open", open_third_time)
    left = iter([2, 1, 0])
    assert open_storage("postgresql://db/x", patience_s=60) is opened
    left = iter([2, 1, 0])
    with pytest.raises(CracksegError, match="cannot be reached: the server closed the connection, 2 to go"):
        open_storage("postgresql://db/x")


def test_a_worker_that_was_taken_for_dead_changes_nothing_and_goes_on(bench: Bench) -> None:
    search = bench.open("taken", 2)

    def training(number: int, *_: Any) -> dict[str, float]:
        if number == 0:  # meanwhile another worker took the trial and finished it
            trial_id = search.study.get_trials()[0]._trial_id
            search.storage.set_trial_user_attr(trial_id, WORKER, "another")
            search.storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.9])
            raise FileNotFoundError("the checkpoint is gone")
        return {"ods": 0.5}

    bench.training = training
    trials = bench.work(search)
    assert [(t.state.name, t.value) for t in trials] == [("COMPLETE", 0.9), ("COMPLETE", 0.5)]
    assert "error" not in trials[0].user_attrs
