"""Weights that are validated and saved instead of the optimiser's: their average, or nearer to the initial ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class AveragedWeights(AveragedModel):
    """Average of a network's weights and running statistics; ``module`` is a network that has them.

    Its state is saved with the checkpoint, since it does not follow from the weights.

    Args:
        network: whose weights are averaged, on its device.
        decay: fraction of the average that each update keeps, below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self._averaged = (network,)  # a tuple, so that torch does not register it as a part of this module

    def begin(self) -> None:
        """Take over the network's weights as they are before the first step."""
        self.module.load_state_dict(self._averaged[0].state_dict())

    def update(self) -> None:
        """Take in the network's weights after an optimiser step."""
        self.update_parameters(self._averaged[0])


class WithInitialWeights:
    """Network with weights and running statistics between the initial and the trained ones (``train.keep_initial``).

    Averaging with its initial weights lets a model that is trained further keep what it knew of other images (Wortsman
    et al., Robust fine-tuning of zero-shot models, CVPR 2022).

    Args:
        network: that is trained, on its device; it is copied.
        initial: state dict of the initial network.
        fraction: of the initial weights, in (0, 1).
    """

    def __init__(self, network: nn.Module, initial: Mapping[str, torch.Tensor], fraction: float) -> None:
        self.module = copy.deepcopy(network)
        self._initial = {key: value.to(network.state_dict()[key].device) for key, value in initial.items()}
        self._fraction = fraction

    def update(self, trained: nn.Module) -> None:
        """Take over the weights as they are now."""
        self.module.load_state_dict(trained.state_dict())
        mix_weights(self.module, self._initial, self._fraction)


def mix_weights(network: nn.Module, others: Mapping[str, torch.Tensor], fraction: float) -> None:
    """Give a network weights and running statistics between its own and those of another one.

    Two trainings from the same weights find different faults; their mean has fewer of each (Wortsman et al., Model
    soups, ICML 2022).

    Args:
        network: is changed.
        others: state dict of a network of the same architecture.
        fraction: of the other weights, in [0, 1].
    """
    network.load_state_dict(
        {
            key: torch.lerp(value, others[key], fraction) if value.is_floating_point() else value
            for key, value in network.state_dict().items()
        }
    )
