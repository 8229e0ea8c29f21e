"""A report says what the finished runs say, beside the paper's figures, and nothing that they do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crackseg.data.images.files import read_image
from crackseg.errors import CracksegError
from crackseg.experiments.paper import report, timing
from crackseg.experiments.paper.comparison import (
    DATASETS,
    ConfigurationResult,
    choose_best,
    compare_with_paper,
    gather_results,
    mark_best,
    uses_sample,
)
from crackseg.experiments.paper.configurations import TABLE3, apply_configuration
from crackseg.experiments.paper.published import CONFIGURATION_KEYS, METRICS
from crackseg.experiments.paper.table3 import SAMPLE_WARNING, format_table3
from crackseg.experiments.paper.table4 import extrapolate_steps, format_table4, gather_training_times, make_table4
from crackseg.experiments.paper.timing import (
    InferenceTiming,
    choose_architectures,
    time_architectures,
    time_training,
)
from crackseg.params import flatten_params, load_params
from crackseg.tracking.store import Store

ROOT = Path(__file__).parents[4]
COMMITTED = load_params(ROOT / "params.yaml")
CONFIGURATIONS = {configuration.name: configuration for configuration in TABLE3}
RANDOM_G2, RANDOM_G4, RANDOM_BCE = "table3-random-focal-g2", "table3-random-focal-g4", "table3-random-bce"

Finish = Callable[..., str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "dvc.yaml", "data.dvc"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def store(root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    """An experiment of its own for each test; one database, since making one takes seconds."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return Store(root)


@pytest.fixture
def finish(store: Store, tmp_path: Path) -> Finish:
    """Log a finished run of a configuration, as the pipeline's stages do."""

    def log_run(
        name: str,
        *,
        overrides: Mapping[str, object] | None = None,
        scores: Mapping[str, float] | None = None,
        datasets: tuple[str, ...] = DATASETS,
        source: str = "imported",
        seconds: float = 36000.0,
        device: str = "cuda (NVIDIA GeForce RTX 4090)",
    ) -> str:
        params = apply_configuration(COMMITTED, CONFIGURATIONS[name], overrides)
        figures = dict.fromkeys(METRICS, 0.5) | {"threshold": 0.4} | dict(scores or {})
        run_id = store.create_run(name)
        with store.record(run_id) as recorder:
            recorder.log_params(flatten_params(params))
            recorder.set_tags({"data.md5": f"{source}.dir", "data.source": source, "device": device})
            for dataset, split in (
                ("CrackTree260", "train"),
                *((d, params.data.evaluate_split) for d in datasets),
            ):
                recorder.log_dataset(
                    f"{dataset}-{split}", f"{source}.dir", context="evaluation", num_images=200, source=source
                )
            recorder.log_metrics({f"{d}/{key}": value for d in datasets for key, value in figures.items()})
            recorder.log_metrics({"training_seconds": seconds})
            curve = pd.DataFrame({"precision": [0.1, 0.6, 0.9], "recall": [0.9, 0.6, 0.2], "f": [0.18, 0.6, 0.33]})
            for dataset in datasets:
                curve.to_csv(tmp_path / f"{dataset}_pr.csv", index=False)
                recorder.log_file(tmp_path / f"{dataset}_pr.csv", "pr_curves")
            recorder.end("FINISHED")
        return run_id

    return log_run


def gather(store: Store) -> dict[str, ConfigurationResult]:
    return {
        result.configuration.name: result
        for result in gather_results(store, TABLE3, store.finished_runs(of_stages=True))
    }


def compare(store: Store) -> pd.DataFrame:
    return compare_with_paper(gather_results(store, TABLE3, store.finished_runs(of_stages=True)))


def row_of(table: pd.DataFrame, dataset: str, name: str) -> pd.Series:
    keys = (dataset, *(CONFIGURATIONS[name].paper_row or ()))
    (row,) = (row for _, row in table.iterrows() if tuple(row[key] for key in CONFIGURATION_KEYS) == keys)
    return row


def test_ours_stands_beside_the_papers_with_the_difference(store: Store, finish: Finish) -> None:
    finish(
        RANDOM_G2, scores={"ods": 0.8, "precision": 0.75, "recall": 0.85, "ois": 0.82, "ois_std": 0.03, "ap": 0.9}
    )
    table = compare(store)
    assert len(table) == len(DATASETS) * len(TABLE3)
    row = row_of(table, "CrackTree260", RANDOM_G2)
    assert row["ods_paper"] == 0.8449
    assert row["ods_difference"] == pytest.approx(0.8 - 0.8449)
    assert row["ap_difference"] == pytest.approx(0.9 - 0.8820)
    text = format_table3(table)
    assert "1 of 10 configurations are finished" in text
    assert "0.8000<br>@P 0.7500<br>@R 0.8500" in text
    assert "**0.7572**<br>@P 0.7075<br>@R 0.8144" in text  # the paper's own best on Stone331
    assert "0.8200<br>± 0.0300" in text
    assert "−0.0449" in text
    assert text.count("missing") == 3 * (len(table) - len(DATASETS))


