"""Write Table 3 as text and Markdown: ours, the paper's and the difference, in the paper's layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from crackseg.data.catalog import SAMPLE_SOURCE
from crackseg.experiments.paper.comparison import CONFIGURATION_KEYS, DATASETS, mark_best, uses_sample
from crackseg.experiments.paper.configurations import PaperRow
from crackseg.experiments.paper.published import read_deepcrack_table
from crackseg.files import format_markdown, frame_to_markdown

MISSING = "missing"
SAMPLE_NOTE = "EMBEDDED SYNTHETIC SAMPLE, not the published datasets"
SAMPLE_WARNING = f"{SAMPLE_NOTE}: the differences to the paper's values mean nothing"
DEEPCRACK_TITLE = (
    "DeepCrack's own Table I: another training set (all 260 images of CrackTree260; ours: 200 of them)"
)
_METRICS = {"OIS": ("ois",), "ODS": ("ods", "precision", "recall"), "AP": ("ap",)}
_STRATEGIES = {"coco": "pretrained", "random": "random"}
_SYSTEMS = {
    "modified_unet": "Modified U-Net",
    "deepcrack": "DeepCrack",
    "deeplabv3_resnet101": "DeepLabV3-ResNet101",
}
_SYSTEM_NOTES = {"deepcrack": "the paper's values are DeepCrack's own, from another training set (see below)"}
_NOTE_MARKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class TableRow:
    """A line of Table 3.

    Attributes:
        label: the text in its first column.
        kind: ``ours``, ``paper`` or ``difference``.
        texts: one for each configuration, lines separated by ``\\n``.
        bold: whether each is the best.
    """

    label: str
    kind: Literal["ours", "paper", "difference"]
    texts: tuple[str, ...]
    bold: tuple[bool, ...]


def name_loss(row: PaperRow) -> str:
    """Name a loss: ``BCE`` or ``focal γ=2``."""
    return "BCE" if row.loss == "bce" else f"{row.loss} γ={row.gamma}"


def name_configuration(row: PaperRow) -> str:
    """Name a configuration as a column of Table 3: ``Modified U-Net``, ``random, focal γ=2``."""
    return f"{_STRATEGIES[row.init]}, {name_loss(row)}" if row.init else _SYSTEMS[row.system]


def name_source(source: str) -> str:
    """Name the source of images."""
    return "embedded synthetic sample" if source == SAMPLE_SOURCE else f"{source} data"


def list_columns(table: pd.DataFrame) -> list[PaperRow]:
    """List the configurations of a comparison, in its order."""
    return [PaperRow(*keys) for keys in table[CONFIGURATION_KEYS[1:]].drop_duplicates().itertuples(index=False)]


def make_rows(table: pd.DataFrame, dataset: str) -> list[TableRow]:
    """Write one dataset's values, three lines for each metric.

    Args:
        table: from :func:`crackseg.experiments.paper.comparison.compare_with_paper`.
        dataset: one of its datasets.
    """
    rows = []
    part = table[table["dataset"] == dataset]
    for metric, (name, *beside) in _METRICS.items():
        best, paper_best = mark_best(part, name), mark_best(part, f"{name}_paper")
        ours, paper, difference = [], [], []
        for _, configuration in part.iterrows():
            ours.append(
                _write_value(configuration, name, beside, "") if configuration["status"] == "finished" else MISSING
            )
            paper.append(_write_value(configuration, name, beside, "_paper"))
            off = configuration[f"{name}_difference"]
            difference.append("–" if math.isnan(off) else f"{off:+.4f}".replace("-", "−"))
        rows += [
            TableRow(f"{metric}, ours", "ours", tuple(ours), tuple(best)),
            TableRow(f"{metric}, paper", "paper", tuple(paper), tuple(paper_best)),
            TableRow("difference", "difference", tuple(difference), (False,) * len(part)),
        ]
    return rows


def _write_value(configuration: pd.Series, name: str, beside: Sequence[str], whose: str) -> str:
    """Write a value, e.g. ``0.8530``, and below it @P and @R of ODS, or ± of OIS."""
    if math.isnan(configuration[f"{name}{whose}"]):
        return "–"
    lines = [f"{configuration[f'{name}{whose}']:.4f}"]
    lines += [f"@{other[0].upper()} {configuration[f'{other}{whose}']:.4f}" for other in beside]
    if name == "ois":
        lines.append(f"± {configuration[f'ois_std{whose}']:.4f}")
    return "\n".join(line for line in lines if not line.endswith("nan"))


def describe_dataset(table: pd.DataFrame, dataset: str) -> str:
    """Name the dataset and the source of its images, e.g. ``CRKWH100 (imported data)``."""
    sources = dict.fromkeys(name_source(s) for s in table.loc[table["dataset"] == dataset, "source"] if s)
    return f"{dataset} ({', '.join(sources)})" if sources else dataset


def make_notes(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Write notes on single configurations.

    Returns:
        A mark for each column ("" for none), and the notes, each beginning with its mark.
    """
    marks: list[str] = []
    notes: dict[str, str] = {}
    for row in list_columns(table):
        configurations = table[
            (table[CONFIGURATION_KEYS[1:]] == list(row)).all(axis=1) & (table["status"] == "finished")
        ]
        said = []
        if row.system in _SYSTEM_NOTES:
            said.append(_SYSTEM_NOTES[row.system])
        if len(configurations):
            if (count := int(configurations["num_runs"].max())) > 1:
                said.append(
                    f"ours is the mean of {count} runs that differ in their seed (table3.csv has their spread)"
                )
            if departures := configurations["departures"].iloc[0]:
                said.append(f"ours departs from the paper: {departures}")
            if (trained_on := configurations["trained_on"].iloc[0]) == SAMPLE_SOURCE:
                said.append(f"ours was trained on the {name_source(trained_on)}")
        note = "; ".join(said)
        if note:
            notes.setdefault(note, _NOTE_MARKS[len(notes)])
        marks.append(notes.get(note, ""))
    return marks, [f"{mark}: {note}" for note, mark in notes.items()]


