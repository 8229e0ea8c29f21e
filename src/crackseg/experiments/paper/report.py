"""Write the paper's tables and figures with ours, from finished runs, to outputs/paper and a run in MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from crackseg.devices import choose_device, describe_device
from crackseg.errors import CracksegError
from crackseg.experiments.paper.comparison import (
    DATASETS,
    METRICS,
    ConfigurationResult,
    choose_best,
    compare_with_paper,
    gather_results,
    uses_sample,
)
from crackseg.experiments.paper.configurations import TABLE3, PaperRow
from crackseg.experiments.paper.examples import Example, predict_examples
from crackseg.experiments.paper.figures import draw_figure3, draw_figure4, draw_table3, draw_table4
from crackseg.experiments.paper.published import read_deepcrack_table
from crackseg.experiments.paper.table3 import SAMPLE_WARNING, format_table3, name_configuration
from crackseg.experiments.paper.table4 import extrapolate_steps, format_table4, gather_training_times, make_table4
from crackseg.experiments.paper.timing import InferenceTiming, time_architectures, time_training
from crackseg.files import write_bytes, write_csv
from crackseg.tracking.store import Store, describe_code

RUN_NAME = "paper-report"
# All files that a report may consist of; older ones are removed, other files in the folder stay.
_NAMES = (
    "report.md", "table3.md", "table3.csv", "table3.png", "deepcrack_table1.csv", "figure3.png", "figure4.png",
    "table4.md", "table4.csv", "table4.png",
)  # fmt: skip


@dataclass(frozen=True)
class WrittenReport:
    """A written report: its page, its run, the numbers of finished and missing configurations, and remarks."""

    page_path: Path
    run_id: str
    num_finished: int
    num_missing: int
    remarks: tuple[str, ...]


def write_paper_report(root: Path, store: Store, *, architectures: Sequence[str], repeats: int) -> WrittenReport:
    """Write the report to ``outputs/paper`` and record it as a new run ``paper-report``.

    Args:
        root: the project folder.
        store: is searched for finished configurations, and records the report.
        architectures: whose inference is timed now, and a few steps of training where none is finished; may be empty.
        repeats: measurements of each.
    Raises:
        CracksegError: no configuration of Table 3 is finished; nothing is written then.
    """
    runs = store.finished_runs(of_stages=True)
    results = gather_results(store, TABLE3, runs)
    best = choose_best(results)
    if best is None:
        raise CracksegError(
            f"no finished configuration: of {len(runs)} finished runs of the pipeline in {store.uri} none is of a "
            f"configuration of Table 3 with scores on {', '.join(DATASETS)}; queue them with `crackseg paper queue "
            "--table3` and train them with `dvc queue start`, or point MLFLOW_TRACKING_URI at the store that has them"
        )
    table = compare_with_paper(results)
    device = choose_device("auto")
    timings = time_architectures(architectures, device=device, repeats=repeats) if architectures else []
    training = gather_training_times(store, runs)
    if untrained := [name for name in architectures if name not in training]:
        training |= extrapolate_steps(time_training(untrained, device=device), hardware=describe_device(device))
    table4 = make_table4(training, timings, inference_hardware=describe_device(device))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "paper"
        folder.mkdir()
        curves = _read_curves(store, results, Path(scratch))
        images = _read_images(store, best, Path(scratch))
        examples, remarks = predict_examples(store, best, root, images)
        if examples and best.runs[0].tags["data.md5"] not in (root / "data.dvc").read_text(encoding="utf-8"):
            remarks.append("data/ is another version than the one that the examples' run was scored on")
        _write_files(folder, table, table4, curves, examples, best, remarks)
        run_id = _record(store, folder, table, timings, best)
        out_dir = root / "outputs" / "paper"
        for name in _NAMES:
            (out_dir / name).unlink(missing_ok=True)
            if (folder / name).exists():
                write_bytes(out_dir / name, (folder / name).read_bytes())
    num_finished = sum(bool(result.runs) for result in results)
    return WrittenReport(
        out_dir / "report.md", run_id, num_finished, len(results) - num_finished, remarks=tuple(remarks)
    )


def _read_curves(
    store: Store, results: Sequence[ConfigurationResult], scratch: Path
) -> dict[tuple[str, PaperRow], pd.DataFrame]:
    """Read the PR curve of each configuration's newest run, if it has one."""
    found = {}
    for result in results:
        for dataset in DATASETS:
            if result.runs and result.row.init:
                curve = _read_artifact(store, result.runs[0].run_id, f"pr_curves/{dataset}_pr.csv", scratch)
                if curve is not None:
                    found[dataset, result.row] = curve
    return found


