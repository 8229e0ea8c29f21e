"""What a worker does with trials that end in all ways; the training itself is played by a function."""

import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from crackseg.data.synthetic.sample import write_sample
from crackseg.errors import CracksegError
from crackseg.experiments.search import outcomes, worker
from crackseg.experiments.search.outcomes import list_studies, show
from crackseg.experiments.search.results import compare_with_paper, format_trials, rank, weights_path
from crackseg.experiments.search.run import _announce, conclude
from crackseg.experiments.search.storage import HEARTBEAT_S, Storage, import_journal, open_storage
from crackseg.experiments.search.study import CONFIGURATION, Search, create_or_join, keep_space, load_search
from crackseg.experiments.search.worker import WORKER, Job, work
from crackseg.params import Params, change_params, load_params
from crackseg.registry import register
from crackseg.tracking.store import Store
from crackseg.training.run import TrialStopped

ROOT = Path(__file__).parents[4]
SPACE = {
    "optimizer": {"lr": {"low": 1e-4, "high": 0.1, "log": True}},
    "loss": {"gamma": {"low": 0, "high": 5}},
}
Training = Callable[[int, Params, Callable[[int, dict[str, float]], None]], dict[str, float]]


class Bench:
    """A project folder, and studies made and worked in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(ROOT / name, folder / name)
        write_sample(folder / "data", seed=1, counts={"CrackTree260": (2, 1, 0)}, size=(64, 64))
        self.prepared_dir = folder / "data"  # nothing reads the images here
        self.store = Store(folder)
        base = load_params(folder / "params.yaml")
        self.params = change_params(
            base, {"search.space": SPACE, "search.paper": "none", "search.pruner": "none"}, source="test"
        )
        self.training: Training = lambda number, params, on_epoch: {"ods": 0.5}

    def open(self, name: str, num_trials: int | None = 4, **changes: Any) -> Search:
        params = change_params(self.params, {k.replace("__", "."): v for k, v in changes.items()}, source="test")
        storage = open_storage(self.address)
        return create_or_join(self.store, storage, name, params, {}, self.prepared_dir, num_trials=num_trials)

    @property
    def address(self) -> str:
        return str(self.folder / "studies.db")

    def work(self, search: Search, deadline: float | None = None) -> list[optuna.trial.FrozenTrial]:
        job = Job(
            self.folder, self.address, search.name, search.params, {}, search.run_id, search.folder,
            self.prepared_dir, deadline, 1, os.getppid(),
        )  # fmt: skip
        work(job)
        return search.study.get_trials()

    def run_of(self, trial: optuna.trial.FrozenTrial) -> Any:
        return self.store.get_run(trial.user_attrs["run_id"])


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(shared_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    def play(
        store: Store,
        params: Params,
        prepared_dir: Path,
        folder: Path,
        *,
        name: str,
        parent: str,
        tags: Mapping[str, str],
        on_epoch: Callable[[int, dict[str, float]], None],
        weights_path: Path | None,
        measure_size: bool,
    ) -> dict[str, float]:
        """run_trial without a training; ends its run as run_trial does."""
        run_id, _ = store.continue_run(folder / "run.json", name=name, parent=parent)
        with store.record(run_id) as recorder:
            try:
                figures = shared_bench.training(int(tags["search.trial"]), params, on_epoch)
            except TrialStopped as stopped:
                recorder.set_tags({stopped.tag: "true"})
                recorder.end("KILLED")
                raise
            recorder.end("FINISHED")
        if weights_path:
            weights_path.parent.mkdir(exist_ok=True)
            weights_path.write_bytes(b"weights")
        return figures

    monkeypatch.setattr(worker, "run_trial", play)
    return shared_bench


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


def test_when_the_time_is_over_the_trial_waits_with_its_settings(bench: Bench) -> None:
    def training(
        _number: int, _params: Params, on_epoch: Callable[[int, dict[str, float]], None]
    ) -> dict[str, float]:
        time.sleep(0.6)
        on_epoch(0, {"val/ods": 0.5})
        return {"ods": 0.5}

    bench.training = training
    search = bench.open("time", 2)
    stopped = bench.work(search, deadline=time.time() + 0.5)
    assert [t.state.name for t in stopped] == ["WAITING", "WAITING"]
    assert bench.run_of(stopped[0]).info.status == "KILLED"
    went_on = bench.work(search)
    assert [t.state.name for t in went_on] == ["COMPLETE", "COMPLETE"]
    assert went_on[0].params == stopped[0].params
    assert went_on[0].user_attrs["run_id"] == stopped[0].user_attrs["run_id"]  # one trial is one run


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


def test_trials_are_added_to_the_number_asked_for_and_the_cells_only_once(bench: Bench) -> None:
    def configurations(search: Search) -> list[str]:
        return [t.user_attrs[CONFIGURATION] for t in search.study.get_trials() if CONFIGURATION in t.user_attrs]

    search = bench.open("more", 3, search__paper="table3")
    assert (len(search.study.get_trials()), len(configurations(search))) == (3, 3)
    bench.open("more", None, search__paper="table3")
    assert len(search.study.get_trials()) == 3
    bench.open("more", 6, search__paper="table3")
    assert (len(search.study.get_trials()), len(set(configurations(search)))) == (6, 3)


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


def test_what_is_left_of_a_trial_is_removed_when_it_has_ended_wherever(bench: Bench) -> None:
    bench.training = lambda *_: {"ods": 0.5}
    search = bench.open("left", 2)
    ghost = search.folder / "trials" / "0000-of-another-worker"
    ghost.mkdir(parents=True)
    bench.work(search)
    assert not ghost.exists()


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


def test_trials_of_the_front_are_marked(bench: Bench) -> None:
    values = [(0.9, 30.0), (0.8, 10.0), (0.7, 20.0)]
    bench.training = lambda number, *_: dict(zip(("ods", "parameters"), values[number], strict=True))
    search = bench.open("marked", 3, search__second_objective="parameters")
    lines = format_trials(search, bench.work(search)).splitlines()[2:]
    assert ["(Pareto front)" in line for line in lines] == [True, True, False]


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
