"""Write a comparison as Markdown, also readable in a terminal, as a comment on GitHub, and as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from crackseg.evaluation.bootstrap import Difference
from crackseg.evaluation.false_alarms import describe_false_alarms
from crackseg.experiments.compare.differences import ScoreRow
from crackseg.experiments.compare.resolve_runs import ComparedRun
from crackseg.files import format_markdown
from crackseg.lineage import ANSWERS, keys_behind
from crackseg.params.effects import RESULTS

_LONGEST = 40  # characters of a parameter's value
_SHOWN_IMAGES = 5


def format_comparison(
    runs: Sequence[ComparedRun],
    differing: Mapping[str, tuple[str, ...]],
    rows: Sequence[ScoreRow],
    images: Mapping[str, pd.DataFrame],
    remarks: Sequence[str],
    figures: Sequence[str] = (),
) -> str:
    """Write the comparison as Markdown.

    Args:
        runs: the first is the reference.
        differing: settings that differ, each run's value.
        rows: scores.
        images: by dataset, images by how much the runs differ on them.
        remarks: what is missing, with the reason.
        figures: file names of pictures next to the page.
    """
    labels = [run.label for run in runs]
    listed = _format_table(["run", "run id"], [[run.label, run.run_id] for run in runs])
    parts = [f"# {' · '.join(labels)}", listed]
    parts += ["## What differs", *_format_settings(labels, differing)]
    parts += [
        "## Scores",
        _format_scores(labels, rows),
        _explain_intervals(labels[0]) + _describe_false_alarms(runs),
    ]
    if images:
        parts.append("## Images where the runs differ most")
    for dataset, table in images.items():
        shown = [
            [
                str(row["stem"]),
                *(f"{row[label]:.3f}" if label in table else "–" for label in labels),
                f"{row['spread']:.3f}",
            ]
            for _, row in table.head(_SHOWN_IMAGES).iterrows()
        ]
        parts.append(_format_table([f"{dataset}, F of", *labels, "spread"], shown))
    if remarks:
        parts += ["## Remarks", "\n".join(f"- {remark}" for remark in remarks)]
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in figures]
    return "\n\n".join(parts) + "\n"


def format_comment(
    runs: Sequence[ComparedRun],
    differing: Mapping[str, tuple[str, ...]],
    rows: Sequence[ScoreRow],
    remarks: Sequence[str],
) -> str:
    """Write the comparison as a comment on a pull request: the main scores, and the rest to unfold.

    Args:
        runs, differing, rows, remarks: as for :func:`format_comparison`.
    """
    labels = [f"`{run.label}`" for run in runs]  # as code, @production notifies no one
    main = [row for row in rows if re.fullmatch(r"mean/.*|[^/]+/ods", row.metric)]
    others = [row for row in rows if row not in main]
    parts = [f"### {' and '.join(labels[1:])} compared with {labels[0]}", _format_scores(labels, main)]
    if remarks:
        parts.append("\n".join("- " + re.sub(r"(?<![`\w])@[\w-]+", r"`\g<0>`", remark) for remark in remarks))
    unfolded = {
        "Settings that differ": _format_settings(labels, differing),
        "All other scores": [_format_scores(labels, others)] if others else [],
        "How to read this": [
            _explain_intervals(labels[0]) + _describe_false_alarms(runs),
            "Runs: "
            + ", ".join(f"{label} is `{run.run_id}`" for label, run in zip(labels, runs, strict=True))
            + ".",
        ],
    }
    for title, content in unfolded.items():
        if content:
            parts += [f"<details><summary>{title}</summary>", *content, "</details>"]
    return "\n\n".join(parts) + "\n"


def _format_settings(labels: Sequence[str], differing: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Write the settings that differ: first those that scores depend on, then the others."""
    # Keys of another version are unknown, and tags are no settings.
    idle = differing.keys() & ANSWERS.keys() - keys_behind(RESULTS)
    rows_of = {key: [key, *(_cut(value) for value in values)] for key, values in differing.items()}
    if counting := [row for key, row in rows_of.items() if key not in idle]:
        parts = [_format_table(["setting", *labels], counting)]
    else:
        parts = ["No recorded setting that scores depend on." if idle else "No recorded setting."]
    if idle:
        parts.append("Also, without effect on scores except for rounding:")
        parts.append(_format_table(["setting", *labels], [row for key, row in rows_of.items() if key in idle]))
    return parts


def _format_scores(labels: Sequence[str], rows: Sequence[ScoreRow]) -> str:
    scores = [
        [row.metric, *(_cell(v, d) for v, d in zip(row.values, row.differences, strict=True))] for row in rows
    ]
    return _format_table(["metric", *labels], scores)


def _explain_intervals(reference: str) -> str:
    return (
        f"In brackets: the difference to {reference} with its 95 % interval, from a paired bootstrap over the images. "
        "▲ and ▼: the interval lies above or below 0. Each interval stands for itself: of twenty, one is expected to "
        "miss 0 by chance. It says nothing of how much another seed would change."
    )


def _describe_false_alarms(runs: Sequence[ComparedRun]) -> str:
    """Say how false alarms are read, and why no run has a value for them on a dataset."""
    by_reason: dict[str, list[str]] = {}
    datasets = list(dict.fromkeys(name for run in runs for name in run.datasets))
    for dataset in datasets:
        counts = [count for run in runs if (count := run.metrics.get(f"{dataset}/num_crack_free")) is not None]
        if not any(counts):
            reason = describe_false_alarms({"num_crack_free": 0} if counts else {})
            by_reason.setdefault(reason, []).append(dataset)
    said = "" if sum(map(len, by_reason.values())) == len(datasets) else " Of false alarms, less is better."
    return said + "".join(f" False alarms on {', '.join(names)}: {why}." for why, names in by_reason.items())


def to_json(
    runs: Sequence[ComparedRun],
    differing: Mapping[str, tuple[str, ...]],
    rows: Sequence[ScoreRow],
    images: Mapping[str, pd.DataFrame],
    remarks: Sequence[str],
) -> dict[str, Any]:
    """Return the comparison for programs; lists are in the order of the runs."""
    return {
        "runs": [{"label": run.label, "run_id": run.run_id} for run in runs],
        "differing": {key: list(values) for key, values in differing.items()},
        "scores": [
            {"metric": row.metric, "values": list(row.values), "differences": [_plain(d) for d in row.differences]}
            for row in rows
        ],
        "images": {dataset: table.to_dict("records") for dataset, table in images.items()},
        "remarks": list(remarks),
    }


def _plain(difference: Difference | None) -> dict[str, float] | None:
    if difference is None:
        return None
    return {"value": difference.value, "low": difference.low, "high": difference.high}


def _cell(value: float | None, difference: Difference | None) -> str:
    if value is None:
        return "–"
    if difference is None:
        return f"{value:.4f}"
    mark = " ▲" if difference.low > 0 else " ▼" if difference.high < 0 else ""
    return f"{value:.4f} ({difference.value:+.4f}, {difference.low:+.4f} to {difference.high:+.4f}){mark}"


def _cut(value: str) -> str:
    text = value or '""'
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return format_markdown(header, rows, padded=True).rstrip("\n")
