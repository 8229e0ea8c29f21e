"""The figures of a study, drawn by Optuna: history, importances, slices, contour, Pareto front."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw

from crackseg.plots import draw_search_history, save_axes
from crackseg.search.results import rank
from crackseg.search.study import CELL, Search

_log = logging.getLogger("crackseg")
_CONTOUR = ["optimizer.lr", "loss.gamma"]


def draw_figures(search: Search, folder: Path) -> list[Path]:
    """Draw what there is to draw; a figure that needs more trials than there are is left out.

    Args:
        folder: for the PNG files.
    Returns:
        The files.
    """
    study, title = search.study, f"validation ODS ({search.params.search.protocol})"
    complete = rank(search)
    varied = [key for key in _varied(complete) if isinstance(complete[0].params.get(key), int | float | str)]

    target: dict[str, Any] = {"target_name": title}
    if search.is_multi_objective:
        target["target"] = _first_value
    wanted: dict[str, Callable[[], Any]] = {
        "importances": lambda: draw.plot_param_importances(study, **target),
        "slices": lambda: draw.plot_slice(study, params=varied, **target),
    }
    if set(_CONTOUR) <= set(varied):
        wanted["contour"] = lambda: draw.plot_contour(study, params=_CONTOUR, **target)
    if search.is_multi_objective:
        names = [title, search.params.search.second_objective.replace("_", " ")]
        wanted["pareto"] = lambda: draw.plot_pareto_front(study, target_names=names)
    elif study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)):
        wanted["pruning"] = lambda: draw.plot_intermediate_values(study)
    if len(complete) < 2 or not varied:
        del wanted["importances"], wanted["slices"]
    paths = [folder / "history.png"]
    draw_search_history(_history(search), paths[0], title=f"study {search.name}", ylabel=title)
    for name, plot in wanted.items():
        path = folder / f"{name}.png"
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Optuna calls its figures experimental; matplotlib grumbles on log axes
            warnings.simplefilter("ignore", ExperimentalWarning)
            try:
                save_axes(plot(), path)
            except (ValueError, RuntimeError, ZeroDivisionError) as error:  # e.g. all trials have the same ODS
                _log.warning("no figure %s: %s", name, str(error).splitlines()[0][:120])
                continue
        paths.append(path)
    return paths


def _varied(trials: list[FrozenTrial]) -> list[str]:
    """Keys that have several values, in the order of the space."""
    keys = dict.fromkeys(key for trial in trials for key in trial.params)
    return [key for key in keys if len({trial.params[key] for trial in trials if key in trial.params}) > 1]


def _first_value(trial: FrozenTrial) -> float:
    return trial.values[0]


def _history(search: Search) -> pd.DataFrame:
    ended = search.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    rows = [
        (
            t.number,
            t.values[0],
            "pruned"
            if t.state == TrialState.PRUNED
            else "the paper's cells"
            if CELL in t.user_attrs
            else "the search",
        )
        for t in ended
        if t.values
    ]
    return pd.DataFrame(rows, columns=["trial", "ods", "kind"])
