"""`crackseg search`: create or join a study, start the workers, report the result."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from crackseg.child_processes import (
    cores_each,
    end_quickly,
    end_with_parent,
    find_reason,
    terminations_as_interrupts,
)
from crackseg.data.catalog import list_samples
from crackseg.errors import CracksegError
from crackseg.experiments.search.results import choose_trial, describe_point, format_comparison, rank
from crackseg.experiments.search.space import Space
from crackseg.experiments.search.storage import default_storage, open_storage, without_password
from crackseg.experiments.search.study import (
    Search,
    check_name,
    create_or_join,
    keep_space,
    list_paper_points,
    settle_overrides,
)
from crackseg.experiments.search.worker import Job, work
from crackseg.experiments.trial import prepare_images
from crackseg.models import build_model
from crackseg.params import Params, change_params, load_params
from crackseg.tracking.fetching import fetched_init
from crackseg.tracking.store import Store

_STOP_S = 120  # a worker that is asked to stop may be in the middle of a long step


@dataclass(frozen=True)
class Order:
    """Options of ``crackseg search``."""

    name: str | None = None
    storage: str | None = None
    num_trials: int | None = None
    timeout_s: float | None = None
    num_jobs: int = 1
    overrides: Mapping[str, Any] | None = None


def run_search(root: Path, order: Order) -> str:
    """Run trials until all of the study are done or the time is over.

    Args:
        root: the project folder.
    Returns:
        The table that compares the best trial with the paper's configurations.
    Raises:
        CracksegError: the storage cannot be reached, the space or another setting is invalid, the study has other
            settings, there are no images to train or validate on, or all workers died.
        KeyboardInterrupt: it was stopped; the same command resumes.
    """
    deadline = time.time() + order.timeout_s if order.timeout_s else None
    store = Store(root)
    address = order.storage or default_storage(store.home)
    storage = open_storage(address)  # a mistake in the address is said at once; later outages are waited for
    params = load_params(root / "params.yaml")
    overrides = order.overrides or {}
    name = order.name or _default_name(change_params(params, overrides, source="-S"))
    check_name(name)
    overrides = storage.patiently(lambda: settle_overrides(storage, name, overrides))
    params = storage.patiently(lambda: keep_space(storage, name, params))
    # The workers of a search share the cores already, and several GPUs have a trial each.
    overrides = {"train.num_workers": 0, "train.num_processes": 1, **overrides}
    merged = change_params(params, overrides, source="-S")
    Space(merged)  # before anything takes time
    prepared_dir = prepare_for(root, store, merged)
    _try_models(store, merged)
    search = storage.patiently(
        lambda: create_or_join(store, storage, name, params, overrides, prepared_dir, num_trials=order.num_trials)
    )
    storage.patiently(lambda: _announce(search, address))
    with store.record(search.run_id) as recorder:
        recorder.set_tags({"search.study": name, "search.space": _describe(search)})
        recorder.resume()
    job = Job(
        root, address, name, search.params, search.overrides, search.run_id, search.folder, prepared_dir, deadline,
        cores_each(order.num_jobs), os.getpid(),
    )  # fmt: skip
    try:
        _run_workers(job, order.num_jobs)
    except KeyboardInterrupt:
        storage.patiently(lambda: _end(store, search, "KILLED"))
        raise KeyboardInterrupt("search stopped; the same command resumes with the trials left") from None
    return storage.patiently(lambda: conclude(store, search))


def conclude(store: Store, search: Search) -> str:
    """Report the result to the user and to the study's run."""
    from crackseg.experiments.search.figures import draw_figures  # a second, which workers need not wait for

    trials = search.study.get_trials(deepcopy=False)
    if not rank(search):
        _end(store, search, "FAILED" if all(t.state.is_finished() for t in trials) else "FINISHED")
        if any(t.state == TrialState.FAIL for t in trials):
            raise CracksegError(
                f"no trial of study {search.name!r} is complete and some have failed; `crackseg search show --study "
                f"{search.name}` says why"
            )
        return f"no trial of study {search.name!r} is complete yet; the same command resumes"
    table = format_comparison(search)
    report = search.folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    (report / "search.md").write_text(table, encoding="utf-8")
    figures = draw_figures(search, report)
    best = choose_trial(search, None)
    with store.record(search.run_id) as recorder:
        # All keys: one that this best trial does not have may be left from an earlier best.
        recorder.set_tags({f"best.{key}": str(best.params.get(key, "–")) for key in _keys(search)})
        recorder.set_tags({"best.trial": str(best.number)})
        # The same trials give the same best one: a command that was killed after it had recorded it, records it once.
        ended = sum(trial.state.is_finished() for trial in trials)
        recorder.log_metrics({f"best/{search.ods_key}": best.values[0]}, step=ended, only_new=True)
        for path in [report / "search.md", *figures]:
            recorder.log_file(path, "search")
    _end(store, search, "FINISHED")
    left = sum(not t.state.is_finished() for t in trials)
    rest = f"\n{left} trials are left; the same command resumes.\n" if left else ""
    return f"{table}{rest}\nbest: trial {best.number}, {describe_point(best.params)}\nfigures: {report}"


