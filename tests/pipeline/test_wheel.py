"""The wheel, in an environment that has nothing but it and the packages of requirements/demo.txt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import cv2
import numpy as np
import pytest
from tools.lock import read_pins

import crackseg
from crackseg.data.images.files import write_png
from crackseg.data.synthetic.scenes import render_scene

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, since setuptools leaves files next to what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "source" / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    _call(sys.executable, "-m", "pip", "wheel", *options, str(folder / "source"), cwd=folder)
    return next(folder.glob("crackseg-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Path:
    """A new virtual environment with the wheel; links stand for the other packages, which take minutes to install."""
    folder = wheel.parent / "environment"
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for name in read_pins(ROOT / "requirements" / "demo.txt"):
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:  # another platform's; `pip check` says if it is needed here
            continue
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    _call(*pip, "install", "--no-deps", "--no-index", str(wheel), cwd=folder)
    _call(*pip, "check", cwd=folder)
    return folder


def _call(*command: str, cwd: Path, code: int = 0) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False, timeout=250)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    here = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "crackseg").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_wheel_has_its_version_and_the_code_is_its_own(environment: Path, tmp_path: Path) -> None:
    assert crackseg.__version__ in _call(str(environment / "bin" / "crackseg"), "--version", cwd=tmp_path)
    where = _call(
        str(environment / "bin" / "python"), "-c", "import crackseg; print(crackseg.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(environment)


def test_doctor_finds_all_packages_that_the_wheel_requires(environment: Path, tmp_path: Path) -> None:
    said = _call(str(environment / "bin" / "crackseg"), "doctor", cwd=tmp_path, code=1)  # there is no project
    assert [line for line in said.splitlines() if line.startswith("failed")] == [
        line for line in said.splitlines() if "no crackseg project" in line
    ]
    assert "that are required" in said


def test_predict_finds_a_crack_with_the_model_in_the_wheel(environment: Path, tmp_path: Path) -> None:
    scene = render_scene("CRKWH100", 1, size=(256, 256))
    write_png(tmp_path / "photographs" / "wall.png", scene.image)
    _call(str(environment / "bin" / "crackseg"), "predict", "photographs", "--out", "found", cwd=tmp_path)
    found = cv2.imread(str(tmp_path / "found" / "masks" / "wall.png"), cv2.IMREAD_GRAYSCALE) > 0
    near = cv2.dilate(scene.mask, np.ones((7, 7), np.uint8)) > 0
    assert found.sum() > 50
    assert found[near].sum() > 0.8 * found.sum()
