"""Commands that `make faults` kills, what each begins with, and what must come out as if nothing had happened."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import torch

from crackseg.data.versioning import find_experiment, read_of_experiment
from crackseg.experiments.search.storage import open_storage
from crackseg.registry.production import Production
from crackseg.tracking.store import Store
from crackseg.tracking.transfer.folder import MANIFEST
from tests.pipeline.conftest import Project
from tests.registry_store import PROCESSES, describe
from tests.unit.data.importing.raw_sources import add_masks, add_photos, make_photo

MODEL = "crackseg"
_TINY_SEARCH = (
    "-S", "search.space.model.init=null", "-S", "search.paper=table3", "-S", "train.patches_per_image=2",
    "-S", "train.epochs=1",
)  # fmt: skip
_TIMES = ("image", "size_bytes", "modified_ns", "model")  # columns of predictions.csv that differ between copies


@dataclass(frozen=True)
class Scenario:
    """A command, and how to judge it.

    Attributes:
        name: in a word.
        command: what is killed and started again.
        begin: brings a finished project to where the command starts.
        outcome: what must be as in an undisturbed run.
        done: what the command says, with exit code 1, where the killed one had finished.
    """

    name: str
    command: tuple[str, ...]
    begin: Callable[[Project], None]
    outcome: Callable[[Project], Any]
    done: str = ""


def open_store(project: Project) -> Store:
    """The project's store, in a process of its own (:func:`ask`)."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return Store(project.folder)


def ask(question: Callable[[Project], Any], project: Project) -> Any:
    """Answer a question about a project in a process of its own.

    MLflow keeps a database open, also one whose file has been replaced since.
    """
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_answer, args=(question, project, sender))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = RuntimeError(f"{question.__name__} ended without an answer")
    process.join()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _answer(question: Callable[[Project], Any], project: Project, sender: Connection) -> None:
    try:
        sender.send(question(project))
    except Exception as error:
        sender.send(RuntimeError(repr(error)))


