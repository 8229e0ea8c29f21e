"""The way of docs/correcting.md, command by command: predict, correct, import, train again, compare, promote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from crackseg.data.images.files import read_mask
from crackseg.data.importing.shapes import find_outlines
from crackseg.data.synthetic.sample import write_sample
from tests.docs.pages import commands_of, read_blocks
from tests.pipeline.conftest import Project, make_project

BRIDGE = "BRIDGE7"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_corrected_predictions_train_models_that_are_judged_on_them(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    project.run("dvc", "repro", timeout_s=600)
    project.commit("First results")
    project.run("crackseg", "promote", "1", "--force", "--reason", "tiny, and worse than the shipped model")
    true_masks = photograph_a_bridge(tmp_path / "home")
    project.environment["HOME"] = str(tmp_path / "home")
    (project.folder / ".git" / "info" / "exclude").write_text("/found\n/to-correct\n", encoding="utf-8")

    commands = commands_of(read_blocks("docs/correcting.md")[0])
    predict, export, bring_in, commit, train, train_on, compare, promote = commands
    run_in_bash(project, predict)
    said = run_in_bash(project, export)
    assert "8 photographs" in said
    correct_as_a_person_would(project.folder / "to-correct" / "images", true_masks)
    assert "8 images" in run_in_bash(project, bring_in)
    run_in_bash(project, commit)
    imported = {path.stem: path for path in (project.folder / "data" / BRIDGE / "masks").iterdir()}
    assert imported.keys() == true_masks.keys()
    for stem, path in true_masks.items():  # what was corrected is what is trained on, pixel by pixel
        assert (read_mask(imported[stem]) == read_mask(path)).all()

    for training in (train, train_on):
        run_in_bash(project, training)
    said = run_in_bash(project, compare)
    assert f"| {BRIDGE}/ods" in said
    assert "from a paired bootstrap" in said
    assert "Remarks" not in said  # nothing stands in the way of comparing them
    said = run_in_bash(project, promote, may_fail=True)
    assert f"images of {BRIDGE}" in said  # champion and challenger, both on the corrected photographs
    versions = project.run_json("crackseg", "models", "--json")["versions"]
    assert [version["datasets"].keys() == {BRIDGE} for version in versions] == [False, True, True]
    in_production = [version["version"] for version in versions if "production" in version["aliases"]]
    assert (in_production == ["1"]) == ("gate FAILED" in said)


def photograph_a_bridge(home: Path) -> dict[str, Path]:
    """Write ~/bridge7, photographs alone; returns where a person would draw the cracks, by stem."""
    write_sample(home / "made", seed=5, counts={"CrackTree260": (8, 0, 0)}, size=(96, 96))
    made = home / "made" / "CrackTree260"
    shutil.copytree(made / "images", home / "bridge7")
    return {path.stem: path for path in (made / "masks").iterdir()}


def correct_as_a_person_would(folder: Path, true_masks: dict[str, Path]) -> None:
    """Replace what the model found by what is there, and save the files where they were."""
    for stem, path in true_masks.items():
        found = folder / f"{stem}.json"
        content = json.loads(found.read_text(encoding="utf-8"))
        content["shapes"] = [
            {"label": "crack", "shape_type": "polygon", "points": outline.tolist(), "group_id": None, "flags": {}}
            for outline in find_outlines(read_mask(path))
        ]
        found.write_text(json.dumps(content), encoding="utf-8")


def run_in_bash(project: Project, command: str, *, may_fail: bool = False) -> str:
    return project.run("bash", "-c", f"{command} || {str(may_fail).lower()}", timeout_s=600)
