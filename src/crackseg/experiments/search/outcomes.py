"""Use a study: train its best trials fully, register the best weights."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crackseg.errors import CracksegError
from crackseg.experiments.paper.configurations import Configuration
from crackseg.experiments.paper.queue import make_plan, queue_configurations
from crackseg.experiments.search.apply import settings_of_trial
from crackseg.experiments.search.results import (
    FIGURES,
    choose_trial,
    rank,
    weights_path,
)
from crackseg.experiments.search.run import prepare_for
from crackseg.experiments.search.study import Search
from crackseg.params import change_params
from crackseg.registry.register import CANDIDATE_ALIAS, complete_and_register
from crackseg.tracking.store import Store

_BUDGET = "train.epochs"  # of a trial; a full training takes params.yaml's


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
