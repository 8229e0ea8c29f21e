"""Model card of a registered version: description, training, scores and intended use.

Everything in it comes from the version's run in MLflow. It is an artifact of that run, and the version's description in
the MLflow UI.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from crackseg.data.catalog import KNOWN_DATASETS, SAMPLE_SOURCE
from crackseg.errors import CracksegError
from crackseg.evaluation.false_alarms import describe_false_alarms
from crackseg.evaluation.html import render_html
from crackseg.files import format_markdown
from crackseg.lineage import describe_loss
from crackseg.registry.version_tags import THRESHOLD_TAG, find_results_run, note_results_run, read_tags
from crackseg.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.entities.model_registry import ModelVersion

CARD_NAME = "model_card.md"
MAX_DESCRIPTION_CHARACTERS = 5000  # the column's width in MLflow's database
_PROTOCOLS = {
    "paper": ("", "ground truth dilated by the tolerance, as in the paper; tolerant of thick predictions"),
    "symmetric": ("symmetric/", "precision and recall both within the tolerance"),
    "strict": ("strict/", "pixel by pixel, no tolerance"),
}
_SECTIONS = (
    "data",
    "augment",
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "train",
    "predict",
    "postprocess",
    "evaluate",
)
_FAILURES = 3  # of each dataset


class Section(NamedTuple):
    """A part of the card.

    Attributes:
        title: its heading.
        body: Markdown.
        rank: if the description is too short for all sections, the lowest ranks are kept.
    """

    title: str
    body: str
    rank: int


def write_card(store: Store, version: ModelVersion, results_run_id: str | None = None) -> str:
    """Write a version's card, log it in the run of its results and set it as the version's description.

    Args:
        store: where the version is registered.
        version: of the registered model.
        results_run_id: the run with its scores, if that is a child of the training run; None: as last time, or the
            training run itself.
    Returns:
        The card, Markdown. The description is cut to the sections that MLflow has room for.
    Raises:
        CracksegError: the run is not in the store.
    """
    client = store.client
    results_run_id = results_run_id or find_results_run(version) or version.run_id
    if results_run_id is None:
        raise CracksegError(f"version {version.version} of {version.name} has no run, and so no scores for a card")
    run, results = store.get_run(str(version.run_id)), store.get_run(results_run_id)
    datasets = _list_datasets(results)
    with tempfile.TemporaryDirectory() as scratch:
        failures = {name: _read_failures(store, results_run_id, name, Path(scratch)) for name in datasets}
        title = f"# {version.name} version {version.version}"
        sections = build_sections(version, run, results, failures)
        card = "\n\n".join([title, *(f"## {s.title}\n\n{s.body}" for s in sections)]) + "\n"
        path = Path(scratch) / CARD_NAME
        path.write_text(card, encoding="utf-8")
        page = path.with_suffix(".html")
        page.write_text(render_html(card, title=f"{version.name} version {version.version}"), encoding="utf-8")
        with store.record(results_run_id) as recorder:
            recorder.log_file(path)
            recorder.log_file(page)
    note_results_run(client, version, results_run_id)
    client.update_model_version(version.name, version.version, shorten(title, sections, results_run_id))
    return card


def build_sections(
    version: ModelVersion, run: Run, results: Run, failures: Mapping[str, pd.DataFrame | None]
) -> list[Section]:
    """Write the card's sections in order.

    Args:
        version: with its tags.
        run: the training run.
        results: with the scores; may be the same.
        failures: by dataset, its worst images, from :func:`find_failures`; None if they are not recorded.
    """
    params, tags = run.data.params | results.data.params, run.data.tags
    return [
        Section("What it is", _describe_model(version, run, params), 0),
        Section("Intended use", _describe_use(params), 2),
        Section("Limits", _describe_limits(params, run, list(failures)), 3),
        Section("Scores", _describe_scores(results, list(failures), params, tags), 1),
        Section("Where it fails", _describe_failures(results, failures), 4),
        Section("Data", _describe_data(run, results), 5),
        Section("Licences of the data", _describe_licences(run, list(failures)), 6),
        Section("Settings", _describe_settings(params), 8),
        Section("How to make it again", _describe_origin(tags), 7),
    ]


def shorten(title: str, sections: Sequence[Section], run_id: str, limit: int = MAX_DESCRIPTION_CHARACTERS) -> str:
    """Keep the sections that fit into a description, by rank, and name the others."""
    note = f"Shortened; whole, with {{}}: artifact {CARD_NAME} of run {run_id}."
    kept = set(sections)
    while True:
        left_out = [s.title for s in sections if s not in kept]
        parts = [title, *(f"## {s.title}\n\n{s.body}" for s in sections if s in kept)]
        text = "\n\n".join(parts + ([note.format(", ".join(left_out))] if left_out else [])) + "\n"
        if len(text) <= limit:
            return text
        if not kept:
            return text[:limit]
        kept.remove(max(kept, key=lambda section: section.rank))


def find_failures(table: pd.DataFrame, count: int = _FAILURES) -> pd.DataFrame:
    """Find the images with the lowest F under the paper's protocol, worst first, then the worst false alarms.

    Args:
        table: ``DATASET_images.csv``, with the columns ``stem``, ``crack_pixels``, ``paper_f`` (empty for images
            without cracks) and ``false_crack_pixels`` (empty for others; missing in tables of an older crackseg).
        count: of each kind, at most.
    """
    worst = table.dropna(subset=["paper_f"]).sort_values(["paper_f", "stem"]).head(count)
    if "false_crack_pixels" not in table:
        return worst
    alarms = table[table["false_crack_pixels"] > 0]
    order = ["false_crack_pixels", "stem"]
    return pd.concat([worst, alarms.sort_values(order, ascending=[False, True]).head(count)])


def _list_datasets(results: Run) -> list[str]:
    asked = results.data.params.get("data.test_datasets", "[]")
    names = [name.strip(" '\"") for name in asked.strip("[]").split(",")]
    return [name for name in names if name and f"{name}/ods" in results.data.metrics]


def _read_failures(store: Store, run_id: str, dataset: str, folder: Path) -> pd.DataFrame | None:
    name = f"per_image/{dataset}_images.csv"
    if name not in {artifact.path for artifact in store.client.list_artifacts(run_id, "per_image")}:
        return None
    path = Path(store.client.download_artifacts(run_id, name, str(folder)))
    return find_failures(pd.read_csv(path, dtype={"stem": str}))


def _describe_model(version: ModelVersion, run: Run, params: Mapping[str, str]) -> str:
    # Versions of an earlier crackseg have no such tag; without post-processing theirs is that of the training.
    trained = run.data.metrics.get("operating_threshold")
    shown = read_tags(version).get(THRESHOLD_TAG) or ("as trained" if trained is None else f"{trained:.4f}")
    warning = (
        "**Trained on the embedded synthetic sample, not on photographs: it shows that the pipeline works and is "
        "useless on real surfaces.**\n\n"
        if _is_sample(run)
        else ""
    )
    return (
        f"{warning}A network that marks cracks in photographs of roads and concrete, pixel by pixel. Architecture "
        f"`{params.get('model.architecture')}`, initial weights `{params.get('model.init')}`, "
        f"loss {describe_loss(params)}, {params.get('train.epochs')} epochs on "
        f"{params.get('data.train_dataset')}. In: an encoded photograph. Out: a crack mask, the fraction of crack "
        "pixels, the cracks' length in pixels, the highest crack probability. "
        f"Operating threshold: {shown} (chosen on validation images, on raw probabilities). Run "
        f"{version.run_id}."
    )


def _describe_use(params: Mapping[str, str]) -> str:
    return (
        "To find and measure thin cracks in photographs that look like those of "
        f"{params.get('data.train_dataset')}, as a first pass over many images whose result a person checks. Compare "
        "new photographs with the training images (`crackseg predict` does) before relying on it. Not for: deciding "
        "alone on a structure's safety, crack widths in millimetres, or surfaces it was not tested on."
    )


def _describe_limits(params: Mapping[str, str], run: Run, datasets: Sequence[str]) -> str:
    size = params.get("data.size_px")
    resize = {
        "square": f"resized to {size} × {size} px, whatever their shape",
        "pad": f"resized to at most {size} px a side and padded",
        "none": "at their own size",
    }.get(params.get("data.resize", ""), "prepared")
    crop = params.get("augment.crop_px", "0")
    patches = f", in patches of {crop} px" if crop != "0" else ""
    untested = [name for name in KNOWN_DATASETS if name not in datasets]
    lines = [
        f"- Trained on images {resize}{patches}; predictions are made at a photograph's own size, in tiles of "
        f"{params.get('predict.tile_size_px')} px. Cracks at a much different scale than in training are missed or "
        "drawn too thick.",
        "- Its ground truth is lines, 1 px wide for the published datasets before resizing. The mask's width is not "
        "the crack's width.",
        f"- Scored on {', '.join(datasets) or 'nothing'} only"
        + (f"; not on {', '.join(untested)}" if untested else "")
        + ". Other materials, cameras, light, wet or painted surfaces: untested.",
        "- ODS takes the best threshold of each test dataset, which is unknown beforehand; at the operating "
        "threshold results are usually lower.",
        "- Joints, edges, shadows, veins and scratches look like cracks. One training run, one seed "
        f"({params.get('train.seed')}).",
    ]
    if _is_sample(run):
        lines.insert(0, "- All data were drawn by a program; the datasets only bear the published names.")
    return "\n".join(lines)


def _describe_scores(
    results: Run, datasets: Sequence[str], params: Mapping[str, str], tags: Mapping[str, str]
) -> str:
    metrics = results.data.metrics

    def show(key: str) -> str:
        return f"{metrics[key]:.4f}" if key in metrics else "–"

    rows = []
    names = ("ods", "precision", "recall", "ois", "ap")
    for dataset in datasets:
        count = metrics.get(f"{dataset}/num_images")
        number = "–" if count is None else f"{count:.0f}"
        for protocol, (prefix, _) in _PROTOCOLS.items():
            rows.append([dataset, number, protocol, *(show(f"{dataset}/{prefix}{name}") for name in names)])
    iou = ", ".join(f"{d} {show(f'{d}/centerline_iou')}" for d in datasets)
    alarms = "; ".join(f"{d} {describe_false_alarms(_values_of(metrics, d))}" for d in datasets)
    protocols = "; ".join(f"*{name}*: {meaning}" for name, (_, meaning) in _PROTOCOLS.items())
    made = [d for d in datasets if tags.get(f"data.{d}.source") == SAMPLE_SOURCE]
    sample = f"**On the embedded synthetic sample, not the published images: {', '.join(made)}.** " if made else ""
    return (
        format_markdown(
            ["dataset", "images", "protocol", "ODS", "precision", "recall", "OIS", "AP"], rows, "lrlrrrrr"
        )
        + f"\n{sample}Split `{params.get('data.evaluate_split')}`, tolerance "
        f"{params.get('evaluate.tolerance_px')} px. {protocols}. Mean ODS {show('mean/ods')}; centre-line IoU at the "
        f"operating threshold: {iou or '–'}. False alarms there: {alarms or '–'}."
    )


def _values_of(metrics: Mapping[str, float], dataset: str) -> dict[str, float]:
    prefix = f"{dataset}/"
    return {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}


def _describe_failures(results: Run, failures: Mapping[str, pd.DataFrame | None]) -> str:
    artifacts = f"#/experiments/{results.info.experiment_id}/runs/{results.info.run_id}/artifacts/report"
    lines = []
    for dataset, table in failures.items():
        if table is None or table.empty:
            worst = "no scored images recorded" if table is None else "no image with a crack, and no false alarm"
        else:
            worst = ", ".join(
                f"`{row.stem}` "
                + (
                    f"(F {row.paper_f:.3f}, {row.crack_pixels} crack pixels)"
                    if pd.notna(row.paper_f)
                    else f"(crack-free, {row.false_crack_pixels:.0f} pixels marked)"
                )
                for row in table.itertuples(index=False)
            )
        panel = f"{dataset}_panels.png"
        lines.append(f"- {dataset}: {worst}. Best to worst in pictures: [report/{panel}]({artifacts}/{panel}).")
    return "Lowest F (paper protocol, each image at its own best threshold):\n\n" + "\n".join(lines)


def _describe_data(run: Run, results: Run) -> str:
    rows = []
    seen = set()
    for found in [*_list_inputs(run), *_list_inputs(results)]:
        context = next((tag.value for tag in found.tags if tag.key == "mlflow.data.context"), "?")
        name, digest = found.dataset.name, found.dataset.digest
        if (context, name, digest) in seen:
            continue
        seen.add((context, name, digest))
        profile = json.loads(found.dataset.profile or "{}")
        images, source = profile.get("images", "?"), profile.get("source", "?")
        rows.append([f"{context}: {name}", images, f"`{digest}`", source])
    whole = results.data.tags.get("data.md5") or run.data.tags.get("data.md5", "unknown")
    table = format_markdown(["used for", "images", "version (MD5)", "source"], rows, "lrll")
    return table + f"\nWhole of `data/`, as in `data.dvc`: `{whole}`."


def _describe_licences(run: Run, datasets: Sequence[str]) -> str:
    used = dict.fromkeys([run.data.params.get("data.train_dataset", "?"), *datasets])
    drawn = [name for name in used if run.data.tags.get(f"data.{name}.source") == SAMPLE_SOURCE]
    known = [name for name in used if name in KNOWN_DATASETS and name not in drawn]
    others = [name for name in used if name not in KNOWN_DATASETS and name not in drawn]
    lines = []
    if drawn:
        lines.append(
            f"- {', '.join(drawn)}: the embedded sample, drawn by crackseg, which has its licence, MIT. It has the "
            "names of published datasets, and contains nothing of them."
        )
    if known:
        lines.append(
            f"- {', '.join(known)}: collected by the authors of DeepCrack (Zou et al., 2019) for academic research, "
            "published without a licence. Ask them before any other use, of weights trained on it too. crackseg does "
            "not redistribute it."
        )
    if others:
        lines.append(f"- {', '.join(others)}: the owner's terms hold; crackseg does not know them.")
    return "\n".join(lines)


def _describe_settings(params: Mapping[str, str]) -> str:
    lines = []
    for section in _SECTIONS:
        values = [
            f"{k.split('.', 1)[1]} {v or '–'}" for k, v in sorted(params.items()) if k.split(".")[0] == section
        ]
        if values:
            lines.append(f"- {section}: {', '.join(values)}")
    return "\n".join(lines)


def _describe_origin(tags: Mapping[str, str]) -> str:
    versions = ", ".join(
        f"{key.removeprefix('version.')} {tags[key]}" for key in sorted(tags) if "version." in key
    )
    return (
        f"Commit `{tags.get('git.commit', 'unknown')}` ({tags.get('git.state', 'unknown')}), data as above, then "
        f"`dvc repro`. Trained on {tags.get('device', 'an unknown device')} with {versions}."
    )


def _list_inputs(run: Run) -> list[DatasetInput]:
    return run.inputs.dataset_inputs if run.inputs else []


def _is_sample(run: Run) -> bool:
    return run.data.tags.get("data.source") == SAMPLE_SOURCE
