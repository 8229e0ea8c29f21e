"""Compare our finished configurations with Table 3, value by value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from crackseg.data.catalog import KNOWN_DATASETS, SAMPLE_SOURCE
from crackseg.experiments.paper.configurations import Configuration, PaperRow, find_departures, matches
from crackseg.experiments.paper.published import CONFIGURATION_KEYS, METRICS, read_table3
from crackseg.lineage import settings_behind
from crackseg.params.effects import RESULTS
from crackseg.tracking.store import FinishedRun, Store

DATASETS = tuple(KNOWN_DATASETS)
UNKNOWN_SOURCE = "unknown"


@dataclass(frozen=True)
class ConfigurationResult:
    """Finished runs of a configuration.

    Attributes:
        configuration: the configuration, one of Table 3.
        runs: one for each seed, the newest first; empty: missing.
        training_id: the run that trained the newest run's weights; another run if results were scored again.
        departures: settings that differ from the paper's: key, the paper's value, theirs.
        sources: by dataset and ``train``, ``sample`` or ``imported``.
    """

    configuration: Configuration
    runs: tuple[FinishedRun, ...] = ()
    training_id: str = ""
    departures: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def row(self) -> PaperRow:
        """Return the key of its values in Table 3."""
        assert self.configuration.paper_row is not None, self.configuration.name
        return self.configuration.paper_row

    def values_of(self, dataset: str, name: str) -> list[float]:
        """Return a metric of each run that was scored on the dataset."""
        return [run.metrics[f"{dataset}/{name}"] for run in self.runs if f"{dataset}/{name}" in run.metrics]


def gather_results(
    store: Store, configurations: Sequence[Configuration], runs: Sequence[FinishedRun]
) -> list[ConfigurationResult]:
    """Find the runs of each configuration.

    Runs of one group have equal settings except for the seed, and the same version of the data. Of a configuration's
    groups, one on imported data is preferred to one on the sample, then the one that departs from the paper in the
    fewest settings, then that of the newest run; of its runs, the newest of each seed scored on the most datasets.

    Args:
        store: where the runs are.
        configurations: those of Table 3.
        runs: finished runs of stages, the newest first.
    """
    scored = [run for run in runs if any(f"{dataset}/ods" in run.metrics for dataset in DATASETS)]
    return [_gather_one(store, configuration, scored) for configuration in configurations]


def _gather_one(store: Store, configuration: Configuration, runs: Sequence[FinishedRun]) -> ConfigurationResult:
    kinds: dict[object, list[FinishedRun]] = {}
    for run in runs:
        if matches(configuration, run.params):
            settings = settings_behind(RESULTS, run.params)
            settings.pop("train.seed", None)
            kinds.setdefault((run.tags["data.md5"], *sorted(settings.items())), []).append(run)
    if not kinds:
        return ConfigurationResult(configuration)
    sources = {id(of_kind): read_sources(store, of_kind[0]) for of_kind in kinds.values()}
    chosen = min(  # the first of equals, so of the newest run
        kinds.values(),
        key=lambda of_kind: (
            SAMPLE_SOURCE in sources[id(of_kind)].values(),
            len(describe_departures(configuration, of_kind[0])),
        ),
    )
    by_seed: dict[str, FinishedRun] = {}
    for run in sorted(chosen, key=lambda run: -sum(f"{dataset}/ods" in run.metrics for dataset in DATASETS)):
        by_seed.setdefault(run.params.get("train.seed", ""), run)
    chosen_runs = tuple(run for run in chosen if run in by_seed.values())  # the newest first again
    return ConfigurationResult(
        configuration,
        chosen_runs,
        training_id=_training_id(chosen_runs[0]),
        departures=describe_departures(configuration, chosen[0]),
        sources=sources[id(chosen)],
    )


def describe_departures(configuration: Configuration, run: FinishedRun) -> dict[str, tuple[str, str]]:
    """List settings of a run that differ from the paper, also in scoring: key, the paper's value, the run's."""
    departures = find_departures(configuration, run.params)
    return {key: (str(theirs), str(ours)) for key, (theirs, ours) in departures.items()}


def read_sources(store: Store, run: FinishedRun) -> dict[str, str]:
    """Read the source of a run's images: by dataset, and as ``train`` those that it was trained on."""
    sources = {"train": UNKNOWN_SOURCE}
    for run_id in dict.fromkeys((_training_id(run), run.run_id)):
        for given, profile in read_inputs(store, run_id):
            name, _, split = given.rpartition("-")
            if split == "train":
                sources["train"] = profile["source"]
            if split == run.params.get("data.evaluate_split", "test"):
                sources[name] = profile["source"]
    return sources


