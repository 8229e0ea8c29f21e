"""A user's mistake ends in one clear message and exit code 1, and leaves everything as it was."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from crackseg.data.importing.versioned_import import import_versioned
from crackseg.errors import CracksegError
from crackseg.pipeline import prepare, train
from tests.pipeline.conftest import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    from tests.pipeline.conftest import make_project

    return make_project(tmp_path_factory.mktemp("mistakes") / "project")


def fail(project: Project, *command: str) -> str:
    said = project.run(*command, fails=True)
    assert "Traceback" not in said
    assert "error: " in said.lower()
    return said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"train_dataset": "CRKWH100"}}, "dataset CRKWH100 has no train images"),
        ({"data": {"train_dataset": "Nowhere"}}, "no dataset 'Nowhere'"),
        ({"loss": {"gama": 2}}, "unknown key loss.gama; did you mean loss.gamma?"),
    ],
)
def test_wrong_settings_are_named(project: Project, changes: dict, said: str) -> None:
    before = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.set_params(changes)
    try:
        with pytest.raises(CracksegError, match=re.escape(said)):
            prepare.run(project.folder)
    finally:
        (project.folder / "params.yaml").write_text(before, encoding="utf-8")
    assert not (project.folder / "outputs").exists()


def test_absent_gpu_is_named(project: Project) -> None:
    import torch

    device = "cuda" if not torch.cuda.is_available() else "mps"
    before = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.set_params({"train": {"device": device}})
    try:
        with pytest.raises(CracksegError, match=f"train.device = '{device}'"):
            train.run(project.folder)
    finally:
        (project.folder / "params.yaml").write_text(before, encoding="utf-8")


def test_missing_data_is_named(project: Project) -> None:
    data, away = project.folder / "data", project.folder / "elsewhere"
    data.rename(away)
    try:
        assert "`dvc pull data.dvc`" in fail(project, "crackseg", "stage", "prepare")
    finally:
        away.rename(data)


def test_import_of_unpaired_images_changes_nothing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    for stem in ("a", "b"):
        cv2.imwrite(str(tmp_path / "images" / f"{stem}.png"), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.eye(40, dtype=np.uint8) * 255)
    before = project.run("git", "status", "--porcelain")
    _, said = project.call("data", "import", str(tmp_path), "--name", "MY", fails=True)
    assert said.startswith("error: ")
    assert "b" in said
    assert project.run("git", "status", "--porcelain") == before
    assert not (project.folder / "data" / "MY").exists()


def test_import_stages_the_new_version_and_a_second_one_changes_nothing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.jpg"), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        cv2.imwrite(str(tmp_path / "masks" / f"{i}.png"), np.eye(40, dtype=np.uint8) * 255)
    assert "6 images" in project.run("crackseg", "data", "import", str(tmp_path), "--name", "MY")
    version = (project.folder / "data.dvc").read_text()
    for shown in ("M  data.dvc", ""):  # staged, then committed
        assert project.run("git", "status", "--porcelain").strip() == shown
        import_versioned(project.folder, tmp_path, name="MY")
        assert project.run("git", "status", "--porcelain").strip() == shown
        assert (project.folder / "data.dvc").read_text() == version
        if shown:
            project.commit("Import MY")
    assert "0 errors" in "".join(project.call("data", "validate", "MY"))


def test_outside_a_project_it_is_said(project: Project, tmp_path: Path) -> None:
    outside = Project(tmp_path)
    outside.environment["PYTHONPATH"] = project.environment["PYTHONPATH"]
    assert "no crackseg project" in fail(outside, "crackseg", "stage", "train")


def test_score_names_the_map_without_a_mask(project: Project, tmp_path: Path) -> None:
    for folder, stems in (("maps", "ab"), ("masks", "a")):
        (tmp_path / folder).mkdir()
        for stem in stems:
            cv2.imwrite(str(tmp_path / folder / f"{stem}.png"), np.eye(40, dtype=np.uint8) * 255)
    said = fail(
        project, "crackseg", "score", "--predictions", str(tmp_path / "maps"), "--masks", str(tmp_path / "masks")
    )
    assert "have no mask of the same stem" in said


def test_mistaken_init_leaves_no_run_and_no_checkpoint(fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    prepare.run(fresh.folder)
    for init, said in (
        ("nowhere.pt", "nowhere.pt"),
        ("coco", "coco"),
        ("models:/crackseg/99", "cannot be fetched"),
    ):
        fresh.set_params({"model": {"init": init}})
        # In this process: another takes ten seconds to import torch.
        with pytest.raises(CracksegError, match=said):
            train.run(fresh.folder)
    assert said in fail(fresh, "crackseg", "stage", "train")  # and the last one as a user sees it
    assert not list((fresh.folder / "mlruns").glob("checkpoints/*"))
    assert not list((fresh.folder / "mlruns").glob("artifacts/*"))
