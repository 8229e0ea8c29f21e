"""Results of a study: trials ranked by score, the best compared with the paper's configurations, weights to keep."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from crackseg.errors import CracksegError
from crackseg.experiments.search.study import CONFIGURATION, Search
from crackseg.files import format_markdown

# User attributes of a trial.
FIGURES, RUN_ID, SECONDS, ERROR = "figures", "run_id", "seconds", "error"


@dataclass(frozen=True)
class Contender:
    """The best of some trials, and their total time."""

    label: str
    trial: FrozenTrial | None
    num_trials: int
    seconds: float


def rank(search: Search) -> list[FrozenTrial]:
    """Rank complete trials, the best first; with two objectives the Pareto front comes first."""
    complete = search.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    front = front_of(search)
    return sorted(complete, key=lambda t: (t.number not in front, -t.values[0], t.number))


def front_of(search: Search) -> set[int]:
    """Return the numbers of the trials of the Pareto front; none if there is one objective."""
    return {t.number for t in search.study.best_trials} if search.is_multi_objective else set()


def choose_trial(search: Search, number: int | None) -> FrozenTrial:
    """Return the trial of this number, or the best.

    Raises:
        CracksegError: no trial is complete, or this one is not.
    """
    ranked = rank(search)
    if not ranked:
        raise CracksegError(f"no trial of study {search.name!r} is complete")
    if number is None:
        return ranked[0]
    for trial in ranked:
        if trial.number == number:
            return trial
    raise CracksegError(
        f"trial {number} of study {search.name!r} is not complete; `crackseg search show --study {search.name}` "
        "lists the trials"
    )


def compare_with_paper(search: Search) -> list[Contender]:
    """Return the best of the paper's configurations, of the search with the same budget, and of the whole search."""
    done = [t for t in search.study.get_trials(deepcopy=False) if t.state.is_finished()]
    configurations = [t for t in done if CONFIGURATION in t.user_attrs]
    found = [t for t in done if CONFIGURATION not in t.user_attrs]
    budget = _seconds(configurations)
    within: list[FrozenTrial] = []
    for trial in found:
        if _seconds([*within, trial]) > budget:
            break
        within.append(trial)
    rows = [_contender("the paper's cells", configurations)] if configurations else []
    if configurations and len(within) < len(found):
        rows.append(_contender("the search, on the same budget", within))
    return [*rows, _contender("the search", found)]


def format_comparison(search: Search) -> str:
    """Write the best trial next to the paper's configurations, and the ten best trials, as Markdown."""
    rows = compare_with_paper(search)
    reference = rows[0].trial if len(rows) > 1 else None
    protocol = search.params.search.protocol
    head = (
        f"Validation images of {search.params.data.train_dataset}, {protocol} ODS, "
        f"{search.params.train.epochs} epochs a trial, one seed."
    )
    header = ["best of", "ODS", "difference", "trial", "trials", "minutes of training"]
    cells = []
    for row in rows:
        value = f"{row.trial.values[0]:.4f}" if row.trial else "–"
        difference = (
            f"{row.trial.values[0] - reference.values[0]:+.4f}"
            if row.trial and reference and row.trial is not reference
            else ""
        )
        number = row.trial.number if row.trial else "–"
        cells.append([row.label, value, difference, number, row.num_trials, f"{row.seconds / 60:.1f}"])
    best = format_trials(search, rank(search)[:10])
    return "\n".join([head, "", format_markdown(header, cells, "lrrrrr"), best])


def format_trials(search: Search, trials: Sequence[FrozenTrial]) -> str:
    """Write trials as a Markdown table."""
    second = search.params.search.second_objective
    titles = ["trial", "state", "ODS", *([second] if second != "none" else []), "minutes", "settings"]
    rows = []
    front = front_of(search)
    for t in trials:
        values = [f"{v:.4g}" if i else f"{v:.4f}" for i, v in enumerate(t.values or ())]
        values += [""] * (len(titles) - 4 - len(values))
        minutes = f"{t.user_attrs.get(SECONDS, 0) / 60:.1f}"
        settings = describe_point(t.params) + (
            f" (the paper's {t.user_attrs[CONFIGURATION]})" if CONFIGURATION in t.user_attrs else ""
        )
        settings += " (Pareto front)" if t.number in front else ""
        settings += f" {t.user_attrs[ERROR]}" if t.state == TrialState.FAIL and ERROR in t.user_attrs else ""
        rows.append([t.number, t.state.name.lower(), *values, minutes, settings])
    return format_markdown(titles, rows, "rl" + "r" * (len(titles) - 3) + "l")


def describe_point(point: Mapping[str, Any]) -> str:
    """Write settings in one line: ``optimizer.lr=0.00312 loss.gamma=2``."""
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in point.items())


def weights_path(search: Search, number: int) -> Path:
    """Return the path of a trial's weights; they exist if this machine trained it and it is among the best."""
    return search.folder / "weights" / f"{number:04d}.pt"


def checkpoint_dir(search: Search, number: int, key: str) -> Path:
    """Return the checkpoint folder of a running trial; ``key`` is of its settings, data and code."""
    return search.folder / "trials" / f"{number:04d}-{key}"


def remove_what_is_not_needed(search: Search) -> None:
    """Remove checkpoints of finished trials from this machine, and weights that are not of the best."""
    best = {t.number for t in rank(search)[: search.params.search.keep]}
    for trial in search.study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            for folder in (search.folder / "trials").glob(f"{trial.number:04d}-*"):  # also of another worker's
                shutil.rmtree(folder, ignore_errors=True)
            if trial.number not in best:
                weights_path(search, trial.number).unlink(missing_ok=True)


def _contender(label: str, trials: Sequence[FrozenTrial]) -> Contender:
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    best = max(complete, key=lambda t: t.values[0], default=None)
    return Contender(label, best, len(trials), _seconds(trials))


def _seconds(trials: Sequence[FrozenTrial]) -> float:
    return sum(t.user_attrs.get(SECONDS, 0.0) for t in trials)
