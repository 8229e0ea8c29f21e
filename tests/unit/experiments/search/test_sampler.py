"""The proposals of a search depend on its seed alone, whatever release of Optuna is installed."""

import optuna
import pytest

from crackseg.experiments.search.study import build_sampler


def proposals(name: str) -> list[tuple[str, float]]:
    study = optuna.create_study(direction="maximize")
    drawn = []
    for number in range(14):
        study.sampler = build_sampler(name, 0, number)
        trial = study.ask()
        loss, lr = trial.suggest_categorical("loss", ["a", "b"]), trial.suggest_float("lr", 1e-5, 0.1, log=True)
        study.tell(trial, -abs(lr - 0.01) - 0.01 * (loss == "a"))
        drawn.append((loss, float(f"{lr:.3g}")))
    return drawn[-3:]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tpe", [("b", 0.00684), ("b", 0.00471), ("b", 0.00686)]),
        ("random", [("a", 0.000713), ("b", 0.000113), ("a", 0.0198)]),
    ],
)
def test_the_same_seed_gives_the_same_search_as_ever(name: str, expected: list[tuple[str, float]]) -> None:
    assert proposals(name) == expected
