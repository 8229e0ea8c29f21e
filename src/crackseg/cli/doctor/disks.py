"""Kind of disk that a folder lies on: databases in files need one of this machine."""

from __future__ import annotations

import re
from pathlib import Path

_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "fuse.sshfs",
    "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.glusterfs",
})  # fmt: skip
_SYNCED = (
    "dropbox",
    "onedrive",
    "google drive",
    "googledrive",
    "nextcloud",
    "owncloud",
    "icloud",
    "mobile documents",
)
_MOUNTS = Path("/proc/self/mounts")


def find_shared_disk(folder: Path) -> str:
    """Describe the network disk or synchronised folder that holds a folder; empty if it is on neither.

    Network disks are known on Linux only. A folder counts as synchronised by its name or that of one above.
    """
    folder = folder.resolve()
    kind = _find_kind(folder)
    if kind in _NETWORK:
        return f"a network disk ({kind})"
    for part in folder.parts:
        if any(part.lower().startswith(name) for name in _SYNCED):
            return f"a synchronised folder ({part})"
    return ""


def _find_kind(folder: Path) -> str:
    """Return the kind of the file system of a folder, as Linux names it; empty elsewhere."""
    if not _MOUNTS.exists():
        return ""
    kinds = {}
    for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, place, kind, *_ = line.split(" ")
        kinds[re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place)] = kind
    return next((kinds[str(above)] for above in (folder, *folder.parents) if str(above) in kinds), "")
