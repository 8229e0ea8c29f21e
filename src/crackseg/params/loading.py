"""Read, change and flatten params.yaml.

Unknown keys, wrong types, NaN and duplicate keys are errors that name the key, the value and the nearest valid one.
The file is read with ruamel.yaml, as DVC does: PyYAML reads ``1e-3`` as text and keeps the last of two equal keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from crackseg.errors import CracksegError
from crackseg.params.problems import explain_problem
from crackseg.params.sections import MeasureParams, Params, SearchDimension, SearchParams
from crackseg.params.width_classes import WidthClass


def load_params(path: Path) -> Params:
    """Read and check a params.yaml.

    Raises:
        CracksegError: the file is missing or no YAML, or a key is unknown, missing, duplicate, of the wrong type
            or out of range; the message names the file, the key, the value and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CracksegError(
            f"{path}: cannot be read ({error.strerror}); run crackseg in the project's folder"
        ) from error
    except UnicodeDecodeError as error:
        raise CracksegError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    return parse_params(text, str(path))


def parse_params(text: str, source: str) -> Params:
    """Check the text of a params.yaml.

    Args:
        text: YAML.
        source: where it comes from, for messages, e.g. its path.
    Raises:
        CracksegError: as :func:`load_params`.
    """
    return _parse(text, source)


@lru_cache(maxsize=8)  # a command asks for the same file several times
def _parse(text: str, source: str) -> Params:
    try:
        plain = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise CracksegError(
            f"{source}: {str(error.problem).split(' with ')[0]}{where}; keep one of the two"
        ) from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise CracksegError(f"{source}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(plain, dict):
        raise CracksegError(
            f"{source}: expected sections such as `model:` and `loss:`, got {type(plain).__name__}"
        )
    return _check(plain, source)


def change_params(params: Params, changes: Mapping[str, Any], *, source: str) -> Params:
    """Return params with changed keys such as ``loss.gamma``, checked as a whole.

    Args:
        params: to begin from; not modified.
        changes: values by dotted key.
        source: where the changes come from, for messages, e.g. ``-S``.
    Raises:
        CracksegError: as :func:`load_params`.
    """
    content = params.model_dump(mode="json")
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = content
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise CracksegError(f"{source}: unknown key {key}; {part} holds a value and no further keys")
        section[name] = value
    return _check(content, source)


def parse_setting(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE`` as `dvc exp run -S` does: the value is YAML.

    Raises:
        CracksegError: there is no key, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise CracksegError(f"-S {text}: expected KEY=VALUE, e.g. loss.gamma=4")
    try:
        return key, YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        raise CracksegError(f"-S {text}: the value is not valid YAML") from error


def _check(plain: dict, source: str) -> Params:
    try:
        # From JSON: strict Python input would refuse lists for tuples. NaN and dates become strings here, and so fail
        # with an error that names the key.
        return Params.model_validate_json(json.dumps(_jsonable(plain), default=str))
    except ValidationError as error:
        # Unknown keys first: a misspelt key is reported as unknown and as missing, and the misspelling is the cause.
        problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise CracksegError("\n".join(explain_problem(source, e, _valid_keys()) for e in problems)) from error


def _valid_keys() -> dict[str, list[str]]:
    keys = {name: list(field.annotation.model_fields) for name, field in Params.model_fields.items()}  # type: ignore[union-attr]
    return keys | {
        "search.space": list(SearchDimension.model_fields),
        "measure.classes": list(WidthClass.model_fields),
    }


def flatten_params(params: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Flatten to ``{"loss.gamma": 2.0, …}``, the keys that MLflow shows.

    The sections ``search`` and ``measure`` are left out: no training run depends on them.
    """
    flat: dict[str, Any] = {}
    for key, value in params:
        if isinstance(value, SearchParams | MeasureParams):
            continue
        if isinstance(value, BaseModel):
            flat.update(flatten_params(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def complete_settings(recorded: Mapping[str, str]) -> dict[str, str]:
    """Add the keys that a run of an older version did not record, with their defaults, which are what it did.

    Args:
        recorded: flat settings as MLflow records them; other params, without settings of crackseg, stay as they are.
    """
    sections = {key.split(".")[0] for key in recorded}
    added = {
        f"{section}.{name}": str(of_key.default)
        for section, field in Params.model_fields.items()
        if section in sections
        for name, of_key in field.annotation.model_fields.items()  # type: ignore[union-attr]
        if not of_key.is_required()
    }
    return added | dict(recorded)


def value_types(key: str) -> frozenset[type]:
    """Return the types of the values of a key, e.g. int and NoneType for ``model.width``; str for named choices.

    Args:
        key: dotted key that params.yaml has, e.g. ``loss.gamma``.
    """
    section, name = key.split(".")
    return frozenset(_types_in(Params.model_fields[section].annotation.model_fields[name].annotation))  # type: ignore[union-attr]


def _types_in(annotation: Any) -> Iterator[type]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from map(type, arguments)
    elif origin in (Annotated, Union, UnionType):
        for argument in arguments[:1] if origin is Annotated else arguments:
            yield from _types_in(argument)
    else:
        yield origin or annotation


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
