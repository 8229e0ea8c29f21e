"""Whose worker is dead: by its lock on this machine, by its heartbeats on another."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from crackseg.search import liveness
from crackseg.search.liveness import BEAT, WORKER, Life, Watch
from crackseg.search.storage import PatientStorage


def running(token: str, beat: int | None = None) -> FrozenTrial:
    attributes: dict[str, object] = {WORKER: token} | ({} if beat is None else {BEAT: beat})
    trial = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
    trial.number = 3
    return trial


@pytest.fixture
def storage() -> PatientStorage:
    return PatientStorage(optuna.storages.InMemoryStorage())


def test_a_worker_of_this_machine_is_dead_as_soon_as_its_lock_is_free(
    tmp_path: Path, storage: PatientStorage
) -> None:
    life = Life(tmp_path)
    watch = Watch(tmp_path, storage)
    assert not watch.is_dead(running(life.token))
    life._lock.release()  # what the system does when a process is killed
    (tmp_path / life.token).touch()
    assert watch.is_dead(running(life.token))


def test_a_worker_that_ended_without_handing_back_its_trial_is_dead_at_once(
    tmp_path: Path, storage: PatientStorage
) -> None:
    life = Life(tmp_path)
    life.end(has_trial=True)
    assert Watch(tmp_path, storage).is_dead(running(life.token))


def test_a_worker_elsewhere_is_dead_when_its_heart_stands_still(tmp_path: Path, storage: PatientStorage) -> None:
    now = 0.0
    watch = Watch(tmp_path, storage, clock=lambda: now)
    assert not watch.is_dead(running("elsewhere", 1))
    now = liveness.GRACE_S - 1
    assert not watch.is_dead(running("elsewhere", 1))
    assert not watch.is_dead(running("elsewhere", 2))
    now += liveness.GRACE_S - 1
    assert not watch.is_dead(running("elsewhere", 2))
    now += 2
    assert watch.is_dead(running("elsewhere", 2))


def test_nobody_is_dead_because_the_database_was_away(tmp_path: Path, storage: PatientStorage) -> None:
    now = 0.0
    watch = Watch(tmp_path, storage, clock=lambda: now)
    assert not watch.is_dead(running("elsewhere", 1))
    storage.num_outages += 1
    now = 10 * liveness.GRACE_S
    assert not watch.is_dead(running("elsewhere", 1))
    now += liveness.GRACE_S + 1
    assert watch.is_dead(running("elsewhere", 1))
