"""List the studies of a storage and their trials, as text and for programs. Needs neither torch nor matplotlib."""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState

from crackseg.errors import CracksegError
from crackseg.experiments.search.results import ERROR, RUN_ID, SECONDS, format_comparison, format_trials, rank
from crackseg.experiments.search.storage import Storage
from crackseg.experiments.search.study import CONFIGURATION, Search, load_search
from crackseg.tracking.store import Store


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


def _count_states(search: Search) -> str:
    trials = search.study.get_trials(deepcopy=False)
    counts = {s: sum(t.state == s for t in trials) for s in TrialState}
    return ", ".join(f"{number} {state.name.lower()}" for state, number in counts.items() if number) or "none"
