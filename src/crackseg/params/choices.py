"""Names of architectures and losses for checking settings, read from their tables without importing them.

The tables hold torch modules, and importing torch takes seconds, but every command reads params. So the names are read
from the source of the tables: a new row there is a new valid name.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

_PACKAGE = Path(__file__).parents[1]


def read_names(module: str, table: str) -> tuple[str, ...]:
    """Read the keys of a dict literal at the top level of a module.

    Args:
        module: dotted name of a module of crackseg.
        table: the dict's name; its keys are string literals.
    """
    path = _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == table:
            assert isinstance(node.value, ast.Dict), f"{path}: {table} is no dict literal"
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise AssertionError(f"{path} has no table {table}")


def explain_choice(value: object, choices: Sequence[object]) -> str:
    """Explain a wrong value by the valid and the nearest ones: ``expected one of a, b; did you mean a?``."""
    names = [choice for choice in choices if isinstance(choice, str)]
    close = difflib.get_close_matches(str(value), names, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"expected one of {', '.join(map(str, choices))}{hint}"


def _one_of(names: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise ValueError(explain_choice(value, names))
        return value

    return AfterValidator(check)


ARCHITECTURE_NAMES = read_names("crackseg.models.registry", "ARCHITECTURES")
LOSS_NAMES = read_names("crackseg.training.losses", "LOSSES")

ArchitectureName = Annotated[
    str, _one_of(ARCHITECTURE_NAMES), WithJsonSchema({"type": "string", "enum": list(ARCHITECTURE_NAMES)})
]
LossName = Annotated[str, _one_of(LOSS_NAMES), WithJsonSchema({"type": "string", "enum": list(LOSS_NAMES)})]
