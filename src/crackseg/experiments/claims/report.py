"""Write the page of the study: tables, figures, and how often each of the paper's claims held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from crackseg.data.catalog import IMPORTED_SOURCE, data_source, read_manifest
from crackseg.data.importing.importer import import_datasets
from crackseg.data.masks.crack_values import CrackValue
from crackseg.data.versioning import fetch_data
from crackseg.evaluation.score_files import describe_source
from crackseg.experiments.claims.figures import draw_losses
from crackseg.experiments.claims.study import (
    BUDGET,
    LOSSES,
    NUM_EPOCHS,
    OUR_LOSS,
    PAPER_LOSSES,
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

_ROW = ["system", "init", "loss"]


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
    for summary in import_datasets(photographs, data_dir, name=name, crack_values=crack_values):
        print(summary, flush=True)
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
    draw_losses(table, paths[2], losses=list(LOSSES), source=label)
    write_csv(table, paths[0], digits=5)
    counts = read_manifest(data_dir, dataset)["split"].value_counts()
    verdicts = [*_judge_paper_losses(table), *_judge_inits(table), *_judge_our_loss(table)]
    page = _write_page(dataset, source, counts, table, verdicts)
    write_bytes(paths[1], page.encode())
    record_study(root, dataset, paths)
    return "\n".join([*verdicts, f"\nthe whole study: {paths[1]}"])


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Compute mean and population standard deviation over the seeds, in the table's order.

    Returns:
        Indexed by system, initial weights and loss; columns (figure, ``mean`` or ``std``), (``cpu_seconds``, ``mean``)
        and (``seeds``, ``count``).
    """
    groups = table.groupby(_ROW, sort=False)
    figures = list(_FIGURES)
    means = groups[[*figures, "cpu_seconds"]].mean()
    spreads = groups[figures].std(ddof=0)
    joined = pd.concat({"mean": means, "std": spreads}, axis=1).swaplevel(axis=1)
    joined[("seeds", "count")] = groups.size()
    return joined


def _ods_by_loss(table: pd.DataFrame) -> pd.DataFrame:
    """Return ODS by system, initial weights and seed, with a column for each loss; NaN where it was not trained."""
    return table.pivot_table(index=["system", "init", "seed"], columns="loss", values="ods", sort=False)


def _judge_paper_losses(table: pd.DataFrame) -> list[str]:
    """Judge the claims about losses, counted over systems with their initial weights, and over seeds."""
    ods = _ods_by_loss(table)[list(PAPER_LOSSES)]
    means = ods.groupby(level=["system", "init"], sort=False).mean()
    focal = [loss for loss in PAPER_LOSSES if loss != "bce"]
    # A loss that was not trained is NaN: its row is not counted.
    full, of_full = ods.dropna(), means.dropna()
    beaten = (of_full["bce"] < of_full[focal].min(axis=1)).sum()
    pairs = sum((full["bce"] < full[loss]).sum() for loss in focal)
    gains = means["focal γ=2"] - means["bce"]
    best = of_full.idxmax(axis=1)
    spread = full.groupby(level=["system", "init"], sort=False).std(ddof=0).mean(axis=None)
    return [
        f"- **Cross-entropy fails?** Its mean ODS is below that of every focal loss in {beaten} of {len(of_full)} "
        f"rows of system and initial weights; a focal loss with the same seed beats it in {pairs} of "
        f"{full[focal].size} pairs. γ = 2 changes the mean ODS by {_list_differences(gains)}.",
        f"- **γ = 2 best of the paper's four losses?** It has the highest mean ODS in {(best == 'focal γ=2').sum()} of "
        f"{len(of_full)} ("
        + "; ".join(f"{_from(*index)}: {loss}" for index, loss in best.items())
        + "), and the highest of its seed in "
        + f"{(full.idxmax(axis=1) == 'focal γ=2').sum()} of {len(full)} cases. The spread over seeds is "
        f"{spread:.3f} on average, the distance from γ = 2 to the best loss "
        f"{(of_full.max(axis=1) - of_full['focal γ=2']).mean():.3f}.",
    ]


def _judge_inits(table: pd.DataFrame) -> list[str]:
    ods = table.pivot_table(index=["system", "loss", "seed"], columns="init", values="ods", sort=False)
    verdicts = []
    for init in ods.columns.drop("random"):
        pairs = ods[["random", init]].dropna()
        gains = (pairs[init] - pairs["random"]).groupby(level=["system", "loss"], sort=False).mean()
        changes = ", ".join(f"{value:+.3f} ({system}, {loss})" for (system, loss), value in gains.items())
        verdicts.append(
            f"- **Random beats pretrained ({init})?** Random weights win {(pairs['random'] > pairs[init]).sum()} of "
            f"{len(pairs)} pairs of the same system, loss and seed. The weights `{init}` change the mean ODS by "
            f"{changes}."
        )
    return verdicts


