"""The package's imports, read from its source."""

from __future__ import annotations

import ast
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from crackseg.lineage import PACKAGE


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