def hash_tree(folder: Path) -> dict[str, str]:
    """Digests of all files of a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith(".lock")
    }


def _begin_import(project: Project) -> None:
    source = project.folder.parent / "wall-source"
    shutil.rmtree(source, ignore_errors=True)
    stems = [str(i) for i in range(30)]
    add_photos(source / "images", stems)
    add_masks(source / "masks", stems)


def _imported(project: Project) -> Any:
    return hash_tree(project.folder / "data" / "wall"), (project.folder / ".import-data").exists()


def _begin_training(project: Project) -> None:
    project.set_params({"train": {"seed": 5, "epochs": 6}})


def _trained(project: Project) -> Any:
    outputs = project.folder / "outputs"
    state = torch.load(outputs / "model" / "weights.pt", weights_only=True)["state_dict"]
    run_id = json.loads((outputs / "model" / "run.json").read_text())["run_id"]
    store = open_store(project)
    same = [r for r in store.client.search_runs([store.experiment_id]) if r.data.params.get("train.seed") == "5"]
    steps = [m.step for m in store.client.get_metric_history(run_id, "train/loss")]
    scores = {p.name: json.loads(p.read_text()) for p in sorted((outputs / "scores").glob("*.json"))}
    clean = project.run("dvc", "status").strip()
    return {k: v.tolist() for k, v in state.items()}, len(same), steps, scores, clean


def _experimented(project: Project) -> Any:
    reference = find_experiment(project.folder, "killed")
    paths = [f"outputs/scores/{name}.json" for name in ("CrackTree260", "CRKWH100")]
    return [json.loads(text) for text in read_of_experiment(project.folder, reference or "", paths)]


def _searched(project: Project) -> Any:
    import optuna

    storage = open_storage(str(project.folder / "mlruns" / "search" / "studies.db"))
    trials = optuna.load_study(study_name="night", storage=storage).get_trials()
    store = open_store(project)
    runs = store.client.search_runs([store.experiment_id], "tags.`search.study` = 'night'")
    statuses = sorted(r.info.status for r in runs if r.data.tags.get("mlflow.parentRunId"))
    return sorted(t.state.name for t in trials), statuses


def _begin_predicting(project: Project) -> None:
    folder = project.folder.parent / "photographs"
    folder.mkdir(exist_ok=True)
    for number in range(200):
        cv2.imwrite(str(folder / f"{number}.png"), make_photo(number, (96, 64)))


def _predicted(project: Project) -> Any:
    found = project.folder / "found"
    with (found / "predictions.csv").open(newline="") as table:
        rows = sorted(tuple(v for k, v in row.items() if k not in _TIMES) for row in csv.DictReader(table))
    pictures = {k: v for k, v in hash_tree(found).items() if k.startswith(("masks", "overlays"))}
    return pictures, rows, [p.name for p in found.rglob("*.tmp")]


def describe_difference(found: Any, expected: Any) -> str:
    """Say where two outcomes differ; empty if they do not."""
    if found == expected:
        return ""
    if isinstance(found, tuple) and isinstance(expected, tuple) and len(found) == len(expected):
        parts = [
            f"part {i}: {describe_difference(a, b)}"
            for i, (a, b) in enumerate(zip(found, expected, strict=False))
            if a != b
        ]
        return "; ".join(parts)
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        return f"{len(keys)} of {len(expected)} differ: {str(keys[:3])[:300]}"
    return f"{str(found)[:300]} instead of {str(expected)[:300]}"


def find_left_overs(project: Project) -> list[str]:
    """Find runs without a process, metrics there twice, half-written files, and what blocks the next command."""
    store = open_store(project)
    losses = []
    for run in store.client.search_runs([store.experiment_id]):
        if run.info.status == "RUNNING":
            losses.append(f"run {run.info.run_name} is RUNNING without a process")
        for key in run.data.metrics:
            if key.startswith("system/"):
                continue
            steps = Counter(m.step for m in store.client.get_metric_history(run.info.run_id, key))
            if repeated := [step for step, number in steps.items() if number > 1]:
                losses.append(f"run {run.info.run_name} has {key} twice at steps {repeated}")
    claims = [m.name for m in store.client.search_registered_models() if m.name != MODEL]
    losses += [f"claim {name} is left" for name in claims]
    kept = ("data", "outputs", "mlruns", "found")
    half = [p for name in kept for p in (project.folder / name).rglob("*.tmp")]
    half += [p for p in (project.folder / "mlruns" / "outbox").glob("*") if p.name not in ("locks", "refused")]
    losses += [f"left over: {path.relative_to(project.folder)}" for path in half]
    production = Production(store, MODEL)
    if fault := production.find_fault(production.read()):
        losses.append(f"alias, stage and history differ: {fault.message}")
    try:
        project.run("dvc", "status", "-q")
    except AssertionError as error:
        if ": 1\n" not in str(error):  # there are changes
            losses.append(f"DVC does not answer: {error}")
    return losses


def _in_production(project: Project) -> Any:
    production = Production(open_store(project), MODEL)
    fault = production.find_fault(production.read())
    return describe(production), all(r.intact for r in production.read().records), fault


def _begin_rollback(project: Project) -> None:
    ask(_promote_second, project)


def _promote_second(project: Project) -> None:
    production = Production(open_store(project), MODEL)
    production.promote("2", production.read(), reason="better", checks=(), data_md5="", forced=True)


def _exported(project: Project) -> Any:
    folder = project.folder.parent / "backup"
    return json.loads((folder / MANIFEST).read_text())["files"], folder.with_name("backup.part").exists()


def _begin_export(project: Project) -> None:
    for name in ("backup", "backup.part"):
        shutil.rmtree(project.folder.parent / name, ignore_errors=True)


def _begin_store_import(project: Project) -> None:
    _begin_export(project)
    project.run("crackseg", "store", "export", "../backup")
    for path in (project.folder / "mlruns").iterdir():
        if path.name not in ("README.md", ".gitignore"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _store_imported(project: Project) -> Any:
    store = open_store(project)
    runs = store.client.search_runs([store.experiment_id])
    metrics = sorted((r.info.run_name, r.info.status, len(r.data.metrics)) for r in runs)
    versions = store.client.search_model_versions(f"name = '{MODEL}'")
    return metrics, sorted((int(v.version), v.current_stage) for v in versions)


def _nothing(_project: Project) -> None:
    """The finished project is what the command needs."""


SCENARIOS = (
    Scenario("import", ("crackseg", "data", "import", "../wall-source", "--name", "wall"), _begin_import, _imported),
    Scenario("train", ("dvc", "repro"), _begin_training, _trained),
    Scenario("predict", ("crackseg", "predict", "../photographs", "--out", "found"), _begin_predicting, _predicted),
    Scenario(
        "promote", ("crackseg", "promote", "2", "--force", "--reason", "better"), _nothing, _in_production,
        "version 2 is in production already",
    ),
    Scenario(
        "rollback", ("crackseg", "rollback", "--reason", "worse"), _begin_rollback, _in_production,
        "there is no version to go back to",
    ),
    Scenario(
        "search", ("crackseg", "search", "--study", "night", "--trials", "4", "--jobs", "2", *_TINY_SEARCH), _nothing,
        _searched,
    ),
    Scenario("export", ("crackseg", "store", "export", "../backup"), _begin_export, _exported, "exists"),
    Scenario("store import", ("crackseg", "store", "import", "../backup"), _begin_store_import, _store_imported),
    Scenario(
        "experiment", ("dvc", "exp", "run", "--temp", "--name", "killed", "-S", "train.seed=6"), _nothing,
        _experimented, "already exists",
    ),
)  # fmt: skip
