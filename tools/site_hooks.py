"""What mkdocs does not do by itself for the documentation site; mkdocs.yml names this file under `hooks`.

Pages in docs/ are written to be read in the repository, too, so they link to files outside docs/. Here such links are
checked and lead to the page that stands for the file, or become plain text. README, CONTRIBUTING and CHANGELOG are
pages as they are; the references are made from the source.
"""

from __future__ import annotations

import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tools.reference_pages import commands_page, settings_page  # noqa: E402

log = logging.getLogger("mkdocs.hooks.crackseg")

# Pages that are files of the root; pages that are made, and of which source.
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
MADE_PAGES = {"reference/settings.md": settings_page, "reference/commands.md": commands_page}
SOURCE_PAGES = {
    "src/crackseg/params/sections.py": "reference/settings.md",
    "src/crackseg/cli": "reference/commands.md",
}

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/."""
    for name, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for page, make in MADE_PAGES.items():
        files.append(File.generated(config, page, content=make(ROOT)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to where their targets are on the site."""
    return markdown if page.file.src_uri in MADE_PAGES else rewrite_links(markdown, page.file.src_uri)


def rewrite_links(markdown: str, page: str) -> str:
    """Rewrite the links of a page, but for those in code blocks.

    Args:
        markdown: the page's text, with links as they are right in the repository.
        page: where it is on the site, e.g. ``index.md`` for README.md.
    Returns:
        The text with links between pages as they are right on the site, and links to other files of the
        repository replaced by their text. A link to a file that does not exist is logged as a warning.
    """
    sources = {site: source for source, site in ROOT_PAGES.items()}
    source = sources.get(page) or f"docs/{page}"

    def rewrite(match: re.Match[str]) -> str:
        target = urlsplit(match["target"])
        if target.scheme or not target.path:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target.path))
        if not (ROOT / path).exists():
            log.warning("%s: %s leads to %s, which does not exist", source, match[0], path)
            return match[0]
        place = _place_on_site(path)
        if place is None:
            return match["text"]
        relative = posixpath.relpath(place, posixpath.dirname(page) or ".")
        anchor = f"#{target.fragment}" if target.fragment else ""
        return f"{match['image']}[{match['text']}]({relative}{anchor})"

    return _outside_code(markdown, rewrite)


def _place_on_site(path: str) -> str | None:
    """Where a file or folder of the repository is on the site; None if it is not there."""
    if path.startswith("docs/"):
        inside = path.removeprefix("docs/")
        return f"{inside}/index.md" if (ROOT / path).is_dir() else inside
    return (ROOT_PAGES | SOURCE_PAGES).get(path)


def _outside_code(markdown: str, rewrite: Any) -> str:
    done, end = [], 0
    for fence in _FENCE.finditer(markdown):
        done += [_LINK.sub(rewrite, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*done, _LINK.sub(rewrite, markdown[end:])])
