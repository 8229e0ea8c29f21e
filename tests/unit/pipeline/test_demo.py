"""The demo: the preset's settings, and a heading for each stage."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from crackseg.data.versioning import find_experiment, read_of_experiment
from crackseg.errors import CracksegError
from crackseg.params import change_params, load_params
from crackseg.params.presets import name_current
from crackseg.pipeline import demo
from crackseg.pipeline.headings import SINCE, list_stages, print_heading

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "params.yaml")


def test_demo_trains_with_the_settings_of_the_preset() -> None:
    changes = {key: json.loads(value) for key, _, value in (s.partition("=") for s in demo.list_settings(PARAMS))}
    assert name_current(change_params(PARAMS, changes, source="demo")) == demo.PRESET


def test_headings_count_every_stage_of_dvc_yaml() -> None:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    listed = list_stages(PARAMS.data.test_datasets)
    assert list(dict.fromkeys(name.split()[0] for name in listed)) == list(stages)
    assert len(listed) == 5 + 2 * len(PARAMS.data.test_datasets)


def test_stage_of_a_demo_says_its_number_and_purpose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SINCE, str(time.time() - 61))
    print_heading(ROOT, "predict", "CRKWH100")
    said = capsys.readouterr().out
    assert said.startswith("[1:0")
    assert "5/13 predict CRKWH100: compute" in said


def test_stage_outside_a_demo_prints_no_heading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(SINCE, raising=False)
    print_heading(ROOT, "train")
    assert capsys.readouterr().out == ""


def test_earlier_demo_is_found_in_git(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "Begin"], check=True)
    assert find_experiment(tmp_path, "demo") == ""
    subprocess.run([*git, "update-ref", f"refs/exps/ab/{'c' * 38}/demo", "HEAD"], check=True)
    assert find_experiment(tmp_path, "demo").endswith("/demo")
    assert find_experiment(tmp_path, "mo") == ""


def test_results_of_an_experiment_are_read_from_dvcs_cache(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    with Repo.init(str(tmp_path)) as repo:
        (tmp_path / "outputs").mkdir()
        (tmp_path / "outputs" / "scores.json").write_text("{}")
        repo.add(str(tmp_path / "outputs"))
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "Results"], check=True)
    subprocess.run([*git, "update-ref", f"refs/exps/ab/{'c' * 38}/demo", "HEAD"], check=True)
    (tmp_path / "outputs" / "scores.json").unlink()  # an experiment leaves the workspace as it is
    reference = find_experiment(tmp_path, "demo")
    assert read_of_experiment(tmp_path, reference, ["outputs/scores.json"]) == ["{}"]
    with pytest.raises(CracksegError, match="demo"):
        read_of_experiment(tmp_path, reference, ["outputs/nothing.json"])


def test_demo_reads_what_stages_make() -> None:
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert "outputs/model/run.json" in stages["train"]["outs"]
    assert "outputs/scores/${item.dataset}.json" in stages["evaluate"]["outs"]
