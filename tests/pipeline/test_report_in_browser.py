"""The report fits on a phone and prints as whole pages, in an installed Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from tools.screenshots import open_page

from crackseg.cli import cli
from crackseg.data.images.files import write_png
from crackseg.data.synthetic.scenes import render_scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_report_fits_on_a_phone_and_prints(tmp_path: Path) -> None:
    for number in range(2):
        image = render_scene("CrackTree260", number, size=(320, 240)).image
        write_png(tmp_path / "bridge" / f"a long name of a photograph of a pier {number}.png", image)
    (tmp_path / "bridge" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    arguments = ["inspection-report", tmp_path / "bridge", "--out", tmp_path / "out", "--mm-per-px", 0.3]
    result = CliRunner().invoke(cli, [*map(str, arguments), "--model", "scenes"])
    assert result.exit_code == 3, result.output
    with open_page() as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.goto((tmp_path / "out" / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        printed = page.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF")
    assert 2 <= int(re.findall(rb"/Count (\d+)", printed)[0]) <= 6
