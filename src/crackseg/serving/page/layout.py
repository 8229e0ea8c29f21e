"""The page: what stands where, and what happens when somebody drops, chooses or moves something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from crackseg.errors import CracksegError
from crackseg.serving.page import html
from crackseg.serving.page.findings import measure_findings, parse_scale
from crackseg.serving.page.inspection import THRESHOLD_STEP
from crackseg.serving.page.model_cache import ModelShelf
from crackseg.serving.page.pictures import encode_cracks
from crackseg.serving.page.session import Desk

_DAY = 86_400  # seconds
Changes = dict[Any, Any]  # by component


def build_page(shelf: ModelShelf, folder: Path) -> tuple[gr.Blocks, dict[str, Any]]:
    """Build the page.

    Args:
        shelf: the versions that it offers.
        folder: for maps and downloads; gradio's own, so that it serves them.
    Returns:
        The page, and the arguments with which it is mounted so that it looks as it should.
    """
    looks = {
        "css_paths": html.STYLE_PATH,
        "theme": gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
    }
    return _Page(shelf, folder).blocks, looks


class _Page:
    def __init__(self, shelf: ModelShelf, folder: Path) -> None:
        self.shelf = shelf
        self.folder = folder
        with gr.Blocks(
            title="Crack inspection", fill_width=True, analytics_enabled=False, delete_cache=(_DAY, _DAY)
        ) as self.blocks:
            self.desk = gr.State(None, delete_callback=lambda desk: desk and desk.close())
            gr.HTML(html.HEADER)
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self._lay_out_input()
                with gr.Column(scale=2, min_width=300):
                    self._lay_out_results()
        with self.blocks:
            self._connect()
        self.blocks.queue(default_concurrency_limit=4)

    def _lay_out_input(self) -> None:
        self.banner = gr.HTML(elem_classes="said")
        self.files = gr.File(  # interactive when the visit has begun
            label="Photographs",
            file_count="multiple",
            type="filepath",
            height=180,
            interactive=False,
            elem_id="files",
        )
        self.version = gr.Dropdown(label="Model", choices=[], filterable=False, elem_id="version")
        self.status = gr.HTML(elem_id="status", elem_classes="said")
        self.problems = gr.HTML(elem_id="problems", elem_classes="said")

    def _lay_out_results(self) -> None:
        self.empty = gr.HTML(html.EMPTY)
        with gr.Column(visible=False) as self.results:
            self.photograph = gr.Dropdown(label="Photograph", choices=[], filterable=False, elem_id="photograph")
            self.unusual = gr.HTML(elem_id="unusual", elem_classes="said")
            with gr.Tabs():
                with gr.Tab("Cracks"), gr.Column(elem_id="picture"):
                    self.base = gr.HTML(elem_id="base")
                    self.cracks = gr.HTML(elem_id="cracks")
                with gr.Tab("Probability"):
                    self.heat = gr.HTML(elem_id="heat")
            with gr.Row():
                with gr.Column(min_width=280):
                    self.threshold = gr.Slider(
                        0, 1, 0.5, step=THRESHOLD_STEP, label="Threshold", buttons=[], elem_id="threshold",
                        info="Crack is where the probability is at least this.",
                    )  # fmt: skip
                    self.own_threshold = gr.Button("The model's own threshold", size="sm")
                with gr.Column(min_width=280):
                    self.opacity = gr.Slider(
                        0, 100, 70, step=1, label="Opacity of the cracks, %", buttons=[], elem_id="opacity"
                    )
                    self.mm_per_px = gr.Textbox(
                        label="Millimetres per pixel", placeholder="empty: lengths in pixels", elem_id="mm-per-px"
                    )
            self.summary = gr.HTML(elem_id="summary", elem_classes="said")
            self.table = gr.HTML(elem_id="table")
            with gr.Row():
                self.downloads = [
                    gr.DownloadButton(
                        label, size="sm", min_width=90, elem_id=f"download-{name}", interactive=False
                    )
                    for name, label in (("mask", "Mask"), ("csv", "Table (CSV)"), ("picture", "Annotated picture"))
                ]

    def _connect(self) -> None:
        shown = [self.base, self.cracks, self.heat, self.unusual, self.summary, self.threshold]
        measured = [self.summary, self.table, *self.downloads]
        # Not the chosen photograph's name: gradio refuses one that an inspection under way has taken off the list.
        place = [self.desk, self.threshold]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.blocks.load(
            self.open, outputs=[self.desk, self.files, self.version, self.banner, self.problems], **quiet
        )
        for event in (self.files.change, self.version.input):
            event(
                self.inspect,
                [self.desk, self.files, self.version],
                [
                    self.status, self.problems, self.results, self.empty, self.photograph, *shown,
                    *self.downloads,
                ],
                trigger_mode="always_last", concurrency_limit=1, concurrency_id="model", **quiet,
            ).then(self.measure, [*place, self.mm_per_px], measured, **quiet)  # fmt: skip
        self.photograph.input(
            self.choose, [self.desk, self.photograph, self.threshold], shown, trigger_mode="always_last", **quiet
        ).then(self.measure, [*place, self.mm_per_px], measured, **quiet)
        self.own_threshold.click(self.reset_threshold, self.desk, self.threshold, **quiet).then(
            self.answer, place, self.cracks, **quiet
        ).then(self.measure, [*place, self.mm_per_px], measured, **quiet)
        # Two listeners: the picture follows the hand, the table comes when it is measured.
        self.threshold.input(self.answer, place, self.cracks, trigger_mode="always_last", **quiet)
        for event in (self.threshold.input, self.mm_per_px.change):  # what is pasted is no input to gradio
            event(self.measure, [*place, self.mm_per_px], measured, trigger_mode="always_last", **quiet)
        self.opacity.change(None, self.opacity, js=html.SET_OPACITY)

    def open(self) -> Changes:
        """A visit begins: an empty desk, and the versions as they are now."""
        changes: Changes = {self.desk: Desk(self.shelf, self.folder), self.files: gr.File(interactive=True)}
        try:
            offer = self.shelf.list_offer()
        except CracksegError as error:
            return changes | {self.banner: html.write_notice(str(error), kind="error")}
        banner = "" if offer.in_production else html.write_no_production(self.shelf.name)
        chosen = gr.Dropdown(choices=offer.choices, value=offer.in_production)
        warning = html.write_notice(offer.warning, kind="warning")
        return changes | {self.version: chosen, self.banner: banner, self.problems: warning}

    def inspect(self, desk: Desk, paths: list[str] | None, version: str | None) -> Iterator[Changes]:
        """Photographs came or went, or another version was chosen. The first one is shown as soon as it is there."""
        yield {button: gr.DownloadButton(interactive=False) for button in self.downloads}
        for step in desk.inspect(paths or [], version):
            changes: Changes = {self.status: html.write_status(step)}
            if desk.inspections and not desk.shown:
                desk.shown = next(iter(desk.inspections))
                own = self.reset_threshold(desk)
                changes |= self.show(desk, own) | {self.threshold: own}
            yield changes | self._list_photographs(desk)
        yield self._list_photographs(desk) | {self.status: ""}

    def _list_photographs(self, desk: Desk) -> Changes:
        names = list(desk.inspections)
        notices = [html.write_notice(problem, kind="error") for problem in desk.problems]
        notices += [html.write_notice(said, kind="warning") for said in (*desk.warnings, desk.drift)]
        return {
            self.problems: "".join(notices),
            self.photograph: gr.Dropdown(choices=names, value=desk.shown or None, visible=len(names) > 1),
            self.results: gr.Column(visible=bool(names)),
            self.empty: gr.HTML(visible=not names),
        }

    def choose(self, desk: Desk, name: str, threshold: float) -> Changes:
        """Another photograph, at the threshold that the slider stands at."""
        desk.shown = name
        return self.show(desk, threshold)

    def show(self, desk: Desk, threshold: float) -> Changes:
        """The photograph that was chosen, and its cracks."""
        inspection = desk.current
        if inspection is None:  # taken away meanwhile
            return {self.unusual: ""}
        return {
            self.base: html.show_photograph(inspection),
            self.heat: html.show_heat(inspection),
            self.unusual: html.write_notes(inspection),
            self.cracks: self.answer(desk, threshold),
        }

    def answer(self, desk: Desk, threshold: float) -> str:
        """The cracks at another threshold, from the kept map."""
        inspection = desk.current
        if inspection is None:
            return ""
        mask_HW = inspection.find_cracks(inspection.exact_threshold(threshold))
        return html.show_cracks(encode_cracks(mask_HW))

    def reset_threshold(self, desk: Desk) -> Any:
        """Back to the model's own threshold."""
        return gr.skip() if desk.current is None else round(desk.current.operating_threshold, 3)

    def measure(self, desk: Desk, threshold: float, mm_per_px: str) -> Iterator[Changes]:
        """The table and the downloads; there are none while they are not of what is seen."""
        yield {button: gr.DownloadButton(interactive=False) for button in self.downloads}
        inspection = desk.current
        if inspection is None:
            return
        turn = desk.begin_turn()
        try:
            scale = parse_scale(mm_per_px)
            findings = measure_findings(inspection, inspection.exact_threshold(threshold), scale, turn.folder)
        except CracksegError as error:
            yield {self.summary: "", self.table: html.write_notice(str(error), kind="error")}
            return
        if desk.is_overtaken(turn):
            return
        yield {
            self.summary: findings.summary,
            self.table: findings.table,
            **{
                button: gr.DownloadButton(value=str(path), interactive=True)
                for button, path in zip(self.downloads, findings.files, strict=True)
            },
        }
