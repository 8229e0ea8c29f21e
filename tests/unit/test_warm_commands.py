"""A command from the warm server is to its caller as one that was started cold, or the tests that use it lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.warm_commands import warm_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server is Linux's")


def run(code: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [warm_python(), "-c", code, *arguments], cwd=folder, env=os.environ | {"GREETING": "hello"}, input="typed",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_arguments_folder_environment_and_streams_arrive(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['GREETING'], sys.stdin.read())"
    assert run(code, tmp_path, "a", "b c") == (0, f"['a', 'b c'] {tmp_path} hello typed\n", "")


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('too late')", 1, "too late\n"),
        ("import os; os._exit(4)", 4, ""),
        ("import signal; signal.raise_signal(signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import signal; signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM, ""),
        ("import atexit, sys; atexit.register(print, 'at last', file=sys.stderr)", 0, "at last\n"),
    ],
)
def test_it_ends_as_the_code_ends(tmp_path: Path, ending: str, code: int, said: str) -> None:
    assert run(ending, tmp_path) == (code, "", said)


def test_an_error_shows_its_traceback(tmp_path: Path) -> None:
    code, _, said = run("1 / 0", tmp_path)
    assert code == 1
    assert said.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 7), (signal.SIGKILL, -signal.SIGKILL)])
def test_what_is_sent_to_the_command_reaches_the_forked_process(tmp_path: Path, sent: int, code: int) -> None:
    waiting = "\n".join([
        "import os, time",
        "try: print(os.getpid(), flush=True); time.sleep(60)",
        "except KeyboardInterrupt: raise SystemExit(7)",
    ])  # fmt: skip
    with subprocess.Popen([warm_python(), "-c", waiting], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        forked = psutil.Process(int(command.stdout.readline()))
        command.send_signal(sent)
        assert command.wait(timeout=30) == code
        deadline = time.monotonic() + 30
        while forked.is_running() and forked.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
