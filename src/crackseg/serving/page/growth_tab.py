"""Tab of the page that compares two photographs, of an earlier and a later visit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from crackseg.data.catalog import warn_of_source
from crackseg.errors import CracksegError
from crackseg.serving.page import html
from crackseg.serving.page.events import QUIET, Changes
from crackseg.serving.page.growth import FORMS, compare_uploads
from crackseg.serving.page.model_cache import ModelCache
from crackseg.serving.page.scale_points import read_scale
from crackseg.serving.page.session import Session


class GrowthTab:
    """Components of the tab; built inside ``gr.Blocks``.

    Args:
        cache: the models.
    """

    def __init__(self, cache: ModelCache) -> None:
        self.cache = cache
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self.before, self.after = (
                    gr.File(label=f"{word} photograph", type="filepath", height=120, elem_id=f"growth-{when}")
                    for word, when in (("Earlier", "before"), ("Later", "after"))
                )
                with gr.Row():
                    self.mm_per_px = gr.Textbox(
                        label="Millimetres per pixel", info="of the earlier photograph", min_width=130,
                        placeholder="empty: pixels", elem_id="growth-mm-per-px",
                    )  # fmt: skip
                    self.error_pct = gr.Textbox(
                        label="Uncertainty, %", info="of this scale", placeholder="not known", min_width=110,
                        elem_id="growth-error-pct",
                    )  # fmt: skip
                self.compare = gr.Button("Compare", variant="primary", interactive=False, elem_id="growth-compare")
            with gr.Column(scale=2, min_width=300):
                self.says = gr.HTML(html.EMPTY_GROWTH, elem_id="growth-says")
                self.picture = gr.HTML(elem_id="growth-picture")
                self.table = gr.HTML(elem_id="growth-table")
                with gr.Row(visible=False, elem_classes="downloads") as self.row:
                    self.downloads = {
                        name: gr.DownloadButton(label, size="sm", elem_id=f"growth-download-{name}")
                        for name, label in FORMS
                    }

    def connect(self, session: gr.State, version: gr.Dropdown) -> None:
        """Connect the events, inside the same ``gr.Blocks``."""
        shown = [self.says, self.picture, self.table, self.row, *self.downloads.values()]
        for upload in (self.before, self.after):
            upload.change(
                lambda before, after: gr.Button(interactive=bool(before and after)),
                [self.before, self.after],
                self.compare,
                **QUIET,
            )
        self.compare.click(
            self.run,
            [session, version, self.before, self.after, self.mm_per_px, self.error_pct],
            [self.compare, *shown],
            trigger_mode="once", concurrency_limit=1, concurrency_id="model", **QUIET,
        )  # fmt: skip

    def run(
        self,
        session: Session,
        version: str | None,
        before: str,
        after: str,
        mm_per_px: str,
        error_pct: str,
    ) -> Iterator[Changes]:
        """Compare the two photographs and show the result, or why they cannot be compared."""
        empty = {self.picture: "", self.table: "", self.row: gr.Row(visible=False)}
        said = html.write_status("Comparing the two photographs: each is predicted twice …")
        yield {self.compare: gr.Button(interactive=False), self.says: said} | empty
        try:
            if version is None:
                raise CracksegError("choose a version of the model: none is in production")
            scale = read_scale(mm_per_px, error_pct)
            model = self.cache.load(version)
            found = compare_uploads(Path(before), Path(after), model, scale, session.renew_folder("growth"))
        except CracksegError as error:
            yield {
                self.compare: gr.Button(interactive=True),
                self.says: html.write_notice(str(error), kind="error"),
            }
            return
        yield {
            self.compare: gr.Button(interactive=True),
            self.says: html.write_notice(warn_of_source(model.analyzer.settings.data_source), kind="warning")
            + found.summary,
            self.picture: html.show_growth(found.picture),
            self.table: found.table,
            self.row: gr.Row(visible=True),
        } | {self.downloads[name]: gr.DownloadButton(value=str(path)) for name, path in found.files.items()}
