"""The page's own pieces of HTML, and its style sheet. Whatever a user may have named is escaped."""

from __future__ import annotations

import html
from pathlib import Path

from crackseg.inference.drift import warn_of_unusual
from crackseg.serving.page.inspection import Inspection
from crackseg.serving.page.pictures import as_data_uri

STYLE_PATH = Path(__file__).with_name("page.css")
HEADER = "<h1>Crack inspection</h1><p>Photographs stay on this machine.</p>"
EMPTY = "<p class='empty'>Drop a photograph to see its cracks.</p>"
# Its value in per cent; the pictures take it from there, however often they are replaced.
SET_OPACITY = "(percent) => { document.documentElement.style.setProperty('--crack-opacity', percent / 100); }"


def write_notice(text: str, *, kind: str) -> str:
    """A box that stays on the page, ``kind`` error, warning or remark; nothing for an empty text. Lines stay lines."""
    if not text:
        return ""
    return f"<div class='says notice {kind}' role='alert'>{html.escape(text).replace(chr(10), '<br>')}</div>"


def write_status(step: str) -> str:
    """What is being done now."""
    return f"<p class='says'>{html.escape(step)}</p>" if step else ""


def write_no_production(name: str) -> str:
    """What to do when nothing is in production."""
    return write_notice(
        f"No version of {name} is in production. Choose one below to try it, or put one into production with "
        "`crackseg promote` and load this page again.",
        kind="warning",
    )


def write_notes(inspection: Inspection) -> str:
    """The warning that a photograph is unlike the model's own, and how it was read; nothing if there is neither."""
    remark = f"{inspection.name}: {inspection.remark}." if inspection.remark else ""
    return write_notice(warn_of_unusual(inspection.unusual), kind="warning") + write_notice(remark, kind="remark")


def show_photograph(inspection: Inspection) -> str:
    """The photograph, on which the cracks are laid."""
    name = html.escape(inspection.name, quote=True)
    return f"<img alt='{name}' src='{as_data_uri(inspection.view)}'>"


def show_cracks(content: bytes) -> str:
    """The cracks, a PNG file's content, to be laid on the photograph."""
    return f"<img alt='cracks found' src='{as_data_uri(content)}'>"


def show_heat(inspection: Inspection) -> str:
    """The probability map with its scale."""
    return (
        f"<img alt='crack probability' src='{as_data_uri(inspection.heat)}'>"
        "<div class='scale'><span>0</span><i></i><span>1</span></div>"
    )
