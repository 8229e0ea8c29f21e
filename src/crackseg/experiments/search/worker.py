"""Worker of a study: run waiting trials one after another, until none is left or its time is over."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import Trial, TrialState

from crackseg.child_processes import terminations_as_interrupts
from crackseg.experiments.search.results import (
    ERROR,
    FIGURES,
    RUN_ID,
    SECONDS,
    checkpoint_dir,
    describe_point,
    remove_what_is_not_needed,
    weights_path,
)
from crackseg.experiments.search.space import Space
from crackseg.experiments.search.storage import GRACE_S, PATIENCE_S, StorageGoneError, open_storage
from crackseg.experiments.search.study import CONFIGURATION, Search, build_pruner, build_sampler
from crackseg.experiments.trial import run_trial, trial_key
from crackseg.files import write_bytes
from crackseg.params import Params, change_params
from crackseg.tracking.connection import StoreAwayError
from crackseg.tracking.store import Store
from crackseg.training.checkpoint import RUN_NAME
from crackseg.training.run import TrialStopped

_IDLE_S = 1.0
WORKER = "worker"  # user attribute of a trial: the worker that has it
_ATTEMPTS, _MAX_ATTEMPTS = "attempts", 3
_MAX_DEATHS_ERROR = f"its worker died {_MAX_ATTEMPTS} times"
_INTERRUPTED, _PRUNED, _TAKEN = "interrupted", "pruned", "taken over"

warnings.filterwarnings("ignore", message="The reported value is ignored")  # for an epoch that is trained again


@dataclass(frozen=True)
class Job:
    """Input of a worker; plain values, so that it can be sent to another process."""

    root: Path
    storage: str
    name: str
    params: Params
    overrides: Mapping[str, Any]
    run_id: str
    folder: Path
    prepared_dir: Path
    deadline: float | None
    """Seconds since the epoch; None: no limit."""
    num_threads: int
    parent_pid: int
    """Process whose end ends this worker."""


def work(job: Job) -> None:
    """Run trials until all of the study are done or the time is over; SIGTERM and Ctrl-C release the trial first.

    Raises:
        KeyboardInterrupt: it was stopped; its trial waits to be continued.
    """
    with terminations_as_interrupts():
        torch.set_num_threads(min(job.num_threads, torch.get_num_threads()))  # fewer with OMP_NUM_THREADS
        storage = open_storage(job.storage, patience_s=PATIENCE_S)  # the server answered a moment ago
        study = optuna.load_study(study_name=job.name, storage=storage, pruner=build_pruner(job.params))
        search = Search(study, storage, job.params, job.overrides, job.run_id, job.folder)
        # A run that a server away cannot create begins in the outbox: hours of trials do not end for it.
        _Worker(job, search, Store(job.root, may_be_away=True)).run()


class _Worker:
    def __init__(self, job: Job, search: Search, store: Store) -> None:
        self.job, self.search, self.store = job, search, store
        self.storage = search.storage
        self.space = Space(search.params)
        self.token = uuid.uuid4().hex
        self.trial_id: int | None = None  # the trial that this worker runs
        self.started = 0.0

    def run(self) -> None:
        has_waited = False
        try:
            while not self._time_is_over() and os.getppid() == self.job.parent_pid:
                trial = self.storage.patiently(self._claim)
                if trial is not None:
                    self._run_trial(trial)
                elif running := self.storage.patiently(self._list_running):
                    if not has_waited:
                        numbers = ", ".join(map(str, running))
                        print(
                            f"no trial waits; running trials: {numbers}. One whose worker has died is resumed "
                            f"{GRACE_S} s after its last sign of life",
                            flush=True,
                        )
                        has_waited = True
                    time.sleep(_IDLE_S)
                else:
                    break
        finally:
            if self.trial_id is not None:
                # If the storage is away, the trial is resumed as one whose worker has died.
                with contextlib.suppress(StorageGoneError, optuna.exceptions.StorageInternalError):
                    self._release(self.trial_id)

    def _list_running(self) -> list[int]:
        return [t.number for t in self.search.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    def _time_is_over(self) -> bool:
        return self.job.deadline is not None and time.time() >= self.job.deadline

    def _claim(self) -> Trial | None:
        """Take a trial that waits, or that a dead worker left; None if there is none."""
        study, storage = self.search.study, self.storage
        with FileLock(self.search.folder / "claim.lock"):  # SQLite locks no rows
            for trial_id in storage.list_stale_trials(study._study_id):
                self._take_from_dead(trial_id)
            for waiting in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                trial_id = waiting._trial_id
                # Before it runs: a trial without heartbeats would never count as stale.
                storage.record_heartbeat(trial_id)
                with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                    if storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                        self.trial_id, self.started = trial_id, time.monotonic()
                        self.seconds_before = waiting.user_attrs.get(SECONDS, 0.0)
                        storage.set_trial_user_attr(trial_id, WORKER, self.token)
                        storage.set_trial_user_attr(trial_id, _ATTEMPTS, waiting.user_attrs.get(_ATTEMPTS, 0) + 1)
                        study.sampler = build_sampler(
                            self.search.params.search.sampler, self.search.params.search.seed, waiting.number
                        )
                        return Trial(study, trial_id)
        return None

    def _take_from_dead(self, trial_id: int) -> None:
        trial = self.storage.get_trial(trial_id)
        if trial.user_attrs.get(_ATTEMPTS, 0) < _MAX_ATTEMPTS:
            print(f"trial {trial.number}: its worker is dead; it resumes from its last checkpoint", flush=True)
            self.storage.set_trial_state_values(trial_id, TrialState.WAITING)
            return
        self._fail_run(trial.user_attrs.get(RUN_ID), _MAX_DEATHS_ERROR)
        self.storage.set_trial_user_attr(trial_id, ERROR, _MAX_DEATHS_ERROR)
        self.storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def _is_ours(self) -> bool:
        assert self.trial_id is not None
        trial = self.storage.get_trial(self.trial_id)
        return trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == self.token

    def _release(self, trial_id: int) -> None:
        """Return a trial to the queue, for any worker to resume."""
        if self._is_ours():
            self._add_seconds(trial_id)
            self.storage.set_trial_user_attr(trial_id, _ATTEMPTS, 0)
            self.storage.set_trial_state_values(trial_id, TrialState.WAITING)
        self.trial_id = None

    def _add_seconds(self, trial_id: int) -> None:
        spent = round(self.seconds_before + time.monotonic() - self.started, 2)
        self.storage.set_trial_user_attr(trial_id, SECONDS, spent)

    def _run_trial(self, trial: Trial) -> None:
        with get_heartbeat_thread(trial._trial_id, self.storage):
            try:
                params, folder = self.storage.patiently(lambda: self._settle(trial))
                self.storage.patiently(lambda: self._open_run(trial, folder))
                figures = self._train(trial, params, folder)
                values = self._values(figures)
                if any(not math.isfinite(value) for value in values):
                    raise ValueError(f"the objective is {values}: not a number")
            except TrialStopped as stopped:
                if stopped.tag == _PRUNED:
                    self._finish(trial, TrialState.PRUNED)
                elif stopped.tag == _INTERRUPTED:
                    self.storage.patiently(lambda: self._release(trial._trial_id))
                self.trial_id = None
            except (StorageGoneError, StoreAwayError):
                raise
            except Exception as error:  # an error of one trial's settings must not end the study
                message = (str(error).strip() or type(error).__name__)[:500]
                self.storage.patiently(lambda: self._record_failure(trial, message))
                self._finish(trial, TrialState.FAIL)
            else:
                self._finish(trial, TrialState.COMPLETE, values, figures)

    def _settle(self, trial: Trial) -> tuple[Params, Path]:
        """Return the settings of a trial, and the folder of its checkpoint."""
        params = change_params(self.search.params, self.space.suggest(trial), source=f"trial {trial.number}")
        key = trial_key(params, self.job.prepared_dir, self.store)
        return params, checkpoint_dir(self.search, trial.number, key)

    def _record_failure(self, trial: Trial, message: str) -> None:
        if not self._is_ours():  # an error after another worker took it is no failure of the trial
            return
        trial.set_user_attr(ERROR, message)
        if RUN_ID not in trial.user_attrs:
            trial.set_user_attr(RUN_ID, self._create_run(trial))
        self._fail_run(trial.user_attrs[RUN_ID], message)

    def _open_run(self, trial: Trial, folder: Path) -> None:
        """Open the trial's run, also if another machine has begun it: one trial is one run."""
        known = trial.user_attrs.get(RUN_ID)
        if known and not (folder / RUN_NAME).exists() and not (folder / "result.json").exists():
            write_bytes(folder / RUN_NAME, json.dumps({"run_id": known}).encode(), durable=True)
        if (folder / "result.json").exists() and known:
            return
        run_id, _ = self.store.continue_run(
            folder / RUN_NAME, name=self._run_name(trial), parent=self.search.run_id
        )
        if run_id != known:
            trial.set_user_attr(RUN_ID, run_id)

    def _run_name(self, trial: Trial) -> str:
        return f"{self.search.name}-{trial.number}"

    def _create_run(self, trial: Trial) -> str:
        return self.store.create_run(self._run_name(trial), parent=self.search.run_id)

    def _train(self, trial: Trial, params: Params, folder: Path) -> dict[str, float]:
        configuration = trial.user_attrs.get(CONFIGURATION)
        tags = {"search.study": self.search.name, "search.trial": str(trial.number)}
        if configuration:
            tags["search.cell"] = configuration
        if trial.user_attrs[_ATTEMPTS] > 1 or SECONDS in trial.user_attrs:
            tags[_INTERRUPTED] = "false"  # no longer
        after_epoch = self._epoch_hook(trial, is_papers=bool(configuration))
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return run_trial(
                self.store,
                params,
                self.job.prepared_dir,
                folder,
                name=self._run_name(trial),
                parent=self.search.run_id,
                tags=tags,
                on_epoch=lambda *epoch: self.storage.patiently(lambda: after_epoch(*epoch)),
                weights_path=weights_path(self.search, trial.number) if params.search.keep else None,
                measure_size=self.search.is_multi_objective,
            )

    def _epoch_hook(self, trial: Trial, *, is_papers: bool) -> Callable[[int, dict[str, float]], None]:
        key = f"val/{self.search.ods_key}"

        def after_epoch(epoch: int, metrics: dict[str, float]) -> None:
            if not self._is_ours():  # this process was suspended so long that another treated it as dead
                raise TrialStopped(_TAKEN)
            if key in metrics and not self.search.is_multi_objective:
                trial.report(metrics[key], epoch)
                # The paper's configurations are never pruned: all other trials are compared with them.
                if not is_papers and trial.should_prune():
                    raise TrialStopped(_PRUNED)
            if self._time_is_over():
                raise TrialStopped(_INTERRUPTED)

        return after_epoch

    def _values(self, figures: Mapping[str, float]) -> list[float]:
        second = {"inference_time": ["inference_seconds"], "parameters": ["parameters"]}
        keys = [self.search.ods_key, *second.get(self.search.params.search.second_objective, [])]
        return [float(figures[key]) for key in keys]

    def _finish(
        self,
        trial: Trial,
        state: TrialState,
        values: list[float] | None = None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        def tell() -> None:
            if not self._is_ours():
                return
            if figures is not None:
                self.storage.set_trial_user_attr(
                    trial._trial_id, FIGURES, {**figures, "run_id": trial.user_attrs[RUN_ID]}
                )
            self._add_seconds(trial._trial_id)
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                self.search.study.tell(trial, values, state=state)
            self._say(trial, state, values)

        self.storage.patiently(tell)
        self.trial_id = None
        with FileLock(self.search.folder / "weights.lock"):
            self.storage.patiently(lambda: remove_what_is_not_needed(self.search))

    def _fail_run(self, run_id: str | None, message: str) -> None:
        if run_id is None:
            return
        with self.store.record(run_id) as recorder:
            recorder.set_tags({"error": message})
            recorder.end("FAILED")

    def _say(self, trial: Trial, state: TrialState, values: list[float] | None) -> None:
        done = self.search.study.get_trials(deepcopy=False)
        finished = sum(t.state.is_finished() for t in done)
        shown = f"{self.search.params.search.protocol} ODS {values[0]:.4f}" if values else state.name.lower()
        configuration = trial.user_attrs.get(CONFIGURATION)
        error = trial.user_attrs.get(ERROR) if state == TrialState.FAIL else None
        print(
            f"[{finished}/{len(done)}] trial {trial.number}: {shown}  {describe_point(trial.params)}"
            + (f"  (the paper's {configuration})" if configuration else "")
            + (f"  {error}" if error else ""),
            flush=True,
        )
