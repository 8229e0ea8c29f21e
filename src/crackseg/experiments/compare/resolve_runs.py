"""Resolve run ids, versions of a registered model, and names of DVC experiments or runs to runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run

from crackseg.errors import CracksegError
from crackseg.params import complete_settings
from crackseg.registry.version_tags import find_results_run
from crackseg.tracking.runs import list_datasets
from crackseg.tracking.store import Store

_HOW = (
    "expected a run id (32 hexadecimal digits), a version of the registered model (3, v3, @production, "
    "models:/NAME/3), or the name of a DVC experiment or run"
)


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run with scores.

    Attributes:
        label: its name in figures and tables.
        run_id: in MLflow.
        params: flat, as recorded; keys that a run of an older version lacks have their default.
        tags: as recorded.
        metrics: the last value of each.
        images: by dataset, the images that were scored: ``SPLIT DIGEST``; without datasets where that was not recorded.
    """

    label: str
    run_id: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    images: dict[str, str]

    @property
    def datasets(self) -> list[str]:
        """Datasets that it was scored on."""
        return list_datasets(self.metrics)


def find_runs(store: Store, words: Sequence[str], model_name: str) -> tuple[list[ComparedRun], list[str]]:
    """Find the runs that the words name.

    Args:
        store: is searched.
        words: of the user; digits alone are a version, 32 hexadecimal digits a run, anything else that is no
            ``models:/`` or ``runs:/`` address is a name.
        model_name: the registered model of bare version numbers.
    Returns:
        The runs in the order of the words, each with its own label, and remarks.
    Raises:
        CracksegError: fewer than two runs, one twice, one that is not there, or one without scores.
    """
    if len(words) < 2:
        raise CracksegError(f"{' '.join(words) or 'no run'}: a comparison needs at least two runs; {_HOW}")
    remarks: list[str] = []
    found = [_find(store, word, model_name, remarks) for word in words]
    by_id: dict[str, str] = {}
    for word, (_, run) in zip(words, found, strict=True):
        if former := by_id.get(run.info.run_id):
            same = f"{word} is given twice:" if former == word else f"{former} and {word} are"
            raise CracksegError(f"{same} the same run, {run.info.run_id}; give each run once")
        by_id[run.info.run_id] = word
    labels = [label for label, _ in found]
    runs = [
        _describe(label if labels.count(label) == 1 else f"{label} ({run.info.run_id[:8]})", run)
        for label, run in found
    ]
    for described in runs:
        if not described.datasets:
            raise CracksegError(
                f"run {described.label} ({described.run_id}) has no scores: expected metrics such as "
                "CRKWH100/ods. It was not evaluated completely; finish it with "
                "`dvc repro`, or look at it in `crackseg ui`"
            )
    return runs, remarks


def _find(store: Store, word: str, model_name: str, remarks: list[str]) -> tuple[str, Run]:
    """Find the run that a word names, and its label."""
    if version := re.fullmatch(r"v?(\d+)", word):
        return f"version {version[1]}", _results_of(store, model_name, version[1], word)
    if address := re.fullmatch(r"(?:models:/([^/@]+))?(?:/(\d+)|@(.+))", word):
        name = address[1] or model_name
        number = address[2] or store.find_version(name, address[3])
        if number is None:
            raise CracksegError(f"{word}: the model {name!r} has no alias {address[3]!r}; see `crackseg models`")
        shown = f"version {number}" if name == model_name else f"{name} version {number}"
        return shown, _results_of(store, name, number, word)
    run_id = word.removeprefix("runs:/")
    if re.fullmatch(r"[0-9a-f]{32}", run_id):
        run = store.get_run(run_id)
        return run.info.run_name or run_id[:8], run
    return word, _find_named(store, word, remarks)


def _results_of(store: Store, name: str, number: str, word: str) -> Run:
    version = store.get_version(name, number)
    run_id = find_results_run(version) or version.run_id
    if not run_id:
        raise CracksegError(f"{word}: version {number} of {name!r} has no run, and so no scores; compare others")
    return store.get_run(run_id)


def _find_named(store: Store, name: str, remarks: list[str]) -> Run:
    """Find the newest run of a name, of those with scores if there are any."""
    named: dict[str, Run] = {}
    if "'" not in name and '"' not in name:  # names from crackseg or DVC have no quotes
        for key in ("tags.`dvc.exp_name`", "attributes.run_name"):
            for run in store.client.search_runs([store.experiment_id], f"{key} = '{name}'"):
                named.setdefault(run.info.run_id, run)
    if not named:
        # E.g. behind --json, which takes no value. An experiment lr-0.001 has an ending, too, but not of letters.
        if "/" in name or Path(name).exists() or re.fullmatch(r"\.[A-Za-z]+", Path(name).suffix):
            raise CracksegError(
                f"{name} looks like a path and is no run: {_HOW}. The folder for page and figures is given "
                f"as `--out {name}`; --json and --log take no value (`--json > FILE` keeps what is printed)"
            )
        known = sorted({run.name for run in store.finished_runs() if run.name})
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise CracksegError(
            f"no run or DVC experiment {name!r} in {store.uri}: {_HOW}{hint} An experiment whose stages were all "
            "cached has no run of its own: name the run in its outputs/model/run.json"
        )
    by_age = sorted(named.values(), key=lambda run: run.info.start_time or 0, reverse=True)
    scored = [run for run in by_age if _describe(name, run).datasets]
    chosen = (scored or by_age)[0]
    if len(by_age) > 1:
        which = "newest with scores" if scored else "newest"
        remarks.append(f"{len(by_age)} runs are named {name}; compared is the {which}, {chosen.info.run_id}")
    return chosen


def _describe(label: str, run: Run) -> ComparedRun:
    scored: dict[str, str] = {}
    validated: dict[str, str] = {}
    for given in run.inputs.dataset_inputs if run.inputs else []:
        dataset, _, split = given.dataset.name.rpartition("-")
        which = f"{split} {given.dataset.digest}"
        if any(tag.key == "mlflow.data.context" and tag.value == "evaluation" for tag in given.tags):
            scored[dataset] = which
        elif split == run.data.params.get("data.evaluate_split") and f"{dataset}/ods" in run.data.metrics:
            # MLflow keeps one input of a name and digest: that the training had validated on it, before it was scored.
            validated[dataset] = which
    images = validated | scored
    return ComparedRun(
        label, run.info.run_id, complete_settings(run.data.params), run.data.tags, run.data.metrics, images
    )
