"""Which worker has a trial, and whether it still lives: Optuna's own heartbeats know only databases.

A worker holds a lock on a file of its own as long as it lives, however it ends; whoever sees the file can tell at
once. A worker on another machine is known by its heartbeats, a count in the trial that grows; when it stands still
for :data:`GRACE_S` of the observer's own clock, the worker is dead.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial

from crackseg.search.storage import PatientStorage

BEAT_S = 15.0
GRACE_S = 90.0
WORKER, BEAT = "worker", "beat"  # user attributes of a trial


class Life:
    """This worker's life, to be seen by the others.

    Args:
        folder: of the workers' lock files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.token = uuid.uuid4().hex
        self._lock = FileLock(folder / self.token)
        self._lock.acquire()

    def end(self, *, has_trial: bool = False) -> None:
        """Leave nothing behind, unless a trial could not be handed back: by the file others see that we are dead."""
        self._lock.release()
        if has_trial:
            Path(self._lock.lock_file).touch()
        else:
            Path(self._lock.lock_file).unlink(missing_ok=True)


class Heart(threading.Thread):
    """Beats for one trial, and ends an orphan: a worker whose command is gone has nobody to stop it.

    Args:
        storage: of the study.
        trial_id: the trial.
        parent_pid: process that started this one, or None if nobody did.
    """

    def __init__(self, storage: PatientStorage, trial_id: int, parent_pid: int | None) -> None:
        super().__init__(name="heart", daemon=True)
        self._storage, self._trial_id, self._parent_pid = storage, trial_id, parent_pid
        self._stopped = threading.Event()

    def run(self) -> None:
        """Beat until stopped."""
        count, next_beat = 0, 0.0
        while not self._stopped.wait(1.0):
            if self._parent_pid is not None and os.getppid() != self._parent_pid:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if time.monotonic() >= next_beat:
                count += 1
                try:
                    self._storage.set_trial_user_attr(self._trial_id, BEAT, count)
                except Exception:  # the trial has ended, or the storage has given up, which the worker says itself
                    return
                next_beat = time.monotonic() + BEAT_S

    def stop(self) -> None:
        """Stop beating."""
        self._stopped.set()


class Watch:
    """Tells whose worker is dead.

    Args:
        folder: of the workers' lock files.
        storage: of the study.
        clock: seconds.
    """

    def __init__(self, folder: Path, storage: PatientStorage, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._storage, self._clock = folder, storage, clock
        self._seen: dict[int, tuple[object, float]] = {}
        self._num_outages = 0

    def is_dead(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a running trial is dead."""
        token = trial.user_attrs.get(WORKER)
        if token and (self._folder / token).exists():
            return not _is_held(self._folder / token)
        if self._storage.num_outages != self._num_outages:  # nobody could beat meanwhile
            self._num_outages = self._storage.num_outages
            self._seen.clear()
        sign, now = (token, trial.user_attrs.get(BEAT)), self._clock()
        if self._seen.get(trial.number, (None, 0.0))[0] != sign:
            self._seen[trial.number] = (sign, now)
        return now - self._seen[trial.number][1] > GRACE_S


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
