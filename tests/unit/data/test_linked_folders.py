"""A dataset that is a link to a folder elsewhere: DVC leaves it out of the version, so it is refused by name."""

from pathlib import Path

import pytest

from crackseg.data.guard import check_data_is_committed
from crackseg.data.versioning import describe_linked_folders, list_folder
from crackseg.errors import CracksegError


@pytest.mark.parametrize("linked", ["data/WALL", "data/WALL/images"])
def test_a_linked_folder_is_refused_before_it_is_left_out_of_a_version(tmp_path: Path, linked: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / linked).parent.mkdir(parents=True)
    (tmp_path / linked).symlink_to(tmp_path / "elsewhere")
    assert not list_folder(tmp_path / "data")  # as DVC sees it
    with pytest.raises(CracksegError, match=f"{linked}: a link to a folder, which DVC leaves out"):
        check_data_is_committed(tmp_path, tmp_path)


def test_linked_files_and_a_linked_data_folder_are_versioned(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "WALL").mkdir(parents=True)
    (tmp_path / "a.png").touch()
    (tmp_path / "elsewhere" / "WALL" / "a.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "data").symlink_to(tmp_path / "elsewhere")
    assert describe_linked_folders(tmp_path / "data" / "WALL") == ""
