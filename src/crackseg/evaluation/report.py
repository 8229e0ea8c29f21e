"""Write a run's report: figures and a Markdown page for all datasets, from the files of earlier stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from crackseg.data.catalog import data_source, list_samples, spread_evenly
from crackseg.evaluation.false_alarms import describe_false_alarms
from crackseg.evaluation.html import render_html
from crackseg.evaluation.plots import draw_history, draw_panels, draw_pr_curves
from crackseg.evaluation.score_files import describe_source, format_score_table, mean_ods, read_scores
from crackseg.files import write_bytes
from crackseg.params import PostprocessParams
from crackseg.types import CrackSample

_PANEL_ROWS = 4


def write_report(
    out_dir: Path,
    *,
    title: str,
    datasets: Sequence[str],
    split: str,
    prepared_dir: Path,
    predictions_dir: Path,
    scores_dir: Path,
    history_path: Path,
    training_seconds: float,
    postprocessing: PostprocessParams,
    use_roi: bool,
) -> None:
    """Write report.md, report.html, summary.json (what `dvc exp show` shows) and the figures into ``out_dir``."""
    if out_dir.exists():
        shutil.rmtree(out_dir)
    out_dir.mkdir(parents=True)
    scores = read_scores(scores_dir, datasets)
    curves = {name: pd.read_csv(scores_dir / f"{name}_pr.csv") for name in datasets}
    sources = {name: data_source(prepared_dir, name) for name in datasets}
    source = describe_source(list(sources.values()))
    draw_pr_curves(curves, out_dir / "pr_all.png", title=title, source=source)
    for name in datasets:
        draw_pr_curves(
            {name: curves[name]},
            out_dir / f"{name}_pr.png",
            title=f"{title}: {name}",
            source=describe_source([sources[name]]),
        )
        samples = _choose_samples(list_samples(prepared_dir, name, split), scores_dir / f"{name}_images.csv")
        draw_panels(
            samples,
            predictions_dir / name,
            scores[name]["threshold"],
            out_dir / f"{name}_panels.png",
            postprocessing=postprocessing,
            use_roi=use_roi,
            title=f"{name}, best to worst of {scores[name]['num_images']} {split} images "
            f"({describe_source([sources[name]])})",
        )
    draw_history(pd.read_csv(history_path), out_dir / "training.png", title=f"{title}: training")
    summary = {"mean": {"ods": mean_ods(scores)}} | {name: {"ods": scores[name]["ods"]} for name in scores}
    summary["train"] = {"seconds": training_seconds}
    write_bytes(out_dir / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    page = _write_page(title, source, scores)
    write_bytes(out_dir / "report.md", page.encode())
    write_bytes(out_dir / "report.html", render_html(page, title=title, folder=out_dir).encode())


def _choose_samples(samples: Sequence[CrackSample], images_csv: Path) -> list[CrackSample]:
    """Choose a few images spread evenly from the best F to the worst; images without cracks count as worst."""
    f = pd.read_csv(images_csv, dtype={"stem": str}).set_index("stem")["paper_f"].fillna(-1.0)
    ranked = sorted(samples, key=lambda sample: (-f[sample.stem], sample.stem))
    return spread_evenly(ranked, _PANEL_ROWS)


def _write_page(title: str, source: str, scores: Mapping[str, Mapping]) -> str:
    figures = "\n".join(f"![{name}: examples]({name}_panels.png)\n" for name in scores)
    return (
        f"# {title}\n\n{format_score_table(scores, source=source)}\n"
        "ODS, OIS and AP follow the paper's protocol (ground truth dilated by the tolerance); "
        "docs/how-scoring-works.md has the other two. clIoU is centre-line IoU at the operating threshold "
        "(docs/post-processing.md). "
        "False alarms at that threshold: "
        f"{'; '.join(f'{name}: {describe_false_alarms(s)}' for name, s in scores.items())}."
        f"\n\n![precision and recall](pr_all.png)\n\n![training](training.png)\n\n{figures}"
    )
