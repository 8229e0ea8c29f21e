"""Settings into params.yaml: the text around them stays as it is."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from crackseg.errors import CracksegError
from crackseg.params import load_params
from crackseg.params.writing import replace_values, write_settings

TEXT = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")


def test_only_the_values_change() -> None:
    new = replace_values(TEXT, {"optimizer.lr": 0.0031, "loss.name": "bce", "model.width": 12, "train.seed": 0})
    before, after = TEXT.splitlines(), new.splitlines()
    changed = [(b, a) for b, a in zip(before, after, strict=True) if a != b]
    assert changed == [
        (b, a)
        for b, a in zip(before, after, strict=True)
        if b.strip().startswith(("width:", "name: focal", "lr: 0.0001"))
    ]
    assert [line.index("#") for line in before if "#" in line] == [
        line.index("#") for line in after if "#" in line
    ]


def test_values_come_back_as_they_were_written() -> None:
    values = {
        "optimizer.lr": 1.2345678901234e-05,
        "loss.gamma": 2.0,
        "model.init": "models:/crackseg/3",
        "model.encoder": "tu-tf_efficientnet_lite0",
        "model.normalize": True,
        "model.width": None,
        "train.epochs": 7,
    }
    content = YAML(typ="safe", pure=True).load(replace_values(TEXT, values))
    assert {key: content[key.split(".")[0]][key.split(".")[1]] for key in values} == values


def test_a_word_that_yaml_reads_as_a_truth_value_is_quoted() -> None:
    content = YAML(typ="safe", pure=True).load(replace_values(TEXT, {"model.encoder": "true"}))
    assert content["model"]["encoder"] == "true"


def test_a_list_comes_back_as_it_was_written() -> None:
    new = replace_values(TEXT, {"data.test_datasets": ["BRIDGE7", "no"]})
    assert 'test_datasets: [BRIDGE7, "no"]\n' in new
    assert YAML(typ="safe", pure=True).load(new)["data"]["test_datasets"] == ["BRIDGE7", "no"]


def test_keys_that_a_file_of_an_older_version_lacks_are_added_to_their_section(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        "".join(line for line in TEXT.splitlines(True) if "# bce_soft_f" not in line), encoding="utf-8"
    )
    changes = {"loss.crack_weight": 7.0, "train.epochs": 3, "loss.tolerance_px": 5, "model.width": 8}
    write_settings(path, changes, source="test")
    after = load_params(path)
    assert (after.loss.crack_weight, after.loss.tolerance_px, after.model.width) == (7.0, 5, 8)
    assert "crack_weight: 7.0\n  tolerance_px: 5\n\noptimizer:" in path.read_text(encoding="utf-8")


def test_a_list_with_a_line_for_each_item_becomes_one_line() -> None:
    text = "data:\n  first: 1\n  names: # all of them\n  - a\n  - b\n  last: 2\n"
    changed = replace_values(text, {"data.names": ["c"], "data.last": 3})
    assert changed == "data:\n  first: 1\n  names: [c] # all of them\n  last: 3\n"
    assert replace_values("data:\n  names:\n    - a\n", {"data.names": ["b", "c"]}) == "data:\n  names: [b, c]\n"


def test_a_file_that_cannot_be_changed_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = TEXT.replace("train_dataset: CrackTree260", "train_dataset: >-\n    CrackTree260")
    assert ">-" in text
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CracksegError, match=r"set these yourself: data\.train_dataset: OTHER"):
        write_settings(path, {"data.train_dataset": "OTHER"}, source="test")
    assert path.read_text(encoding="utf-8") == text


def test_line_endings_of_windows_stay(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    write_settings(path, {"train.epochs": 3}, source="test")
    assert load_params(path).train.epochs == 3
    assert path.read_bytes().count(b"\r\n") == path.read_bytes().count(b"\n") == TEXT.count("\n")
