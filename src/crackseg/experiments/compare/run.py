"""Compare runs: find them, fetch their artifacts, write the comparison and its figures, log them."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crackseg.data.images.files import read_image, read_mask
from crackseg.data.versioning import open_cache
from crackseg.errors import CracksegError
from crackseg.evaluation.score_files import describe_source
from crackseg.evaluation.stored_maps import ScoredMap
from crackseg.experiments.compare.differences import (
    check_consistent,
    compare_scores,
    explain_incomparable,
    find_differing,
    rank_images,
)
from crackseg.experiments.compare.figures import ImageRow, draw_curves, draw_images
from crackseg.experiments.compare.markdown import format_comment, format_comparison, to_json
from crackseg.experiments.compare.resolve_runs import ComparedRun, find_runs
from crackseg.experiments.compare.run_artifacts import RunArtifacts, gather, restore_samples
from crackseg.files import write_bytes
from crackseg.params import load_params
from crackseg.project import find_real_root
from crackseg.tracking.store import Store, describe_code

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB

_log = logging.getLogger("crackseg")
RUN_NAME = "comparison"
_PAGE, _JSON = "comparison.md", "comparison.json"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a comparison.

    Attributes:
        text: Markdown.
        comment: Markdown for a pull request, with the main scores first.
        content: the same for JSON.
        files: written files.
        logged_run: id of the run that has them, if it was requested.
    """

    text: str
    comment: str
    content: dict[str, Any]
    files: tuple[Path, ...]
    logged_run: str | None


def compare_runs(
    root: Path,
    words: Sequence[str],
    *,
    out_dir: Path | None = None,
    log: bool = False,
    num_images: int = 4,
    num_resamples: int = 2000,
) -> Comparison:
    """Compare the first run with each of the others.

    Args:
        root: the project.
        words: run ids, versions or names (:func:`crackseg.experiments.compare.resolve_runs.find_runs`).
        out_dir: where page, JSON and figures go; None writes no files.
        log: also log them to a new run in MLflow.
        num_images: of each dataset, how many images are drawn.
        num_resamples: of the bootstrap.
    Raises:
        CracksegError: see ``find_runs``; also a file that cannot be read.
    """
    store = Store(root)
    runs, remarks = find_runs(store, words, load_params(root / "params.yaml").registry.model_name)
    for run in runs:
        _log.debug("%s is run %s", run.label, run.run_id)
    with tempfile.TemporaryDirectory(prefix="crackseg-compare-") as folder:
        scratch = Path(folder)
        cache = _find_cache(root)
        artifacts = []
        for i, run in enumerate(runs):
            (scratch / f"run-{i}").mkdir()
            artifacts.append(gather(store, run, cache, scratch / f"run-{i}"))
        remarks += [said for of_run in artifacts for said in of_run.missing]
        rows, reasons = compare_scores(runs, artifacts, num_resamples=num_resamples)
        remarks += reasons + check_consistent(rows, runs)
        datasets = list(dict.fromkeys(name for run in runs for name in run.datasets))
        ranked = {name: table for name in datasets if len(table := rank_images(runs, artifacts, name))}
        differing = find_differing(runs)
        if out_dir is None and not log:
            text = format_comparison(runs, differing, rows, ranked, remarks)
            comment = format_comment(runs, differing, rows, remarks)
            return Comparison(text, comment, to_json(runs, differing, rows, ranked, remarks), (), None)
        target = out_dir or scratch / "out"
        figures = _draw_all_curves(runs, artifacts, datasets, target)
        for name, table in ranked.items():
            if path := _draw_images(runs, artifacts, name, table.head(num_images), target, scratch, remarks):
                figures.append(path)
        text = format_comparison(runs, differing, rows, ranked, remarks, [path.name for path in figures])
        comment = format_comment(runs, differing, rows, remarks)  # after the figures, which add remarks
        content = to_json(runs, differing, rows, ranked, remarks)
        write_bytes(target / _PAGE, text.encode())
        write_bytes(target / _JSON, (json.dumps(content, indent=2) + "\n").encode())
        files = (target / _PAGE, target / _JSON, *figures)
        logged = _log_comparison(store, runs, files) if log else None
    return Comparison(text, comment, content, files if out_dir else (), logged)


