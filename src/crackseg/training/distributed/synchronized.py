"""Differentiable sums over processes, and the batch normalisation for CPUs that uses them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class _AddOverProcesses(torch.autograd.Function):
    # torch's own are deprecated (torch.distributed.nn.functional) or private: docs/adr/0012.
    @staticmethod
    def forward(_context: Any, sums: torch.Tensor) -> torch.Tensor:
        sums = sums.clone()
        dist.all_reduce(sums)
        return sums

    @staticmethod
    def backward(_context: Any, gradient: torch.Tensor) -> torch.Tensor:
        # The loss in every process depends on this one's part of the sum.
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def add_over_processes(sums: torch.Tensor) -> torch.Tensor:
    """Add up a tensor over all processes, in each of them; differentiable.

    If each of N processes runs backward from the same loss, gradients of parts that only one of them has are N times
    too large; the mean that DistributedDataParallel takes of them is then right.
    """
    return _AddOverProcesses.apply(sums)


class SynchronizedBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of the whole batch; ``nn.SyncBatchNorm`` does it on GPUs only."""

    def _check_input_dim(self, _input: torch.Tensor) -> None:
        """Accept any number of dimensions, channels second."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, …), each channel by itself."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        others = [0, *range(2, x.ndim)]
        as_channels = (1, -1, *[1] * (x.ndim - 2))
        count = x.new_tensor([x.numel() // x.shape[1]])
        totals = add_over_processes(torch.cat([x.sum(others), count]))
        mean, total_count = totals[:-1] / totals[-1], totals[-1].detach()
        centred = x - mean.view(as_channels)
        variance = add_over_processes(centred.square().sum(others)) / total_count
        self._record(mean.detach(), variance.detach() * (total_count / (total_count - 1)))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        normalised = centred * scale.view(as_channels)
        if self.bias is not None:
            normalised = normalised + self.bias.view(as_channels)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _record(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


@cache
def _hide_from_compiler() -> None:
    """Let torch.compile leave the layer as it is; a decorator would import the compiler, 1.5 s, in every run."""
    SynchronizedBatchNorm.forward = torch.compiler.disable(SynchronizedBatchNorm.forward)  # type: ignore[method-assign]


def synchronize_batch_norm(network: nn.Module) -> nn.Module:
    """Let batch normalisation use the statistics of all processes; weights and their names stay.

    Args:
        network: on its device; it is changed in place, unless it is itself such a layer.
    """
    if next(network.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    _hide_from_compiler()
    for name, module in list(network.named_children()):
        if isinstance(module, _BatchNorm):
            synchronized = SynchronizedBatchNorm(
                module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
            )
            synchronized._parameters, synchronized._buffers = module._parameters, module._buffers
            synchronized.train(module.training)
            setattr(network, name, synchronized)
        elif next(module.parameters(), None) is not None:
            synchronize_batch_norm(module)
    return network
