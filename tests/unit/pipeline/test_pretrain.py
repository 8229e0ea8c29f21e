"""`crackseg pretrain`: seeded, resumed after a kill, and what it makes is a model."""

import logging
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from crackseg.errors import CracksegError
from crackseg.models.state_dicts import read_weights
from crackseg.pipeline import pretrain as module
from crackseg.pipeline.pretrain import pretrain
from crackseg.registry.loading import load_model

TINY = {"num_scenes": 4, "patch_px": 64, "num_workers": 0, "epochs": 2}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = Path(__file__).parents[3]
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(module, "_VALIDATION_SCENES", 1)
    return tmp_path


def test_a_killed_pretraining_resumes_to_the_same_weights_and_is_a_model(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = pretrain(root, root / "straight", **TINY)

    def kill(epoch: int, _metrics: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
        pretrain(root, root / "killed", **TINY, on_epoch=kill)
    resumed = pretrain(root, root / "killed", **TINY)
    first, second = (read_weights(folder / "weights.pt").state_dict for folder in (straight, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["output.weight"].dtype == torch.float16
    assert load_model(str(resumed), None).analyzer.settings.data_source == "scenes"
    runs = MlflowClient().search_runs([e.experiment_id for e in MlflowClient().search_experiments()])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED"]
    with caplog.at_level(logging.INFO, logger="crackseg"):
        assert pretrain(root, root / "killed", **TINY) == resumed  # finished: nothing is trained again
    assert "which is finished; choose another --out" in caplog.text
    with pytest.raises(CracksegError, match="holds a training with seed 0, not 5"):
        pretrain(root, root / "killed", **TINY, seed=5)


def test_bad_input_is_named_before_anything_is_drawn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CracksegError, match="did you mean joints"):
        pretrain(root, root / "out", **TINY, elements=("joint",))
    (root / "mine").mkdir()
    (root / "mine" / "photo.jpg").touch()
    with pytest.raises(CracksegError, match=r"mine is not empty \(photo.jpg\)"):
        pretrain(root, root / "mine", **TINY)
    (root / "other").mkdir()
    (root / "other" / "pretrain.json").write_text('{"seed": 0}', encoding="utf-8")
    with pytest.raises(
        CracksegError, match=r"pretrain\.json: not written by this version .* choose another --out"
    ):
        pretrain(root, root / "other", **TINY)
    monkeypatch.setattr(module, "_NEEDED_BYTES", 10**18)
    with pytest.raises(CracksegError, match="MB are needed"):
        pretrain(root, root / "full", **TINY)


def test_a_pretraining_does_not_resume_with_other_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(root, root / "out", **TINY)
    monkeypatch.setattr("crackseg.pipeline.pretrain._hash_code", lambda: "0" * 12)
    with pytest.raises(
        CracksegError, match="not 000000000000; resume it with the same options and version of crackseg"
    ):
        pretrain(root, root / "out", **TINY)
