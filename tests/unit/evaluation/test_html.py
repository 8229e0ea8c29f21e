"""HTML pages of reports and model cards."""

from pathlib import Path

import numpy as np

from crackseg.data.images.files import write_png
from crackseg.evaluation.html import render_html


def test_the_page_holds_its_pictures_and_tables(tmp_path: Path) -> None:
    write_png(tmp_path / "pr.png", np.zeros((4, 4, 3), np.uint8))
    page = render_html("| a | b |\n|---|---|\n| 1 | 2 |\n\n![curve](pr.png)\n", title="x", folder=tmp_path)
    assert "<td>2</td>" in page
    assert 'src="data:image/png;base64,' in page


def test_html_in_names_stays_text(tmp_path: Path) -> None:
    page = render_html("# <script>alert(1)</script>", title="<b>", folder=tmp_path)
    assert "<script>alert" not in page
    assert "<title>&lt;b&gt;</title>" in page


def test_a_missing_picture_does_not_end_the_page(tmp_path: Path) -> None:
    assert 'src="gone.png"' in render_html("![x](gone.png)", title="x", folder=tmp_path)
