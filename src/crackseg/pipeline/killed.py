"""Report on a killed stage: a waiting process says what died, why, and where the same command resumes.

A process cannot report its own SIGKILL, with which a system out of memory ends its largest process. So a stage's
work is done in a child. It is a fork from before the large imports, which takes some milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crackseg.child_processes import describe_exit, end_with_parent, find_reason
from crackseg.errors import CracksegError

_NOTE = "CRACKSEG_STAGE_NOTE"  # file in which the child writes where its checkpoints are
_SAME = {"train": ("train.num_workers", "train.cache_gb"), "predict": ("predict.batch_size",)}
"""Keys by stage that need less memory and change no result, so that the checkpoint is resumed."""
_OTHER = {
    "train": ("train.batch_size", "augment.crop_px"),
    "predict": ("predict.tile_size_px",),
    "prepare": ("data.size_px",),
    "threshold": ("predict.tile_size_px",),  # both predict validation photographs, a tile at a time
    "register": ("predict.tile_size_px",),
}
"""Keys by stage that need less memory and start it, or one before it, again."""


def work_in_child(root: Path, stage: str) -> None:
    """Return in a child that does the work; this process waits for it, and reports how it was killed, if it was.

    Its exit code becomes this one's. Signals that stop this process are passed on to the child, which is ended if this
    one is killed: Linux can do that. The processes of torch's launcher are left alone; it reports on them itself.

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
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    # One that comes now would end this process before it could pass it on, and the child with it, without its records.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches it once, from the one that waits
        end_with_parent(waiting, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return
    with suppress(OSError):
        os.setpgid(pid, pid)
    _pass_on(pid, stopping)
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        if code < 0:
            print(f"\nerror: {_describe_death(root, stage, code, Path(note))}", file=sys.stderr, flush=True)
    finally:
        Path(note).unlink(missing_ok=True)
        os._exit(code if code >= 0 else 128 - code)  # what is registered for the end is run by the child


def note_checkpoints(folder: Path) -> None:
    """Write down the folder of a training run's checkpoints, in case it is killed."""
    if note := os.environ.get(_NOTE):
        with suppress(OSError):
            Path(note).write_text(str(folder), encoding="utf-8")


def _pass_on(pid: int, stopping: Sequence[signal.Signals]) -> None:
    """Pass signals that stop or pause this process on to the child."""

    def forward(number: int, _frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def pause(_number: int, _frame: Any) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        with suppress(ProcessLookupError):  # continues here when it is resumed
            os.killpg(pid, signal.SIGCONT)

    for number in stopping:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    signal.signal(signal.SIGTSTP, pause)


def _describe_death(root: Path, stage: str, code: int, note: Path) -> str:
    reason = find_reason(code)
    lines = [f"the stage {stage} was ended {describe_exit(code)}" + (f": {reason}" if reason else "")]
    if -code == signal.SIGKILL:
        import resource  # Windows has none

        gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        lines.append(f"memory: {gigabytes:.1f} GB at most; this machine has {total:.1f} GB")
        lines.append(_advise(root, stage))
    return "\n  ".join(filter(None, [*lines, *_describe_rest(stage, note)]))


def _advise(root: Path, stage: str) -> str:
    """Name the settings that need less memory, with their values now; those at 0 cannot be lowered."""
    from crackseg.lineage import keys_changing
    from crackseg.params import flatten_params, load_params
    from crackseg.params.effects import WEIGHTS

    try:
        values = flatten_params(load_params(root / "params.yaml"))
    except CracksegError:
        values = {}
    again = "begins again"
    if stage != "train" and keys_changing(WEIGHTS) & set(_OTHER.get(stage, ())):
        again = "trains again from the beginning"
    advice = []
    for keys, effect in ((_SAME, "changes no result"), (_OTHER, again)):
        listed = [
            f"{key} (now {values.get(key, 'unknown')})" for key in keys.get(stage, ()) if values.get(key) != 0
        ]
        if listed:
            advice.append(f"{', '.join(listed)}: {effect}")
    return f"to need less memory, end other programs; or lower {'; or '.join(advice)}" if advice else ""


def _describe_rest(stage: str, note: Path) -> list[str]:
    """Say what is kept, and where the same command resumes; a line each."""
    kept = "kept: the results of the stages before it"
    again = "next: the same command (dvc repro, dvc exp run, crackseg demo)"
    folder = Path(note.read_text(encoding="utf-8") if note.exists() else "")
    if stage != "train" or not folder.name:
        return [kept, f"{again} begins this stage again"]
    from crackseg.training.checkpoint import RUN_NAME, load_newest

    run = ""
    with suppress(OSError, ValueError, KeyError):
        run = f" of MLflow run {json.loads((folder / RUN_NAME).read_text(encoding='utf-8'))['run_id']}"
    try:
        state = load_newest(folder)
    except CracksegError as error:
        return [kept, str(error)]
    if state is None:
        return [kept, f"{again} begins the training{run} again: no epoch was complete"]
    epoch = json.loads(state["progress"])["epoch"]
    return [f"{kept}, and the checkpoint after epoch {epoch}{run}, in {folder}", f"{again} resumes from there"]
