"""A database in a file on a disk that several machines write is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from crackseg.cli.doctor import disks
from crackseg.cli.doctor.disks import find_shared_disk
from crackseg.cli.doctor.examination import examine
from crackseg.cli.doctor.project import check_store


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the system says is on NFS, with a space in its name."""
    place = tmp_path / "team disk"
    (place / "project" / "mlruns").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda / ext4 rw 0 0\nserver:/x {str(place).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    )
    monkeypatch.setattr(disks, "_MOUNTS", mounts)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return place


def test_the_doctor_warns_of_a_database_on_a_network_disk(mount: Path) -> None:
    finding = check_store(mount / "project", timeout_s=1)
    assert finding.status == "warning"
    assert "is on a network disk (nfs4): two processes" in finding.message
    assert "docs/team-store.md" in finding.advice


def test_a_disk_of_this_machine_is_not_warned_of(mount: Path) -> None:
    assert find_shared_disk(mount.parent) == ""


def test_a_synchronised_folder_is_known_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "OneDrive - Ada" / "project"
    folder.mkdir(parents=True)
    assert find_shared_disk(folder) == "a synchronised folder (OneDrive - Ada)"


@pytest.mark.parametrize("name", ["bridge #3", "Brücke"])
def test_a_path_in_which_dvc_cannot_make_experiments_is_warned_of(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    (found,) = [finding for finding in examine(root, answer_s=1) if finding.name == "folder"]
    assert found.status == "warning"
    assert "`dvc exp run --temp`" in found.message
