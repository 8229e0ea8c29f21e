"""Write params.schema.json, the JSON Schema of params.yaml for editors: `make schema`; `--check` compares it.

Editors that know YAML schemas (VS Code with Red Hat's YAML extension, PyCharm, Neovim) complete keys, show what each
means and mark wrong values, since the first line of params.yaml names the file. Rules between two keys are not in it;
crackseg checks those.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tools.reference_pages import docstrings_of_fields  # noqa: E402

from crackseg.params import Params, SearchDimension  # noqa: E402
from crackseg.params.width_classes import WidthClass  # noqa: E402

NAME = "params.schema.json"


def make_schema() -> dict[str, Any]:
    """Make the schema from the typed sections, with the text below each field as its description."""
    schema = Params.model_json_schema()
    definitions = schema["$defs"]
    sections = {name: field.annotation for name, field in Params.model_fields.items()}
    for model in (*sections.values(), SearchDimension, WidthClass):
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        definition = definitions[model.__name__]
        for key, text in docstrings_of_fields(model):
            definition["properties"][key]["description"] = text.replace("``", "`")
    # A searched key may have a list instead of a range, which pydantic's schema cannot know.
    choices = definitions["SearchDimension"]["properties"]["choices"]["anyOf"][0]
    definitions["SearchedKey"] = {"anyOf": [{"$ref": "#/$defs/SearchDimension"}, choices, {"type": "null"}]}
    space = definitions["SearchParams"]["properties"]["space"]
    space.pop("additionalProperties")
    space |= _object(
        {
            name: _object({key: {"$ref": "#/$defs/SearchedKey"} for key in section.model_fields})  # type: ignore[union-attr]
            for name, section in sections.items()
            if name != "search"
        }
    )
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "params.yaml of crackseg"}
    return head | _without_titles(schema)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _without_titles(value: Any) -> Any:
    """Leave out the titles that pydantic makes of the names."""
    if isinstance(value, dict):
        return {k: _without_titles(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
    return [_without_titles(v) for v in value] if isinstance(value, list) else value


def main() -> None:
    """Write the schema, or check it."""
    text = json.dumps(make_schema(), indent=1, ensure_ascii=False) + "\n"
    path = ROOT / NAME
    if sys.argv[1:] == ["--check"]:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{NAME} is not what src/crackseg/params says; `make schema` writes it again")
        return
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
