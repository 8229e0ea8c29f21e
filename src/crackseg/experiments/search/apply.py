"""Write a trial's settings into params.yaml, keeping its comments and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crackseg.experiments.search.results import choose_trial
from crackseg.experiments.search.study import Search
from crackseg.lineage import keys_behind
from crackseg.params import flatten_params, load_params
from crackseg.params.effects import RESULTS, VERSION
from crackseg.params.writing import write_settings


def settings_of_trial(search: Search, number: int | None, *, searched_only: bool) -> dict[str, Any]:
    """Return the changes to params.yaml for a trial: the searched settings, and those that ``-S`` set for all trials.

    Args:
        number: of the trial; None: the best.
        searched_only: leave out those that ``-S`` set, e.g. to train with params.yaml's own number of epochs.
    """
    trial = choose_trial(search, number)
    overrides = {} if searched_only else search.overrides
    # The others control how the search runs and have no effect on results.
    kept = keys_behind(RESULTS, VERSION, settings=flatten_params(search.params) | trial.params)
    return {key: value for key, value in overrides.items() if key in kept} | trial.params


def apply_trial(
    root: Path, search: Search, number: int | None, *, searched_only: bool
) -> dict[str, tuple[Any, Any]]:
    """Write a trial's settings into params.yaml.

    Returns:
        The changes: key, value before and after.
    Raises:
        CracksegError: the trial is not complete, or params.yaml cannot have a setting, e.g. a key that is gone.
    """
    changes = settings_of_trial(search, number, searched_only=searched_only)
    return write_settings(root / "params.yaml", changes, source=f"study {search.name}")


def find_left_out(root: Path, search: Search, number: int | None) -> dict[str, tuple[Any, Any]]:
    """Find settings that ``-S`` set for all trials and that differ in params.yaml: its value, and the trial's."""
    ours = flatten_params(load_params(root / "params.yaml"))
    theirs = settings_of_trial(search, number, searched_only=False)
    searched = settings_of_trial(search, number, searched_only=True)
    return {key: (ours[key], theirs[key]) for key in theirs if key not in searched and ours[key] != theirs[key]}
