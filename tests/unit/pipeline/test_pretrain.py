"""`crackseg pretrain`: seeded, resumed after a kill, and what it makes is a model."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from crackseg.data.catalog import MANIFEST_COLUMNS
from crackseg.data.images.files import encode_png, write_mask
from crackseg.data.synthetic import patches
from crackseg.data.synthetic.patches import write_validation_scenes
from crackseg.errors import CracksegError
from crackseg.files import sole_writer, write_bytes
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
    monkeypatch.setattr(module, "_THRESHOLD_SCENES", 2)
    monkeypatch.setattr(module, "_PROBE_PX", 64)
    monkeypatch.setattr(patches, "SCENE_PX", 192)
    # Of a network that learnt nothing the map is noise, in which every pixel is a line to be followed.
    monkeypatch.setattr(module, "write_validation_scenes", partial(write_validation_scenes, size_px=96))
    return tmp_path


def add_photographs(
    root: Path, dataset: str, *, size: tuple[int, int], mask_size: tuple[int, int] = (64, 64)
) -> None:
    folder = root / "data" / dataset
    folder.mkdir(parents=True)
    mask = np.zeros(mask_size[::-1], np.uint8)
    mask[len(mask) // 2] = 1
    write_bytes(folder / "a.png", encode_png(np.full((size[1], size[0], 3), 90, np.uint8)))
    write_mask(folder / "a-mask.png", mask)
    row = {"stem": "a", "split": "val", "image": "a.png", "mask": "a-mask.png"}
    lines = [",".join(MANIFEST_COLUMNS), ",".join(row.get(column, "") for column in MANIFEST_COLUMNS)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


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
    settings = load_model(str(resumed), None).analyzer.settings
    assert settings.data_source == "scenes"
    assert settings.reference.num_images == 2  # all that the threshold was chosen on
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
    monkeypatch.setattr(module, "_SCENE_BYTES", 10**18)
    with pytest.raises(CracksegError, match="MB are needed"):
        pretrain(root, root / "full", **TINY)
    assert not (root / "full").exists()
    with pytest.raises(CracksegError, match="no dataset 'BRIDGE'"):
        pretrain(root, root / "out", **TINY, checks=("BRIDGE",))
    assert not (root / "out").exists()


@pytest.fixture
def _untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before the training: what is tested comes first."""
    monkeypatch.setattr(module, "_train", lambda *_: None)


@pytest.mark.usefixtures("_untrained")
def test_a_pretraining_does_not_resume_with_other_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(root, root / "out", **TINY)
    monkeypatch.setattr("crackseg.pipeline.pretrain._hash_code", lambda: "0" * 12)
    with pytest.raises(
        CracksegError, match="not 000000000000; resume it with the same options and version of crackseg"
    ):
        pretrain(root, root / "out", **TINY)


def _weights_of(folder: Path) -> torch.Tensor:
    return read_weights(folder / "weights.pt").state_dict["output.weight"].float()


def test_a_pretraining_goes_on_from_the_model_of_a_former_one(root: Path) -> None:
    with pytest.raises(CracksegError, match=r"--init nothing\.pt: .* nor a file that exists"):
        pretrain(root, root / "second", **TINY, init="nothing.pt")
    first = pretrain(root, root / "first", **TINY, elements=("joints",))
    second = pretrain(root, root / "second", **TINY, init=str(first))
    third = pretrain(root, root / "third", **TINY, init=str(first), lr=1e-3, flip_agreement=1.0)
    experiments = [e.experiment_id for e in MlflowClient().search_experiments()]
    by_lr = {run.data.params["optimizer.lr"]: run.data.params for run in MlflowClient().search_runs(experiments)}
    assert {lr: params["train.flip_agreement"] for lr, params in by_lr.items()} == {
        "0.003": "0.0", "0.002": "0.0", "0.001": "1.0",
    }  # fmt: skip
    assert by_lr["0.002"]["model.init"] == by_lr["0.001"]["model.init"] == str(first / "weights.pt")
    # In half precision, after six steps at a small learning rate, the weights are still near those it began from.
    begun, trained, agreed = (_weights_of(folder) for folder in (first, second, third))
    assert 0 < (agreed - begun).abs().mean() < (trained - begun).abs().mean() < 0.05


