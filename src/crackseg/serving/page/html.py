"""HTML fragments of the page, and its style sheet; names from users are escaped."""

from __future__ import annotations

import html
from pathlib import Path

from crackseg.inference.drift import warn_of_unusual
from crackseg.serving.page.inspection import Inspection
from crackseg.serving.page.pictures import as_data_uri

STYLE_PATH = Path(__file__).with_name("page.css")
HEADER = "<h1>Crack inspection</h1><p>Photographs stay on this machine.</p>"
EMPTY = "<p class='empty'>Drop a photograph to see its cracks.</p>"
# In per cent; a CSS variable, so that it stays when the pictures are replaced.
SET_OPACITY = "(percent) => { document.documentElement.style.setProperty('--crack-opacity', percent / 100); }"


def write_notice(text: str, *, kind: str) -> str:
    """Write a box of ``kind`` error, warning or remark; "" for an empty text. Line breaks are kept."""
    if not text:
        return ""
    return f"<div class='says notice {kind}' role='alert'>{html.escape(text).replace(chr(10), '<br>')}</div>"


def write_status(step: str) -> str:
    """Write the current step."""
    return f"<p class='says'>{html.escape(step)}</p>" if step else ""


def write_no_production() -> str:
    """Write a notice that no version is in production, and what to do."""
    return write_notice(
        "No version is in production: the model that crackseg ships is chosen, which was trained on drawn scenes "
        "alone. Choose another below, or put one into production with `crackseg promote` and load this page again.",
        kind="warning",
    )


def write_notes(inspection: Inspection) -> str:
    """Write the warning that a photograph is unlike the training ones, and how it was read; "" if there is neither."""
    remark = f"{inspection.name}: {inspection.remark}." if inspection.remark else ""
    return write_notice(warn_of_unusual(inspection.unusual), kind="warning") + write_notice(remark, kind="remark")


def show_photograph(inspection: Inspection) -> str:
    """Show the photograph, on which the cracks are laid."""
    name = html.escape(inspection.name, quote=True)
    return f"<img alt='{name}' src='{as_data_uri(inspection.view)}'>"


def show_cracks(content: bytes) -> str:
    """Show the cracks, the content of a PNG file, on the photograph."""
    return f"<img alt='cracks found' src='{as_data_uri(content)}'>"


def show_heat(inspection: Inspection) -> str:
    """Show the probability map with its scale."""
    return (
        f"<img alt='crack probability' src='{as_data_uri(inspection.heat)}'>"
        "<div class='scale'><span>0</span><i></i><span>1</span></div>"
    )
