"""Width classes of cracks in millimetres: the tables that come with crackseg, and the check of a user's own.

Classes touch each other and cover every width, so that each crack has exactly one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from crackseg.types import Surface

MOST_CLASSES = 6  # as many as a picture can show in colours that everyone can tell apart


class WidthClass(BaseModel):
    """A class: cracks of at least ``from_mm`` and less than ``to_mm``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, max_length=24)]
    """For tables and legends."""
    from_mm: Annotated[float, Field(ge=0)]
    """Smallest width, in mm; 0 in the first class, in each other the former one's ``to_mm``."""
    to_mm: Annotated[float, Field(gt=0)] | None
    """Width at which the next class begins, in mm; null in the last one."""

    @property
    def range_text(self) -> str:
        """The widths in words, e.g. ``0.2 to 0.3 mm``."""
        if self.to_mm is None:
            return f"{self.from_mm:g} mm and more"
        return f"under {self.to_mm:g} mm" if not self.from_mm else f"{self.from_mm:g} to {self.to_mm:g} mm"


def _table(*bounds: tuple[str, float | None]) -> tuple[WidthClass, ...]:
    starts = [0.0, *(to_mm for _, to_mm in bounds if to_mm is not None)]
    return tuple(
        WidthClass(name=name, from_mm=from_mm, to_mm=to_mm)
        for (name, to_mm), from_mm in zip(bounds, starts, strict=True)
    )


WIDTH_CLASSES: Mapping[Surface, tuple[WidthClass, ...]] = {
    # EN 1992-1-1:2004, Table 7.1N: w_max 0.2 mm for members with bonded tendons (X0 to XC4), 0.3 mm for reinforced
    # members (XC2 to XS3). AASHTO Manual for Bridge Element Inspection, reinforced concrete: insignificant under
    # 0.012 in (0.3 mm), moderate to 0.05 in (1.27 mm), wide above.
    "concrete": _table(("hairline", 0.2), ("fine", 0.3), ("moderate", 1.27), ("wide", None)),
    # ASTM D6433, asphalt, longitudinal and transverse cracks that are not filled: low under 10 mm, medium to 75 mm,
    # high above.
    "pavement": _table(("low", 10.0), ("medium", 75.0), ("high", None)),
}


def check_width_classes(classes: Sequence[WidthClass]) -> None:
    """Check that every width has exactly one class.

    Raises:
        ValueError: the classes overlap, leave a gap, share a name, do not begin at 0, do not end open, or are none or
            too many; the message names the two classes and their bounds.
    """
    if not 1 <= len(classes) <= MOST_CLASSES:
        raise ValueError(f"{len(classes)} width classes; expected 1 to {MOST_CLASSES}")
    names = [each.name for each in classes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two width classes are named {twice}; give each its own name")
    first, last = classes[0], classes[-1]
    if first.from_mm:
        raise ValueError(
            f"the first width class, {first.name}, begins at {first.from_mm:g} mm, so finer cracks have none; let it "
            "begin at 0"
        )
    for each in classes:
        if each.to_mm is not None and each.to_mm <= each.from_mm:
            raise ValueError(
                f"the width class {each.name} is from {each.from_mm:g} to {each.to_mm:g} mm, so empty"
            )
    for one, other in pairwise(classes):
        if one.to_mm is None:
            raise ValueError(f"the width class {one.name} has no upper end, but {other.name} follows it")
        if one.to_mm != other.from_mm:
            wrong = "leave a gap" if one.to_mm < other.from_mm else "overlap"
            raise ValueError(
                f"the width classes {one.name} (to {one.to_mm:g} mm) and {other.name} (from {other.from_mm:g} mm) "
                f"{wrong}; each must begin where the one before ends, the finest first"
            )
    if last.to_mm is not None:
        raise ValueError(
            f"the last width class, {last.name}, ends at {last.to_mm:g} mm, so wider cracks have none; set its to_mm: "
            "null"
        )