def _read_images(store: Store, result: ConfigurationResult, scratch: Path) -> dict[str, pd.DataFrame]:
    run_id = result.runs[0].run_id
    tables = {d: _read_artifact(store, run_id, f"per_image/{d}_images.csv", scratch) for d in DATASETS}
    return {dataset: table for dataset, table in tables.items() if table is not None}


def _read_artifact(store: Store, run_id: str, path: str, scratch: Path) -> pd.DataFrame | None:
    """Read a table from a run's artifacts; None if the run has none or the file is lost."""
    try:
        return pd.read_csv(store.client.download_artifacts(run_id, path, str(scratch)), dtype={"stem": str})
    except Exception:  # MLflow, requests and the file system raise different classes
        return None


def _write_files(
    folder: Path,
    table: pd.DataFrame,
    table4: pd.DataFrame,
    curves: dict[tuple[str, PaperRow], pd.DataFrame],
    examples: Sequence[Example],
    best: ConfigurationResult,
    remarks: Sequence[str],
) -> None:
    write_csv(table, folder / "table3.csv")
    write_csv(read_deepcrack_table().assign(training_set="CrackTree260, all 260"), folder / "deepcrack_table1.csv")
    write_csv(table4, folder / "table4.csv")
    write_bytes(folder / "table3.md", format_table3(table).encode())
    write_bytes(folder / "table4.md", format_table4(table4).encode())
    draw_table3(table, folder / "table3.png")
    draw_table4(table4, folder / "table4.png")
    draw_figure3(curves, table, folder / "figure3.png")
    shown = "not drawn"
    if examples:
        draw_figure4(examples, table, folder / "figure4.png", name=name_configuration(best.row))
        shown = "![image, ground truth, map, binary](figure4.png)"
    lines = ["# The paper's experiments compared with ours", ""]
    if uses_sample(table):
        lines += [f"> **{SAMPLE_WARNING}.**", ""]
    lines += [format_table3(table), "## Figure 3", "", "![precision and recall](figure3.png)", ""]
    lines += [f"## Figure 4: {name_configuration(best.row)}, the best finished configuration", "", shown, ""]
    lines += [*(f"- {remark}" for remark in remarks), "", format_table4(table4)]
    write_bytes(folder / "report.md", "\n".join(lines).encode())


def _record(
    store: Store, folder: Path, table: pd.DataFrame, timings: Sequence[InferenceTiming], best: ConfigurationResult
) -> str:
    """Create the report's run; return its id."""
    finished = table[table["status"] == "finished"]
    metrics: dict[str, float] = {
        "cells_finished": len(finished[["system", "init", "loss", "gamma"]].drop_duplicates())
    }
    for _, row in finished.iterrows():
        keys = [row[key] for key in ("system", "init", "loss", "gamma") if row[key]]
        for name in METRICS[:1] + METRICS[3:4] + METRICS[5:]:
            if row[f"{name}_difference"] == row[f"{name}_difference"]:
                metrics["/".join([row["dataset"], f"{name}_difference", *keys])] = row[f"{name}_difference"]
    for timing in timings:
        if timing.seconds:
            metrics[f"inference_s/{timing.architecture}/{timing.precision}"] = timing.median_s
    run_id = store.create_run(RUN_NAME)
    with store.record(run_id) as recorder:
        recorder.set_tags(
            describe_code(store.root)
            | {
                "device": describe_device(choose_device("auto")),
                "data.source": "sample" if uses_sample(table) else "imported",
                "best_cell": best.configuration.name,
            }
        )
        recorder.log_metrics(metrics)
        for path in sorted(folder.iterdir()):
            recorder.log_file(path, "paper")
        recorder.end("FINISHED")
    return run_id
