"""Names and descriptions of runs: a table of runs says what each one was."""

import shutil
import subprocess
from pathlib import Path

import pytest

from crackseg.lineage import describe_training
from crackseg.params import change_params, flatten_params, load_params
from crackseg.tracking.run_notes import BEGINNINGS, describe_run
from crackseg.tracking.store import Store

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    return tmp_path


def test_the_note_gives_scores_and_what_was_changed(committed: Path) -> None:
    params = load_params(PARAMS)
    changed = change_params(params, {"loss.gamma": 4, "optimizer.lr": 0.01}, source="-S")
    note = describe_run(committed, changed, {"mean": 0.81234, "A": 0.7})
    assert note.startswith("**ODS** mean 0.8123, A 0.7000\n")
    assert "`loss.gamma` 2.0 → 4.0, `optimizer.lr` 0.0001 → 0.01" in note
    assert "as in params.yaml of commit" in describe_run(committed, params)


def test_without_a_commit_the_note_says_so(tmp_path: Path) -> None:
    assert "no committed params.yaml" in describe_run(tmp_path, load_params(PARAMS))


def test_a_note_that_a_person_wrote_is_kept(committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (committed / "dvc.yaml").touch()
    store = Store(committed)
    run_id = store.create_run(None)

    def describe(ods: dict[str, float] | None) -> str:
        with store.record(run_id) as recorder:
            recorder.describe(describe_run(committed, load_params(PARAMS), ods), over=BEGINNINGS)
        return store.get_run(run_id).data.tags["mlflow.note.content"]

    assert describe(None).startswith("**Settings** as in")
    assert describe({"mean": 0.5}).startswith("**ODS** mean 0.5000")
    store.client.set_tag(run_id, "mlflow.note.content", "best so far, ask Ana")
    assert describe({"mean": 0.5}) == "best so far, ask Ana"


def test_a_run_is_named_by_its_main_settings() -> None:
    settings = flatten_params(load_params(PARAMS))
    assert describe_training(settings) == "deeplabv3_resnet101 focal γ2 α3 lr 0.0001 seed 0"
    changed = settings | {
        "loss.name": "bce",
        "model.architecture": "unet",
        "model.init": "scenes",
        "optimizer.lr": 1e-3,
    }
    assert describe_training(changed) == "unet from scenes bce lr 0.001 seed 0"
