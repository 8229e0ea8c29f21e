"""`crackseg search` as a user meets it: real trainings of a tiny network, real processes, MLflow and Optuna."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial

from crackseg.cli import cli
from crackseg.errors import CracksegError
from crackseg.experiments.search.storage import open_storage
from crackseg.params import load_params
from tests.migrated_store import copy_migrated_store
from tests.pipeline.conftest import Project, make_project
from tests.pipeline.postgres import PostgresServer, postgres_server

postgres = pytest.fixture(postgres_server, scope="module")
SETTINGS = (
    "-S", "search.space.model.init=null", "-S", "search.paper=table3", "-S", "train.patches_per_image=2",
    "-S", "search.keep=2",
)  # fmt: skip
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


def search(project: Project, *arguments: str, fails: bool = False) -> str:
    return project.run("crackseg", "search", *arguments, fails=fails)


@pytest.fixture
def start(fresh: Project) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts searches in the fresh project, each as a job of a terminal; what is left of them ends with the test."""
    processes: list[subprocess.Popen] = []

    def begin(*arguments: str) -> subprocess.Popen:
        with (fresh.folder.parent / "search.log").open("a") as log:
            command = [sys.executable, "-m", "crackseg", "search", *arguments]
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=fresh.folder,
                    env=fresh.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def load_trials(address: str, name: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=open_storage(address)).get_trials()


def database_of(project: Project) -> str:
    return str(project.folder / "mlruns" / "search" / "studies.db")


