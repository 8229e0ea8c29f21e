"""`make test-fast` runs the tests that stand next to what was changed."""

from __future__ import annotations

from tools.changed_tests import find_tests

from tests.docs.pages import ROOT


def test_module_brings_the_tests_of_its_name() -> None:
    assert find_tests(ROOT, ["src/crackseg/evaluation/scoring.py"]) == [
        "tests/rules",
        "tests/unit/evaluation/test_scoring.py",
    ]


def test_module_without_tests_of_its_name_brings_its_folder() -> None:
    assert find_tests(ROOT, ["src/crackseg/registry/__init__.py"]) == ["tests/rules", "tests/unit/registry"]


def test_changed_tests_run_once_and_deleted_ones_do_not() -> None:
    changed = ["tests/unit/test_lineage.py", "tests/rules/test_lock.py", "tests/unit/test_gone.py", "README.md"]
    assert find_tests(ROOT, changed) == ["tests/rules", "tests/unit/test_lineage.py"]
