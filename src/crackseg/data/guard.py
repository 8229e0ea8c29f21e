"""Stop unless ``data/`` is a version that git knows.

``dvc repro`` rewrites data.dvc to whatever lies in ``data/`` before any stage runs, so an edited image or a
partial ``dvc pull`` would silently become the new version. :func:`check_data_is_committed` is the first thing that
the pipeline does, and stops that.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from crackseg.data.versioning import (
    ACCEPTED,
    describe_linked_folders,
    hash_listing,
    list_cached_folder,
    list_folder,
    open_cache,
)
from crackseg.errors import CracksegError, count_of, join_some


@dataclass(frozen=True, slots=True)
class _Version:
    """Version of data/ that git or an import has recorded.

    Attributes:
        md5: as in data.dvc.
        restore: git's command that brings data.dvc back to it; "" where git has it nowhere.
    """

    md5: str
    restore: str


@dataclass(frozen=True, slots=True)
class _Difference:
    """Differences between the files in data/ and a version; paths below data/."""

    version: _Version
    missing: list[str]
    added: list[str]
    changed: list[str]

    @property
    def paths(self) -> list[str]:
        return self.missing + self.added + self.changed


def check_data_is_committed(
    root: Path, real_root: Path, *, may_differ: Collection[str] = ()
) -> tuple[dict[str, str], str]:
    """Stop unless ``data/`` is the version that git has, committed or staged.

    Args:
        root: the project's folder, or a DVC experiment's temporary copy of it.
        real_root: the project's folder itself.
        may_differ: names of datasets that may be changed, since the caller is about to make a version of them.
    Returns:
        The listing of ``root/data``, see :func:`list_folder`; and a sentence on what differs, or "".
    Raises:
        CracksegError: there is no data, or it differs from data.dvc as committed or staged; says how.
    """
    data_dir = root / "data"
    if not data_dir.is_dir() or not any(data_dir.iterdir()):
        raise CracksegError(
            f"no data: {real_root / 'data'} is empty. Fetch the versioned data with `dvc pull data.dvc`, or bring "
            "your own with `crackseg data import SOURCE`"
        )
    for dataset in sorted(data_dir.iterdir()):  # data/ itself may be a link
        if linked := describe_linked_folders(dataset):
            raise CracksegError(linked)
    versions = _list_versions(root, real_root)
    listing = list_folder(data_dir)
    present = hash_listing(listing)
    if any(version.md5 == present for version in versions):
        return listing, ""
    if not versions:
        raise CracksegError(
            f"data.dvc is neither committed nor staged in git ({real_root}); run "
            f"`{'' if (root / 'data.dvc').exists() else 'dvc add data && '}git add data.dvc` first, so that the "
            "results can name their data"
        )
    nearest = _find_nearest(listing, versions, real_root)
    if nearest is not None and {path.split("/")[0] for path in nearest.paths} <= set(may_differ):
        return listing, _count_differences(nearest)
    raise CracksegError(_explain(nearest, data_dir))


def check_git(root: Path) -> None:
    """Raise CracksegError unless ``root`` is in a git repository that git opens."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--is-inside-work-tree"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise CracksegError(
            f"git cannot be started ({error.strerror}); install it: data.dvc is kept in git"
        ) from error
    if answer.returncode:
        said = answer.stderr.strip()
        if "not a git repository" in said:
            said = "it is in no git repository; `git init` makes one"
        raise CracksegError(f"git does not open {root}, and data.dvc is kept in git: {said}")


def read_pointer(root: Path) -> str:
    """Return the version of ``data/`` that data.dvc names; empty if there is no data.dvc.

    Raises:
        CracksegError: it cannot be read, e.g. after a merge.
    """
    path = root / "data.dvc"
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    if version := parse_pointer(text):
        return version
    if "<<<<<<<" in text:
        raise CracksegError(
            f"{path} is in conflict: two branches have different data. Take one of them with `git checkout --ours "
            "data.dvc` or `--theirs`, then `git add data.dvc && dvc checkout data.dvc`, and import the other again"
        )
    raise CracksegError(f"{path} cannot be read as DVC's file of one folder; `git checkout HEAD -- data.dvc`")


