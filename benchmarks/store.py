"""Commands on a store with 2,000 runs, three in four of a search, and 500 versions, against 10 of each."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import optuna
from mlflow import MlflowClient
from optuna.trial import TrialState

from benchmarks.measure import ROOT, Effort, Row
from crackseg.experiments.search.results import RUN_ID, SECONDS
from crackseg.experiments.search.storage import default_storage, open_storage
from crackseg.experiments.search.study import create_or_join
from crackseg.params import Params, flatten_params, load_params
from crackseg.registry.production import Production
from crackseg.tracking.store import Store

_MODEL = "crackseg"
_COUNTS = ((10, 10), (2000, 500))  # runs, versions
_MOST_EXTRA_S = 3.0
_SCORES = ("ods", "ois", "ap", "symmetric_ods", "strict_ods", "centerline_iou")  # of each test dataset
_COMMANDS = {
    "store-models": ("models",),
    "store-compare": ("compare", "run-0", "run-1", "--out", "compared"),
    "store-paper": ("paper", "report", "--no-timing"),
    "store-search": ("search", "show"),
}


def run(effort: Effort) -> list[Row]:
    """Rows ``store-models``, ``store-compare``, ``store-paper`` and ``store-search``."""
    return compare(_COUNTS, repeats=effort.pick(3, 1))


def compare(counts: tuple[tuple[int, int], tuple[int, int]], *, repeats: int) -> list[Row]:
    """Time the commands on a small and on a large store, in turn.

    Args:
        counts: runs and versions of both.
        repeats: of each command.
    """
    with tempfile.TemporaryDirectory() as scratch:
        roots = [Path(scratch) / name for name in ("few", "many")]
        for root, (num_runs, num_versions) in zip(roots, counts, strict=True):
            make_store(root, num_runs, num_versions)
        rows = []
        for name, arguments in _COMMANDS.items():
            taken = [[_time(arguments, root) for root in roots] for _ in range(repeats)]
            few_s, many_s = (median(seconds) for seconds in zip(*taken, strict=True))
            note = (
                f"crackseg {' '.join(arguments)}: {few_s:.1f} s with {counts[0][0]} runs and {counts[0][1]} versions, "
                f"{many_s:.1f} s with {counts[1][0]:,} and {counts[1][1]}"
            )
            extra_s = max(many_s - few_s, 0.01)
            rows.append(Row(name, extra_s, _MOST_EXTRA_S, "the limit", "s of processor", note, target=1.0))
    return rows


def make_store(root: Path, num_runs: int, num_versions: int) -> None:
    """Make a project whose store has finished runs, each with all settings, and versions of them, newest last.

    Three of four runs are trials of one search.
    """
    root.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, root / name)
    _call(["git", "init", "-q"], root)
    _call([sys.executable, "-m", "dvc", "init", "-q"], root)
    params = load_params(root / "params.yaml")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # of the store before
    store = Store(root)
    run_id = store.create_run("run-0")
    with store.record(run_id) as recorder:
        recorder.log_params(flatten_params(params))
        recorder.set_tags({"data.md5": "0" * 32, "data.source": "sample"})
        recorder.log_metrics({f"{name}/{score}": 0.8 for name in params.data.test_datasets for score in _SCORES})
        recorder.end("FINISHED")
    client: MlflowClient = store.client
    client.create_registered_model(_MODEL)
    source = root / "model"
    source.mkdir()
    (source / "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
    version = client.create_model_version(_MODEL, source.as_uri(), run_id=run_id)
    for key, value in (("val/ods", "0.8"), ("mean/ods", "0.7"), ("data.md5", "0" * 32)):
        client.set_model_version_tag(_MODEL, version.version, key, value)
    Production(store, _MODEL)
    with sqlite3.connect(store.uri.removeprefix("sqlite:///")) as database:
        for number in range(1, num_runs):
            new_id = f"{number:032x}"
            for table in ("runs", "params", "metrics", "latest_metrics", "tags"):
                _copy(database, table, "run_uuid", run_id, new_id, name=f"run-{number}")
            database.execute(
                "UPDATE tags SET value = ? WHERE key = 'mlflow.runName' AND run_uuid = ?",
                (f"run-{number}", new_id),
            )
            if number % 4:  # a trial
                database.execute("DELETE FROM tags WHERE key = 'data.md5' AND run_uuid = ?", (new_id,))
        for number in range(2, num_versions + 1):
            for table in ("model_versions", "model_version_tags"):
                _copy(database, table, "version", 1, number)
            owner = f"{number - 1:032x}" if number <= num_runs else run_id
            database.execute("UPDATE model_versions SET run_id = ? WHERE version = ?", (owner, number))
    database.close()
    _add_study(root, store, params, [f"{number:032x}" for number in range(1, num_runs) if number % 4])


def _add_study(root: Path, store: Store, params: Params, run_ids: list[str]) -> None:
    """Make a study with a finished trial for each run."""
    manifest = root / "prepared" / params.data.train_dataset / "manifest.csv"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("image\n", encoding="utf-8")
    storage = open_storage(default_storage(store.home))
    study = create_or_join(store, storage, "study", params, {}, root / "prepared", num_trials=0).study
    study.add_trials(
        [
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=number / len(run_ids),
                params={"optimizer.lr": 10.0 ** -(1 + number / len(run_ids))},
                distributions={"optimizer.lr": optuna.distributions.FloatDistribution(1e-2, 1e-1, log=True)},
                user_attrs={RUN_ID: run_id, SECONDS: 60.0},
            )
            for number, run_id in enumerate(run_ids)
        ]
    )


def _copy(
    database: sqlite3.Connection, table: str, key: str, old: str | int, new: str | int, name: str | None = None
) -> None:
    """Copy the rows of a table that have a key, under another key; MLflow itself takes 20 ms for a run."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    values = [
        f"'{name}'" if column == "name" and table == "runs" else column for column in columns if column != key
    ]
    kept = ", ".join(f'"{column}"' for column in columns if column != key)
    chosen = ", ".join(value if value.startswith("'") else f'"{value}"' for value in values)
    database.execute(
        f'INSERT INTO {table} ("{key}", {kept}) SELECT ?, {chosen} FROM {table} WHERE "{key}" = ?',
        (new, old),
    )


def _time(arguments: tuple[str, ...], root: Path) -> float:
    """Seconds of processor time of a command, with its children; other programs change it less than the clock."""
    before = os.times()
    _call([sys.executable, "-m", "crackseg", *arguments], root)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def _call(command: list[str], folder: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "CRACKSEG_QUIET": "1", "DVC_NO_ANALYTICS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(result.stdout + result.stderr)[-2000:]}")
