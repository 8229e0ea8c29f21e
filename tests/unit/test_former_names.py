"""A user's script that imports crackseg's modules by the names of before the folders works for one more release."""

import subprocess
import sys

from tests.warm_commands import warm_python

SCRIPT = """
from crackseg.analysis import SETTINGS_NAME, ModelSettings
from crackseg.data.image_io import encode_png, write_bytes
from crackseg.project_folder import find_root
from crackseg.tracking import Store
import crackseg.inference.detector as detector, crackseg.analysis
assert crackseg.analysis is detector and detector.ModelSettings is ModelSettings
assert detector.__spec__.name == detector.__name__ == "crackseg.inference.detector"
"""


def test_scripts_with_former_names_work_and_are_told_the_new_ones() -> None:
    answer = subprocess.run([warm_python(), "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "crackseg.analysis is crackseg.inference.detector now" in answer.stderr
    assert "crackseg.tracking.Store is crackseg.tracking.store.Store now" in answer.stderr


def test_a_name_that_no_module_ever_had_is_not_found() -> None:
    command = [sys.executable, "-c", "import crackseg.nothing"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: No module named 'crackseg.nothing'" in answer.stderr
