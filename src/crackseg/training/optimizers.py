"""Build the optimiser and the learning-rate schedule of params.yaml."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from crackseg.params import OptimizerParams, SchedulerParams

_WARM_UP = 0.3  # of the steps, while one cycle's learning rate rises


def build_optimizer(network: nn.Module, params: OptimizerParams) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that are trained; on CUDA, one kernel updates all of them."""
    trained = [p for p in network.parameters() if p.requires_grad]
    fused = True if all(p.is_cuda for p in trained) else None
    if params.name == "sgd":
        return torch.optim.SGD(
            trained, lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay, fused=fused
        )
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[params.name]
    return adam(
        trained, lr=params.lr, betas=(params.momentum, 0.999), weight_decay=params.weight_decay, fused=fused
    )


def build_scheduler(optimizer: torch.optim.Optimizer, params: SchedulerParams, *, num_steps: int) -> Any:
    """Build the learning-rate scheduler: by epoch for plateau, by step for the others."""
    if params.name == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=params.factor, patience=params.patience
        )
    if params.name == "cosine":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, num_steps) / num_steps))
        )
    if params.name == "onecycle":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _one_cycle(min(step, num_steps) / num_steps)
        )
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)


def _one_cycle(progress: float) -> float:
    """Compute the fraction of the learning rate after a fraction of the steps: from 1/25 up to 1 at 0.3, then to 0."""
    if progress < _WARM_UP:
        return 1 - (1 - 1 / 25) * 0.5 * (1 + math.cos(math.pi * progress / _WARM_UP))
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))
