"""The lock: every version that pyproject.toml allows is pinned once, for each purpose."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tools import install
from tools.audit import judge
from tools.lock import CONSTRAINTS, FOLDER, find_faults, sort_by_purpose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", CONSTRAINTS):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / FOLDER, tmp_path / FOLDER)
    return tmp_path


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_lock_agrees_with_pyproject() -> None:
    assert find_faults(ROOT) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("pyproject.toml", '"click>=8.1"', '"click>=99"', "outside pyproject.toml's click>=99"),
        ("pyproject.toml", '"click>=8.1"', '"no-such-package"', "no-such-package of pyproject.toml is missing"),
        (CONSTRAINTS, "click==", "click==0.", "click: 0."),
        (f"{FOLDER}/dev.txt", "pytest==", "click==1\npytest==", "click is in an earlier list"),
    ],
)
def test_lock_that_disagrees_is_found(copy: Path, file: str, old: str, new: str, says: str) -> None:
    _replace(copy / file, old, new)
    assert any(says in fault for fault in find_faults(copy))


def test_package_is_in_the_first_list_that_needs_it() -> None:
    def package(*needs: str) -> dict:
        return {"metadata": {"requires_dist": list(needs)}}

    installs = {
        "torch": package("numpy", "helper; extra == 'fast'"),
        "numpy": package("elsewhere; sys_platform == 'none'"),
        "helper": package(),
        "pytest": package("numpy", "torch[fast]"),
    }
    others = {extra: [] for extra in ("bench", "spark", "heic", "audit")}
    ranges = {None: [Requirement("torch")], "dev": [Requirement("pytest")], **others}
    lists = sort_by_purpose(installs, ranges)
    assert lists["demo"] == ["numpy", "torch"]
    assert lists["dev"] == ["helper", "pytest"]


def test_install_refuses_an_older_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer"):
        install.main()


def test_audit_that_could_not_ask_is_no_success() -> None:
    clean = {"name": "torch", "version": "1", "vulns": []}
    asked = {"name": "numpy", "version": "1", "skip_reason": "not found"}
    bad = {"name": "click", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
    assert judge([clean])[0] == 0
    code, lines = judge([clean, asked])
    assert code == 2
    assert "1 of 2 packages checked" in lines[0]
    assert judge([clean, asked, bad])[0] == 1
