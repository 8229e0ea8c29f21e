"""dvc.yaml must name the code that each stage's results follow from, or DVC skips what has changed."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.rules.imports import PACKAGE, all_imports, list_modules

ROOT = PACKAGE.parents[1]
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# They word messages, find the folder and carry records to MLflow; a change in them, or in what they import for that,
# must not train a model anew.
NOT_IN_RESULTS = frozenset(
    {
        "crackseg",
        "crackseg.errors",
        "crackseg.launching",
        "crackseg.params_problems",
        "crackseg.project_folder",
        "crackseg.outbox",
        "crackseg.tracking",
        "crackseg.stages",
    }
)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reruns_when_code_it_imports_changes(stage: str) -> None:
    modules = list_modules()
    imported = all_imports(f"crackseg.stages.{stage}", NOT_IN_RESULTS)
    # A package's __init__ without code of its own brings nothing into the results.
    expected = {modules[m].relative_to(ROOT).as_posix() for m in imported if _has_code(modules[m])}
    assert _listed_modules(stage) == expected


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


def _has_code(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    return path.name != "__init__.py" or len(lines) > 1
