"""Nothing that a command started is left when it ends, whether it ends by itself, by Ctrl-C, SIGTERM or SIGKILL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from crackseg.child_processes import describe_exit, find_reason, run_guarded

# As MLflow's server does: a process that starts another one, which listens, and waits for it. Killed, it leaves it.
LISTENER = """
import socket, sys, time
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    {at_start}
    open(sys.argv[2], "w").close()
    while True:
        time.sleep(60)
"""
SERVER = """
import subprocess, sys
sys.exit(subprocess.Popen([sys.executable, "-c", {listener!r}, *sys.argv[1:]]).wait())
"""
COMMAND = """
import sys
from pathlib import Path
from crackseg.child_processes import run_guarded
try:
    sys.exit(run_guarded([sys.executable, "-c", *sys.argv[1:]], cwd=Path.cwd(), grace_s={grace_s}))
except KeyboardInterrupt:
    sys.exit(130)
"""
DEAF = "import signal; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)]"


class Tree:
    """A command below our own, with a process of its own that listens on a port."""

    def __init__(self, folder: Path, *, at_start: str = "", grace_s: float = 20) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        sign = folder / "listens"
        server = SERVER.format(listener=LISTENER.format(at_start=at_start or "pass"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND.format(grace_s=grace_s), server, str(self.port), str(sign)]
        )
        wait_for(sign.exists)
        self.below = psutil.Process(self.process.pid).children(recursive=True)
        assert len(self.below) == 3  # the guard, the server and what the server started

    def is_gone(self) -> bool:
        return not any(process.is_running() for process in self.below)

    def port_is_free(self) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return probe.connect_ex(("127.0.0.1", self.port)) != 0


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name)
def test_a_command_told_to_stop_leaves_no_process_and_no_taken_port(tmp_path: Path, how: signal.Signals) -> None:
    tree = Tree(tmp_path)
    tree.process.send_signal(how)
    assert tree.process.wait(20) == 130
    assert tree.is_gone()  # at once: whoever starts the command again finds the port free
    assert tree.port_is_free()


def test_a_command_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process.kill()
    tree.process.wait()
    wait_for(tree.is_gone)
    assert tree.port_is_free()


def test_a_guard_that_is_told_to_stop_itself_leaves_no_process(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    next(p for p in tree.below if p.ppid() == tree.process.pid).send_signal(signal.SIGINT)  # as `pkill -INT` does
    tree.process.wait(20)
    assert tree.is_gone()
    assert tree.port_is_free()


def test_a_server_that_dies_takes_its_workers_along_and_its_exit_code_is_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    next(p for p in tree.below if p.ppid() not in (tree.process.pid, os.getpid())).kill()
    assert tree.process.wait(20) == 128 + signal.SIGKILL
    assert tree.is_gone()


def test_processes_that_do_not_listen_are_ended_all_the_same(tmp_path: Path) -> None:
    tree = Tree(tmp_path, at_start=DEAF, grace_s=0.2)
    tree.process.terminate()
    assert tree.process.wait(20) == 130
    assert tree.is_gone()


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    tree = Tree(tmp_path, at_start=DEAF, grace_s=600)
    tree.process.terminate()
    server, listener = tree.below[1:]
    wait_for(lambda: not server.is_running())  # it was told; the listener does not listen
    assert listener.is_running()
    tree.process.terminate()
    assert tree.process.wait(20) == 130
    assert tree.is_gone()


def test_a_command_that_ends_by_itself_hands_on_its_exit_code(tmp_path: Path) -> None:
    assert run_guarded([sys.executable, "-c", "raise SystemExit(3)"], cwd=tmp_path, grace_s=5) == 3
    assert run_guarded([sys.executable, "-c", "pass"], cwd=tmp_path, grace_s=5) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_a_child_of_our_own_gets_its_signal_when_its_parent_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    child = (
        "import os, signal, sys, time\n"
        "from crackseg.child_processes import end_with_parent\n"
        f"end_with_parent(int(sys.argv[1]), signal.{how.name})\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "time.sleep(600)\n"
    )
    parent = f"import os, subprocess, sys\nsubprocess.call([sys.executable, '-c', {child!r}, str(os.getpid())])"
    process = subprocess.Popen([sys.executable, "-c", parent])
    wait_for((tmp_path / "ready").exists)
    (below,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    wait_for(lambda: not below.is_running() or below.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, "with exit code 2"),
        (-signal.SIGKILL, "by signal SIGKILL: most likely the machine ran out of memory"),
        (137, "by signal SIGKILL: most likely the machine ran out of memory"),
        (-signal.SIGTERM, "by signal SIGTERM"),
        (255, "with exit code 255"),
        (-200, "by signal 200"),
    ],
)
def test_an_end_is_put_in_words(code: int, words: str) -> None:
    assert ": ".join(filter(None, [describe_exit(code), find_reason(code)])).startswith(words)