def runs_of(project: Project, name: str, server: str = "") -> list[Run]:
    client = MlflowClient(server or f"sqlite:///{project.folder / 'mlruns' / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(experiments, f"tags.`search.study` = '{name}'")


def check_agreement(project: Project, name: str, trials: list[FrozenTrial], server: str = "") -> Run:
    """MLflow and Optuna say the same of every trial; returns the study's run."""
    runs = runs_of(project, name, server)
    (parent,) = [run for run in runs if "search.trial" not in run.data.tags]
    children = {int(run.data.tags["search.trial"]): run for run in runs if run is not parent}
    assert len(children) == len(runs) - 1  # no number twice
    assert sorted(children) == [trial.number for trial in trials]
    for trial in trials:
        run = children[trial.number]
        assert run.info.status == STATUS[trial.state.name]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for key, value in trial.params.items():
            assert run.data.params[key] == str(value)
        if trial.state.name == "COMPLETE":
            assert run.data.metrics["CrackTree260/ods"] == pytest.approx(trial.values[0])
        assert ("pruned" in run.data.tags) == (trial.state.name == "PRUNED")
    assert parent.info.status == "FINISHED"
    return parent


def children_of(pid: int) -> list[int]:
    import psutil

    return [p.pid for p in psutil.Process(pid).children() if "spawn_main" in " ".join(p.cmdline())]


def wait_for(condition: object, seconds: float = 280) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a study of six trials."""
    project = make_project(tmp_path_factory.mktemp("searched") / "project")
    copy_migrated_store(project.folder / "mlruns" / "mlflow.db")
    (project.folder.parent / "first.log").write_text(search(project, "--study", "six", "--trials", "6", *SETTINGS))
    return project


def test_the_papers_cells_are_first_and_the_workspace_stays_clean(searched: Project) -> None:
    assert searched.run("git", "status", "--porcelain") == ""
    trials = load_trials(database_of(searched), "six")
    assert [trial.user_attrs.get("cell") for trial in trials] == [
        "table3-random-bce", "table3-random-focal-g1", "table3-random-focal-g2", "table3-random-focal-g4", None, None,
    ]  # fmt: skip
    parent = check_agreement(searched, "six", trials)
    best = max((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: t.values[0])
    assert parent.data.tags["best.trial"] == str(best.number)
    assert parent.data.tags["best.optimizer.lr"] == str(best.params["optimizer.lr"])
    client = MlflowClient(f"sqlite:///{searched.folder / 'mlruns' / 'mlflow.db'}")
    figures = {f.path for f in client.list_artifacts(parent.info.run_id, "search")}
    assert {"search/search.md", "search/history.png", "search/slices.png"} <= figures
    said = (searched.folder.parent / "first.log").read_text()
    assert "| the paper's cells |" in said
    assert f"best: trial {best.number}" in said
    assert len(list((searched.folder / "mlruns" / "search").glob("six-*/weights/*.pt"))) == 2
    assert not list((searched.folder / "mlruns" / "search").glob("six-*/trials/*"))


def test_apply_writes_the_settings_and_leaves_the_rest_as_it_was(searched: Project) -> None:
    path = searched.folder / "params.yaml"
    before = path.read_text(encoding="utf-8")
    trial = load_trials(database_of(searched), "six")[3]
    try:
        said, _ = searched.call("search", "apply", "--trial", "3")
        params = load_params(path)
        after = path.read_text(encoding="utf-8")
    finally:
        path.write_text(before, encoding="utf-8")
    assert (params.loss.gamma, params.optimizer.lr) == (trial.params["loss.gamma"], trial.params["optimizer.lr"])
    assert params.train.epochs == int(
        before.split("epochs: ")[1].split()[0]
    )  # a search's small budget is none for the model in the end
    assert "left as params.yaml has them" in said
    assert "loss.gamma: 2.0 -> 4.0" in said
    assert [line.split("#")[-1] for line in before.splitlines() if "#" in line] == [
        line.split("#")[-1] for line in after.splitlines() if "#" in line
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--study", "six", *SETTINGS, "-S", "search.space.loss.gamma.high=8"),
            r"loss\.gamma: 0 to 5.*0 to 8[\s\S]*six-2",
        ),
        (("--study", "six", *SETTINGS, "-S", "train.epochs=9"), r"train\.epochs: 2 in the study, 9 now"),
        (("--study", "bad", "-S", "search.space.loss.gama={low: 0, high: 1}"), r"did you mean loss\.gamma"),
        (("--study", "bad", "-S", "search.space={}"), "nothing to search"),
        (("--study", "bad", "-S", "loss.gama=1"), r"did you mean loss\.gamma"),
        (("--study", "bad", "--storage", "postgresql://127.0.0.1:1/x"), "cannot be reached"),
        (("--study", "bad", "-S", "data.train_dataset=CRKWH100"), "has no training images"),
        (("--study", "bad name"), "no blanks"),
        (("--study", "bad", "-S", "model.architecture=unett"), "did you mean unet"),
        (("apply", "--study", "none"), "no study 'none'"),
        (("apply", "--trial", "99"), "trial 99"),
    ],
)
def test_mistakes_end_in_one_message_and_begin_nothing(
    searched: Project, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(searched.folder)
    with pytest.raises(CracksegError, match=message):
        cli(["search", *arguments], standalone_mode=False)
    assert [s.study_name for s in open_storage(database_of(searched)).get_all_studies()] == ["six"]
    assert len(load_trials(database_of(searched), "six")) == 6
    assert searched.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_stopped_and_a_killed_search_go_on_with_the_trials_left(
    fresh: Project, start: Callable[..., subprocess.Popen]
) -> None:
    arguments = ("--study", "stops", "--trials", "7", *SETTINGS)

    def finished() -> int:
        if not Path(database_of(fresh)).exists():
            return 0
        try:
            return sum(t.state.is_finished() for t in load_trials(database_of(fresh), "stops"))
        except KeyError:  # the file is there, the study not yet
            return 0

    for number, how in ((1, signal.SIGINT), (2, signal.SIGTERM), (3, signal.SIGKILL)):
        process = start(*arguments)
        wait_for(lambda n=number: finished() >= n)
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # a terminal sends it to the workers, too
        else:
            process.send_signal(how)
        assert process.wait(120) != 0
        if how == signal.SIGKILL:
            time.sleep(3)  # the orphan notices
        states = [t.state.name for t in load_trials(database_of(fresh), "stops")]
        if how != signal.SIGKILL:
            assert "RUNNING" not in states
    search(fresh, *arguments)
    trials = load_trials(database_of(fresh), "stops")
    assert len(trials) == 7
    check_agreement(fresh, "stops", trials)
    assert fresh.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_the_best_go_to_the_dvc_queue_and_one_to_the_registry(searched: Project) -> None:
    said = search(searched, "queue", "--top", "1", "--seeds", "2")
    status = searched.run("dvc", "queue", "status")
    try:
        assert said.count("queued six-") == 2
        assert status.count("Queued") == 2
    finally:
        searched.run("dvc", "queue", "remove", "--all")
    assert "registered: models:/crackseg/1" in search(searched, "register")
    assert searched.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_server_restarted_between_any_two_statements_is_waited_for(postgres: PostgresServer) -> None:
    address = postgres.create_database("restarts")
    study = optuna.create_study(study_name="restarts", storage=open_storage(address))
    trial_ids = [study.ask()._trial_id for _ in range(3)]
    rounds, stopped, errors = [0] * len(trial_ids), threading.Event(), []

    def work(i: int) -> None:
        def take_turn() -> None:
            storage.record_heartbeat(trial_ids[i])
            storage.set_trial_user_attr(trial_ids[i], "round", rounds[i])
            storage.set_trial_intermediate_value(trial_ids[i], rounds[i], 0.5)
            assert storage.get_all_trials(study._study_id)[i].user_attrs["round"] == rounds[i]

        try:
            storage = open_storage(address, patience_s=120)
            while not stopped.is_set():
                storage.patiently(take_turn)
                rounds[i] += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(trial_ids))]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(2)
        postgres.stop()
        postgres.start()
    before = list(rounds)
    wait_for(lambda: errors or all(now > then for now, then in zip(rounds, before, strict=True)), 120)
    stopped.set()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_workers_on_postgresql_lose_and_double_nothing(
    fresh: Project, postgres: PostgresServer, start: Callable[..., subprocess.Popen]
) -> None:
    address = postgres.create_database("search")
    plain = address.replace("postgresql+psycopg://", "postgresql://")
    arguments = ("--study", "team", "--storage", plain)
    longer = (
        "-S",
        "train.epochs=8",
        "-S",
        "train.patches_per_image=20",
    )  # so that four work at once, also on busy cores
    process = start(*arguments, "--trials", "12", "--jobs", "3", *SETTINGS, *longer)

    storage = open_storage(address)

    def states() -> list[str]:
        studies = storage.get_all_studies()
        return [t.state.name for t in storage.get_all_trials(studies[0]._study_id)] if studies else []

    wait_for(lambda: "RUNNING" in states())
    joined = start(*arguments)  # without any settings, as on another machine
    wait_for(lambda: states().count("RUNNING") == 4)
    victim = children_of(process.pid)[0]
    os.kill(victim, signal.SIGKILL)  # in mid-trial
    done = sum(s in STATUS for s in states())
    wait_for(lambda: sum(s in STATUS for s in states()) >= done + 2)
    postgres.stop()
    time.sleep(5)
    postgres.start()
    assert (process.wait(400), joined.wait(400)) == (0, 0), (fresh.folder.parent / "search.log").read_text()
    trials = load_trials(address, "team")
    assert len(trials) == 12
    assert all(trial.state.is_finished() for trial in trials)
    assert [trial.user_attrs["error"] for trial in trials if trial.state.name == "FAIL"] == []
    check_agreement(fresh, "team", trials)
    assert max(trial.user_attrs["attempts"] for trial in trials) == 2
    configurations = [trial.user_attrs["cell"] for trial in trials if "cell" in trial.user_attrs]
    assert len(configurations) == len(set(configurations)) == 4