def _list_versions(root: Path, real_root: Path) -> list[_Version]:
    check_git(root)
    versions = []
    if baseline := os.environ.get("DVC_EXP_BASELINE_REV"):
        # Inside an experiment DVC has staged data.dvc as rewritten, so the index proves nothing.
        revisions = {f"{baseline}:./data.dvc": "git checkout HEAD -- data.dvc"}
    else:
        revisions = {
            ":./data.dvc": "git checkout -- data.dvc",  # staged
            "HEAD:./data.dvc": "git checkout HEAD -- data.dvc",
        }
    for revision, restore in revisions.items():
        command = ["git", "show", revision]
        shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if shown.returncode == 0 and (md5 := parse_pointer(shown.stdout)):
            versions.append(_Version(md5, restore))
    accepted = real_root / ACCEPTED
    if accepted.exists():  # DVC's experiments unstage what was staged
        versions.append(_Version(accepted.read_text(encoding="utf-8").strip(), ""))
    return versions


def parse_pointer(text: str) -> str | None:
    """Return the version that the text of a data.dvc names; None if it is damaged."""
    try:
        return str(YAML(typ="safe", pure=True).load(text)["outs"][0]["md5"])
    except (YAMLError, KeyError, IndexError, TypeError):
        return None


def _find_nearest(listing: dict[str, str], versions: Sequence[_Version], real_root: Path) -> _Difference | None:
    """Find the version with the fewest differences, the staged one among equals; None if DVC's cache lists none."""
    try:
        cache = open_cache(real_root)
    except CracksegError:
        return None
    found = []
    for version in versions:
        if (entries := list_cached_folder(cache, version.md5)) is not None:
            changed = [p for p in listing.keys() & entries.keys() if listing[p] != entries[p]]
            missing, added = entries.keys() - listing.keys(), listing.keys() - entries.keys()
            found.append(_Difference(version, sorted(missing), sorted(added), sorted(changed)))
    return min(found, key=lambda difference: len(difference.paths), default=None)


def _count_differences(difference: _Difference) -> str:
    kinds = (("missing", difference.missing), ("added", difference.added), ("changed", difference.changed))
    return "; ".join(
        f"{len(paths)} {kind}: {join_some([f'data/{path}' for path in paths])}" for kind, paths in kinds if paths
    )


def _explain(difference: _Difference | None, data_dir: Path) -> str:
    """Explain the differences from the nearest known version, and each remedy with the files that it deletes."""
    head = "data/ differs from data.dvc as committed or staged in git, so the results could not name their data"
    keep = "dvc add data && git add data.dvc"
    experiments = "(for experiments: git commit data.dvc)"
    if difference is None:
        return "\n".join(
            [
                head,
                "  DVC's cache has no list of any known version, so the files that differ cannot be named here",
                f"  to keep what is here: {keep} {experiments}",
                "  to see what differs:  dvc fetch data.dvc, then this command again",
            ]
        )
    lines = [head, f"  {_count_differences(difference)}"]
    names = sorted({path.split("/")[0] for path in difference.paths})
    datasets = [name for name in names if (data_dir / name / "manifest.csv").is_file()]
    renew = [f"crackseg data import data/{name} --name {name}" for name in datasets]
    if len(names) == len(datasets) == 1:
        keep, renew = renew[0], []
    lines.append(f"  to keep the change:   {' && '.join([keep, *renew])} {experiments}")
    restore = difference.version.restore
    overwritten, deleted = difference.changed, difference.added
    if not restore:
        lines.append("  git has no longer the data.dvc of the nearest version, so there is no command to go back")
    elif overwritten or deleted:
        fates = [
            f"overwrites {count_of(len(overwritten), 'changed file')}" if overwritten else "",
            f"deletes {count_of(len(deleted), 'added file')}" if deleted else "",
        ]
        fate = " and ".join(filter(None, fates))
        lines.append(f"  to go back:           {restore} && dvc checkout data.dvc --force")
        lines.append(f"                        which {fate}: copy what you need elsewhere first")
    if difference.missing and restore:
        lines.append(f"  after a partial pull: {restore} && dvc pull data.dvc")
    return "\n".join(lines)
