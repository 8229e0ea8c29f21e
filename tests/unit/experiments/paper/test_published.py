"""Published values: as printed, for every configuration that we run, and wherever crackseg is installed."""

import math
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from crackseg.data.catalog import KNOWN_DATASETS
from crackseg.experiments.paper.configurations import TABLE3
from crackseg.experiments.paper.published import (
    CONFIGURATION_KEYS,
    METRICS,
    read_deepcrack_table,
    read_table3,
    read_table4,
)

ROOT = Path(__file__).parents[4]


def row_of(table: pd.DataFrame, *keys: str) -> pd.Series:
    (row,) = (row for _, row in table.iterrows() if tuple(row[key] for key in CONFIGURATION_KEYS) == keys)
    return row


@pytest.mark.parametrize(
    ("keys", "figures"),
    [
        (
            ("CrackTree260", "deeplabv3_resnet101", "random", "focal", "2"),
            (0.8449, 0.7870, 0.9120, 0.8577, 0.0241, 0.8820),
        ),
        (
            ("Stone331", "deeplabv3_resnet101", "random", "bce", ""),
            (0.0277, 0.0140, 1.0000, 0.0453, 0.0309, 0.0098),
        ),
        (
            ("CrackLS315", "deeplabv3_resnet101", "coco", "focal", "4"),
            (0.6698, 0.5656, 0.8210, 0.6761, 0.2467, 0.5178),
        ),
        (("CRKWH100", "deepcrack", "", "", ""), (0.9095, math.nan, math.nan, 0.9170, math.nan, 0.9315)),
        (("CRKWH100", "modified_unet", "", "", ""), (0.3483, math.nan, math.nan, 0.3350, math.nan, 0.1242)),
    ],
)
def test_table3_is_as_printed(keys: tuple[str, ...], figures: tuple[float, ...]) -> None:
    assert row_of(read_table3(), *keys)[METRICS].tolist() == pytest.approx(figures, nan_ok=True)


def test_every_cell_finds_its_figures() -> None:
    table = read_table3()
    printed = {tuple(keys) for keys in table[CONFIGURATION_KEYS].itertuples(index=False)}
    ours = {
        (dataset, *configuration.paper_row)
        for dataset in KNOWN_DATASETS
        for configuration in TABLE3
        if configuration.paper_row
    }
    assert ours - printed == {("CrackTree260", "deepcrack", "", "", "")}  # DeepCrack was trained on all of it
    assert printed <= ours
    assert len(table) == len(printed)


def test_table4_is_as_printed() -> None:
    times = read_table4().set_index("system")
    assert times.loc["deeplabv3_resnet101", "training_s_300_epochs"] == 6 * 3600
    assert times.loc["modified_unet", "training_s_300_epochs"] == 2 * 3600 + 15 * 60
    assert math.isnan(times.loc["deepcrack", "training_s_300_epochs"])
    assert times["inference_s"].to_dict() == {
        "deepcrack": 0.153, "modified_unet": 0.040, "deeplabv3_resnet101": 0.078,
    }  # fmt: skip
    assert "RTX 2080" in times.loc["modified_unet", "hardware"]


def test_the_paper_took_its_deepcrack_from_deepcracks_own_table() -> None:
    own = read_deepcrack_table().set_index("method").loc["DeepCrack"]
    taken = read_table3().query("system == 'deepcrack'").set_index("dataset")
    for dataset, figures in taken.iterrows():
        assert [own[f"{dataset}_{name}"] for name in ("ods", "ois", "ap")] == figures[
            ["ods", "ois", "ap"]
        ].tolist()


def test_the_tables_are_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["crackseg.experiments.paper"]
    folder = ROOT / "src" / "crackseg" / "experiments" / "paper"
    shipped = {path.name for pattern in patterns for path in folder.glob(pattern)}
    assert shipped == {"table3.csv", "table4.csv", "deepcrack_table1.csv"}
