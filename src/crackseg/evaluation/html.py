"""HTML pages from Markdown, with their pictures inside: MLflow shows Markdown artifacts as plain text."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

_STYLE = """
body { font-family: system-ui, sans-serif; line-height: 1.5; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ccc; padding: 0.25rem 0.75rem; text-align: left; }
img { max-width: 100%; height: auto; }
code { background: #f3f3f3; padding: 0 0.2rem; }
"""


def render_html(markdown: str, *, title: str, folder: Path | None = None) -> str:
    """Render a Markdown page as one HTML file.

    Args:
        markdown: CommonMark with tables; HTML in it is shown as text.
        title: of the page.
        folder: of the pictures; they become part of the file, and one that is not there stays a link.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in (child for block in tokens for child in block.children or []):
        path = (folder or Path()) / str(token.attrs.get("src", ""))
        if token.type == "image" and folder is not None and path.suffix == ".png" and path.is_file():
            token.attrs["src"] = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}</body>\n</html>\n"
    )
