"""Search space: ``search.space`` of params.yaml as Optuna's distributions, checked before the first trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from crackseg.errors import CracksegError
from crackseg.params import Choice, Params, SearchDimension, change_params, flatten_params, value_types

Settings = dict[str, Any]

_SOURCE = "search.space"
# Trials that differ in these sections cannot be compared.
_FIXED_SECTIONS = {
    "data": "it decides which images the trials are compared on",
    "evaluate": "it decides how the trials are scored",
    "registry": "training does not depend on it",
    "measure": "training does not depend on it",
}


@dataclass(frozen=True)
class Dimension:
    """One key that is searched."""

    key: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Choice, ...]]
    """Values of other keys with which it is searched; empty: always."""

    def is_active(self, settings: Mapping[str, Any]) -> bool:
        """Return whether it is searched together with these settings."""
        return all(settings[key] in values for key, values in self.when.items())

    def contains(self, value: Any) -> bool:
        """Return whether a value is in the range or among the choices."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return any(_equal(value, choice) for choice in d.choices)
        assert isinstance(d, IntDistribution | FloatDistribution)
        if isinstance(value, bool) or not isinstance(value, int | float) or not d.low <= value <= d.high:
            return False
        steps = (value - d.low) / (d.step or 1)
        return d.step is None or math.isclose(steps, round(steps), abs_tol=1e-9)

    def list_values(self) -> list[Any]:
        """List all values, from the least to the greatest.

        Raises:
            CracksegError: it is a range without a step.
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if isinstance(d, IntDistribution):
            return list(range(d.low, d.high + 1, d.step))
        assert isinstance(d, FloatDistribution)
        if d.single():
            return [d.low]
        if d.step is None:
            raise CracksegError(
                f"{_SOURCE}: search.sampler grid goes through all values, and {self.key} has infinitely many between "
                f"{d.low:g} and {d.high:g}; give it a step or choices, or take another sampler"
            )
        return [d.low + i * d.step for i in range(round((d.high - d.low) / d.step) + 1)]


class Space:
    """All keys that are searched, in an order in which each comes after those that it depends on.

    Args:
        params: section ``search`` defines the space, the others the fixed settings.
    Raises:
        CracksegError: a key that params.yaml does not have, or that cannot be searched; a range that is empty, of
            the wrong kind or beyond what the key takes; a condition that never holds; a space with one point.
    """

    def __init__(self, params: Params) -> None:
        self.base = flatten_params(params)
        wanted = {
            f"{section}.{key}": dimension
            for section, keys in params.search.space.items()
            for key, dimension in keys.items()
            if dimension is not None
        }
        for key in wanted:
            _check_key(params, key, self.base)
        dimensions = {
            key: Dimension(key, _to_distribution(params, key, d, self.base[key]), _conditions(d))
            for key, d in wanted.items()
        }
        self.dimensions = _order(dimensions, self.base)
        if all(d.distribution.single() for d in self.dimensions):
            names = ", ".join(d.key for d in self.dimensions) or "no key"
            raise CracksegError(
                f"{_SOURCE} has one point ({names}), so there is nothing to search; widen a range or add a key, "
                "or train it with `dvc repro`"
            )

    def suggest(self, trial: Trial) -> Settings:
        """Draw a point; a trial that has one already keeps it."""
        settings = dict(self.base)
        drawn = {}
        for dimension in self.dimensions:
            if dimension.is_active(settings):
                drawn[dimension.key] = _suggest(trial, dimension)
                settings |= drawn
        return drawn

    def locate(self, settings: Mapping[str, Any]) -> Settings | None:
        """Return settings as a point of the space, or None if they are not in it.

        Args:
            settings: values by key; other keys have their values of params.yaml, and must be there if they are not
                searched.
        """
        whole = self.base | dict(settings)
        point = {}
        searched = {dimension.key for dimension in self.dimensions}
        if any(not _equal(self.base[key], value) for key, value in settings.items() if key not in searched):
            return None
        for dimension in self.dimensions:
            if dimension.is_active(whole):
                if not dimension.contains(whole[dimension.key]):
                    return None
                point[dimension.key] = _as_drawn(dimension.distribution, whole[dimension.key])
        return point

    def list_points(self, seed: int) -> list[Settings]:
        """List all points of a space without continuous ranges, each once, in seeded order."""
        points: dict[tuple, Settings] = {}
        for values in itertools.product(*(d.list_values() for d in self.dimensions)):
            settings = self.base | dict(zip((d.key for d in self.dimensions), values, strict=True))
            point = {d.key: settings[d.key] for d in self.dimensions if d.is_active(settings)}
            points.setdefault(tuple(point.items()), point)
        order = np.random.default_rng(seed).permutation(len(points))
        unique = list(points.values())
        return [unique[i] for i in order]


def describe_space(params: Params) -> dict[str, str]:
    """Return the space as text by key, to compare the spaces of two studies."""
    return {
        f"{section}.{key}": _describe(dimension)
        for section, keys in params.search.space.items()
        for key, dimension in keys.items()
        if dimension is not None
    }


def _describe(d: SearchDimension) -> str:
    shape = (
        f"[{', '.join(map(str, d.choices))}]"
        if d.choices is not None
        else f"{d.low:g} to {d.high:g}" + (", log" if d.log else "") + (f", step {d.step:g}" if d.step else "")
        if d.low is not None and d.high is not None
        else "?"
    )
    conditions = " and ".join(f"{key} in {list(values)}" for key, values in _conditions(d).items())
    return shape + (f", when {conditions}" if conditions else "")


def _conditions(d: SearchDimension) -> dict[str, tuple[Choice, ...]]:
    return {key: values if isinstance(values, tuple) else (values,) for key, values in d.when.items()}


def _check_key(params: Params, key: str, base: Mapping[str, Any]) -> None:
    section = key.split(".")[0]
    if section in _FIXED_SECTIONS or section == "search":
        reason = _FIXED_SECTIONS.get(section, "it is the search itself")
        raise CracksegError(f"{_SOURCE}: {key} cannot be searched: {reason}; -S sets it for all trials")
    if key not in base:
        change_params(params, {key: 0}, source=_SOURCE)  # names the unknown key and the nearest known one
        raise CracksegError(f"{_SOURCE}: unknown key {key}")


def _to_distribution(params: Params, key: str, d: SearchDimension, present: Any) -> BaseDistribution:
    where = f"{_SOURCE}: {key}"
    if (d.choices is None) == (d.low is None and d.high is None):
        raise CracksegError(f"{where}: expected either low and high, or choices")
    if d.choices is not None:
        if not d.choices or len(set(map(repr, d.choices))) < len(d.choices):
            raise CracksegError(f"{where}: choices {list(d.choices)}: expected at least one, none of them twice")
        if d.log or d.step:
            raise CracksegError(f"{where}: log and step belong to a range, not to choices")
        for choice in d.choices:
            change_params(params, {key: choice}, source=_SOURCE)
        return CategoricalDistribution([_as_kept(params, key, choice) for choice in d.choices])
    low, high = d.low, d.high
    if low is None or high is None:
        raise CracksegError(f"{where}: a range has both low and high, got low {low} and high {high}")
    if low > high:
        raise CracksegError(f"{where}: low {low:g} is more than high {high:g}")
    if d.log and low <= 0:
        raise CracksegError(f"{where}: a logarithmic range begins above 0, got low {low:g}")
    if d.log and d.step:
        raise CracksegError(f"{where}: a logarithmic range has no step; list choices instead")
    if d.step and d.step > high - low > 0:
        raise CracksegError(f"{where}: step {d.step:g} is more than the range from {low:g} to {high:g}")
    if not {int, float} & (types := value_types(key)):
        raise CracksegError(f"{where} = {present!r} is no number, so it has no range; list choices")
    whole = float not in types
    if whole and any(not float(v).is_integer() for v in (low, high, d.step or 1)):
        raise CracksegError(f"{where} takes whole numbers, got low {low:g}, high {high:g}, step {d.step or 1:g}")
    for value in (low, high):
        change_params(params, {key: int(value) if whole else value}, source=_SOURCE)
    if whole:
        return IntDistribution(int(low), int(high), log=d.log, step=int(d.step or 1))
    if d.step and not math.isclose((high - low) / d.step, round((high - low) / d.step), abs_tol=1e-9):
        raise CracksegError(f"{where}: step {d.step:g} does not divide the range from {low:g} to {high:g}")
    return FloatDistribution(low, high, log=d.log, step=d.step)


def _as_kept(params: Params, key: str, choice: Choice) -> Any:
    """Convert a choice to the type of params.yaml: 2 becomes 2.0 where a float is expected."""
    return flatten_params(change_params(params, {key: choice}, source=_SOURCE))[key]


def _order(dimensions: Mapping[str, Dimension], base: Mapping[str, Any]) -> list[Dimension]:
    """Order keys so that each comes after those that it depends on, and check that its condition can hold."""
    for dimension in dimensions.values():
        for other, values in dimension.when.items():
            if other not in base:
                raise CracksegError(
                    f"{_SOURCE}: {dimension.key} depends on {other}, which params.yaml does not have"
                )
            searched = dimensions.get(other)
            if not any(searched.contains(v) if searched else _equal(v, base[other]) for v in values):
                raise CracksegError(
                    f"{_SOURCE}: {dimension.key} is searched only when {other} is {' or '.join(map(str, values))}, "
                    "which it never is"
                )
    ordered: dict[str, Dimension] = {}
    waiting = dict(dimensions)
    while waiting:
        ready = [k for k, d in waiting.items() if all(o in ordered or o not in dimensions for o in d.when)]
        if not ready:
            raise CracksegError(f"{_SOURCE}: {' and '.join(waiting)} depend on each other in a circle")
        ordered |= {key: waiting.pop(key) for key in ready}
    return list(ordered.values())


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    d = dimension.distribution
    if isinstance(d, CategoricalDistribution):
        return trial.suggest_categorical(dimension.key, d.choices)
    if isinstance(d, IntDistribution):
        return trial.suggest_int(dimension.key, d.low, d.high, log=d.log, step=d.step)
    assert isinstance(d, FloatDistribution)
    return trial.suggest_float(dimension.key, d.low, d.high, log=d.log, step=d.step)


def _as_drawn(distribution: BaseDistribution, value: Any) -> Any:
    return distribution.to_external_repr(distribution.to_internal_repr(value))


def _equal(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def iter_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Yield for each key that differs its value in the study and its value now."""
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            yield f"{key}: {theirs.get(key, 'not there')} in the study, {ours.get(key, 'not there')} now"
