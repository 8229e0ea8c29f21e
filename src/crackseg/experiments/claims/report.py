"""Write the page of the study: tables, figures, and how often each of the paper's claims held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from crackseg.data.catalog import IMPORTED_SOURCE, data_source, read_manifest
from crackseg.data.importing.importer import import_datasets
from crackseg.data.masks.crack_values import CrackValue
from crackseg.data.versioning import fetch_data
from crackseg.evaluation.plots import describe_source
from crackseg.experiments.claims.figures import draw_inits, draw_losses
from crackseg.experiments.claims.study import (
    BUDGET,
    LOSSES,
    NUM_EPOCHS,
    NUM_STEPS,
    PRETRAINED_SYSTEM,
    SYSTEMS,
    record_study,
)
from crackseg.files import format_markdown, write_bytes, write_csv
from crackseg.params import load_params
from crackseg.project import find_real_root

_FIGURES = {
    "ods": "ODS",
    "ois": "OIS",
    "ap": "AP",
    "symmetric_ods": "symmetric ODS",
    "strict_ods": "strict ODS",
    "centerline_iou": "clIoU",
}


def import_photographs(
    root: Path, photographs: Path | None, name: str, crack_values: tuple[CrackValue, ...] | None
) -> tuple[Path, str]:
    """Return where the study's images are: the user's, imported next to ``data/``, or the training dataset.

    Returns:
        (data_dir, dataset).
    Raises:
        CracksegError: the photographs cannot be imported; see ``crackseg data import``.
    """
    if photographs is None:
        fetch_data(root)
        return root / "data", load_params(root / "params.yaml").data.train_dataset
    data_dir = find_real_root(root) / "mlruns" / "studies" / "data"
    data_dir.mkdir(parents=True, exist_ok=True)
    import_datasets(photographs, data_dir, name=name, crack_values=crack_values)
    return data_dir, name


def write_study(root: Path, table: pd.DataFrame, data_dir: Path, dataset: str, out_dir: Path) -> str:
    """Write ``study.md``, ``study.csv`` and the figures into ``out_dir``, and log them to the study's run.

    Args:
        table: from ``run_study``.
    Returns:
        Text for the user.
    """
    images_dir = out_dir / "images"
    source = data_source(data_dir, dataset)
    label = f"{dataset}: {describe_source([source])}"
    paths = [out_dir / "study.csv", out_dir / "study.md", images_dir / "study_losses.png"]
    compared = table[table["system"] != PRETRAINED_SYSTEM]
    inits = table[table["system"] == PRETRAINED_SYSTEM]
    draw_losses(compared, paths[2], losses=list(LOSSES), source=label)
    if len(inits):
        paths.append(images_dir / "study_init.png")
        draw_inits(inits, paths[3], source=label)
    write_csv(table, paths[0], digits=5)
    counts = read_manifest(data_dir, dataset)["split"].value_counts()
    verdicts = [*_judge_losses(compared), *_judge_inits(inits)]
    page = _write_page(dataset, source, counts, table, compared, inits, verdicts)
    write_bytes(paths[1], page.encode())
    record_study(root, dataset, paths)
    return "\n".join([*verdicts, f"\nthe whole study: {paths[1]}"])


def summarise(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Compute mean and population standard deviation over the seeds, in the table's order.

    Returns:
        Indexed by ``keys``; columns (figure, ``mean`` or ``std``), and (``seeds``, ``count``).
    """
    groups = table.groupby(list(keys), sort=False)
    figures = list(_FIGURES)
    means = groups[figures].mean()
    spreads = groups[figures].std(ddof=0)
    joined = pd.concat({"mean": means, "std": spreads}, axis=1).swaplevel(axis=1)
    joined[("seeds", "count")] = groups.size()
    return joined


def _judge_losses(table: pd.DataFrame) -> list[str]:
    """Judge the claims about losses, counted over systems and over seeds."""
    ods = table.pivot_table(index=["system", "seed"], columns="loss", values="ods", sort=False)
    focal = [loss for loss in LOSSES if loss != "bce"]
    means = ods.groupby(level="system", sort=False).mean()
    beaten = (means["bce"] < means[focal].min(axis=1)).sum()
    pairs = sum((ods["bce"] < ods[loss]).sum() for loss in focal)
    best = means.idxmax(axis=1)
    gain = (means["focal γ=2"] - means["bce"]).mean()
    return [
        f"- **Cross-entropy fails?** Its mean ODS is below that of every focal loss in {beaten} of {len(means)} "
        f"systems; a focal loss with the same seed beats it in {pairs} of {len(ods) * len(focal)} pairs. "
        f"γ = 2 is ahead by {gain:+.3f} ODS on average.",
        f"- **γ = 2 best?** It has the highest mean ODS in {(best == 'focal γ=2').sum()} of {len(means)} systems ("
        + ", ".join(f"{system}: {loss}" for system, loss in best.items())
        + "), and the highest of its seed in "
        + f"{(ods.idxmax(axis=1) == 'focal γ=2').sum()} of {len(ods)} cases. The spread over seeds is "
        f"{table.groupby(['system', 'loss'])['ods'].std(ddof=0).mean():.3f} on average, the distance from γ = 2 to the "
        f"best loss {(means.max(axis=1) - means['focal γ=2']).mean():.3f}.",
    ]


