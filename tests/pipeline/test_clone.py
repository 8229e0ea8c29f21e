"""A clone of the repository, before anything was run in it: what `dvc pull` brings, and what the stages then say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from crackseg.errors import CracksegError
from crackseg.pipeline import evaluate, predict
from crackseg.project import Layout, is_made
from crackseg.tracking.runs import describe_code
from tests.dvc_in_process import run_dvc

ROOT = Path(__file__).parents[2]
EMPTY_FILE, EMPTY_DIR = "d41d8cd98f00b204e9800998ecf8427e", "d751713988987e9331980363e24189ce.dir"
EMPTY = [Path("sample-data", "files", "md5", md5[:2], md5[2:]) for md5 in (EMPTY_FILE, EMPTY_DIR)]


def read_yaml(path: Path) -> dict:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def git(folder: Path, *arguments: str) -> None:
    done = call(folder, "git", *arguments)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone has for DVC, with a dataset of two files in the sample's place."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    lock = read_yaml(ROOT / "dvc.lock")
    for out in (out for stage in lock["stages"].values() for out in stage["outs"]):
        out["md5"] = EMPTY_DIR if out["md5"].endswith(".dir") else EMPTY_FILE  # also after a `dvc repro` in here
    YAML().dump(lock, folder / "dvc.lock")
    (folder / "data").mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / "data" / name).write_text(name)
    git(folder, "init", "-q")
    run_dvc(folder, "init")
    run_dvc(folder, "remote", "add", "-d", "sample", "sample-data")
    run_dvc(folder, "add", "data")
    run_dvc(folder, "push", "data.dvc")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "Begin")
    for path in EMPTY:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    shutil.rmtree(folder / "data")
    shutil.rmtree(folder / ".dvc" / "cache")
    return folder


def test_bare_pull_in_a_clone_brings_the_data_and_ends_clean(clone: Path) -> None:
    done = call(clone, sys.executable, "-m", "dvc", "pull")
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
    assert "ERROR" not in done.stdout
    assert sorted(path.name for path in (clone / "data").iterdir()) == ["a.txt", "b.txt"]
    assert call(clone, "git", "status", "--porcelain", "--untracked-files=no").stdout == ""
    status = json.loads(call(clone, sys.executable, "-m", "dvc", "status", "--json").stdout)
    assert {"prepare", "train", "register"} <= status.keys()  # nothing passes for done

    layout = Layout(clone)
    assert layout.weights.is_file()
    assert not is_made(layout.weights)
    assert not is_made(layout.prepared)
    for stage in (predict, evaluate):
        with pytest.raises(CracksegError, match=r"not made yet; run the whole pipeline with `dvc repro`"):
            stage.run(clone, "CRKWH100")


def test_every_output_of_the_pipeline_is_in_dvc_lock() -> None:
    """`dvc pull` fails over an output that dvc.lock does not name; add an empty one there, as the others are."""
    stages, locked = read_yaml(ROOT / "dvc.yaml")["stages"], read_yaml(ROOT / "dvc.lock")["stages"]
    datasets = read_yaml(ROOT / "params.yaml")["data"]["test_datasets"]
    for name, stage in stages.items():
        for dataset in datasets if "matrix" in stage else [""]:
            named = {out["path"] for out in locked[f"{name}@{dataset}" if dataset else name]["outs"]}
            listed = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
            paths = {next(iter(out)) if isinstance(out, dict) else out for out in listed}
            assert {path.replace("${item.dataset}", dataset) for path in paths} == named


def test_what_dvc_writes_into_its_lock_does_not_make_the_code_dirty(clone: Path) -> None:
    lock = clone / "dvc.lock"
    before = lock.read_text(encoding="utf-8")
    assert describe_code(clone)["git.state"] == "clean"
    lock.write_text(before + "\n", encoding="utf-8")
    assert describe_code(clone)["git.state"] == "clean"
    lock.write_text(before, encoding="utf-8")
    (clone / ".dvcignore").write_text("other\n", encoding="utf-8")
    assert describe_code(clone)["git.state"] == "dirty"
