"""Draw the figures of a study with Optuna: history, importances, slices, contour, Pareto front."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw

from crackseg.errors import first_line
from crackseg.experiments.search.results import rank
from crackseg.experiments.search.study import CONFIGURATION, Search
from crackseg.plotting import COLOURS, save_figure

_log = logging.getLogger("crackseg")
_CONTOUR = ["optimizer.lr", "loss.gamma"]
_SECOND = {"inference_time": "inference time (s per image)", "parameters": "parameters"}
_PRUNED = "pruned"
# Named, since releases of Optuna differ in their default: the same study has the same figure in each.
_IMPORTANCE = PedAnovaImportanceEvaluator(target_quantile=0.1, region_quantile=1.0)


def draw_figures(search: Search, folder: Path) -> list[Path]:
    """Draw all figures; one that needs more trials than there are is left out.

    Args:
        folder: for the PNG files.
    Returns:
        The files.
    """
    study, title = search.study, f"validation ODS ({search.params.search.protocol})"
    complete = rank(search)
    varied = _varied(complete)

    target: dict[str, Any] = {"target_name": title}
    if search.is_multi_objective:
        target["target"] = _first_value
    wanted: dict[str, Callable[[], Any]] = {
        "importances": lambda: draw.plot_param_importances(study, evaluator=_IMPORTANCE, **target),
        "slices": lambda: draw.plot_slice(study, params=varied, **target),
    }
    if set(_CONTOUR) <= set(varied):
        wanted["contour"] = lambda: draw.plot_contour(study, params=_CONTOUR, **target)
    if search.is_multi_objective:
        names = [title, _SECOND[search.params.search.second_objective]]
        wanted["pareto"] = lambda: draw.plot_pareto_front(study, target_names=names)
    if len(complete) < 2 or not varied:
        del wanted["importances"], wanted["slices"]
    paths = [folder / "history.png"]
    _draw_history(_history(search), paths[0], title=f"study {search.name}", ylabel=title)
    if study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)):
        paths.append(folder / "pruning.png")
        _draw_curves(_curves(search), paths[-1], title=f"study {search.name}", ylabel=title)
    for name, plot in wanted.items():
        path = folder / f"{name}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its figures experimental; matplotlib warns on log axes
            warnings.simplefilter("ignore", ExperimentalWarning)
            try:
                _save_axes(plot(), path)
            except (ValueError, RuntimeError, ZeroDivisionError) as error:  # e.g. all trials have the same ODS
                _log.warning("no figure %s: %s", name, first_line(error))
                continue
        paths.append(path)
    return paths


def _varied(trials: list[FrozenTrial]) -> list[str]:
    """List keys with several values among the trials that have them: a trial with BCE has no γ.

    Optuna cannot draw a choice that is null.
    """
    values: dict[str, set[Any]] = {}
    for trial in trials:
        for key, value in trial.params.items():
            values.setdefault(key, set()).add(value)
    return [key for key, of_key in values.items() if len(of_key) > 1 and None not in of_key]


def _first_value(trial: FrozenTrial) -> float:
    return trial.values[0]


def _history(search: Search) -> pd.DataFrame:
    rows = [(t.number, t.values[0], _kind(t)) for t in _ended(search) if t.values]
    return pd.DataFrame(rows, columns=["trial", "ods", "kind"])


def _curves(search: Search) -> pd.DataFrame:
    rows = [
        (t.number, epoch + 1, value, _kind(t))
        for t in _ended(search)
        for epoch, value in sorted(t.intermediate_values.items())
    ]
    return pd.DataFrame(rows, columns=["trial", "epoch", "ods", "kind"])


def _ended(search: Search) -> list[FrozenTrial]:
    return search.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _kind(trial: FrozenTrial) -> str:
    if trial.state == TrialState.PRUNED:
        return _PRUNED
    return "the paper's cells" if CONFIGURATION in trial.user_attrs else "the search"


def _draw_history(trials: pd.DataFrame, path: Path, *, title: str, ylabel: str) -> None:
    """Draw the score of each trial of a search, and the best so far.

    Args:
        trials: columns ``trial`` (number), ``ods`` and ``kind``; a pruned trial has the ODS of its last epoch.
        path: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    complete = trials[trials["kind"] != "pruned"].sort_values("trial")
    axes.step(complete["trial"], complete["ods"].cummax(), where="post", color="0.6", lw=1.4, label="best so far")
    for (kind, group), marker in zip(trials.groupby("kind", sort=False), "sox", strict=False):
        axes.plot(group["trial"], group["ods"], marker, ms=6, label=str(kind))
    axes.set(xlabel="trial", ylabel=ylabel, title=title)
    axes.grid(color="0.92")
    axes.legend(fontsize=9)
    save_figure(figure, path)


def _draw_curves(curves: pd.DataFrame, path: Path, *, title: str, ylabel: str) -> None:
    """Draw the score of each trial of a search after each epoch, which shows where trials were pruned.

    Args:
        curves: columns ``trial``, ``epoch`` (from 1), ``ods`` and ``kind``.
        path: PNG to write.
    """
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    colours = dict(zip(curves["kind"].drop_duplicates().sort_values(), COLOURS, strict=False))
    for (_trial, kind), group in curves.groupby(["trial", "kind"]):
        axes.plot(group["epoch"], group["ods"], ".-", color=colours[str(kind)], lw=1, ms=4, alpha=0.7)
    for kind, colour in colours.items():
        axes.plot([], [], color=colour, label=kind)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=ylabel, title=title)
    axes.grid(color="0.92")
    axes.legend(fontsize=9)
    save_figure(figure, path)


def _save_axes(axes: Axes | np.ndarray, path: Path) -> None:
    """Write a figure drawn by a library, given one or several of its axes, as PNG."""
    drawn = np.ravel(np.asarray(axes, dtype=object))
    figure = drawn[0].figure
    for one in drawn:
        one.tick_params(axis="x", labelsize=8)
        left, right = one.get_xlim()
        if one.get_xscale() == "log" and right / left < 100:  # matplotlib writes its labels over each other
            one.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.xaxis.set_major_formatter("{x:g}")
            one.xaxis.set_minor_formatter(NullFormatter())
    width, height = figure.get_size_inches()
    figure.set_size_inches(max(width, 8), max(height, 5))
    save_figure(figure, path, bbox_inches="tight")
