"""Exponential moving average of the weights (``train.ema_decay``)."""

from __future__ import annotations

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

    def update(self) -> None:
        """Take in the network's weights after an optimiser step."""
        self.update_parameters(self._averaged[0])
