"""List the tests next to what was changed and not yet pushed, for `make test-fast`; always those of the rules.

A module src/crackseg/FOLDER/NAME.py has its tests in tests/unit/FOLDER/test_NAME.py; without this file, all of
tests/unit/FOLDER are listed. Tests of other modules that use a changed one are not: `make test` runs them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALWAYS = ("tests/rules",)


def main() -> None:
    """Print the tests, for pytest's command line."""
    print(" ".join(find_tests(ROOT, _list_changed(ROOT))))


def _list_changed(root: Path) -> list[str]:
    """List files that differ from the upstream branch, or from the last commit if there is none, and new ones."""
    found: list[str] = []
    for command in (
        ["diff", "--name-only", "HEAD"],
        ["diff", "--name-only", "@{upstream}...HEAD"],
        ["ls-files", "--others", "--exclude-standard"],
    ):
        said = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=False)
        found += said.stdout.splitlines()  # nothing without an upstream branch
    return found


def find_tests(root: Path, changed: Iterable[str]) -> list[str]:
    """Find the test files and folders of changed files.

    Args:
        root: of the repository.
        changed: paths below it, as git names them.
    """
    tests = set(ALWAYS)
    for name in changed:
        path = Path(name)
        if path.parts[0] == "tests" and path.name.startswith("test_"):
            tests.add(name)
        elif path.parts[:2] == ("src", "crackseg") and path.suffix == ".py":
            folder = Path("tests", "unit", *path.parts[2:-1])
            beside = folder / f"test_{path.name}"
            while not (root / folder).is_dir():
                folder = folder.parent
            tests.add((beside if (root / beside).is_file() else folder).as_posix())
    kept = {test for test in tests if (root / test).exists()}
    return sorted(test for test in kept if not any(Path(test).is_relative_to(o) for o in kept - {test}))


if __name__ == "__main__":
    main()
