"""Install crackseg and the packages for a purpose into a virtual environment; make runs it for every target.

    python3 tools/install.py .venv demo dev

The lists in requirements/ name every file by its hash, so pip neither resolves nor compares versions; two pips share
the work. On another platform than theirs, pip resolves, with the same versions (constraints.txt). Uses the standard
library only, since it runs before anything is installed.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST = (3, 11)  # as pyproject.toml's requires-python
# torch and what only torch needs: most of the bytes, in few packages. One pip unpacks these, another fetches the rest.
TORCH = ("torch", "triton", "nvidia-", "cuda-")


def main() -> None:
    """Install the purposes named on the command line."""
    if sys.version_info < OLDEST:
        sys.exit("crackseg needs Python 3.11 or newer; name one with make PYTHON=python3.11")
    environment, purposes = Path(sys.argv[1]), sys.argv[2:]
    lists = [ROOT / "requirements" / f"{purpose}.txt" for purpose in purposes]
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True, symlinks=True)
    if Path(sys.prefix).resolve() != environment.resolve():
        os.execv(python, [python, __file__, *sys.argv[1:]])  # the lists depend on its version
    begun = time.monotonic()
    heads = [path.read_text().splitlines()[:2] for path in lists]
    here = name_platform()
    if all(head[0].endswith(f"for {here}.") for head in heads):
        for purpose, head in zip(purposes, heads, strict=True):
            print(f"{environment}: {purpose}: {head[1].removeprefix('# ')}", flush=True)
        _install_files(python, lists)
        _pip(python, "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    else:
        print(
            f"{environment}: the lists of files are not for {here}; pip resolves, which takes longer", flush=True
        )
        extras = ",".join(purpose for purpose in purposes if purpose != "demo")
        wanted = f"{ROOT}[{extras}]" if extras else str(ROOT)
        _pip(python, "install", "-c", str(ROOT / "constraints.txt"), "--editable", wanted)
    _pip(python, "check")
    _compile(python)
    print(f"{environment}: installed in {time.monotonic() - begun:.0f} s", flush=True)


def name_platform() -> str:
    """Name the platform that a list of files is for, such as 'CPython 3.11 on Linux x86_64'."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{platform.python_implementation()} {version} on {platform.system()} {platform.machine()}"


def _install_files(python: Path, lists: list[Path]) -> None:
    """Install every file of the lists, with two pips at a time; ends the program if one of them fails."""
    lines = [line for path in lists for line in path.read_text().splitlines() if not line.startswith("#")]
    large = [line for line in lines if line.startswith(TORCH)]
    rest = [line for line in lines if not line.startswith(TORCH)]
    with tempfile.TemporaryDirectory(prefix="crackseg-install-") as folder:
        running = []
        for number, part in enumerate(part for part in (large, rest) if part):
            path = Path(folder) / f"{number}.txt"
            path.write_text("\n".join(part))
            running.append(
                _start(python, "install", "--no-deps", "--require-hashes", "--no-compile", "-r", str(path))
            )
        failed = [process.wait() for process in running]
    if any(failed):
        sys.exit("pip could not install every package: see its message above; the next make tries again")


def _start(python: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start pip, quiet but for warnings and errors."""
    return subprocess.Popen([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def _pip(python: Path, *arguments: str) -> None:
    """Run pip; ends the program if it fails."""
    if code := _start(python, *arguments).wait():
        sys.exit(code)


def _compile(python: Path) -> None:
    """Compile the packages with every core, but for their tests: pip takes one core, a later import more each time.

    The package's own code too: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each command would do it.
    """
    folders = [sysconfig.get_path("purelib"), str(ROOT / "src")]
    arguments = ["-m", "compileall", "-qq", "-j", "0", "-x", "[/\\\\]tests[/\\\\]", *folders]
    subprocess.run([python, *arguments], check=False)  # a template that is no Python is no failure


if __name__ == "__main__":
    main()