def test_a_dataset_that_was_not_scored_is_missing(store: Store, finish: Finish) -> None:
    finish(RANDOM_G2, datasets=("CrackTree260",))
    table = compare(store)
    assert row_of(table, "CrackTree260", RANDOM_G2)["status"] == "finished"
    assert row_of(table, "Stone331", RANDOM_G2)["status"] == "missing"


def test_bold_is_the_best_of_a_training_strategy(store: Store, finish: Finish) -> None:
    finish(RANDOM_BCE, scores={"ods": 0.2})
    finish(RANDOM_G2, scores={"ods": 0.8})
    finish(RANDOM_G4, scores={"ods": 0.7})
    finish("table3-coco-focal-g1", scores={"ods": 0.9})  # alone in its strategy
    finish("table3-deepcrack", scores={"ods": 0.95})  # not compared
    table = compare(store)
    best = table[mark_best(table, "ods")]
    assert {(row["init"], row["loss"], row["gamma"]) for _, row in best.iterrows()} == {("random", "focal", "2")}
    assert set(best["dataset"]) == set(DATASETS)
    printed = table[(table["dataset"] == "CRKWH100") & mark_best(table, "ods_paper")]
    assert set(printed["ods_paper"]) == {0.6612, 0.8166}


def test_seeds_are_averaged_and_of_one_seed_the_newest_counts(store: Store, finish: Finish) -> None:
    finish(RANDOM_G2, scores={"ods": 0.1})
    newest = finish(RANDOM_G2, scores={"ods": 0.7})
    other = finish(RANDOM_G2, overrides={"train.seed": 1}, scores={"ods": 0.8})
    row = row_of(compare(store), "CRKWH100", RANDOM_G2)
    assert row["ods"] == pytest.approx(0.75)
    assert row["ods_spread"] == pytest.approx(np.std([0.7, 0.8], ddof=1))
    assert row["num_runs"] == 2
    assert row["run_ids"] == f"{other} {newest}"
    assert "mean of 2 runs" in format_table3(compare(store))


@pytest.mark.parametrize(
    ("key", "value"),
    [("registry.max_drop", 0.1), ("train.cache_gb", 0), ("train.num_processes", 2), ("predict.engine", "torch")],
)
def test_seeds_are_averaged_wherever_they_were_computed(
    store: Store, finish: Finish, key: str, value: object
) -> None:
    finish(RANDOM_G2, scores={"ods": 0.6})
    finish(RANDOM_G2, overrides={"train.seed": 1, key: value}, scores={"ods": 0.8})
    assert row_of(compare(store), "CRKWH100", RANDOM_G2)["num_runs"] == 2


def test_runs_of_other_settings_are_not_averaged(store: Store, finish: Finish) -> None:
    finish(RANDOM_G2, scores={"ods": 0.1})
    finish(RANDOM_G2, overrides={"train.seed": 1, "augment.blur": 0.0}, scores={"ods": 0.8})
    assert row_of(compare(store), "CRKWH100", RANDOM_G2)["ods"] == 0.8


def test_a_trial_of_the_machinery_never_hides_the_papers_recipe(store: Store, finish: Finish) -> None:
    finish(RANDOM_G2, scores={"ods": 0.8})
    finish(RANDOM_G2, overrides={"train.epochs": 2}, scores={"ods": 0.1})
    finish(RANDOM_G4, overrides={"train.epochs": 2}, scores={"ods": 0.2})
    table = compare(store)
    assert row_of(table, "CRKWH100", RANDOM_G2)["ods"] == 0.8
    assert row_of(table, "CRKWH100", RANDOM_G2)["departures"] == ""
    assert row_of(table, "CRKWH100", RANDOM_G4)["departures"] == "train.epochs = 2 (paper: 300)"
    assert "ours departs from the paper: train.epochs = 2 (paper: 300)" in format_table3(table)


@pytest.mark.parametrize("override", [{"data.evaluate_split": "val"}, {"evaluate.tolerance_px": 4}])
def test_scores_of_something_else_are_said_to_be(store: Store, finish: Finish, override: dict) -> None:
    finish(RANDOM_G2, overrides=override)
    assert next(iter(override)) in row_of(compare(store), "CRKWH100", RANDOM_G2)["departures"]


def test_trials_of_a_search_are_neither_in_the_tables_nor_read(store: Store, finish: Finish) -> None:
    run_id = finish(RANDOM_G2)
    store.client.delete_tag(run_id, "data.md5")  # trials do not record the version of the data
    assert store.finished_runs(of_stages=True) == []
    assert len(store.finished_runs()) == 1


