"""params.schema.json, with which editors complete and check params.yaml, says what the program says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from tools.params_schema import NAME, make_schema

from crackseg.errors import CracksegError
from crackseg.params import change_params, load_params
from crackseg.params.presets import PRESETS

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / NAME).read_text(encoding="utf-8"))


def _problems(content: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(content)]


def _committed() -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return content


def test_the_committed_schema_is_the_one_of_the_typed_sections() -> None:
    assert make_schema() == SCHEMA, "make schema"


def test_editors_find_the_schema() -> None:
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={NAME}"


def test_every_key_is_explained() -> None:
    definitions = SCHEMA["$defs"]
    silent = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, of_key in definition.get("properties", {}).items()
        if not of_key.get("description")
    ]
    assert silent == []


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_good_settings_are_not_marked(preset: str | None) -> None:
    content = _committed()
    for key, value in (PRESETS[preset].settings if preset else {}).items():
        section, name = key.split(".")
        content[section][name] = value
    assert _problems(content) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss.gama", 2),
        ("loss.gamma", "two"),
        ("loss.gamma", -1),
        ("loss.name", "focall"),
        ("model.architecture", "unnet"),
        ("model.width", 2),
        ("train.epochs", 2.5),
        ("train.deterministic", 1),
        ("data.test_datasets", []),
        ("search.space", {"loss": {"gamma": {"lowest": 1}}}),
        ("measure.classes", [{"name": "fine", "from_mm": 0}]),
    ],
)
def test_a_mistake_in_one_key_is_marked(key: str, value: object) -> None:
    with pytest.raises(CracksegError):
        change_params(load_params(ROOT / "params.yaml"), {key: value}, source="test")
    content = _committed()
    section, name = key.split(".")
    content[section][name] = value
    assert _problems(content)


def test_a_key_that_no_search_can_vary_is_marked() -> None:
    """`crackseg search` refuses it, since it alone reads the space."""
    content = _committed()
    content["search"]["space"] = {"loss": {"gama": [1, 2]}}
    assert _problems(content)
