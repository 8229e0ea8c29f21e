"""Layout of the page: header, model, and the tabs of photographs and of growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from crackseg.errors import CracksegError
from crackseg.geometry.severity import Grading
from crackseg.models.shipped import SHIPPED_NAME
from crackseg.serving.page import html
from crackseg.serving.page.growth_tab import GrowthTab
from crackseg.serving.page.model_cache import ModelCache
from crackseg.serving.page.photographs_tab import PhotographsTab
from crackseg.serving.page.session import Session

_DAY = 86_400  # seconds


def build_page(cache: ModelCache, folder: Path, grading: Grading) -> tuple[gr.Blocks, dict[str, Any]]:
    """Build the page.

    Args:
        cache: the versions of the model.
        folder: for maps and downloads; gradio's own, so that it serves them.
        grading: rules for kinds and width classes.
    Returns:
        The page, and the arguments for mounting it: style sheet and theme.
    """
    looks = {
        "css_paths": html.STYLE_PATH,
        "theme": gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
    }
    with gr.Blocks(
        title="Crack inspection", fill_width=True, analytics_enabled=False, delete_cache=(_DAY, _DAY)
    ) as blocks:
        session = gr.State(None, delete_callback=lambda session: session and session.close())
        with gr.Row(elem_id="head"):
            with gr.Column(scale=1, min_width=300):
                gr.HTML(html.HEADER)
            with gr.Column(scale=1, min_width=300):
                version = gr.Dropdown(label="Model", choices=[], filterable=False, elem_id="version")
        banner = gr.HTML(elem_classes="said")
        with gr.Tabs():
            with gr.Tab("Photographs"):
                photographs = PhotographsTab(grading)
            with gr.Tab("Growth"):
                growth = GrowthTab(cache)
        photographs.connect(session, version)
        growth.connect(session, version)

        def open_session() -> dict[Any, Any]:
            """Begin a session, and list the versions as they are now."""
            changes: dict[Any, Any] = {
                session: Session(cache, folder), photographs.files: gr.File(interactive=True),
            }  # fmt: skip
            try:
                offered = cache.list_choices()
            except CracksegError as error:
                return changes | {banner: html.write_notice(str(error), kind="error")}
            said = "" if offered.in_production else html.write_no_production()
            chosen = gr.Dropdown(choices=offered.choices, value=offered.in_production or SHIPPED_NAME)
            warning = html.write_notice(offered.warning, kind="warning")
            return changes | {version: chosen, banner: said, photographs.problems: warning}

        blocks.load(
            open_session,
            outputs=[session, photographs.files, version, banner, photographs.problems],
            show_progress="hidden",
            api_visibility="private",
        )
    blocks.queue(default_concurrency_limit=4)
    return blocks, looks
