"""`crackseg paper report` on a project in which one configuration was trained for real."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from crackseg.data.images.files import read_image, read_probability_map
from crackseg.experiments.paper.comparison import choose_best, gather_results
from crackseg.experiments.paper.configurations import TABLE3
from crackseg.experiments.paper.examples import predict_examples
from crackseg.tracking.store import Store
from tests.pipeline.conftest import Project

CONFIGURATION = {"model": {"architecture": "modified_unet", "width": 4}, "optimizer": {"lr": 0.0001}}


@pytest.mark.slow
def test_a_report_of_a_trained_cell(fresh: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fresh.set_params(CONFIGURATION)
    fresh.commit("A cell of Table 3, small")
    fresh.run("dvc", "repro")
    fresh.commit("Results")
    # Without a report, DVC's commands work as ever.
    fresh.run("dvc", "plots", "show", "-o", str(tmp_path / "before"))
    assert "recall" in (tmp_path / "before" / "index.html").read_text(encoding="utf-8")

    said = fresh.run("crackseg", "paper", "report", "--architectures", "unet", "--repeats", "2")
    assert "1 of 10 configurations of Table 3 are finished" in said
    assert "note:" not in said
    out_dir = fresh.folder / "outputs" / "paper"
    page = (out_dir / "report.md").read_text(encoding="utf-8")
    assert "EMBEDDED SYNTHETIC SAMPLE" in page
    assert "train.epochs = 2 (paper: 300)" in page
    assert "extrapolated from 2 epochs" in page
    for name in ("table3", "figure3", "figure4", "table4"):
        assert read_image(out_dir / f"{name}.png").std() > 5
    times = pd.read_csv(out_dir / "table4.csv").set_index("architecture")
    assert times.loc["unet", "inference_float32_s"] > 0
    assert times.loc["unet", "inference_repeats"] == 2
    assert "cpu" in times.loc["unet", "inference_hardware"]
    assert times.loc["modified_unet", "training_s_300_epochs"] > 0
    assert times.loc["modified_unet", "training_basis"] == "extrapolated from 2 epochs"
    assert times.loc["unet", "training_basis"] == "extrapolated from 3 steps"  # never trained here

    # DVC shows the pictures, and takes them for no change.
    fresh.run("dvc", "plots", "show", "-o", str(tmp_path / "shown"))
    shown = (tmp_path / "shown" / "index.html").read_text(encoding="utf-8")
    for name in ("table3", "figure3", "figure4", "table4"):
        assert f"outputs_paper_{name}.png" in shown
    assert "up to date" in fresh.run("dvc", "status")
    assert fresh.run("git", "status", "--porcelain") == ""
    fresh.run("dvc", "plots", "diff", "HEAD", "-o", str(tmp_path / "diff"))

    # Each report is a run of its own, and none is taken for a configuration.
    assert "1 of 10 configurations" in fresh.run("crackseg", "paper", "report", "--no-timing")
    store = Store(fresh.folder)
    reports = [run for run in store.finished_runs() if run.name == "paper-report"]
    assert len(reports) == 2
    recorded = MlflowClient(store.uri).list_artifacts(reports[0].run_id, "paper")
    assert {"paper/figure4.png", "paper/table3.csv", "paper/report.md"} <= {file.path for file in recorded}

    # Figure 4 shows what was scored: the map that the pipeline saved, at the threshold that it found.
    best = choose_best(gather_results(store, TABLE3, store.finished_runs()))
    assert best is not None
    scored = {
        dataset: pd.read_csv(fresh.folder / "outputs" / "scores" / f"{dataset}_images.csv", dtype={"stem": str})
        for dataset in ("CrackTree260", "CRKWH100")
    }
    examples, problems = predict_examples(store, best, fresh.folder, scored)
    assert [example.dataset for example in examples] == ["CrackTree260", "CRKWH100"]
    assert not problems
    for example in examples:
        prob = read_probability_map(
            fresh.folder / "outputs" / "predictions" / example.dataset / f"{example.stem}.png"
        )
        stretched = (prob - prob.min()) / np.ptp(prob)
        assert np.abs(stretched - example.stretched).max() < 0.01
        assert ((stretched >= example.threshold) == example.crack_mask).mean() > 0.98
