"""Compare two uploaded photographs of one place, as ``crackseg growth`` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from crackseg.errors import CracksegError
from crackseg.geometry.scale import Scale
from crackseg.inspection.growth_pairs import SUMMARY, TABLE, GrowthOptions, Pair, compare_pairs
from crackseg.registry.loading import LoadedModel
from crackseg.serving.page.findings import wrap_table

FORMS = (("picture", "Picture"), ("csv", "Table (CSV)"), ("json", "All values (JSON)"))


@dataclass(frozen=True, slots=True)
class GrowthFindings:
    """Changes between two photographs.

    Attributes:
        summary, table: HTML.
        picture: JPEG, both photographs in the same view.
        files: by the name of the form, see ``FORMS``.
    """

    summary: str
    table: str
    picture: bytes
    files: dict[str, Path]


def compare_uploads(
    before: Path, after: Path, model: LoadedModel, scale: Scale | None, folder: Path
) -> GrowthFindings:
    """Compare two photographs at the model's own threshold.

    Args:
        before, after: the earlier and the later photograph.
        scale: of the earlier one; None for pixels.
        folder: gets the files.
    Raises:
        CracksegError: one cannot be read, or the later one cannot be registered onto the earlier one.
    """
    threshold = model.analyzer.settings.operating_threshold
    pair = Pair(before.stem, before, after)
    options = GrowthOptions(model.digest, threshold, scale)
    summary = compare_pairs([pair], model.analyzer, folder, options)
    if summary.refused:
        raise CracksegError(_without_folders(summary.refused[0].removeprefix(f"{pair.name}: "), before, after))
    for name in (TABLE, SUMMARY):  # where the uploads were kept concerns no one
        path = folder / name
        path.write_text(_without_folders(path.read_text(encoding="utf-8"), before, after), encoding="utf-8")
    (report,) = json.loads((folder / SUMMARY).read_bytes())
    changed = [crack for crack in report["cracks"] if crack["change"]]
    unit = "px" if scale is None else "mm"
    picture_path = folder / "pictures" / f"{pair.name}.jpg"
    return GrowthFindings(
        _summarize(changed, report, unit),
        _show_table(changed, unit),
        picture_path.read_bytes(),
        {"picture": picture_path, "csv": folder / TABLE, "json": folder / SUMMARY},
    )


def _without_folders(text: str, *paths: Path) -> str:
    for path in paths:
        text = text.replace(f"{path.parent}/", "")
    return text


def _summarize(changed: list[dict[str, Any]], report: dict[str, Any], unit: str) -> str:
    grown, lost = (sum(crack[f"{word}_by_{unit}"] or 0 for crack in changed) for word in ("longer", "shorter"))
    wider = sum("wider" in crack["change"].split(", ") for crack in changed)
    said = [
        *([f"{grown:,.0f} {unit} new"] if grown else []),
        *([f"{wider} crack{'' if wider == 1 else 's'} wider"] if wider else []),
        *([f"{lost:,.0f} {unit} no longer found"] if lost else []),
    ]
    found = report["registration"]
    return (
        f"<p class='says'>{', '.join(said).capitalize() or 'No change found'}, in the {found['overlap']:.0%} of the "
        f"earlier photograph that the later one shows; registered to {found['error_px']:.1f} px.</p>"
        "<p class='legend'>Small growth is often missed: look at the picture before you conclude that nothing has "
        "grown.</p>"
    )


def _show_table(changed: list[dict[str, Any]], unit: str) -> str:
    if not changed:
        return ""
    titles = "".join(
        f"<th>{title}</th>"
        for title in (
            "change", f"before, {unit}", f"after, {unit}", f"longer by, {unit}", f"shorter by, {unit}",
            f"wider by, {unit}",
        )
    )  # fmt: skip
    rows = []
    for crack in changed:
        cells = [
            f"<b>{escape(crack['change'])}</b>",
            *(_amount(crack[f"length_{when}_{unit}"]) for when in ("before", "after")),
        ]
        for word, digits in (("longer", 0), ("shorter", 0), ("wider", 2)):
            error = crack[f"{word}_uncertainty_{unit}"]
            amount = _amount(crack[f"{word}_by_{unit}"], digits)
            cells.append(amount if error is None or amount == "–" else f"{amount} ± {error:,.{digits or 1}f}")
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return wrap_table(titles, rows)


def _amount(value: float | None, digits: int = 0) -> str:
    return "–" if not value else f"{value:,.{digits}f}"
