"""dvc.yaml must name the code that each stage's results follow from, or DVC skips what has changed."""

import pytest
from ruamel.yaml import YAML

from crackseg.lineage import PACKAGE, list_code

ROOT = PACKAGE.parents[1]
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reruns_when_code_it_imports_changes(stage: str) -> None:
    needed = {path.relative_to(ROOT).as_posix() for path in list_code(f"crackseg.stages.{stage}")}
    assert needed - _listed_modules(stage) == set()


@pytest.mark.parametrize("stage", STAGES)
def test_stage_does_not_rerun_for_code_that_it_does_not_import(stage: str) -> None:
    needed = {path.relative_to(ROOT).as_posix() for path in list_code(f"crackseg.stages.{stage}")}
    modules = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert modules - needed == set()


def test_every_stage_has_its_module() -> None:
    present = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {
        "__init__",
        "layout",
        "own_code",
        "result_run",
    }
    assert present == set(STAGES)


def _listed_modules(stage: str) -> set[str]:
    """The modules among the stage's deps; a folder stands for all modules in it."""
    listed: set[str] = set()
    for dep in STAGES[stage]["deps"]:
        path = ROOT / dep
        if path.suffix == ".py":
            listed.add(dep)
        elif path.is_relative_to(PACKAGE):
            listed |= {module.relative_to(ROOT).as_posix() for module in path.rglob("*.py")}
    return listed
