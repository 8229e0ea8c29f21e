"""dvc.yaml must name the code and the settings that each stage's results follow from, or DVC skips what has changed."""

import ast

import pytest
from ruamel.yaml import YAML

from crackseg.lineage import ANSWERS, PACKAGE, keys_behind, keys_changing, list_code
from crackseg.params import Params
from crackseg.params.effects import COUNTING, IMAGES, MAPS, NOTHING, PACE, SCORES, VERSION, WEIGHTS, Effect

ROOT = PACKAGE.parents[1]
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reruns_when_code_it_imports_changes(stage: str) -> None:
    needed = {path.relative_to(ROOT).as_posix() for path in list_code(f"crackseg.pipeline.{stage}")}
    assert needed - _listed_modules(stage) == set()


@pytest.mark.parametrize("stage", STAGES)
def test_stage_does_not_rerun_for_code_that_it_does_not_import(stage: str) -> None:
    needed = {path.relative_to(ROOT).as_posix() for path in list_code(f"crackseg.pipeline.{stage}")}
    modules = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert modules - needed == set()


# What the stages make; the report is drawn from what the others do.
PRODUCTS: dict[str, tuple[Effect, ...]] = {
    "prepare": (IMAGES,),
    "train": (WEIGHTS,),
    "predict": (MAPS,),
    "evaluate": (COUNTING, SCORES),
    "report": (),
    "register": (VERSION,),
}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reruns_when_a_key_changes_what_it_makes(stage: str) -> None:
    assert keys_changing(*PRODUCTS[stage]) - _listed_keys(stage) == set()


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reruns_when_a_key_that_its_code_reads_changes(stage: str) -> None:
    read = _read_keys(stage)
    if any(dep.startswith("outputs/model/") for dep in STAGES[stage]["deps"]):
        read -= keys_behind(WEIGHTS)  # each training writes a new run.json
    assert read - keys_changing(NOTHING) - _listed_keys(stage) == set()


@pytest.mark.parametrize("stage", STAGES)
def test_stage_does_not_rerun_for_a_key_that_nothing_follows_from(stage: str) -> None:
    idle = {key for key, marks in ANSWERS.items() if all(mark.effects <= {NOTHING, PACE} for mark in marks)}
    assert _listed_keys(stage) & idle == set()


def test_every_stage_has_its_module() -> None:
    present = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {
        "__init__",
        "killed",
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


def _read_keys(stage: str) -> set[str]:
    """The keys that a stage's module takes from ``params``, one by one or as a section handed on whole."""
    source = (PACKAGE / "stages" / f"{stage}.py").read_text(encoding="utf-8")
    attributes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    inner = {id(node.value) for node in attributes}
    read: set[str] = set()
    for node in attributes:
        root, *words = ast.unparse(node).split(".")
        if root == "params" and words[0] in Params.model_fields and (len(words) > 1 or id(node) not in inner):
            read |= _keys_under(".".join(words[:2]))
    return read


def _listed_keys(stage: str) -> set[str]:
    return set().union(*(_keys_under(word) for word in STAGES[stage]["params"]))


def _keys_under(word: str) -> set[str]:
    """The key of this name, or all of a section."""
    return {key for key in ANSWERS if key == word or key.startswith(f"{word}.")}
