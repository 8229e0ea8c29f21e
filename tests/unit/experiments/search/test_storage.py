"""The database of studies, opened by several processes and several times in one."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from crackseg.errors import CracksegError
from crackseg.experiments.search.storage import open_storage

WRITE_AND_CLOSE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
with connection:
    connection.execute("UPDATE trials SET state = 'FAIL'")
connection.close()
"""


MAKE_AND_END = """
import sys
import optuna
from crackseg.child_processes import end_quickly
from crackseg.experiments.search.storage import open_storage
end_quickly()
storage = open_storage(sys.argv[1])
optuna.create_study(study_name="made", storage=storage).ask()
"""


def test_a_database_is_one_file_that_can_be_copied_once_its_process_has_ended(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MAKE_AND_END, str(tmp_path / "studies.db")], check=True)
    assert [path.name for path in tmp_path.glob("studies.db-*")] == []


def test_a_process_that_opens_the_database_again_still_sees_what_others_write(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    held = open_storage(str(database))
    optuna.create_study(study_name="held", storage=held).ask()
    for address in (str(database), f"sqlite:///{database}"):
        open_storage(address)  # must not drop the locks of `held`
    # Another process whose connection is the last one removes the write-ahead log when it closes.
    subprocess.run([sys.executable, "-c", WRITE_AND_CLOSE, str(database)], check=True)
    assert (tmp_path / "studies.db-shm").exists(), "the other process took itself for the only one"
    again = open_storage(str(database))
    (trial,) = optuna.load_study(study_name="held", storage=again).get_trials()
    assert trial.state.name == "FAIL"


@pytest.mark.parametrize("address", ["{}/nope/studies.db", "sqlite:///{}/nope/studies.db"])
def test_a_mistyped_storage_is_named_and_not_made(tmp_path: Path, address: str) -> None:
    with pytest.raises(CracksegError, match=r"nope/studies\.db does not exist; expected the database"):
        open_storage(address.format(tmp_path), create=False)
    assert list(tmp_path.iterdir()) == []