def read_inputs(store: Store, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Read the images that a run recorded: ``DATASET-SPLIT``, and their number (``images``) and ``source``."""
    inputs = store.get_run(run_id).inputs
    given = [item.dataset for item in inputs.dataset_inputs] if inputs else []
    return [(dataset.name, json.loads(dataset.profile or "{}")) for dataset in given]


def _training_id(run: FinishedRun) -> str:
    """Return the run that holds the weights: for results under other settings, the parent (docs/adr/0002)."""
    return run.tags["mlflow.parentRunId"] if "crackseg.settings" in run.tags else run.run_id


def compare_with_paper(results: Sequence[ConfigurationResult]) -> pd.DataFrame:
    """Compare our values with the paper's.

    Returns:
        A row for each dataset and configuration: ``CONFIGURATION_KEYS``, ``status`` (``finished`` or ``missing``),
        ``num_runs``, and for each of ``METRICS`` the mean over the runs, ``_spread`` (their standard deviation, NaN of
        one run), ``_paper`` and ``_difference``; then ``source`` (of the images), ``trained_on``, ``departures`` and
        ``run_ids``.
    """
    rows = []
    for dataset in DATASETS:
        for result in results:
            row: dict[str, object] = {"dataset": dataset, **result.row._asdict()}
            ods = result.values_of(dataset, "ods")
            row |= {"status": "finished" if ods else "missing", "num_runs": len(ods)}
            for name in METRICS:
                values = result.values_of(dataset, name)
                row[name] = fmean(values) if values else float("nan")
                row[f"{name}_spread"] = stdev(values) if len(values) > 1 else float("nan")
            row["source"] = result.sources.get(dataset, UNKNOWN_SOURCE) if ods else ""
            row["trained_on"] = result.sources.get("train", UNKNOWN_SOURCE) if ods else ""
            departures = sorted(result.departures.items()) if ods else []
            row["departures"] = "; ".join(
                f"{key} = {ours} (paper: {theirs})" for key, (theirs, ours) in departures
            )
            row["run_ids"] = " ".join(run.run_id for run in result.runs if f"{dataset}/ods" in run.metrics)
            rows.append(row)
    table = pd.DataFrame(rows).merge(read_table3(), on=CONFIGURATION_KEYS, how="left", suffixes=("", "_paper"))
    for name in METRICS:
        table[f"{name}_difference"] = table[name] - table[f"{name}_paper"]
    columns = [f"{name}{part}" for name in METRICS for part in ("", "_spread", "_paper", "_difference")]
    given = ["source", "trained_on", "departures", "run_ids"]
    return table[[*CONFIGURATION_KEYS, "status", "num_runs", *columns, *given]]


def mark_best(table: pd.DataFrame, column: str) -> pd.Series:
    """Mark the values that the paper would print in bold: the best of the four losses of each training strategy.

    None is marked unless there are two to compare. Modified U-Net and DeepCrack are not compared.
    """
    compared = table[table["init"] != ""]
    of_strategy = compared.groupby(["dataset", "init"])[column]
    best = (of_strategy.transform("max") == compared[column]) & (of_strategy.transform("count") > 1)
    return best.reindex(table.index, fill_value=False)


def choose_best(results: Sequence[ConfigurationResult]) -> ConfigurationResult | None:
    """Choose the configuration scored on the most datasets, then the highest mean ODS; None: all are missing."""
    finished = [result for result in results if result.runs]

    def rank(result: ConfigurationResult) -> tuple[int, float]:
        means = [fmean(ods) for dataset in DATASETS if (ods := result.values_of(dataset, "ods"))]
        return len(means), fmean(means)

    return max(finished, key=rank, default=None)


def uses_sample(table: pd.DataFrame) -> bool:
    """Return whether a value of ours is from the embedded synthetic sample, or from a model trained on it."""
    return bool((table[["source", "trained_on"]] == SAMPLE_SOURCE).any(axis=None))
