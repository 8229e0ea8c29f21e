"""The average of the weights is the exponential moving average of what the optimiser made."""

import pytest
import torch
from torch import nn

from crackseg.training.average import AveragedWeights


def test_weights_and_running_statistics_are_averaged_and_the_network_is_not_changed() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    average = AveragedWeights(network, 0.75)
    assert not [name for name in average.state_dict() if "_averaged" in name and name != "n_averaged"]
    expected: dict[str, torch.Tensor] = {}
    for step in range(5):
        with torch.no_grad():
            network[0].weight.fill_(float(step))
            network[1].running_mean.fill_(float(10 * step))
        average.update()
        now = {"weight": float(step), "mean": float(10 * step)}
        expected = {k: 0.75 * expected[k] + 0.25 * now[k] for k in now} if expected else now
    assert average.module[0].weight[0, 0].item() == pytest.approx(expected["weight"])
    assert average.module[1].running_mean[0].item() == pytest.approx(expected["mean"])
    assert network[0].weight[0, 0].item() == 4