def _end(store: Store, search: Search, status: str) -> None:
    """End the study's run, unless workers of another command continue."""
    if search.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        return
    with store.record(search.run_id) as recorder:
        recorder.end(status)


def _default_name(params: Params) -> str:
    return f"{params.data.train_dataset}-{params.model.architecture}"


def prepare_for(root: Path, store: Store, params: Params) -> Path:
    """Resize a study's images, unless that is done; refuse a dataset without training or validation images."""
    dataset, data = params.data.train_dataset, params.data
    folder = store.home / "search" / "images" / f"{dataset}-{data.size_px}-{data.resize}-{data.mask_resize}"
    prepared_dir = prepare_images(root / "data", dataset, folder, params)
    for split, role in (("train", "training"), ("val", "validation")):
        if not list_samples(prepared_dir, dataset, split):
            raise CracksegError(
                f"dataset {dataset} has no {role} images, and a search needs them: import it again with other splits"
            )
    return prepared_dir


def _try_models(store: Store, params: Params) -> None:
    """Build each model that a choice leads to once, so that unknown names and missing weights are reported now and not
    by failed trials."""
    searched = {key for key, dimension in params.search.space.get("model", {}).items() if dimension}
    free = {k: v for k, v in dict(params.model).items() if k not in searched | {"architecture", "init"}}
    for architecture in _choices(params, "architecture"):
        for init in _choices(params, "init"):
            try:
                with fetched_init(str(init), store) as (resolved, _digest):
                    build_model(str(architecture), init=resolved, **free)
            except CracksegError as error:
                raise CracksegError(
                    f"{error}\n  for all trials of a search, -S model.init=random and -S search.space.model.init=null "
                    "leave out pretrained weights"
                ) from error


def _choices(params: Params, key: str) -> tuple:
    """Return the values that ``model.KEY`` may have in a trial."""
    dimension = params.search.space.get("model", {}).get(key)
    return (dimension.choices or ()) if dimension else (getattr(params.model, key),)


def _announce(search: Search, address: str) -> None:
    trials = search.study.get_trials(deepcopy=False)
    left = sum(not t.state.is_finished() for t in trials)
    configurations = len(list_paper_points(Space(search.params), search.params.search.paper))
    print(f"study {search.name} in {without_password(address)}: {len(trials)} trials, {left} left")
    print(f"the paper's cells in the space: {configurations}")
    if configurations >= len(trials):
        print(
            f"note: the paper's {configurations} cells take all {len(trials)} trials, and nothing else is searched; "
            "raise --trials, or take fewer with -S search.paper="
            + ("table3" if search.params.search.paper == "grid" else "none")
        )
    sys.stdout.flush()


def _keys(search: Search) -> list[str]:
    return [dimension.key for dimension in Space(search.params).dimensions]


def _describe(search: Search) -> str:
    return "; ".join(f"{d.key} {d.distribution}" for d in Space(search.params).dimensions)[:4000]


def _run_workers(job: Job, num_jobs: int) -> None:
    if job.deadline is not None and time.time() >= job.deadline:
        return
    os.environ["TQDM_DISABLE"] = "1"  # read by the workers when they start
    context = get_context("spawn")  # a fork would inherit the locks of MLflow's and OpenCV's threads
    workers = [context.Process(target=_work, args=(job,), name=f"search-{i}") for i in range(num_jobs)]
    with terminations_as_interrupts():
        try:
            # A terminal's Ctrl-C reaches the workers too. They inherit that it is ignored: a second signal would
            # interrupt a worker while it releases its trial.
            of_terminal = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                for worker in workers:
                    worker.start()
            finally:
                signal.signal(signal.SIGINT, of_terminal)
            for worker in workers:
                worker.join()
        except BaseException:
            _stop(workers)
            raise
    failed = [w for w in workers if w.exitcode]
    if len(failed) == len(workers):
        raise CracksegError(
            f"all workers ended early ({'; '.join(sorted(set(map(_explain, failed))))}); their messages are "
            "above, and the same command resumes"
        )
    for worker in failed:
        print(f"note: a worker ended early ({_explain(worker)}); the others took over its trial")


def _explain(worker: BaseProcess) -> str:
    reason = find_reason(worker.exitcode or 0)
    return f"exit code {worker.exitcode}" + (f": {reason}; fewer --jobs need less" if reason else "")


def _work(job: Job) -> None:
    end_with_parent(job.parent_pid)
    end_quickly()
    try:
        work(job)
    except KeyboardInterrupt:
        sys.exit(130)
    except CracksegError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _stop(workers: Sequence[BaseProcess]) -> None:
    started = [w for w in workers if w.pid is not None]
    for worker in started:
        if worker.is_alive():
            worker.terminate()
    deadline = time.monotonic() + _STOP_S
    for worker in started:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()  # the next command finds its trial and resumes it
