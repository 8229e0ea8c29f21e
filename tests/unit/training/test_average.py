"""The weights that are saved lie where they should: on the moving average, and nearer to the initial ones."""

import pytest
import torch
from torch import nn

from crackseg.training.average import AveragedWeights, WithInitialWeights


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


def test_a_part_of_the_initial_weights_and_running_statistics_is_kept() -> None:
    initial, trained = (nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)) for _ in range(2))
    for network, value in ((initial, 1.0), (trained, 5.0)):
        with torch.no_grad():
            network[0].weight.fill_(value)
            network[1].running_var.fill_(10 * value)
    trained[1].num_batches_tracked.fill_(7)
    between = WithInitialWeights(trained, initial.state_dict(), 0.25)
    between.update(trained)
    assert between.module[0].weight.flatten()[0].item() == pytest.approx(4)
    assert between.module[1].running_var[0].item() == pytest.approx(40)
    assert between.module[1].num_batches_tracked.item() == 7
    assert trained[0].weight.flatten()[0].item() == 5
