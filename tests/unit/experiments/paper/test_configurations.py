"""The configurations are the paper's: its Table 3, its 256 combinations, and what counts as a run of one."""

import re
from pathlib import Path

import pytest
import torch

from crackseg.errors import CracksegError
from crackseg.experiments.paper.configurations import (
    BEYOND,
    GRID,
    TABLE3,
    Configuration,
    PaperRow,
    apply_configuration,
    choose_configurations,
    find_departures,
    matches,
    runs_alike,
)
from crackseg.experiments.paper.published import read_table3
from crackseg.models import build_model
from crackseg.params import change_params, flatten_params, load_params

COMMITTED = load_params(Path(__file__).parents[4] / "params.yaml")
BEST = next(configuration for configuration in TABLE3 if configuration.name == "table3-random-focal-g2")


def record(configuration: Configuration, **changes: object) -> dict[str, str]:
    """The params that MLflow would show of a run of the configuration, in its notation."""
    params = change_params(
        apply_configuration(COMMITTED, configuration),
        {k.replace("__", "."): v for k, v in changes.items()},
        source="",
    )
    return {key: str(value) for key, value in flatten_params(params).items()}


def test_table3_has_the_rows_of_the_papers_table() -> None:
    rows = {PaperRow(*row) for row in read_table3()[list(PaperRow._fields)].itertuples(index=False)}
    assert {configuration.paper_row for configuration in TABLE3} == rows
    assert len(TABLE3) == 10


def test_the_grid_is_every_combination_once() -> None:
    settings = [dict(configuration.settings) for configuration in GRID]
    assert (
        len({configuration.settings for configuration in GRID})
        == len({configuration.name for configuration in GRID})
        == 256
    )
    assert {s["optimizer.lr"] for s in settings} == {0.1, 0.01, 0.001, 0.0001}
    assert {(s["loss.name"], s.get("loss.gamma")) for s in settings} == {
        ("bce", None), ("focal", 1), ("focal", 2), ("focal", 4),
    }  # fmt: skip
    for axis in ("model.num_classes", "model.normalize", "model.init", "model.train_layers"):
        assert len({s[axis] for s in settings}) == 2, axis


def test_the_cells_of_table3_are_cells_of_the_grid_and_queued_once() -> None:
    assert {configuration for configuration in GRID if configuration.paper_row} == {
        configuration for configuration in TABLE3 if configuration.system.startswith("deeplab")
    }
    assert len(choose_configurations(table3=True, grid=True)) == 258


@pytest.mark.parametrize("configuration", [*TABLE3, *GRID[::17]], ids=lambda configuration: configuration.name)
def test_every_cell_can_be_run(configuration: Configuration) -> None:
    params = apply_configuration(COMMITTED, configuration)
    assert flatten_params(params).items() >= {(k, v) for k, v in configuration.settings}
    assert re.fullmatch(r"[a-z0-9-]+", configuration.name)


def test_the_committed_settings_are_the_papers_best_cell() -> None:
    assert apply_configuration(COMMITTED, BEST) == COMMITTED
    assert find_departures(BEST, record(BEST)) == {}


def test_what_the_paper_does_not_do_is_a_departure_as_what_it_does_otherwise() -> None:
    beyond = {"augment.warp": "0.75", "train.ema_decay": "0.98", "predict.flips": "True", "train.batch_size": "4"}
    said = find_departures(BEST, record(BEST) | beyond)
    assert said == {
        "augment.warp": (0.0, "0.75"),
        "train.ema_decay": (0.0, "0.98"),
        "predict.flips": (False, "True"),
        "train.batch_size": (2, "4"),
    }
    committed = flatten_params(COMMITTED)
    assert {key: committed[key] for key in BEYOND} == dict(BEYOND)


@pytest.mark.parametrize("architecture", ["modified_unet", "deepcrack"])
def test_baselines_are_built_as_the_cells_say(architecture: str) -> None:
    configuration = next(configuration for configuration in TABLE3 if configuration.system == architecture)
    model = apply_configuration(COMMITTED, configuration).model.model_copy(update={"width": 4})
    assert build_model(**dict(model)) is not None


