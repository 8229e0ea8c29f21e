"""The account of a stage that is killed: a process that only waits says what died, why, and what goes on from where.

Nothing in a process can speak after SIGKILL, which is how a system without memory ends its largest one. So a stage's
work is done in a child. It is a fork from before the large imports, which takes some milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from crackseg.child_processes import describe_exit, end_with_parent, find_reason
from crackseg.errors import CracksegError

_NOTE = "CRACKSEG_STAGE_NOTE"  # the file in which the work says where its checkpoints are
_SAME = {"train": ("train.num_workers", "train.cache_gb"), "predict": ("predict.batch_size",)}
"""Keys by stage that need less memory and change no result, so that a checkpoint is taken up."""
_OTHER = {
    "train": ("train.batch_size", "train.accumulate", "augment.crop_px"),
    "predict": ("predict.tile_size_px",),
    "prepare": ("data.size_px",),
}
"""Keys by stage that need less and begin again."""


def work_in_child(root: Path, stage: str) -> None:
    """Return in a child that does the work; this process waits for it, passes on its exit code and accounts for its end.

    What tells this process to stop is passed on to the child, which is ended if this one is killed. Only on Linux,
    which can do that, and once: torch's launcher reports on the processes that it starts.

    Args:
        root: the project folder, maybe DVC's clone.
        stage: name of the stage.
    """
    if sys.platform != "linux" or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    handle, note = tempfile.mkstemp(prefix="crackseg-stage-")
    os.close(handle)
    os.environ[_NOTE] = note
    waiting = os.getpid()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches it once, from the one that waits
        end_with_parent(waiting, signal.SIGKILL)
        return
    with suppress(OSError):
        os.setpgid(pid, pid)
    _pass_on(pid)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        if code < 0:
            print(f"error: {_describe_death(root, stage, code, Path(note))}", file=sys.stderr, flush=True)
    finally:
        Path(note).unlink(missing_ok=True)
        os._exit(code if code >= 0 else 128 - code)  # what is registered for the end is the child's to do


def note_checkpoints(folder: Path) -> None:
    """Leave word where a training's checkpoints are, for the case that it is killed."""
    if note := os.environ.get(_NOTE):
        with suppress(OSError):
            Path(note).write_text(str(folder), encoding="utf-8")


def _pass_on(pid: int) -> None:
    """Hand signals that tell this process to stop, or to pause, on to the child."""

    def forward(number: int, _frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def pause(_number: int, _frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        with suppress(ProcessLookupError):  # from here when it goes on
            os.killpg(pid, signal.SIGCONT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    signal.signal(signal.SIGTSTP, pause)


def _describe_death(root: Path, stage: str, code: int, note: Path) -> str:
    reason = find_reason(code)
    sentences = [f"the stage {stage} was ended {describe_exit(code)}" + (f": {reason}" if reason else "")]
    if -code == signal.SIGKILL:
        import resource  # Windows has none

        gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        sentences.append(f"It had {gigabytes:.1f} GB at most, and this machine has {total:.1f} GB")
        if advice := _advise(root, stage):
            sentences.append(advice)
    return ". ".join([*sentences, _describe_rest(stage, note)])


def _advise(root: Path, stage: str) -> str:
    """Name the settings that need less memory, with their values now; those at 0 have nothing to give."""
    from crackseg.params import flatten_params, load_params

    try:
        values = flatten_params(load_params(root / "params.yaml"))
    except CracksegError:
        values = {}
    same, other = (_list_keys(keys.get(stage, ()), values) for keys in (_SAME, _OTHER))
    parts = [
        f"lower {same}, which changes no result" if same else "",
        f"{other}, which begins again" if other else "",
    ]
    return ("To need less, " + ", or ".join(filter(None, parts))) if any(parts) else ""


def _list_keys(keys: tuple[str, ...], values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} (now {values.get(key, 'unknown')})" for key in keys if values.get(key) != 0)


def _describe_rest(stage: str, note: Path) -> str:
    """Say what is kept, and what goes on from where."""
    again = "The same command (dvc repro, dvc exp run, crackseg demo)"
    kept = "the results of the stages before it are kept"
    folder = note.read_text(encoding="utf-8") if note.exists() else ""
    if stage != "train" or not folder:
        return f"{again} begins this stage again; {kept}"
    from crackseg.checkpoint import LAST_NAME, RUN_NAME, load_state

    run_id = ""
    with suppress(OSError, ValueError, KeyError):
        run_id = (
            f" of the MLflow run {json.loads((Path(folder) / RUN_NAME).read_text(encoding='utf-8'))['run_id']}"
        )
    if not (Path(folder) / LAST_NAME).exists():
        return f"No epoch was complete: {again[0].lower()}{again[1:]} begins the training again; {kept}"
    try:
        epoch = json.loads(load_state(Path(folder) / LAST_NAME)["progress"])["epoch"]
    except CracksegError as error:
        return str(error)
    return f"Kept is the checkpoint after epoch {epoch}{run_id}, in {folder}. {again} goes on from there; {kept}"
