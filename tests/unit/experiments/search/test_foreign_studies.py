"""Studies and files of another space, version or program: imported, or refused and left as they are."""

import re
import time
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from crackseg.errors import CracksegError
from crackseg.experiments.search.listing import show
from crackseg.experiments.search.run import _announce
from crackseg.experiments.search.storage import import_journal, open_storage
from crackseg.experiments.search.study import load_search
from tests.unit.experiments.search.conftest import Bench


def test_a_study_of_another_space_is_refused_with_the_difference_and_a_new_name(bench: Bench) -> None:
    bench.open("mine", 1)
    with pytest.raises(CracksegError, match=r"loss\.gamma: 0 to 5 in the study, 0 to 8 now[\s\S]*--study mine-2"):
        bench.open("mine", 1, search__space__loss__gamma__high=8)
    with pytest.raises(CracksegError, match=r"train\.epochs: 300 in the study, 7 now"):
        bench.open("mine", 1, train__epochs=7)
    for key, value in [("train__num_workers", 3), ("registry__max_drop", 0.1), ("predict__engine", "torch")]:
        bench.open("mine", 1, **{key: value})  # nothing follows from it
    bench.open("mine", 1, data__evaluate_split="val")  # trials are scored on validation images
    assert load_search(bench.store, open_storage(bench.address), "mine").name == "mine"


def test_the_journal_of_an_earlier_version_is_imported_once_and_its_trials_are_resumed(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bench.training = lambda *_: {"ods": 0.5}
    made = bench.open("earlier", 3)
    bench.work(made, deadline=time.time() + 1e6)
    journal = tmp_path / "journal.log"
    earlier = JournalStorage(JournalFileBackend(str(journal)))
    optuna.copy_study(from_study_name="earlier", from_storage=made.storage, to_storage=earlier)
    study = optuna.load_study(study_name="earlier", storage=earlier)
    running = study.ask({"loss.gamma": FloatDistribution(0, 5)})  # killed with the earlier version
    running.set_user_attr("attempts", 1)
    before = journal.read_bytes()

    storage = open_storage(str(journal))
    said = capsys.readouterr().out
    assert f"imported 1 studies of {journal} (earlier)" in said
    trials = optuna.load_study(study_name="earlier", storage=storage).get_trials()
    assert [t.state.name for t in trials] == ["COMPLETE"] * 3 + ["WAITING"]
    assert [(t.number, t.values, t.params, t.user_attrs) for t in trials] == [
        (t.number, t.values, t.params, t.user_attrs) for t in study.get_trials()
    ]
    assert optuna.load_study(study_name="earlier", storage=storage).user_attrs == made.study.user_attrs
    storage.set_trial_state_values(trials[3]._trial_id, TrialState.FAIL)
    open_storage(str(journal))
    assert capsys.readouterr().out == ""  # once
    assert open_storage(str(journal)).get_all_trials(1)[3].state == TrialState.FAIL
    assert journal.read_bytes() == before


def test_a_file_that_is_no_journal_is_refused_and_no_database_is_left(tmp_path: Path) -> None:
    (tmp_path / "notes.log").write_text("not a journal\n")
    with pytest.raises(CracksegError, match=r"notes\.log: .*neither a SQLite database nor a journal.*move"):
        import_journal(tmp_path / "notes.log", tmp_path / "studies.db")
    assert not list(tmp_path.glob("*.db")) + list(tmp_path.glob("*.importing*"))


@pytest.mark.parametrize("address", ["redis://db/0", "grpc://db:13000"])
def test_a_storage_without_heartbeats_is_refused(address: str) -> None:
    with pytest.raises(CracksegError, match=r"has no heartbeats.*expected a URL, e.g. postgresql"):
        open_storage(address)


def test_a_storage_that_cannot_be_reached_says_so_without_its_password() -> None:
    with pytest.raises(CracksegError, match=r"postgresql://me:\*\*\*@127\.0\.0\.1:1/db cannot be reached"):
        open_storage("postgresql://me:secret@127.0.0.1:1/db")
    with pytest.raises(CracksegError, match=r"cannot be reached.*expected a URL"):
        open_storage("nonsense://here")


def test_a_study_that_is_not_ours_is_refused_and_left_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crackseg.experiments.search.study._READY_WAIT_S", 0)
    foreign = optuna.create_study(study_name="foreign", storage=open_storage(bench.address))
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(CracksegError, match=r"'foreign' .*not made by `crackseg search`; choose another name"):
        bench.open("foreign")
    assert len(foreign.get_trials()) == 1
    assert not foreign.user_attrs


def test_a_study_of_another_version_hides_no_others(bench: Bench) -> None:
    old = bench.open("old", 1)
    bench.open("present", 1)
    config = old.study.user_attrs["crackseg"]
    del config["params"]["loss"]["gamma"]
    old.study.set_user_attr("crackseg", config)
    listed = show(bench.store, open_storage(bench.address), None)
    assert re.search(r"old: .*another version of crackseg.*loss\.gamma", listed)
    assert "present: 1 waiting" in listed
    with pytest.raises(CracksegError, match="another version"):
        load_search(bench.store, open_storage(bench.address), "old")


def test_a_password_is_not_shown(bench: Bench, capsys: pytest.CaptureFixture) -> None:
    _announce(bench.open("secret", 1), "postgresql://me:secret@db/optuna")
    said = capsys.readouterr().out
    assert "postgresql://me:***@db/optuna" in said
    assert ":secret@" not in said
