"""The effects of a key of params.yaml, said once, at its field; crackseg.lineage derives every list from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Effect(Enum):
    """A product that changes with a key, made by the stage in brackets."""

    NOTHING = "nothing"
    """At most rounding: where and how fast it is computed, or a rule that is applied to finished results."""
    IMAGES = "images"
    """Prepared images and masks (prepare)."""
    WEIGHTS = "weights"
    """Weights, and which of them are kept (train)."""
    MAPS = "maps"
    """Probability maps of given images with given weights (predict)."""
    COUNTING = "counting"
    """Rules of counting maps against ground truth (evaluate): scores under other values cannot be compared."""
    SCORES = "scores"
    """Scores of given maps (evaluate)."""
    RESULTS = "results"
    """All scores of a run: of which datasets and which split."""
    VERSION = "version"
    """Registered version of the model (register)."""
    SEARCH = "search"
    """Trials that a search tries, and its objective."""
    PACE = "pace"
    """Seconds of an epoch, enough that measured times differ."""


NOTHING, IMAGES, WEIGHTS, MAPS, COUNTING, SCORES, RESULTS, VERSION, SEARCH, PACE = Effect

FOLLOWS: Mapping[Effect, tuple[Effect, ...]] = {
    IMAGES: (WEIGHTS, MAPS, COUNTING),
    WEIGHTS: (MAPS, VERSION),
    MAPS: (SCORES,),
    COUNTING: (SCORES,),
    SCORES: (RESULTS,),
}
"""Products that are made from another, and so change with it."""


@dataclass(frozen=True)
class Affects:
    """Annotate a field with the products that its key changes directly; what is made from them changes too.

    Args:
        effects: at least one; ``NOTHING`` stands alone.
        when: values of other keys, by dotted key, that it needs for that; elsewhere it has none of these effects.
            A field may have several of these annotations.
    """

    effects: frozenset[Effect]
    when: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def __init__(self, *effects: Effect, when: Mapping[str, object] | None = None) -> None:
        if not effects or (NOTHING in effects and len(effects) > 1):
            raise TypeError(f"Affects{effects}: expected NOTHING, or one effect or more")
        object.__setattr__(self, "effects", frozenset(effects))
        conditions = {key: v if isinstance(v, tuple) else (v,) for key, v in (when or {}).items()}
        object.__setattr__(self, "when", conditions)

    def reaches(self, effect: Effect) -> bool:
        """Say if a product changes with the key, directly or as it is made from another that does."""
        waiting, seen = list(self.effects), set()
        while waiting:
            if (found := waiting.pop()) not in seen:
                seen.add(found)
                waiting += FOLLOWS.get(found, ())
        return effect in seen

    def holds(self, settings: Mapping[str, object]) -> bool:
        """Say if the conditions are met.

        Args:
            settings: flat, values or their text as MLflow records it; a condition on a key that is not there is met.
        """
        return all(
            key not in settings or str(settings[key]) in map(str, values) for key, values in self.when.items()
        )
