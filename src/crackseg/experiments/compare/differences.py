"""Differences between runs: settings, scores with paired intervals, single images. The first run is the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crackseg.evaluation.bootstrap import Difference, Metric, compare_means, compare_paired
from crackseg.experiments.compare.resolve_runs import ComparedRun
from crackseg.experiments.compare.run_artifacts import RunArtifacts
from crackseg.lineage import keys_behind
from crackseg.params.effects import COUNTING
from crackseg.progress import progress

FIGURES = (("paper", "ods"), ("paper", "ois"), ("paper", "ap"), ("symmetric", "ods"), ("strict", "ods"))
FALSE_ALARMS = ("false_alarm_rate", "false_alarm_px_per_megapixel")
_TAGS = ("git.commit", "git.state", "data.md5", "data.source", "device", "model.init.md5")


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric of all runs.

    Attributes:
        metric: as MLflow names it, e.g. ``CRKWH100/strict/ods``.
        values: of each run; None where it was not recorded.
        differences: of each run to the first, with interval; None for the first, and if there is none.
    """

    metric: str
    values: tuple[float | None, ...]
    differences: tuple[Difference | None, ...]


def find_differing(runs: Sequence[ComparedRun]) -> dict[str, tuple[str, ...]]:
    """Find parameters, then tags, that are not the same in all runs; ``–`` where a run has not recorded one."""
    rows: dict[str, tuple[str, ...]] = {}
    keys = sorted({key for run in runs for key in run.params})
    for key, values in [(key, tuple(run.params.get(key, "–") for run in runs)) for key in keys] + [
        (key, tuple(run.tags.get(key, "–") for run in runs)) for key in _TAGS
    ]:
        if len(set(values)) > 1:
            rows[key] = values
    return rows


def explain_incomparable(reference: ComparedRun, other: ComparedRun, dataset: str) -> str | None:
    """Return the reason why two runs' scores on a dataset cannot be compared; None if they can."""
    former, new = (run.images.get(dataset) for run in (reference, other))
    if former is None or new is None:
        silent = " and ".join(run.label for run in (reference, other) if dataset not in run.images)
        return f"which images and data version were scored is not recorded of {silent}"
    if former != new:
        return f"scored on other images or another data version ({_shorten(former)} / {_shorten(new)})"
    # Settings of postprocess and predict belong to what is compared.
    changed = [key for key in sorted(keys_behind(COUNTING)) if reference.params.get(key) != other.params.get(key)]
    if changed:
        values = (f"{key} {reference.params.get(key, '–')} / {other.params.get(key, '–')}" for key in changed)
        return f"scored with other settings ({', '.join(values)})"
    return None


def compare_scores(
    runs: Sequence[ComparedRun], artifacts: Sequence[RunArtifacts], *, num_resamples: int
) -> tuple[list[ScoreRow], list[str]]:
    """Compare each run with the first, dataset by dataset, by a paired bootstrap over the images.

    Returns:
        Rows for every dataset that any run was scored on, then for their mean; and the reasons for missing intervals.
    """
    datasets = list(dict.fromkeys(name for run in runs for name in run.datasets))
    remarks: list[str] = []
    found: dict[tuple[str, int], Difference] = {}  # by metric and run
    with progress(None, "bootstrap", "run", total=len(runs) - 1) as bar:
        for i, other in enumerate(runs[1:], start=1):
            pair = _Pair(runs[0], other, artifacts[0], artifacts[i])
            compared, reasons = pair.split(datasets)
            remarks += reasons
            differences = pair.bootstrap_tables(datasets, num_resamples) | pair.bootstrap(compared, num_resamples)
            if set(compared) != set(datasets):  # a mean over a part would not be the mean that is shown
                differences = {key: d for key, d in differences.items() if not key.startswith("mean/")}
            found |= {(key, i): difference for key, difference in differences.items()}
            bar.update()
    keys = [(str(Metric(name, *figure)), name) for name in [*datasets, "mean"] for figure in FIGURES]
    keys += [(f"{dataset}/{name}", dataset) for dataset in datasets for name in FALSE_ALARMS]
    rows = []
    for key, dataset in keys:
        values = tuple(_value(run, key, dataset, datasets) for run in runs)
        if any(value is not None for value in values):
            rows.append(ScoreRow(key, values, tuple(found.get((key, i)) for i in range(len(runs)))))
    return rows, remarks


def rank_images(runs: Sequence[ComparedRun], artifacts: Sequence[RunArtifacts], dataset: str) -> pd.DataFrame:
    """Rank the images of a dataset by how much the runs differ on them, largest difference first.

    Each image counts by its best F under the paper's protocol; images without a crack have none and are left out.

    Returns:
        ``stem``, a column of F for each run by its label, and ``spread``, the highest less the lowest; empty where
        fewer than two runs that scored the same images have a table.
    """
    columns: dict[str, pd.Series] = {}
    first: ComparedRun | None = None
    for run, of_run in zip(runs, artifacts, strict=True):
        if dataset not in of_run.images or (first and explain_incomparable(first, run, dataset)):
            continue
        first = first or run
        columns[run.label] = of_run.images[dataset].set_index("stem")["paper_f"]
    if len(columns) < 2:
        return pd.DataFrame()
    table = pd.DataFrame(columns).dropna()
    spread = table.max(axis=1) - table.min(axis=1)
    table = table.assign(spread=spread).rename_axis("stem").reset_index()
    return table.sort_values(["spread", "stem"], ascending=[False, True], ignore_index=True)