def test_the_sample_is_never_taken_for_the_published_datasets(store: Store, finish: Finish) -> None:
    finish(RANDOM_G2, scores={"ods": 0.9}, source="sample")
    table = compare(store)
    assert uses_sample(table)
    text = format_table3(table)
    assert f"**{SAMPLE_WARNING}.**" in text
    assert "### CRKWH100 (embedded synthetic sample)" in text
    finish(RANDOM_G2, scores={"ods": 0.6}, overrides={"train.epochs": 200})
    finish(RANDOM_G2, scores={"ods": 0.9}, source="sample")
    table = compare(store)
    assert row_of(table, "CRKWH100", RANDOM_G2)["ods"] == 0.6  # real images first, whatever is newer
    assert not uses_sample(table)
    assert SAMPLE_WARNING not in format_table3(table)


def test_results_scored_anew_keep_the_training_they_are_of(store: Store, finish: Finish) -> None:
    trained = finish(RANDOM_G2, overrides={"evaluate.tolerance_px": 4}, scores={"ods": 0.9})
    params = store.get_run(trained).data.params
    child = store.run_for_settings(
        trained, {"evaluate.tolerance_px": 2, "data.md5": "imported.dir", "train.epochs": params["train.epochs"]}
    )
    with store.record(child) as recorder:
        recorder.log_metrics({f"CRKWH100/{name}": 0.7 for name in METRICS})
        recorder.log_dataset(
            "CRKWH100-test", "imported.dir", context="evaluation", num_images=100, source="imported"
        )
    result = gather(store)[RANDOM_G2]
    assert [run.run_id for run in result.runs] == [child]
    assert result.training_id == trained
    assert result.sources == {
        "train": "imported",
        "CrackTree260": "imported",
        "CRKWH100": "imported",
    } | dict.fromkeys(DATASETS[2:], "imported")


def test_figure_4_shows_the_cell_of_most_datasets_and_best_ods(store: Store, finish: Finish) -> None:
    finish(RANDOM_BCE, scores={"ods": 0.99}, datasets=("CrackTree260",))
    finish(RANDOM_G2, scores={"ods": 0.8})
    finish(RANDOM_G4, scores={"ods": 0.7})
    best = choose_best(list(gather(store).values()))
    assert best is not None
    assert best.configuration.name == RANDOM_G2


def test_training_time_is_measured_or_marked_as_extrapolated(store: Store, finish: Finish) -> None:
    for configuration, seconds in ((RANDOM_G2, 20000.0), (RANDOM_G4, 22000.0), (RANDOM_BCE, 30000.0)):
        finish(configuration, seconds=seconds)
    finish(RANDOM_G2, seconds=9.0, overrides={"data.size_px": 64, "augment.crop_px": 48})  # says nothing of 512 px
    finish("table3-deepcrack", overrides={"train.epochs": 3}, seconds=300.0, device="cuda (NVIDIA L4)")
    times = gather_training_times(store, store.finished_runs())
    assert sorted(times["deeplabv3_resnet101"].seconds) == [20000, 22000, 30000]
    assert times["deepcrack"].seconds == (30000.0,)
    table = make_table4(times, [], inference_hardware="")
    text = format_table4(table)
    assert "6 h 07 m (5 h 33 m–8 h 20 m, 3 runs), measured" in text
    assert "8 h 20 m, extrapolated from 3 epochs" in text
    assert "modified_unet | no finished training run" in text
    assert "(deepcrack): cuda (NVIDIA L4); 200 images, 512 px, crops of 448 px, batch 2" in text
    assert "2 h 15 m" in text  # the paper's


