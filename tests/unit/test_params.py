"""A misspelt or mistyped setting must not train a wrong model silently."""

from pathlib import Path

import pytest

from crackseg.errors import CracksegError
from crackseg.params import change_params, flatten_params, load_params

COMMITTED = Path(__file__).parents[2] / "params.yaml"


def load_changed(tmp_path: Path, old: str, new: str) -> dict:
    text = COMMITTED.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return flatten_params(load_params(path))


def test_committed_settings_are_the_papers_best_model() -> None:
    flat = flatten_params(load_params(COMMITTED))
    paper = {
        "model.architecture": "deeplabv3_resnet101",
        "model.init": "random",
        "model.num_classes": 1,
        "model.normalize": False,
        "model.train_layers": "all",
        "loss.name": "focal",
        "loss.gamma": 2.0,
        "loss.alpha": 3.0,
        "optimizer.name": "sgd",
        "optimizer.lr": 1e-4,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4,
        "scheduler.name": "plateau",
        "scheduler.factor": 0.1,
        "scheduler.patience": 10,
        "train.epochs": 300,
        "train.batch_size": 2,
        "data.size_px": 512,
        "evaluate.tolerance_px": 2,
    }
    assert {key: flat[key] for key in paper} == paper


def test_a_file_from_before_the_loss_with_soft_f_is_read(tmp_path: Path) -> None:
    lines = COMMITTED.read_text(encoding="utf-8").splitlines()
    old = [line for line in lines if "# bce_soft_f" not in line]
    assert len(lines) - len(old) == 2
    (tmp_path / "params.yaml").write_text("\n".join(old), encoding="utf-8")
    assert load_params(tmp_path / "params.yaml") == load_params(COMMITTED)


def test_patches_of_scenes_need_a_size_that_scenes_have() -> None:
    with pytest.raises(
        CracksegError, match=r"augment\.scenes 0\.5 needs .* augment\.crop_px, which is 0, to between 32"
    ):
        change_params(load_params(COMMITTED), {"augment.scenes": 0.5, "augment.crop_px": 0}, source="test")


def test_random_weights_are_not_kept() -> None:
    with pytest.raises(
        CracksegError, match=r"keep_initial 0\.25 keeps initial weights, but model\.init is random"
    ):
        change_params(load_params(COMMITTED), {"train.keep_initial": 0.25}, source="test")


def test_agreement_without_averaged_weights_to_agree_with_is_refused() -> None:
    with pytest.raises(CracksegError, match=r"flip_agreement 1 is agreement .* ema_decay is 0: set ema_decay"):
        change_params(load_params(COMMITTED), {"train.flip_agreement": 1.0}, source="test")


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    assert load_changed(tmp_path, "lr: 0.0001", "lr: 1e-3")["optimizer.lr"] == 1e-3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gamma: 2", "gama: 2", r"unknown key loss\.gama; did you mean loss\.gamma\?"),
        ("seed: 0", "gamma: 0", r"unknown key train\.gamma; did you mean loss\.gamma\?"),
        ("loss:", "los:", r"unknown key los; did you mean loss\?"),
        ("  gamma: 2", "", r"the key loss\.gamma is missing"),
        ("gamma: 2", "gamma: .nan", r"loss\.gamma = 'nan': .*number"),
        ("gamma: 2", "gamma: -1", r"loss\.gamma = -1"),
        ("gamma: 2", "gamma: two", r"loss\.gamma = 'two': .*number"),
        ("epochs: 300", "epochs: true", r"train\.epochs = True: .*integer"),
        ("epochs: 300", "epochs: 3.5", r"train\.epochs = 3\.5: .*integer"),
        ("epochs: 300", "epochs: 300\n  epochs: 2", r"duplicate key \"epochs\" \(line \d+\)"),
        ("momentum: 0.9", "momentum: [1", r"not valid YAML at line"),
        ("crop_px: 448", "crop_px: 600", r"crop_px 600 is larger than data\.size_px 512"),
        ("accumulate: 1", "accumulate: 3", r"num_processes 1 times accumulate 3 is more than batch_size 2"),
        ("overlap_px: 64", "overlap_px: 500", r"more than half of tile_size_px 512"),
        ("CRKWH100,", "CRKWH100, CRKWH100,", r"names a dataset twice"),
        ("name: focal", "name: focall", r"loss\.name = 'focall': .*did you mean focal\?"),
        (
            "deeplabv3_resnet101",
            "deeplabv3_resnet_101",
            r"model\.architecture = 'deeplabv3_resnet_101': .*did you mean deeplabv3_resnet101",
        ),
    ],
)
def test_mistake_is_named_with_its_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(CracksegError, match=said):
        load_changed(tmp_path, old, new)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match=r"params\.yaml: cannot be read"):
        load_params(tmp_path / "params.yaml")


def test_a_file_from_before_the_width_classes_is_read(tmp_path: Path) -> None:
    text = COMMITTED.read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text[: text.index("\nmeasure:")], encoding="utf-8")
    assert load_params(tmp_path / "params.yaml") == load_params(COMMITTED)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("[{name: a, from_mm: 0, to_mm: 1}, {name: b, from_mm: 2, to_mm: null}]", r"a \(to 1 mm\) and b .* a gap"),
        (
            "[{name: a, from_mm: 0, to_mm: 3}, {name: b, from_mm: 2, to_mm: null}]",
            r"a \(to 3 mm\) and b .*overlap",
        ),
        ("[{name: a, from_mm: 0, to_mm: 3}]", "a, ends at 3 mm, so wider cracks have none"),
        ("[{name: a, from_mm: 1, to_mm: null}]", "a, begins at 1 mm, so finer cracks have none"),
        ("[{name: a, from_mm: 0, to_mm: 1}, {name: a, from_mm: 1, to_mm: null}]", "two width classes are named a"),
        ("[{name: a, from_mm: 0, to_mm: null}, {name: b, from_mm: 1, to_mm: null}]", "a has no upper end, but b"),
        ("[{name: a, from_mm: 0, to_mm: 0.5}, {name: b, from_mm: 0.5, to_mm: 0.5}]", "b is from 0.5 to 0.5 mm"),
        ("[]", "0 width classes; expected 1 to 6"),
        ("[{name: a, from: 0, to_mm: null}]", r"unknown key measure\.classes\.0\.from; valid here: name, from_mm"),
    ],
)
def test_width_classes_that_overlap_or_leave_a_gap_are_refused(tmp_path: Path, classes: str, said: str) -> None:
    with pytest.raises(CracksegError, match=said):
        load_changed(tmp_path, "classes: null", f"classes: {classes}")


def test_no_recorded_setting_comes_from_rules_for_finished_results() -> None:
    assert not [key for key in flatten_params(load_params(COMMITTED)) if key.startswith("measure.")]