def _find_cache(root: Path) -> HashFileDB | None:
    try:
        return open_cache(find_real_root(root))
    except CracksegError as error:  # no DVC project: scores and curves are still available
        _log.debug("no DVC cache: %s", error)
        return None


def _draw_all_curves(
    runs: Sequence[ComparedRun], artifacts: Sequence[RunArtifacts], datasets: Sequence[str], out_dir: Path
) -> list[Path]:
    paths = []
    for dataset in datasets:
        curves: dict[str, pd.DataFrame | None] = {}
        first = next(run for run in runs if dataset in run.datasets)
        for run, of_run in zip(runs, artifacts, strict=True):
            if dataset in run.datasets:
                other = run is not first and explain_incomparable(first, run, dataset) is not None
                label = f"{run.label} (scored otherwise)" if other else run.label
                curves[label] = of_run.curves.get(dataset)
        if all(curve is None for curve in curves.values()):
            continue
        sources = {run.tags.get("data.source", "imported") for run in runs}
        paths.append(out_dir / f"pr_{dataset}.png")
        draw_curves(curves, paths[-1], dataset=dataset, source=describe_source(sorted(sources)))
    return paths


def _draw_images(
    runs: Sequence[ComparedRun],
    artifacts: Sequence[RunArtifacts],
    dataset: str,
    table: pd.DataFrame,
    out_dir: Path,
    scratch: Path,
    remarks: list[str],
) -> Path | None:
    """Draw the images of the table; those whose photograph is not in the cache are left out, with a remark."""
    shown = [i for i, run in enumerate(runs) if run.label in table]
    stems = list(table["stem"])
    samples: dict[str, Any] = {}
    for i in shown:  # any of them: they have scored the same images
        samples = restore_samples(artifacts[i], dataset, stems, scratch / f"run-{i}" / "prepared") | samples
    if not samples:
        remarks.append(
            f"{dataset}: no pictures, since DVC's cache on this machine has none of the photographs that were scored; "
            "compare where the runs were made"
        )
        return None
    rows = []
    for _, scores in table.iterrows():
        stem = str(scores["stem"])
        if stem not in samples:
            continue
        paths = [artifacts[i].find_map(dataset, stem) for i in shown]
        mask = read_mask(samples[stem].mask_path)
        rows.append(
            ImageRow(
                stem,
                read_image(samples[stem].image_path),
                mask,
                tuple(ScoredMap.read(path, mask).stretched_HW if path else None for path in paths),
                tuple(float(scores[runs[i].label]) for i in shown),
            )
        )
    for position, i in enumerate(shown):
        if any(row.maps[position] is None for row in rows):
            remarks.append(
                f"{runs[i].label}, {dataset}: maps are missing, MLflow keeps none and DVC's cache on this machine has "
                "not got them; compare where the run was made"
            )
    path = out_dir / f"images_{dataset}.png"
    labels = [runs[i].label for i in shown]
    draw_images(rows, labels, path, title=f"{dataset}: where the runs differ most (maps stretched to their range)")
    return path


def _log_comparison(store: Store, runs: Sequence[ComparedRun], files: Sequence[Path]) -> str:
    run_id = store.create_run(RUN_NAME)
    with store.record(run_id) as recorder:
        compared = {f"compared.{i}": f"{run.label}: {run.run_id}" for i, run in enumerate(runs)}
        recorder.set_tags(describe_code(store.root) | compared)
        for path in files:
            recorder.log_file(path, "comparison")
        recorder.end("FINISHED")
    return run_id