def test_an_architecture_that_was_never_trained_has_a_time_too_marked_as_extrapolated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = timing.build_model

    def build_some(architecture: str) -> object:
        if architecture == "setr":
            raise CracksegError("pip install 'crackseg[models]'")
        return build("unet", width=4)

    monkeypatch.setattr(timing, "build_model", build_some)
    monkeypatch.setattr(timing, "CROP_PX", 32)
    state = torch.get_rng_state()
    steps = time_training(["setr", "unet"], device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert list(steps) == ["unet"]
    assert len(steps["unet"]) == 3
    assert 0 < min(steps["unet"]) < 5
    times = extrapolate_steps({"unet": (2.0, 1.0, 9.0)}, hardware="cpu (Some CPU, 2 threads)")
    assert times["unet"].seconds == (2.0 * 100 * 300,)  # 200 images in batches of 2
    text = format_table4(make_table4(times, [], inference_hardware=""))
    assert "| unet | 16 h 40 m, extrapolated from 3 steps |" in text
    assert (
        "Training, ours (unet): cpu (Some CPU, 2 threads); 200 images, crops of 448 px, batch 2, steps alone"
        in text
    )


def test_inference_shows_median_spread_and_what_is_not_installed() -> None:
    timings = [
        InferenceTiming("unet", "float32", (0.4, 0.2, 0.25)),
        InferenceTiming("unet", "bfloat16", (0.1, 0.1, 0.1)),
        InferenceTiming("setr", "", (), problem="install them with pip install 'crackseg[models]'"),
    ]
    table = make_table4({}, timings, inference_hardware="cpu (Some CPU, 2 threads)")
    unet = table.set_index("architecture").loc["unet"]
    assert unet[["inference_float32_s", "inference_float32_s_min", "inference_float32_s_max"]].tolist() == [
        0.25, 0.2, 0.4,
    ]  # fmt: skip
    assert unet["inference_float32_images_per_s"] == 4
    text = format_table4(table)
    assert "| unet | no finished training run | 0.25 (0.2–0.4) | 4 | 0.1 (0.1–0.1) | 10 |" in text
    assert "| setr | no finished training run | not installed |" in text
    assert "setr: install them with pip" in text
    assert "cpu (Some CPU, 2 threads)" in text
    assert "median (lowest–highest) of 3 repeats" in text


def test_an_architecture_that_cannot_be_built_spoils_no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    build = timing.build_model

    def build_some(architecture: str) -> object:
        if architecture == "setr":
            raise CracksegError("pip install 'crackseg[models]'")
        return build("unet", width=4)

    monkeypatch.setattr(timing, "build_model", build_some)
    monkeypatch.setattr(timing, "SIZE_PX", 64)
    timings = time_architectures(["setr", "unet"], device=torch.device("cpu"), repeats=2)
    assert (timings[0].architecture, timings[0].seconds) == ("setr", ())
    assert "crackseg[models]" in timings[0].problem
    assert {t.architecture for t in timings[1:]} == {"unet"}
    assert timings[1].precision == "float32"
    assert all(len(t.seconds) == 2 and 0 < min(t.seconds) < 5 for t in timings[1:])


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(CracksegError, match=r"unknown 'unett'; expected some of .*unet"):
        choose_architectures("deepcrack,unett")
    assert choose_architectures("unet, deepcrack,unet") == ("unet", "deepcrack")


def test_a_report_without_a_finished_cell_says_so_and_writes_nothing(
    store: Store, root: Path, finish: Finish
) -> None:
    run_id = store.create_run("something else")
    with store.record(run_id) as recorder:
        recorder.set_tags({"data.md5": "imported.dir"})
        recorder.end("FINISHED")
    with pytest.raises(
        CracksegError,
        match=r"no finished configuration: of 1 finished runs of the pipeline .*crackseg paper queue --table3",
    ):
        report.write_paper_report(root, store, architectures=(), repeats=1)
    assert not (root / "outputs").exists()
    assert [run.run_id for run in store.finished_runs()] == [run_id]


def test_a_report_is_a_run_with_all_its_files(store: Store, root: Path, finish: Finish) -> None:
    finish(RANDOM_G2, scores={"ods": 0.8})
    finish(RANDOM_G4, scores={"ods": 0.7})
    out_dir = root / "outputs" / "paper"
    out_dir.mkdir(parents=True, exist_ok=True)
    for name in ("figure4.png", "mine.txt"):
        (out_dir / name).write_text("of before")
    written = report.write_paper_report(root, store, architectures=(), repeats=1)
    assert (written.num_finished, written.num_missing) == (2, 8)
    run = store.get_run(written.run_id)
    assert (run.info.run_name, run.info.status) == ("paper-report", "FINISHED")
    assert run.data.metrics["cells_finished"] == 2
    assert run.data.metrics["CrackTree260/ods_difference/deeplabv3_resnet101/random/focal/2"] == pytest.approx(
        0.8 - 0.8449
    )
    files = {
        "deepcrack_table1.csv", "figure3.png", "report.md", "table3.csv", "table3.md", "table3.png", "table4.csv",
        "table4.md", "table4.png",
    }  # fmt: skip
    assert {path.name for path in out_dir.iterdir()} == files | {"mine.txt"}  # an older figure 4 would be a lie
    recorded = {Path(f.path).name for f in store.client.list_artifacts(written.run_id, "paper")}
    assert recorded == files
    assert "the weights of run" in written.remarks[0]
    page = (out_dir / "report.md").read_text(encoding="utf-8")
    assert written.remarks[0] in page
    assert "another training set (all 260 images of CrackTree260" in page
    assert "| HED | 0.8403 |" in page
    assert pd.read_csv(out_dir / "table3.csv")["status"].value_counts().to_dict() == {"missing": 32, "finished": 8}
    for name in ("table3", "table4", "figure3"):
        picture = read_image(out_dir / f"{name}.png")
        assert picture.shape[1] > 900
        assert (picture < 128).any(axis=2).mean() > 0.002  # something is written on it