def _judge_inits(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["- **Random beats pretrained?** Not tested: the study ran with `--no-pretrained`."]
    ods = table.pivot_table(index=["loss", "seed"], columns="init", values="ods", sort=False)
    wins = (ods["random"] > ods["imagenet"]).sum()
    difference = (ods["imagenet"] - ods["random"]).groupby(level="loss", sort=False).mean()
    return [
        f"- **Random beats pretrained?** Random weights win {wins} of {len(ods)} pairs of the same loss and seed. "
        "ImageNet's encoder changes the mean ODS by "
        + ", ".join(f"{value:+.3f} ({loss})" for loss, value in difference.items())
        + "."
    ]


def _format_table(table: pd.DataFrame, key: str, names: Sequence[str]) -> str:
    """Write a Markdown table: a row for each system and ``key``, the best mean ODS of a system in bold."""
    summary = summarise(table, ["system", key, *(["loss"] if key == "init" else [])])
    best = summary[("ods", "mean")].groupby(level="system").transform("max")
    rows = []
    for index, row in summary.iterrows():
        cells = [f"{row[(figure, 'mean')]:.3f} ± {row[(figure, 'std')]:.3f}" for figure in _FIGURES]
        if row[("ods", "mean")] == best[index]:
            cells[0] = f"**{cells[0]}**"
        rows.append([*index, *cells, int(row[("seeds", "count")])])
    header = [*names, *_FIGURES.values(), "seeds"]
    return format_markdown(header, rows, "l" * len(names) + "r" * (len(_FIGURES) + 1))


def _write_page(
    dataset: str,
    source: str,
    counts: pd.Series,
    table: pd.DataFrame,
    compared: pd.DataFrame,
    inits: pd.DataFrame,
    verdicts: Sequence[str],
) -> str:
    systems = "\n".join(f"- `{name}`: {_describe(changes)}" for name, changes in SYSTEMS.items())
    budget = _describe(BUDGET)
    minutes = table["seconds"].sum() / 60
    seeds = table.groupby(["system", "init", "loss"]).size()
    unfinished = (
        ""
        if seeds.min() == seeds.max()
        else f"**Not finished: the rows have {seeds.min()} to {seeds.max()} seeds so far (last column); the "
        "same command trains the others.**\n\n"
    )
    warning = "" if source == IMPORTED_SOURCE else "**These are synthetic scenes, not photographs.**\n\n"
    of_inits = (
        "## ImageNet weights compared with random weights\n\n"
        f"{_format_table(inits, 'init', ['system', 'init', 'loss'])}\n"
        "![ODS by initial weights](images/study_init.png)\n"
        if len(inits)
        else ""
    )
    return f"""# A study of the paper's claims on two cores

Made by `crackseg study`. {warning}The paper trains DeepLabV3-ResNet101 for 300 epochs, which needs a GPU. This study
trains small models on {dataset} ({counts.get("train", 0)} training and {counts.get("val", 0)} validation images), each
for about {NUM_STEPS} steps ({NUM_EPOCHS} epochs), with the same budget for all and several seeds. It shows
early effects in small networks; it neither confirms nor refutes the paper's scores, which come
from larger models and other data.

All scores are of the validation images, and the best of {NUM_EPOCHS // int(BUDGET["train.validate_every"])} validations
was chosen for every model; no test images are used. A system at 0.03 has learnt nothing (0.03 is the score of
calling every pixel a crack), so the order of its losses has no meaning.

{unfinished}## What held

{chr(10).join(verdicts)}

## Losses

![ODS by loss](images/study_losses.png)

{_format_table(compared, "loss", ["system", "loss"])}
Mean ± population standard deviation over the seeds; paper protocol unless named, post-processing none; clIoU at the
operating threshold. Bold: a system's best mean ODS.

{of_inits}
## Settings

{budget}

{systems}

All other settings are those of params.yaml as committed. {len(table)} training runs, {minutes:.0f} minutes of training
time in total. Scores by seed: [study.csv](study.csv). In MLflow: the run `study-{dataset}` and its children.
"""


def _describe(changes: dict[str, object]) -> str:
    return ", ".join(f"`{key}` {value}" for key, value in changes.items())
