"""Import into the project's ``data/``, and record it as a new version in DVC and git.

What can be refused is refused before a file is written; what an import left half done is finished by the next.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from crackseg.data.guard import check_data_is_committed, check_git, read_pointer
from crackseg.data.importing.importer import ImportSummary, import_datasets
from crackseg.data.importing.staging import finish_interrupted_import, sole_import
from crackseg.data.versioning import check_pipeline, fetch_data, version_data
from crackseg.errors import CracksegError
from crackseg.files import hash_file, write_bytes

_log = logging.getLogger("crackseg")
# Datasets that were put in place and not yet versioned, each with the md5 of its manifest.
_UNVERSIONED = Path(".dvc", "tmp", "crackseg-unversioned.json")
_LOCK = _UNVERSIONED.with_name("crackseg-import.lock")


def import_versioned(root: Path, source: Path, **options: Any) -> list[ImportSummary]:
    """Import as ``import_datasets`` does, then version ``data/`` and stage data.dvc.

    A dataset that is imported from its own place in ``data/`` is renewed: it alone may differ from what git knows.

    Args:
        root: the project's folder.
        source, options: of ``import_datasets``.
    Raises:
        CracksegError: the project cannot take an import, or see ``import_datasets``.
    """
    data_dir = root / "data"
    _check_project(root)
    (root / _LOCK).parent.mkdir(parents=True, exist_ok=True)
    # Until the new version is recorded: between the swap and the record, another import would see changed data.
    with sole_import(root / _LOCK, data_dir):
        return _import_alone(root, source, data_dir, options)


def _import_alone(root: Path, source: Path, data_dir: Path, options: dict[str, Any]) -> list[ImportSummary]:
    fetch_data(root)
    _note_unversioned(root, finish_interrupted_import(data_dir))
    waiting = _list_unversioned(root)
    if data_dir.is_dir() and any(data_dir.iterdir()):
        renewed = _find_renewed(source, data_dir)
        _, difference = check_data_is_committed(root, root, may_differ=[*waiting, *renewed])
        if difference and renewed:
            _log.info("renewing %s: %s", renewed[0], difference)
    if waiting:
        _version(root)
    summaries = import_datasets(source, data_dir, **options)
    _note_unversioned(root, [summary.dataset for summary in summaries])
    _version(root)
    if earlier := sorted(set(waiting) - {summary.dataset for summary in summaries}):
        _log.warning("data.dvc also has an earlier import, which was interrupted: %s", ", ".join(earlier))
    return summaries


def _check_project(root: Path) -> None:
    check_git(root)
    if not any((folder / ".dvc").is_dir() for folder in (root, *root.parents)):
        raise CracksegError(
            f"{root} is no DVC project, and data/ is versioned with DVC; run `dvc init` in it first"
        )
    read_pointer(root)
    check_pipeline(root)  # DVC would refuse to record the new version
    data_dir = root / "data"
    if data_dir.is_symlink() and not data_dir.exists():
        raise CracksegError(
            f"{data_dir} is a link to {os.readlink(data_dir)}, which is not there; is the disk mounted?"
        )
    if data_dir.exists() and not data_dir.is_dir():
        raise CracksegError(f"{data_dir} is a file; expected the folder of the datasets. Move it away first")
    if data_dir.is_dir() and not os.access(data_dir, os.W_OK | os.X_OK):
        raise CracksegError(f"{data_dir.resolve()} cannot be written; import as its owner, or chmod u+w it")


def _find_renewed(source: Path, data_dir: Path) -> list[str]:
    """Find the dataset that is imported from its own place; a list of one name, or of none."""
    places = [path for path in data_dir.iterdir() if path.is_dir()]
    return [path.name for path in places if source.exists() and path.resolve() == source.resolve()]


def _note_unversioned(root: Path, datasets: list[str]) -> None:
    if datasets:
        noted = _read_noted(root) | {name: hash_file(root / "data" / name / "manifest.csv") for name in datasets}
        write_bytes(root / _UNVERSIONED, json.dumps(noted).encode())


def _list_unversioned(root: Path) -> list[str]:
    """List the noted datasets that are unchanged since their import."""
    unchanged = []
    for name, md5 in _read_noted(root).items():
        manifest = root / "data" / name / "manifest.csv"
        if manifest.is_file() and hash_file(manifest) == md5:
            unchanged.append(name)
    return unchanged


def _read_noted(root: Path) -> dict[str, str]:
    try:
        return dict(json.loads((root / _UNVERSIONED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _version(root: Path) -> None:
    try:
        version_data(root)
    except CracksegError as error:
        raise CracksegError(
            f"{error}\n  what was imported is in data/ and not versioned yet: the next `crackseg data import` does "
            "that first, and so does `dvc add data && git add data.dvc`"
        ) from error
    (root / _UNVERSIONED).unlink(missing_ok=True)
