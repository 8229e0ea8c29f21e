"""A second term of the loss: agreement with the averaged weights' answer for the flipped patches.

Shape legend: B batch, 1 channel, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import nn

from crackseg.training.losses import Sums
from crackseg.training.step_graph import compute_maps

_FLIPS = ((), (2,), (3,), (2, 3))  # axes of (B, 1, H, W), in turn


class FlipAgreement:
    """Teach a network the average over flips of ``predict.flips``, so that it needs one pass instead of four.

    The teacher is the average of the network's own weights (Tarvainen and Valpola, Mean teachers are better role
    models, NeurIPS 2017). It sees the batch unflipped in the first step, then flipped in each of three ways, in turn.

    Args:
        averaged: network with the averaged weights; put into evaluation mode.
        weight: factor of the term, > 0.
        sums: see ``balanced_focal_loss``.
    """

    def __init__(self, averaged: nn.Module, weight: float, sums: Sums | None = None) -> None:
        self._averaged = averaged.eval()
        self._weight = weight
        self._sums = sums

    @torch.no_grad()
    def teach(
        self, images_B3HW: torch.Tensor, step: int, precision: torch.dtype, memory_format: torch.memory_format
    ) -> torch.Tensor:
        """Return the teacher's probabilities float32 (B, 1, H, W) for a batch uint8, in the step of this number."""
        axes = _FLIPS[step % len(_FLIPS)]
        output = compute_maps(self._averaged, images_B3HW.flip(axes), precision, memory_format)
        return output.logits.float().sigmoid().flip(axes)

    def distance(self, logits_B1HW: torch.Tensor, taught_B1HW: torch.Tensor) -> torch.Tensor:
        """Compute the weighted term: with p of the network and q of the teacher, Σ (p − q)² / Σ (p² + q²), in [0, 1].

        As in soft F, the many pixels without cracks, of which both are sure, count for nothing.
        """
        prob_B1HW = logits_B1HW.float().sigmoid()
        apart = (prob_B1HW - taught_B1HW).square().sum()
        size = prob_B1HW.square().sum() + taught_B1HW.square().sum()
        totals = torch.stack([apart, size])
        if self._sums is not None:
            totals = self._sums.add(totals)
        apart, size = totals.unbind()
        return self._weight * apart / torch.where(size > 0, size, 1)
