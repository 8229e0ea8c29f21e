"""Format of an export on disk: list, hash and check its files.

::

    export.json                    format, source, experiments; written last
    files.jsonl                    path, bytes and sha256 of every other file
    registered_models.jsonl        names, versions, aliases, tags
    runs/RUN_ID/                   run.json, metrics.jsonl, artifacts/
    logged_models/MODEL_ID/        model.json, artifacts/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crackseg.errors import CracksegError
from crackseg.files import hash_file, read_json, sync_folders, sync_tree, write_bytes, write_json
from crackseg.progress import progress

FORMAT = 1
MANIFEST, LISTING, REGISTRY = "export.json", "files.jsonl", "registered_models.jsonl"
RUNS, MODELS, ARTIFACTS = "runs", "logged_models", "artifacts"
REPAIR = "copy or write the export again"


@dataclass(frozen=True)
class Export:
    """An export whose files were all checked.

    Attributes:
        folder: where it is.
        manifest: the content of export.json.
        digests: sha256 of each file by its path within the folder, with forward slashes.
    """

    folder: Path
    manifest: dict[str, Any]
    digests: dict[str, str]

    def list_entries(self, kind: str) -> list[str]:
        """Ids of the runs (``RUNS``) or logged models (``MODELS``), sorted."""
        return sorted({path.split("/")[1] for path in self.digests if path.startswith(f"{kind}/")})

    def list_artifacts(self, kind: str, entry: str) -> list[str]:
        """Paths of an entry's artifacts, relative to its ``artifacts`` folder."""
        prefix = f"{kind}/{entry}/{ARTIFACTS}/"
        return sorted(path[len(prefix) :] for path in self.digests if path.startswith(prefix))

    def digest_entry(self, kind: str, entry: str) -> str:
        """Return one sha256 of all files of an entry."""
        prefix = f"{kind}/{entry}/"
        return _digest_lines(f"{d} {p}" for p, d in sorted(self.digests.items()) if p.startswith(prefix))


def unfinished_folder(folder: Path) -> Path:
    """Return the folder that holds an export to ``folder`` until it is complete."""
    return folder.with_name(f"{folder.name}.part")


def finish_export(part_dir: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """List and hash all files of ``part_dir``, write the manifest and give the folder its name."""
    for name in (LISTING, MANIFEST):  # of an earlier attempt
        (part_dir / name).unlink(missing_ok=True)
    paths = sorted(path for path in part_dir.rglob("*") if path.is_file())
    records = []
    for path in progress(paths, "checksums", "file"):
        size, digest = path.stat().st_size, hash_file(path, "sha256")
        records.append({"path": path.relative_to(part_dir).as_posix(), "bytes": size, "sha256": digest})
    write_json_lines(part_dir / LISTING, records)
    write_json(
        part_dir / MANIFEST,
        {
            "format": FORMAT,
            **manifest,
            "files": len(records),
            "listing_sha256": hash_file(part_dir / LISTING, "sha256"),
        },
    )
    sync_tree(part_dir)
    part_dir.rename(folder)
    sync_folders([folder.parent])


def open_export(folder: Path) -> Export:
    """Read an export and check each of its files.

    Raises:
        CracksegError: the folder is no export, an unfinished one, or a file is missing, cut short or changed.
    """
    if not (folder / MANIFEST).is_file():
        if unfinished_folder(folder).is_dir() or folder.name.endswith(".part"):
            whole = folder.with_name(folder.name.removesuffix(".part"))
            raise CracksegError(
                f"{folder}: the export was not finished; run `crackseg store export {whole}` again where the "
                "store is; it resumes where it stopped"
            )
        raise CracksegError(f"{folder}: not an export of a store, there is no {MANIFEST}")
    manifest = read_json(folder / MANIFEST, advice=REPAIR)
    if manifest.get("format") != FORMAT:
        raise CracksegError(
            f"{folder / MANIFEST}: format {manifest.get('format')!r}, expected {FORMAT}; "
            "import it with the version of crackseg that wrote it"
        )
    listing = folder / LISTING
    if not listing.is_file() or hash_file(listing, "sha256") != manifest.get("listing_sha256"):
        raise _damaged(folder, f"{LISTING} is missing or not as it was written")
    digests = {}
    for record in progress(list(read_json_lines(listing)), "check files", "file"):
        problem = _find_problem(folder, record)
        if problem:
            raise _damaged(folder, problem)
        digests[record["path"]] = record["sha256"]
    return Export(folder, manifest, digests)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def write_json_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write a record on each line."""
    write_bytes(path, "".join(json.dumps(record, sort_keys=True) + "\n" for record in records).encode())


def _find_problem(folder: Path, record: dict[str, Any]) -> str | None:
    path = folder / record["path"]
    if not path.resolve().is_relative_to(folder.resolve()):
        return f"{LISTING} names {record['path']}, which is outside of the folder"
    if not path.is_file():
        return f"{record['path']} is missing"
    size = path.stat().st_size
    if size != record["bytes"]:
        return f"{record['path']} has {size} bytes, not {record['bytes']}"
    if hash_file(path, "sha256") != record["sha256"]:
        return f"{record['path']} was changed"
    return None


def _damaged(folder: Path, problem: str) -> CracksegError:
    return CracksegError(f"{folder}: the export is damaged: {problem}; nothing was imported, copy it again")


def _digest_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
