"""dvc.yaml must name the code and the settings that each stage's results follow from, or DVC skips what has changed."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from crackseg.lineage import ANSWERS, CODE, PACKAGE, keys_behind, keys_changing, list_code
from crackseg.params import Params
from crackseg.params.effects import COUNTING, IMAGES, MAPS, NOTHING, PACE, SCORES, VERSION, WEIGHTS, Effect
from tests.imports import all_imports, has_code, list_modules

ROOT = PACKAGE.parents[1]
STAGES = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


# Modules that word messages, show progress, find the project, carry settings and records: no result follows from them,
# nor from what is imported by way of them alone.
NOT_IN_RESULTS = (
    "crackseg",
    "crackseg.child_processes",
    "crackseg.devices",
    "crackseg.errors",
    "crackseg.files",
    "crackseg.lineage",
    "crackseg.params*",
    "crackseg.pipeline.killed",
    "crackseg.pipeline.result_run",
    "crackseg.plotting",
    "crackseg.progress",
    "crackseg.project",
    "crackseg.tracking*",
    "crackseg.types",
)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_code_that_lineage_names(stage: str) -> None:
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    assert deps == [f"src/crackseg/{place}" for place in CODE[stage]]
    assert all((ROOT / dep).exists() for dep in deps)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reruns_when_code_it_imports_changes(stage: str) -> None:
    assert _imported(stage) - set(list_code(stage)) == set()


@pytest.mark.parametrize(("stage", "place"), [(stage, place) for stage in CODE for place in CODE[stage]])
def test_stage_does_not_rerun_for_code_that_it_does_not_import(stage: str, place: str) -> None:
    assert any(path.is_relative_to(PACKAGE / place) for path in _imported(stage))


# What the stages make. The report is drawn from it; the threshold is a part of the scores and of the version.
PRODUCTS: dict[str, tuple[Effect, ...]] = {
    "prepare": (IMAGES,),
    "train": (WEIGHTS,),
    "predict": (MAPS,),
    "evaluate": (COUNTING, SCORES),
    "register": (VERSION,),
}


def test_every_stage_that_makes_something_of_its_own_is_checked() -> None:
    assert PRODUCTS.keys() | {"threshold", "report"} == STAGES.keys()


@pytest.mark.parametrize("stage", PRODUCTS)
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
    assert set(STAGES) == set(CODE)
    assert all((PACKAGE / "pipeline" / f"{stage}.py").is_file() for stage in STAGES)


def _imported(stage: str) -> set[Path]:
    modules = list_modules()
    names = all_imports(f"crackseg.pipeline.{stage}", NOT_IN_RESULTS)
    return {modules[name] for name in names if has_code(modules[name])}


def _read_keys(stage: str) -> set[str]:
    """The keys that a stage's module takes from ``params``, one by one or as a section handed on whole."""
    source = (PACKAGE / "pipeline" / f"{stage}.py").read_text(encoding="utf-8")
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
