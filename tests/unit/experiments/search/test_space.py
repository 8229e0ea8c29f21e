"""What may be searched, and what is refused before the first trial."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from crackseg.errors import CracksegError
from crackseg.experiments.search.space import Space, describe_space, iter_differences
from crackseg.experiments.search.study import list_paper_points
from crackseg.params import Params, change_params, load_params

BASE = load_params(Path(__file__).parents[4] / "params.yaml")


def with_space(space: dict[str, Any], **changes: Any) -> Params:
    return change_params(BASE, {"search.space": space} | changes, source="test")


def draw(space: Space, seed: int) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return space.suggest(study.ask())


def test_points_lie_in_their_ranges_and_params_yaml_takes_them() -> None:
    space = Space(
        with_space(
            {
                "optimizer": {"lr": {"low": 1e-5, "high": 0.1, "log": True}},
                "train": {"batch_size": {"low": 2, "high": 8, "step": 2}},
                "model": {"normalize": [False, True], "width": {"low": 4, "high": 16}},
            }
        )
    )
    points = [draw(space, seed) for seed in range(20)]
    assert all(1e-5 <= p["optimizer.lr"] <= 0.1 for p in points)
    assert sum(p["optimizer.lr"] < 1e-3 for p in points) > 4  # uniform, hardly one would
    assert {p["train.batch_size"] for p in points} == {2, 4, 6, 8}
    assert all(isinstance(p["model.width"], int) for p in points)
    for point in points:
        change_params(BASE, point, source="test")


def test_a_range_has_the_type_of_its_key_and_not_of_its_present_value() -> None:
    space = Space(
        with_space(
            {
                "model": {
                    "num_classes": {"low": 1, "high": 2},
                    "width": {"low": 4, "high": 8},
                },  # width is null now
                "loss": {"alpha": {"low": 1, "high": 3}},
            }
        )
    )
    assert {d.key: type(d.distribution).__name__ for d in space.dimensions} == {
        "model.num_classes": "IntDistribution",
        "model.width": "IntDistribution",
        "loss.alpha": "FloatDistribution",
    }


def test_gamma_is_drawn_with_the_focal_loss_only() -> None:
    space = Space(
        with_space(
            {"loss": {"gamma": {"low": 0, "high": 5, "when": {"loss.name": "focal"}}, "name": ["focal", "bce"]}}
        )
    )
    points = [draw(space, seed) for seed in range(20)]
    assert {p["loss.name"] for p in points} == {"focal", "bce"}
    assert all(("loss.gamma" in p) == (p["loss.name"] == "focal") for p in points)


def test_the_loss_with_soft_f_is_searched_with_its_own_keys() -> None:
    space = Space(
        with_space(
            {
                "loss": {
                    "name": ["focal", "bce_soft_f"],
                    "crack_weight": {"low": 5, "high": 50, "log": True, "when": {"loss.name": "bce_soft_f"}},
                    "tolerance_px": {"low": 0, "high": 4, "when": {"loss.name": "bce_soft_f"}},
                }
            }
        )
    )
    points = [draw(space, seed) for seed in range(20)]
    assert all(("loss.crack_weight" in p) == (p["loss.name"] == "bce_soft_f") for p in points)
    assert {type(p["loss.tolerance_px"]) for p in points if "loss.tolerance_px" in p} == {int}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"loss": {"gama": {"low": 0, "high": 5}}}, r"loss\.gama.*did you mean loss\.gamma"),
        ({"los": {"gamma": {"low": 0, "high": 5}}}, r"los.*did you mean loss"),
        ({"loss": {"gamma": {"low": 5, "high": 0}}}, r"loss\.gamma: low 5 is more than high 0"),
        ({"loss": {"gamma": {"low": 0, "high": 500}}}, r"loss\.gamma = 500.*less than or equal to 100"),
        ({"loss": {"gamma": {"low": 0, "high": 5, "log": True}}}, "begins above 0"),
        ({"loss": {"gamma": {"low": 1}}}, "both low and high"),
        ({"loss": {"gamma": {"low": 0, "high": 5, "step": 0.3}}}, "step 0.3 does not divide"),
        ({"loss": {"name": ["focal", "dice"]}}, "dice.*expected one of focal, bce"),
        ({"loss": {"name": {"low": 0, "high": 1}}}, "no number"),
        ({"loss": {"gamma": []}}, "at least one"),
        ({"train": {"epochs": {"low": 1.5, "high": 3}}}, "whole numbers"),
        ({"train": {"epochs": {"low": 0, "high": 3}}}, "train.epochs = 0"),
        ({"model": {"normalize": {"low": 0, "high": 1}}}, "no number"),
        ({"loss": {"gamma": {"low": 2, "high": 2}}}, "one point"),
        ({"loss": {"name": ["focal"], "gamma": None}}, "one point"),
        ({}, "one point"),
        ({"evaluate": {"tolerance_px": [2, 4]}}, "how the trials are scored"),
        ({"data": {"size_px": [256, 512]}}, "which images"),
        ({"search": {"seed": [1, 2]}}, "cannot be searched"),
        ({"loss": {"gamma": {"low": 0, "high": 5, "when": {"loss.name": "bce"}}}}, "never is"),
        ({"loss": {"gamma": {"low": 0, "high": 5, "when": {"loss.nme": "bce"}}}}, "params.yaml does not have"),
        (
            {
                "loss": {
                    "gamma": {"low": 0, "high": 5, "when": {"loss.alpha": 1}},
                    "alpha": {"choices": [1, 2], "when": {"loss.gamma": 1}},
                }
            },
            "circle",
        ),
    ],
)
def test_impossible_spaces_are_refused_with_their_key(space: dict[str, Any], message: str) -> None:
    with pytest.raises(CracksegError, match=message):
        Space(with_space(space))


def test_the_grid_is_every_point_once() -> None:
    params = with_space(
        {
            "loss": {
                "name": ["focal", "bce"],
                "gamma": {"low": 1, "high": 2, "step": 0.5, "when": {"loss.name": "focal"}},
            },
            "train": {"batch_size": [2, 4]},
        }
    )
    points = Space(params).list_points(seed=0)
    assert len(points) == 2 * (3 + 1)  # γ means nothing to cross-entropy
    assert {p.get("loss.gamma") for p in points} == {None, 1.0, 1.5, 2.0}
    assert points != Space(params).list_points(seed=1)


def test_a_grid_of_a_continuous_range_is_refused() -> None:
    space = Space(with_space({"loss": {"gamma": {"low": 0, "high": 5}}}))
    with pytest.raises(CracksegError, match=r"loss\.gamma has infinitely many"):
        space.list_points(seed=0)


def test_the_papers_cells_in_the_committed_space_are_its_32() -> None:
    points = list_paper_points(Space(BASE), "grid")
    # Four losses, four learning rates, two initialisations; α as the recipe of section 3.2 has it.
    assert len(points) == 32
    assert points["table3-random-focal-g2"] == {
        "loss.name": "focal", "loss.gamma": 2.0, "loss.alpha": 3.0, "optimizer.lr": 1e-4, "model.init": "random",
    }  # fmt: skip
    assert all("loss.gamma" not in p for p in points.values() if p["loss.name"] == "bce")
    assert len(list_paper_points(Space(BASE), "table3")) == 8


def test_from_weights_that_the_paper_does_not_have_its_cells_are_losses_and_learning_rates() -> None:
    fixed = change_params(BASE, {"model.architecture": "unet", "search.space.model.init": None}, source="test")
    scenes = change_params(fixed, {"model.init": "scenes"}, source="test")
    points = list_paper_points(Space(scenes), "grid")
    assert len(points) == 16  # four losses, four learning rates
    assert points["table3-focal-g2"] == {
        "loss.name": "focal", "loss.gamma": 2.0, "loss.alpha": 3.0, "optimizer.lr": 1e-4,
    }  # fmt: skip
    assert not any("random" in name or "coco" in name for name in points)
    coco = list_paper_points(Space(change_params(fixed, {"model.init": "coco"}, source="test")), "grid")
    assert len(coco) == 16
    assert all("coco" in name for name in coco)


def test_cells_outside_the_space_are_left_out() -> None:
    random_only = with_space(
        {"optimizer": {"lr": {"low": 1e-4, "high": 1e-2}}, "loss": {"gamma": {"low": 1.5, "high": 5}}}
    )
    assert {
        (p["optimizer.lr"], p["loss.gamma"]) for p in list_paper_points(Space(random_only), "grid").values()
    } == {(lr, gamma) for lr in (1e-4, 1e-3, 1e-2) for gamma in (2.0, 4.0)}
    bce_only = change_params(random_only, {"loss.name": "bce"}, source="test")
    assert {p["optimizer.lr"] for p in list_paper_points(Space(bce_only), "grid").values()} == {1e-4, 1e-3, 1e-2}
    assert all("bce" in name for name in list_paper_points(Space(bce_only), "grid"))


def test_differences_name_the_key_and_both_sides() -> None:
    ours, theirs = (describe_space(with_space({"loss": {"gamma": {"low": 0, "high": h}}})) for h in (5, 8))
    assert list(iter_differences(ours, theirs)) == ["loss.gamma: 0 to 8 in the study, 0 to 5 now"]
