"""The figures of a study: what is drawn, and from which trials."""

from pathlib import Path

import cv2
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from crackseg.experiments.search.figures import draw_figures
from crackseg.experiments.search.study import Search
from crackseg.params import change_params, load_params

ROOT = Path(__file__).parents[4]
LR = FloatDistribution(1e-5, 0.1, log=True)
GAMMA = FloatDistribution(0, 5)
LOSS = CategoricalDistribution(["focal", "bce"])


def make_search(study: optuna.Study, **changes: str) -> Search:
    params = change_params(
        load_params(ROOT / "params.yaml"), {f"search.{k}": v for k, v in changes.items()}, source="test"
    )
    return Search(study, study._storage, params, {}, "run", Path("unused"))  # type: ignore[arg-type]


def add(study: optuna.Study, values: list[float], *, lr: float, gamma: float | None, pruned: bool = False) -> None:
    point = {"optimizer.lr": lr, "loss.name": "bce"} if gamma is None else {
        "optimizer.lr": lr, "loss.name": "focal", "loss.gamma": gamma
    }  # fmt: skip
    distributions = {"optimizer.lr": LR, "loss.name": LOSS, "loss.gamma": GAMMA}
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
            values=values,
            params=point,
            distributions={key: distributions[key] for key in point},
            intermediate_values={0: values[0] / 2, 1: values[0]} if len(values) == 1 else {},
        )
    )


def test_gamma_is_drawn_though_the_best_trial_has_none(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize", study_name="six")
    add(study, [0.9], lr=0.01, gamma=None)  # the best: BCE
    for i in range(5):
        add(study, [0.5 + 0.05 * i], lr=10**-i / 10, gamma=float(i))
    names = {path.name for path in draw_figures(make_search(study), tmp_path)}
    assert names == {"history.png", "importances.png", "slices.png", "contour.png"}


def test_a_figure_of_many_trials_is_no_longer_than_one_of_few(tmp_path: Path) -> None:
    shapes = []
    for number in (4, 60):
        study = optuna.create_study(direction="maximize", study_name=f"of-{number}")
        for i in range(number):
            add(study, [0.5 + 0.001 * i], lr=1e-3, gamma=None, pruned=i % 2 == 1)
        paths = {path.name: path for path in draw_figures(make_search(study), tmp_path / str(number))}
        shapes.append(cv2.imread(str(paths["pruning.png"])).shape)
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("second", ["inference_time", "parameters"])
def test_two_objectives_have_a_pareto_front(tmp_path: Path, second: str) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], study_name="front")
    for i in range(4):
        add(study, [0.5 + 0.1 * i, 1.0 + i], lr=10**-i / 10, gamma=float(i))
    names = {path.name for path in draw_figures(make_search(study, second_objective=second), tmp_path)}
    assert names == {"history.png", "importances.png", "slices.png", "contour.png", "pareto.png"}
