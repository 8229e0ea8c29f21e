"""Record a training step once as CUDA graphs, forward and backward, and replay it.

At the paper's batch of two a GPU waits for Python: a step of DeepLabV3-ResNet101 takes an H100 37 ms kernel by kernel,
and 21 ms as a graph, with the same kernels in the same order (docs/performance.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from crackseg.devices import autocast
from crackseg.errors import first_line
from crackseg.training.losses import Loss
from crackseg.types import ModelOutput

_log = logging.getLogger("crackseg")


class StepGraph:
    """Compute the loss of a batch, and its gradients, for batches of the shape of the first one.

    Recording has no side effects: it changes neither random numbers nor running statistics of later steps.

    Args:
        network: in training mode, on CUDA. Its gradients must be set to None, not to zero, before each step: they are
            memory of the graph.
        loss_function: of the whole batch.
        precision: of autocast.
    """

    def __init__(self, network: nn.Module, loss_function: Loss, precision: torch.dtype) -> None:
        self._batch_loss = _BatchLoss(network, loss_function, precision)
        self._shapes: tuple[torch.Size, torch.Size] | None = None
        self._recorded: Callable[..., object] | None = None

    def __call__(self, images_B3HW: Tensor, masks_B1HW: Tensor) -> Tensor | None:
        """Return the loss, whose ``backward`` gives the gradients.

        Args:
            images_B3HW, masks_B1HW: uint8, on the GPU.
        Returns:
            None for a batch of another shape than the first, and if this network cannot be recorded.
        """
        shapes = (images_B3HW.shape, masks_B1HW.shape)
        if self._shapes is None:
            self._shapes = shapes
            self._record(images_B3HW, masks_B1HW)
        if self._recorded is None or shapes != self._shapes:
            return None
        loss = self._recorded(images_B3HW, masks_B1HW)
        assert isinstance(loss, Tensor)
        return loss

    def _record(self, images_B3HW: Tensor, masks_B1HW: Tensor) -> None:
        device = images_B3HW.device
        buffers = {name: buffer.clone() for name, buffer in self._batch_loss.named_buffers()}
        numbers = torch.cuda.get_rng_state(device)
        try:
            # Copies are recorded: each step reads the graph's own memory.
            self._recorded = torch.cuda.make_graphed_callables(
                self._batch_loss, (images_B3HW.clone(), masks_B1HW.clone()), allow_unused_input=True
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning(
                "this network's step cannot be recorded as a CUDA graph (%s); training goes on without, slower",
                first_line(error),
            )
        finally:
            torch.cuda.set_rng_state(numbers, device)
            for name, buffer in self._batch_loss.named_buffers():
                buffer.copy_(buffers[name])


class _BatchLoss(nn.Module):
    """Compute the loss from stored pixels and masks."""

    def __init__(self, network: nn.Module, loss_function: Loss, precision: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.loss_function = loss_function
        self.precision = precision

    def forward(self, images_B3HW: Tensor, masks_B1HW: Tensor) -> Tensor:
        return self.loss_function(compute_maps(self.network, images_B3HW, self.precision), masks_B1HW)


def compute_maps(
    network: nn.Module,
    images_B3HW: Tensor,
    precision: torch.dtype,
    memory_format: torch.memory_format = torch.channels_last,
) -> ModelOutput:
    """Run a network in training on stored pixels (uint8)."""
    images_B3HW = images_B3HW.contiguous(memory_format=memory_format)
    with autocast(images_B3HW.device, precision):
        return network(images_B3HW.float().div_(255))
