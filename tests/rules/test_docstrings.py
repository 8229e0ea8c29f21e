"""Docstrings begin with an imperative verb or a noun, as in the libraries that readers know."""

import ast
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
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = (ast.get_docstring(node) or "").partition("\n")[0]
                if text.partition(" ")[0].strip(".,:;`").lower() in QUESTION_WORDS:
                    found.append(f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 1)}: {text}")
    assert found == []
