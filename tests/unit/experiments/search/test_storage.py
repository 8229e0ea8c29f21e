"""The database of studies, opened by several processes and several times in one."""

import subprocess
import sys
from pathlib import Path

import optuna

from crackseg.experiments.search.storage import open_storage

WRITE_AND_CLOSE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
with connection:
    connection.execute("UPDATE trials SET state = 'FAIL'")
connection.close()
"""


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
