"""The documentation site builds, has every page, and fetches nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crackseg.cli import cli
from crackseg.params import Params
from tests.docs.pages import ROOT, list_pages, nav_pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr  # --strict: a dead link or anchor is an error
    return folder


def test_every_page_is_in_the_nav() -> None:
    pages = {page.removeprefix("docs/") for page in list_pages() if page.startswith("docs/")}
    assert pages - set(nav_pages()) == set()


def test_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', page.read_text(encoding="utf-8"))
        loaded += re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.read_text(encoding="utf-8"))
        assert [address for address in loaded if "//" in address] == [], page


def test_settings_page_has_every_key_of_params(site: Path) -> None:
    text = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    keys = [
        f"{section}.{key}"
        for section, field in Params.model_fields.items()
        for key in field.annotation.model_fields
    ]
    assert [key for key in keys if f"<code>{key}</code>" not in text] == []


def test_commands_page_has_every_command(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert [name for name in cli.commands if f">crackseg {name}<" not in text] == []


def test_readme_is_the_first_page_with_its_links_turned(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="your-own-photographs.html"' in text
    assert 'href="reference/settings.html"' in text or 'href="contributing.html"' in text


def test_every_link_to_elsewhere_is_well_formed() -> None:
    for page in list_pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        for address in re.findall(r"\]\((https?:[^)\s]*)\)", text):
            assert re.fullmatch(r"https?://[\w-]+(\.[\w-]+)+(/[^\s<>\"]*)?", address), f"{page}: {address}"


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size >= 200_000] == []
