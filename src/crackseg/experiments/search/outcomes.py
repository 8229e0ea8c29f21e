"""Use a study: list it, train its best trials fully, register the best weights."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from crackseg.errors import CracksegError
from crackseg.experiments.paper.configurations import Configuration
from crackseg.experiments.paper.queue import make_plan, queue_configurations
from crackseg.experiments.search.apply import settings_of_trial
from crackseg.experiments.search.results import (
    ERROR,
    FIGURES,
    RUN_ID,
    SECONDS,
    choose_trial,
    format_comparison,
    format_trials,
    rank,
    weights_path,
)
from crackseg.experiments.search.run import prepare_for
from crackseg.experiments.search.storage import Storage
from crackseg.experiments.search.study import CONFIGURATION, Search, load_search
from crackseg.params import change_params
from crackseg.registry.register import CANDIDATE_ALIAS, complete_and_register
from crackseg.tracking.store import Store

_BUDGET = "train.epochs"  # of a trial; a full training takes params.yaml's


def show(store: Store, storage: Storage, name: str | None) -> str:
    """Describe all studies of a storage, or one with its trials."""
    studies = storage.get_all_studies()
    if name is not None or len(studies) == 1:
        search = load_search(store, storage, name)
        trials = search.study.get_trials(deepcopy=False)
        head = f"study {search.name}, trials: {_count_states(search)}"
        table = format_comparison(search).split("\n\n| trial")[0] if rank(search) else ""
        return "\n".join([head, "", table, "", format_trials(search, trials)])
    if not studies:
        return "the storage has no study; `crackseg search` makes one"
    lines = []
    for study in sorted(studies, key=lambda s: s.study_name):
        try:
            search = load_search(store, storage, study.study_name)
        except CracksegError as error:
            lines.append(f"{study.study_name}: {error}")
            continue
        best = rank(search)[:1]
        shown = f"best {best[0].values[0]:.4f} (trial {best[0].number})" if best else "no trial complete"
        lines.append(f"{search.name}: {_count_states(search)}; {shown}")
    return "\n".join([*lines, "", "--study NAME lists the trials of one"])


def list_studies(store: Store, storage: Storage, name: str | None) -> list[dict[str, Any]]:
    """Return the same for programs: each study, or the named one, with its trials in order."""
    if name is not None:
        return [_list_trials(load_search(store, storage, name))]
    studies: list[dict[str, Any]] = []
    for study_name in sorted(study.study_name for study in storage.get_all_studies()):
        try:
            studies.append(_list_trials(load_search(store, storage, study_name)))
        except CracksegError as error:
            studies.append({"study": study_name, "error": str(error)})
    return studies


def _list_trials(search: Search) -> dict[str, Any]:
    best = rank(search)[:1]
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "values": trial.values,
            "params": trial.params,
            "cell": trial.user_attrs.get(CONFIGURATION),
            "seconds": trial.user_attrs.get(SECONDS),
            "run_id": trial.user_attrs.get(RUN_ID),
            "error": trial.user_attrs.get(ERROR),
        }
        for trial in search.study.get_trials(deepcopy=False)
    ]
    return {"study": search.name, "best": best[0].number if best else None, "trials": trials}


def queue_best(
    root: Path,
    store: Store,
    search: Search,
    *,
    top: int,
    num_seeds: int,
    settings: Mapping[str, Any],
) -> Iterator[str]:
    """Put the best trials into DVC's queue for full training, each with several seeds; yield the experiments.

    The number of epochs is params.yaml's, not the trial's; everything else is as in the trial.

    Args:
        top: how many trials.
        num_seeds: ``train.seed`` 0, 1, … of each.
        settings: of all, as ``-S`` sets them.
    Raises:
        CracksegError: there is no complete trial, or DVC refuses.
    """
    choose_trial(search, None)  # raises if there is none
    configurations = []
    for trial in rank(search)[:top]:
        of_trial = settings_of_trial(search, trial.number, searched_only=False)
        for seed in range(num_seeds):
            values = of_trial | dict(settings) | {"train.seed": seed}
            if _BUDGET not in trial.params and _BUDGET not in settings:
                values.pop(_BUDGET, None)
            name = f"{search.name}-{trial.number}-seed{seed}".lower().replace(".", "-").replace("_", "-")
            configurations.append(Configuration(name, search.params.model.architecture, tuple(values.items())))
    plan = make_plan(root, store, configurations, {})
    for name in [*plan.finished, *plan.waiting]:
        yield f"{name} is already in the queue"
    for name in queue_configurations(root, plan):
        yield f"queued {name}"


def register_trial(root: Path, store: Store, search: Search, number: int | None) -> str:
    """Register the weights of a trial, by default of the best, as a version of the model; return its URI.

    Raises:
        CracksegError: the trial is not complete, or its weights are not on this machine.
    """
    trial = choose_trial(search, number)
    path = weights_path(search, trial.number)
    if not path.exists():
        raise CracksegError(
            f"{path}: the weights of trial {trial.number} are not on {platform.node()}; they are kept of the best "
            f"{search.params.search.keep} trials (search.keep), where each was trained. "
            f"`crackseg search apply --trial {trial.number}` and `dvc repro` train it again"
        )
    params = change_params(search.params, trial.params, source=f"trial {trial.number}")
    tags: dict[str, object] = {
        "val/ods": f"{trial.user_attrs[FIGURES]['ods']:.4f}",
        "search.study": search.name,
        "search.trial": trial.number,
    }
    version = complete_and_register(store, path, prepare_for(root, store, params), params, tags)
    return f"models:/{version.name}/{version.version} (alias {CANDIDATE_ALIAS})"


def _count_states(search: Search) -> str:
    trials: Sequence = search.study.get_trials(deepcopy=False)
    counts = {s: sum(t.state == s for t in trials) for s in TrialState}
    return ", ".join(f"{number} {state.name.lower()}" for state, number in counts.items() if number) or "none"
