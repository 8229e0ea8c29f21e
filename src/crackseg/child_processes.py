"""Child processes that end with the process that started them; exit codes in words.

Two mechanisms, for two kinds of children. A child that runs our own code asks the system for a signal at its parent's
end (:func:`end_with_parent`). A foreign command, which starts processes of its own, runs below a guard
(:func:`run_guarded`): this file as a program, which imports nothing of crackseg, holds the command's processes together
as a group, and ends them when the pipe from its parent closes. The pipe closes however the parent ends, by SIGKILL too.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_POLL_S = 0.5
_LAST_WAIT_S = 5.0  # after SIGKILL, which the system itself may keep waiting
_FATAL = 128  # a shell's exit code of what a signal ended: this and the signal's number
_REASONS = {
    "SIGKILL": "most likely the machine ran out of memory, and the system ended the largest process",
    "SIGBUS": "a file in memory could not be extended: the disk or /dev/shm is full",
    "SIGSEGV": "a fault in a library of compiled code",
    "SIGILL": "a library was built for another processor",
    "SIGABRT": "a library of compiled code gave up; what it said is above",
    "SIGHUP": "its terminal was closed",
    "SIGXCPU": "the limit on processor time was reached",
}


def cores_each(num_processes: int) -> int:
    """Return the number of threads for each of several processes: its share of the cores that this one may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // num_processes)


def end_quickly() -> None:
    """Let this process end without looking for cycles among all that it imported, which takes a second or two.

    Its memory goes back to the system at once either way. For processes of our own: a file or a database that must be
    closed is closed by name (`with`, `weakref.finalize`), since nothing collects it.
    """
    atexit.register(gc.freeze)


def end_with_parent(parent_pid: int, how: signal.Signals = signal.SIGTERM) -> None:
    """Send this process a signal when its parent has ended, for any reason.

    Args:
        parent_pid: the parent, as it called itself: it may have ended before this is called.
        how: SIGTERM if there is something to clean up.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(how))
        if os.getppid() != parent_pid:
            os.kill(os.getpid(), how)
    elif os.name == "posix":
        threading.Thread(target=_watch_parent, args=(parent_pid, how), name="watch-parent", daemon=True).start()


def _watch_parent(parent_pid: int, how: signal.Signals) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), how)


@contextmanager
def terminations_as_interrupts() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP (a closed terminal) into KeyboardInterrupt, so that open resources are closed."""

    def interrupt(_signal: int, _frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if os.name == "posix" else [])]
    # An ignored signal stays ignored: `nohup` relies on it.
    former = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if former[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, former[number])


def run_guarded(
    command: Sequence[str], *, cwd: Path, grace_s: float, environment: Mapping[str, str] | None = None
) -> int:
    """Run a command to its end; all its processes end with this one, also if this one is killed.

    Its processes form a session of their own, without the terminal: they read no input, and Ctrl-C reaches them from
    here. They get SIGINT, and SIGKILL after ``grace_s``; a second Ctrl-C kills them at once. Windows has no process
    groups: there the command runs without a guard.

    Args:
        command: program and arguments.
        cwd: where it runs.
        grace_s: seconds from SIGINT to SIGKILL.
        environment: of the command. Default: this process's.
    Returns:
        Its exit code; 128 plus the signal's number if a signal ended it.
    Raises:
        KeyboardInterrupt: this process was told to stop, and all of the command has ended.
    """
    if os.name != "posix":
        return subprocess.run(command, cwd=cwd, env=environment, check=False).returncode
    with terminations_as_interrupts():
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(grace_s), *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert guard.stdin is not None
        try:
            code = guard.wait()
        finally:
            guard.stdin.close()
            try:
                guard.wait()
            except KeyboardInterrupt:
                guard.terminate()
                guard.wait()
                raise
    return code if code >= 0 else _FATAL - code


def describe_exit(code: int) -> str:
    """Describe the end of a process: ``with exit code 2``, ``by signal SIGKILL``.

    Args:
        code: as :mod:`subprocess` gives it, or as a shell does.
    """
    name = find_signal(code)
    return f"by signal {name}" if name else f"with exit code {code}"


def find_reason(code: int) -> str:
    """Return the likely reason of the signal that ended a process; "" if none is known."""
    return _REASONS.get(find_signal(code), "")


def find_signal(code: int) -> str:
    """Return the name of the signal that ended a process; "" if none did."""
    number = -code if code < 0 else code - _FATAL
    with suppress(ValueError):
        return signal.Signals(number).name
    return str(number) if code < 0 else ""


def _guard(grace_s: float, command: Sequence[str]) -> int:
    """Run the command, end its whole group when it or standard input ends, and return its exit code."""
    if sys.platform == "linux":
        # Collect orphans here: the first process of a container may not do it.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(waker)
    hurry, told = threading.Event(), threading.Event()
    signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop
    signal.signal(signal.SIGTERM, lambda *_: hurry.set())
    # A handler, which the command does not inherit: a shell's background commands inherit that SIGINT is ignored.
    signal.signal(signal.SIGINT, lambda *_: told.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    group = child.pid
    code: int | None = None
    deadline: float | None = None
    wanted = True
    while True:
        code = _collect(group, code)
        if deadline is None and (code is not None or hurry.is_set() or told.is_set() or not wanted):
            deadline = time.monotonic() + grace_s
            _signal_group(group, signal.SIGINT)
        if deadline is not None:
            if not _signal_group(group, 0):
                return code if code is not None else 0
            if hurry.is_set() or time.monotonic() > deadline:
                _signal_group(group, signal.SIGKILL)
            if time.monotonic() > deadline + _LAST_WAIT_S:
                return code if code is not None else _FATAL + signal.SIGKILL
        watched = [woken, *([sys.stdin.fileno()] if wanted else [])]
        ready, _, _ = select.select(watched, [], [], None if deadline is None else 0.05)
        if woken in ready:
            os.read(woken, 4096)
        if wanted and sys.stdin.fileno() in ready:
            wanted = bool(os.read(sys.stdin.fileno(), 1))


def _collect(command_pid: int, code: int | None) -> int | None:
    """Collect ended processes; return the command's exit code, or ``code`` if it is still running."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == command_pid:
                code = os.waitstatus_to_exitcode(status)
                code = code if code >= 0 else _FATAL - code
    return code


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to all processes of a group; False if there are none."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS, of a group of zombies
        return False
    return True


if __name__ == "__main__":
    sys.exit(_guard(float(sys.argv[1]), sys.argv[2:]))
