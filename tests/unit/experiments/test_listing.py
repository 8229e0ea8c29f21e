"""`crackseg experiments`: which change gave which ODS."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crackseg.errors import CracksegError
from crackseg.experiments.listing import list_experiments
from tests.dvc_in_process import run_dvc

PARAMS = Path(__file__).parents[3] / "params.yaml"
STAGE = """
import json, pathlib
from ruamel.yaml import YAML
gamma = YAML(typ="safe").load(pathlib.Path("params.yaml"))["loss"]["gamma"]
pathlib.Path("outputs/report").mkdir(parents=True, exist_ok=True)
summary = {"mean": {"ods": gamma / 10}, "A": {"ods": gamma / 5}, "train": {"seconds": 90}}
pathlib.Path("outputs/report/summary.json").write_text(json.dumps(summary))
"""
PIPELINE = f"""
stages:
  report:
    cmd: {sys.executable} stage.py
    params: [loss]
    outs: [outputs/report]
metrics: [outputs/report/summary.json]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / ".gitignore").write_text("/outputs\n")
    run(tmp_path, "git", "init", "-q")
    for key, value in {"user.name": "a", "user.email": "a@b.c"}.items():
        run(tmp_path, "git", "config", key, value)
    run_dvc(tmp_path, "init")
    run_dvc(tmp_path, "repro")
    run(tmp_path, "git", "add", "-A")
    run(tmp_path, "git", "commit", "-qm", "first")
    return tmp_path


def run(folder: Path, *command: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    subprocess.run(command, cwd=folder, env=environment | {"DVC_NO_ANALYTICS": "1"}, check=True)


def test_experiments_are_listed_best_first_with_what_was_changed(repository: Path) -> None:
    run(repository, sys.executable, "-m", "dvc", "exp", "run", "-q", "-n", "gamma-4", "-S", "loss.gamma=4")
    rows = list_experiments(repository)
    assert [(row["experiment"], row["changed"]) for row in rows[:1]] == [("gamma-4", "loss.gamma=4")]
    assert rows[0]["ods"] == {"mean": 0.4, "A": 0.8}
    assert rows[0]["minutes"] == 1.5
    assert rows[-1]["ods"] == {"mean": 0.2, "A": 0.4}
    assert json.dumps(rows)


def test_a_setting_that_was_changed_to_null_is_listed(repository: Path) -> None:
    path = repository / "params.yaml"
    path.write_text(path.read_text().replace("gamma: 2", "gamma: null"))
    changed = {row["experiment"]: row["changed"] for row in list_experiments(repository)}
    assert changed["workspace"] == "loss.gamma=null"


def test_a_folder_without_git_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match="DVC cannot list experiments"):
        list_experiments(tmp_path)


def test_a_commit_whose_scores_cannot_be_read_is_listed_without_them(repository: Path) -> None:
    (repository / "outputs" / "report" / "summary.json").unlink()
    (repository / "outputs" / "report" / "summary.json").write_text("{")
    (repository / "params.yaml").write_text(
        (repository / "params.yaml").read_text().replace("gamma: 2", "gamma: 3")
    )
    rows = list_experiments(repository, num_commits=2)
    assert {"workspace"} <= {row["experiment"] for row in rows}
    assert rows[-1]["ods"] == {}
    assert rows[-1]["minutes"] is None


def test_a_repository_without_a_commit_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match=r"git init.*dvc init.*git commit"):
        list_experiments(tmp_path)
    run(tmp_path, "git", "init", "-q")
    run_dvc(tmp_path, "init")
    with pytest.raises(CracksegError, match="git commit"):
        list_experiments(tmp_path)
