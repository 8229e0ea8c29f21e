"""Score files of the stage evaluate: read them, average them, show them as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from crackseg.data.catalog import SAMPLE_SOURCE
from crackseg.files import format_markdown


def read_scores(scores_dir: Path, datasets: Sequence[str]) -> dict[str, dict]:
    """Read ``DATASET.json`` of each dataset: its scores by name."""
    return {name: json.loads((scores_dir / f"{name}.json").read_text(encoding="utf-8"))[name] for name in datasets}


def flatten_scores(scores: dict[str, dict], dataset: str) -> dict[str, float]:
    """Flatten ``DATASET.json`` to the names that MLflow shows: ``DATASET/ods``, ``DATASET/strict/ods``."""
    flat: dict[str, float] = {}
    for key, value in scores[dataset].items():
        if isinstance(value, dict):
            flat |= {f"{dataset}/{key}/{name}": score for name, score in value.items()}
        elif isinstance(value, float | int):
            flat[f"{dataset}/{key}"] = value
    return flat


def mean_ods(scores: Mapping[str, Mapping]) -> float:
    """Average the datasets' ODS under the paper's protocol, with equal weight."""
    return fmean(s["ods"] for s in scores.values())


def describe_source(sources: Sequence[str]) -> str:
    """Describe the origin of the scores, so that the sample is not mistaken for the published datasets."""
    kinds = set(sources)
    if kinds == {SAMPLE_SOURCE}:
        return "embedded synthetic sample, not the published datasets"
    return "imported data" if SAMPLE_SOURCE not in kinds else "partly the embedded synthetic sample"


def format_score_table(scores: Mapping[str, Mapping], *, source: str) -> str:
    """Format ODS@P@R, OIS and AP of each dataset as a Markdown table, with the other protocols' ODS."""
    header = ["dataset", "images", "ODS", "@P", "@R", "OIS", "±", "AP", "symmetric ODS", "strict ODS", "clIoU"]
    rows = []
    for dataset, s in scores.items():
        values = [s["ods"], s["precision"], s["recall"], s["ois"], s["ois_std"], s["ap"]]
        values += [s["symmetric"]["ods"], s["strict"]["ods"], s["centerline_iou"]]
        rows.append([dataset, s["num_images"], *(f"{value:.4f}" for value in values)])
    return f"Scores on: {source}.\n\n" + format_markdown(header, rows, "l".ljust(len(header), "r"))
