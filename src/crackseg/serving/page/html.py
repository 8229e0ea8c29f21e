"""HTML fragments of the page, and its style sheet; names from users are escaped."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from crackseg.inference.drift import warn_of_unusual
from crackseg.serving.page.inspection import Inspection
from crackseg.serving.page.pictures import as_data_uri
from crackseg.serving.page.scale_points import Point

STYLE_PATH = Path(__file__).with_name("page.css")
HEADER = "<h1>Crack inspection</h1><p>Photographs stay on this machine.</p>"
EMPTY_GROWTH = "<p class='empty'>Drop two photographs of one place, and press Compare.</p>"
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
        "alone. Choose another above, or put one into production with `crackseg promote` and load this page again.",
        kind="warning",
    )


def write_notes(inspection: Inspection) -> str:
    """Write the warning that a photograph is unlike the training ones, and how it was read; "" if there is neither."""
    remark = f"{inspection.name}: {inspection.remark}." if inspection.remark else ""
    return write_notice(warn_of_unusual(inspection.unusual), kind="warning") + write_notice(remark, kind="remark")


def show_photograph(inspection: Inspection) -> str:
    """Show the photograph, on which the cracks are laid."""
    name = html.escape(inspection.name, quote=True)
    return f"<img alt='{name}' src='{as_data_uri(inspection.view_path.read_bytes())}'>"


def show_cracks(content: bytes) -> str:
    """Show the cracks, the content of a PNG file, on the photograph."""
    return f"<img alt='cracks found' src='{as_data_uri(content)}'>"


def show_points(inspection: Inspection, points: Sequence[Point]) -> str:
    """Show the points that were clicked; the SVG covers the photograph and has its pixels as coordinates."""
    width, height = inspection.size_px
    dots = "".join(
        f"<path class='{kind}' d='M{point.x:.2f} {point.y:.2f}h0'/>" for point in points for kind in ("rim", "dot")
    )
    line = ""
    if len(points) == 2:
        one, other = points
        d = f"M{one.x:.2f} {one.y:.2f}L{other.x:.2f} {other.y:.2f}"
        line = f"<path class='rim line' d='{d}'/><path class='dot line' d='{d}'/>"
    return f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='points of the scale'>{line}{dots}</svg>"


def show_growth(picture: bytes) -> str:
    """Show the picture of a comparison, the content of a JPEG file; narrow screens show its halves one by one.

    Both photographs stand next to each other in it, each with half of the width. It is sent once.
    """
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size
    half = f"class='half' role='img' viewBox='{{:g}} 0 {width / 2:g} {height}'"
    return (
        f"<svg {half.format(0)} aria-label='earlier photograph, with what has changed'>"
        f"<image id='both-visits' href='{as_data_uri(picture)}' width='{width}' height='{height}'/></svg>"
        f"<svg {half.format(width / 2)} aria-label='later photograph, with what has changed'>"
        "<use href='#both-visits'/></svg>"
    )


def show_heat(inspection: Inspection) -> str:
    """Show the probability map with its scale."""
    return (
        f"<img alt='crack probability' src='{as_data_uri(inspection.heat_path.read_bytes())}'>"
        "<div class='scale'><span>0</span><i></i><span>1</span></div>"
    )
