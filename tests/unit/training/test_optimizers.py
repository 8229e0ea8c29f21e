"""Learning-rate schedules of params.yaml."""

import pytest
import torch

from crackseg.params import SchedulerParams
from crackseg.training.optimizers import build_scheduler


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("cosine", [1.0, 0.5, 0.0, 0.0]),
        ("onecycle", [0.04, 0.8117, 0.0, 0.0]),
        ("none", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_by_step(name: str, rates: list[float]) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    params = SchedulerParams(name=name, factor=0.1, patience=10)
    scheduler = build_scheduler(optimizer, params, num_steps=100)
    found = []
    for _ in range(120):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [found[step] for step in (0, 50, 100, 119)] == pytest.approx(rates, abs=1e-4)
    assert max(found) == pytest.approx(1.0)
    assert name != "onecycle" or found.index(max(found)) == 30
