"""`crackseg preset`: write named settings into params.yaml, for a dataset and a number of minutes, and undo it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crackseg.data.catalog import KNOWN_DATASETS, SPLITS, read_manifest
from crackseg.errors import CracksegError
from crackseg.files import read_json, write_bytes, write_json
from crackseg.params import Params, change_params, flatten_params, load_params
from crackseg.params.presets import find_preset
from crackseg.params.writing import write_settings

_NUM_VALIDATIONS = 4
_NO_TIME = "no images of {} are in data/, so train.epochs does not follow from minutes: it is the preset's"


@dataclass(frozen=True, slots=True)
class Applied:
    """Changes of params.yaml by a preset or its undoing.

    Attributes:
        changed: by dotted key, value before and after.
        remarks: what was chosen, measured or left out, a sentence each.
    """

    changed: Mapping[str, tuple[Any, Any]]
    remarks: list[str] = field(default_factory=list)


def apply_preset(root: Path, name: str, *, dataset: str | None = None, minutes: float | None = None) -> Applied:
    """Write a preset's settings into params.yaml.

    Args:
        root: the project.
        name: of the preset.
        dataset: to train on and to score; None: for a preset for own photographs the only dataset in ``data/`` that is
            not one of the paper's, otherwise as params.yaml has it.
        minutes: of training on this machine; None: the preset's.
    Raises:
        CracksegError: there is no such preset or dataset, the dataset lacks training or validation images, several
            datasets could be meant, or params.yaml cannot be changed.
    """
    preset, path, remarks = find_preset(name), root / "params.yaml", []
    changes = dict(preset.settings)
    if dataset is None and preset.own_photographs:
        dataset = _find_own_dataset(root / "data", name)
        remarks += [] if dataset else ["data/ has no dataset of your own: the datasets stay as they are"]
    if dataset is not None:
        split = _choose_split(root / "data", dataset)
        changes |= {
            "data.train_dataset": dataset,
            "data.test_datasets": [dataset],
            "data.evaluate_split": split,
        }
        if split == "val":
            remarks.append(f"{dataset} has no test images: the scores are those of its validation images")
    minutes = preset.minutes if minutes is None else minutes
    if minutes is not None:
        wanted = change_params(load_params(path), changes, source=f"preset {name}")
        found, said = _fit_into(root / "data", wanted, minutes)
        changes |= found
        remarks.append(said)
    history = _read_history(
        root
    )  # before params.yaml is changed: a change that is not written down cannot be undone
    before = path.read_bytes().decode()
    changed = write_settings(path, changes, source=f"preset {name}")
    if changed:
        after = path.read_bytes().decode()
        entry = {"name": name, "before": before, "after": after, "changed": changed}
        write_json(_history_path(root), {"presets": [*history, entry]})
    return Applied(changed, remarks)


def undo_preset(root: Path) -> Applied:
    """Bring params.yaml back to before the last preset; settings that were changed since then stay, and are named.

    Raises:
        CracksegError: no preset was written, or all are undone.
    """
    history = _read_history(root)
    if not history:
        raise CracksegError("there is no preset to undo: none was written into this params.yaml")
    *others, last = history
    path = root / "params.yaml"
    text = path.read_bytes().decode()
    remarks = []
    if text == last["after"]:
        write_bytes(path, last["before"].encode())
        changed = {key: (after, before) for key, (before, after) in last["changed"].items()}
    else:
        now = flatten_params(load_params(path))
        ours = {key: before for key, (before, after) in last["changed"].items() if now.get(key) == after}
        changed = write_settings(path, ours, source=f"undoing preset {last['name']}")
        if since := [key for key in last["changed"] if key not in ours]:
            remarks.append(f"changed since then, and left as they are: {', '.join(since)}")
    write_json(_history_path(root), {"presets": others})
    return Applied(changed, remarks)


def _history_path(root: Path) -> Path:
    return root / ".dvc" / "tmp" / "crackseg" / "presets.json"


def _read_history(root: Path) -> list[dict[str, Any]]:
    path = _history_path(root)
    if not path.is_file():
        return []
    advice = "delete it; presets written earlier can then not be undone"
    presets = read_json(path, advice=advice).get("presets")
    if not isinstance(presets, list) or not all(isinstance(entry, dict) for entry in presets):
        raise CracksegError(f"{path}: not a list of presets that were written; {advice}")
    return presets


def _find_own_dataset(data_dir: Path, name: str) -> str | None:
    own = [path.parent.name for path in sorted(data_dir.glob("*/manifest.csv"))]
    own = [dataset for dataset in own if dataset not in KNOWN_DATASETS]
    if len(own) > 1:
        raise CracksegError(
            f"data/ has several datasets of your own ({', '.join(own)}); choose one: crackseg preset {name} "
            f"--dataset {own[0]}"
        )
    return own[0] if own else None


def _choose_split(data_dir: Path, dataset: str) -> str:
    """Choose the split that is scored: test images where there are some."""
    splits = read_manifest(data_dir, dataset)["split"].value_counts()
    if missing := [split for split in ("train", "val") if not splits.get(split)]:
        counts = ", ".join(f"{split} {splits.get(split, 0)}" for split in SPLITS)
        raise CracksegError(
            f"{dataset} has no images of the split {' and '.join(missing)} ({counts}), and training needs them; import "
            "it with --split-counts"
        )
    return "test" if splits.get("test") else "val"


def _fit_into(data_dir: Path, params: Params, minutes: float) -> tuple[dict[str, Any], str]:
    """Choose epochs for a number of minutes on this machine; also say what was measured."""
    dataset = params.data.train_dataset
    if not (data_dir / dataset / "manifest.csv").is_file():
        return {}, _NO_TIME.format(dataset)
    num_images = int((read_manifest(data_dir, dataset)["split"] == "train").sum())
    from crackseg.training.pace import format_duration, measure_step  # torch takes seconds to import

    step_s = measure_step(params)
    per_image = params.train.patches_per_image
    epoch_s = step_s * -(-num_images * per_image // params.train.batch_size)
    if epoch_s > 60 * minutes and per_image > 1:
        per_image = 1
        epoch_s = step_s * -(-num_images // params.train.batch_size)
    epochs = max(1, round(60 * minutes / epoch_s))
    found = {
        "train.epochs": epochs,
        "train.patches_per_image": per_image,
        "train.validate_every": max(1, -(-epochs // _NUM_VALIDATIONS)),
    }
    return found, (
        f"a step takes {step_s:.2f} s here: {epochs} {'epoch' if epochs == 1 else 'epochs'} of {num_images} images are "
        f"about {format_duration(epochs * epoch_s)} of training"
    )
