"""Causes of a result: settings, as said at the fields of params, and code, as read from the imports.

From here come the keys of checkpoints and trials, which runs are alike, what a search compares, what a comparison of
runs accepts; tests/rules holds dvc.yaml's deps and params to it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from crackseg.params import Params
from crackseg.params.effects import Affects, Effect

_Value = TypeVar("_Value")
_SYMBOLS = {"loss.gamma": "γ", "loss.alpha": "α"}

PACKAGE = Path(__file__).parent

NOT_IN_RESULTS = (
    "crackseg",
    "crackseg.child_processes",
    "crackseg.errors",
    "crackseg.training.distributed.launching",
    "crackseg.lineage",
    "crackseg.tracking.outbox",
    "crackseg.params*",
    "crackseg.progress",
    "crackseg.project",
    "crackseg.tracking.runs",
    "crackseg.pipeline.killed",
    "crackseg.tracking.store_address",
    "crackseg.tracking.connection",
    "crackseg.tracking.store",
)
"""Modules (patterns) that word messages, show progress, find the folder, carry settings and records: a change in them,
or in what is imported for that, must not train a model again."""


def _read_answers() -> dict[str, tuple[Affects, ...]]:
    answers = {}
    for section, field in Params.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        for name, of_key in field.annotation.model_fields.items():
            answers[f"{section}.{name}"] = tuple(mark for mark in of_key.metadata if isinstance(mark, Affects))
    return answers


ANSWERS: Mapping[str, tuple[Affects, ...]] = _read_answers()
"""By dotted key, what is said at its field."""


def keys_changing(*effects: Effect) -> frozenset[str]:
    """List the keys that change one of these products directly."""
    return frozenset(key for key, marks in ANSWERS.items() if any(mark.effects & set(effects) for mark in marks))


def keys_behind(*effects: Effect, settings: Mapping[str, object] | None = None) -> frozenset[str]:
    """List the keys that one of these products follows from, directly or through what it is made from.

    Args:
        effects: the products.
        settings: flat values, or their text: leave out keys that need other ones to have an effect.
    """
    return frozenset(
        key
        for key, marks in ANSWERS.items()
        if any(mark.reaches(effect) and mark.holds(settings or {}) for mark in marks for effect in effects)
    )


def settings_behind(effect: Effect, settings: Mapping[str, _Value]) -> dict[str, _Value]:
    """Choose the settings that a product follows from.

    Args:
        effect: the product.
        settings: flat, values or their text as MLflow records it. Keys that another version of crackseg had are
            kept: nothing is known of them.
    """
    behind = keys_behind(effect, settings=settings)
    return {key: value for key, value in settings.items() if key in behind or key not in ANSWERS}


def describe_loss(settings: Mapping[str, object]) -> str:
    """Name a loss with the parameters that it reads: ``focal (γ = 2.0, α = 3.0)``.

    Args:
        settings: flat, values or their text as MLflow records it.
    """
    behind = keys_behind(Effect.WEIGHTS, settings=settings) - {"loss.name"}
    keys = [key for key in ANSWERS if key.startswith("loss.") and key in behind and key in settings]
    words = [f"{_SYMBOLS.get(key, key.removeprefix('loss.'))} = {settings[key]}" for key in keys]
    name = str(settings.get("loss.name", "?"))
    return f"{name} ({', '.join(words)})" if words else name


def list_code(module: str) -> tuple[Path, ...]:
    """List the files of the package that a module's results follow from, sorted.

    Args:
        module: dotted name, e.g. ``crackseg.pipeline.train``; its own file is the first of them.
    """
    modules = list_modules()
    return tuple(sorted(modules[name] for name in all_imports(module, NOT_IN_RESULTS) if has_code(modules[name])))


def hash_code(module: str) -> str:
    """Hash the text of :func:`list_code`: changes when any of these files does."""
    digest = hashlib.sha256()
    for path in list_code(module):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def list_modules() -> dict[str, Path]:
    """Map dotted names to files; a package is named by its folder."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


@cache
def direct_imports(module: str) -> frozenset[str]:
    """List every name that ``module`` imports, also inside functions: ours as modules, others by their full name."""
    modules = list_modules()
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in inner}
        elif isinstance(node, ast.Call) and _called(node) == "import_module":
            found |= {str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return frozenset(found)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


@cache
def all_imports(module: str, without: tuple[str, ...] = ()) -> frozenset[str]:
    """List the modules of the package that ``module`` imports, directly or not, with itself.

    Args:
        module: dotted name.
        without: patterns of modules to leave out, with what is imported by way of them alone.
    """
    modules = list_modules()
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or any(fnmatchcase(name, pattern) for pattern in without):
            continue
        seen.add(name)
        waiting += [found for found in direct_imports(name) if found in modules]
        if "." in name:  # importing a module runs the packages that it lies in
            waiting.append(name.rpartition(".")[0])
    return frozenset(seen)


def has_code(path: Path) -> bool:
    """Tell a module from the head of a package that only says what the package is for."""
    return path.name != "__init__.py" or len(path.read_text(encoding="utf-8").strip().splitlines()) > 1
