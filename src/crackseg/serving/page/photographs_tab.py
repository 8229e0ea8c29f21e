"""Tab of the page that shows the cracks of dropped photographs; its layout and event handlers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from crackseg.errors import CracksegError, count_of
from crackseg.geometry.severity import Grading
from crackseg.serving.page import html, scale_points
from crackseg.serving.page.events import QUIET, Changes
from crackseg.serving.page.findings import FORMS, measure_findings, pack_all, write_forms
from crackseg.serving.page.inspection import THRESHOLD_STEP
from crackseg.serving.page.pictures import encode_cracks
from crackseg.serving.page.session import Session


class PhotographsTab:
    """Components of the tab; built inside ``gr.Blocks``.

    Args:
        grading: rules for kinds and width classes.
    """

    def __init__(self, grading: Grading) -> None:
        self.grading = grading
        with gr.Row(elem_id="work"):
            with gr.Column(scale=1, min_width=300):
                self.files = gr.File(  # interactive when the session has begun
                    label="Photographs", file_count="multiple", type="filepath", height=150, interactive=False,
                    elem_id="files",
                )  # fmt: skip
                self.status = gr.HTML(elem_id="status", elem_classes="said")
                self.problems = gr.HTML(elem_id="problems", elem_classes="said")
                with gr.Column(visible=False, elem_id="controls") as self.controls:
                    self._lay_out_controls()
            with gr.Column(scale=2, min_width=300):
                self.empty = gr.HTML(html.EMPTY)
                with gr.Column(visible=False) as self.results:
                    self._lay_out_results()

    def _lay_out_controls(self) -> None:
        self.threshold = gr.Slider(
            0, 1, 0.5, step=THRESHOLD_STEP, label="Threshold", buttons=[], elem_id="threshold",
            info="Crack is where the probability is at least this.",
        )  # fmt: skip
        self.own_threshold = gr.Button("The model's own threshold", size="sm")
        with gr.Group(elem_id="scale"):
            with gr.Row():
                self.mm_per_px = gr.Textbox(
                    label="Millimetres per pixel", placeholder="empty: pixels", min_width=130, elem_id="mm-per-px",
                    info="of all photographs",
                )  # fmt: skip
                self.error_pct = gr.Textbox(
                    label="Uncertainty, %", placeholder="not known", min_width=110, elem_id="error-pct",
                    info="of this scale",
                )  # fmt: skip
            self.distance = gr.Textbox(
                label="Or click two points, and type their distance in mm", placeholder="e.g. 100",
                elem_id="distance", info="The ends of a ruler, for example.",
            )  # fmt: skip
            self.points_say = gr.HTML(elem_id="points-say", elem_classes="said")
        self.opacity = gr.Slider(
            0, 100, 100, step=1, label="Opacity of the cracks, %", buttons=[], elem_id="opacity",
            info="100 has the colours of the legend.",
        )  # fmt: skip

    def _lay_out_results(self) -> None:
        with gr.Column(elem_id="seen"):
            self.photograph = gr.Dropdown(label="Photograph", choices=[], filterable=False, elem_id="photograph")
            self.unusual = gr.HTML(elem_id="unusual", elem_classes="said")
            with gr.Tabs():
                with gr.Tab("Cracks"), gr.Column(elem_id="picture"):
                    self.base = gr.HTML(elem_id="base")
                    self.cracks = gr.HTML(elem_id="cracks")
                    self.points = gr.HTML(elem_id="points", js_on_load=scale_points.ON_CLICK)
                with gr.Tab("Probability"):
                    self.heat = gr.HTML(elem_id="heat")
            self.summary = gr.HTML(elem_id="summary", elem_classes="said")
        with gr.Column(elem_id="measured"):
            self.table = gr.HTML(elem_id="table")
            with gr.Row(elem_classes="downloads"):
                self.downloads = {
                    name: gr.DownloadButton(form.label, size="sm", elem_id=f"download-{name}", interactive=False)
                    for name, form in FORMS.items()
                }
                self.pack = gr.Button("All photographs (ZIP)", size="sm", elem_id="pack")
            self.packed = gr.DownloadButton("Download", size="sm", visible=False, elem_id="download-all")

    def connect(self, session: gr.State, version: gr.Dropdown) -> None:
        """Connect the events, inside the same ``gr.Blocks``."""
        self.session = session
        shown = [self.base, self.cracks, self.heat, self.unusual, self.summary, self.threshold, self.points]
        pointed = [self.points, self.points_say, self.distance]
        buttons = [*self.downloads.values(), self.packed]
        # Not the chosen photograph's name: gradio refuses one that a running inspection has removed from the list.
        place = [session, self.threshold]
        asked = [*place, self.mm_per_px, self.error_pct]
        measured = [self.summary, self.table, self.cracks, *buttons]

        def then_measure(event: Any, **options: Any) -> None:
            """Update the table after an event, and then the downloads."""
            # "multiple": none is dropped while an earlier one writes; that one sees that it is outdated.
            event(self.measure, asked, measured, **options, **QUIET).then(
                self.write, session, buttons, trigger_mode="multiple", **QUIET
            )

        for event in (self.files.change, version.input):
            inspected = event(
                self.inspect,
                [session, self.files, version],
                [
                    self.status, self.problems, self.results, self.controls, self.empty, self.photograph,
                    *shown, *buttons, self.points_say, self.distance,
                ],
                trigger_mode="always_last", concurrency_limit=1, concurrency_id="model", **QUIET,
            )  # fmt: skip
            then_measure(inspected.then)
        chosen = self.photograph.input(
            self.choose,
            [session, self.photograph, self.threshold],
            [*shown, *buttons, self.points_say, self.distance],
            trigger_mode="always_last",
            **QUIET,
        )
        then_measure(chosen.then)
        reset = self.own_threshold.click(self.reset_threshold, session, self.threshold, **QUIET)
        then_measure(reset.then(self.answer, place, self.cracks, **QUIET).then)
        # Two listeners: the picture follows the slider at once, the table follows when it is measured.
        self.threshold.input(self.answer, place, self.cracks, trigger_mode="always_last", **QUIET)
        # gradio sees no input event when text is pasted
        for event in (self.threshold.input, self.mm_per_px.change, self.error_pct.change):
            then_measure(event, trigger_mode="always_last")
        self.mm_per_px.change(self.forget_points, [session, self.mm_per_px], [*pointed, self.error_pct], **QUIET)
        scaled = [self.points, self.points_say, self.mm_per_px, self.error_pct]
        self.points.click(self.click, [session, self.distance], scaled, **QUIET)
        self.distance.change(
            self.use_points, [session, self.distance], scaled, trigger_mode="always_last", **QUIET
        )
        self.opacity.change(None, self.opacity, js=html.SET_OPACITY)
        self.pack.click(
            self.pack_photographs, asked, [self.pack, self.packed, self.status], trigger_mode="once", **QUIET
        )

    def inspect(self, session: Session, paths: list[str] | None, version: str | None) -> Iterator[Changes]:
        """Inspect photographs after the list or the version has changed; show the first as soon as it is ready."""
        session.begin_measurement()  # files that are still being written are of what is shown no longer
        yield self._disable_downloads()
        listed = 0
        for step in session.inspect(paths or [], version):
            changes: Changes = {self.status: html.write_status(step)}
            if session.inspections and not session.shown:
                session.shown = next(iter(session.inspections))
                own = self.reset_threshold(session)
                changes |= self.show(session, own) | {self.threshold: own}
            # Each list is sent whole. One for each photograph would be 50 million names for 10,000 photographs.
            if (done := len(session.inspections) + len(session.problems)) >= 1.1 * listed:
                listed = done
                changes |= self._list_photographs(session)
            yield changes
        yield self._list_photographs(session) | {self.status: ""}

    def _disable_downloads(self) -> Changes:
        disabled: Changes = {button: gr.DownloadButton(interactive=False) for button in self.downloads.values()}
        return disabled | {self.packed: gr.DownloadButton(visible=False)}

    def _list_photographs(self, session: Session) -> Changes:
        names = list(session.inspections)
        notices = [html.write_notice(problem, kind="error") for problem in session.problems]
        notices += [html.write_notice(said, kind="warning") for said in (*session.warnings, session.drift)]
        return {
            self.problems: "".join(notices),
            self.photograph: gr.Dropdown(choices=names, value=session.shown or None, visible=len(names) > 1),
            self.results: gr.Column(visible=bool(names)),
            self.controls: gr.Column(visible=bool(names)),
            self.empty: gr.HTML(visible=not names),
        }

    def choose(self, session: Session, name: str, threshold: float) -> Changes:
        """Show another photograph, at the slider's threshold."""
        session.shown = name
        session.begin_measurement()
        return self._disable_downloads() | self.show(session, threshold)

    def show(self, session: Session, threshold: float) -> Changes:
        """Show the chosen photograph and its cracks; points that were clicked on another one are forgotten."""
        inspection = session.current
        if inspection is None:  # removed meanwhile
            return {self.unusual: ""}
        session.points = ()
        return {
            self.base: html.show_photograph(inspection),
            self.heat: html.show_heat(inspection),
            self.unusual: html.write_notes(inspection),
            self.cracks: self.answer(session, threshold),
            self.points: html.show_points(inspection, ()),
            self.points_say: "",
            self.distance: "",
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

    def click(self, session: Session, distance: str, event: gr.EventData) -> Changes:
        """Take a point for the scale."""
        inspection = session.current
        if inspection is None:
            return {self.points: ""}
        width, height = inspection.size_px
        if not (0 <= event.x <= width and 0 <= event.y <= height):  # beside the photograph
            return {self.points: gr.skip()}
        point = scale_points.make_point(event.x, event.y, event.screen_px, touch=event.touch)
        session.points = scale_points.add_point(session.points, point)
        return {self.points: html.show_points(inspection, session.points)} | self.use_points(session, distance)

    def use_points(self, session: Session, distance: str) -> Changes:
        """Say what the points mean, and write the scale into its fields as soon as it is known."""
        try:
            scale, said = scale_points.read_clicks(session.points, distance)
        except CracksegError as error:
            return {self.points_say: html.write_notice(str(error), kind="error")}
        if scale is None:
            return {self.points_say: html.write_status(said)}
        session.scale_text = f"{scale.mm_per_px:.6g}"
        error_pct = f"{100 * scale.relative_error:.3g}"
        return {
            self.points_say: html.write_status(said),
            self.mm_per_px: session.scale_text,
            self.error_pct: error_pct,
        }

    def forget_points(self, session: Session, mm_per_px: str) -> Changes:
        """Forget the points and their uncertainty if the scale is not theirs any more."""
        if session.scale_text in ("", mm_per_px):
            return {self.points: gr.skip()}
        session.points, session.scale_text = (), ""
        marks = html.show_points(session.current, ()) if session.current else ""
        return {self.points: marks, self.points_say: "", self.distance: "", self.error_pct: ""}

    def measure(self, session: Session, threshold: float, mm_per_px: str, error_pct: str) -> Iterator[Changes]:
        """Update the table; downloads are disabled until they are written again."""
        measurement = session.begin_measurement()
        yield self._disable_downloads()
        inspection = session.current
        if inspection is None:
            return
        try:
            scale = scale_points.read_scale(mm_per_px, error_pct)
            exact = inspection.exact_threshold(threshold)
            findings = measure_findings(inspection, exact, scale, self.grading)
        except CracksegError as error:
            yield {self.summary: "", self.table: html.write_notice(str(error), kind="error")}
            return
        except FileNotFoundError:  # removed from the list meanwhile, with its files
            return
        if session.is_outdated(measurement):
            return
        session.unwritten = measurement, findings
        yield {
            self.summary: findings.summarize(),
            self.table: findings.show_table(),
            self.cracks: html.show_cracks(findings.draw_cracks()),
        }

    def write(self, session: Session) -> Changes:
        """Write the downloads of the last measurement, unless another one has begun."""
        unchanged: Changes = {self.packed: gr.skip()}
        if session.unwritten is None:
            return unchanged
        (measurement, findings), session.unwritten = session.unwritten, None
        files = {}
        try:
            for name, path in write_forms(findings, measurement.folder):
                files[name] = path
                if session.is_outdated(measurement):
                    return unchanged
        except FileNotFoundError:  # removed from the list meanwhile
            return unchanged
        return {
            self.downloads[name]: gr.DownloadButton(value=str(path), interactive=True)
            for name, path in files.items()
        }

    def pack_photographs(
        self, session: Session, threshold: float, mm_per_px: str, error_pct: str
    ) -> Iterator[Changes]:
        """Pack the results of all photographs into one file."""
        yield {self.pack: gr.Button(interactive=False), self.packed: gr.DownloadButton(visible=False)}
        done: Changes = {self.pack: gr.Button(interactive=True), self.status: ""}
        try:
            scale = scale_points.read_scale(mm_per_px, error_pct)
            number, path = 0, None
            inspections = dict(session.inspections)
            for path in pack_all(inspections, threshold, scale, session.renew_folder("pack"), self.grading):
                number += path is None
                said = f"Packing photograph {number} of {len(inspections)} …"
                yield {self.status: html.write_status(said)}
        except CracksegError as error:
            yield done | {self.status: html.write_notice(str(error), kind="error")}
            return
        except FileNotFoundError:
            said = "The list of photographs has changed. Pack them again."
            yield done | {self.status: html.write_notice(said, kind="warning")}
            return
        if path is not None:
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            label = f"Download {count_of(number, 'photograph')} (ZIP, {size})"
            done[self.packed] = gr.DownloadButton(label, value=str(path), visible=True)
        yield done
