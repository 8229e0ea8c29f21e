"""What counts as finished, and how long the rest is said to take."""

from pathlib import Path

import pytest

from crackseg.errors import CracksegError
from crackseg.experiments.paper.configurations import TABLE3, Configuration, apply_configuration
from crackseg.experiments.paper.durations import describe_durations, estimate_duration
from crackseg.experiments.paper.queue import find_finished, make_plan
from crackseg.params import Params, flatten_params, load_params
from crackseg.tracking.store import FinishedRun, Store

ROOT = Path(__file__).parents[4]
COMMITTED = load_params(ROOT / "params.yaml")
CONFIGURATIONS = {configuration.name: configuration for configuration in TABLE3}
BEST = CONFIGURATIONS["table3-random-focal-g2"]
SCORES = {f"{name}/ods": 0.8 for name in COMMITTED.data.test_datasets}


def make_run(run_id: str, params: Params, **fields: object) -> FinishedRun:
    recorded = {key: str(value) for key, value in flatten_params(params).items()}
    values: dict = {"tags": {"data.md5": "d1", "device": "cpu (here)"}, "metrics": dict(SCORES)} | fields
    return FinishedRun(run_id, run_id, recorded, values["tags"], values["metrics"])


def finished(configuration: Configuration, *runs: FinishedRun) -> str | None:
    found = find_finished(runs, {configuration.name: apply_configuration(COMMITTED, configuration)}, "d1")
    return found[configuration.name].run_id if found else None


def test_the_newest_run_with_all_figures_counts() -> None:
    partial = make_run("partial", COMMITTED, metrics={"CRKWH100/ods": 0.8})
    assert finished(BEST, partial, make_run("new", COMMITTED), make_run("old", COMMITTED)) == "new"


def test_a_run_of_a_version_without_the_newer_keys_is_finished(tmp_path: Path) -> None:
    """An upgrade must not train a table again: a key that was not there had its default's effect."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    store = Store(tmp_path)
    recorded = {key: str(value) for key, value in flatten_params(COMMITTED).items()}
    newer = {"augment.scenes", "augment.crop_at_cracks", "train.ema_decay", "predict.flips", "loss.tolerance_px"}
    run = store.client.create_run(store.experiment_id, run_name="old")
    for key in recorded.keys() - newer:
        store.client.log_param(run.info.run_id, key, recorded[key])
    for name, value in SCORES.items():
        store.client.log_metric(run.info.run_id, name, value)
    store.client.set_tag(run.info.run_id, "data.md5", "d1")
    store.client.set_terminated(run.info.run_id)
    assert finished(BEST, *store.finished_runs()) == run.info.run_id


def test_a_run_without_figures_of_a_test_dataset_is_not_finished() -> None:
    assert finished(BEST, make_run("a", COMMITTED, metrics={"CRKWH100/ods": 0.8})) is None


def test_a_run_on_other_data_is_not_finished() -> None:
    assert finished(BEST, make_run("a", COMMITTED, tags={"data.md5": "d2"})) is None


def test_a_run_of_another_cell_is_not_finished() -> None:
    other = apply_configuration(COMMITTED, CONFIGURATIONS["table3-random-focal-g4"])
    assert finished(BEST, make_run("a", other)) is None


def estimate(params: Params, *runs: FinishedRun, num_images: int = 200) -> tuple[float, str]:
    duration = estimate_duration(params, runs, machine="cpu (here)", data_md5="d1", num_images=num_images)
    return duration.seconds, duration.source


def test_an_unmeasured_training_takes_as_long_as_in_the_paper() -> None:
    assert estimate(COMMITTED) == (6 * 3600, "paper")
    shorter = apply_configuration(COMMITTED, CONFIGURATIONS["table3-modified-unet"], {"train.epochs": 30})
    assert estimate(shorter, num_images=100) == (pytest.approx(2.25 * 3600 / 20), "paper")


def test_a_measured_training_takes_as_long_as_here() -> None:
    short = apply_configuration(COMMITTED, BEST, {"train.epochs": 2})
    run = make_run("a", short, metrics={"training_seconds": 100.0})
    assert estimate(COMMITTED, run) == (15000, "measured")


@pytest.mark.parametrize(
    "fields",
    [{"tags": {"data.md5": "d1", "device": "cuda"}}, {"tags": {"data.md5": "d2", "device": "cpu (here)"}}],
)
def test_another_machine_or_other_data_measure_nothing(fields: dict) -> None:
    run = make_run("a", COMMITTED, metrics={"training_seconds": 100.0}, **fields)
    assert estimate(COMMITTED, run)[1] == "paper"


def test_training_only_the_classifier_is_measured_by_its_like() -> None:
    head = apply_configuration(COMMITTED, BEST, {})
    head = head.model_copy(update={"model": head.model.model_copy(update={"train_layers": "classifier"})})
    runs = [make_run("all", COMMITTED, metrics={"training_seconds": 3000.0})]
    assert estimate(head, *runs)[0] == 3000
    runs.append(make_run("head", head, metrics={"training_seconds": 900.0}))
    assert estimate(head, *runs)[0] == 900
    assert estimate(COMMITTED, *runs)[0] == 3000


def test_a_duration_that_nobody_knows_is_not_made_up() -> None:
    deepcrack = apply_configuration(COMMITTED, CONFIGURATIONS["table3-deepcrack"])
    durations = [
        estimate_duration(p, [], machine="m", data_md5="d1", num_images=200) for p in (COMMITTED, deepcrack)
    ]
    text = describe_durations(durations, machine="m")
    assert "at least about 6.0 h" in text
    assert "RTX 2080" in text
    assert "1 of unknown duration" in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.lr": 0.5}, r"-S optimizer\.lr=0\.5: this key distinguishes the configurations"),
        ({"model.width": 8}, r"configuration table3-coco-bce: model\.width = 8"),
        ({"train.epoch": 2}, r"unknown key train\.epoch"),
        ({"train.epochs": 0}, r"train\.epochs = 0"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_queued(
    tmp_path: Path, overrides: dict, message: str
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    with pytest.raises(CracksegError, match=message):
        make_plan(tmp_path, Store(tmp_path), TABLE3, overrides)
    assert not (tmp_path / ".dvc").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no data.dvc in .*crackseg data import"), ("<<<<<<< HEAD\nouts:\n", "data.dvc is in conflict")],
)
def test_data_without_a_version_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    if text is not None:
        (tmp_path / "data.dvc").write_text(text)
    with pytest.raises(CracksegError, match=message):
        make_plan(tmp_path, Store(tmp_path), [BEST], {})
