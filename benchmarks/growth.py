"""How the time of import, prepare, predict, evaluate and the page grows with the number of images, of 64 px."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import gradio as gr
import numpy as np
import torch

from benchmarks.measure import ROOT, Effort, Row
from crackseg.data.catalog import list_samples
from crackseg.data.images.files import write_mask, write_png
from crackseg.data.importing.importer import import_datasets
from crackseg.data.preprocessing import prepare_dataset
from crackseg.evaluation.scoring import score_split
from crackseg.geometry.severity import OF_CONCRETE
from crackseg.inference.maps import predict_split
from crackseg.inference.predictor import Predictor
from crackseg.models import build_model
from crackseg.models.shipped import SHIPPED_NAME
from crackseg.params import load_params
from crackseg.serving.page.model_cache import ModelCache
from crackseg.serving.page.photographs_tab import PhotographsTab
from crackseg.serving.page.session import Session

_SIZE_PX = 64
_COUNTS = {False: (100, 1000, 10000), True: (100, 300, 900)}
_MOST_EXPONENT = 1.05
_STEPS = ("import", "prepare", "predict", "evaluate", "page")


def run(effort: Effort) -> list[Row]:
    """Row ``growth``, the steepest of the five steps, and a row for each of them."""
    counts = _COUNTS[effort.quick]
    # A machine's speed drifts over minutes: what is quick is measured before the largest, and after it again.
    before, largest, after = (
        [_time_steps(count) for count in counts[:-1]],
        _time_steps(counts[-1]),
        [_time_steps(count) for count in counts[:-1]],
    )
    measured = [
        {step: (first[step] + second[step]) / 2 for step in _STEPS}
        for first, second in zip(before, after, strict=True)
    ] + [largest]
    rows = []
    for step in _STEPS:
        seconds = [of_count[step] for of_count in measured]
        # Between the largest two: what is fixed would make the smallest one look flatter than it is.
        exponent = math.log(seconds[-1] / seconds[-2]) / math.log(counts[-1] / counts[-2])
        times = ", ".join(f"{s:.2f} s for {count:,}" for s, count in zip(seconds, counts, strict=True))
        rows.append(Row(f"growth-{step}", exponent, 1.0, "linear", "exponent", times))
    steepest = max(rows, key=lambda row: row.ours)
    note = f"the steepest: {steepest.name.removeprefix('growth-')}; asked: at most {_MOST_EXPONENT}"
    return [
        Row("growth", steepest.ours, 1.0, "linear", "exponent", note, target=1 / _MOST_EXPONENT),
        *rows,
    ]


def _time_steps(count: int) -> dict[str, float]:
    """Seconds of processor time on one core for each step; waiting for other programs is left out."""
    params = load_params(ROOT / "params.yaml")
    data = params.data.model_copy(update={"size_px": _SIZE_PX})
    torch.manual_seed(0)
    predictor = Predictor(
        build_model("unet", width=4),
        params.predict,
        device=torch.device("cpu"),
        precision=torch.float32,
    )
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], object]) -> None:
        start = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()):  # bars
            work()
        seconds[step] = time.process_time() - start

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _draw(folder / "raw", count)
        timed("import", lambda: import_datasets(folder / "raw", folder / "data", name="GROWTH"))
        timed("prepare", lambda: prepare_dataset(folder / "data", "GROWTH", folder / "prepared", data))
        samples = list_samples(folder / "prepared", "GROWTH")
        timed("predict", lambda: predict_split(predictor, samples, folder / "maps"))
        timed(
            "evaluate",
            lambda: score_split(
                samples, folder / "maps", params.evaluate, params.postprocess, operating_threshold=0.5
            ),
        )
        timed("page", lambda: _drop_on_page([str(sample.image_path) for sample in samples], folder / "page"))
    return seconds


def _drop_on_page(photographs: list[str], folder: Path) -> None:
    folder.mkdir()
    with gr.Blocks():
        tab = PhotographsTab(OF_CONCRETE)
    session = Session(ModelCache(None), folder)
    for _ in tab.inspect(session, photographs, SHIPPED_NAME):
        pass
    assert len(session.inspections) == len(photographs), session.problems


def _draw(folder: Path, count: int) -> None:
    for number in range(count):
        rng = np.random.default_rng(number)
        mask = np.zeros((_SIZE_PX, _SIZE_PX), np.uint8)
        start, end = rng.integers(4, _SIZE_PX - 4, (2, 2)).tolist()
        cv2.line(mask, start, end, 1)
        grey = rng.integers(100, 180, (_SIZE_PX, _SIZE_PX, 1), dtype=np.uint8) - 80 * mask[..., None]
        write_png(folder / "images" / f"{number:05d}.png", np.repeat(grey, 3, axis=2))
        write_mask(folder / "masks" / f"{number:05d}.png", mask)