@dataclass(frozen=True, slots=True)
class _Pair:
    reference: ComparedRun
    other: ComparedRun
    of_reference: RunArtifacts
    of_other: RunArtifacts

    def split(self, datasets: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the datasets to bootstrap, and the reasons why the others are left out."""
        compared, reasons = [], []
        who = f"{self.other.label} against {self.reference.label}"
        for dataset in datasets:
            without = [run.label for run in (self.reference, self.other) if dataset not in run.datasets]
            if without:
                reasons.append(f"{who}, {dataset}: not scored on it: {', '.join(without)}")
            elif reason := explain_incomparable(self.reference, self.other, dataset):
                reasons.append(f"{who}, {dataset}: no interval, {reason}")
            elif dataset in self.of_reference.counts and dataset in self.of_other.counts:
                former, new = (
                    {stem: counts.truth for stem, counts in of_run.counts[dataset].items()}
                    for of_run in (self.of_reference, self.of_other)
                )
                if former == new:
                    compared.append(dataset)
                else:
                    reasons.append(
                        f"{who}, {dataset}: no interval, the counts are of other images or another ground truth"
                    )
        return compared, reasons

    def bootstrap(self, datasets: Sequence[str], num_resamples: int) -> dict[str, Difference]:
        """Compute differences by metric, also of the ``mean`` over these datasets."""
        found: dict[str, Difference] = {}
        if not datasets:
            return found
        former, new = (
            {
                dataset: [of_run.counts[dataset][stem] for stem in sorted(of_run.counts[dataset])]
                for dataset in datasets
            }
            for of_run in (self.of_reference, self.of_other)
        )
        for protocol, figure in FIGURES:
            metric = Metric("mean", protocol, figure)
            overall, by_dataset = compare_paired(former, new, metric, num_resamples=num_resamples)
            found[str(metric)] = overall
            found |= {str(Metric(name, protocol, figure)): d for name, d in by_dataset.items()}
        return found

    def bootstrap_tables(self, datasets: Sequence[str], num_resamples: int) -> dict[str, Difference]:
        """Compute the differences that the tables of images allow: OIS of the paper's protocol, false alarm rate."""
        found: dict[str, Difference] = {}
        for dataset in datasets:
            if explain_incomparable(self.reference, self.other, dataset):
                continue
            tables = [e.images.get(dataset) for e in (self.of_reference, self.of_other)]
            for column, key in (("paper_f", "ois"), ("false_crack_pixels", "false_alarm_rate")):
                columns = [
                    table.dropna(subset=column).set_index("stem")[column].sort_index()
                    for table in tables
                    if table is not None and column in table
                ]
                if len(columns) == 2 and len(columns[0]) and columns[0].index.equals(columns[1].index):
                    # A photograph is a false alarm or not, whatever the number of pixels.
                    former, new = (np.asarray(c if key == "ois" else c > 0, np.float64) for c in columns)
                    found[f"{dataset}/{key}"] = compare_means(former, new, num_resamples=num_resamples)
        return found


def _value(run: ComparedRun, key: str, dataset: str, datasets: Sequence[str]) -> float | None:
    """Return a run's score; a mean only if it is over the same datasets for all runs."""
    if dataset != "mean":
        return run.metrics.get(key, run.metrics.get(_name_in_trials(key)))
    if set(run.datasets) != set(datasets) or len(datasets) < 2:
        return None
    values = [run.metrics.get(f"{name}/{key.removeprefix('mean/')}") for name in datasets]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _name_in_trials(key: str) -> str:
    """Return the name in trials of a search: ``DATASET/strict_ods`` for ``DATASET/strict/ods``."""
    dataset, _, figure = key.partition("/")
    return f"{dataset}/{figure.replace('/', '_')}"


def _shorten(images: str) -> str:
    split, _, digest = images.partition(" ")
    return f"{split} images of {digest[:8]}"


def check_consistent(rows: Sequence[ScoreRow], runs: Sequence[ComparedRun]) -> list[str]:
    """List recorded scores that differ from their counts: recorded by other code, or changed since."""
    remarks = []
    for row in rows:
        for i, difference in enumerate(row.differences):
            recorded = row.values[i]
            if difference and recorded is not None and abs(difference.challenger - recorded) > 1e-4:
                remarks.append(
                    f"{runs[i].label}: {row.metric} is recorded as {recorded:.4f} and its counts give "
                    f"{difference.challenger:.4f}; the interval is of the counts"
                )
    return remarks
