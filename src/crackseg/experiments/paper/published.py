"""Values published in the papers, as printed; read from the CSV files next to this module, which name the source."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

CONFIGURATION_KEYS = ["dataset", "system", "init", "loss", "gamma"]
METRICS = ["ods", "precision", "recall", "ois", "ois_std", "ap"]


def read_table3() -> pd.DataFrame:
    """Read Table 3: a row for each dataset and configuration.

    Returns:
        ``CONFIGURATION_KEYS`` as text, as ``PaperRow`` has them ("" where the paper names none), and
        ``METRICS`` in [0, 1], NaN where it reports none.
    """
    return _read("table3.csv", text=CONFIGURATION_KEYS)


def read_table4() -> pd.DataFrame:
    """Read Table 4: ``system``, ``hardware``, ``training_s_300_epochs`` (NaN: none), ``inference_s``, ``fps``."""
    return _read("table4.csv", text=["system", "hardware"])


def read_deepcrack_table() -> pd.DataFrame:
    """Read Table I of DeepCrack: ``method``, ``DATASET_ods``, ``DATASET_ois``, ``DATASET_ap``, ``fps_titan_x``.

    Its systems were trained on all 260 images of CrackTree260, ours on 200 of them.
    """
    return _read("deepcrack_table1.csv", text=["method"])


def _read(name: str, *, text: list[str]) -> pd.DataFrame:
    with files("crackseg.experiments.paper").joinpath(name).open(encoding="utf-8") as file:
        table = pd.read_csv(file, comment="#", dtype=dict.fromkeys(text, str))
    return table.fillna(dict.fromkeys(text, ""))