def test_a_pretraining_saves_a_mixture_with_another_model(root: Path) -> None:
    with pytest.raises(CracksegError, match=r"--mix nothing\.pt: .* nor a file that exists"):
        pretrain(root, root / "mixed", **TINY, mix=("nothing.pt", 0.25))
    with pytest.raises(CracksegError, match="--mix : "):
        pretrain(root, root / "mixed", **TINY, mix=("", 0.25))
    assert not (root / "mixed" / "pretrain.json").exists()
    alone = pretrain(root, root / "alone", **TINY)
    other = pretrain(root, root / "other", **TINY | {"seed": 1})
    mixed = pretrain(root, root / "mixed", **TINY, mix=(str(other), 0.25))
    expected = 0.75 * _weights_of(alone) + 0.25 * _weights_of(other)
    assert torch.allclose(_weights_of(mixed), expected, atol=1e-3)  # both were rounded to half precision
    assert not torch.allclose(_weights_of(mixed), _weights_of(alone), atol=1e-3)


@pytest.mark.usefixtures("_untrained")
def test_a_kill_while_the_plan_is_written_leaves_a_folder_that_can_be_used(root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / ".0123456789ab.tmp").write_text('{"seed":', encoding="utf-8")
    pretrain(root, root / "out", **TINY)
    assert (root / "out" / "pretrain.json").is_file()


@pytest.mark.usefixtures("_untrained")
def test_a_pretraining_does_not_resume_in_another_precision(root: Path) -> None:
    params = root / "params.yaml"
    text = params.read_text(encoding="utf-8")
    assert "precision: auto" in text  # float32 or bfloat16, by the processor
    params.write_text(text.replace("precision: auto", "precision: float32"), encoding="utf-8")
    pretrain(root, root / "out", **TINY)
    params.write_text(text.replace("precision: auto", "precision: bfloat16"), encoding="utf-8")
    with pytest.raises(CracksegError, match="precision float32, not bfloat16"):
        pretrain(root, root / "out", **TINY)


@pytest.mark.usefixtures("_untrained")
def test_two_pretrainings_do_not_share_a_folder(root: Path) -> None:
    (root / "out").mkdir()
    with (
        sole_writer(root / "out" / "pretrain.lock", "busy"),
        pytest.raises(CracksegError, match="another `crackseg pretrain` works in this folder"),
    ):
        pretrain(root, root / "out", **TINY)


def test_a_check_is_scored_and_changes_no_weight(root: Path) -> None:
    add_photographs(root, "BRIDGE", size=(64, 64))
    seen: list[dict[str, float]] = []
    checked = pretrain(
        root, root / "checked", **TINY, checks=("BRIDGE",), on_epoch=lambda _epoch, metrics: seen.append(metrics)
    )
    assert all(0 <= metrics["check/BRIDGE/ods"] <= 1 for metrics in seen)
    plain = pretrain(root, root / "plain", **TINY)
    first, second = (read_weights(folder / "weights.pt").state_dict for folder in (checked, plain))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_check_needs_masks_of_the_photographs_size(root: Path) -> None:
    add_photographs(root, "BRIDGE", size=(64, 64))
    add_photographs(root, "HALF", size=(64, 64), mask_size=(32, 32))
    with pytest.raises(CracksegError, match=r"--check HALF: .* has 64 x 64 pixels and its mask 32 x 32"):
        pretrain(root, root / "out", **TINY, checks=("BRIDGE", "HALF"))
    assert not (root / "out").exists()


@pytest.mark.usefixtures("_untrained")
def test_the_number_of_epochs_follows_from_minutes_and_pace(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure_step", lambda _params: 2.0)
    pretrain(root, root / "out", **TINY | {"epochs": None}, minutes=3)
    assert json.loads((root / "out" / "pretrain.json").read_text(encoding="utf-8"))["epochs"] == 90


@pytest.mark.usefixtures("_untrained")
def test_all_stands_for_every_look_and_every_element(root: Path) -> None:
    pretrain(root, root / "out", **TINY, looks=("all",), elements=("all",))
    plan = json.loads((root / "out" / "pretrain.json").read_text(encoding="utf-8"))
    assert {"CrackLS315", "plaster"} <= set(plan["looks"])
    assert {"joints", "more_cracks", "alligator"} <= set(plan["elements"])
