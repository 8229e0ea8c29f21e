"""Write the report of an inspection as one HTML file that needs nothing else and prints on A4."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from crackseg.geometry.picture import encode_lines
from crackseg.geometry.scale import Scale
from crackseg.geometry.severity import Grading
from crackseg.inspection.collecting import ClassTotal, Findings, Inspection
from crackseg.inspection.places import Mark, draw_map

_PICTURE_PX, _QUALITY = 1200, 80  # longer side; 16 cm wide at 190 dots an inch
_GREY = (150, 150, 150)
_STYLE = """
@page { size: A4; margin: 16mm 14mm; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; color: #141414; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: .2rem .5rem; text-align: right; vertical-align: top; }
th { border-bottom: 2px solid #141414; }
td { white-space: nowrap; }
th:first-child, td:first-child, .text td, .text th { text-align: left; white-space: normal;
  overflow-wrap: anywhere; }
th:first-child, .text th { overflow-wrap: normal; } .text th:first-child { width: 14rem; }
.facts th { border-bottom: 1px solid #ccc; width: 14rem; font-weight: 600; }
i.class { display: inline-block; width: .85em; height: .85em; border: 1px solid #141414; margin-right: .4em;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.notice { border-left: 4px solid #b54708; background: #fdf3e7; padding: .5rem .8rem; margin: .5rem 0; }
.photograph { break-inside: avoid; } .photograph img { max-width: 100%; max-height: 15cm; display: block; }
svg.map { width: 100%; max-width: 40rem; max-height: 11cm; }
 thead { display: table-header-group; } tr { break-inside: avoid; }
h2, h3 { break-after: avoid; } .small { font-size: .85rem; color: #444; }
@media screen and (max-width: 700px) { table { display: block; overflow-x: auto; } .facts th { width: auto; } }
@media print { body { margin: 0; padding: 0; max-width: none; font-size: 10.5pt; } h2.page { break-before: page; }
  .photograph img { max-height: 12cm; } }
"""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """All that the results were made with.

    Attributes:
        title: of the report.
        day: when it was written, ISO 8601.
        source: the photographs as they were named.
        model, digest, trained_on: URI, digest and data of the model.
        threshold: crack is where the post-processed map is at least this.
        own_threshold: it is the model's own.
        scale, grading: of the measurement.
        program: name and version.
        warnings: reasons not to trust the results, a sentence each.
    """

    title: str
    day: str
    source: str
    model: str
    digest: str
    trained_on: str
    threshold: float
    own_threshold: bool
    scale: Scale | None
    grading: Grading
    program: str
    warnings: tuple[str, ...]


def write_page(inspection: Inspection, made: Circumstances, *, num_pictures: int) -> str:
    """Write the report.

    Args:
        inspection: the findings.
        made: what they were made with.
        num_pictures: of the worst photographs that are shown.
    """
    cracked = [found for found in inspection.findings if found.num_cracks]
    parts = [
        f"<h1>{escape(made.title)}</h1><p class='small'>{escape(made.day)}, {escape(made.program)}</p>",
        *(f"<p class='notice'>{escape(warning)}</p>" for warning in made.warnings),
        _summarize(inspection, made),
        _write_classes(inspection, made),
        _write_kinds(inspection),
        _write_map(inspection, made.grading),
        *_write_worst(cracked[:num_pictures], len(cracked), inspection.unit, made.grading, made.warnings),
        _write_all(inspection, made.grading),
        _write_left_out(inspection),
        _write_method(made),
    ]
    return (
        "<!doctype html>\n<html lang='en'>\n<head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(made.title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _summarize(inspection: Inspection, made: Circumstances) -> str:
    found = inspection.findings
    with_cracks = sum(each.num_cracks > 0 for each in found)
    facts = {
        "Photographs": f"{len(found)} inspected, {with_cracks} with cracks, {len(inspection.left_out)} left out",
        "Cracks": f"{sum(each.num_cracks for each in found):,}, "
        f"{_length(sum(each.length for each in found), inspection.unit)} long in all",
    }
    widest = max(
        (each for each in found if each.max_width is not None), key=lambda f: f.max_width or 0, default=None
    )
    if widest is not None:
        facts["Widest crack"] = f"{widest.max_width:.2f} {inspection.unit}, {widest.photograph.name}"
    worst = next((name for name in reversed(inspection.classes) if inspection.classes[name].num_cracks), None)
    if worst is not None:
        facts["Widest class found"] = worst
    if made.scale is None:
        facts["Scale"] = "none was given: values are in pixels, and cracks have no width class"
    return f"<h2>Summary</h2>{_facts(facts)}"


def _write_classes(inspection: Inspection, made: Circumstances) -> str:
    if not inspection.classes:
        return ""
    rows = [
        [
            _swatch(each.name, made.grading),
            escape(each.range_text),
            *_total_cells(inspection.classes[each.name], inspection.unit),
        ]
        for each in reversed(made.grading.classes)
    ]
    note = (
        "A crack has the class of its largest width, as the frame of its label; the length, and the colours along "
        "it, are divided by the width at each place, so a photograph counts in each class that it has some length of."
    )
    header = ("class", "width", "cracks", "length", "photographs")
    return f"<h2>Severity</h2>{_table(header, rows)}<p class='small'>{note}</p>"


def _write_kinds(inspection: Inspection) -> str:
    if not inspection.kinds:
        return ""
    longest = sorted(inspection.kinds, key=lambda kind: -inspection.kinds[kind].length)
    rows = [[escape(kind), *_total_cells(inspection.kinds[kind], inspection.unit)] for kind in longest]
    return f"<h2>Kinds of cracks</h2>{_table(('kind', 'cracks', 'length', 'photographs'), rows)}"


def _write_map(inspection: Inspection, grading: Grading) -> str:
    # The worst are first in the list and lie on top.
    marks = [
        Mark(
            found.place,
            _label(found, inspection.unit),
            grading.colour_of(found.severity) if found.severity else _GREY,
        )
        for found in reversed(inspection.findings)
        if found.place is not None
    ]
    if not marks:
        return ""
    missing = len(inspection.findings) - len(marks)
    note = f"{len(marks)} photographs by the GPS position in their EXIF"
    note += f"; {missing} have none" if missing else ""
    return f"<h2>Map</h2>{draw_map(marks)}<p class='small'>{note}.</p>"


def _label(found: Findings, unit: str) -> str:
    return f"{found.photograph.name}: {found.severity or 'no class'}, {_length(found.length, unit)}"


def _write_worst(
    worst: Sequence[Findings],
    num_cracked: int,
    unit: str,
    grading: Grading,
    said: Sequence[str],
) -> Iterable[str]:
    if not worst:
        return
    of = f" ({len(worst)} of {num_cracked})" if len(worst) < num_cracked else ""
    yield f"<h2 class='page'>Photographs with cracks, the worst first{of}</h2>"
    measured = (f"length, {unit}", f"mean width, {unit}", f"max. width, {unit}")
    header = ("crack", "kind", *(["class"] if unit == "mm" else []), *measured)
    for found in worst:
        rows = []
        for crack in found.cracks:
            cells = [str(crack["number"]), escape(crack["kind"])]
            if unit == "mm":
                cells.append(_swatch(crack["severity"], grading, crack["severity_range"]))
            for name in ("length", "mean_width", "max_width"):
                cells.append(_value(crack, name, unit))
            rows.append(cells)
        more = found.num_cracks - len(found.cracks)
        notes = [f"{more} more in the tables."] if more else []
        own_warning = found.warning
        for warning in said:
            own_warning = own_warning.replace(warning, "").strip()
        notes += [note for note in (own_warning, found.remark) if note]
        title = f"{found.photograph.name}: {found.num_cracks} cracks, {_length(found.length, unit)}"
        yield (
            f"<div class='photograph'><h3>{escape(title)}</h3>"
            f"<img alt='{escape(found.photograph.name, quote=True)}' src='{_embed(found.picture)}'>"
            f"{_table(header, rows)}{''.join(f'<p class=small>{escape(note)}</p>' for note in notes)}</div>"
        )


def _write_all(inspection: Inspection, grading: Grading) -> str:
    unit = inspection.unit
    rows = [
        [
            escape(found.photograph.name),
            str(found.num_cracks),
            _length(found.length, unit),
            "–" if found.max_width is None else f"{found.max_width:.2f} {unit}",
            *([_swatch(found.severity, grading) if found.severity else "–"] if unit == "mm" else []),
            "yes" if found.warning else "",
        ]
        for found in inspection.findings
    ]
    header = ("photograph", "cracks", "length", "max. width", *(["class"] if unit == "mm" else []), "warning")
    return f"<h2 class='page'>All photographs</h2>{_table(header, rows)}" if rows else ""


def _write_left_out(inspection: Inspection) -> str:
    if not inspection.left_out:
        return "<h2>Left out</h2><p>No photograph was left out.</p>"
    rows = [[escape(file), escape(reason)] for file, reason in inspection.left_out]
    return f"<h2>Left out</h2>{_table(('photograph', 'reason'), rows, kind='text')}"


def _write_method(made: Circumstances) -> str:
    own = "the model's own" if made.own_threshold else "chosen by hand"
    facts = {
        "Photographs": made.source,
        "Model": f"{made.model} ({made.digest})",
        "Trained on": made.trained_on,
        "Threshold": f"{made.threshold:.4g} ({own})",
        "Surface": made.grading.surface + (", own width classes" if made.grading.own_classes else ""),
        "Direction": f"{made.grading.direction_deg:g} degrees from the picture's x axis counts as longitudinal",
    }
    if made.scale is not None:
        error = made.scale.relative_error
        facts["Scale"] = (
            f"{made.scale.mm_per_px:.4g} mm per pixel, the same for all photographs, standard uncertainty "
        )
        facts["Scale"] += f"{100 * error:.2g} %" if error else "not given (taken as 0)"
        facts["Uncertainties"] = (
            "standard uncertainties of measuring the mask: half a pixel for a width and for each end of a length, and "
            "the scale's; how well the model finds a crack's edges is not part of them"
        )
    limits = (
        "Cracks were found by a model, not by a person: it misses some and marks some that are none. It sees no "
        "spalling, faulting, filler, depth or cause. Finer cracks than about a pixel are found in part only."
    )
    return f"<h2>How this was made</h2>{_facts(facts)}<p class='small'>{limits}</p>"


def _total_cells(total: ClassTotal, unit: str) -> list[str]:
    return [f"{total.num_cracks:,}", _length(total.length, unit), f"{total.num_photographs:,}"]


def _length(value: float, unit: str) -> str:
    return f"{value / 1000:,.2f} m" if unit == "mm" and value >= 1000 else f"{value:,.0f} {unit}"


def _value(crack: Mapping[str, float], name: str, unit: str) -> str:
    text = f"{crack[f'{name}_{unit}']:,.{1 if name == 'length' else 2}f}"
    uncertainty = crack.get(f"{name}_uncertainty_{unit}")
    return text if uncertainty is None else f"{text} ± {uncertainty:.2f}"


def _swatch(name: str, grading: Grading, text: str = "") -> str:
    return f"<i class='class' style='background: rgb{grading.colour_of(name)}'></i>{escape(text or name)}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th>{title}</th>" for title in header)
    return f"<table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table class='facts text'>{rows}</table>"


def _embed(picture: Path) -> str:
    with Image.open(picture) as image:
        image.draft("RGB", (_PICTURE_PX, _PICTURE_PX))
        image.thumbnail((_PICTURE_PX, _PICTURE_PX))
        content = encode_lines(image, _QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
