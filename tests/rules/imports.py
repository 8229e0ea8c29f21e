"""Which module of crackseg imports which, read from the source."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "crackseg"


def list_modules() -> dict[str, Path]:
    """Map dotted names to files; a package is named by its folder."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["crackseg", *path.relative_to(PACKAGE).with_suffix("").parts]
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


@cache
def direct_imports(module: str) -> frozenset[str]:
    """Every name that ``module`` imports, also inside functions: ours as modules, others by their full name."""
    modules = list_modules()
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in inner}
    return frozenset(found)


@cache
def all_imports(module: str, without: frozenset[str] = frozenset()) -> frozenset[str]:
    """The modules of crackseg that ``module`` imports, directly or not, with itself; not by way of ``without``."""
    modules = list_modules()
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in without:
            seen.add(name)
            waiting += [found for found in direct_imports(name) if found in modules]
    return frozenset(seen)
