"""Layout of the page and its event handlers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from crackseg.errors import CracksegError
from crackseg.geometry.severity import Grading
from crackseg.models.shipped import SHIPPED_NAME
from crackseg.serving.page import html
from crackseg.serving.page.findings import measure_findings, parse_scale
from crackseg.serving.page.inspection import THRESHOLD_STEP
from crackseg.serving.page.model_cache import ModelCache
from crackseg.serving.page.pictures import encode_cracks
from crackseg.serving.page.session import Session

_DAY = 86_400  # seconds
Changes = dict[Any, Any]  # by component


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
    return _Page(cache, folder, grading).blocks, looks


class _Page:
    def __init__(self, cache: ModelCache, folder: Path, grading: Grading) -> None:
        self.cache = cache
        self.folder = folder
        self.grading = grading
        with gr.Blocks(
            title="Crack inspection", fill_width=True, analytics_enabled=False, delete_cache=(_DAY, _DAY)
        ) as self.blocks:
            self.session = gr.State(None, delete_callback=lambda session: session and session.close())
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
        self.files = gr.File(  # interactive when the session has begun
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
        measured = [self.summary, self.table, self.cracks, *self.downloads]
        # Not the chosen photograph's name: gradio refuses one that a running inspection has removed from the list.
        place = [self.session, self.threshold]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.blocks.load(
            self.open, outputs=[self.session, self.files, self.version, self.banner, self.problems], **quiet
        )
        for event in (self.files.change, self.version.input):
            event(
                self.inspect,
                [self.session, self.files, self.version],
                [
                    self.status, self.problems, self.results, self.empty, self.photograph, *shown,
                    *self.downloads,
                ],
                trigger_mode="always_last", concurrency_limit=1, concurrency_id="model", **quiet,
            ).then(self.measure, [*place, self.mm_per_px], measured, **quiet)  # fmt: skip
        self.photograph.input(
            self.choose,
            [self.session, self.photograph, self.threshold],
            shown,
            trigger_mode="always_last",
            **quiet,
        ).then(self.measure, [*place, self.mm_per_px], measured, **quiet)
        self.own_threshold.click(self.reset_threshold, self.session, self.threshold, **quiet).then(
            self.answer, place, self.cracks, **quiet
        ).then(self.measure, [*place, self.mm_per_px], measured, **quiet)
        # Two listeners: the picture follows the slider at once, the table follows when it is measured.
        self.threshold.input(self.answer, place, self.cracks, trigger_mode="always_last", **quiet)
        for event in (
            self.threshold.input,
            self.mm_per_px.change,
        ):  # gradio sees no input event when text is pasted
            event(self.measure, [*place, self.mm_per_px], measured, trigger_mode="always_last", **quiet)
        self.opacity.change(None, self.opacity, js=html.SET_OPACITY)

    def open(self) -> Changes:
        """Begin a session, and list the versions as they are now."""
        changes: Changes = {self.session: Session(self.cache, self.folder), self.files: gr.File(interactive=True)}
        try:
            offered = self.cache.list_choices()
        except CracksegError as error:
            return changes | {self.banner: html.write_notice(str(error), kind="error")}
        banner = "" if offered.in_production else html.write_no_production()
        chosen = gr.Dropdown(choices=offered.choices, value=offered.in_production or SHIPPED_NAME)
        warning = html.write_notice(offered.warning, kind="warning")
        return changes | {self.version: chosen, self.banner: banner, self.problems: warning}

    def inspect(self, session: Session, paths: list[str] | None, version: str | None) -> Iterator[Changes]:
        """Inspect photographs after the list or the version has changed; show the first as soon as it is ready."""
        yield {button: gr.DownloadButton(interactive=False) for button in self.downloads}
        for step in session.inspect(paths or [], version):
            changes: Changes = {self.status: html.write_status(step)}
            if session.inspections and not session.shown:
                session.shown = next(iter(session.inspections))
                own = self.reset_threshold(session)
                changes |= self.show(session, own) | {self.threshold: own}
            yield changes | self._list_photographs(session)
        yield self._list_photographs(session) | {self.status: ""}

    def _list_photographs(self, session: Session) -> Changes:
        names = list(session.inspections)
        notices = [html.write_notice(problem, kind="error") for problem in session.problems]
        notices += [html.write_notice(said, kind="warning") for said in (*session.warnings, session.drift)]
        return {
            self.problems: "".join(notices),
            self.photograph: gr.Dropdown(choices=names, value=session.shown or None, visible=len(names) > 1),
            self.results: gr.Column(visible=bool(names)),
            self.empty: gr.HTML(visible=not names),
        }

    def choose(self, session: Session, name: str, threshold: float) -> Changes:
        """Show another photograph, at the slider's threshold."""
        session.shown = name
        return self.show(session, threshold)

    def show(self, session: Session, threshold: float) -> Changes:
        """Show the chosen photograph and its cracks."""
        inspection = session.current
        if inspection is None:  # removed meanwhile
            return {self.unusual: ""}
        return {
            self.base: html.show_photograph(inspection),
            self.heat: html.show_heat(inspection),
            self.unusual: html.write_notes(inspection),
            self.cracks: self.answer(session, threshold),
        }

    def answer(self, session: Session, threshold: float) -> str:
        """Show the cracks at another threshold, from the stored map."""
        inspection = session.current
        if inspection is None:
            return ""
        mask_HW = inspection.find_cracks(inspection.exact_threshold(threshold))
        return html.show_cracks(encode_cracks(mask_HW))

    def reset_threshold(self, session: Session) -> Any:
        """Return the model's own threshold, for the slider."""
        return gr.skip() if session.current is None else round(session.current.operating_threshold, 3)

    def measure(self, session: Session, threshold: float, mm_per_px: str) -> Iterator[Changes]:
        """Update the table and the downloads; downloads are disabled while they are out of date."""
        yield {button: gr.DownloadButton(interactive=False) for button in self.downloads}
        inspection = session.current
        if inspection is None:
            return
        measurement = session.begin_measurement()
        try:
            scale = parse_scale(mm_per_px)
            findings = measure_findings(
                inspection, inspection.exact_threshold(threshold), scale, measurement.folder, self.grading
            )
        except CracksegError as error:
            yield {self.summary: "", self.table: html.write_notice(str(error), kind="error")}
            return
        if session.is_outdated(measurement):
            return
        yield {
            self.summary: findings.summary,
            self.table: findings.table,
            self.cracks: html.show_cracks(findings.cracks),
            **{
                button: gr.DownloadButton(value=str(path), interactive=True)
                for button, path in zip(self.downloads, findings.files, strict=True)
            },
        }
