"""The commands `crackseg` and `python` without the seconds of imports, for tests that start them many times.

A server imports the packages that crackseg needs, but not crackseg itself, and forks a process for each command. A
command still runs in a process of its own, in its folder, with its environment and the code that PYTHONPATH names.
Linux only; elsewhere the commands themselves are run.

Other than in the real commands, variables that Python or a package reads at its start have the server's values (e.g.
OMP_NUM_THREADS, PYTHONHASHSEED), and the parent is the server: what tests how a command starts, or is killed, runs the
real one.

    python tests/warm_commands.py FOLDER PID      serve until the process PID ends
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_SOCKET = "socket"
_WARM_PYTHON = "warm-python"
_PACKAGES = (
    "torch", "torch._dynamo", "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store", "pandas", "pydantic", "ruamel.yaml", "scipy.spatial",
    "skimage.measure", "matplotlib.pyplot", "cv2", "tqdm", "optuna", "sklearn.metrics",
)  # fmt: skip

# `crackseg`; `python`, which crackseg starts itself with; and `warm-python`, which runs any code. It hands over its
# arguments, folder, environment and streams, passes signals on, and ends as the forked process ended.
_CLIENT = """#!{python} -IS
import array, json, os, signal, socket, struct, sys
arguments = sys.argv[1:]
if os.path.basename(sys.argv[0]) == "python":
    if arguments[:2] != ["-m", "crackseg"]:
        os.execv({python!r}, [{python!r}, *arguments])
    del arguments[:2]
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
question = json.dumps([sys.argv[0], arguments, os.getcwd(), dict(os.environ), os.getpgid(0)]).encode()
streams = array.array("i", [0, 1, 2])
server.sendmsg([struct.pack("i", len(question))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
server.sendall(question)
pid = struct.unpack("i", server.recv(4))[0]
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda number, _: os.kill(pid, number))
code = struct.unpack("i", server.recv(4, socket.MSG_WAITALL))[0]
if code < 0:
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@cache
def warm_commands() -> Path:
    """The folder of the commands whose server all processes of this run of the tests share; the first starts it."""
    from filelock import FileLock

    if sys.platform != "linux":
        return Path(sys.executable).parent
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = (
        Path(tempfile.gettempdir()) / f"crackseg-commands-{run}"
        if run
        else Path(tempfile.mkdtemp(prefix="crackseg-commands-"))
    )
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / _SOCKET).exists():
            _start_server(folder, os.getppid() if run else os.getpid())
    return folder


def warm_python() -> str:
    """The path of a Python for `-c CODE`, `-m MODULE` or a script that has imported the packages already."""
    return str(warm_commands() / _WARM_PYTHON) if sys.platform == "linux" else sys.executable


def _start_server(folder: Path, watched: int) -> None:
    """Write the commands into ``folder`` and start their server, which ends when the process ``watched`` has ended."""
    text = _CLIENT.format(python=sys.executable, socket=str(folder / _SOCKET))
    for name in ("crackseg", "python", _WARM_PYTHON):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(watched)],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    while not (folder / _SOCKET).exists():
        assert server.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
        time.sleep(0.02)


def _serve(folder: Path, watched: int) -> Any:
    """Fork a process for each command; returns in that process what it shall run, and else when ``watched`` ended."""
    for package in _PACKAGES:
        importlib.import_module(package)
    import sqlalchemy.orm

    sqlalchemy.orm.configure_mappers()  # MLflow's tables, half a second
    gc.freeze()  # a fork that looked for cycles among them would copy them all
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "new"))
    listener.listen(64)
    (folder / "new").rename(folder / _SOCKET)  # complete when it is seen
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(os.pidfd_open(watched), selectors.EVENT_READ, ("watched", watched))
        selector.register(listener, selectors.EVENT_READ, ("asked", 0))
        while True:
            for key, _ in selector.select():
                what, pid = key.data
                if what == "watched":
                    for started in running:
                        os.kill(started, signal.SIGKILL)
                    shutil.rmtree(folder, ignore_errors=True)
                    return None
                if what == "asked":
                    client, _ = listener.accept()
                    try:
                        question, streams = _receive(client)
                    except (OSError, ValueError, struct.error):  # it ended before it had said what it wants
                        client.close()
                        continue
                    pid = os.fork()
                    if pid == 0:
                        listener.close()
                        client.close()
                        return question, streams
                    for stream in streams:
                        os.close(stream)
                    running[pid] = client
                    with suppress(OSError):
                        client.sendall(struct.pack("i", pid))
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, ("ended", pid))
                    selector.register(client, selectors.EVENT_READ, ("left", pid))
                elif what == "ended":
                    _, status = os.waitpid(pid, 0)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    client = running.pop(pid)
                    if client.fileno() in selector.get_map():
                        selector.unregister(client)
                    with suppress(OSError), client:
                        client.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
                elif pid in running:  # killed: it says nothing after its question
                    selector.unregister(key.fd)
                    os.kill(pid, signal.SIGKILL)


def _receive(client: socket.socket) -> tuple[list[Any], list[int]]:
    """Receive a command and its three streams."""
    head, streams, _, _ = socket.recv_fds(client, 4, 3)
    return json.loads(client.recv(struct.unpack("i", head)[0], socket.MSG_WAITALL)), streams


def _run(question: list[Any], streams: list[int]) -> NoReturn:
    """Become the command: its streams, folder, environment and arguments."""
    program, arguments, folder, environment, group = question
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with suppress(OSError):
        os.setpgid(0, group)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [str(Path(path).resolve()) for path in named]
    sys.executable = str(Path(program).parent / "python")
    sys.argv = [program, *arguments]
    code: object = 0
    try:
        if Path(program).name == _WARM_PYTHON:
            _run_python(arguments)
        else:
            runpy.run_module("crackseg", run_name="__main__", alter_sys=False)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    # As Python ends, but for freeing every object of the packages, which a fork would first have to copy.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _run_python(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    command = _serve(Path(sys.argv[1]), int(sys.argv[2]))
    if command is not None:
        _run(*command)