def _judge_our_loss(table: pd.DataFrame) -> list[str]:
    """Compare crackseg's loss with the best of the paper's, and the best row with the paper's recipe."""
    ods = _ods_by_loss(table)
    means = ods.groupby(level=["system", "init"], sort=False).mean()
    gains = means[OUR_LOSS] - means[list(PAPER_LOSSES)].max(axis=1)
    wins = (ods[OUR_LOSS] > ods[list(PAPER_LOSSES)].max(axis=1)).sum()
    of_rows = table.groupby(_ROW, sort=False)["ods"].mean()
    best = of_rows.idxmax()
    system, init, loss = best
    paper = of_rows.get((system, "random", "focal γ=2"))
    return [
        f"- **A better loss than the paper's?** `{OUR_LOSS}` has a higher mean ODS than the best trained of the "
        f"paper's losses in {(gains > 0).sum()} of {len(gains)} rows of system and initial weights "
        f"({_list_differences(gains)}), and beats all of them with the same seed in {wins} of {len(ods)} cases.",
        f"- **Best of all**: {_from(system, init)} with {loss}, {of_rows[best]:.3f}"
        + (f"; the paper's choice, random weights and γ = 2, has {paper:.3f} with this system." if paper else "."),
    ]


def _list_differences(gains: pd.Series) -> str:
    return ", ".join(f"{value:+.3f} ({_from(*index)})" for index, value in gains.dropna().items())


def _from(system: str, init: str) -> str:
    return f"{system} from {init}"


def _format_table(table: pd.DataFrame) -> str:
    """Write a Markdown table: a row for each system, initial weights and loss; the best mean ODS in bold."""
    summary = summarise(table)
    best = summary[("ods", "mean")].groupby(level=["system", "init"]).transform("max")
    rows = []
    for index, row in summary.iterrows():
        cells = [f"{row[(figure, 'mean')]:.3f} ± {row[(figure, 'std')]:.3f}" for figure in _FIGURES]
        if row[("ods", "mean")] == best[index]:
            cells[0] = f"**{cells[0]}**"
        rows.append([*index, *cells, f"{row[('cpu_seconds', 'mean')]:.0f}", int(row[("seeds", "count")])])
    header = ["system", "from", "loss", *_FIGURES.values(), "CPU s", "seeds"]
    return format_markdown(header, rows, "lll" + "r" * (len(_FIGURES) + 2))


def _write_page(dataset: str, source: str, counts: pd.Series, table: pd.DataFrame, verdicts: Sequence[str]) -> str:
    systems = "\n".join(
        f"- `{name}`: {_describe(system.settings)}; about {system.num_steps} steps"
        for name, system in SYSTEMS.items()
    )
    budget = _describe(BUDGET)
    minutes = table["cpu_seconds"].sum() / 60
    seeds = table.groupby(_ROW).size()
    unfinished = (
        ""
        if seeds.min() == seeds.max()
        else f"**Not finished: the rows have {seeds.min()} to {seeds.max()} seeds so far (last column); the "
        "same command trains the others.**\n\n"
    )
    warning = "" if source == IMPORTED_SOURCE else "**These are synthetic scenes, not photographs.**\n\n"
    return f"""# A study of the paper's claims on two cores

Made by `crackseg study`. {warning}The paper trains DeepLabV3-ResNet101 for 300 epochs, which needs a GPU. This study
trains small models on {dataset} ({counts.get("train", 0)} training and {counts.get("val", 0)} validation images), with
about the same processor time and the same settings for all, and several seeds. It shows the first minutes of small
networks; it neither confirms nor refutes the paper's scores, which come from larger models, longer training and other
data.

All scores are of the validation images, and the best of {NUM_EPOCHS // int(BUDGET["train.validate_every"])} validations
was chosen for every model; no test images are used. On hair-thin cracks a system at 0.03 has learnt nothing: that is
about the score of calling every pixel a crack.

{unfinished}## What held

{chr(10).join(verdicts)}

## Scores

![ODS by loss](images/study_losses.png)

{_format_table(table)}
Mean ± population standard deviation over the seeds; paper protocol unless named, post-processing none; clIoU at the
operating threshold; CPU s: processor time of training with its validations, over all cores, mean. Bold: the best mean
ODS of a system from these weights.

## Settings

{budget}

{systems}

Initial weights ([models](models.md#options)): `random`; `scenes`, crackseg's own, trained on drawn scenes alone;
`imagenet`, of the encoder. All other settings are those of params.yaml as committed. {len(table)} training runs,
{minutes:.0f} minutes of processor time in total. Scores by seed: [study.csv](study.csv). In MLflow: the run
`study-{dataset}` and its children.
"""


def _describe(changes: Mapping[str, object]) -> str:
    return ", ".join(f"`{key}` {value}" for key, value in changes.items())