def format_table3(table: pd.DataFrame) -> str:
    """Write Table 3 as Markdown, with DeepCrack's own table below it."""
    columns = list_columns(table)
    marks, notes = make_notes(table)
    finished = table.groupby(CONFIGURATION_KEYS[1:], sort=False)["status"].agg(
        lambda status: (status == "finished").any()
    )
    lines = ["## Table 3", ""]
    if uses_sample(table):
        lines += [f"> **{SAMPLE_WARNING}.**", ""]
    lines += [
        f"{int(finished.sum())} of {len(columns)} configurations are finished. *pretrained* and *random*: "
        "DeepLabV3-ResNet101 trained from COCO's weights and from random ones. ODS is above the precision (@P) and "
        "recall (@R) that it is reached at, OIS above its standard deviation among the images (±). "
        "Bold: of each training strategy, the best of its losses.",
        "",
    ]
    header = [
        "",
        *(
            name_configuration(row) + (f" [{mark}]" if mark else "")
            for row, mark in zip(columns, marks, strict=True)
        ),
    ]
    for dataset in DATASETS:
        rows = [[row.label, *map(_emphasize, row.texts, row.bold)] for row in make_rows(table, dataset)]
        lines += [
            f"### {describe_dataset(table, dataset)}",
            "",
            format_markdown(header, rows, "l" + "r" * len(columns)),
        ]
    lines += [f"- [{note[0]}]{note[1:]}" for note in notes]
    lines += ["", f"## {DEEPCRACK_TITLE}", "", frame_to_markdown(write_deepcrack_table())]
    return "\n".join(lines)


def write_deepcrack_table() -> pd.DataFrame:
    """Write DeepCrack's own table as text."""
    table = read_deepcrack_table()
    shown = pd.DataFrame({"method": table["method"]})
    for dataset in DATASETS[1:]:
        for name in ("ods", "ois", "ap"):
            shown[f"{dataset} {name.upper()}"] = [
                "–" if math.isnan(value) else f"{value:.4f}" for value in table[f"{dataset}_{name}"]
            ]
    shown["FPS, Titan X"] = [f"{value:g}" for value in table["fps_titan_x"]]
    return shown


def _emphasize(text: str, bold: bool) -> str:
    first, *rest = text.split("\n")
    return "\n".join([f"**{first}**" if bold else first, *rest])
