"""Hash ``data/`` as DVC does, fetch it, and record a new version of it in DVC and git."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from crackseg.child_processes import run_guarded
from crackseg.errors import CracksegError, first_line, join_some
from crackseg.files import hash_file, write_bytes

if TYPE_CHECKING:  # loading DVC takes a fifth of a second
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB

_GRACE_S = 60  # a training that is told to stop writes its records first
ACCEPTED = Path(".dvc", "tmp", "crackseg-data-version")  # what the last import staged; git ignores the folder
_NOT_DATA = {".gitignore", ".DS_Store", "Thumbs.db", "desktop.ini"}  # .dvcignore names the same


def list_folder(folder: Path) -> dict[str, str]:
    """Map each file below ``folder`` (forward slashes) to its md5; DVC's ignored files are left out."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in _NOT_DATA
        and not path.relative_to(folder).parts[0].startswith(".import-")
    }


def describe_linked_folders(folder: Path) -> str:
    """Say which folders at or below ``folder`` are links, which DVC leaves out of a version without a word; or ""."""
    linked = [path for path in (folder, *sorted(folder.rglob("*"))) if path.is_symlink() and path.is_dir()]
    if not linked:
        return ""
    first = linked[0]
    return (
        f"{join_some(map(str, linked))}: a link to a folder, which DVC leaves out of the version; put the files in its "
        f"place: rm {first} && cp -r {first.resolve()} {first}"
    )


def hash_listing(listing: dict[str, str]) -> str:
    """Compute the md5 that DVC writes for a folder with these files, e.g. ``….dir`` in data.dvc."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(listing.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def hash_dataset(listing: dict[str, str], dataset: str) -> str:
    """Compute the md5 of one dataset's folder within the listing of ``data/``."""
    prefix = f"{dataset}/"
    return hash_listing({path[len(prefix) :]: md5 for path, md5 in listing.items() if path.startswith(prefix)})


def fetch_data(root: Path) -> None:
    """Bring ``data/`` to the version in data.dvc (``dvc pull``), if there is nothing in it yet.

    Raises:
        CracksegError: DVC could not fetch it.
    """
    data_dir = root / "data"
    if (data_dir.is_dir() and any(data_dir.iterdir())) or not (root / "data.dvc").exists():
        return
    run_dvc(root, "pull", "data.dvc")


def version_data(root: Path) -> None:
    """Record ``data/`` as it is in data.dvc (``dvc add``) and stage that in git; committing is the user's."""
    if (root / "data").is_symlink():  # `dvc add` refuses links; `dvc commit` follows them
        if not (root / "data.dvc").exists():
            write_bytes(root / "data.dvc", b"outs:\n- path: data\n")
        run_dvc(root, "commit", "--force", "data.dvc")
    else:
        run_dvc(root, "add", "data")
    staged = subprocess.run(["git", "add", "data.dvc"], cwd=root, capture_output=True, text=True, check=False)
    if staged.returncode:
        raise CracksegError(f"`git add data.dvc` failed in {root}: {staged.stderr.strip()}; stage it yourself")
    content = YAML(typ="safe", pure=True).load((root / "data.dvc").read_text(encoding="utf-8"))
    write_bytes(root / ACCEPTED, content["outs"][0]["md5"].encode())


@contextmanager
def open_dvc(root: Path) -> Iterator[Repo]:
    """Open a DVC project in this process.

    Raises:
        CracksegError: there is none, or DVC refuses what is done with it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from scmrepo.exceptions import SCMError

    try:
        with Repo(str(root)) as repo:
            yield repo
    except (DvcException, SCMError, OSError) as error:
        raise CracksegError(f"DVC in {root}: {' '.join(str(error).split())}") from error


def open_cache(root: Path) -> HashFileDB:
    """Open DVC's cache of a project, wherever its settings put it.

    Raises:
        CracksegError: there is no DVC project, or its settings cannot be read.
    """
    with open_dvc(root) as repo:
        return repo.cache.local


def list_cached_folder(cache: HashFileDB, md5: str) -> dict[str, str] | None:
    """Map each file of a folder (forward slashes) to its md5, as DVC's cache lists it.

    Args:
        cache: see :func:`open_cache`.
        md5: of the folder, as in data.dvc or dvc.lock: ``….dir``.
    Returns:
        The listing, or None: the cache has none, or this is no folder.
    """
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    folder = HashInfo("md5", md5)
    if not folder.isdir:
        return None
    try:
        tree = Tree.load(cache, folder)
    except (FileNotFoundError, ObjectFormatError):
        return None
    return {"/".join(parts): info.value for parts, _, info in tree}


def run_dvc(root: Path, *arguments: str) -> None:
    """Run DVC of this environment in ``root``, without its bars and hints.

    Raises:
        CracksegError: it failed; with what DVC says of the reason.
    """
    command, environment = _find_dvc(arguments)
    done = subprocess.run(
        command, cwd=root, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reasons = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said[-3:]
        raise CracksegError(
            f"`dvc {' '.join(arguments)}` failed in {root} (exit code {done.returncode}): {'; '.join(reasons)}"
        )


def can_run_copies(root: Path) -> bool:
    """Return whether DVC finds the temporary copies of an experiment, which it looks for by an address."""
    return str(root).isascii() and not any(letter in str(root) for letter in "#?")


def check_pipeline(root: Path) -> None:
    """Check that DVC can read dvc.yaml, dvc.lock and data.dvc.

    Raises:
        CracksegError: there is no DVC project, or a file is damaged or in conflict; with what DVC says.
    """
    with open_dvc(root) as repo:
        list(repo.index.stages)  # reads them


def run_dvc_guarded(root: Path, *arguments: str) -> int:
    """Run DVC for what takes long: all that it starts ends with this process. Returns its exit code."""
    command, environment = _find_dvc(arguments)
    return run_guarded(command, cwd=root, environment=environment, grace_s=_GRACE_S)


def find_experiment(root: Path, name: str) -> str:
    """Return git's reference of a DVC experiment; "" if there is none. DVC itself takes seconds to list them."""
    command = ["git", "for-each-ref", "--format=%(refname)", f"refs/exps/**/{name}"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.split()
    return found[-1] if found else ""


def read_of_experiment(root: Path, reference: str, paths: Sequence[str]) -> list[str]:
    """Read outputs of an experiment, wherever DVC's cache is.

    Args:
        root: the project folder.
        reference: git's, see :func:`find_experiment`.
        paths: below the project folder.
    Raises:
        CracksegError: DVC cannot read one.
    """
    from dvc.api import DVCFileSystem  # takes a second to import
    from dvc.exceptions import DvcException

    try:
        files = DVCFileSystem(str(root), rev=reference)
        return [files.read_text(path) for path in paths]
    except (DvcException, OSError) as error:
        raise CracksegError(f"{reference}: {first_line(error)}; see `dvc exp show`") from error


def _find_dvc(arguments: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    # Stages call `crackseg` by name: find it also where the environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return [sys.executable, "-m", "dvc", *arguments], os.environ | {"PATH": path}
