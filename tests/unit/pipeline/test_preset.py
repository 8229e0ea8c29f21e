"""`crackseg preset`: settings into params.yaml, for the user's own dataset, and back."""

from pathlib import Path

import pandas as pd
import pytest

from crackseg.data.catalog import MANIFEST_COLUMNS
from crackseg.errors import CracksegError
from crackseg.params import flatten_params, load_params
from crackseg.params.presets import PAPER, PRESETS, name_current
from crackseg.pipeline.preset import apply_preset, undo_preset

TEXT = (Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path


def write_manifest(root: Path, name: str, splits: dict[str, int]) -> None:
    rows = [
        dict.fromkeys(MANIFEST_COLUMNS, "1") | {"stem": f"{split}{i}", "split": split}
        for split, count in splits.items()
        for i in range(count)
    ]
    (root / "data" / name).mkdir(parents=True)
    pd.DataFrame(rows).to_csv(root / "data" / name / "manifest.csv", index=False)


@pytest.fixture(autouse=True)
def step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of half a second, whatever the machine."""
    monkeypatch.setattr("crackseg.training.pace.measure_step", lambda _params: 0.5)


def test_a_preset_leaves_nothing_of_the_one_before(root: Path) -> None:
    apply_preset(root, "laptop")
    apply_preset(root, "quick")
    flat = flatten_params(load_params(root / "params.yaml"))
    assert {key: flat[key] for key in PAPER} == PRESETS["quick"].settings
    apply_preset(root, "paper")
    assert load_params(root / "params.yaml") == load_params_of(TEXT, root)


def load_params_of(text: str, folder: Path) -> object:
    path = folder / "other.yaml"
    path.write_text(text, encoding="utf-8")
    return load_params(path)


def test_comments_and_order_stay(root: Path) -> None:
    apply_preset(root, "quick")
    after = (root / "params.yaml").read_text(encoding="utf-8")
    strip = [line.partition(":")[0] + line.partition("#")[2] for line in TEXT.splitlines()]
    assert [line.partition(":")[0] + line.partition("#")[2] for line in after.splitlines()] == strip


def test_undo_brings_back_every_byte_preset_by_preset(root: Path) -> None:
    path = root / "params.yaml"
    apply_preset(root, "quick")
    between = path.read_bytes()
    apply_preset(root, "large-gpu")
    undo_preset(root)
    assert path.read_bytes() == between
    undo_preset(root)
    assert path.read_bytes() == TEXT.encode()
    with pytest.raises(CracksegError, match="no preset to undo"):
        undo_preset(root)


def test_undo_keeps_what_was_set_by_hand_since(root: Path) -> None:
    path = root / "params.yaml"
    apply_preset(root, "quick")
    path.write_text(path.read_text(encoding="utf-8").replace("lr: 0.001", "lr: 0.005"), encoding="utf-8")
    undone = undo_preset(root)
    flat = flatten_params(load_params(path))
    assert flat["optimizer.lr"] == 0.005
    assert flat["loss.name"] == "focal"
    assert "optimizer.lr" in undone.remarks[0]


def test_the_only_own_dataset_is_taken_and_scored_on_the_images_it_has(root: Path) -> None:
    write_manifest(root, "CrackTree260", {"train": 12, "val": 3, "test": 5})
    write_manifest(root, "BRIDGE7", {"train": 50, "val": 10})
    apply_preset(root, "laptop")
    data = load_params(root / "params.yaml").data
    assert (data.train_dataset, data.test_datasets, data.evaluate_split) == ("BRIDGE7", ("BRIDGE7",), "val")


def test_of_several_own_datasets_one_has_to_be_chosen(root: Path) -> None:
    write_manifest(root, "BRIDGE7", {"train": 5, "val": 1})
    write_manifest(root, "BRIDGE8", {"train": 5, "val": 1, "test": 1})
    with pytest.raises(CracksegError, match=r"BRIDGE7, BRIDGE8.*--dataset"):
        apply_preset(root, "laptop")
    assert (root / "params.yaml").read_text(encoding="utf-8") == TEXT
    apply_preset(root, "laptop", dataset="BRIDGE8")
    data = load_params(root / "params.yaml").data
    assert (data.train_dataset, data.evaluate_split) == ("BRIDGE8", "test")


def test_a_dataset_without_validation_images_is_refused(root: Path) -> None:
    write_manifest(root, "BRIDGE7", {"train": 5, "test": 5})
    with pytest.raises(
        CracksegError, match=r"no images of the split val \(train 5, val 0, test 5\).*--split-counts"
    ):
        apply_preset(root, "laptop")


@pytest.mark.parametrize(
    ("images", "minutes", "patches", "epochs"),
    [
        (50, 15, 4, 36),  # 900 s of 0.5 s are 1800 steps, 50 an epoch
        (50, 0.75, 4, 2),
        (400, 3, 1, 4),  # one epoch of 4 patches would take longer than 3 minutes
        (4000, 1, 1, 1),
    ],
)
def test_minutes_become_epochs(root: Path, images: int, minutes: float, patches: int, epochs: int) -> None:
    write_manifest(root, "BRIDGE7", {"train": images, "val": 1})
    apply_preset(root, "laptop", minutes=minutes)
    train = load_params(root / "params.yaml").train
    assert (train.patches_per_image, train.epochs) == (patches, epochs)
    assert train.validate_every <= epochs
    assert name_current(load_params(root / "params.yaml")) == "laptop"


@pytest.mark.parametrize("content", ["", "{}", '{"presets": {"a": 1}}'])
def test_a_damaged_history_stops_a_preset_before_params_yaml_is_changed(root: Path, content: str) -> None:
    history = root / ".dvc" / "tmp" / "crackseg" / "presets.json"
    history.parent.mkdir(parents=True)
    history.write_text(content, encoding="utf-8")
    before = (root / "params.yaml").read_bytes()
    for change in (lambda: apply_preset(root, "quick"), lambda: undo_preset(root)):
        with pytest.raises(CracksegError, match=r"presets\.json.*delete it; presets written earlier"):
            change()
    assert (root / "params.yaml").read_bytes() == before
