"""False alarms: cracks that a model marks on photographs without any, at its operating threshold.

ODS, OIS and AP choose the threshold with the ground truth; here the threshold is that of the finished model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crackseg.errors import count_of


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Cracks marked on crack-free photographs: of one photograph, or sums over several.

    A photograph is crack-free if its ground truth has no crack pixel inside the region of interest.

    Attributes:
        num_crack_free: photographs without cracks.
        num_alarmed: how many of them have at least one crack pixel in the predicted mask.
        crack_pixels: predicted on them.
        length_px: length of the predicted centre lines (:func:`crackseg.geometry.centerlines.skeleton_length_px`).
        area_px: pixels of these photographs that count.
    """

    num_crack_free: int = 0
    num_alarmed: int = 0
    crack_pixels: int = 0
    length_px: float = 0.0
    area_px: int = 0

    @classmethod
    def pool(cls, alarms: Iterable[FalseAlarms]) -> FalseAlarms:
        """Add up the false alarms of several photographs."""
        every = list(alarms)
        return cls(
            sum(a.num_crack_free for a in every),
            sum(a.num_alarmed for a in every),
            sum(a.crack_pixels for a in every),
            sum(a.length_px for a in every),
            sum(a.area_px for a in every),
        )

    @property
    def rate(self) -> float | None:
        """Fraction of the crack-free photographs with any predicted crack, in [0, 1]; None without such photographs."""
        return self.num_alarmed / self.num_crack_free if self.num_crack_free else None

    @property
    def px_per_megapixel(self) -> float | None:
        """Length of the predicted cracks by area: pixels per million pixels; None without crack-free photographs.

        With a scale of s millimetres per pixel, metres per square metre are this value / (1000 s).
        """
        return 1e6 * self.length_px / self.area_px if self.area_px else None

    def to_dict(self) -> dict[str, float]:
        """Return ``num_crack_free``; if not 0, also ``false_alarm_rate`` and ``false_alarm_px_per_megapixel``."""
        values: dict[str, float] = {"num_crack_free": self.num_crack_free}
        if self.rate is not None and self.px_per_megapixel is not None:
            values |= {"false_alarm_rate": self.rate, "false_alarm_px_per_megapixel": self.px_per_megapixel}
        return values


def describe_false_alarms(values: Mapping[str, Any]) -> str:
    """Describe the false alarms of a dataset in a few words: those of :meth:`FalseAlarms.to_dict`.

    Args:
        values: scores of a dataset by name; those of an older crackseg lack false alarms.
    """
    if "num_crack_free" not in values:
        return "not recorded"
    count, rate = round(values["num_crack_free"]), values.get("false_alarm_rate")
    if not count or rate is None:
        return "unknown, no crack-free photograph"
    length = values["false_alarm_px_per_megapixel"]
    amount = "under 0.1" if rate and length < 0.05 else f"{length:.1f}"  # a dot has no length
    return f"on {round(rate * count)} of {count_of(count, 'crack-free photograph')}, {amount} px per megapixel"