def test_a_width_or_encoder_of_another_architecture_does_not_stop_a_cell() -> None:
    other = {
        "model.architecture": "pspnet",
        "model.width": 8,
        "model.encoder": "resnet18",
        "model.batch_norm": False,
    }
    of_another = change_params(COMMITTED, other, source="-S")
    for configuration in TABLE3:
        model = apply_configuration(of_another, configuration).model
        with torch.device("meta"):
            build_model(**dict(model) | {"init": "random"})
        assert model.width == (
            None if configuration.system == "deeplabv3_resnet101" else 8
        )  # a width that it has stays


def test_a_run_matches_its_own_cell_only() -> None:
    for configuration in TABLE3:
        assert [other for other in TABLE3 if matches(other, record(configuration))] == [configuration]


@pytest.mark.parametrize(("key", "text"), [("loss.gamma", "2"), ("loss.gamma", "2.0"), ("optimizer.lr", "1e-04")])
def test_numbers_match_however_they_are_written(key: str, text: str) -> None:
    assert matches(BEST, record(BEST) | {key: text})


@pytest.mark.parametrize(
    ("key", "text"), [("loss.gamma", "4.0"), ("loss.gamma", "two"), ("model.normalize", "True")]
)
def test_other_values_do_not_match(key: str, text: str) -> None:
    assert not matches(BEST, record(BEST) | {key: text})


def test_a_run_without_the_key_does_not_match() -> None:
    recorded = record(BEST)
    del recorded["model.num_classes"]
    assert not matches(BEST, recorded)


def test_departures_name_key_paper_and_run() -> None:
    assert find_departures(BEST, record(BEST, train__epochs=2, optimizer__name="adamw")) == {
        "train.epochs": (300, "2"),
        "optimizer.name": ("sgd", "adamw"),
    }


def test_alpha_is_no_departure_where_no_focal_loss_reads_it() -> None:
    bce = next(configuration for configuration in TABLE3 if configuration.name == "table3-random-bce")
    assert find_departures(bce, record(bce, loss__alpha=5)) == {}
    assert "loss.alpha" in find_departures(BEST, record(BEST, loss__alpha=5))


@pytest.mark.parametrize("change", ["train.epochs=2", "train.seed=1", "augment.blur=0", "evaluate.tolerance_px=4"])
def test_a_run_under_other_settings_is_another(change: str) -> None:
    key, value = change.split("=")
    assert runs_alike(COMMITTED, record(BEST))
    assert not runs_alike(COMMITTED, record(BEST, **{key.replace(".", "__"): int(value)}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.device", "cuda"), ("train.num_workers", 8), ("train.cache_gb", 0), ("train.num_processes", 2),
        ("predict.engine", "torch"), ("predict.batch_size", 1), ("registry.model_name", "mine"),
        ("registry.max_drop", 0.1), ("registry.max_slowdown", 3),
    ],
)  # fmt: skip
def test_where_it_was_computed_or_judged_makes_no_other_run(key: str, value: object) -> None:
    assert runs_alike(COMMITTED, record(BEST, **{key.replace(".", "__"): value}))


def test_processes_that_normalise_each_its_own_share_make_another_run() -> None:
    alone = change_params(COMMITTED, {"train.sync_batch_norm": False}, source="")
    assert not runs_alike(alone, record(BEST, train__sync_batch_norm=False, train__num_processes=2))


def test_gamma_makes_no_other_run_of_cross_entropy() -> None:
    bce = next(configuration for configuration in TABLE3 if configuration.name == "table3-random-bce")
    assert runs_alike(apply_configuration(COMMITTED, bce), record(bce, loss__gamma=4))


def test_an_unknown_cell_is_refused_with_the_nearest() -> None:
    with pytest.raises(CracksegError, match=r"table3-random-focal-g3.*did you mean table3-random-focal-g"):
        choose_configurations(names=["table3-random-focal-g3"])


def test_no_choice_is_refused() -> None:
    with pytest.raises(CracksegError, match="--table3, --grid or --cell"):
        choose_configurations()


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(CracksegError, match=r"-S: unknown key train\.epoch; did you mean train\.epochs"):
        apply_configuration(COMMITTED, BEST, {"train.epoch": 2})
