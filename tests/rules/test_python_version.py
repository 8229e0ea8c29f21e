"""The oldest Python is said in several places; all of them agree, and mypy checks the code against it."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from tools import install

from crackseg.cli.doctor import machine

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OLDEST = PROJECT["project"]["requires-python"].removeprefix(">=")


def test_mypy_looks_the_standard_library_up_as_the_oldest_python_has_it() -> None:
    # datetime.UTC, say, is an error for mypy where python_version is 3.10.
    assert PROJECT["tool"]["mypy"]["python_version"] == OLDEST


@pytest.mark.parametrize("page", ["README.md", "docs/first-steps.md", "tools/install.py"])
def test_pages_name_the_oldest_python(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert set(re.findall(r"Python (3\.\d+) or newer", text)) == {OLDEST}


def test_make_and_the_doctor_refuse_an_older_python() -> None:
    parts = tuple(map(int, OLDEST.split(".")))
    assert parts == install.OLDEST == machine.OLDEST_PYTHON


def test_classifiers_begin_with_the_oldest_python_and_hold_this_one() -> None:
    classifiers = PROJECT["project"]["classifiers"]
    versions = [v for c in classifiers if (v := c.rpartition(" :: ")[2]).startswith("3.")]
    assert versions[0] == OLDEST
    assert "{}.{}".format(*sys.version_info) in versions
