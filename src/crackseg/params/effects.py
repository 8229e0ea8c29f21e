"""Effects of a key of params.yaml, annotated at its field; crackseg.lineage derives its lists from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Effect(Enum):
    """A product that a key changes, made by the stage in brackets."""

    NOTHING = "nothing"
    """Nothing but rounding: a setting of the hardware or the speed, or a rule applied to finished results."""
    IMAGES = "images"
    """Prepared images and masks (prepare)."""
    WEIGHTS = "weights"
    """Weights, and the choice of the epoch that is kept (train)."""
    MAPS = "maps"
    """Probability maps of given images with given weights (predict)."""
    COUNTING = "counting"
    """Rules for counting maps against ground truth (evaluate); scores under different rules cannot be compared."""
    SCORES = "scores"
    """Scores of given maps (evaluate)."""
    RESULTS = "results"
    """All scores of a run, by dataset and split."""
    VERSION = "version"
    """Registered version of the model (register)."""
    SEARCH = "search"
    """Trials of a search, and its objective."""
    PACE = "pace"
    """Seconds of an epoch."""


NOTHING, IMAGES, WEIGHTS, MAPS, COUNTING, SCORES, RESULTS, VERSION, SEARCH, PACE = Effect

FOLLOWS: Mapping[Effect, tuple[Effect, ...]] = {
    IMAGES: (WEIGHTS, MAPS, COUNTING),
    WEIGHTS: (MAPS, VERSION),
    MAPS: (SCORES,),
    COUNTING: (SCORES,),
    SCORES: (RESULTS,),
}
"""By product, the products that are made from it and so change with it."""


@dataclass(frozen=True)
class Affects:
    """Annotate a field with the products that its key changes directly; products made from them change too.

    Args:
        effects: at least one; ``NOTHING`` only alone.
        when: by dotted key, values of other keys without which the key has none of these effects. A field may have
            several annotations.
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
        """Return True if the key changes a product, directly or through a product that it is made from."""
        waiting, seen = list(self.effects), set()
        while waiting:
            if (found := waiting.pop()) not in seen:
                seen.add(found)
                waiting += FOLLOWS.get(found, ())
        return effect in seen

    def holds(self, settings: Mapping[str, object]) -> bool:
        """Return True if the conditions are met.

        Args:
            settings: flat, values or their text as MLflow records it; a condition on a missing key is met.
        """
        return all(
            key not in settings or str(settings[key]) in map(str, values) for key, values in self.when.items()
        )
