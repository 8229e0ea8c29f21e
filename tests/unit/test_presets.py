"""Presets: valid settings, the committed ones under the paper's name."""

from pathlib import Path

import pytest

from crackseg.errors import CracksegError
from crackseg.params import change_params, flatten_params, load_params
from crackseg.params.presets import PAPER, PRESETS, find_preset, name_current

COMMITTED = load_params(Path(__file__).parents[2] / "params.yaml")


def test_the_papers_preset_is_what_is_committed() -> None:
    flat = flatten_params(COMMITTED)
    assert {key: flat[key] for key in PAPER} == PAPER


def test_no_key_of_training_is_left_as_another_preset_had_it() -> None:
    """A preset must set what another one sets: every key of these sections, except for the machine and the seed."""
    sections = ("augment", "model", "loss", "optimizer", "scheduler", "train")
    own = {"seed", "precision", "device", "compile", "cache_gb", "num_processes", "sync_batch_norm"}
    keys = {
        key for key in flatten_params(COMMITTED) if key.split(".")[0] in sections and key.split(".")[1] not in own
    }
    assert keys - PAPER.keys() == set()
    assert all(preset.changes.keys() <= PAPER.keys() for preset in PRESETS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_and_recognised(name: str) -> None:
    changed = change_params(COMMITTED, PRESETS[name].settings, source=name)
    assert name_current(changed) == name


def test_other_settings_are_no_preset() -> None:
    assert name_current(change_params(COMMITTED, {"loss.gamma": 3}, source="test")) == ""


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(CracksegError, match=r"paper, laptop, quick, large-gpu; did you mean laptop"):
        find_preset("labtop")
