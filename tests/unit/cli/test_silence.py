"""A command that works in silence says what it does."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from crackseg.cli import silence
from crackseg.progress import QUIET

SLOW = """
import sys, time
import click
from crackseg.cli.silence import end_silence

@click.command()
def walk():
    "Walk once around the house."
    time.sleep({silent_s})
    click.echo("done")

end_silence(walk, only_at_start={only_at_start})
walk()
"""


def run(silent_s: float, *, only_at_start: bool = False) -> subprocess.CompletedProcess[str]:
    code = SLOW.format(silent_s=silent_s, only_at_start=only_at_start)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_a_silent_command_says_what_it_does_and_its_output_stays_clean() -> None:
    done = run(1.5)
    assert done.stderr == "walk: Walk once around the house.\n"
    assert done.stdout == "done\n"


def test_a_command_that_answers_at_once_says_nothing_else() -> None:
    assert run(0).stderr == ""


def test_after_some_seconds_the_step_is_named() -> None:
    code = SLOW.format(silent_s=1.3, only_at_start=False)
    code = code.replace("    time.sleep", "    progress.name_step('look at the roof'); time.sleep", 1)
    code = "from crackseg import progress; from crackseg.cli import silence; silence._AGAIN_S = 0.2\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[1] == "walk: look at the roof, 1 s"


def test_commands_that_list_do_not_wait_for_torch() -> None:
    code = (
        "import sys, crackseg.registry.listing, crackseg.experiments.search.listing, crackseg.models.shipped\n"
        "print(sorted({'torch', 'matplotlib', 'skimage', 'scipy.stats'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_library_of_bars_that_is_being_imported_ends_no_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.std", types.ModuleType("tqdm.std"))
    assert not silence._is_bar_open()


def test_with_quiet_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUIET, "1")
    assert run(1.5).stderr == ""


def test_a_progress_bar_is_not_interrupted() -> None:
    code = SLOW.format(silent_s=1.5, only_at_start=False)
    # The import may take longer than the silence that is allowed.
    code = code.replace("\nend_silence(", "\nfrom tqdm import tqdm; bar = tqdm(total=9)\nend_silence(", 1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "walk:" not in done.stderr


def test_a_mistake_in_the_arguments_is_told_before_anything_slow(tmp_path: Path) -> None:
    for command in (["promote", "--force"], ["batch", "photographs", "found"], ["ui", "gamma-4"]):
        code = f"""
import sys
from crackseg.cli import main
sys.argv = ["crackseg", *{command!r}]
try:
    main()
except SystemExit as end:
    slow = {{"torch", "mlflow", "optuna"}} & set(sys.modules)
    print(end.code, sorted(slow))
"""
        environment = os.environ | {"PATH": "", "JAVA_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout in ("1 []\n", "2 []\n"), (command, done.stdout, done.stderr)
