"""What version of ``data/`` is on disk, and whether git knows it.

``dvc repro`` rewrites data.dvc to whatever lies in ``data/`` before any stage runs, so an edited image or a
partial ``dvc pull`` would silently become the new version. :func:`check_data_is_committed` is the first thing that
the pipeline does, and stops that.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from crackseg.data.image_io import write_bytes
from crackseg.errors import CracksegError

_ACCEPTED = Path(".dvc", "tmp", "crackseg-data-version")  # git ignores the folder
_NOT_DATA = {".gitignore", ".DS_Store", "Thumbs.db", "desktop.ini"}  # .dvcignore names the same


def hash_file(path: Path) -> str:
    """md5 of a file's bytes, as DVC computes it."""
    digest = hashlib.md5()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def list_folder(folder: Path) -> dict[str, str]:
    """Map each file below ``folder`` (forward slashes) to its md5; DVC's ignored files are left out."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _NOT_DATA
    }


def hash_listing(listing: dict[str, str]) -> str:
    """The md5 that DVC writes for a folder with these files, e.g. ``….dir`` in data.dvc."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(listing.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def hash_dataset(listing: dict[str, str], dataset: str) -> str:
    """The md5 of one dataset's folder within the listing of ``data/``."""
    prefix = f"{dataset}/"
    return hash_listing({path[len(prefix) :]: md5 for path, md5 in listing.items() if path.startswith(prefix)})


def check_data_is_committed(root: Path, real_root: Path) -> dict[str, str]:
    """Stop unless ``data/`` is the version that git has, committed or staged.

    Args:
        root: the project's folder, or a DVC experiment's temporary copy of it.
        real_root: the project's folder itself.
    Returns:
        The listing of ``root/data``, see :func:`list_folder`.
    Raises:
        CracksegError: there is no data, or it differs from data.dvc as committed or staged; says how.
    """
    data_dir = root / "data"
    if not data_dir.is_dir() or not any(data_dir.iterdir()):
        raise CracksegError(
            f"no data: {real_root / 'data'} is empty. Fetch the versioned data with `dvc pull data.dvc`, or bring "
            "your own with `crackseg data import SOURCE`"
        )
    listing = list_folder(data_dir)
    known = set(_known_versions(root, real_root))
    if hash_listing(listing) in known:
        return listing
    if not known:
        raise CracksegError(
            f"data.dvc is neither committed nor staged in git ({real_root}); run `git add data.dvc` first, so that "
            "the results can name their data"
        )
    raise CracksegError(_explain_difference(listing, _committed_listing(real_root, known)))


def _known_versions(root: Path, real_root: Path) -> Iterator[str]:
    """The versions of data/ that somebody has vouched for."""
    accepted = real_root / _ACCEPTED
    if accepted.exists():  # what the last import staged; DVC's experiments unstage it
        yield accepted.read_text(encoding="utf-8").strip()
    if baseline := os.environ.get("DVC_EXP_BASELINE_REV"):
        # Inside an experiment DVC has staged data.dvc as rewritten, so the index proves nothing.
        revisions = [f"{baseline}:./data.dvc"]
    else:
        revisions = [":./data.dvc", "HEAD:./data.dvc"]  # staged, committed
    for revision in revisions:
        command = ["git", "show", revision]
        shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if shown.returncode == 0:
            yield YAML(typ="safe", pure=True).load(shown.stdout)["outs"][0]["md5"]


def _committed_listing(root: Path, versions: set[str]) -> dict[str, str] | None:
    """The listing of a known version, if DVC's cache has it where it is by default."""
    for version in versions:
        path = root / ".dvc" / "cache" / "files" / "md5" / version[:2] / version[2:]
        if path.is_file():
            return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))}
    return None


def _explain_difference(present: dict[str, str], committed: dict[str, str] | None) -> str:
    changes = []
    if committed is not None:
        kinds = {
            "missing": sorted(committed.keys() - present.keys()),
            "added": sorted(present.keys() - committed.keys()),
            "changed": sorted(p for p in present.keys() & committed.keys() if present[p] != committed[p]),
        }
        for kind, paths in kinds.items():
            if paths:
                rest = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
                changes.append(f"  {len(paths)} {kind}: {', '.join(f'data/{p}' for p in paths[:3])}{rest}")
    return "\n".join(
        [
            "data/ differs from data.dvc as committed or staged in git, so the results could not name their data",
            *changes,
            "  to keep the change:   dvc add data && git add data.dvc (for experiments: git commit data.dvc)",
            "  to go back:           git checkout HEAD -- data.dvc && dvc checkout data.dvc --force",
            "  after a partial pull: git checkout HEAD -- data.dvc && dvc pull data.dvc",
        ]
    )


def fetch_data(root: Path) -> None:
    """Bring ``data/`` to the version in data.dvc (``dvc pull``), if there is nothing in it yet.

    Raises:
        CracksegError: DVC could not fetch it.
    """
    data_dir = root / "data"
    if (data_dir.is_dir() and any(data_dir.iterdir())) or not (root / "data.dvc").exists():
        return
    run_dvc(root, "pull", "--quiet", "data.dvc")


def version_data(root: Path) -> None:
    """Record ``data/`` as it is in data.dvc (``dvc add``) and stage that in git; committing is the user's."""
    run_dvc(root, "add", "--quiet", "data")
    staged = subprocess.run(["git", "add", "data.dvc"], cwd=root, capture_output=True, text=True, check=False)
    if staged.returncode:
        raise CracksegError(f"`git add data.dvc` failed in {root}: {staged.stderr.strip()}; stage it yourself")
    content = YAML(typ="safe", pure=True).load((root / "data.dvc").read_text(encoding="utf-8"))
    write_bytes(root / _ACCEPTED, content["outs"][0]["md5"].encode())


def run_dvc(root: Path, *arguments: str) -> None:
    """Run DVC of this environment in ``root``; its output goes to the terminal.

    Raises:
        CracksegError: it failed.
    """
    _call_dvc(root, arguments, capture=False)


def read_dvc(root: Path, *arguments: str) -> str:
    """Like :func:`run_dvc`, and return what DVC printed."""
    return _call_dvc(root, arguments, capture=True)


def _call_dvc(root: Path, arguments: tuple[str, ...], *, capture: bool) -> str:
    # Stages call `crackseg` by name: find it also where the environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if result.returncode:
        said = f": {result.stderr.strip()}" if capture else ""
        raise CracksegError(f"`dvc {' '.join(arguments)}` failed in {root} (exit code {result.returncode}){said}")
    return result.stdout or ""
