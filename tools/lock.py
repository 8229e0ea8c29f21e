"""Pin every package that crackseg can need: `make lock` writes constraints.txt and requirements/, `--check` reads them.

pip resolves all the extras of pyproject.toml together, once, to the newest versions that fit. constraints.txt holds the
versions. requirements/ holds, for each purpose, the files of one platform by their SHA-256, so that `tools/install.py`
installs them there without resolving: demo.txt what crackseg itself needs, each other list what one extra adds to
the lists before it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from tools.install import name_platform  # noqa: E402

CONSTRAINTS = "constraints.txt"
FOLDER = "requirements"
# Each list's extra of pyproject.toml, in the order in which they are installed; None is crackseg without extras.
EXTRAS: dict[str, str | None] = {
    "demo": None,
    "dev": "dev",
    "bench": "bench",
    "spark": "spark",
    "heic": "heic",
    "audit": "audit",
}


def read_ranges(pyproject: Path) -> dict[str | None, list[Requirement]]:
    """Read the requirements of pyproject.toml, by extra; None has those of crackseg itself."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = {
        name: [Requirement(text) for text in texts] for name, texts in project["optional-dependencies"].items()
    }
    return {None: [Requirement(text) for text in project["dependencies"]], **extras}


def read_pins(path: Path) -> dict[str, str]:
    """Read `name==version` lines (other lines are hashes and comments); returns versions by canonical name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def find_faults(root: Path) -> list[str]:
    """Compare the lock with pyproject.toml; returns a sentence for each fault, none if the lock is good."""
    pins = read_pins(root / CONSTRAINTS)
    listed: dict[str, str] = {}
    faults = []
    for purpose in EXTRAS:
        for name, version in read_pins(root / FOLDER / f"{purpose}.txt").items():
            if name in listed:
                faults.append(f"{FOLDER}/{purpose}.txt: {name} is in an earlier list, too")
            listed[name] = version
    for name in sorted({*pins, *listed}):
        if pins.get(name) != listed.get(name):
            faults.append(f"{name}: {pins.get(name)} in {CONSTRAINTS}, {listed.get(name)} in {FOLDER}/")
    ranges = read_ranges(root / "pyproject.toml")
    known: set[str] = set()
    for purpose, extra in EXTRAS.items():
        known |= set(read_pins(root / FOLDER / f"{purpose}.txt"))
        for requirement in _without_own_extras(ranges, extra):
            name = canonicalize_name(requirement.name)
            if name not in known:
                faults.append(f"{FOLDER}/{purpose}.txt: {requirement} of pyproject.toml is missing")
            elif not requirement.specifier.contains(listed[name], prereleases=True):
                faults.append(
                    f"{FOLDER}/{purpose}.txt: {name}=={listed[name]} is outside pyproject.toml's {requirement}"
                )
    return faults


def _without_own_extras(ranges: dict[str | None, list[Requirement]], extra: str | None) -> Iterable[Requirement]:
    """Yield an extra's requirements, those of `crackseg[other]` in place of it."""
    for requirement in ranges[extra]:
        if canonicalize_name(requirement.name) == "crackseg":
            for other in requirement.extras:
                yield from _without_own_extras(ranges, other)
        else:
            yield requirement


def sort_by_purpose(
    installs: dict[str, dict[str, Any]], ranges: dict[str | None, list[Requirement]]
) -> dict[str, list[str]]:
    """Sort what pip resolved into the lists: each package into the first whose extra needs it.

    Args:
        installs: pip's report on each package, by canonical name.
        ranges: requirements of pyproject.toml by extra.
    """
    environment = {key: str(value) for key, value in default_environment().items()}
    lists: dict[str, list[str]] = {}
    done: set[tuple[str, str]] = set()  # (package, its extra or '')
    for purpose, extra in EXTRAS.items():
        before = {name for name, _ in done}
        waiting = list(_without_own_extras(ranges, extra))
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            for wanted in {"", *requirement.extras} - {seen for package, seen in done if package == name}:
                done.add((name, wanted))
                for text in installs[name]["metadata"].get("requires_dist", []):
                    needed = Requirement(text)
                    if needed.marker is None or needed.marker.evaluate({**environment, "extra": wanted}):
                        waiting.append(needed)
        lists[purpose] = sorted({name for name, _ in done} - before)
    return lists


def main() -> None:
    """Write the lock, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare the lock with pyproject.toml")
    if parser.parse_args().check:
        if faults := find_faults(ROOT):
            sys.exit("\n".join([*faults, "make lock writes these files again"]))
        return
    ranges = read_ranges(ROOT / "pyproject.toml")
    with tempfile.TemporaryDirectory(prefix="crackseg-lock-") as folder:
        installs = _resolve(Path(folder) / "report.json")
        lists = sort_by_purpose(installs, ranges)
        (ROOT / FOLDER).mkdir(exist_ok=True)
        for purpose, names in lists.items():
            _write_list(purpose, names, installs, Path(folder) / purpose)
    unsorted = set(installs) - {name for names in lists.values() for name in names}
    if unsorted:
        sys.exit(f"{', '.join(sorted(unsorted))}: needed by no list; add its extra to EXTRAS in tools/lock.py")
    pins = "".join(f"{name}=={installs[name]['metadata']['version']}\n" for name in sorted(installs))
    head = "# Every version that crackseg is tested with, for `pip install -c constraints.txt`; made by `make lock`.\n"
    (ROOT / CONSTRAINTS).write_text(head + pins)


def _resolve(report: Path) -> dict[str, dict[str, Any]]:
    """Let pip resolve crackseg with the extras of all lists; returns its report on each package, by canonical name."""
    extras = ",".join(extra for extra in EXTRAS.values() if extra)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [
            *pip,
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
            f"{ROOT}[{extras}]",
        ],
        check=True,
    )
    installs = {
        canonicalize_name(each["metadata"]["name"]): each for each in json.loads(report.read_text())["install"]
    }
    return {name: each for name, each in installs.items() if name != "crackseg"}


def _write_list(purpose: str, names: list[str], installs: dict[str, dict[str, Any]], folder: Path) -> None:
    """Fetch the files of one list, which proves their hashes, and write it with its size."""
    path = ROOT / FOLDER / f"{purpose}.txt"
    lines = []
    for name in names:
        sha256 = installs[name]["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={installs[name]['metadata']['version']} --hash=sha256:{sha256}\n")
    path.write_text("".join(lines))
    if names:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        arguments = [
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--dest",
            str(folder),
            "-r",
            str(path),
        ]
        subprocess.run([*pip, *arguments], check=True)
    files = sorted(folder.iterdir()) if names else []
    fetched = sum(file.stat().st_size for file in files)
    unpacked = sum(
        each.file_size for file in files if file.suffix == ".whl" for each in zipfile.ZipFile(file).infolist()
    )
    head = (
        f"# Made by `make lock`, for {name_platform()}.\n"
        f"# {len(names)} packages: {fetched / 1e6:,.0f} MB to fetch, {unpacked / 1e6:,.0f} MB unpacked.\n"
    )
    path.write_text(head + "".join(lines))


if __name__ == "__main__":
    main()
