"""Docstrings begin with an imperative verb or a noun, as in the libraries that readers know."""

import ast
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "crackseg"
QUESTION_WORDS = {"what", "which", "who", "whose", "whoever", "whether", "where", "how", "why", "when", "if"}


def _places() -> list[str]:
    return sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("place", _places())
def test_docstrings_begin_with_a_verb_or_a_noun(place: str) -> None:
    top = PACKAGE / place
    found = []
    for path in [top] if top.suffix else sorted(top.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # Docstrings of modules, classes and functions, and those below a constant or a field.
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                text = inspect.cleandoc(str(node.value.value)).partition("\n")[0]
                if text.partition(" ")[0].strip(".,:;`").lower() in QUESTION_WORDS:
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {text}")
    assert found == []
