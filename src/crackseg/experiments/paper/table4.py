"""Table 4: times of training, from finished runs, and of inference, timed now, with the paper's times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import pandas as pd

from crackseg.data.catalog import SAMPLE_SOURCE
from crackseg.experiments.paper.comparison import read_inputs
from crackseg.experiments.paper.published import read_table4
from crackseg.experiments.paper.timing import BATCH_SIZE, CROP_PX, SIZE_PX, InferenceTiming
from crackseg.files import frame_to_markdown
from crackseg.lineage import keys_changing
from crackseg.models import ARCHITECTURES
from crackseg.params.effects import PACE
from crackseg.tracking.store import FinishedRun, Store
from crackseg.training.pace import format_duration

EPOCHS = 300
_STEPS_PER_EPOCH = 200 // BATCH_SIZE  # of the paper's 200 training images

# Settings that an epoch's time depends on, as the paper states or assumes them.
_PAPER_CONDITIONS = {
    "data.size_px": "512",
    "train.batch_size": "2",
    "train.patches_per_image": "1",
    "train.validate_every": "1",
    "model.width": "None",
    "model.encoder": "",
    "model.train_layers": "all",
}


@dataclass(frozen=True, slots=True)
class TrainingTime:
    """Time of 300 epochs of an architecture.

    Attributes:
        architecture: a key of ``crackseg.models.ARCHITECTURES``.
        seconds: of 300 epochs, one for each run.
        epochs: of each run; if not 300, ``seconds`` are extrapolated.
        hardware: what trained, as the runs are tagged.
        conditions: image size, batch and so on.
        num_steps: 0; or, if no run is finished, the number of timed steps from which ``seconds`` are extrapolated.
    """

    architecture: str
    seconds: tuple[float, ...]
    epochs: int
    hardware: str
    conditions: str
    num_steps: int = 0

    @property
    def basis(self) -> str:
        """Return the basis of the time: ``measured``, ``extrapolated from 2 epochs`` or ``from 3 steps``."""
        if self.num_steps:
            return f"extrapolated from {self.num_steps} steps"
        return "measured" if self.epochs == EPOCHS else f"extrapolated from {self.epochs} epochs"


def gather_training_times(store: Store, runs: Sequence[FinishedRun]) -> dict[str, TrainingTime]:
    """Collect the training times of each architecture.

    An architecture's runs are grouped by settings, hardware, data and number of epochs; of several groups the one
    closest to the paper's conditions is used, then one of 300 epochs, then that of the newest run.

    Args:
        store: where the runs are.
        runs: finished runs, the newest first.
    Returns:
        By architecture, for those that have a finished run.
    """
    groups: dict[tuple[object, ...], list[FinishedRun]] = {}
    for run in runs:
        if run.metrics.get("training_seconds", 0) > 0 and "model.architecture" in run.params:
            alike = (run.params.get(key) for key in ("train.epochs", *sorted(keys_changing(PACE))))
            groups.setdefault((*alike, run.tags.get("device"), run.tags.get("data.md5")), []).append(run)
    times: dict[str, TrainingTime] = {}
    for group in sorted(groups.values(), key=lambda group: _distance(group[0])):
        newest = group[0]
        times.setdefault(
            newest.params["model.architecture"],
            TrainingTime(
                newest.params["model.architecture"],
                tuple(r.metrics["training_seconds"] * EPOCHS / int(r.params["train.epochs"]) for r in group),
                int(newest.params["train.epochs"]),
                newest.tags.get("device", "unknown"),
                _describe_conditions(store, newest),
            ),
        )
    return times


def extrapolate_steps(steps: Mapping[str, Sequence[float]], *, hardware: str) -> dict[str, TrainingTime]:
    """Extrapolate the time of 300 epochs over the paper's 200 images from the median time of some steps.

    Args:
        steps: by architecture, from :func:`crackseg.experiments.paper.timing.time_training`.
        hardware: what they were timed on.
    """
    conditions = (
        f"200 images, crops of {CROP_PX} px, batch {BATCH_SIZE}, steps alone without reading and validation"
    )
    return {
        name: TrainingTime(
            name, (median(seconds) * _STEPS_PER_EPOCH * EPOCHS,), 0, hardware, conditions, num_steps=len(seconds)
        )
        for name, seconds in steps.items()
    }


def _distance(run: FinishedRun) -> tuple[bool, int, bool]:
    departures = [key for key, theirs in _PAPER_CONDITIONS.items() if run.params.get(key, theirs) != theirs]
    return run.tags.get("data.source") == SAMPLE_SOURCE, len(departures), run.params["train.epochs"] != str(EPOCHS)


def _describe_conditions(store: Store, run: FinishedRun) -> str:
    given = {key: run.params.get(key, "") for key in keys_changing(PACE)}
    counts = [profile["images"] for name, profile in read_inputs(store, run.run_id) if name.endswith("-train")]
    words = [
        f"{counts[0]} images" if counts else "",
        f"{given['data.size_px']} px",
        f"crops of {given['augment.crop_px']} px" if given["augment.crop_px"] not in ("", "0") else "",
        f"batch {given['train.batch_size']}",
        f"{given['train.patches_per_image']} crops an image" if given["train.patches_per_image"] != "1" else "",
        f"validated every {given['train.validate_every']} epochs" if given["train.validate_every"] != "1" else "",
        given["train.precision"] if given["train.precision"] != "auto" else "",
        f"width {given['model.width']}" if given["model.width"] not in ("", "None") else "",
        given["model.encoder"],
        "classifier only" if given["model.train_layers"] == "classifier" else "",
        "with validation",
    ]
    return ", ".join(word for word in words if word)


def make_table4(
    training: dict[str, TrainingTime], timings: Sequence[InferenceTiming], *, inference_hardware: str
) -> pd.DataFrame:
    """Compare our times with the paper's.

    Args:
        training: from :func:`gather_training_times` and :func:`extrapolate_steps`.
        timings: from :func:`crackseg.experiments.paper.timing.time_architectures`; empty if nothing was timed.
        inference_hardware: what was timed on.
    Returns:
        A row for each architecture: ``training_s_300_epochs`` (median over ``training_runs``) with ``_min``, ``_max``,
        ``training_basis``, ``_hardware``, ``_conditions``; for each precision ``inference_PRECISION_s`` (median) with
        ``_min``, ``_max``, and ``inference_PRECISION_images_per_s``; ``inference_hardware``, ``inference_problem``; and
        ``paper_training_s_300_epochs``, ``paper_inference_s``, ``paper_fps``, ``paper_hardware``.
    """
    precisions = dict.fromkeys(timing.precision for timing in timings if timing.seconds)
    rows = []
    for architecture in ARCHITECTURES:
        time = training.get(architecture)
        row: dict[str, object] = {"architecture": architecture}
        row |= _spread("training_s_300_epochs", time.seconds if time else ())
        row |= {
            "training_runs": len(time.seconds) if time and not time.num_steps else 0,
            "training_basis": time.basis if time else "no finished training run",
            "training_hardware": time.hardware if time else "",
            "training_conditions": time.conditions if time else "",
        }
        of_this = [timing for timing in timings if timing.architecture == architecture]
        for precision in precisions:
            seconds = next((t.seconds for t in of_this if t.precision == precision), ())
            row |= _spread(f"inference_{precision}_s", seconds)
            row[f"inference_{precision}_images_per_s"] = 1 / median(seconds) if seconds else math.nan
        row["inference_repeats"] = len(of_this[0].seconds) if of_this else 0
        row["inference_hardware"] = inference_hardware if of_this and of_this[0].seconds else ""
        row["inference_problem"] = of_this[0].problem if of_this else "not timed"
        rows.append(row)
    paper = read_table4().set_index("system").add_prefix("paper_")
    return pd.DataFrame(rows).join(paper, on="architecture")


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    figures = (median(values), min(values), max(values)) if values else (math.nan,) * 3
    return dict(zip((name, f"{name}_min", f"{name}_max"), figures, strict=True))


def write_table4(table: pd.DataFrame) -> pd.DataFrame:
    """Write Table 4 as text: times with their spread and their basis."""
    precisions = [c.removeprefix("inference_").removesuffix("_images_per_s") for c in table if "images_per_s" in c]
    shown = pd.DataFrame({"model": table["architecture"]})
    shown["training, 300 epochs"] = [_write_training(row) for _, row in table.iterrows()]
    for precision in precisions:
        name = f"inference_{precision}"
        shown[f"{precision}: s per image"] = [_write_inference(row, name) for _, row in table.iterrows()]
        shown[f"{precision}: images/s"] = [_write_number(x, ".3g") for x in table[f"{name}_images_per_s"]]
    if not precisions:
        shown["inference"] = "not timed"
    shown["paper: training"] = [_write_hours(seconds) for seconds in table["paper_training_s_300_epochs"]]
    shown["paper: s per image"] = [_write_number(x, ".3f") for x in table["paper_inference_s"]]
    shown["paper: FPS"] = [_write_number(x, "g") for x in table["paper_fps"]]
    return shown


def make_remarks(table: pd.DataFrame) -> list[str]:
    """Write the remarks of Table 4: hardware, conditions and problems."""
    remarks = []
    timed = table[table["inference_hardware"] != ""]
    if len(timed):
        remarks.append(
            f"Inference, ours: {timed['inference_hardware'].iloc[0]}; one {SIZE_PX} x {SIZE_PX} image at a time, from "
            f"the decoded photograph to its map; median (lowest–highest) of {timed['inference_repeats'].iloc[0]} "
            "repeats."
        )
    trained = table[table["training_s_300_epochs"].notna()]
    for (hardware, conditions), group in trained.groupby(["training_hardware", "training_conditions"], sort=False):
        remarks.append(f"Training, ours ({', '.join(group['architecture'])}): {hardware}; {conditions}.")
    for hardware, group in table.dropna(subset="paper_hardware").groupby("paper_hardware", sort=False):
        remarks.append(f"The paper's ({', '.join(group['architecture'])}): {hardware}.")
    problems = table[~table["inference_problem"].isin(["", "not timed"])]
    remarks += [f"{row['architecture']}: {row['inference_problem']}" for _, row in problems.iterrows()]
    return remarks


def format_table4(table: pd.DataFrame) -> str:
    """Write Table 4 as Markdown."""
    remarks = "".join(f"- {remark}\n" for remark in make_remarks(table))
    return f"## Table 4\n\n{frame_to_markdown(write_table4(table))}\n{remarks}"


def _write_training(row: pd.Series) -> str:
    if math.isnan(row["training_s_300_epochs"]):
        return row["training_basis"]
    text = _write_hours(row["training_s_300_epochs"])
    if row["training_runs"] > 1:
        low, high = (_write_hours(row[f"training_s_300_epochs_{end}"]) for end in ("min", "max"))
        text += f" ({low}–{high}, {row['training_runs']} runs)"
    return f"{text}, {row['training_basis']}"


def _write_inference(row: pd.Series, name: str) -> str:
    if math.isnan(row[f"{name}_s"]):
        if row["inference_problem"] in ("", "not timed"):
            return "–"
        return "not installed" if "pip install" in row["inference_problem"] else "cannot be built"
    return f"{row[f'{name}_s']:.3g} ({row[f'{name}_s_min']:.3g}–{row[f'{name}_s_max']:.3g})"


def _write_number(value: float, style: str) -> str:
    return "–" if math.isnan(value) else f"{value:{style}}"


def _write_hours(seconds: float) -> str:
    """Write a time as the paper does: ``2 h 15 m``."""
    if math.isnan(seconds):
        return "–"
    if seconds < 5400:
        return format_duration(seconds)
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} m"
